from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from dwebsocket.groups.redis import commands, faults
from dwebsocket.groups.redis.wire import NOTHING, Stale, Wire


@pytest.fixture
def peer() -> Iterator[tuple[Wire, socket.socket]]:
    """A wire, and the end of the server."""
    ours, theirs = socket.socketpair()
    wire = Wire(ours)
    yield wire, theirs
    wire.close()
    theirs.close()


def soon() -> float:
    return time.monotonic() + 10


def test_replies_are_those_of_the_commands_with_errors_among_them(peer: tuple[Wire, socket.socket]) -> None:
    wire, server = peer

    def answer() -> None:
        server.recv(1024)
        for part in (b":1\r\n-OOM full\r", b"\n$2\r\n", b"ok\r\n"):  # in pieces
            server.sendall(part)
            time.sleep(0.01)

    thread = threading.Thread(target=answer)
    thread.start()
    replies = wire.exchange(commands.PING, 3, soon())
    thread.join()

    assert replies[0] == 1
    assert str(replies[1]) == "OOM full"
    assert replies[2] == b"ok"


def test_command_that_the_socket_does_not_take_at_once_leaves_whole(peer: tuple[Wire, socket.socket]) -> None:
    wire, server = peer
    data = commands.publish(b"c", bytes(5_000_000))
    taken = bytearray()

    def answer() -> None:
        while len(taken) < len(data):
            taken.extend(server.recv(1 << 16))
        server.sendall(b":0\r\n")

    thread = threading.Thread(target=answer)
    thread.start()
    assert wire.exchange(data, 1, soon()) == [0]
    thread.join()
    assert taken == data


def test_connection_that_was_closed_while_idle_is_stale_and_nothing_leaves(peer: tuple[Wire, socket.socket]) -> None:
    wire, server = peer
    server.shutdown(socket.SHUT_WR)

    with pytest.raises(Stale):
        wire.exchange(commands.PING, 1, soon())
    server.setblocking(False)
    with pytest.raises(BlockingIOError):
        server.recv(1)


def test_bytes_that_nothing_asked_for_make_it_stale(peer: tuple[Wire, socket.socket]) -> None:
    wire, server = peer
    server.sendall(b":1\r\n")

    with pytest.raises(Stale):
        wire.exchange(commands.PING, 1, soon())


def test_end_of_the_stream_instead_of_a_reply_is_broken(peer: tuple[Wire, socket.socket]) -> None:
    wire, server = peer

    def end() -> None:
        server.recv(1024)
        server.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=end)
    thread.start()
    with pytest.raises(faults.Broken, match="has closed the connection"):
        wire.exchange(commands.PING, 1, soon())
    thread.join()


@pytest.mark.parametrize("size", [10, 5_000_000])
def test_silence_ends_at_the_deadline(peer: tuple[Wire, socket.socket], size: int) -> None:
    wire, _server = peer
    began = time.monotonic()

    with pytest.raises(TimeoutError):
        wire.exchange(commands.publish(b"c", bytes(size)), 1, began + 0.1)
    assert 0.1 <= time.monotonic() - began < 5


def test_process_that_stood_still_finds_its_answer_after_the_deadline(
    peer: tuple[Wire, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    wire, server = peer
    write = Wire.write

    def stand_still(self: Wire, data: bytes | memoryview) -> int:
        sent = write(self, data)
        server.sendall(b":1\r\n")
        return sent

    monkeypatch.setattr(Wire, "write", stand_still)
    assert wire.exchange(commands.PING, 1, time.monotonic() - 5) == [1]


def test_reading_never_waits(peer: tuple[Wire, socket.socket]) -> None:
    wire, server = peer

    assert not wire.read()
    server.sendall(b"+a\r\n+b\r\n+c")
    assert wire.read()
    assert [wire.gets(), wire.gets()] == [b"a", b"b"]
    assert wire.gets() is NOTHING
