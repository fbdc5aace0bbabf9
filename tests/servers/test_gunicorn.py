"""gunicorn: its own parser reads the handshake, so its environ and its read-ahead are the real ones."""

from __future__ import annotations

import io
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.test import override_settings
from django.urls import path
from gunicorn.config import Config
from gunicorn.http import wsgi
from gunicorn.http.parser import RequestParser

from dwebsocket import require_websocket
from dwebsocket.exceptions import ServerNotSupported
from dwebsocket.servers import find_server
from dwebsocket.servers.gunicorn import Gunicorn
from tests.links import PATIENCE_SECONDS, tcp_pair
from tests.peer import Peer, frame, text


@pytest.fixture
def parsed() -> Iterator[Any]:
    """The environ of a handshake as gunicorn makes it, its socket, and the peer."""
    sockets: list[Any] = []

    def parse(early: bytes = b"") -> tuple[dict[str, Any], Any, Peer]:
        sock, client = tcp_pair()
        sockets.extend((sock, client))
        peer = Peer.over(client)
        peer.send_raw(peer.handshake_request("/") + early)
        config = Config()
        request = next(RequestParser(config, sock, ("127.0.0.1", 1)))
        _, environ = wsgi.create(request, sock, ("127.0.0.1", 1), ("127.0.0.1", "80"), config)
        return environ, sock, peer

    yield parse
    for sock in sockets:
        sock.close()


def test_environ_of_gunicorn_is_known(parsed: Any) -> None:
    environ, sock, _ = parsed()
    server = find_server(environ)
    assert isinstance(server, Gunicorn)
    assert server.socket is sock


def test_socket_in_the_environ_of_another_server_is_not_trusted(parsed: Any) -> None:
    environ, _, _ = parsed()
    assert Gunicorn.find(environ | {"SERVER_SOFTWARE": "Unheard/1.0"}) is None


def test_input_that_a_middleware_has_replaced_is_refused_before_the_socket_is_touched(parsed: Any) -> None:
    environ, sock, _ = parsed(text("early"))
    number = sock.fileno()
    with pytest.raises(ServerNotSupported, match=r"replaced gunicorn's wsgi\.input by a _io\.BytesIO"):
        find_server(environ | {"wsgi.input": io.BytesIO()})
    assert sock.fileno() == number
    taken = find_server(environ).detach()
    assert taken.early == text("early")
    taken.dispose()


@pytest.mark.parametrize("early", [b"", text("early"), bytes(3000)], ids=len)
@pytest.mark.parametrize("take", ["detach", "attach"])
def test_bytes_that_gunicorn_has_read_ahead_are_recovered(parsed: Any, early: bytes, take: str) -> None:
    environ, _, _ = parsed(early)
    taken = getattr(find_server(environ), take)()
    taken.sock.setblocking(True)
    received = taken.early
    while len(received) < len(early):
        received += taken.sock.recv(4096)
    assert received == early
    taken.dispose()


def test_buffer_of_older_gunicorns_is_emptied() -> None:
    """26 and older have no ``take_buffered``."""
    unreader = types.SimpleNamespace(buf=io.BytesIO(b"early"))
    unreader.buf.seek(2)
    body = types.SimpleNamespace(reader=types.SimpleNamespace(unreader=unreader))
    sock, client = tcp_pair()
    with sock, client:
        server = Gunicorn({"wsgi.input": body}, sock)
        assert server.buffered() == b"early"
        assert unreader.buf.getvalue() == b""


@pytest.mark.parametrize("detach", [True, False], ids=["detached", "attached"])
def test_handshake_that_gunicorn_has_read_becomes_a_websocket(parsed: Any, detach: bool) -> None:
    @require_websocket(detach=detach)
    def view(request):
        for message in request.websocket:
            request.websocket.send(message)

    urls = types.ModuleType("urls")
    urls.urlpatterns = [path("", view)]  # type: ignore[attr-defined]
    environ, _, peer = parsed(text("early") + frame(0x1, b"cut")[:3])
    statuses: list[str] = []

    def serve() -> None:
        response = WSGIHandler()(environ, lambda status, headers: statuses.append(status))
        assert list(response) == []
        response.close()

    with override_settings(ROOT_URLCONF=urls, ALLOWED_HOSTS=["testserver"]):
        thread = threading.Thread(target=serve)
        thread.start()
        assert peer.recv_handshake().status == 101
        assert peer.recv_message() == "early"
        peer.send_raw(frame(0x1, b"cut")[3:])
        assert peer.recv_message() == "cut"
        if detach:
            thread.join(PATIENCE_SECONDS)
            assert statuses == ["101 Switching Protocols"]
        peer.send_close(1001)
        assert peer.recv_message().code == 1001  # type: ignore[union-attr]
        assert peer.read_to_eof() == b""
        peer.abandon()
        thread.join(PATIENCE_SECONDS)
    assert statuses == ["101 Switching Protocols"]


def test_view_that_outlives_its_request_keeps_all_that_it_can_use_and_shares_the_errors(parsed: Any) -> None:
    kept = []
    for _ in range(2):
        environ, _, _ = parsed()
        environ.setdefault("wsgi.early_hints", lambda headers: None)  # of gunicorn 25 and newer
        before = dict(environ)
        kept.append(find_server(environ).kept(environ))
        assert environ == before  # the log of the server asks it for more than a view does
        assert set(environ) - set(kept[-1]) == {"gunicorn.socket", "wsgi.early_hints"}
        assert {name for name in kept[-1] if kept[-1][name] != environ[name]} <= {"wsgi.errors", "wsgi.input"}
    first, second = kept
    assert first["wsgi.errors"] is second["wsgi.errors"]


def test_errors_go_to_the_log_that_was_opened_last(parsed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gunicorn, "_errors", None)
    logs = [io.StringIO(), io.StringIO()]
    for log in logs:
        environ, _, _ = parsed()
        environ["wsgi.errors"].streams = [log]
        find_server(environ).kept(environ)["wsgi.errors"].write("told")
    assert [log.getvalue() for log in logs] == ["told", "told"]
    environ["wsgi.errors"] = sys.stderr  # a middleware's
    assert find_server(environ).kept(environ)["wsgi.errors"] is sys.stderr
