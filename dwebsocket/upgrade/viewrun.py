"""The view of one WebSocket request runs: in a new greenlet or thread, or, attached, in the server's call."""

from __future__ import annotations

import contextvars
import inspect
import logging
import sys
from collections.abc import Callable, Mapping
from typing import NamedTuple, cast

from django.core.serializers.json import DjangoJSONEncoder
from django.db.backends.base.base import BaseDatabaseWrapper
from django.http import HttpResponseBase

from .. import conf, guards
from ..connection.connection import Connection
from ..database.kept import let_keep
from ..database.lease import Lease
from ..database.own import close_own_connections, give_back
from ..database.sharing import shared_connections, with_connections
from ..groups import control
from ..process import observers
from ..process.naming import view_name
from ..process.registry import Entry, registry
from ..protocol.codes import CloseCode
from ..protocol.exceptions import HandshakeError, WebSocketClosed
from ..protocol.frames import Close
from ..protocol.handshake import Handshake
from ..reactors.base import Runner
from ..reactors.clock import monotonic
from ..servers import Server
from ..websocket import Functions, Handlers, WebSocket
from . import outcomes, sessions
from .context import adopt_locals
from .opening import BEGUN, DISPATCH_NOT_RETURNED, NOT_CALLED, NOT_RETURNED, Opening, Outcome
from .parking import Parked, call_closed, can_park, events_of, talk
from .refusals import SwitchingProtocols, refuse

logger = logging.getLogger("dwebsocket")

#: The error of a view that is a generator.
GENERATOR = "the view is a generator; a WebSocket view does not yield its messages: request.websocket.send() sends one"

_NORMAL = Close(CloseCode.NORMAL_CLOSURE)
_STOPPED = Close(CloseCode.GOING_AWAY, "the server stopped the request")


class _Start(NamedTuple):
    """Everything that a detached view needs to begin, until it has begun."""

    view: Callable[[], HttpResponseBase | None]
    context: contextvars.Context
    shared: Mapping[str, BaseDatabaseWrapper]


