"""gevent's own WSGI server: an upgrade request gets its reader as it is."""

from __future__ import annotations

import io
import types
from typing import Any

import gevent.socket
import pytest

from dwebsocket.servers.gevent import PyWSGI
from tests.links import Hub, tcp_pair

SOFTWARE = "gevent/26.9 Python/3.13"


@pytest.mark.parametrize("wrapped", [True, False], ids=["Input", "reader"])
def test_reader_is_found(wrapped: bool) -> None:
    sock, client = tcp_pair()
    with sock, client, sock.makefile("rb") as reader:
        wsgi_input = types.SimpleNamespace(rfile=reader) if wrapped else reader
        environ = {"SERVER_SOFTWARE": SOFTWARE, "wsgi.input": wsgi_input}
        assert PyWSGI.find_reader(environ) is reader
        assert PyWSGI.find_socket(environ) is sock


@pytest.mark.parametrize(
    "environ",
    [{}, {"SERVER_SOFTWARE": SOFTWARE}, {"SERVER_SOFTWARE": SOFTWARE, "wsgi.input": io.BytesIO()}],
)
def test_environ_without_a_socket_is_not_known(environ: dict[str, Any]) -> None:
    assert PyWSGI.find(environ) is None


@pytest.mark.parametrize("take", ["detach", "attach"])
def test_socket_of_gevent_is_taken_and_left_as_the_server_wants_it(take: str) -> None:
    hub = Hub()

    def take_over() -> None:
        server, client = (gevent.socket.socket(fileno=end.detach()) for end in tcp_pair())
        with server, client:
            client.sendall(b"headearly")
            reader = server.makefile("rb")
            assert reader.read(4) == b"head"
            found = PyWSGI.find({"SERVER_SOFTWARE": SOFTWARE, "wsgi.input": reader})
            assert found is not None
            assert found.reactor is hub.reactor
            taken = getattr(found, take)()
            assert taken.early == b"early"
            taken.sock.send(b"ours")
            assert client.recv(100) == b"ours"
            taken.dispose()
            assert client.recv(100) == b""
            assert server.gettimeout() is None
            assert reader.read() == b""
            reader.close()

    hub.do(take_over)
    hub.stop()
