"""gevent's hub as the reactor: one watcher per socket stays registered, and its callback does the reading."""

from __future__ import annotations

import contextlib
import os
import time
import weakref
from collections.abc import Callable
from typing import Any, TypeVar, cast

import gevent
import gevent.event
import gevent.hub
import gevent.monkey
from gevent._hub_local import get_hub_if_exists

from .base import Deadlines, Exclusively, Latch, Served, arrived, hung_up

T = TypeVar("T")

_READ, _WRITE = 1, 2  # libev's names for them
_LONGEST_TIMER_SECONDS = 24 * 60 * 60
_LONGEST_TURN_SECONDS = 0.005  # that a greenlet which never waits may keep the hub from running
_ONE_TURN_SECONDS = 1e-6  # a timer: of callbacks, which sleep(0) is, gevent runs up to 50 rounds in one turn
_allocate_lock = gevent.monkey.get_original("_thread", "allocate_lock")
_poll = gevent.monkey.get_original("select", "poll")
_get_ident = gevent.monkey.get_original("_thread", "get_ident")

_reactors: weakref.WeakSet[GeventReactor] = weakref.WeakSet()
_of_thread = gevent.monkey.get_original("_thread", "_local")()  # a thread has one hub


def current() -> GeventReactor:
    """The reactor of the calling thread's hub."""
    loop = gevent.get_hub().loop
    reactor: GeventReactor | None = getattr(_of_thread, "reactor", None)
    if reactor is None or reactor.loop is not loop:
        reactor = _of_thread.reactor = GeventReactor(loop)
    return reactor


def _forget() -> None:
    """The child begins anew; what it inherited watches the connections of its parent."""
    _of_thread.__dict__.clear()
    for reactor in list(_reactors):
        reactor.abandon()


os.register_at_fork(after_in_child=_forget)


class GeventReactor:
    """Serves all connections of one hub."""

    stops: tuple[type[BaseException], ...] = (gevent.GreenletExit, SystemExit, KeyboardInterrupt)
    max_connections: int | None = None

    def __init__(self, loop: Any) -> None:
        self.loop = loop
        self.ran = 0.0  # when the hub had its last turn, as far as we know
        self._thread_ident = _get_ident()
        self._deadlines = Deadlines()
        self._timer = self.loop.timer(0, ref=False)
        self._links: set[GeventLink] = set()
        _reactors.add(self)

    def link(self, served: Served, descriptor: int) -> GeventLink:
        link = GeventLink(self, served, descriptor)
        self._links.add(link)
        return link

    def discard(self, link: GeventLink) -> None:
        self._links.discard(link)
        self._deadlines.discard(link)

    def abandon(self) -> None:
        """Watch nothing any more, and leave everything as it is."""
        self._timer.stop()
        for link in self._links:
            link.abandon()

    def is_home(self) -> bool:
        return bool(_get_ident() == self._thread_ident)

    def run_home(self, function: Callable[[], T]) -> T:
        outcome: list[tuple[T | None, BaseException | None]] = []
        hub = get_hub_if_exists()
        sleep = _ThreadSleep() if hub is None else _HubSleep(hub)

        def run() -> None:
            try:
                outcome.append((function(), None))
            except BaseException as error:
                outcome.append((None, error))
            finally:
                sleep.end()

        self.loop.run_callback_threadsafe(gevent.spawn, run)
        sleep.wait()
        result, error = outcome[0]
        if error is not None:
            raise error
        return cast(T, result)

    def exclusively(self) -> Exclusively:
        # What never waits is never interrupted in the hub's thread. A lock could be held by a thread that waits for it.
        return lambda function: function() if self.is_home() else self.run_home(function)

    def spawn(self, function: Callable[[], None], name: str) -> None:
        gevent.spawn(function).name = name

    def starter(self, function: Callable[[], None]) -> Callable[[], None]:
        return lambda: gevent.spawn(function)

    def latch(self) -> Latch:
        return gevent.event.Event()  # type: ignore[no-any-return]

    def schedule(self, link: GeventLink, when: float) -> None:
        if self._deadlines.add(link, when):
            self._arm()

    def _arm(self) -> None:
        self._timer.close()
        earliest = self._deadlines.earliest()
        self._timer = self.loop.timer(self._seconds_until(earliest), ref=False)
        if earliest is not None:
            self._timer.start(self._on_timer, update=True)

    @staticmethod
    def _seconds_until(when: float | None) -> float:
        return min(max(0.0, (when or 0.0) - time.monotonic()), _LONGEST_TIMER_SECONDS)

    def _on_timer(self) -> None:
        now = time.monotonic()
        for link in self._deadlines.pop_due(now):
            link.on_deadline(now)
        self._arm()


