"""cheroot: the reader of the connection is behind the reader of the body."""

from __future__ import annotations

import io
import types
from typing import Any

import pytest

from dwebsocket.servers.cheroot import Cheroot
from tests.links import tcp_pair


def test_reader_is_found_behind_the_one_of_the_body() -> None:
    sock, client = tcp_pair()
    with sock, client, sock.makefile("rb") as reader:
        body = types.SimpleNamespace(rfile=reader)
        environ = {"ACTUAL_SERVER_PROTOCOL": "HTTP/1.1", "wsgi.input": body}
        assert Cheroot.find_reader(environ) is reader
        assert Cheroot.find_socket(environ) is sock


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"ACTUAL_SERVER_PROTOCOL": "HTTP/1.1"},
        {"ACTUAL_SERVER_PROTOCOL": "HTTP/1.1", "wsgi.input": io.BytesIO()},
        {"ACTUAL_SERVER_PROTOCOL": "HTTP/1.1", "wsgi.input": types.SimpleNamespace(rfile=io.BytesIO())},
    ],
)
def test_environ_without_a_socket_is_not_known(environ: dict[str, Any]) -> None:
    assert Cheroot.find(environ) is None


def test_reader_of_another_server_is_not_touched() -> None:
    sock, client = tcp_pair()
    with sock, client, sock.makefile("rb") as reader:
        assert Cheroot.find({"wsgi.input": types.SimpleNamespace(rfile=reader)}) is None
