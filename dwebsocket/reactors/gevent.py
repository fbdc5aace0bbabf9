"""gevent's hub as the reactor: one watcher per socket stays registered, and its callback does the reading."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import os
import time
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar, cast

import gevent
import gevent.event
import gevent.hub
import gevent.lock
import gevent.monkey
from gevent._hub_local import get_hub_if_exists
from gevent.exceptions import BlockingSwitchOutError
from greenlet import getcurrent, greenlet

from .base import REENTERED, Deadlines, Exclusively, Latch, Link, Runner, Served, arrived, hung_up, run_logged
from .runners import Runners

T = TypeVar("T")

logger = logging.getLogger("dwebsocket")

_AGAIN_SECONDS = 1.0  # after so long, a deadline whose callback failed is tried again
_READ, _WRITE = 1, 2  # the numbers that libev has for them
_LONGEST_TIMER_SECONDS = 24 * 60 * 60
_LONGEST_TURN_SECONDS = 0.005  # a greenlet that never waits may keep the hub from running for so long
_ONE_TURN_SECONDS = 1e-6  # a timer: of callbacks, which sleep(0) is, gevent runs up to 50 rounds in one turn
_allocate_lock = gevent.monkey.get_original("_thread", "allocate_lock")
_poll = gevent.monkey.get_original("select", "poll")
_get_ident = gevent.monkey.get_original("_thread", "get_ident")
_switch = greenlet.switch
_getcurrent = getcurrent

_reactors: weakref.WeakSet[GeventReactor] = weakref.WeakSet()
_of_thread = gevent.monkey.get_original("_thread", "_local")()  # a thread has one hub


def current() -> GeventReactor:
    """Return the reactor of the calling thread's hub."""
    loop = gevent.get_hub().loop
    reactor: GeventReactor | None = getattr(_of_thread, "reactor", None)
    if reactor is None or reactor.loop is not loop:
        reactor = _of_thread.reactor = GeventReactor(loop)
    return reactor


def _after_fork() -> None:
    """Begin anew in the child of a fork: the reactors that it inherits watch connections of its parent."""
    _of_thread.__dict__.clear()
    for reactor in list(_reactors):
        reactor.abandon()


os.register_at_fork(after_in_child=_after_fork)


class GeventReactor:
    """Serves all connections of one hub."""

    stops: tuple[type[BaseException], ...] = (gevent.GreenletExit, SystemExit, KeyboardInterrupt)
    max_connections: int | None = None
    parks = True
    max_threads = 0  # says nothing here: turns run in greenlets
    thread_ident = staticmethod(_get_ident)

    def __init__(self, loop: Any) -> None:
        self.loop = loop
        self.turns = Turns(gevent.get_hub(), loop)
        self.runners = Runners(gevent.get_hub(), loop, _runner_greenlet)
        self.owner_thread = _get_ident()
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
        """Watch nothing and wake no greenlet any more; everything else stays as it is."""
        self._timer.stop()
        self.turns.abandon()
        self.runners.abandon()
        for link in self._links:
            link.abandon()

    def call(self, function: Callable[[], T], undo: Callable[[T], None] | None = None) -> T:
        hub = get_hub_if_exists()
        sleep = _ThreadSleep() if hub is None else _HubSleep(hub)
        errand = _Errand(function, undo, sleep.end)
        self.loop.run_callback_threadsafe(errand.start)
        try:
            sleep.wait()
        except BaseException:  # gevent's Timeout, of the caller's own hub
            self.loop.run_callback_threadsafe(errand.stop)
            raise
        return cast(T, errand.result())

    def exclusively(self) -> Exclusively:
        # On the hub's thread, a function that never waits is never interrupted. A lock could deadlock: a foreign thread
        # that holds it waits for the hub.
        return self._run_exclusively

    def _run_exclusively(self, function: Callable[[], None]) -> None:
        if _get_ident() == self.owner_thread:
            function()
        else:
            self.call(function)

    def turnstile(self) -> contextlib.AbstractContextManager[object]:
        return _Turnstile(self)

    def spawn(self, function: Callable[[], None], name: str) -> None:
        greenlet = ViewGreenlet(function)
        greenlet.name = name
        greenlet.start()

    def post(self, function: Callable[[], object]) -> None:
        self.loop.run_callback_threadsafe(function)

    def worker(self, function: Callable[[], None], name: str) -> Callable[[], None]:
        return _Worker(self, function, name).wake

    def breathe(self, now: float) -> None:
        self.turns.breathe(now)

    def enter(self, context: contextvars.Context) -> bool:
        getcurrent().gr_context = context
        return True

    def starter(self, function: Callable[[], None]) -> Callable[[], None]:
        return lambda: gevent.spawn(function)

    def arrived(self, descriptor: int) -> bool:
        return arrived(_poll(), descriptor)

    def latch(self) -> Latch:
        return gevent.event.Event()  # type: ignore[no-any-return]

    def schedule(self, scheduled: Any, when: float) -> None:
        if self._deadlines.add(scheduled, when):
            self._arm()

    def caller(self) -> weakref.ref[Any]:
        return weakref.ref(getcurrent())

    def frame_of(self, caller: weakref.ref[Any]) -> FrameType | None:
        return getattr(caller(), "gr_frame", None)

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
        try:
            for link in self._deadlines.pop_due(now):
                self._attend(link, now)
        finally:
            self._arm()

    def _attend(self, link: GeventLink, now: float) -> None:
        try:
            link.on_deadline(now)
        except Exception:  # one failure must not stop the others
            self.schedule(link, now + _AGAIN_SECONDS)
            with contextlib.suppress(Exception):
                logger.exception("a deadline of a WebSocket was missed")


