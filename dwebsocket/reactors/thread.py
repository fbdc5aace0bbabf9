"""Threads as the reactor: a thread that waits on a connection reads its socket; a background thread serves the rest.

Handing every message from a background thread to the view's thread would cost twice as much as a read in that thread.
So the background thread only sweeps over the connections on which no thread waits, a few times a second. While the
view computes, the sweep answers pings, notices closing handshakes, and keeps the deadlines. Bytes that the view does
not wait for, because they were offered, are not left to the sweep: the background thread waits for such sockets.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import logging
import math
import os
import queue
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
    from .. import _compiled as cython

from .base import (
    REENTERED,
    Deadlines,
    Exclusively,
    Latch,
    Link,
    LinkLock,
    Locked,
    Runner,
    Served,
    Turn,
    arrived,
    hung_up,
    run_logged,
)
from .pool import CAN_PARK, WATCH_SECONDS, Pool
from .wakeup import Wakeup

T = TypeVar("T")

logger = logging.getLogger("dwebsocket")

SWEEP_SECONDS = 0.2
_AGAIN_SECONDS = 1.0  # after so long, a deadline whose callback failed is tried again
_LONGEST_POLL_SECONDS = 24 * 60 * 60  # poll() takes its milliseconds as an int of C

_READ = select.POLLIN
_WRITE = select.POLLOUT
_READ_OR_GONE = ~_WRITE  # an error or a hang-up shows itself on the next read

_reactor: ThreadReactor | None = None
_reactor_lock = threading.Lock()


def current() -> ThreadReactor:
    """Return the reactor of this process; its thread starts with the first connection."""
    global _reactor
    with _reactor_lock:
        if _reactor is None:
            _reactor = ThreadReactor()
        return _reactor


def _after_fork() -> None:
    """Begin anew in the child of a fork, which threads do not survive."""
    global _reactor, _reactor_lock
    reactor, _reactor, _reactor_lock = _reactor, None, threading.Lock()
    if reactor is not None:
        reactor.abandon()


os.register_at_fork(after_in_child=_after_fork)


class ThreadReactor:
    """Serves all connections of this process from one background thread."""

    stops: tuple[type[BaseException], ...] = (SystemExit, KeyboardInterrupt)
    max_connections: int | None = 1000  # each view that waits is a thread
    parks = CAN_PARK
    max_threads = 32
    thread_ident = staticmethod(threading.get_ident)
    owner_thread: int | None = None

    def __init__(self) -> None:
        self._links: set[ThreadLink] = set()
        self._swept: set[ThreadLink] = set()  # those whose views are not parked
        self.pool: Pool | None = None  # its threads run the turns; made for the first view that is parked
        self._deadlines = Deadlines()
        # A __del__ may run wherever Python makes an object, and call a verb: the same thread may take this lock twice.
        self._lock: Any = threading.RLock()
        self._earlier: queue.SimpleQueue[None] = queue.SimpleQueue()  # an item wakes the background thread at once
        self._is_hurried = False  # a sweep is due
        self._thread: threading.Thread | None = None
        # Links with bytes that no thread waits to send: while there are some, the background thread waits for their
        # sockets. Each is looked at once, and comes back if it still has some.
        self._writers: set[ThreadLink] = set()
        self._wakeup: Wakeup | None = None  # ends that wait; made with the first of them
        self._polls = False  # the background thread waits so

    def link(self, served: Served, descriptor: int) -> ThreadLink:
        link = ThreadLink(self, served, descriptor)
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="dwebsocket", daemon=True)
                thread.start()
                self._thread = thread  # not before start(): where that fails, the next connection tries again
            self._links.add(link)
            self._swept.add(link)
        self.hurry()
        return link

    def park(self, link: ThreadLink) -> Pool:
        """Leave `link` to the threads of the pool, which is returned. RuntimeError and OSError as `Pool.add()`."""
        with self._lock:
            if self.pool is None:
                self.pool = Pool(self._wake)
            self.pool.max_threads = self.max_threads
            self.pool.add(link, is_open=link in self._links)
            self._swept.discard(link)
            return self.pool

    def call(self, function: Callable[[], T], undo: Callable[[T], None] | None = None) -> T:
        return function()

    def exclusively(self) -> Exclusively:
        return Locked()

    def turnstile(self) -> contextlib.AbstractContextManager[object]:
        return LinkLock()

    def spawn(self, function: Callable[[], None], name: str) -> None:
        threading.Thread(target=function, name=name, daemon=True).start()

    def post(self, function: Callable[[], object]) -> None:
        function()

    def worker(self, function: Callable[[], None], name: str) -> Callable[[], None]:
        return _Worker(function, name).wake

    def breathe(self, now: float) -> None:
        pass

    def enter(self, context: contextvars.Context) -> bool:
        return False

    def starter(self, function: Callable[[], None]) -> Callable[[], None]:
        # A signal may come while this very thread holds a lock that start() takes: so the thread starts now.
        wakeup = Wakeup()

        def run() -> None:
            poll = select.poll()  # select() knows no descriptor above 1,023
            poll.register(wakeup.descriptor, _READ)
            poll.poll()
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
        self._is_hurried = True
        self._wake()

    def write_soon(self, link: ThreadLink) -> None:
        """Call `link.serve()` once its socket takes bytes."""
        with self._lock:
            if link in self._writers or link not in self._links:
                return
            if self._wakeup is None:
                try:
                    self._wakeup = Wakeup()
                except OSError:  # no descriptor is left: the sweep looks at the link
                    return
            self._writers.add(link)
        if self._thread is not threading.current_thread():
            self._wake()

    def _wake(self) -> None:
        if self._earlier.empty():
            self._earlier.put(None)
        if self._polls and self._wakeup is not None:
            self._wakeup.set()

    def discard(self, link: ThreadLink) -> None:
        with self._lock:
            self._links.discard(link)
            self._swept.discard(link)
            self._deadlines.discard(link)
            is_polled = link in self._writers
            self._writers.discard(link)
        if is_polled:
            self._wake()  # as long as its descriptor is polled, the system does not close it

    def abandon(self) -> None:
        """End all links, in the child of a fork: the parent's threads have stopped in the middle of their work."""
        if self.pool is not None:
            self.pool.abandon()
        for link in self._links:
            link.abandon()
        if self._wakeup is not None:
            self._wakeup.close()
            self._wakeup = None

    def _run(self) -> None:
        while True:
            try:
                self._go_round()
            except BaseException:  # no memory, perhaps: without this thread no deadline would be kept ever again
                _report("the background thread was disturbed, and goes on")
                time.sleep(SWEEP_SECONDS)

    def _go_round(self) -> None:
        self._wait_for_next_round()
        self._is_hurried = False
        try:
            self._sweep()
        finally:
            now = time.monotonic()
            with self._lock:
                due = self._deadlines.pop_due(now)
            for link in due:
                self._attend(link, now)

    def _wait_for_next_round(self) -> None:
        seconds = self._seconds_to_next_round()
        due = None if seconds is None else time.monotonic() + seconds
        while not self._is_hurried:
            now = time.monotonic()
            seconds = None if due is None else due - now
            if seconds is not None and seconds <= 0:
                return
            if self.pool is not None and self.pool.is_watched:
                self.pool.watch(now)
                seconds = WATCH_SECONDS if seconds is None else min(seconds, WATCH_SECONDS)
            if self._writers:
                self._serve_writers(seconds)
            else:
                with contextlib.suppress(queue.Empty):
                    self._earlier.get(timeout=seconds)
                    self._earlier.get_nowait()  # two threads may have woken us at the same time

    def _serve_writers(self, seconds: float | None) -> None:
        """Serve the links that have bytes to send, as soon as the socket of one takes some."""
        poll = select.poll()
        with self._lock:
            links = {link.descriptor: link for link in self._writers}
        for descriptor in links:
            poll.register(descriptor, _WRITE)
        poll.register(self._wakeup.descriptor, _READ)  # type: ignore[union-attr]  # there is one where there are links
        self._polls = True
        try:
            if not self._earlier.empty():
                seconds = 0
            ready = poll.poll(None if seconds is None else math.ceil(seconds * 1000))
        finally:
            self._polls = False
        _empty(self._earlier)
        for descriptor, events in ready:
            link = links.get(descriptor)
            if link is None:
                self._wakeup.clear()  # type: ignore[union-attr]
                continue
            with self._lock:
                self._writers.discard(link)
            self._serve(link, events | _WRITE)  # a socket that has failed shows itself on the next write, too

    def _attend(self, link: ThreadLink, now: float) -> None:
        try:
            link.on_deadline(now)
        except BaseException:  # one failure must not stop the others
            self.schedule(link, now + _AGAIN_SECONDS)
            _report("a deadline of a WebSocket was missed")

    def _seconds_to_next_round(self) -> float | None:
        with self._lock:
            sweeps = SWEEP_SECONDS if self._links else None  # of parked ones, too: a turn may begin, and take long
            earliest = self._deadlines.earliest()
        if earliest is None:
            return sweeps
        due = max(0.0, earliest - time.monotonic())
        return due if sweeps is None else min(sweeps, due)

    def _sweep(self) -> None:
        poll = select.poll()
        busy = {}
        with self._lock:
            links = list(self._swept)
        if self.pool is not None:
            self.pool.look(time.monotonic())
            links += self.pool.busy_links()
        for link in links:
            if link.is_asked():
                continue  # the thread that has its lock serves it
            if link.resuming:
                self._serve(link, 0)
            elif not link.polling and link.mask:
                poll.register(link.descriptor, link.mask)
                busy[link.descriptor] = link
        # A descriptor that was closed meanwhile, or belongs to another file by now, costs a needless look at its link.
        for descriptor, events in poll.poll(0) if busy else ():
            self._serve(busy[descriptor], events)

    def _serve(self, link: ThreadLink, events: int) -> None:
        try:
            link.serve(events)
        except BaseException:  # one failure must not stop the others
            _report("a WebSocket could not be served")


