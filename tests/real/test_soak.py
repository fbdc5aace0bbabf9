"""Twenty thousand connections come, talk and go, in every way there is, and leave nothing behind."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.helpers import exchange
from tests.peer import Close
from tests.real.helpers import assert_ends
from tests.real.servers import PATIENCE_SECONDS, Server, running

pytestmark = [pytest.mark.soak, pytest.mark.timeout(0)]

CYCLES = int(os.environ.get("SOAK_CYCLES", "20000"))
AT_ONCE = 16
MAY_GROW_MIB = 4


def client_closes(server: Server) -> None:
    with server.connect("/echo/") as peer:
        assert exchange(peer, "hello") == "hello"
        assert peer.close().code == 1000
        assert peer.read_to_eof() == b""


def server_closes(server: Server) -> None:
    with server.connect("/close/?code=4000") as peer:
        peer.send_message("go")
        assert_ends(peer, 4000)


def view_returns(server: Server) -> None:
    with server.connect("/echo-once/") as peer:
        assert exchange(peer, b"hello") == b"hello"
        assert_ends(peer, 1000)


def view_sends(server: Server) -> None:
    with server.connect("/push/?count=5") as peer:
        assert [peer.recv_message() for _ in range(6)] == [*map(str, range(5)), Close(1000)]


def peer_leaves(server: Server) -> None:
    with server.connect("/echo/") as peer:
        peer.send_message("hello")


def peer_resets(server: Server) -> None:
    with server.connect("/victim/", {"Sec-WebSocket-Extensions": "permessage-deflate"}) as peer:
        peer.send_message("hello")
        peer.recv_frame()
        peer.reset()


def peer_is_wrong(server: Server) -> None:
    with server.connect("/echo/") as peer:
        peer.send_raw(b"\xff")
        peer.send_raw(b"\xff")
        assert_ends(peer, 1002)


def parked_view_is_left(server: Server) -> None:
    with server.connect("/parked/") as peer:
        assert exchange(peer, "hello") == "hello"
        assert peer.close().code == 1000
        assert peer.read_to_eof() == b""


def parked_view_raises(server: Server) -> None:
    with server.connect("/parked/") as peer:
        peer.send_message("raise")
        assert_ends(peer, 1011)


def connection_that_stays_is_reset(server: Server) -> None:
    with server.connect("/stays/", {"Sec-WebSocket-Extensions": "permessage-deflate"}) as peer:
        peer.send_message("hello")
        peer.recv_frame()
        peer.reset()


def connection_that_stays_is_left(server: Server) -> None:
    with server.connect("/stays/") as peer:
        peer.send_message("hello")


def view_refuses(server: Server) -> None:
    with server.peer() as peer:
        assert peer.handshake("/refuse/custom/").status == 402


WAYS: list[Callable[[Server], None]] = [
    client_closes, server_closes, view_returns, view_sends, peer_leaves, peer_resets, peer_is_wrong, view_refuses,
    parked_view_is_left, parked_view_raises, connection_that_stays_is_reset, connection_that_stays_is_left,
]  # fmt: skip


def cycle(server: Server, cycles: int) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done in [pool.submit(WAYS[number % len(WAYS)], server) for number in range(cycles)]:
            done.result()


def counted(server: Server) -> dict[str, int]:
    census: dict[str, int] = json.loads(server.get("/census/").body)
    return {**census, "descriptors": server.file_descriptors()}


def settled(server: Server, before: dict[str, int]) -> dict[str, int]:
    """The counts, once none is higher than before."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        after = counted(server)
        if all(after[name] <= before[name] for name in before):
            return after
        assert time.monotonic() < deadline, f"{after}, and before {before}"
        time.sleep(0.1)


@pytest.mark.parametrize("name", ["pywsgi", "gunicorn-gthread", "gunicorn-gevent"])
def test_connections_that_have_gone_leave_nothing(tmp_path: Path, name: str) -> None:
    with running(name, tmp_path) as server:
        cycle(server, max(CYCLES // 10, 2000))  # until every pool and cache is as large as it gets
        server.until(lambda: counted(server)["connections"] == 0, "the end of all connections")
        before, before_mib = counted(server), server.resident_mib()
        cycle(server, CYCLES)
        after = settled(server, before)
        grown = server.resident_mib() - before_mib
        print(f"\n{name}: {CYCLES} cycles; {before} before, {after} after; {before_mib:.1f} MiB, {grown:+.1f} MiB")
        assert grown < MAY_GROW_MIB
        server.take_news()  # of peers that were wrong, each server says what it wants
