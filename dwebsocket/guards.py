"""Who may open a WebSocket, and who may keep it: guards are asked at the opening handshake, and then every interval.

@accept_websocket(guard=[session_alive, has_perm("chat.view_room")], guard_interval=30)

A guard is called with the request. It lets in by returning True. It refuses by returning False or None or raising
PermissionDenied (HTTP 403, on an open WebSocket the close code 4403), or by raising Unauthorized (401, 4401). Any other
answer is a TypeError: what a decorator returns, such as login_required, is always true. What a guard sees as
`request.session` and `request.user` is always the state of now. Any other exception is an error at the opening
handshake; later it is logged, and asked again when the interval has passed: an outage of the database closes nothing.

A guard that asks the database once for all its WebSockets is a subclass of Guard; those of this module are.
"""

from __future__ import annotations

import contextlib
import contextvars
import copy
import functools
import inspect
import logging
import math
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from django.contrib import auth
from django.contrib.sessions.backends import cache, db, signed_cookies
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Model
from django.http import HttpRequest
from django.utils import timezone
from django.utils.crypto import constant_time_compare
from django.utils.functional import LazyObject, SimpleLazyObject

from .access import know_user
from .clock import monotonic
from .conf import AnyGuard
from .database import close_idle_connections, with_shared_connections
from .protocol.exceptions import Forbidden, HandshakeError, Unauthorized
from .reactors.base import Latch, Reactor

logger = logging.getLogger("dwebsocket")

_AT_ONCE = 200  # requests in one query
_LONGEST_TURN_SECONDS = 0.005  # that the rounds may keep a hub from running
_TURN_SECONDS = 0.001
_PATIENCE_SECONDS = 0.5  # with a guard that blocks: then the guards behind it are asked elsewhere
_LOOK_AGAIN_SECONDS = 0.05  # whether a round that takes longer than its interval is over
MOST_ASKERS = 8  # of a process: as many guards may be stuck at once, and the others are asked all the same
_DENIED = "permission denied"

#: What a guard has to say against a request; None: nothing.
Verdict = HandshakeError | None

T = TypeVar("T")


class Guard:
    """A guard that judges many requests at once."""

    def judge(self, requests: Sequence[HttpRequest]) -> Iterable[Verdict]:
        """What there is to say against each of the `requests`, in their order."""
        raise NotImplementedError

    def __call__(self, request: HttpRequest) -> bool:
        """Raise what there is to say against the request."""
        [verdict] = self.judge([request])
        if verdict is not None:
            raise verdict
        return True


def check(request: HttpRequest, guards: Iterable[AnyGuard]) -> None:
    """Ask `guards` one after the other; raises what the first says against the request."""
    for guard in guards:
        verdict = guard_verdict(guard, request)
        if verdict is not None:
            raise verdict


def guard_verdict(guard: AnyGuard, request: HttpRequest) -> Verdict:
    """What one guard has to say against the request."""
    try:
        answer = guard(request)
    except HandshakeError as error:
        return error
    except PermissionDenied:  # what it says is not for the client, as everywhere in Django
        return Forbidden(_DENIED)
    if inspect.isawaitable(answer):
        raise TypeError(f"the guard {guard!r} is asynchronous; here it is an ordinary function")
    if answer is not None and not isinstance(answer, bool):
        raise TypeError(_no_answer(guard, answer))
    return None if answer else Forbidden(_DENIED)


def _no_answer(guard: AnyGuard, answer: object) -> str:
    """What is wrong with the answer, and what to write; without the answer itself, which may hold anything."""
    said = f"the guard {guard!r} returned a {type(answer).__name__}, neither True nor False"
    if callable(answer):
        return f"{said}: a decorator is no guard; write it above accept_websocket, or write guard=user_is_active"
    return f"{said}: let it return bool(…)"


# The guards that the package brings


class _SessionAlive(Guard):
    def __repr__(self) -> str:
        return "session_alive"

    def judge(self, requests: Sequence[HttpRequest]) -> Iterator[Verdict]:
        _warn_of_cookies(requests)
        sessions = _sessions_now(requests)
        users = _users_now(data[auth.SESSION_KEY] for data in sessions.values() if auth.SESSION_KEY in data)
        for request in requests:
            data = sessions.get(_session_key(request))
            if data is not None and _belongs(data, users):
                know_user(request, users.get(str(data.get(auth.SESSION_KEY))))
                yield None
            else:
                yield Unauthorized("there is no live session")


class _UserIsActive(Guard):
    def __repr__(self) -> str:
        return "user_is_active"

    def judge(self, requests: Sequence[HttpRequest]) -> Iterator[Verdict]:
        users = _users_now(pk for request in requests if (pk := _user_pk(request)) is not None)
        for request in requests:
            user = users.get(str(_user_pk(request)))
            if user is None:
                yield Unauthorized("nobody is logged in")
            else:
                yield None if user.is_active else Unauthorized("the account is not active")


class _HasPerm(Guard):
    def __init__(self, permission: str) -> None:
        self._permission = permission

    def __repr__(self) -> str:
        return f"has_perm({self._permission!r})"

    def judge(self, requests: Sequence[HttpRequest]) -> Iterator[Verdict]:
        users = _users_now(pk for request in requests if (pk := _user_pk(request)) is not None)
        may = {pk: user.has_perm(self._permission) for pk, user in users.items()}
        for request in requests:
            pk = str(_user_pk(request))
            if pk not in may:
                yield Unauthorized("nobody is logged in")
            else:
                yield None if may[pk] else Forbidden(_DENIED)


