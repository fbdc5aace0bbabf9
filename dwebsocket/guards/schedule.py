"""Guards are asked again about every open WebSocket, each interval."""

from __future__ import annotations

import contextvars
import functools
import logging
import math
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol, TypeVar

from django.http import HttpRequest

from ..conf import AnyGuard
from ..database.own import close_idle_connections
from ..database.sharing import with_shared_connections
from ..protocol.exceptions import HandshakeError
from ..reactors.base import Latch, Reactor
from ..reactors.clock import monotonic
from .base import Guard, Verdict, guard_verdict
from .now import as_of_now

logger = logging.getLogger("dwebsocket")
_BATCH_REQUESTS = 200  # one query asks about so many
_MAX_TURN_SECONDS = 0.005  # longer checks would starve a hub, so they pause
_PAUSE_SECONDS = 0.001
# A guard that has not answered by then counts as stuck: another asker takes over the guards behind it.
_PATIENCE_SECONDS = 0.5
# A round may take longer than its interval; so often it is seen whether it is over.
_LOOK_AGAIN_SECONDS = 0.05
# Bounds the threads of a process: so many guards, less one, may be stuck, and the others are still asked.
MAX_ASKERS = 8
T = TypeVar("T")


# Open WebSockets


class Guarded(Protocol):
    """A WebSocket about which guards are asked again and again."""

    request: HttpRequest
    reactor: Reactor

    def revoke(self, error: HandshakeError) -> None:
        """Close it for the reason that `error` gives; returns at once."""
        ...  # pragma: no cover


_schedules: weakref.WeakKeyDictionary[Reactor, GuardSchedule] = weakref.WeakKeyDictionary()


def watch(guarded: Guarded, guards: tuple[AnyGuard, ...], interval_seconds: float) -> None:
    """Ask `guards` about the WebSocket from now on, every interval, until `watch_no_longer()`."""
    reactor = guarded.reactor
    schedule = _schedules.get(reactor) or _schedules.setdefault(reactor, GuardSchedule(reactor.latch()))
    schedule.add(guarded, guards, interval_seconds)


def watch_no_longer(guarded: Guarded) -> None:
    """Ask no more about the WebSocket."""
    schedule = _schedules.get(guarded.reactor)
    if schedule is not None:
        schedule.discard(guarded)


def settle(timeout_seconds: float) -> None:
    """Return when no guard is being asked about a WebSocket that has ended, or the time is over."""
    for schedule in list(_schedules.values()):
        schedule.settle(timeout_seconds)


def _after_fork() -> None:
    """Drop the schedules: their WebSockets are the parent's, and a greenlet that keeps the time lives on here."""
    for schedule in list(_schedules.values()):
        schedule.abandon()
    _schedules.clear()


os.register_at_fork(after_in_child=_after_fork)


class Check(NamedTuple):
    """A guard, the WebSockets about which it is asked, and how often."""

    guard: AnyGuard
    guarded: list[Guarded]
    interval_seconds: float


class Progress(NamedTuple):
    """The guard that an asker asks, by its `id()`, and since when."""

    since: float
    guard: int
    interval_seconds: float