class _Worker:
    """Runs a function in a thread, which starts with the first wake-up; once for all wake-ups before it begins."""

    def __init__(self, function: Callable[[], None], name: str) -> None:
        self._function = function
        self._name = name
        self._woken: queue.SimpleQueue[None] = queue.SimpleQueue()  # its put() can be called from a __del__, too
        self._has_thread = False
        self._lock: Any = threading.RLock()  # of the start; a __del__ may come into it

    def wake(self) -> None:
        if self._woken.empty():
            self._woken.put(None)
        if not self._has_thread:
            self._start()

    def _start(self) -> None:
        with self._lock:
            if self._has_thread:
                return
            self._has_thread = True
            try:
                threading.Thread(target=self._run, name=self._name, daemon=True).start()
            except Exception:
                self._has_thread = False  # the next wake-up tries again
                _report(f"{self._name} could not be started")

    def _run(self) -> None:
        try:
            while True:
                self._woken.get()
                _empty(self._woken)
                run_logged(self._function, self._name)
        finally:  # SystemExit: the next wake-up starts another thread
            self._has_thread = False


def _empty(items: queue.SimpleQueue[None]) -> None:
    with contextlib.suppress(queue.Empty):
        while True:
            items.get_nowait()


def _report(message: str) -> None:
    with contextlib.suppress(BaseException):  # no caller above the background thread could handle it
        logger.exception(message)


