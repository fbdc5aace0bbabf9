"""One WebSocket request: its view, and how it ends."""

from __future__ import annotations

import contextvars
import functools
import inspect
import io
import logging
from collections.abc import Callable, Sequence
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.dispatch import Signal
from django.http import HttpRequest, HttpResponseBase, HttpResponseForbidden

from .. import conf, guards
from ..connection.connection import Connection
from ..database.lease import Lease
from ..database.own import close_own_connections, give_back
from ..database.sharing import with_shared_connections
from ..process import observers
from ..process.info import ConnectionInfo
from ..process.naming import user_name, view_name
from ..process.overstay import Stay
from ..process.registry import live
from ..protocol import deflate, handshake
from ..protocol.codes import CloseCode
from ..protocol.exceptions import HandshakeError, WebSocketClosed
from ..protocol.extensions import Extension
from ..protocol.handshake import Handshake, Headers
from ..reactors.base import Reactor
from ..reactors.clock import monotonic
from ..servers import Server
from ..signals import websocket_closed, websocket_opened
from ..websocket import WebSocket
from . import outcomes, sessions
from .context import adopt_locals
from .refusals import SwitchingProtocols, refuse

logger = logging.getLogger("dwebsocket")
_NO_OPENING = Handshake(key="")


class Session:
    """One WebSocket request: its view, and how it ends."""

    __slots__ = (
        "_answered",
        "_connection",
        "_cookies",
        "_detach",
        "_error",
        "_lease",
        "_opened_at",
        "_options",
        "_response",
        "_server",
        "_server_has_answered",
        "_stay",
        "_websocket",
        "opening",
        "reactor",
        "request",
    )

    def __init__(self, request: HttpRequest, server: Server, options: conf.Options) -> None:
        self.request = request
        self._server = server
        self._server_has_answered = server.has_answered
        self._options = options
        self._detach = options.detach and server.can_detach
        self.reactor: Reactor = server.reactor
        self._answered = self.reactor.latch()  # the view has accepted, or has answered with HTTP
        self.opening = _NO_OPENING
        self._connection: Connection | None = None
        self._response: HttpResponseBase | None = None
        self._error: BaseException | None = None
        self._cookies: Sequence[tuple[str, str]] = ()  # of the session, as headers of the 101
        self._opened_at = 0.0
        self._stay = Stay(request.path, self.reactor)
        self._lease = Lease(view_name(request), self.reactor) if options.release_db else None
        self._websocket: WebSocket = options.websocket_class(
            self._accept,
            before_accept=self._save_session,
            after_accept=self._opened,
            exclusively=self.reactor.exclusively(),
            turnstile=self.reactor.turnstile(),
            json_encoder=DjangoJSONEncoder,
        )
        request.websocket = self._websocket  # type: ignore[attr-defined]

    def run(self, view: Callable[[], HttpResponseBase | None]) -> HttpResponseBase:
        """What Django gets: the view's own response or exception if it did not accept, else the inert 101."""
        if self._detach:
            context = contextvars.copy_context()
            run = with_shared_connections(functools.partial(context.run, self._run_detached, view))
            try:
                if self._lease is not None:
                    give_back()  # the view has its own, and this call only waits for it
                self._server.spawn(run, f"websocket {view_name(self.request)}")
            except BaseException:  # no thread can be started
                live.leave(self)
                raise
            self._wait_for_answer()
        else:
            self._run_view(view)
        if self._error is not None:
            try:
                raise self._error
            finally:
                del self._error  # the traceback would hold us, and we it
        if self._response is not None:
            return self._response
        sessions.unwind(self.request)
        return SwitchingProtocols()

    def _wait_for_answer(self) -> None:
        try:
            self._answered.wait()
        except BaseException:  # the server stops the request: GreenletExit, SystemExit
            if self._connection is None:
                self._websocket.close(CloseCode.GOING_AWAY, "the server stopped the request")
            raise

    def _run_detached(self, view: Callable[[], HttpResponseBase | None]) -> None:
        try:
            adopt_locals()
            self._run_view(view)
        finally:
            self._answered.set()
            close_own_connections()

    def _run_view(self, view: Callable[[], HttpResponseBase | None]) -> None:
        """Run the view to its end, and bring the connection, if there is one by then, to its end too."""
        lease, token = self._lease, None
        self._stay.begin()
        try:
            if lease is not None:
                token = lease.begin(inherits=not self._detach)
            if self._server_has_answered:
                self._websocket.accept()
            self._end_with(view())
        except BaseException as error:
            self._end_by(error)
        finally:
            self._stay.end()
            try:
                if self._connection is not None:
                    self._finish(self._connection)
            finally:
                live.leave(self)
                if lease is not None and token is not None:
                    lease.end(token)

    def _finish(self, connection: Connection) -> None:
        guards.watch_no_longer(self)
        try:
            connection.finish()
        finally:
            self._closed()

    # What others ask of it

    def info(self) -> ConnectionInfo | None:
        """What is known of the connection; None before there is one."""
        connection, request = self._connection, self.request
        if connection is None:
            return None
        return ConnectionInfo(
            websocket=self._websocket,
            request=request,
            path=request.path,
            user=user_name(request),
            address=request.META.get("REMOTE_ADDR", ""),
            seconds=monotonic() - self._opened_at,
            messages_received=connection.messages_received,
            messages_sent=connection.messages_sent,
            bytes_received=connection.bytes_received,
            bytes_sent=connection.bytes_sent,
        )

    def revoke(self, error: HandshakeError) -> None:
        """Close the connection: a guard has something against it."""
        if self._connection is not None:
            self._connection.close_soon(*outcomes.close_for_status(error.status_code, str(error)))

    def go_away(self, code: int) -> None:
        """Close the connection, or as soon as there is one: the process is about to end."""
        if self._connection is not None:
            self._connection.go_away(code)

    def _end_with(self, response: HttpResponseBase | None) -> None:
        _check_is_no_coroutine(response)
        if response is None and not self._websocket.closed:
            self._websocket.accept()
        elif self._refused():
            self._response = response if response is not None else HttpResponseForbidden()
        elif isinstance(response, HttpResponseBase):  # too late for HTTP: the log and a Close frame say it
            outcomes.log(self.request, response)
            if self._server_has_answered or response.status_code >= 400:
                self._websocket.close(*outcomes.close_for_status(response.status_code, response.reason_phrase))

    def _end_by(self, error: BaseException) -> None:
        own_end = isinstance(error, WebSocketClosed) and error.websocket is self._websocket
        if self._refused():
            if own_end:
                self._response = HttpResponseForbidden()
            elif isinstance(error, HandshakeError):
                self._response = refuse(self.request, error)
            else:
                self._error = error
        elif isinstance(error, self.reactor.stops):
            self._websocket.close(CloseCode.GOING_AWAY)
            self._error = None if self._detach else error
        elif not own_end:
            self._report(error)

    def _refused(self) -> bool:
        """Whether the view ends without having accepted; whoever has kept its WebSocket can accept no more then."""
        if self._connection is None:
            self._websocket.close()
            if self._cookies:  # accept() has failed: the answer is to carry the cookie of the session that was saved
                self.request.session.modified = True
        return self._connection is None

    def _report(self, error: BaseException) -> None:
        try:
            outcomes.report(self.request, error)
        except self.reactor.stops:
            raise
        except BaseException:  # of a receiver of the signal, or a log handler: this view has nobody above it
            logger.exception("an exception of the view at %r could not be reported", self.request.path)
        finally:
            if self._connection is not None:
                self._connection.close(*outcomes.close_for(error))

    # The acceptance: before, at, and after it

    def _save_session(self) -> None:
        self._cookies = sessions.save(self.request) or self._cookies  # accept() is called again where it has failed

    def _accept(self, subprotocol: str | None, headers: Headers | None) -> Connection:
        extensions: list[Extension] = []
        response = b""
        if not self._server_has_answered:
            if subprotocol is None:
                subprotocol = handshake.choose_subprotocol(self.opening.subprotocols, self._options.subprotocols)
            extensions, agreed = self._agree_on_extensions()
            headers = [*handshake.pairs(headers), *self._cookies]
            response = self.opening.response(subprotocol, headers, extensions=agreed)
        if self._detach and self._server.reuses_environ:
            self.request.environ = self.request.META = dict(self.request.META)  # type: ignore[attr-defined]
        taken = self._server.detach() if self._detach else self._server.attach()
        connection = Connection(
            taken.sock, self.reactor, limits=self._options.limits, extensions=extensions, descriptor=taken.descriptor,
            dispose=functools.partial(self._stay.connection_over, taken.dispose),
        )  # fmt: skip
        self._websocket.subprotocol = subprotocol
        self._connection = connection
        self._opened_at = monotonic()
        connection.open(response, taken.early)
        if self._options.guard:
            guards.watch(self, self._options.guard, self._options.guard_interval)
        if self._detach:
            self._forget_server()
        if live.is_ending:  # `go_away()` may have come too early
            connection.go_away(conf.get("SHUTDOWN_CODE"))
        self._answered.set()
        return connection

    def _opened(self) -> None:
        if self._lease is not None and self._connection is not None:
            self._lease.accepted(self._connection)
        self._send(websocket_opened)

    def _closed(self) -> None:
        info = self.info()
        if info is not None:
            code, reason = self._websocket.close_code or CloseCode.ABNORMAL_CLOSURE, self._websocket.close_reason
            self._send(websocket_closed, code=code, reason=reason, **info.traffic)
            observers.log(info, code, reason)

    def _send(self, signal: Signal, **arguments: Any) -> None:
        signal.send_robust(type(self._websocket), request=self.request, websocket=self._websocket, **arguments)

    def _agree_on_extensions(self) -> tuple[list[Extension], list[str]]:
        """The extensions of this connection, and how the 101 names them."""
        # A few bytes inflate to a thousand times as many: nothing to give on piece by piece in bounded memory.
        compression = None if self._options.limits.streaming else self._options.compression
        agreement = None if compression is None else deflate.agree(self.opening.extensions, compression)
        if compression is None or agreement is None:
            return [], []
        max_message_size = self._options.limits.max_message_size
        extension = deflate.PerMessageDeflate(agreement, compression, max_message_size=max_message_size)
        return [extension], [agreement.header()]

    def _forget_server(self) -> None:
        """Let go of what only the request needed: it would live as long as the view."""
        vars(self.request).pop("_handshake", None)
        self.request._stream = io.BytesIO()
        self.opening = _NO_OPENING
        del self._server, self._options


def _check_is_no_coroutine(response: object) -> None:
    if inspect.iscoroutine(response):  # of an asynchronous class-based view, which no decorator recognises
        response.close()
        raise TypeError("the view is asynchronous; a WebSocket view here is an ordinary function")
