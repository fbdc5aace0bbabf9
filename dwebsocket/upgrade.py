"""A Django request becomes a WebSocket: checked, handed to its view, and given back to Django as an ordinary response.

The view outlives its request. It runs in a greenlet or thread of its own; Django's call of it returns as soon as the
view has answered with HTTP, or has accepted. From then on the server has nothing to do with the connection any more.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import io
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.serializers.json import DjangoJSONEncoder
from django.dispatch import Signal
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseForbidden
from django.utils.cache import patch_vary_headers
from django.utils.http import is_same_domain
from django.utils.log import log_response

from . import access, conf, failures, guards, sessions
from .access import ConnectionInfo
from .clock import monotonic
from .connection import Connection
from .database import Lease, close_own_connections, give_back, with_shared_connections
from .live import live
from .overstay import Stay
from .protocol import deflate, handshake
from .protocol.codes import CloseCode
from .protocol.exceptions import (
    HandshakeError,
    OriginForbidden,
    ServerNotSupported,
    ShuttingDown,
    TooManyConnections,
    UpgradeRequired,
    WebSocketClosed,
)
from .protocol.extensions import Extension
from .protocol.handshake import Handshake, Headers
from .reactors.base import Reactor
from .servers import Server, find_server, handshake_request
from .signals import websocket_closed, websocket_opened
from .websocket import WebSocket

logger = logging.getLogger("dwebsocket")
origin_logger = logging.getLogger("django.security.WebSocketOrigin")

View = Callable[..., HttpResponseBase | None]

_STRIPPED = (
    "a proxy in between has removed the Upgrade header"
    " (behind nginx: proxy_http_version 1.1 and proxy_set_header Upgrade $http_upgrade)"
)
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Truth:
    """True or False, as a value and as a call: `if request.is_websocket` and `if request.is_websocket()`."""

    __slots__ = ("_value",)

    def __init__(self, value: bool) -> None:
        self._value = value

    def __bool__(self) -> bool:
        return self._value

    def __call__(self) -> bool:
        return self._value

    def __repr__(self) -> str:
        return repr(self._value)


_NO_OPENING = Handshake(key="")
_TRUTHS = {value: Truth(value) for value in (False, True)}


def prepare(request: HttpRequest) -> bool:
    """Give the request `is_websocket` and `websocket`, once; whether it asks to become a WebSocket."""
    if not hasattr(request, "is_websocket"):
        asked = "HTTP_UPGRADE" in request.META and _asks_for_websocket(request)
        request.is_websocket = _TRUTHS[asked]  # type: ignore[attr-defined]
        request.websocket = None  # type: ignore[attr-defined]
    return bool(request.is_websocket)  # type: ignore[attr-defined]


def _asks_for_websocket(request: HttpRequest) -> bool:
    request._handshake = handshake_request(request.META)  # type: ignore[attr-defined]  # for `upgrade()`
    return handshake.is_websocket(request._handshake)  # type: ignore[attr-defined]


def upgrade(
    request: HttpRequest, view: View, args: tuple[Any, ...], kwargs: dict[str, Any], given: dict[str, Any]
) -> HttpResponseBase:
    """The response of `view` to a request that asks for a WebSocket: its own where it refuses, else the inert 101.

    `given` are the options of the view's decorator.
    """
    options = conf.options(given)
    session = None

    def run() -> HttpResponseBase | None:  # not a partial: a call from C would cost every view a kilobyte of stack
        return view(request, *args, **kwargs)

    try:
        server = find_server(request.META, first=conf.server_classes())
        session = Session(request, server, options)
        session.opening = handshake.read(request._handshake)  # type: ignore[attr-defined]
        check_origin(request, options)
        guards.check(request, options.guard)
        live.enter(session, server.at_exit)
    except HandshakeError as error:
        if session is None or not server.has_answered:
            return refuse(request, error)
        return session.run(functools.partial(refuse, request, error))
    return session.run(run)


def refuse_stripped(request: HttpRequest) -> HttpResponse | None:
    """The answer to a request that was sent to open a WebSocket, and that a proxy has turned into plain HTTP."""
    if not handshake.has_lost_its_upgrade(handshake_request(request.META)):
        return None
    return refuse(request, UpgradeRequired(_STRIPPED))


def vary(response: HttpResponseBase) -> None:
    """Say that another answer is given to an opening handshake: a cache must keep the two apart."""
    patch_vary_headers(response, ["Upgrade"])


def refuse(request: HttpRequest, error: HandshakeError) -> HttpResponse:
    """The HTTP answer of a handshake that cannot succeed: a status and a sentence, and one line in the log."""
    response = HttpResponse(f"{error}\n", status=error.status_code, headers=error.headers, content_type="text/plain")
    log, level = _LOGS.get(type(error), (logging.getLogger("django.request"), "warning"))
    log_response(
        "%s: %s (%s)", response.reason_phrase, request.path, str(error), response=response, request=request, logger=log,
        level=level,
    )  # fmt: skip
    return response


_LOGS = {
    OriginForbidden: (origin_logger, "warning"),
    ServerNotSupported: (logger, "error"),
    TooManyConnections: (logger, "warning"),
    ShuttingDown: (logger, "info"),
}


def check_origin(request: HttpRequest, options: conf.Options) -> None:
    """OriginForbidden where the page that opens the WebSocket belongs to another site (RFC 6455, 10.2).

    A browser always says the origin; a client that says none is no browser, and is let in unless `require_origin`.
    """
    host = request.get_host()  # enforces ALLOWED_HOSTS
    origin = request.META.get("HTTP_ORIGIN")
    if origin is None and not options.require_origin:
        return
    if origin is None:
        raise OriginForbidden(f"no Origin for host {host!r}, and WEBSOCKET_REQUIRE_ORIGIN is set")
    trusted = (*options.allowed_origins, *settings.CSRF_TRUSTED_ORIGINS)
    own = f"{_scheme(request)}://{host}"
    # A host that begins with a dot stands for itself, and not for every subdomain.
    if origin == own or (not host.startswith(".") and _origin_matches(origin, own)):
        return
    if "*" not in options.allowed_origins and not any(_origin_matches(origin, allowed) for allowed in trusted):
        advice = (
            "add it to WEBSOCKET_ALLOWED_ORIGINS or CSRF_TRUSTED_ORIGINS,"
            " or let the proxy pass the host on (nginx: proxy_set_header Host $http_host)"
        )
        if not request.is_secure() and _origin_matches(origin, f"https://{host}"):
            advice = (
                f"it differs by its scheme alone, and this request looks like http; {_advice_about_tls(request)}; where"
                f' what ends TLS can send no header, write WEBSOCKET_ALLOWED_ORIGINS = ["https://{host}"]'
            )
        raise OriginForbidden(f"origin {origin!r} is not allowed for host {host!r}: {advice}")


def _scheme(request: HttpRequest) -> str:
    """The scheme of the page: a proxy that ends TLS may say wss where it has to say https, as Traefik does."""
    scheme = str(request.scheme)  # first: it judges the setting
    name, secure = settings.SECURE_PROXY_SSL_HEADER or ("", "")
    said = request.META.get(name, "").partition(",")[0].strip()
    return "https" if (secure, said) == ("https", "wss") else scheme


def _advice_about_tls(request: HttpRequest) -> str:
    if not settings.SECURE_PROXY_SSL_HEADER:
        return "behind a proxy that ends TLS, set SECURE_PROXY_SSL_HEADER, and let the proxy send that header"
    name, secure = settings.SECURE_PROXY_SSL_HEADER
    header, said = name.removeprefix("HTTP_").replace("_", "-").title(), request.META.get(name)
    sent = f"no {header}" if said is None else f"{header}: {said!r}"
    return f"the proxy sent {sent}, and SECURE_PROXY_SSL_HEADER expects {secure!r}: let it send that"


def _origin_matches(origin: str, allowed: str) -> bool:
    try:
        theirs, ours = urlsplit(origin.lower()), urlsplit(allowed.lower())
        theirs_port = theirs.port or _DEFAULT_PORTS.get(theirs.scheme)
        ours_port = ours.port or _DEFAULT_PORTS.get(ours.scheme)
    except ValueError:  # no URL at all
        return False
    if theirs.path or theirs.query or theirs.fragment or "@" in theirs.netloc:  # RFC 6454, 7: an origin has none
        return False
    if not theirs.hostname or not ours.hostname or theirs.scheme != ours.scheme or theirs_port != ours_port:
        return False
    pattern = ours.hostname[1:] if ours.hostname.startswith("*.") else ours.hostname
    return is_same_domain(theirs.hostname, pattern)


class SwitchingProtocols(HttpResponse):
    """What Django and the server get to see of a WebSocket: an empty 101 that closes itself, exactly once.

    It is never sent: by then the server writes into a dead end. Some servers forget to close a response that they
    could not send; `request_finished` must fire all the same, or the request's database connection stays open.
    """

    status_code = 101

    def __iter__(self) -> Iterator[bytes]:
        self.close()
        return iter(())

    def close(self) -> None:
        if not self.closed:
            super().close()


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
        self._lease = Lease(request, self.reactor) if options.release_db else None
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
                self._server.spawn(run, f"websocket {access.view_name(self.request)}")
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
            user=access.user_name(request),
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
            self._connection.close_soon(*failures.close_for_status(error.status_code, str(error)))

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
            failures.log(self.request, response)
            if self._server_has_answered or response.status_code >= 400:
                self._websocket.close(*failures.close_for_status(response.status_code, response.reason_phrase))

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
            failures.report(self.request, error)
        except self.reactor.stops:
            raise
        except BaseException:  # of a receiver of the signal, or a log handler: this view has nobody above it
            logger.exception("an exception of the view at %r could not be reported", self.request.path)
        finally:
            if self._connection is not None:
                self._connection.close(*failures.close_for(error))

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
            access.log(info, code, reason)

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


def adopt_locals() -> None:
    """Make this thread the owner of what Django keeps in its context: language, time zone, URLconf, script prefix.

    asgiref's Local ties its values to the thread that set them, also in a context that was copied on purpose.
    """
    for variable, value in contextvars.copy_context().items():
        kind = type(value)
        if kind.__module__ == "asgiref.local" and hasattr(value, "thread_id"):  # older versions do not tie them
            variable.set(kind(threading.get_ident(), value.data))