class GuardSchedule:
    """Asks the guards about all WebSockets of a process, those with one interval together.

    One thread or greenlet keeps the time. For each round another one, the asker, asks one guard after the other. Where
    a guard blocks, the next asker goes on with the guards behind it: a stuck guard delays no other.

    `changed` is a latch of the WebSockets' reactor. The schedule holds no reference to the reactor itself.
    """

    def __init__(self, changed: Latch) -> None:
        self._guarded: dict[Guarded, tuple[tuple[AnyGuard, ...], float]] = {}
        self._due: dict[float, float] = {}  # by interval: when its next round begins
        self._changed = changed
        self._runs = False
        self._checks: deque[Check] = deque()  # not made yet, of the rounds that have begun
        self._askers: dict[object, Progress] = {}
        self._has_told_stuck = False  # the log has it that all askers are
        self._lock = threading.Lock()  # never held during a wait
        self._all_asked = threading.Condition(self._lock)

    def add(self, guarded: Guarded, guards: tuple[AnyGuard, ...], interval_seconds: float) -> None:
        with self._lock:
            self._guarded[guarded] = guards, interval_seconds
            self._due.setdefault(interval_seconds, monotonic() + interval_seconds)
            starts, self._runs = not self._runs, True
        self._changed.set()
        if starts:
            self._start(guarded)

    def discard(self, guarded: Guarded) -> None:
        with self._lock:
            self._guarded.pop(guarded, None)
            is_last = not self._guarded
        if is_last:
            self._changed.set()

    def settle(self, timeout_seconds: float) -> None:
        """Return when the guards are not being asked, or the time is over."""
        with self._all_asked:
            self._all_asked.wait_for(lambda: not self._askers, timeout_seconds)

    def abandon(self) -> None:
        """Ask about no WebSocket any more, even where a thread of the parent held the lock."""
        self._lock = threading.Lock()
        self._all_asked = threading.Condition(self._lock)
        self._guarded, self._checks = {}, deque()

    def _start(self, guarded: Guarded) -> None:
        try:
            _spawn(guarded.reactor, functools.partial(self._run, guarded.reactor), "dwebsocket guards")
        except BaseException:  # no thread can be started: the next WebSocket tries again
            with self._lock:
                self._runs = False
            raise

    def _run(self, reactor: Reactor) -> None:
        try:
            while (due := self._seconds_to_next_turn()) is not None:
                self._changed.wait(due)
                self._changed = reactor.latch()
                self._begin_rounds()
                self._say_if_all_are_stuck()
                if (asker := self._next_asker()) is not None:
                    self._start_asker(asker, reactor)
        except BaseException:  # the server has stopped it: the next WebSocket starts it again
            with self._lock:
                self._runs = False
            raise

    def _start_asker(self, asker: object, reactor: Reactor) -> None:
        try:
            _spawn(reactor, functools.partial(self._work, asker, reactor), "dwebsocket guard")
        except Exception:  # no thread can be started: the guards are asked all the same, the time kept less well
            self._work(asker, reactor)

    def _seconds_to_next_turn(self) -> float | None:
        """Return the time to wait; None, and the schedule counts as stopped, when there is no WebSocket left."""
        with self._lock:
            intervals = {seconds for _, seconds in self._guarded.values()}
            self._due = {seconds: when for seconds, when in self._due.items() if seconds in intervals}
            self._runs = bool(intervals)
            if not intervals:
                self._checks.clear()  # a stuck asker would leave them there
                return None
            return max(0.0, min(*self._due.values(), self._next_asker_at()) - monotonic())

    def _begin_rounds(self) -> None:
        """Queue the checks of every interval that has passed; not before its last round is over, or stuck."""
        with self._lock:
            now = monotonic()
            for seconds in [seconds for seconds, when in self._due.items() if when <= now]:
                if self._is_under_way(seconds, now):
                    self._due[seconds] = now + min(seconds, _LOOK_AGAIN_SECONDS)
                else:
                    self._due[seconds] = now + seconds
                    self._checks.extend(self._round(seconds))

    def _is_under_way(self, interval_seconds: float, now: float) -> bool:
        return any(check.interval_seconds == interval_seconds for check in self._checks) or any(
            asking.interval_seconds == interval_seconds and now - asking.since < _PATIENCE_SECONDS
            for asking in self._askers.values()
        )

    def _round(self, interval_seconds: float) -> Iterable[Check]:
        stuck = {asking.guard for asking in self._askers.values() if asking.interval_seconds == interval_seconds}
        checks: dict[int, Check] = {}  # by identity: not every callable can be hashed
        for guarded, (guards, seconds) in self._guarded.items():
            for guard in guards if seconds == interval_seconds else ():
                if id(guard) not in stuck:
                    checks.setdefault(id(guard), Check(guard, [], seconds)).guarded.append(guarded)
        return checks.values()

    def _next_asker_at(self) -> float:
        """The time at which another asker is needed: there is none, or each has been with one guard for too long."""
        if not self._checks or len(self._askers) >= MAX_ASKERS:
            return math.inf
        return max((asking.since for asking in self._askers.values()), default=-math.inf) + _PATIENCE_SECONDS

    def _say_if_all_are_stuck(self) -> None:
        """Log it, once: a WebSocket that its guard would close stays open, and nothing else tells of it."""
        with self._lock:
            stuck_since = monotonic() - _PATIENCE_SECONDS
            are_stuck = len(self._askers) >= MAX_ASKERS and all(
                asking.since <= stuck_since for asking in self._askers.values()
            )
            says, self._has_told_stuck = are_stuck and not self._has_told_stuck, are_stuck
        if says:
            logger.error(
                "%d guards do not answer: until one of them does no guard is asked again, and the WebSockets stay open",
                MAX_ASKERS,
            )

    def _next_asker(self) -> object | None:
        with self._lock:
            now = monotonic()
            if self._next_asker_at() > now:
                return None
            asker = object()
            self._askers[asker] = Progress(now, 0, 0.0)
            return asker

    def _work(self, asker: object, reactor: Reactor) -> None:
        """Make checks until none is left."""
        try:
            while not self._has_asked_all(asker):
                while (check := self._next_check(asker)) is not None:
                    self._ask_all(check, asker, reactor)
                close_idle_connections()
        finally:  # also where the server has stopped it
            with self._all_asked:
                self._askers.pop(asker, None)
                self._all_asked.notify_all()

    def _has_asked_all(self, asker: object) -> bool:
        """Whether no check is left; the asker is struck off then, so that the next check starts another one."""
        with self._lock:
            if self._checks:
                return False
            self._askers.pop(asker, None)
            return True

    def _next_check(self, asker: object) -> Check | None:
        with self._lock:
            if not self._checks:
                return None
            check = self._checks.popleft()
            self._askers[asker] = Progress(monotonic(), id(check.guard), check.interval_seconds)
            return check

    def _ask_all(self, check: Check, asker: object, reactor: Reactor) -> None:
        guard = check.guard
        began = monotonic()
        failed: BaseException | None = None
        for batch in _batches(check.guarded, _BATCH_REQUESTS if isinstance(guard, Guard) else 1):
            failed = self._ask(guard, batch, reactor) or failed
            if monotonic() - began > _MAX_TURN_SECONDS:
                reactor.latch().wait(_PAUSE_SECONDS)
                began = monotonic()
                self._askers[asker] = Progress(began, id(guard), check.interval_seconds)  # slow, and not stuck
        if failed is not None:
            logger.error("the guard %r could not be asked; the WebSockets stay open", guard, exc_info=failed)

    def _ask(self, guard: AnyGuard, batch: list[Guarded], reactor: Reactor) -> BaseException | None:
        """Return why the guard could not be asked about all; None if it was. A failure protects no other WebSocket."""
        batch = [guarded for guarded in batch if guarded in self._guarded]
        if not batch:
            return None
        try:
            verdicts = _verdicts(guard, [guarded.request for guarded in batch])
            for guarded, verdict in zip(batch, verdicts, strict=True):
                if verdict is not None:
                    guarded.revoke(verdict)
        except BaseException as error:  # gevent's Timeout is not an Exception
            if isinstance(error, reactor.stops) and not isinstance(error, SystemExit):  # a guard's exit() ends nothing
                raise
            if len(batch) <= 1:
                return error
            failures = [self._ask(guard, [guarded], reactor) for guarded in batch]
            return next((failure for failure in failures if failure is not None), error)
        return None


def _spawn(reactor: Reactor, function: Callable[[], None], name: str) -> None:
    # In an empty context: where threads inherit theirs, the first WebSocket's would live as long as the thread.
    contextvars.Context().run(reactor.spawn, with_shared_connections(function), name)


def _verdicts(guard: AnyGuard, requests: list[HttpRequest]) -> Iterable[Verdict]:
    if isinstance(guard, Guard):
        return guard.judge(requests)
    return [guard_verdict(guard, as_of_now(request)) for request in requests]


def _batches(things: list[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(things), size):
        yield things[start : start + size]
