"""gevent-websocket's handler: it has sent the 101, and must not close a WebSocket that is ours by then."""

from __future__ import annotations

import io
import types
from typing import Any

import pytest

from dwebsocket.servers.gevent_websocket import GeventWebSocket
from tests.links import tcp_pair


def environ_of(reader: Any) -> dict[str, Any]:
    """What the handler puts into the environ: its own WebSocket, which knows the handler, which has the reader."""
    return {"wsgi.websocket": types.SimpleNamespace(handler=types.SimpleNamespace(rfile=reader), closed=False)}


def test_reader_is_found_behind_the_websocket_of_the_handler() -> None:
    sock, client = tcp_pair()
    with sock, client, sock.makefile("rb") as reader:
        assert GeventWebSocket.find_socket(environ_of(reader)) is sock


def test_101_is_not_sent_a_second_time() -> None:
    assert GeventWebSocket.has_answered


@pytest.mark.parametrize("take", ["detach", "attach"])
def test_websocket_of_the_handler_is_closed_without_a_frame_once_its_socket_is_taken(take: str) -> None:
    sock, client = tcp_pair()
    with sock, client, sock.makefile("rb") as reader:
        client.sendall(b"headearly")
        assert reader.read(4) == b"head"
        environ = environ_of(reader)
        found = GeventWebSocket.find(environ)
        assert found is not None
        assert not environ["wsgi.websocket"].closed
        taken = getattr(found, take)()
        assert taken.early == b"early"
        assert environ["wsgi.websocket"].closed
        taken.sock.send(b"ours")
        assert client.recv(100) == b"ours"  # and nothing before it
        taken.dispose()


@pytest.mark.parametrize(
    "environ", [{}, {"wsgi.websocket": None}, {"wsgi.websocket": object()}, environ_of(None), environ_of(io.BytesIO())]
)
def test_environ_without_a_socket_is_not_known(environ: dict[str, Any]) -> None:
    assert GeventWebSocket.find(environ) is None
