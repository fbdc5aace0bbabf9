"""The view of one WebSocket request runs: in a new greenlet or thread, or, attached, in the server's call."""

from __future__ import annotations

import contextvars
import functools
import inspect
import logging
import sys
from collections.abc import Callable

from django.core.serializers.json import DjangoJSONEncoder
from django.http import HttpResponseBase

from .. import conf, guards
from ..connection.connection import Connection
from ..database.lease import Lease
from ..database.own import close_own_connections, give_back
from ..database.sharing import with_shared_connections
from ..groups import control
from ..process import observers
from ..process.naming import view_name
from ..process.overstay import Stay
from ..process.registry import Entry, registry
from ..protocol.codes import CloseCode
from ..protocol.exceptions import HandshakeError, WebSocketClosed
from ..protocol.frames import Close
from ..protocol.handshake import Handshake
from ..servers import Server
from ..websocket import WebSocket
from . import outcomes, sessions
from .context import adopt_locals
from .opening import Opening, Outcome
from .refusals import SwitchingProtocols, refuse

logger = logging.getLogger("dwebsocket")

#: The error of a view that is a generator.
GENERATOR = "the view is a generator; a WebSocket view does not yield its messages: request.websocket.send() sends one"

_NORMAL = Close(CloseCode.NORMAL_CLOSURE)
_STOPPED = Close(CloseCode.GOING_AWAY, "the server stopped the request")


class ViewRun:
    """One run of a view, and what Django gets of it."""

    __slots__ = ("_answer", "_entry", "_is_refusal", "_lease", "_name", "_opening", "_stay", "_websocket")

    def __init__(self, entry: Entry, server: Server, options: conf.Options, shook: Handshake | None) -> None:
        request = entry.request
        self._entry = entry
        self._opening = Opening(entry, server, options, shook, self._opened)
        self._answer: HttpResponseBase | BaseException | None = None  # of the view, for Django
        self._is_refusal = shook is None  # where the server had sent the 101: a Close frame refuses
        self._name = view_name(request)
        self._lease = Lease(self._name, entry.reactor) if options.release_db else None
        self._stay = Stay(request.path, entry.reactor)
        entry.on_close(self._stay.connection_over)
        self._websocket: WebSocket = options.websocket_class(self._opening, json_encoder=DjangoJSONEncoder)
        entry.websocket = self._websocket
        request.websocket = self._websocket  # type: ignore[attr-defined]

    def run(self, server: Server, view: Callable[[], HttpResponseBase | None]) -> HttpResponseBase:
        """The answer for Django: the view's own response or exception if it did not accept, else the inert 101."""
        if self._opening.detaches:
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
        if self._opening.outcome is not Outcome.ACCEPTED:
            raise RuntimeError("the view was stopped before it could answer")
        sessions.unwind(self._entry.request)
        return SwitchingProtocols()

    def _spawn(self, server: Server, view: Callable[[], HttpResponseBase | None]) -> None:
        context = contextvars.copy_context()
        run = with_shared_connections(functools.partial(context.run, self._run_detached, view))
        try:
            if self._lease is not None:
                give_back()  # the view has its own, and this call only waits for it
            server.spawn(run, sys.intern(f"websocket {self._name}"))
        except BaseException:  # no thread can be started
            registry.leave(self._entry)
            raise

    def _wait_for_answer(self) -> None:
        try:
            self._opening.wait()
        except BaseException:  # the server stops the request: GreenletExit, SystemExit
            self._opening.refuse(_STOPPED)
            raise

    def _run_detached(self, view: Callable[[], HttpResponseBase | None]) -> None:
        try:
            self._run_view(view)
        finally:
            self._opening.end_wait()
            close_own_connections()

    def _run_view(self, view: Callable[[], HttpResponseBase | None]) -> None:
        """Run the view to its end, and bring the connection, if there is one by then, to its end too."""
        lease, token = self._lease, None
        self._stay.begin()
        try:
            if self._opening.detaches:
                adopt_locals()
            if lease is not None:
                token = lease.begin(inherits=not self._opening.detaches)
            if self._opening.server_sent_101:
                self._websocket.accept()
            response = view()
            _check_is_ordinary(response)
            if response is None and not self._websocket.closed:
                self._websocket.accept()
            self._conclude(response, None)
        except BaseException as error:
            outcomes.advise(error)
            self._conclude(None, error)
        finally:
            self._stay.end()
            try:
                if self._opening.connection is not None:
                    self._finish(self._opening.connection)
            finally:
                registry.leave(self._entry)
                self._opening.over()
                if lease is not None and token is not None:
                    lease.end(token)

    def _conclude(self, response: HttpResponseBase | None, error: BaseException | None) -> None:
        """Do what follows from how the view has ended."""
        self._opening.refuse(_NORMAL)  # what has kept the WebSocket can accept no more
        accepted = self._opening.outcome is Outcome.ACCEPTED
        if not accepted and isinstance(error, HandshakeError):
            try:
                response, error = refuse(self._entry.request, error), None
            except Exception as fault:  # a header of a project's own error that cannot be sent
                error = fault
        conclusion = outcomes.conclude(
            response,
            error,
            accepted=accepted,
            is_own_end=isinstance(error, WebSocketClosed) and error.websocket is self._websocket,
            is_stopped=isinstance(error, self._entry.reactor.stops),
            has_caller=not self._opening.detaches,
            has_status_line=not self._opening.server_sent_101,
        )
        try:
            if conclusion.report is not None:
                self._report(conclusion.report)
        finally:
            if conclusion.close is not None:
                self._websocket.close(*conclusion.close)
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

    def _finish(self, connection: Connection) -> None:
        guards.watch_no_longer(self._entry)
        try:
            connection.finish()
        finally:
            if not self._is_refusal:
                observers.tell_closed(self._entry)


def _check_is_ordinary(response: object) -> None:
    if inspect.iscoroutine(response):  # of an asynchronous class-based view, which no decorator recognises
        response.close()
        raise TypeError("the view is asynchronous; a WebSocket view here is an ordinary function")
    if inspect.isgenerator(response):  # likewise
        raise TypeError(GENERATOR)
