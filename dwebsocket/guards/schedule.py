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
_AT_ONCE = 200  # requests in one query
_LONGEST_TURN_SECONDS = 0.005  # that the rounds may keep a hub from running
_TURN_SECONDS = 0.001
_PATIENCE_SECONDS = 0.5  # with a guard that blocks: then the guards behind it are asked elsewhere
_LOOK_AGAIN_SECONDS = 0.05  # whether a round that takes longer than its interval is over
MOST_ASKERS = 8  # of a process: as many guards may be stuck at once, and the others are asked all the same
T = TypeVar("T")


# Open WebSockets


class Guarded(Protocol):
    """A WebSocket that is asked about again and again."""

    request: HttpRequest
    reactor: Reactor

    def revoke(self, error: HandshakeError) -> None:
        """Close it for the reason that `error` gives; returns at once."""
        ...  # pragma: no cover


_rounds: weakref.WeakKeyDictionary[Reactor, Rounds] = weakref.WeakKeyDictionary()


def watch(guarded: Guarded, guards: tuple[AnyGuard, ...], interval_seconds: float) -> None:
    """Ask `guards` about the WebSocket from now on, every interval, until `watch_no_longer()`."""
    reactor = guarded.reactor
    rounds = _rounds.get(reactor) or _rounds.setdefault(reactor, Rounds(reactor.latch()))
    rounds.add(guarded, guards, interval_seconds)


def watch_no_longer(guarded: Guarded) -> None:
    """Ask no more about the WebSocket."""
    rounds = _rounds.get(guarded.reactor)
    if rounds is not None:
        rounds.discard(guarded)


def settle(timeout_seconds: float) -> None:
    """Return when nobody is being asked about a WebSocket that has ended, or the time is over."""
    for rounds in list(_rounds.values()):
        rounds.settle(timeout_seconds)


def _forget() -> None:
    """The WebSockets are those of the parent; a greenlet that makes its rounds lives on in the child."""
    for rounds in list(_rounds.values()):
        rounds.abandon()
    _rounds.clear()


os.register_at_fork(after_in_child=_forget)


class Question(NamedTuple):
    """A guard, about which WebSockets it is asked, and how often."""

    guard: AnyGuard
    guarded: list[Guarded]
    interval_seconds: float


class Asking(NamedTuple):
    """What an asker is at, and since when; `guard` is the identity of one."""

    since: float
    guard: int
    interval_seconds: float