def _this_thread() -> int:
    if cython.compiled:
        return PyThread_get_thread_ident()  # type: ignore # noqa: F821
    return threading.get_ident()


class ThreadLink(Link):
    """One connection's lock, and the threads that wait for it: one of them polls, the others wait for that one."""

    def __init__(self, reactor: ThreadReactor, served: Served, descriptor: int) -> None:
        self._lock = LinkLock()
        super().__init__(self._lock, holds=False)
        self.descriptor = descriptor
        self.mask = 0
        self.polling = False
        self.resuming = False  # `on_readable` is due, though nothing new may arrive
        self._reactor = reactor
        self._served: Any = served  # a Served; None when it is over
        self._changed: Any = None  # a Condition of the lock, made for the first thread that waits: it takes a kilobyte
        self._poller = 0  # the thread that polls
        self._waiting = 0
        self._poll: Any = None
        self._wakeup: Wakeup | None = None
        self._dispose: Callable[[], None] | None = None
        self._closed = False
        self._pool: Pool | None = None  # where the view is parked
        self._armed = 0  # the events that the pool waits for
        self._is_attended = False  # by a thread that runs the turn itself, if it is due
        self._is_queued = False  # `Pool.attend()` was called, and no thread has come yet

    def employ(self, turn: Turn) -> None:
        self._pool = self._reactor.park(self)
        Link.employ(self, turn)  # Cython knows no super() here

    def attend(self, events: int) -> bool:
        """Handle `events`; True: the caller runs the turn. For the threads of the pool."""
        self._lock.acquire()
        self._is_attended = True
        try:
            if events:
                self._armed = 0  # EPOLLONESHOT: one event for each arm()
            else:
                self._is_queued = False
            self._handle(events)
            if self.is_due and not self.runs and self.turn is not None:
                self.is_due = False
                self.runs = True
                return True
            self._arm()
            return False
        finally:
            self._is_attended = False
            self._lock.release()

    def run_turn(self, runner: Runner) -> bool:
        again = False
        with contextlib.suppress(BaseException):  # the view has been told, and this thread serves others
            again = self.turn(runner)  # type: ignore[misc]  # a turn that runs is not taken away
        with self._lock:
            self.runs = False
            if (again or self.is_due) and self.turn is not None:
                self.is_due = True
                self._let_attend()
            self._arm()
        return True  # threads are not stopped

    def serve_parked(self, events: int) -> None:
        """Handle `events` where no thread of the pool is free. Never waits."""
        self._lock.post(functools.partial(self._serve_parked, events))

    def _serve_parked(self, events: int) -> None:
        self._armed = 0
        self._handle(events)
        self._arm()

    def _handle(self, events: int) -> None:
        """Call back, unless a thread of the project waits for the socket: that one does."""
        if not self.polling and not self._closed:
            self._call_back(events if self.mask & _READ else events & _WRITE)  # the mask may have changed since

    def _arm(self) -> None:
        if self._pool is not None and not (self.runs or self.polling or self._closed) and self.mask & ~self._armed:
            self._armed = self.mask
            self._pool.arm(self)

    def _let_attend(self) -> None:
        if not self._is_queued and self._pool is not None:
            self._is_queued = True
            self._pool.attend(self)

    def watch(self, *, read: bool, write: bool) -> None:
        self.reads, self.writes = read, write
        mask = (_READ if read else 0) | (_WRITE if write else 0)
        if mask != self.mask:
            self.mask = mask
            self._interrupt()
            if self._pool is not None:
                self._arm()

    def sleep(self, timeout_seconds: float | None) -> None:
        if self._closed:
            if self._dispose is not None:  # the thread that polls has not noticed yet
                self._wait_for_change(timeout_seconds)
            return
        if self.resuming:
            self._lock.give_way()
            if self.resuming:  # else another thread has looked on meanwhile
                self._call_back(0)
            return
        if self.polling and self._poller == _this_thread():
            raise RuntimeError(REENTERED)
        if self.polling or not self._can_be_woken():
            self._wait_for_change(timeout_seconds)  # the thread that polls, or the sweep, reads for us
            return
        self.polling = True
        self._poller = _this_thread()
        try:
            events = self._wait_for_socket(timeout_seconds)
        finally:
            self.polling = False
            self._finish_close()
            self._arm()
        self._call_back(events)
        if self._waiting:  # one of them takes over the polling
            self._changed.notify_all()

    def wake(self) -> None:
        if self._waiting:
            self._changed.notify_all()
        self._interrupt()
        if self.turn is not None and not self.is_due:
            self.is_due = True
            if not self.runs and not self._is_attended:
                self._let_attend()

    def resume(self) -> None:
        self.resuming = True
        self._interrupt()
        if self._pool is None:
            self._reactor.hurry()  # where no thread waits on the connection, the sweep calls
        else:
            self._let_attend()

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
        """Called by the reactor when the scheduled time has come. Never waits."""
        self._lock.post(functools.partial(self._on_deadline, now))

    def _on_deadline(self, now: float) -> None:
        if self._closed:
            return
        again: float | None = now + _AGAIN_SECONDS  # stays so when the callback fails
        try:
            again = self._served.on_deadline(now)
        finally:
            if again is not None:
                self.schedule(again)

    def is_asked(self) -> bool:
        """Whether the thread that holds the lock is about to do what the sweep has posted."""
        return self._lock.has_posted()

    def serve(self, events: int) -> None:
        """Handle `events` that the sweep found on a connection on which no thread waited. Never waits."""
        self._lock.post(functools.partial(self._serve, events))

    def _serve(self, events: int) -> None:
        if not self.polling:
            self._call_back(events)
            self.write_soon()

    def write_soon(self) -> None:
        if self.mask & _WRITE and not self.polling and not self._armed & _WRITE:
            self._reactor.write_soon(self)

    def abandon(self) -> None:
        """Be closed, in the child of a fork, and leave the socket alone: it is the parent's."""
        served, self._served = self._served, None
        self._lock.abandon()
        self._closed = True
        self._dispose = None
        self.turn = self._pool = None
        self.mask = self._waiting = 0
        self.polling = self.resuming = False
        if self._wakeup is not None:
            self._wakeup.close()
            self._wakeup = None
        if served is not None:
            served.on_fork()

    def close(self, dispose: Callable[[], None]) -> None:
        self._closed = True
        self._dispose = dispose
        self.mask = 0
        self._reactor.discard(self)
        if self._pool is not None:
            self._pool.remove(self)
        self.wake()
        self._finish_close()

    def _wait_for_change(self, timeout_seconds: float | None) -> None:
        if self._changed is None:
            self._changed = threading.Condition(self._lock)  # type: ignore[arg-type]  # LinkLock has all that it calls
        self._waiting += 1
        try:
            self._changed.wait(timeout_seconds)
        finally:
            self._waiting -= 1

    def _can_be_woken(self) -> bool:
        """Make the descriptor that wakes a poll, if there is none; False where the process has none left for it."""
        if self._wakeup is None:
            try:
                self._wakeup = Wakeup()
            except OSError:
                return False
        return True

    def _wait_for_socket(self, timeout_seconds: float | None) -> int:
        """Return the socket's events; 0 when the time is over or `wake()` was called. The lock is free meanwhile."""
        descriptor, mask, wakeup = self.descriptor, self.mask, self._wakeup.descriptor  # type: ignore[union-attr]
        milliseconds = -1 if timeout_seconds is None else math.ceil(min(timeout_seconds, _LONGEST_POLL_SECONDS) * 1000)
        self._lock.release()
        try:
            if cython.compiled:
                woken = False
                with cython.nogil:
                    events: int = wait_for_two(descriptor, mask, wakeup, milliseconds, cython.address(woken))  # type: ignore # noqa: F821
                # poll() was ended by a signal, perhaps. Its handler runs with the lock free, as it does inside Python's
                # own poll(): it may call a verb of this very connection.
                PyErr_CheckSignals()  # type: ignore # noqa: F821
            else:
                woken, events = self._wait_for_two(descriptor, mask, wakeup, milliseconds)
        finally:
            self._lock.acquire()
        if woken and self._wakeup is not None:
            self._wakeup.clear()
        return events

    def _wait_for_two(self, descriptor: int, mask: int, wakeup: int, milliseconds: int) -> tuple[bool, int]:
        if self._poll is None:
            self._poll = select.poll()
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
        """Release the descriptors once the link is closed and no thread polls them."""
        if self.polling or self._dispose is None:
            return
        dispose, self._dispose = self._dispose, None
        self._served = None  # it holds this link: without a cycle, its memory is freed at once
        try:
            dispose()
        finally:
            if self._wakeup is not None:
                self._wakeup.close()
                self._wakeup = None
            self.wake()  # a turn that ran while the socket was still polled has not seen that it is disposed of
