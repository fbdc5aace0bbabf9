"""The test client as a server: its socket is in the environ, and it decides in which thread the view runs."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest

from dwebsocket.servers import find_server
from dwebsocket.servers.testing import KEY, Testing
from tests.links import tcp_pair


class Exchange:
    """Runs the view where it is told to, and remembers what it was asked."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.asked: list[tuple[Any, str]] = []

    def spawn(self, run: Callable[..., None], function: Callable[[], None], name: str) -> None:
        self.asked.append((run, name))
        function()


def test_socket_of_the_exchange_is_taken_whole() -> None:
    sock, client = tcp_pair()
    with sock, client:
        found = find_server({KEY: Exchange(sock), "wsgi.input": io.BytesIO(b"a body")})
        assert type(found) is Testing
        assert found.can_detach
        taken = found.detach()
        assert taken.early == b""
        taken.sock.send(b"ours")
        assert client.recv(100) == b"ours"
        taken.dispose()
        assert client.recv(100) == b""


def test_view_is_run_by_the_exchange_which_is_told_how_the_reactor_would() -> None:
    sock, client = tcp_pair()
    with sock, client:
        exchange, ran = Exchange(sock), []
        found = Testing.find({KEY: exchange})
        assert found is not None
        found.spawn(lambda: ran.append("view"), "view of /")
        assert ran == ["view"]
        assert exchange.asked == [(found.reactor.spawn, "view of /")]


@pytest.mark.parametrize("environ", [{}, {KEY: None}])
def test_environ_without_an_exchange_is_not_known(environ: dict[str, Any]) -> None:
    assert Testing.find(environ) is None
