"""A server without a class here, whose environ has the socket of the connection."""

from __future__ import annotations

import io
from typing import Any

import pytest

from dwebsocket.servers import find_server
from dwebsocket.servers.unknown import Unknown
from tests.links import tcp_pair

KEYS = ["gunicorn.socket", "werkzeug.socket"]


@pytest.mark.parametrize("key", KEYS)
def test_socket_in_the_environ_is_found_and_its_view_runs_attached(key: str) -> None:
    sock, client = tcp_pair()
    with sock, client:
        found = find_server({key: sock, "SERVER_SOFTWARE": "Unheard/1.0", "wsgi.input": io.BytesIO()})
        assert type(found) is Unknown
        assert found.socket is sock
        assert not found.can_detach


@pytest.mark.parametrize("environ", [{}, dict.fromkeys(KEYS)])
def test_environ_without_a_socket_is_not_known(environ: dict[str, Any]) -> None:
    assert Unknown.find(environ) is None


def test_bytes_of_a_buffered_reader_are_recovered() -> None:
    sock, client = tcp_pair()
    with sock, client, sock.makefile("rb") as reader:
        client.sendall(b"headearly")
        assert reader.read(4) == b"head"
        found = Unknown.find({"werkzeug.socket": sock, "wsgi.input": reader})
        assert found is not None
        taken = found.attach()
        assert taken.early == b"early"
        taken.dispose()


@pytest.mark.parametrize("more", [{}, {"wsgi.input": object()}], ids=["no reader", "a reader of another kind"])
def test_server_without_a_buffered_reader_has_read_nothing_ahead(more: dict[str, Any]) -> None:
    sock, client = tcp_pair()
    with sock, client:
        found = Unknown.find({"gunicorn.socket": sock, **more})
        assert found is not None
        assert found.buffered() == b""
