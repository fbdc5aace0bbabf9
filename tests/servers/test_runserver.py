"""Django's development server: only the bound ``read`` of its reader is left in the environ."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.core.handlers.wsgi import LimitedStream

from dwebsocket.servers.runserver import RunServer
from tests.links import tcp_pair

SOFTWARE = "WSGIServer/0.2 CPython/3.13"


def test_reader_is_found_behind_the_limited_stream() -> None:
    sock, client = tcp_pair()
    with sock, client, sock.makefile("rb") as reader:
        environ = {"SERVER_SOFTWARE": SOFTWARE, "wsgi.input": LimitedStream(reader, 0)}
        assert RunServer.find_reader(environ) is reader
        assert RunServer.find_socket(environ) is sock


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"SERVER_SOFTWARE": SOFTWARE},
        {"SERVER_SOFTWARE": SOFTWARE, "wsgi.input": io.BytesIO()},
        {"SERVER_SOFTWARE": SOFTWARE, "wsgi.input": LimitedStream(io.BytesIO(), 0)},
        {"SERVER_SOFTWARE": SOFTWARE, "wsgi.input": LimitedStream(io.BufferedReader(io.BytesIO()), 0)},  # type: ignore[arg-type]
    ],
)
def test_environ_without_a_socket_is_not_known(environ: dict[str, Any]) -> None:
    assert RunServer.find(environ) is None


def test_reader_of_another_server_is_not_touched() -> None:
    sock, client = tcp_pair()
    with sock, client, sock.makefile("rb") as reader:
        environ = {"SERVER_SOFTWARE": "Unheard/1.0", "wsgi.input": LimitedStream(reader, 0)}
        assert RunServer.find(environ) is None