#: Refuses (401) when the session of the request is gone: logged out, flushed, expired, or the password was changed.
session_alive: Guard = _SessionAlive()

#: Refuses (401) when nobody is logged in, or the user was deleted or deactivated.
user_is_active: Guard = _UserIsActive()


def has_perm(permission: str) -> Guard:
    """A guard that refuses when nobody is logged in (401), or the user lacks the `permission` "app.codename" (403).

    ValueError for what cannot be a permission.
    """
    if not isinstance(permission, str):
        raise TypeError('has_perm() makes a guard of a permission: guard=has_perm("app.codename")')
    if "." not in permission:
        raise ValueError(f'a permission is "app.codename", not {permission!r}')
    return _HasPerm(permission)


@functools.cache
def _warn_once(engine: type) -> None:
    logger.warning(
        "session_alive does not see a logout with sessions of %s: they are kept in the cookie alone", engine.__module__
    )


def _warn_of_cookies(requests: Iterable[HttpRequest]) -> None:
    for request in requests:
        session = getattr(request, "session", None)
        if isinstance(session, signed_cookies.SessionStore):
            _warn_once(type(session))


def _session_key(request: HttpRequest) -> str | None:
    session = getattr(request, "session", None)
    return None if session is None else session.session_key


def _sessions_now(requests: Iterable[HttpRequest]) -> dict[str | None, Mapping[str, Any]]:
    """What the sessions of the requests hold now, those that still exist."""
    found: dict[str | None, Mapping[str, Any]] = {}
    in_one_table: dict[str, db.SessionStore] = {}
    for request in requests:
        key = _session_key(request)
        if key is None or key in found:
            continue
        store = request.session
        if isinstance(store, db.SessionStore) and type(store).load is db.SessionStore.load:
            in_one_table[key] = store
            continue
        fresh = type(store)(key)
        data = fresh.load()
        if fresh.session_key == key and not fresh.modified:  # each store has another way to say that there is none
            found[key] = data
        elif isinstance(store, cache.SessionStore):  # which takes a cache that cannot be reached for an empty one
            store.exists(key)
    for store in list(in_one_table.values())[:1]:
        rows = store.model.objects.filter(session_key__in=list(in_one_table), expire_date__gt=timezone.now())
        found.update({row.session_key: store.decode(row.session_data) for row in rows})
    return found


def _user_pk(request: HttpRequest) -> object:
    user = getattr(request, "user", None)
    return user.pk if user is not None and user.is_authenticated else None


def _users_now(pks: Iterable[object]) -> dict[str, Any]:
    """The users as they are now, by their primary key as a string: a session knows no other."""
    model = auth.get_user_model()
    wanted = {}
    for pk in pks:
        with contextlib.suppress(ValidationError):  # of a session from before the users got another kind of key
            wanted[str(pk)] = model._meta.pk.to_python(pk)
    users = model._default_manager.in_bulk(set(wanted.values())) if wanted else {}
    return {key: users[pk] for key, pk in wanted.items() if pk in users}


def _belongs(data: Mapping[str, Any], users: Mapping[str, Any]) -> bool:
    """Whether a session is of nobody, or of a user who has still the password with which it was begun."""
    if auth.SESSION_KEY not in data:
        return True
    user = users.get(str(data[auth.SESSION_KEY]))
    if user is None or not hasattr(user, "get_session_auth_hash"):
        return user is not None
    begun_with = data.get(auth.HASH_SESSION_KEY, "")
    hashes = [user.get_session_auth_hash(), *user.get_session_auth_fallback_hash()]
    return any(constant_time_compare(begun_with, known) for known in hashes)


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


def as_of_now(request: HttpRequest) -> HttpRequest:
    """A copy of the request whose session and user, where it has them, are those of now, loaded when needed."""
    now = copy.copy(request)
    session: Any = getattr(request, "session", None)
    if session is not None:
        now.session = type(session)(session.session_key)
    user: Any = vars(request).get("user")
    if session is not None and _is_of_the_session(user):
        now.user = SimpleLazyObject(lambda: auth.get_user(now))  # type: ignore[assignment]
    elif isinstance(user, (LazyObject, Model)):  # what a middleware, or the view, has put there
        now.user = SimpleLazyObject(lambda: _user_now(user))  # type: ignore[assignment]
    return now


def _is_of_the_session(user: object) -> bool:
    """Whether the user is what Django's own middleware has put on the request, loaded or not."""
    setup = vars(user).get("_setupfunc") if isinstance(user, LazyObject) else None
    return getattr(setup, "__module__", None) == "django.contrib.auth.middleware"


def _user_now(user: Any) -> Any:
    from django.contrib.auth.models import AnonymousUser  # only now: the apps must have been loaded

    if not isinstance(user, Model) or user._state.adding:  # of no table: there is nothing newer
        return user
    return user.__class__._default_manager.filter(pk=user.pk).first() or AnonymousUser()  # its type may be lazy


def _pieces(things: list[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(things), size):
        yield things[start : start + size]
