"""What all servers have in common: the handshake in the environ, and taking the socket over."""

from __future__ import annotations

import errno
import io
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
from django.core.handlers.wsgi import LimitedStream

from dwebsocket.exceptions import ServerNotSupported
from dwebsocket.protocol.handshake import Request
from dwebsocket.servers import SERVERS, base, find_server
from dwebsocket.servers.base import EMPTY_BODY, alike, handshake_request
from dwebsocket.servers.gunicorn import Gunicorn
from dwebsocket.servers.runserver import RunServer
from tests.links import descriptors, tcp_pair

Pair = tuple[RunServer, socket.socket, socket.socket]


def environ_of(reader: Any) -> dict[str, Any]:
    return {"SERVER_SOFTWARE": "WSGIServer/0.2 CPython", "wsgi.input": LimitedStream(reader, 0)}


@pytest.fixture
def taken_by() -> Iterator[Callable[..., Pair]]:
    """A server behind an environ like runserver's, its socket, and the client's."""
    sockets: list[Any] = []

    def make(
        pair: Callable[[], tuple[socket.socket, socket.socket]] = tcp_pair, early: bytes = b"", head: bytes = b"head"
    ) -> Pair:
        sock, client = pair()
        client.sendall(head + early)
        reader = sock.makefile("rb", -1)
        assert reader.read(len(head)) == head  # what is behind it is in the reader's buffer now
        sockets.extend((sock, client, reader))
        server = RunServer.find(environ_of(reader))
        assert isinstance(server, RunServer)
        return server, sock, client

    yield make
    for entry in sockets:
        entry.close()


# What a view keeps that outlives its request


def text(*parts: str) -> str:
    """A new string; a literal would be one for all."""
    return "".join(parts)


def test_of_many_equal_strings_one_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_alike", {})
    first, second = text("exam", "ple.org"), text("example", ".org")
    assert first is not second
    assert alike(first) is alike(second) is first


def test_strings_that_are_kept_are_few_and_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_alike", {})
    long = "x" * 1000
    assert alike(long) is long
    for number in range(10_000):
        assert alike(f"number {number}") == f"number {number}"
        assert len(base._alike) <= 4096
    assert long not in base._alike


def test_what_differs_from_one_client_to_the_next_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_alike", {})
    environ = {"HTTP_COOKIE": text("secret", "!"), "HTTP_HOST": text("host", "!"), "wsgi.version": (1, 0)}
    server = RunServer(environ, None)
    kept = server.kept(environ)
    assert kept == {**environ, "wsgi.input": EMPTY_BODY}
    assert "wsgi.input" not in environ
    assert "secret!" not in base._alike
    assert "host!" in base._alike


def test_empty_body_is_read_by_all_and_closed_or_written_by_none() -> None:
    with EMPTY_BODY as body:
        assert [body.read(), body.read(10), body.readline(), body.readlines(), list(body)] == [b"", b"", b"", [], []]
    EMPTY_BODY.close()
    assert not EMPTY_BODY.closed
    assert not EMPTY_BODY.writable()
    for write, data in ((EMPTY_BODY.write, b"x"), (EMPTY_BODY.writelines, [b"x"])):
        with pytest.raises(io.UnsupportedOperation):
            write(data)  # type: ignore[operator]
    assert EMPTY_BODY.getvalue() == b""


# The handshake in the environ


def test_headers_of_the_environ_get_the_names_they_had_on_the_wire() -> None:
    environ = {
        "REQUEST_METHOD": "GET",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_SEC_WEBSOCKET_KEY": "key",
        "HTTP_HOST": "testserver",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "5",
        "PATH_INFO": "/",
        "wsgi.input": None,
    }
    assert handshake_request(environ) == Request(
        "GET",
        "HTTP/1.1",
        {"sec-websocket-key": "key", "host": "testserver", "content-type": "text/plain", "content-length": "5"},
    )


def test_empty_length_and_type_are_no_headers() -> None:
    assert handshake_request({"CONTENT_LENGTH": "", "CONTENT_TYPE": ""}) == Request("", "", {})


# Detached


def test_detached_descriptor_keeps_its_number_and_its_peer(taken_by: Callable[..., Pair]) -> None:
    server, sock, client = taken_by()
    number = sock.fileno()
    taken = server.detach()
    assert taken.sock.fileno() == number
    assert taken.sock.gettimeout() == 0
    assert (taken.sock.family, taken.sock.type) == (client.family, client.type)
    client.sendall(b"to us")
    client.settimeout(5)
    taken.sock.setblocking(True)
    assert taken.sock.recv(100) == b"to us"
    taken.sock.sendall(b"to the client")
    assert client.recv(100) == b"to the client"
    taken.dispose()
    assert client.recv(100) == b""


