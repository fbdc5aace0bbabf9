"""A test client for WebSocket views: Django's client, with one method more.

class ChatTests(TestCase):
    client_class = WebSocketClient

    def test_echo(self):
        with self.client.websocket("/echo/") as ws:
            ws.send("hi")
            self.assertEqual(ws.receive(), "hi")

There is no server: the project's middleware, URLconf and view run in threads of this process, and speak the real
protocol over a socket pair. They use the database connections of the test, and so see its transaction.
"""

from __future__ import annotations

import contextvars
import json
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from django.core.serializers.json import DjangoJSONEncoder
from django.core.signals import got_request_exception
from django.db import connections
from django.test import Client
from django.urls import Resolver404, resolve

from . import guards
from .client import ClientConnection, ClientHandshake, HandshakeFailed, Response, read_head
from .database.sharing import with_connections
from .groups.testing import SentMessage, begin_anew, groups_down, sent_to
from .process.naming import dotted_name
from .process.registry import Entry, registry
from .protocol.codes import CloseCode
from .protocol.exceptions import WebSocketClosed, WebSocketError
from .protocol.messages import Message
from .reactors.clock import monotonic
from .reactors.pool import TURNS
from .servers.testing import KEY
from .upgrade.context import adopt_locals

__all__ = [
    "SentMessage",
    "TestWebSocket",
    "WebSocketClient",
    "WebSocketClientMixin",
    "WebSocketRefused",
    "groups_down",
    "sent_to",
]

#: Stands for the origin of the site's pages, as a browser sends it from there.
SAME_ORIGIN = "same origin"

_PACKAGE = str(Path(__file__).parent)
_NAP_SECONDS = 0.001  # between two looks whether a parked view has ended


class WebSocketRefused(WebSocketError):
    """The view, or a middleware before it, answered with HTTP: `response`, as the client's `get()` would return it."""

    def __init__(self, response: Any) -> None:
        super().__init__(response)
        self.response = response

    def __str__(self) -> str:
        response = self.response
        text = "" if response.streaming else response.content[:200].decode(errors="replace").strip()
        location = f" to {response['Location']}" if "Location" in response else ""
        return f"{response.status_code} {response.reason_phrase}{location}{f': {text}' if text else ''}"


class WebSocketClientMixin:
    """Adds `websocket()` to a test client. `websocket_timeout` (seconds) limits each of its waits."""

    websocket_timeout: float = 5

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        begin_anew()  # a test case makes a client for each test
        super().__init__(*args, **kwargs)

    def websocket(
        self,
        path: str,
        *,
        subprotocols: Sequence[str] = (),
        origin: str | None = SAME_ORIGIN,
        headers: Mapping[str, str] | None = None,
        secure: bool = False,
        timeout: float | None = None,
        **extra: Any,
    ) -> TestWebSocket:
        """Make a WebSocket to the view at `path` (with its query), which a `with` statement opens and closes.

        `origin`: that of the site itself unless another one is given; None for a client that is no browser. `headers`
        and `extra` (of the environ) as for `get()`; so are cookies and logins. `timeout` is in seconds.

        Entering raises WebSocketRefused when the answer is not 101, the exception of the view if it raised one, and
        TimeoutError when no answer comes.
        """
        environ = {**getattr(self, "defaults", {}), **extra}
        host = environ.get("HTTP_HOST") or environ.get("SERVER_NAME") or "testserver"
        if origin == SAME_ORIGIN:
            origin = f"{'https' if secure else 'http'}://{host}"
        handshake = ClientHandshake(subprotocols=subprotocols, origin=origin)
        return TestWebSocket(
            self,
            path,
            handshake,
            {"HTTP_HOST": host, **extra},
            headers={**handshake.headers(), **(headers or {})},
            secure=secure,
            timeout=self.websocket_timeout if timeout is None else timeout,
        )

    def store_exc_info(self, *, request: Any = None, **kwargs: Any) -> None:
        """Keep an exception that Django reports, unless it is a WebSocket's: that WebSocket raises it."""
        if _exchange_of(request) is None:
            super().store_exc_info(**kwargs)  # type: ignore[misc]


class WebSocketClient(WebSocketClientMixin, Client):
    """Django's test client, with `websocket()`."""


