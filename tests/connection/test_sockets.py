"""Bytes in and out of a non-blocking socket: by its number, which the compiled build uses, and by its object."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from dwebsocket.connection.sockets import limit_silence, receive, send, send_both
from tests.links import tcp_pair

Ends = tuple[socket.socket, int, socket.socket]

LARGE = bytes(32 << 20)  # more than a kernel takes


@pytest.fixture(params=[True, False], ids=["by number", "by object"])
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    """One end, the number by which it is to be used, and the peer's end."""
    sock, peer = tcp_pair()
    sock.setblocking(False)
    peer.settimeout(10)
    with sock, peer:
        yield sock, sock.fileno() if request.param else -1, peer


def reset(peer: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.close()


def arrived(sock: socket.socket) -> None:
    """Return when there is something to be read, or the end."""
    sock.settimeout(10)
    try:
        sock.recv(1, socket.MSG_PEEK)
    except ConnectionResetError:
        raise AssertionError("the reset was told here, and not to the test") from None
    sock.setblocking(False)


def read_exactly(peer: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += peer.recv(size - len(data))
    return data


def test_nothing_that_has_arrived_is_none(ends: Ends) -> None:
    sock, descriptor, _peer = ends
    assert receive(sock, descriptor) is None


def test_what_has_arrived_is_received_and_then_the_end_of_the_stream(ends: Ends) -> None:
    sock, descriptor, peer = ends
    peer.sendall(b"hello")
    arrived(sock)
    assert receive(sock, descriptor) == b"hello"
    peer.close()
    arrived(sock)
    assert receive(sock, descriptor) == b""


def test_reset_is_the_end_of_the_stream(ends: Ends) -> None:
    sock, descriptor, peer = ends
    reset(peer)
    received = None
    while received is None:  # a reset over the loopback is there in no time
        received = receive(sock, descriptor)
    assert received == b""


@pytest.mark.parametrize("kind", [bytes, memoryview])
def test_what_the_kernel_takes_is_counted_and_arrives(ends: Ends, kind: Any) -> None:
    sock, descriptor, peer = ends
    assert send(sock, descriptor, kind(b"hello")) == 5
    assert peer.recv(100) == b"hello"


def test_header_and_payload_leave_one_behind_the_other(ends: Ends) -> None:
    sock, descriptor, peer = ends
    assert send_both(sock, descriptor, b"head", b"body") == 8
    assert read_exactly(peer, 8) == b"headbody"


@pytest.mark.parametrize("both", [False, True], ids=["send", "send_both"])
def test_kernel_takes_a_part_and_then_nothing_until_the_peer_has_read(ends: Ends, both: bool) -> None:
    sock, descriptor, peer = ends

    def offer() -> int:
        return send_both(sock, descriptor, b"head", LARGE) if both else send(sock, descriptor, LARGE)

    taken = offer()
    assert 0 < taken < len(LARGE)
    while more := offer():  # what the peer's own buffer takes meanwhile
        taken += more
    assert offer() == 0
    read_exactly(peer, taken)
    assert offer() > 0


@pytest.mark.parametrize("both", [False, True], ids=["send", "send_both"])
def test_peer_that_is_gone_takes_nothing_which_is_less_than_none(ends: Ends, both: bool) -> None:
    sock, descriptor, peer = ends
    reset(peer)
    sent = 0
    while sent >= 0:  # what leaves before the reset is known counts as taken
        sent = send_both(sock, descriptor, b"x", b"y") if both else send(sock, descriptor, b"x")
    assert sent == -1


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="a socket option of Linux")
@pytest.mark.parametrize(
    ("ping_timeout", "send_timeout", "milliseconds"),
    [
        (20, 30, 30_000),
        (40, 30, 40_000),
        (0.5, 0.25, 500),
        (1e9, 30, 24 * 60 * 60 * 1000),
        (None, 30, 0),
        (20, None, 0),
    ],
)
def test_kernel_is_told_for_how_long_a_peer_may_be_silent(
    ping_timeout: float | None, send_timeout: float | None, milliseconds: int
) -> None:
    sock, peer = tcp_pair()
    with sock, peer:
        limit_silence(sock, ping_timeout, send_timeout)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == milliseconds


def test_socket_that_is_not_tcp_is_left_as_it_is() -> None:
    sock, peer = socket.socketpair()
    with sock, peer:
        limit_silence(sock, 20, 30)
        sock.send(b"hello")
        assert peer.recv(100) == b"hello"