class Rounds:
    """Asks the guards about all WebSockets of a process, those with one interval together.

    One thread or greenlet keeps the time. For each round another one, the asker, asks one guard after the other. Where
    a guard blocks, the next asker goes on with the guards behind it: a stuck guard delays no other.

    `changed` is a latch of the reactor whose WebSockets they are; the reactor itself lives as long as it is needed.
    """

    def __init__(self, changed: Latch) -> None:
        self._guarded: dict[Guarded, tuple[tuple[AnyGuard, ...], float]] = {}
        self._due: dict[float, float] = {}  # when each interval has passed next
        self._changed = changed
        self._runs = False
        self._questions: deque[Question] = deque()  # of the rounds that have begun, not asked yet
        self._askers: dict[object, Asking] = {}
        self._said_stuck = False  # the log has it that all askers are
        self._lock = threading.Lock()  # never held where something waits
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
        """Ask about nobody any more, whoever holds the lock."""
        self._lock = threading.Lock()
        self._all_asked = threading.Condition(self._lock)
        self._guarded, self._questions = {}, deque()

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
        """None, and nothing runs any more, when there is nobody to ask about."""
        with self._lock:
            intervals = {seconds for _, seconds in self._guarded.values()}
            self._due = {seconds: when for seconds, when in self._due.items() if seconds in intervals}
            self._runs = bool(intervals)
            if not intervals:
                self._questions.clear()  # a stuck asker would leave them there
                return None
            return max(0.0, min(*self._due.values(), self._next_asker_at()) - monotonic())

    def _begin_rounds(self) -> None:
        """Queue the questions of every interval that has passed; not before its last round is over, or stuck."""
        with self._lock:
            now = monotonic()
            for seconds in [seconds for seconds, when in self._due.items() if when <= now]:
                if self._is_under_way(seconds, now):
                    self._due[seconds] = now + min(seconds, _LOOK_AGAIN_SECONDS)
                else:
                    self._due[seconds] = now + seconds
                    self._questions.extend(self._round(seconds))

    def _is_under_way(self, interval_seconds: float, now: float) -> bool:
        return any(question.interval_seconds == interval_seconds for question in self._questions) or any(
            asking.interval_seconds == interval_seconds and now - asking.since < _PATIENCE_SECONDS
            for asking in self._askers.values()
        )

    def _round(self, interval_seconds: float) -> Iterable[Question]:
        stuck = {asking.guard for asking in self._askers.values() if asking.interval_seconds == interval_seconds}
        questions: dict[int, Question] = {}  # by identity: not every callable can be hashed
        for guarded, (guards, seconds) in self._guarded.items():
            for guard in guards if seconds == interval_seconds else ():
                if id(guard) not in stuck:
                    questions.setdefault(id(guard), Question(guard, [], seconds)).guarded.append(guarded)
        return questions.values()

    def _next_asker_at(self) -> float:
        """When another asker is needed: there is none, or all have been at the same thing for long."""
        if not self._questions or len(self._askers) >= MOST_ASKERS:
            return math.inf
        return max((asking.since for asking in self._askers.values()), default=-math.inf) + _PATIENCE_SECONDS

    def _say_if_all_are_stuck(self) -> None:
        """Log it, once: a WebSocket that its guard would close stays open, and nothing else tells of it."""
        with self._lock:
            stuck_since = monotonic() - _PATIENCE_SECONDS
            are_stuck = len(self._askers) >= MOST_ASKERS and all(
                asking.since <= stuck_since for asking in self._askers.values()
            )
            says, self._said_stuck = are_stuck and not self._said_stuck, are_stuck
        if says:
            logger.error(
                "%d guards do not answer: until one of them does no guard is asked again, and the WebSockets stay open",
                MOST_ASKERS,
            )

    def _next_asker(self) -> object | None:
        with self._lock:
            now = monotonic()
            if self._next_asker_at() > now:
                return None
            asker = object()
            self._askers[asker] = Asking(now, 0, 0.0)
            return asker

    def _work(self, asker: object, reactor: Reactor) -> None:
        """Ask until there is no question left."""
        try:
            while not self._has_asked_all(asker):
                while (question := self._next_question(asker)) is not None:
                    self._ask_all(question, asker, reactor)
                close_idle_connections()
        finally:  # also where the server has stopped it
            with self._all_asked:
                self._askers.pop(asker, None)
                self._all_asked.notify_all()

    def _has_asked_all(self, asker: object) -> bool:
        """Whether nothing is left; the asker counts no more then, so that the next question starts another one."""
        with self._lock:
            if self._questions:
                return False
            self._askers.pop(asker, None)
            return True

    def _next_question(self, asker: object) -> Question | None:
        with self._lock:
            if not self._questions:
                return None
            question = self._questions.popleft()
            self._askers[asker] = Asking(monotonic(), id(question.guard), question.interval_seconds)
            return question

    def _ask_all(self, question: Question, asker: object, reactor: Reactor) -> None:
        guard = question.guard
        began = monotonic()
        failed: BaseException | None = None
        for some in _pieces(question.guarded, _AT_ONCE if isinstance(guard, Guard) else 1):
            failed = self._ask(guard, some, reactor) or failed
            if monotonic() - began > _LONGEST_TURN_SECONDS:
                reactor.latch().wait(_TURN_SECONDS)
                began = monotonic()
                self._askers[asker] = Asking(began, id(guard), question.interval_seconds)  # slow, and not stuck
        if failed is not None:
            logger.error("the guard %r could not be asked; the WebSockets stay open", guard, exc_info=failed)

    def _ask(self, guard: AnyGuard, wards: list[Guarded], reactor: Reactor) -> BaseException | None:
        """Why the guard could not be asked about all of them; None if it was. One protects no other."""
        wards = [guarded for guarded in wards if guarded in self._guarded]
        if not wards:
            return None
        try:
            for guarded, verdict in zip(wards, _verdicts(guard, [ward.request for ward in wards]), strict=True):
                if verdict is not None:
                    guarded.revoke(verdict)
        except reactor.stops:
            raise
        except BaseException as error:  # gevent's Timeout is no Exception
            if len(wards) <= 1:
                return error
            failures = [self._ask(guard, [guarded], reactor) for guarded in wards]
            return next((failure for failure in failures if failure is not None), error)
        return None


def _spawn(reactor: Reactor, function: Callable[[], None], name: str) -> None:
    # In an empty context: where threads inherit theirs, that of the first WebSocket would live as long as they.
    contextvars.Context().run(reactor.spawn, with_shared_connections(function), name)


def _verdicts(guard: AnyGuard, requests: list[HttpRequest]) -> Iterable[Verdict]:
    if isinstance(guard, Guard):
        return guard.judge(requests)
    return [guard_verdict(guard, as_of_now(request)) for request in requests]


def _pieces(things: list[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(things), size):
        yield things[start : start + size]
