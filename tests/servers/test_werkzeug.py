"""Werkzeug's development server: a request gets its reader as it is."""

from __future__ import annotations

import io
from typing import Any

import pytest

from dwebsocket.servers.werkzeug import Werkzeug
from tests.links import tcp_pair

SOFTWARE = "Werkzeug/3.1.3"


def test_reader_is_found() -> None:
    sock, client = tcp_pair()
    with sock, client, sock.makefile("rb") as reader:
        environ = {"SERVER_SOFTWARE": SOFTWARE, "wsgi.input": reader}
        assert Werkzeug.find_reader(environ) is reader
        assert Werkzeug.find_socket(environ) is sock


def test_bytes_that_the_server_has_read_ahead_are_recovered() -> None:
    sock, client = tcp_pair()
    with sock, client, sock.makefile("rb") as reader:
        client.sendall(b"headearly")
        assert reader.read(4) == b"head"
        found = Werkzeug.find({"SERVER_SOFTWARE": SOFTWARE, "wsgi.input": reader})
        assert found is not None
        taken = found.detach()
        assert taken.early == b"early"
        taken.dispose()
        assert client.recv(100) == b""


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"SERVER_SOFTWARE": SOFTWARE},
        {"SERVER_SOFTWARE": SOFTWARE, "wsgi.input": io.BytesIO()},
        {"SERVER_SOFTWARE": SOFTWARE, "wsgi.input": io.BufferedReader(io.BytesIO())},  # type: ignore[arg-type]
    ],
)
def test_environ_without_a_socket_is_not_known(environ: dict[str, Any]) -> None:
    assert Werkzeug.find(environ) is None


@pytest.mark.parametrize("software", ["Unheard/1.0", "", None])
def test_reader_of_another_server_is_not_touched(software: str | None) -> None:
    sock, client = tcp_pair()
    with sock, client, sock.makefile("rb") as reader:
        assert Werkzeug.find({"SERVER_SOFTWARE": software, "wsgi.input": reader}) is None