class ViewGreenlet(gevent.Greenlet):  # type: ignore[misc]  # gevent ships no types
    """The greenlet of a view."""

    spawning_stack_limit = 0  # no frames of the server: no code needs them, and they would live as long as the view


def _runner_greenlet(run: Callable[[], None]) -> ViewGreenlet:
    greenlet = ViewGreenlet(run)
    greenlet.name = "websocket turns"
    return greenlet


class _Worker:
    """Runs a function in a greenlet of the hub, once for all wake-ups before it begins."""

    def __init__(self, reactor: GeventReactor, function: Callable[[], None], name: str) -> None:
        self._reactor = reactor
        self._function = function
        self._name = name
        self._is_woken = False  # and the function has not begun since
        self._runs = False

    def wake(self) -> None:
        if self._is_woken:
            return  # the first to wake it starts it
        self._is_woken = True
        if _get_ident() == self._reactor.owner_thread:
            self._start()
        else:
            self._reactor.post(self._start)

    def _start(self) -> None:
        if not self._runs:
            self._runs = True
            contextvars.Context().run(self._reactor.spawn, self._run, self._name)  # in that of no view that wakes it

    def _run(self) -> None:
        try:
            while self._is_woken:
                self._is_woken = False
                run_logged(self._function, self._name)
        finally:
            self._runs = False
            if self._is_woken:  # the greenlet was killed
                self._start()


class _Errand:
    """A function that runs in the hub for a caller in another thread, until that caller is stopped."""

    def __init__(
        self, function: Callable[[], Any], undo: Callable[[Any], None] | None, end: Callable[[], object]
    ) -> None:
        self._function = function
        self._undo = undo
        self._end = end
        self._greenlet: Any = None
        self._outcome: tuple[Any, BaseException | None] | None = None
        self._is_wanted = True

    def start(self) -> None:
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """Stop it, or take its result back. Called in the hub: nothing comes in between."""
        self._is_wanted = False
        if self._outcome is None:
            self._greenlet.kill(block=False)
        else:
            self._take_back()

    def result(self) -> Any:
        result, error = cast(tuple[Any, BaseException | None], self._outcome)
        if error is not None:
            raise error
        return result

    def _run(self) -> None:
        try:
            self._outcome = self._function(), None
        except BaseException as error:
            self._outcome = None, error
        if self._is_wanted:
            self._end()
        else:
            self._take_back()

    def _take_back(self) -> None:
        result, error = cast(tuple[Any, BaseException | None], self._outcome)
        if error is None and self._undo is not None:
            self._undo(result)


class _Turnstile:
    """Lets one greenlet or thread in at a time, of any hub; the hubs of waiting greenlets run on."""

    def __init__(self, reactor: GeventReactor) -> None:
        self._reactor = reactor
        self._semaphore = gevent.lock.Semaphore()
        self._inside: Any = None

    def __enter__(self) -> None:
        if self._inside is _getcurrent():
            raise RuntimeError(REENTERED)
        if _get_ident() == self._reactor.owner_thread:
            self._semaphore.acquire()
        else:
            self._reactor.call(self._semaphore.acquire, lambda _: self._semaphore.release())
        self._inside = _getcurrent()

    def __exit__(self, *error: object) -> None:
        self._inside = None
        if _get_ident() == self._reactor.owner_thread:
            self._semaphore.release()
        else:
            self._reactor.loop.run_callback_threadsafe(self._semaphore.release)


