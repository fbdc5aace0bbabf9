"""The turns of a parked view: it has ended, its connection stays open, and each turn hands on what has come.

A turn holds a greenlet or thread while it runs: an idle connection holds neither.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, cast

from django.db.backends.base.base import BaseDatabaseWrapper

from ..connection.connection import Connection
from ..connection.verbs import Verbs
from ..database.sharing import with_connections
from ..protocol.codes import CloseCode
from ..reactors.base import Runner
from ..reactors.clock import monotonic
from ..websocket import Gap, GroupMessage, Handlers, WebSocket
from . import outcomes
from .context import follow_locals
from .opening import Opening

_LONGEST_TURN_SECONDS = 0.005  # so long a turn takes messages, then others have theirs


class Run(Protocol):
    """The run of the view, as far as its turns know it."""

    @property
    def opening(self) -> Opening: ...  # pragma: no cover
    @property
    def websocket(self) -> WebSocket: ...  # pragma: no cover

    def begin_turn(self, runner: Runner) -> None:
        """Take note that a turn begins, in the calling greenlet or thread."""
        ...  # pragma: no cover

    def end_turn(self, runner: Runner) -> None:
        """Release what the turn has opened: it has ended."""
        ...  # pragma: no cover

    def fail(self, error: BaseException) -> None:
        """Do what follows from an exception of a turn."""
        ...  # pragma: no cover

    def leave(self) -> None:
        """Tell that the connection is over, and so are the turns."""
        ...  # pragma: no cover


class Parked:
    """The turns of one connection; the reactor calls it for each."""

    __slots__ = ("_connection", "_context", "_handlers", "_ident", "_is_told", "_run", "_shared", "_uses_wait")

    def __init__(
        self,
        run: Run,
        connection: Connection,
        handlers: Handlers,
        context: contextvars.Context,
        shared: Mapping[str, BaseDatabaseWrapper],
    ) -> None:
        self._run = run
        self._shared = shared or None  # the database connections of a test
        self._connection = connection
        self._handlers = handlers
        self._context = context
        self._ident = 0  # of the thread or greenlet of the last turn
        self._is_told = False  # of the end
        streams = connection.endpoint.streaming  # messages come in parts, which `wait()` puts together
        self._uses_wait = handlers.received is not None and (streams or has_own_wait(run.websocket))

    def begin(self) -> None:
        """Let the turns begin."""
        self._connection.employ(self)

    def __call__(self, runner: Runner) -> bool:
        """Run one turn; True: another one is due. Raises only what stops the runner."""
        if self._shared is None:
            return self._context.run(self._turn, runner)
        outcome: list[bool] = []
        with_connections(self._shared, lambda: outcome.append(self._context.run(self._turn, runner)))()
        return outcome[0]

    def _turn(self, runner: Runner) -> bool:
        if runner.ident != self._ident:
            self._ident = runner.ident
            follow_locals()
        has_more: bool | None = None
        stop: BaseException | None = None
        self._run.begin_turn(runner)
        try:
            if not self._is_told:
                try:
                    has_more = self._hand_on()
                    if has_more is None:
                        self._tell_end()
                except BaseException as error:
                    self._fail(error)
                    if isinstance(error, self._connection.reactor.stops):
                        stop = error
            if has_more is None and self._connection.is_disposed and self._connection.is_employed:
                self._connection.dismiss()  # without a cycle, all memory is freed at once
                self._run.leave()  # in the turn: receivers of the signal may query
        finally:
            self._end_turn(runner)
        if stop is not None:
            try:
                raise stop
            finally:
                del stop  # the traceback would hold this frame, and this frame it
        return bool(has_more)

    def _end_turn(self, runner: Runner) -> None:
        try:
            self._run.end_turn(runner)
        except Exception as error:  # a database connection cannot be closed
            self._fail(error)

    def _hand_on(self) -> bool | None:
        """Hand on what has come; whether there may be more. None: the connection is over."""
        received, members = self._handlers.received or _drop, self._run.opening.joined
        late_at = monotonic() + _LONGEST_TURN_SECONDS
        if not self._uses_wait and (members is None or not members.has_events()):
            return self._connection.hand_on(received, late_at)
        while monotonic() < late_at:
            event = None if members is None else members.take_event()
            if event is not None and self._handlers.group_event is not None:
                self._handlers.group_event(event)
            message = self._take()
            if message is not None:
                received(message)
            elif self._connection.is_over:
                return None
            elif event is None:
                return False
        return True

    def _take(self) -> Any:
        """The next message, if one is here."""
        if not self._uses_wait:
            return self._connection.take()
        return None if self._connection.is_over else self._run.websocket.wait(0)

    def _tell_end(self) -> None:
        """Call `closed()`, once; not in a child that the turn has forked, which may go on here: it is its parent's."""
        if not self._is_told and self._connection.is_employed:
            self._is_told = True
            self._connection.close()  # does nothing where it is closed already
            call_closed(self._run.websocket, self._handlers)

    def _fail(self, error: BaseException) -> None:
        self._run.fail(error)  # it reports before it closes: when a test has the Close frame, it has the exception
        try:
            self._tell_end()
        except BaseException as later:
            self._run.fail(later)


def close_for(connection: Connection, error: BaseException) -> tuple[int, str]:
    """The close code and the reason for an exception of a view: 1001 where the server stops it."""
    if isinstance(error, connection.reactor.stops):
        return CloseCode.GOING_AWAY, ""
    return outcomes.close_for(error)


def _drop(message: Any) -> None:
    """Do nothing with a message: the view has given no `received`."""


def talk(websocket: WebSocket, events: Iterable[Any], handlers: Handlers) -> None:
    """Call `handlers` until the connection is over: for a view that is not parked, in its own greenlet or thread."""
    process = os.getpid()
    try:
        for event in events:
            handle = handlers.group_event if isinstance(event, (GroupMessage, Gap)) else handlers.received
            if handle is not None:
                handle(event)
        websocket.close()
    except BaseException as error:
        connection = websocket._opening.connection
        if connection is not None:
            websocket.close(*close_for(connection, error))  # does nothing where it is closed already
        raise
    finally:
        if os.getpid() == process:  # the child of a fork goes on here, too
            call_closed(websocket, handlers)


def call_closed(websocket: WebSocket, handlers: Handlers) -> None:
    """Call `closed()`, if there is one, with the code and the reason of the end."""
    if handlers.closed is not None:
        handlers.closed(websocket.close_code or CloseCode.ABNORMAL_CLOSURE, websocket.close_reason)


def events_of(websocket: WebSocket) -> Iterator[Any]:
    """Everything that happens, until the end. Where a project's class has its own `wait()`: what that returns."""
    if not has_own_wait(websocket):
        yield from websocket.events()
        return
    while not websocket._end_was_told and (message := websocket.wait()) is not None:
        yield message


def can_park(websocket: WebSocket) -> bool:
    """Whether the view needs no greenlet or thread between two turns. A class whose `wait()` always waits needs one."""
    opening = cast(Opening, websocket._opening)
    kind: Any = type(websocket)
    return opening.parks and (not has_own_wait(websocket) or _takes_timeout(kind))


@functools.cache
def _takes_timeout(kind: type[WebSocket]) -> bool:
    try:
        inspect.signature(kind.wait).bind(None, 0)
    except TypeError:
        return False
    return True


def has_own_wait(websocket: WebSocket) -> bool:
    """Whether a project's class takes messages in its own way."""
    return type(websocket).wait is not Verbs.wait