@pytest.mark.parametrize("timeout", [None, 0.0, 7.5])
def test_server_is_left_with_a_dead_end_of_the_same_timeout(
    taken_by: Callable[..., Pair], timeout: float | None
) -> None:
    server, sock, client = taken_by()
    sock.settimeout(timeout)
    taken = server.detach()
    assert sock.gettimeout() == timeout
    assert sock.fileno() not in (-1, taken.sock.fileno())
    assert sock.recv(100) == b""
    with pytest.raises(BrokenPipeError):
        sock.send(b"HTTP/1.1 200 OK\r\n")
    sock.close()
    client.sendall(b"still here")
    taken.sock.setblocking(True)
    assert taken.sock.recv(100) == b"still here"
    taken.dispose()


def test_detached_request_holds_no_buffer_of_the_server(taken_by: Callable[..., Pair]) -> None:
    server, _, _ = taken_by()
    taken = server.detach()
    assert isinstance(server.environ["wsgi.input"], io.BytesIO)
    assert server.environ["wsgi.input"].read() == b""
    taken.dispose()


def test_nothing_is_taken_when_there_is_no_descriptor_for_the_dead_end(taken_by: Callable[..., Pair]) -> None:
    server, sock, client = taken_by(early=b"early")
    before = descriptors()
    none_left = mock.patch("dwebsocket.servers.base._socket.socketpair", side_effect=OSError(errno.EMFILE, "too many"))
    with none_left, pytest.raises(OSError, match="too many"):
        server.detach()
    sock.sendall(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert client.recv(100).startswith(b"HTTP/1.1 500")
    assert descriptors() == before


def test_descriptors_are_all_given_back() -> None:
    before = descriptors()
    for _ in range(10):
        sock, client = tcp_pair()
        with sock, client, sock.makefile("rb") as reader:
            server = RunServer.find(environ_of(reader))
            assert server is not None
            server.detach().dispose()
    assert descriptors() == before


# Attached


@pytest.mark.parametrize("timeout", [None, 7.5])
def test_attached_socket_is_shut_down_in_the_end_but_stays_open_and_the_servers(
    taken_by: Callable[..., Pair], timeout: float | None
) -> None:
    server, sock, client = taken_by()
    sock.settimeout(timeout)
    number = sock.fileno()
    taken = server.attach()
    assert taken.sock is sock
    assert sock.gettimeout() == 0
    taken.dispose()
    assert (sock.fileno(), sock.gettimeout()) == (number, timeout)
    assert client.recv(100) == b""
    with pytest.raises(BrokenPipeError):
        sock.send(b"HTTP/1.1 200 OK\r\n")


def test_attached_socket_whose_peer_has_reset_it_is_disposed_of_without_a_word(taken_by: Callable[..., Pair]) -> None:
    server, sock, client = taken_by()
    taken = server.attach()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    sock.setblocking(True)
    with pytest.raises(ConnectionResetError):
        sock.recv(1)
    taken.dispose()


def test_bytes_that_are_left_unread_do_not_reach_the_server(taken_by: Callable[..., Pair]) -> None:
    server, sock, client = taken_by()
    taken = server.attach()
    client.sendall(b"GET / HTTP/1.1\r\n\r\n" * 10_000)
    taken.dispose()
    sock.settimeout(0)
    assert sock.recv(100) == b""


def test_bytes_before_a_reset_do_not_reach_the_server(taken_by: Callable[..., Pair]) -> None:
    server, sock, client = taken_by()
    taken = server.attach()
    client.sendall(b"GET / HTTP/1.1\r\n\r\n")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    taken.dispose()
    sock.settimeout(0)
    assert sock.recv(100) == b""


@pytest.mark.parametrize(
    "answers",
    [
        [b"left", b""],
        [b"left", BlockingIOError()],
        [ConnectionResetError(), b"left", b""],
        [OSError(), OSError(), OSError()],
    ],
    ids=["end", "nothing yet", "reset", "broken"],
)
def test_disposal_comes_to_an_end_whatever_the_socket_says(answers: list[Any]) -> None:
    sock = mock.Mock(spec=socket.socket)
    sock.gettimeout.return_value = 7.5
    sock.recv.side_effect = answers
    unreader = mock.Mock(take_buffered=lambda: b"")
    server = Gunicorn({"wsgi.input": mock.Mock(reader=mock.Mock(unreader=unreader))}, sock)
    server.attach().dispose()
    assert sock.recv.call_count == len(answers)
    assert sock.settimeout.call_args == mock.call(7.5)


# Both


@pytest.mark.parametrize("take", ["detach", "attach"])
@pytest.mark.parametrize("early", [b"", b"\x81\x80", bytes(5000)], ids=len)
def test_bytes_that_the_server_has_read_ahead_are_recovered(
    taken_by: Callable[..., Pair], take: str, early: bytes
) -> None:
    server, _, _ = taken_by(early=early)
    taken = getattr(server, take)()
    assert taken.early == early
    taken.dispose()


@pytest.mark.parametrize("take", ["detach", "attach"])
def test_bytes_in_the_kernel_are_not_lost_either(taken_by: Callable[..., Pair], take: str) -> None:
    server, _, client = taken_by()
    client.sendall(b"in the kernel")
    taken = getattr(server, take)()
    taken.sock.setblocking(True)
    rest = b"" if taken.early == b"in the kernel" else taken.sock.recv(100)
    assert taken.early + rest == b"in the kernel"
    taken.dispose()


@pytest.mark.parametrize("take", ["detach", "attach"])
def test_peer_that_has_reset_the_connection_already_is_found_out_later(
    taken_by: Callable[..., Pair], take: str
) -> None:
    server, _, client = taken_by()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    taken = getattr(server, take)()
    assert taken.early == b""
    taken.dispose()


@pytest.mark.parametrize("take", ["detach", "attach"])
def test_small_messages_are_sent_at_once(taken_by: Callable[..., Pair], take: str) -> None:
    server, sock, _ = taken_by()
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
    taken = getattr(server, take)()
    assert taken.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    taken.dispose()


@pytest.mark.parametrize("take", ["detach", "attach"])
def test_unix_socket_is_taken_too(taken_by: Callable[..., Pair], take: str) -> None:
    server, _, client = taken_by(pair=socket.socketpair)
    taken = getattr(server, take)()
    assert taken.sock.family == socket.AF_UNIX
    taken.sock.send(b"hello")
    assert client.recv(100) == b"hello"
    taken.dispose()


def test_tls_that_ends_in_the_server_cannot_be_detached() -> None:
    sock, client = tcp_pair()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    wrapped = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
    with client, wrapped:
        assert not find_server({"SERVER_SOFTWARE": "gunicorn/27", "gunicorn.socket": wrapped}).can_detach


def test_tls_of_gevent_cannot_be_detached_either_though_its_class_is_another() -> None:
    """Without monkey-patching gevent's SSL socket is none of the standard library's."""
    program = (
        "import gevent.socket, gevent.ssl, socket\n"
        "from dwebsocket.servers import find_server\n"
        "listener = socket.create_server(('127.0.0.1', 0))\n"
        "client = gevent.socket.create_connection(listener.getsockname())\n"
        "context = gevent.ssl.SSLContext(gevent.ssl.PROTOCOL_TLS_SERVER)\n"
        "wrapped = context.wrap_socket(client, server_side=True, do_handshake_on_connect=False)\n"
        "assert not isinstance(wrapped, __import__('ssl').SSLSocket)\n"
        "print(find_server({'SERVER_SOFTWARE': 'gunicorn/27', 'gunicorn.socket': wrapped}).can_detach)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout == "False\n"


# The table


def test_table_names_each_server_once() -> None:
    assert len(set(SERVERS)) == len(SERVERS)


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({}, "the ASGI server"),
        ({"wsgi.input": io.BytesIO()}, "this WSGI server (its wsgi.input is a _io.BytesIO)"),
        (
            {"wsgi.input": io.BytesIO(), "SERVER_SOFTWARE": "Unheard/1.0"},
            "Unheard/1.0 (its wsgi.input is a _io.BytesIO)",
        ),
        ({"wsgi.input": io.BytesIO(), "SERVER_SOFTWARE": "gunicorn/27"}, "gunicorn/27"),
        ({"wsgi.input": io.BytesIO(), "SERVER_SOFTWARE": "gevent/26 Python/3"}, "gevent/26 Python/3"),
        ({"wsgi.input": io.BufferedReader(io.BytesIO()), "SERVER_SOFTWARE": "gevent/26"}, "gevent/26"),  # type: ignore[arg-type]
        ({"wsgi.input": LimitedStream(io.BytesIO(), 0), "SERVER_SOFTWARE": "WSGIServer/0.2"}, "WSGIServer/0.2"),
    ],
)
def test_server_that_gives_no_socket_away_is_named(environ: dict[str, Any], words: str) -> None:
    with pytest.raises(ServerNotSupported) as caught:
        find_server(environ)
    assert words in str(caught.value)
    assert "gunicorn" in str(caught.value)
    assert caught.value.status_code == 501