class _ThreadSleep:
    """The sleep of a thread without a hub, ended by another thread."""

    def __init__(self) -> None:
        self._lock = _allocate_lock()
        self._lock.acquire()
        self.end = self._lock.release

    def wait(self) -> None:
        self._lock.acquire()


class _HubSleep:
    """The sleep of a greenlet, ended by another thread; its hub runs on."""

    def __init__(self, hub: Any) -> None:
        self._waiter = gevent.hub.Waiter(hub)
        self._watcher = hub.loop.async_()
        self._watcher.start(self._waiter.switch, None)

    def end(self) -> None:
        with contextlib.suppress(Exception):  # the watcher is closed already when the greenlet was stopped just now
            self._watcher.send()

    def wait(self) -> None:
        try:
            self._waiter.get()
        finally:
            self._watcher.close()


class Turns:
    """The order in which the woken greenlets of one hub run, one after the other.

    Each switches to the next, and only the last gives the hub its turn: half as many switches as by way of the hub.
    """

    __slots__ = ("_began", "_iteration", "_loop", "_ready", "_turn", "hub")

    def __init__(self, hub: Any, loop: Any) -> None:
        self.hub = hub
        self._began = 0.0  # since then the hub has had no turn, as far as we know; 0: it just had one
        self._iteration: int | None = None  # the loop's iteration at that time
        self._loop = loop
        self._ready: list[Any] = []  # these run in the hub's next turn
        self._turn: list[Any] = []  # these run in this turn; the next comes last

    def make_ready(self, greenlets: list[Any]) -> None:
        """Let the `greenlets` run in the hub's next turn."""
        if not self._ready:
            self._loop.run_callback(self._run)
        self._ready.extend(greenlets)

    def rest(self) -> None:
        """Let others run, until this greenlet is made ready."""
        if self._turn:
            _switch(self._turn.pop())
        else:
            self._began = 0.0
            _switch(self.hub)

    def breathe(self, now: float) -> None:
        """Let the hub have a turn if it has had none for a while; all that run in one turn share its time."""
        if not self._began:
            self._begin(now)
        elif now - self._began > _LONGEST_TURN_SECONDS:
            if self._hub_has_turned():  # a greenlet has waited for something else
                self._begin(now)
            elif _getcurrent() is not self.hub:
                gevent.sleep(_ONE_TURN_SECONDS)
                if self._iteration is None or self._hub_has_turned():
                    self._begin(time.monotonic())

    def _begin(self, now: float) -> None:
        self._began = now
        self._iteration = getattr(self._loop, "iteration", None)  # libuv does not count them

    def _hub_has_turned(self) -> bool:
        return getattr(self._loop, "iteration", None) != self._iteration

    def abandon(self) -> None:
        """Drop the greenlets that are ready: in the child of a fork, they are the parent's."""
        self._ready.clear()
        self._turn.clear()

    def remove(self, sleeper: Any) -> None:
        """Remove `sleeper` from the ready ones: it was stopped, and does not wait for its turn any more."""
        for greenlets in (self._ready, self._turn):
            if sleeper in greenlets:
                greenlets.remove(sleeper)

    def _run(self) -> None:
        self._turn = [*reversed(self._ready), *self._turn]
        self._ready.clear()
        try:
            while self._turn:
                _switch(self._turn.pop())
        finally:
            if self._turn:  # a greenlet has raised: the hub reports it, and the rest must still run
                self._loop.run_callback(self._run)