class ViewRun:
    """One run of a view, and what Django gets of it."""

    __slots__ = (
        "_answer",
        "_entry",
        "_is_refusal",
        "_lease",
        "_name",
        "_parked",
        "_start",
        "opening",
        "websocket",
    )

    def __init__(self, entry: Entry, server: Server, options: conf.Options, shook: Handshake | None) -> None:
        request = entry.request
        self._entry = entry
        self.opening = Opening(entry, server, options, shook, self._opened)
        self._answer: HttpResponseBase | BaseException | None = None  # of the view, for Django
        self._is_refusal = shook is None  # where the server had sent the 101: a Close frame refuses
        self._parked: Handlers | None = None  # of a view that has returned, and must be parked now
        self._start: _Start | None = None  # None once the view has begun
        self._name = view_name(request)
        self._lease = Lease(self._name, entry.reactor) if options.release_db else None
        self.websocket: WebSocket = options.websocket_class(self.opening, json_encoder=DjangoJSONEncoder)
        entry.websocket = self.websocket
        request.websocket = self.websocket  # type: ignore[attr-defined]

    def run(self, server: Server, view: Callable[[], HttpResponseBase | None]) -> HttpResponseBase:
        """The answer for Django: the view's own response or exception if it did not accept, else the inert 101."""
        if self.opening.detaches:
            self._spawn(server, view)
            self._wait_for_answer()
        else:
            self._run_view(view)
        answer, self._answer = self._answer, None
        if isinstance(answer, BaseException):
            try:
                raise answer
            finally:
                del answer  # the traceback would hold this frame, and this frame it
        if answer is not None:
            return answer
        if self.opening.outcome is not Outcome.ACCEPTED:
            raise RuntimeError("the view was stopped before it could answer")
        sessions.unwind(self._entry.request)
        return SwitchingProtocols()

    def _spawn(self, server: Server, view: Callable[[], HttpResponseBase | None]) -> None:
        shared = shared_connections()
        self._start = _Start(view, contextvars.copy_context(), shared)
        run = with_connections(
            shared, self._run_detached
        )  # a partial would hold 200 bytes of stack as long as the view
        try:
            if self._lease is not None:
                give_back()  # the view has its own, and this call only waits for it
            server.spawn(run, sys.intern(f"websocket {self._name}"))
        except BaseException:  # no thread can be started
            registry.leave(self._entry)
            raise

    def _wait_for_answer(self) -> None:
        try:
            self.opening.wait()
        except BaseException:  # the server stops the request: GreenletExit, SystemExit
            self.opening.refuse(_STOPPED)
            raise

    def _run_detached(self) -> None:
        view, context, shared = cast(_Start, self._start)
        self._start = None
        try:
            if self._entry.reactor.enter(context):
                self._run_view(view)
            else:
                context.run(self._run_view, view)
        finally:
            self.opening.end_wait()
            close_own_connections()
        if self._parked is not None:
            self._park(self._parked, context, shared)

    def _park(
        self, handlers: Handlers, context: contextvars.Context, shared: Mapping[str, BaseDatabaseWrapper]
    ) -> None:
        self._parked = None
        connection = cast(Connection, self.opening.connection)  # stay_open() has opened it
        if self._lease is not None:
            self._lease.park()
        connection.reactor.max_threads = conf.get("THREADS")
        try:
            Parked(self, connection, handlers, context, shared).begin()
        except (RuntimeError, OSError, MemoryError):  # no thread can be started, or no more sockets can be watched
            logger.warning("a view cannot be parked, and keeps its thread", exc_info=True)
            try:
                context.run(self._run_view, lambda: talk(self.websocket, events_of(self.websocket), handlers))
            finally:
                close_own_connections()
        else:
            registry.park(self._entry)

    def _run_view(self, view: Callable[[], HttpResponseBase | None]) -> None:
        """Run the view. If it is not to be parked, bring the connection, if there is one by then, to its end too."""
        lease, token = self._lease, None
        self._entry.begin(self._entry.reactor.caller())
        try:
            if self.opening.detaches:
                adopt_locals()
            if lease is not None:
                token = lease.begin(inherits=not self.opening.detaches)
            if self.opening.server_sent_101:
                self.websocket.accept()
            response = view()
            _check_is_ordinary(response)
            if self._stay_open(response):
                return
            if response is None and not self.websocket.closed:
                self.websocket.accept()
            self._end(response, None)
        except BaseException as error:
            outcomes.advise(error)
            self._end(None, error)
        finally:
            self._entry.end()
            if self._parked is None:
                try:
                    if self.opening.connection is not None:
                        self.opening.connection.finish()
                finally:
                    self.leave()
                    if lease is not None and token is not None:
                        lease.end(token)

    def _stay_open(self, response: HttpResponseBase | None) -> bool:
        """Do what `stay_open()` asks for, if the view has called it and returned a response. True: park it now.

        A view that cannot be parked talks here until its connection is over.
        """
        handlers = self.opening.handlers
        if handlers is None or handlers is BEGUN:
            return False
        if not isinstance(response, HttpResponseBase):
            raise RuntimeError(NOT_RETURNED if isinstance(handlers, Functions) else DISPATCH_NOT_RETURNED)
        if response.status_code >= 400:
            return False
        if can_park(self.websocket):
            conf.get("THREADS")  # a wrong value is an error of the view: later, nothing would close the connection
            self._parked = handlers
        self.opening.begin_stay()
        if self._parked is None:
            talk(self.websocket, events_of(self.websocket), handlers)
        return self._parked is not None

    def _end(self, response: HttpResponseBase | None, error: BaseException | None) -> None:
        """Do what follows from how the view has ended. If it had called `stay_open()` all the same, call `closed()`."""
        self._conclude(response, error)
        handlers = self.opening.begin_stay()
        if handlers is not None:
            try:
                call_closed(self.websocket, handlers)
            except BaseException as later:
                self.fail(later)

    # The turns of a parked view

    def begin_turn(self, runner: Runner) -> None:
        self._entry.begin(runner.caller)
        if self._lease is not None:
            self._lease.begin_turn(runner)

    def end_turn(self, runner: Runner) -> None:
        try:
            if self._lease is not None:
                self._lease.end_turn(runner)
            else:
                let_keep(runner, monotonic(), self._name)
        finally:
            self._entry.end()

    def fail(self, error: BaseException) -> None:
        """Do what follows from an exception that the view has let pass."""
        outcomes.advise(error)
        self._conclude(None, error)

    def leave(self) -> None:
        """Tell that the connection, if there was one, is over, and the view has ended."""
        try:
            if self.opening.connection is not None:
                guards.watch_no_longer(self._entry)
                if not self._is_refusal:
                    observers.tell_closed(self._entry)
        finally:
            registry.leave(self._entry)
            self.opening.over()

    def _conclude(self, response: HttpResponseBase | None, error: BaseException | None) -> None:
        """Do what follows from how the view has ended."""
        self.opening.refuse(_NORMAL)  # what has kept the WebSocket can accept no more
        accepted = self.opening.outcome is Outcome.ACCEPTED
        if not accepted and isinstance(error, HandshakeError):
            try:
                response, error = refuse(self._entry.request, error), None
            except Exception as fault:  # a header of a project's own error that cannot be sent
                error = fault
        conclusion = outcomes.conclude(
            response,
            error,
            accepted=accepted,
            is_own_end=isinstance(error, WebSocketClosed) and error.websocket is self.websocket,
            is_stopped=isinstance(error, self._entry.reactor.stops),
            has_caller=not self.opening.detaches,
            has_status_line=not self.opening.server_sent_101,
        )
        try:
            if conclusion.report is not None:
                self._report(conclusion.report)
        finally:
            if conclusion.close is not None:
                self.websocket.close(*conclusion.close)
            self._answer = conclusion.answer

    def _report(self, outcome: HttpResponseBase | BaseException) -> None:
        request = self._entry.request
        if not isinstance(outcome, BaseException):
            outcomes.log(request, outcome)
            return
        try:
            outcomes.report(request, outcome)
        except self._entry.reactor.stops:
            raise
        except BaseException:  # of a receiver of the signal, or a log handler: nothing above this view would tell it
            logger.exception("an exception of the view at %r could not be reported", request.path)

    def _opened(self, connection: Connection) -> None:
        if self._lease is not None:
            self._lease.accepted(connection)
        if not self._is_refusal:
            control.listen()
            observers.tell_opened(self._entry)


def _check_is_ordinary(response: object) -> None:
    if inspect.iscoroutine(response):  # of an asynchronous class-based view, which no decorator recognises
        response.close()
        raise TypeError("the view is asynchronous; a WebSocket view here is an ordinary function")
    if inspect.isgenerator(response):  # likewise
        raise TypeError(GENERATOR)
    if inspect.ismethod(response) and response.__name__ == "stay_open":
        raise TypeError(NOT_CALLED)
