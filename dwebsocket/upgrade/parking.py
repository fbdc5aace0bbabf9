"""A view that has ended while its connection stays open: what happens there is told in turns.

A turn runs in a greenlet or thread that it has for so long: an idle connection costs neither.
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
from ..websocket import Gap, GroupMessage, Stay, WebSocket
from . import outcomes
from .context import follow_locals
from .opening import Opening

_LONGEST_TURN_SECONDS = 0.005  # for so long messages are taken, then others have their turn


class Run(Protocol):
    """The run of the view, as far as its turns know it."""

    @property
    def opening(self) -> Opening: ...  # pragma: no cover
    @property
    def websocket(self) -> WebSocket: ...  # pragma: no cover

    def begin_turn(self, runner: Runner) -> None:
        """A turn begins, in the calling greenlet or thread."""
        ...  # pragma: no cover

    def end_turn(self, runner: Runner) -> None:
        """It has ended."""
        ...  # pragma: no cover

    def fail(self, error: BaseException) -> None:
        """Do what follows from an exception of a turn."""
        ...  # pragma: no cover

    def leave(self) -> None:
        """The connection is over, and so are the turns."""
        ...  # pragma: no cover


class Parked:
    """The turns of one connection; the reactor calls it."""

    __slots__ = ("_connection", "_context", "_ident", "_is_told", "_run", "_shared", "_stay", "_waits")

    def __init__(
        self,
        run: Run,
        connection: Connection,
        stay: Stay,
        context: contextvars.Context,
        shared: Mapping[str, BaseDatabaseWrapper],
    ) -> None:
        self._run = run
        self._shared = shared or None  # the database connections of a test
        self._connection = connection
        self._stay = stay
        self._context = context
        self._ident = 0  # of the thread or greenlet of the last turn
        self._is_told = False  # of the end
        streams = connection.endpoint.streaming  # messages come in parts, which are put together
        self._waits = stay.received is not None and (streams or has_own_wait(run.websocket))

    def begin(self) -> None:
        """Let the turns begin."""
        self._connection.employ(self)

    def __call__(self, runner: Runner) -> bool:
        """Run one turn; whether another one is due. Raises what stops the runner."""
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
        except Exception as error:  # of a database connection that cannot be closed
            self._fail(error)

    def _hand_on(self) -> bool | None:
        """Hand on what has come; whether there may be more. None: the connection is over."""
        received, members = self._stay.received or _drop, self._run.opening.joined
        late_at = monotonic() + _LONGEST_TURN_SECONDS
        if not self._waits and (members is None or not members.has_events()):
            return self._connection.hand_on(received, late_at)
        while monotonic() < late_at:
            event = None if members is None else members.take_event()
            if event is not None and self._stay.group_event is not None:
                self._stay.group_event(event)
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
        if not self._waits:
            return self._connection.take()
        return None if self._connection.is_over else self._run.websocket.wait(0)

    def _tell_end(self) -> None:
        """Call `closed()`, once; not in a child that the turn has forked, which may go on here: it is its parent's."""
        if not self._is_told and self._connection.is_employed:
            self._is_told = True
            websocket, closed = self._run.websocket, self._stay.closed
            self._connection.close()  # nothing where it is closed already
            if closed is not None:
                closed(websocket.close_code or CloseCode.ABNORMAL_CLOSURE, websocket.close_reason)

    def _fail(self, error: BaseException) -> None:
        self._run.fail(error)  # as for any view, the report comes before the Close frame: tests wait for that
        try:
            self._tell_end()
        except BaseException as later:
            self._run.fail(later)


def close_for(connection: Connection, error: BaseException) -> tuple[int, str]:
    """The close code and reason for an exception of a view that talks: 1001 where the server stops it."""
    if isinstance(error, connection.reactor.stops):
        return CloseCode.GOING_AWAY, ""
    return outcomes.close_for(error)


def _drop(message: Any) -> None:
    """Do nothing with a message that the view does not want."""


def talk(websocket: WebSocket, events: Iterable[Any], stay: Stay) -> None:
    """Do what a parked view does, in one turn that waits: for a view that has a greenlet or thread anyway."""
    process = os.getpid()
    try:
        for event in events:
            handle = stay.group_event if isinstance(event, (GroupMessage, Gap)) else stay.received
            if handle is not None:
                handle(event)
        websocket.close()
    except BaseException as error:
        connection = websocket._opening.connection
        if connection is not None:
            websocket.close(*close_for(connection, error))  # nothing where it is closed already, as all of these
        raise
    finally:
        if stay.closed is not None and os.getpid() == process:  # the child of a fork goes on here, too
            stay.closed(websocket.close_code or CloseCode.ABNORMAL_CLOSURE, websocket.close_reason)


def events_of(websocket: WebSocket) -> Iterator[Any]:
    """Everything that happens; where a project's own class has its own `wait()`, what that returns."""
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
    """Whether its class takes messages in its own way."""
    return type(websocket).wait is not Verbs.wait