class TestWebSocket:
    """The client's end of a WebSocket.

    `response` is the head of the 101: `status`, `get(name)`. `subprotocol` is the chosen one. `close_code` and
    `close_reason` are known once it is closed.
    """

    __test__ = False  # else pytest collects a class with this name

    def __init__(
        self,
        client: Any,
        path: str,
        handshake: ClientHandshake,
        extra: dict[str, Any],
        *,
        headers: Mapping[str, str],
        secure: bool,
        timeout: float,
    ) -> None:
        self.path = path
        self.timeout = timeout
        self._client = client
        self._handshake = handshake
        self._request = {"headers": headers, "secure": secure, **extra}
        self._exchange: _Exchange | None = None
        self._connection: ClientConnection | None = None
        self._response: Response | None = None

    def __enter__(self) -> TestWebSocket:
        if self._exchange is not None:
            raise RuntimeError("this WebSocket has been opened before: ask the client for another one")
        self._exchange = exchange = _Exchange(self._client, self.path)
        try:
            exchange.run(lambda: self._client.generic("GET", self.path, **self._request, **{KEY: exchange}))
            self._open(exchange, monotonic() + self.timeout)
        except BaseException:
            exchange.end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        deadline = monotonic() + self.timeout
        exchange = self._running()
        try:
            self._open_connection().close(timeout=self.timeout)
            ended = exchange.join(deadline)
            guards.settle(max(0.0, deadline - monotonic()))  # guards query on the database connections of this test
            if error is None:
                self._raise_error_of_view()
                if not ended:
                    raise TimeoutError(
                        f"{exchange.view} has not ended {self.timeout:g} s after the close{exchange.place()}"
                    )
        finally:
            exchange.end()

    def __iter__(self) -> Iterator[Message]:
        """Give every message until the connection closes. TimeoutError when neither a message nor the end comes."""
        while True:
            try:
                message = self.receive()
            except WebSocketClosed:
                return
            yield message

    def send(self, message: Message) -> None:
        """Send a message: `str` as text, `bytes` as binary. WebSocketClosed when the connection is closed."""
        try:
            self._open_connection().send(message, self.timeout)
        except WebSocketClosed as error:
            closed = error
        else:
            return
        self._raise_error_of_view()  # not in the except block: WebSocketClosed is not its context
        raise closed

    def receive(self, timeout: float | None = None) -> Message:
        """Return the next message. TimeoutError, which says where the view is, when none comes in `timeout` seconds.

        When the connection is closed: the exception of the view if it raised one, else WebSocketClosed with
        `close_code` and `close_reason`.
        """
        seconds = self.timeout if timeout is None else timeout
        try:
            return self._open_connection().receive(seconds)
        except TimeoutError:
            exchange = self._running()
            raise TimeoutError(f"no message of {exchange.view} within {seconds:g} s{exchange.place()}") from None
        except WebSocketClosed as error:
            closed = error
        if closed.close_code == CloseCode.INTERNAL_ERROR:  # one that is not parked closes before it reports
            self._running().join(monotonic() + seconds)
        self._raise_error_of_view()
        raise closed

    def send_json(self, obj: Any) -> None:
        """Send `obj` as JSON text, encoded as Django encodes it. Errors as for `send()`."""
        self.send(json.dumps(obj, cls=DjangoJSONEncoder))

    def receive_json(self, timeout: float | None = None) -> Any:
        """Return the next message, decoded from JSON. Errors as for `receive()`; ValueError when it is no JSON."""
        return json.loads(self.receive(timeout))

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Do the closing handshake, and return when the view's side has closed, too. A second call does nothing."""
        self._open_connection().close(code, reason, timeout=self.timeout)

    @property
    def response(self) -> Response:
        """The head of the 101 that opened it."""
        if self._response is None:
            raise RuntimeError(_NOT_OPEN)
        return self._response

    @property
    def subprotocol(self) -> str | None:
        """The chosen subprotocol."""
        return self._open_connection().subprotocol

    @property
    def closed(self) -> bool:
        """Whether the end has been received."""
        return self._open_connection().closed

    @property
    def close_code(self) -> int | None:
        """The code of the Close frame that came; 1006 where none came; None while the connection is open."""
        return self._open_connection().close_code

    @property
    def close_reason(self) -> str:
        """The reason that came with `close_code`."""
        return self._open_connection().close_reason

    def _open(self, exchange: _Exchange, deadline: float) -> None:
        try:
            head, early = read_head(exchange.client_end, deadline)
        except TimeoutError:
            raise TimeoutError(
                f"{exchange.view} has neither accepted nor answered within {self.timeout:g} s{exchange.place()}"
            ) from None
        except HandshakeFailed:  # the socket was closed, so there is an answer, or an exception
            head = early = b""
        if not head:
            exchange.join_request(deadline)
            self._raise_error_of_view()
            raise WebSocketRefused(exchange.result())
        self._response = response = self._handshake.read(head)
        for cookie in response.get_all("set-cookie"):
            self._client.cookies.load(cookie)
        self._connection = ClientConnection(
            exchange.client_end, early, subprotocol=response.get("sec-websocket-protocol")
        )
        if exchange.is_detached:
            exchange.join_request(deadline)  # so that its middleware has unwound when the test goes on

    def _raise_error_of_view(self) -> None:
        error = self._running().take_error()
        if error is not None and self._client.raise_request_exception:
            raise error

    def _running(self) -> _Exchange:
        if self._exchange is None:
            raise RuntimeError(_NOT_OPEN)
        return self._exchange

    def _open_connection(self) -> ClientConnection:
        if self._connection is None:
            raise RuntimeError(_NOT_OPEN)
        return self._connection


