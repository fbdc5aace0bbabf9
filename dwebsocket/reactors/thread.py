"""Threads as the reactor: who waits on a connection reads its socket; one background thread serves the busy ones.

Handing every message from a background thread to the view's thread would cost twice what a read of its own does. So
the background thread only sweeps over the connections that nobody waits on, a few times a second: their pings are
answered, their closing handshakes noticed, and their deadlines kept, while the view computes.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

try:
    import cython
except ImportError:
    from ..protocol import uncompiled as cython

from .base import Deadlines, Exclusively, Latch, Link, Locked, Served, arrived, hung_up

T = TypeVar("T")

SWEEP_SECONDS = 0.2
_LONGEST_POLL_SECONDS = 24 * 60 * 60  # its milliseconds are an int of C

_READ = select.POLLIN
_WRITE = select.POLLOUT
_READ_OR_GONE = ~_WRITE  # an error or a hang-up shows itself on the next read

_reactor: ThreadReactor | None = None
_reactor_lock = threading.Lock()


def current() -> ThreadReactor:
    """The reactor of this process; its thread starts with the first connection."""
    global _reactor
    with _reactor_lock:
        if _reactor is None:
            _reactor = ThreadReactor()
        return _reactor


def _forget() -> None:
    """Threads do not survive a fork: the child begins anew."""
    global _reactor, _reactor_lock
    _reactor, _reactor_lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)


class ThreadReactor:
    """Serves all connections of this process from one background thread."""

    stops: tuple[type[BaseException], ...] = (SystemExit, KeyboardInterrupt)
    max_connections: int | None = 1000  # each view is a thread
    thread_ident = staticmethod(threading.get_ident)
    home: int | None = None

    def __init__(self) -> None:
        self._links: set[ThreadLink] = set()
        self._deadlines = Deadlines()
        self._lock = threading.Lock()
        self._earlier = threading.Event()  # something is due before the background thread would look again
        self._thread: threading.Thread | None = None

    def link(self, served: Served, descriptor: int) -> ThreadLink:
        link = ThreadLink(self, served, descriptor)
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="dwebsocket", daemon=True)
                thread.start()
                self._thread = thread  # only now: where no thread could be started, the next connection tries again
            self._links.add(link)
        self.hurry()
        return link

    def run_home(self, function: Callable[[], T]) -> T:
        return function()

    def exclusively(self) -> Exclusively:
        return Locked()

    def spawn(self, function: Callable[[], None], name: str) -> None:
        threading.Thread(target=function, name=name, daemon=True).start()

    def starter(self, function: Callable[[], None]) -> Callable[[], None]:
        # A signal may come while this very thread holds a lock that starting a thread takes.
        wakeup = Wakeup()

        def run() -> None:
            select.select([wakeup.descriptor], [], [])
            function()

        self.spawn(run, "dwebsocket starter")
        return wakeup.set

    def arrived(self, descriptor: int) -> bool:
        return arrived(select.poll(), descriptor)

    def latch(self) -> Latch:
        return threading.Event()

    def schedule(self, scheduled: Any, when: float) -> None:
        with self._lock:
            earliest = self._deadlines.add(scheduled, when)
        if earliest and (not self._links or when < time.monotonic() + SWEEP_SECONDS):
            self.hurry()

    def caller(self) -> int:
        return threading.get_ident()

    def frame_of(self, caller: int) -> FrameType | None:
        return sys._current_frames().get(caller)

    def hurry(self) -> None:
        """Sweep now."""
        self._earlier.set()

    def discard(self, link: ThreadLink) -> None:
        with self._lock:
            self._links.discard(link)
            self._deadlines.discard(link)

    def _run(self) -> None:
        while True:
            self._earlier.wait(self._seconds_to_next_round())
            self._earlier.clear()
            self._sweep()
            now = time.monotonic()
            with self._lock:
                due = self._deadlines.pop_due(now)
            for link in due:
                link.on_deadline(now)

    def _seconds_to_next_round(self) -> float | None:
        with self._lock:
            sweeps = SWEEP_SECONDS if self._links else None
            earliest = self._deadlines.earliest()
        if earliest is None:
            return sweeps
        due = max(0.0, earliest - time.monotonic())
        return due if sweeps is None else min(sweeps, due)

    def _sweep(self) -> None:
        poll = select.poll()
        busy = {}
        with self._lock:
            links = list(self._links)
        for link in links:
            if link.resuming:
                link.serve(0)
            elif not link.polling and link.mask:
                poll.register(link.descriptor, link.mask)
                busy[link.descriptor] = link
        # A descriptor that was closed meanwhile, or belongs to somebody else by now, costs a look at its link.
        for descriptor, events in poll.poll(0) if busy else ():
            busy[descriptor].serve(events)


class ThreadLink(Link):
    """One connection's lock, and the threads that wait for it: one of them polls, the others wait for that one."""

    def __init__(self, reactor: ThreadReactor, served: Served, descriptor: int) -> None:
        self._lock = threading.Lock()
        super().__init__(self._lock, holds=False)
        self.descriptor = descriptor
        self.mask = 0
        self.polling = False
        self.resuming = False  # to be read again, though nothing new may arrive
        self._reactor = reactor
        self._served: Any = served  # a Served; None when it is over
        self._changed = threading.Condition(self._lock)
        self._waiting = 0
        self._poll = select.poll()
        self._wakeup: Wakeup | None = None
        self._dispose: Callable[[], None] | None = None
        self._closed = False

    def watch(self, *, read: bool, write: bool) -> None:
        mask = (_READ if read else 0) | (_WRITE if write else 0)
        if mask != self.mask:
            self.mask = mask
            self._interrupt()

    def park(self, timeout_seconds: float | None) -> None:
        if self._closed:
            if self._dispose is not None:  # the thread that polls has not noticed yet
                self._wait_for_change(timeout_seconds)
            return
        if self.resuming:
            self._call_back(0)
            return
        if self.polling or not self._can_be_woken():
            self._wait_for_change(timeout_seconds)  # the thread that polls, or the sweep, reads for us
            return
        self.polling = True
        try:
            events = self._wait_for_socket(timeout_seconds)
        finally:
            self.polling = False
            self._finish_close()
        self._call_back(events)
        if self._waiting:  # one of them takes over the polling
            self._changed.notify_all()

    def wake(self) -> None:
        if self._waiting:
            self._changed.notify_all()
        self._interrupt()

    def resume(self) -> None:
        self.resuming = True
        self._interrupt()
        self._reactor.hurry()  # where nobody waits

    def breathe(self, now: float) -> None:
        pass

    def look(self, *, pause: bool) -> None:
        if not self.polling and self.mask & _READ:
            self._served.on_readable()

    def hung_up(self) -> bool:
        return not self._closed and hung_up(select.poll(), self.descriptor)

    def arrived(self) -> bool:
        return not self._closed and self._reactor.arrived(self.descriptor)

    def schedule(self, when: float) -> None:
        if not self._closed:
            self._reactor.schedule(self, when)

    def on_deadline(self, now: float) -> None:
        with self._lock:
            if self._closed:
                return
            again = self._served.on_deadline(now)
        if again is not None:
            self._reactor.schedule(self, again)

    def serve(self, events: int) -> None:
        """What the sweep found: `events` on a connection that nobody was waiting on."""
        with self._lock:
            if not self.polling:
                self._call_back(events)

    def close(self, dispose: Callable[[], None]) -> None:
        self._closed = True
        self._dispose = dispose
        self.mask = 0
        self._reactor.discard(self)
        self.wake()
        self._finish_close()

    def _wait_for_change(self, timeout_seconds: float | None) -> None:
        self._waiting += 1
        try:
            self._changed.wait(timeout_seconds)
        finally:
            self._waiting -= 1

    def _can_be_woken(self) -> bool:
        """Make what wakes a poll, at the first one; False where the process has no descriptor left for it."""
        if self._wakeup is None:
            try:
                self._wakeup = Wakeup()
            except OSError:
                return False
        return True

    def _wait_for_socket(self, timeout_seconds: float | None) -> int:
        """What is ready on the socket; 0 when the time is over or `wake()` was called. The lock is free meanwhile."""
        descriptor, mask, wakeup = self.descriptor, self.mask, self._wakeup.descriptor  # type: ignore[union-attr]
        milliseconds = -1 if timeout_seconds is None else math.ceil(min(timeout_seconds, _LONGEST_POLL_SECONDS) * 1000)
        self._lock.release()
        try:
            if cython.compiled:
                woken = False
                with cython.nogil:
                    events: int = wait_for_two(descriptor, mask, wakeup, milliseconds, cython.address(woken))  # type: ignore # noqa: F821
            else:
                woken, events = self._wait_for_two(descriptor, mask, wakeup, milliseconds)
        finally:
            self._lock.acquire()
        if cython.compiled:
            PyErr_CheckSignals()  # type: ignore # noqa: F821  # poll() was ended by one, perhaps
        if woken and self._wakeup is not None:
            self._wakeup.clear()
        return events

    def _wait_for_two(self, descriptor: int, mask: int, wakeup: int, milliseconds: int) -> tuple[bool, int]:
        poll = self._poll
        if mask:
            poll.register(descriptor, mask)
        else:
            with contextlib.suppress(KeyError):
                poll.unregister(descriptor)
        poll.register(wakeup, _READ)
        ready = dict(poll.poll(milliseconds))
        return wakeup in ready, ready.get(descriptor, 0)

    def _call_back(self, events: int) -> None:
        resuming, self.resuming = self.resuming, False
        if (resuming or events & _READ_OR_GONE) and not self._closed:
            self._served.on_readable()
        if events & _WRITE and not self._closed:
            self._served.on_writable()

    def _interrupt(self) -> None:
        if self.polling and self._wakeup is not None:
            self._wakeup.set()

    def _finish_close(self) -> None:
        """Let go of the descriptors once the link is closed and nobody polls them."""
        if self.polling or self._dispose is None:
            return
        dispose, self._dispose = self._dispose, None
        self._served = None  # which holds us: no cycle keeps its memory from being freed at once
        try:
            dispose()
        finally:
            if self._wakeup is not None:
                self._wakeup.close()
                self._wakeup = None
            if self._waiting:
                self._changed.notify_all()


class Wakeup:
    """A descriptor that becomes readable on request, so that a thread in poll() can be woken."""

    def __init__(self) -> None:
        if hasattr(os, "eventfd"):
            self.descriptor = self._write_end = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:  # pragma: no cover (macOS)
            self.descriptor, self._write_end = os.pipe()
            os.set_blocking(self.descriptor, False)
            os.set_blocking(self._write_end, False)

    def set(self) -> None:
        """Make it readable."""
        with contextlib.suppress(BlockingIOError):  # it is so already
            os.write(self._write_end, (1).to_bytes(8, "little"))

    def clear(self) -> None:
        """Make it wait again."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.descriptor, 4096)

    def close(self) -> None:
        """Give the descriptors back."""
        for descriptor in {self.descriptor, self._write_end}:
            os.close(descriptor)
