"""Parked views on real servers: what happens in turns, and thousands of them on one worker."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.helpers import exchange
from tests.peer import PING, PONG, Close, Frame, Peer
from tests.real.helpers import assert_ends, leave_when_told, on
from tests.real.servers import KINDS, PATIENCE_SECONDS, Server, assert_quiet, combinations, running

SHAPES = ["/parked/", "/stays/"]
#: One for each kind of worker. Each has the threads of its reactor, of its server, and of the turns.
WORKERS = ["gunicorn-sync", "gunicorn-gthread", "pywsgi", "uwsgi-threads"]
MANY, MOST_THREADS = 1000, 40

on_each_server = on(combinations())


def threads(server: Server) -> int:
    status = Path(f"/proc/{server.worker_pid}/status").read_text()
    return int(re.findall(r"Threads:\s+(\d+)", status)[0])


@on_each_server
@pytest.mark.parametrize("path", SHAPES)
def test_messages_are_answered_in_order_and_the_end_is_told_once(server: Server, note: str, path: str) -> None:
    with server.connect(f"{path}?note={note}") as peer:
        for message in ("hello", b"bytes", "", "ü" * 70_000):
            assert exchange(peer, message) == message
        for number in range(100):
            peer.send_message(str(number))
        assert [peer.recv_message() for _ in range(100)] == [str(number) for number in range(100)]
        peer.send_close(4001)
        assert peer.recv_message() == Close(4001)
        assert peer.read_to_eof() == b""
    assert server.note(note) == "4001"


@on_each_server
def test_ping_is_answered_while_a_turn_sleeps_and_what_came_meanwhile_follows(server: Server, note: str) -> None:
    with server.connect(f"/parked/?note={note}") as peer:
        assert exchange(peer, "sleep") == "asleep"
        peer.send_message("behind it")
        peer.send_frame(PING, b"there?")
        assert peer.recv_frame() == Frame(PONG, b"there?")
        server.wake(note)
        assert [peer.recv_message(), peer.recv_message()] == ["awake", "behind it"]
        peer.close()


@on_each_server
def test_method_may_wait_for_the_peer(server: Server) -> None:
    with server.connect("/parked/") as peer:
        peer.send_message("wait")
        peer.send_message("this")
        assert peer.recv_message() == "waited for this"
        assert exchange(peer, "and then") == "and then"
        peer.close()


@on_each_server
def test_exception_of_a_turn_closes_with_1011_and_is_reported(server: Server, note: str) -> None:
    with server.connect(f"/parked/?note={note}") as peer:
        peer.send_message("raise")
        assert_ends(peer, 1011)
    assert server.note(note) == "1011"
    server.expect_log("ERROR .*Internal Server Error: /parked/")


@on_each_server
@pytest.mark.parametrize("leave", ["abandon", "reset"])
@pytest.mark.parametrize("path", SHAPES)
def test_peer_that_vanishes_is_told_to_the_view(server: Server, note: str, path: str, leave: str) -> None:
    with server.connect(f"{path}?note={note}") as peer:
        assert exchange(peer, "hello") == "hello"
        getattr(peer, leave)()
        assert server.note(note) == "1006"


@on([("gunicorn-sync", "detached"), ("gunicorn-gthread", "detached")])  # under gevent, the child would go on serving
@pytest.mark.parametrize("path", ["/parked/", "/own-thread/"])
def test_child_that_a_method_forks_and_that_leaves_it_tells_no_end(server: Server, note: str, path: str) -> None:
    with server.connect(f"{path}?note={note}") as peer:
        assert exchange(peer, "fork") == "child: 0"
        assert exchange(peer, "still there") == "still there"
        peer.send_close(4001)
        assert peer.recv_message() == Close(4001)
    assert server.note(note) == "4001"


# Thousands of them


def connected(stack: ExitStack, server: Server, count: int, path: str) -> list[Peer]:
    peers = [stack.enter_context(server.connect(path)) for _ in range(count)]
    for peer in peers:
        assert exchange(peer, "hello") == "hello"
    return peers


@pytest.mark.parametrize("path", SHAPES)
@pytest.mark.parametrize("name", WORKERS)
def test_a_thousand_cost_no_threads_and_all_talk_and_leave_at_once(tmp_path: Path, name: str, path: str) -> None:
    with running(name, tmp_path) as server, ExitStack() as stack:
        peers = connected(stack, server, MANY, path)
        assert threads(server) <= MOST_THREADS
        for peer in peers:
            peer.send_message("all at once")
        for peer in peers:
            assert peer.recv_message() == "all at once"
        assert server.get("/plain/").status == 200
        assert threads(server) <= MOST_THREADS
        for peer in peers:
            peer.send_close(1000)
        for peer in peers:
            assert peer.recv_message() == Close(1000)
            assert peer.read_to_eof() == b""
        server.until(lambda: json.loads(server.get("/census/").body)["connections"] == 0, "the end of all connections")


@pytest.mark.parametrize("name", WORKERS)
def test_a_thousand_that_vanish_at_once_leave_nothing(tmp_path: Path, name: str) -> None:
    with running(name, tmp_path) as server, ExitStack() as stack:
        for peer in connected(stack, server, MANY, "/parked/"):
            peer.abandon()
        server.until(lambda: json.loads(server.get("/census/").body)["connections"] == 0, "the end of all connections")


@pytest.mark.parametrize("name", WORKERS)
def test_server_that_is_told_to_end_closes_a_thousand(tmp_path: Path, name: str) -> None:
    server = Server(KINDS[name], tmp_path, WEBSOCKET_DRAIN_SECONDS=1)  # gunicorn gives it three, here
    with ExitStack() as stack:
        stack.callback(server.stop)
        server.wait_until_up()
        peers = connected(stack, server, MANY, "/parked/?note=all")
        server.process.send_signal(server.kind.stop_signal)
        assert {leave_when_told(peer) for peer in peers} == {Close(1012)}
        server.process.wait(PATIENCE_SECONDS)
    assert server.note("all").split() == ["1012"] * MANY
    assert_quiet(server.news())


# Turns that take long, under threads


def test_turns_that_take_long_hold_up_no_others_until_all_threads_are_in_one(tmp_path: Path) -> None:
    with running("gunicorn-sync", tmp_path, WEBSOCKET_THREADS=4) as server, ExitStack() as stack:
        sleepers = connected(stack, server, 5, "/parked/?note=dream")
        other = stack.enter_context(server.connect("/parked/"))
        for number, peer in enumerate(sleepers[:3]):
            assert exchange(peer, "sleep") == "asleep"
            assert exchange(other, str(number)) == str(number)
        assert exchange(sleepers[3], "sleep") == "asleep"
        other.send_message("for later")
        other.send_frame(PING, b"there?")
        assert other.recv_frame() == Frame(PONG, b"there?")
        server.expect_log("WARNING .*all 4 threads for parked WebSocket views are in turns")
        server.wake("dream")
        assert other.recv_message() == "for later"
        assert [peer.recv_message() for peer in sleepers[:4]] == ["awake"] * 4
        for peer in (*sleepers, other):
            peer.close()