_NOT_OPEN = "this WebSocket is not open: use it in a with statement"


class _Exchange:
    """The request of one WebSocket, and the threads in which it and its view run."""

    def __init__(self, client: Any, path: str) -> None:
        self.socket, self.client_end = socket.socketpair()
        self.is_detached = False
        self._path = path
        self._databases = {alias: connections[alias] for alias in connections}  # the view gets them from the request
        self._threads: list[threading.Thread] = []
        self._request_thread: threading.Thread | None = None
        self._response: Any = None
        self._failure: BaseException | None = None  # raised by the request as a whole
        self._error: BaseException | None = None  # raised by the view
        got_request_exception.connect(self._on_exception)

    @property
    def view(self) -> str:
        """The view under test, in words."""
        try:
            view = resolve(urlsplit(self._path).path).func
        except Resolver404:
            return f"the answer to {self._path}"
        return f"the view {dotted_name(view)} at {self._path}"

    def run(self, get_response: Callable[[], Any]) -> None:
        """Run the request in a new thread; where its view is attached, the thread lives as long as the view."""

        def run() -> None:
            try:
                adopt_locals()
                self._response = get_response()
            except BaseException as error:
                self._failure = error
            finally:
                self.socket.close()  # by now it is a dead end, or the request was refused

        context = contextvars.copy_context()
        in_thread = with_connections(self._databases, lambda: context.run(run))
        self._request_thread = threading.Thread(target=in_thread, daemon=True)
        self._threads.append(self._request_thread)
        self._request_thread.start()

    def spawn(self, run: Callable[..., None], function: Callable[[], None], name: str) -> None:
        """Run a view that outlives its request."""
        self.is_detached = True

        def in_thread() -> None:
            self._threads.append(threading.current_thread())
            started.set()
            function()

        started = threading.Event()
        run(in_thread, name)
        started.wait()

    def join_request(self, deadline: float) -> None:
        """Wait until the request has ended."""
        self._join([self._request_thread] if self._request_thread is not None else [], deadline)

    def join(self, deadline: float) -> bool:
        """Wait until the request and the view, with its last turn, have ended; False when the time is over first."""
        if not self._join(self._threads, deadline):
            return False
        while self._members():
            if monotonic() >= deadline:
                return False
            time.sleep(_NAP_SECONDS)
        return True

    def result(self) -> Any:
        """Return the response to the request, or raise its exception."""
        if self._failure is not None:
            raise self._failure
        if self._response is None:
            raise TimeoutError(f"{self.view} has not been answered{self.place()}")
        return self._response

    def take_error(self) -> BaseException | None:
        """Return the exception of the view, once."""
        error, self._error = self._error, None
        return error

    def place(self) -> str:
        """Say where the view is just now, as the end of a sentence."""
        frames = sys._current_frames()
        members = self._members()
        turns = [thread for thread in threading.enumerate() if thread.name == TURNS] if members else []
        for thread in [*turns, *reversed(self._threads)]:
            if thread.is_alive() and thread.ident in frames:
                stack = traceback.extract_stack(frames[thread.ident])
                own = [frame for frame in stack if not frame.filename.startswith((_PACKAGE, _STANDARD_LIBRARY))]
                if own:
                    return f"; it is in {own[-1].filename}, line {own[-1].lineno}: {own[-1].line}"
        if any(thread.is_alive() for thread in self._threads):
            return ""
        return "; it is parked" if members else "; it has ended"

    def end(self) -> None:
        """Disconnect the signal, close the socket, and do not wait at exit for a view that does not end."""
        got_request_exception.disconnect(self._on_exception)
        self.client_end.close()
        for member in self._members():
            registry.leave(member)

    def _members(self) -> list[Entry]:
        """The WebSocket of this exchange, while its view has not ended."""
        return [member for member in registry.members() if _exchange_of(member.request) is self]

    def _join(self, threads: list[threading.Thread], deadline: float) -> bool:
        for thread in threads:
            thread.join(max(0.0, deadline - monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _on_exception(self, *, request: Any = None, **kwargs: Any) -> None:
        if _exchange_of(request) is self:
            self._error = sys.exc_info()[1]


_STANDARD_LIBRARY = str(Path(threading.__file__).parent) + "/threading.py"


def _exchange_of(request: Any) -> object:
    return None if request is None else request.META.get(KEY)
