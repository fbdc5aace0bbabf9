"""uWSGI: known by a module that only it makes, and by the number of a descriptor."""

from __future__ import annotations

import os
import socket
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from dwebsocket.reactors import thread
from dwebsocket.servers import find_server
from dwebsocket.servers.uwsgi import UWSGI
from tests.links import tcp_pair

ENVIRON = {"uwsgi.version": b"2.0.31"}


@pytest.fixture
def uwsgi(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What uWSGI puts into `sys.modules`, its descriptor, and the peer of the connection."""
    sock, client = tcp_pair()
    descriptor = sock.detach()
    module = SimpleNamespace(
        connection_fd=lambda: descriptor, opt={"threads": b"2"}, descriptor=descriptor, peer=client
    )
    monkeypatch.setitem(sys.modules, "uwsgi", module)
    yield module
    os.close(descriptor)
    client.close()


def test_environ_of_uwsgi_is_known_where_uwsgi_is() -> None:
    assert UWSGI.find(ENVIRON) is None


def test_descriptor_of_the_connection_is_found(uwsgi: Any) -> None:
    assert isinstance(find_server(ENVIRON), UWSGI)
    assert UWSGI.find({}) is None


@pytest.mark.parametrize("take", ["detach", "attach"])
def test_what_uwsgi_writes_at_the_end_reaches_nobody(uwsgi: Any, take: str) -> None:
    taken = getattr(find_server(ENVIRON), take)()
    taken.sock.send(b"101")
    if take == "attach":
        taken.dispose()
    os.write(uwsgi.descriptor, b"HTTP/1.1 101")
    assert os.read(uwsgi.descriptor, 100) == b""
    if take == "detach":
        taken.sock.send(b" and on")
        taken.dispose()
    assert uwsgi.peer.recv(100, socket.MSG_WAITALL) == (b"101" if take == "attach" else b"101 and on")


@pytest.mark.parametrize(
    ("version", "options", "detaches"),
    [
        (b"2.0.26", {}, False),
        (b"2.0.26", {"threads": b"2"}, True),
        (b"2.0.26", {"enable-threads": True}, True),
        (b"2.0.26", {"enable_threads": True}, True),
        (b"2.0.27", {}, True),
        (b"2.1-dev", {}, True),
    ],
)
def test_view_outlives_its_request_where_threads_run_between_requests(
    uwsgi: Any, version: bytes, options: dict[str, Any], detaches: bool
) -> None:
    uwsgi.opt = options
    server = find_server({"uwsgi.version": version})
    assert server.can_detach is detaches
    assert server.reactor is thread.current()


def test_exit_function_of_the_project_is_called_too(uwsgi: Any) -> None:
    called: list[str] = []
    uwsgi.atexit = lambda: called.append("theirs")
    find_server(ENVIRON).at_exit(lambda: called.append("ours"))
    uwsgi.atexit()
    assert called == ["ours", "theirs"]