class GeventLink(Link):
    """One connection's watchers on the hub's loop, and the greenlets that wait for it.

    The hub runs one greenlet at a time and switches only where a greenlet sleeps: no lock is needed.
    """

    __slots__ = (
        "_descriptor",
        "_reactor",
        "_readable",
        "_resuming",
        "_served",
        "_turns",
        "_waiters",
        "_writable",
    )

    def __init__(self, reactor: GeventReactor, served: Served, descriptor: int) -> None:
        super().__init__(None, holds=True)
        self._reactor = reactor
        self._turns = reactor.turns
        self._served: Any = served  # a Served; None when it is over
        self._descriptor = descriptor
        self._readable: Any = None  # the watchers, each made at the first need
        self._writable: Any = None
        self._resuming: Any = None  # a timer
        self._waiters: list[Any] | None = None  # greenlets

    def watch(self, *, read: bool, write: bool) -> None:
        if self._served is None:
            return
        self.reads, self.writes = read, write
        if read or self._readable is not None:
            self._readable = self._watch(self._readable, _READ, read, self._served.on_readable)
        if write or self._writable is not None:
            self._writable = self._watch(self._writable, _WRITE, write, self._served.on_writable)

    def _watch(self, watcher: Any, events: int, wanted: bool, callback: Callable[[], None]) -> Any:
        if watcher is None:
            watcher = self._reactor.loop.io(self._descriptor, events)
        if wanted and not watcher.active:
            watcher.start(callback)
        elif watcher.active and not wanted:
            watcher.stop()
        return watcher

    def sleep(self, timeout_seconds: float | None) -> None:
        current = _getcurrent()
        turns = self._turns
        if current is turns.hub:
            raise BlockingSwitchOutError("impossible to call a blocking function in the event loop callback")
        if self._waiters is None:
            self._waiters = [current]
        else:
            self._waiters.append(current)
        timer = None
        if timeout_seconds is not None:
            timer = self._reactor.loop.timer(timeout_seconds)
            timer.start(self._wake_one, current, update=True)
        try:
            turns.rest()
        except BaseException:
            turns.remove(current)
            raise
        finally:
            if timer is not None:
                timer.close()
            if self._waiters is not None and current in self._waiters:
                self._remove_waiter(current)

    def run_turn(self, runner: Runner) -> bool:
        turn = self.turn
        self.is_due = False
        if turn is None:
            return True
        self.runs = True
        again = was_stopped = False
        try:
            again = turn(runner)
        except BaseException:  # the view has been told, and the log
            was_stopped = True
        self.runs = False
        if again or self.is_due:
            self.is_due = True
            self._reactor.runners.add(self)
        return not was_stopped

    def wake(self) -> None:
        if self._waiters is not None:
            waiters = self._waiters
            self._waiters = None
            self._turns.make_ready(waiters)
        if self.turn is not None and not self.is_due:
            self.is_due = True
            if not self.runs:
                self._reactor.runners.add(self)

    def _wake_one(self, sleeper: Any) -> None:
        if self._waiters is not None and sleeper in self._waiters:
            self._remove_waiter(sleeper)
            self._turns.make_ready([sleeper])

    def _remove_waiter(self, waiter: Any) -> None:
        waiters = self._waiters
        if waiters is not None:
            waiters.remove(waiter)
            if not waiters:
                self._waiters = None

    def write_soon(self) -> None:
        pass  # the watcher does

    def resume(self) -> None:
        if self._served is None:
            return
        if self._resuming is None:
            self._resuming = self._reactor.loop.timer(0)
        if not self._resuming.active:
            self._resuming.start(self._served.on_readable, update=True)

    def call_soon(self) -> None:
        if self._served is not None:
            self._reactor.loop.run_callback(self._served.on_turn)

    def breathe(self, now: float) -> None:
        self._turns.breathe(now)

    def look(self, *, pause: bool) -> None:
        if self._served is not None and self._readable is not None and self._readable.active:
            self._served.on_readable()  # the hub may not have run for a long time
        if pause:
            gevent.sleep(0)
            self.breathe(time.monotonic())

    def hung_up(self) -> bool:
        return self._served is not None and hung_up(_poll(), self._descriptor)

    def arrived(self) -> bool:
        return self._served is not None and self._reactor.arrived(self._descriptor)

    def schedule(self, when: float) -> None:
        if self._served is not None:
            self._reactor.schedule(self, when)

    def on_deadline(self, now: float) -> None:
        """Called by the reactor when the scheduled time has come."""
        if self._served is None:
            return
        again = self._served.on_deadline(now)
        if again is not None:
            self.schedule(again)

    def abandon(self) -> None:
        """Watch nothing any more, in the child of a fork."""
        for watcher in self._watchers():
            watcher.stop()
        served, self._served = self._served, None
        self.turn = None
        if served is not None:
            served.on_fork()

    def close(self, dispose: Callable[[], None]) -> None:
        self._served = None  # it holds this link: without a cycle, its memory is freed at once
        self._reactor.discard(self)
        for watcher in self._watchers():
            watcher.stop()
            watcher.close()
        dispose()
        self.wake()

    def _watchers(self) -> list[Any]:
        return [watcher for watcher in (self._readable, self._writable, self._resuming) if watcher is not None]