class _ThreadSleep:
    """How a thread without a hub waits for what another thread does."""

    def __init__(self) -> None:
        self._lock = _allocate_lock()
        self._lock.acquire()
        self.end = self._lock.release

    def wait(self) -> None:
        self._lock.acquire()


class _HubSleep:
    """How a greenlet waits for what another thread does: its own hub runs on."""

    def __init__(self, hub: Any) -> None:
        self._waiter = gevent.hub.Waiter(hub)
        self._watcher = hub.loop.async_()
        self._watcher.start(self._waiter.switch, None)
        self.end = self._watcher.send

    def wait(self) -> None:
        try:
            self._waiter.get()
        finally:
            self._watcher.close()


class GeventLink:
    """One connection's watchers on the hub's loop, and the greenlets that wait for it.

    The hub runs one greenlet at a time and switches only where somebody parks: the lock is nothing.
    """

    __slots__ = (
        "_closed",
        "_descriptor",
        "_in_callback",
        "_reactor",
        "_readable",
        "_resuming",
        "_served",
        "_waiters",
        "_woken",
        "_writable",
    )

    lock: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()

    def __init__(self, reactor: GeventReactor, served: Served, descriptor: int) -> None:
        self._reactor = reactor
        self._served = served
        self._descriptor = descriptor
        self._readable = reactor.loop.io(descriptor, _READ)
        self._writable = reactor.loop.io(descriptor, _WRITE)
        self._resuming: Any = None  # a timer, at the first need
        self._waiters: list[Any] = []
        self._in_callback = self._woken = False
        self._closed = False

    def watch(self, *, read: bool, write: bool) -> None:
        if self._closed:
            return
        for watcher, wanted, callback in (
            (self._readable, read, self._on_readable),
            (self._writable, write, self._on_writable),
        ):
            if wanted and not watcher.active:
                watcher.start(callback)
            elif watcher.active and not wanted:
                watcher.stop()

    def park(self, timeout_seconds: float | None) -> None:
        waiter = gevent.hub.Waiter()
        self._waiters.append(waiter)
        timer = None
        if timeout_seconds is not None:
            timer = self._reactor.loop.timer(timeout_seconds)
            timer.start(waiter.switch, None, update=True)
        try:
            waiter.get()
            self._reactor.ran = time.monotonic()
        finally:
            if timer is not None:
                timer.close()
            with contextlib.suppress(ValueError):  # whoever was woken is not in the list any more
                self._waiters.remove(waiter)

    def wake(self) -> None:
        if self._in_callback:
            self._woken = True
        elif self._waiters:
            self._reactor.loop.run_callback(self._switch)

    def resume(self) -> None:
        if self._closed:
            return
        if self._resuming is None:
            self._resuming = self._reactor.loop.timer(0)
        if not self._resuming.active:
            self._resuming.start(self._on_readable, update=True)

    def breathe(self) -> None:
        now = time.monotonic()
        if now - self._reactor.ran > _LONGEST_TURN_SECONDS:
            self._reactor.ran = now
            gevent.sleep(_ONE_TURN_SECONDS)

    def look(self, *, pause: bool) -> None:
        if self._readable.active:  # the hub may not have run for long
            self._served.on_readable()
        if pause:
            gevent.sleep(0)
            self.breathe()

    def hung_up(self) -> bool:
        return not self._closed and hung_up(_poll(), self._descriptor)

    def arrived(self) -> bool:
        return not self._closed and arrived(_poll(), self._descriptor)

    def schedule(self, when: float) -> None:
        if not self._closed:
            self._reactor.schedule(self, when)

    def on_deadline(self, now: float) -> None:
        if self._closed:
            return
        again = self._call_back(self._served.on_deadline, now)
        if again is not None:
            self.schedule(again)

    def abandon(self) -> None:
        """Watch nothing any more."""
        for watcher in self._watchers():
            watcher.stop()

    def close(self, dispose: Callable[[], None]) -> None:
        self._closed = True
        self._reactor.discard(self)
        for watcher in self._watchers():
            watcher.stop()
            watcher.close()
        del self._served  # which holds us: no cycle keeps its memory from being freed at once
        dispose()
        self.wake()

    def _watchers(self) -> list[Any]:
        return [watcher for watcher in (self._readable, self._writable, self._resuming) if watcher is not None]

    def _on_readable(self) -> None:
        self._call_back(self._served.on_readable)

    def _on_writable(self) -> None:
        self._call_back(self._served.on_writable)

    def _call_back(self, method: Callable[..., Any], *arguments: Any) -> Any:
        """Call `method` in the hub, then let those who waited for it run: a switch, not a trip through the loop."""
        self._in_callback = True
        try:
            return method(*arguments)
        finally:
            woken, self._in_callback, self._woken = self._woken, False, False
            if woken:
                self._switch()

    def _switch(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.switch(None)
