"""A socket on which each wait has its deadline."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from dwebsocket.client import stream
from tests.links import PATIENCE_SECONDS

Ends = tuple[socket.socket, socket.socket]

LARGE = bytes(8 << 20)  # more than a kernel takes


@pytest.fixture
def ends() -> Iterator[Ends]:
    sock, far = socket.socketpair()
    with sock, far:
        yield sock, far


class Impatient:
    """A socket whose every wait is over before anything has come; remembers how long each was to be."""

    def __init__(self) -> None:
        self.timeouts: list[float | None] = []

    def settimeout(self, seconds: float | None, /) -> None:
        self.timeouts.append(seconds)

    def recv(self, size: int, /) -> bytes:
        if len(self.timeouts) == 5:
            return b"late"
        raise TimeoutError


def test_time_that_is_left_is_a_slice_where_there_is_no_deadline() -> None:
    assert stream.deadline_after(None) is None
    assert stream.left(None) == stream.SLICE_SECONDS
    assert not stream.is_over(None)


def test_deadline_is_over_once_its_time_has_passed() -> None:
    now = time.monotonic()
    deadline = stream.deadline_after(3600)
    assert deadline is not None
    assert now + 3600 <= deadline <= time.monotonic() + 3600
    assert not stream.is_over(deadline)
    assert stream.is_over(now - 1)
    assert stream.left(now - 1) < 0


def test_bytes_that_are_here_are_received_even_when_no_time_is_left(ends: Ends) -> None:
    sock, far = ends
    far.sendall(b"hello")
    assert stream.recv(sock, time.monotonic() - 1) == b"hello"
    far.close()
    assert stream.recv(sock, time.monotonic() - 1) == b""


def test_nothing_that_comes_in_time_is_a_timeout(ends: Ends) -> None:
    sock, _far = ends
    with pytest.raises(TimeoutError):
        stream.recv(sock, time.monotonic() - 1)


@pytest.mark.parametrize("deadline", [None, math.inf])
def test_wait_without_an_end_is_made_of_slices(deadline: float | None) -> None:
    sock = Impatient()
    assert stream.recv(sock, deadline) == b"late"  # type: ignore[arg-type]
    assert sock.timeouts == [stream.SLICE_SECONDS] * 5


def test_timeout_is_never_zero_which_would_be_another_mode_of_the_socket(ends: Ends) -> None:
    sock, _far = ends
    with pytest.raises(TimeoutError):
        stream.recv(sock, time.monotonic() - 1)
    assert sock.gettimeout() == stream.LEAST_SECONDS


def test_all_is_sent_to_a_peer_that_reads_late(ends: Ends) -> None:
    sock, far = ends
    sock.settimeout(0.01)
    received = bytearray()

    def read() -> None:
        while len(received) < len(LARGE):
            received.extend(far.recv(1 << 16))

    reading = threading.Thread(target=read)
    reading.start()
    stream.send(sock, memoryview(LARGE), time.monotonic() + PATIENCE_SECONDS)
    reading.join(PATIENCE_SECONDS)
    assert received == LARGE


def test_peer_that_does_not_read_in_time_is_a_timeout(ends: Ends) -> None:
    sock, _far = ends
    sock.settimeout(0.01)
    with pytest.raises(TimeoutError, match="the peer did not take it in time"):
        stream.send(sock, memoryview(LARGE), time.monotonic() - 1)


def test_bytes_that_are_taken_whole_are_sent_though_no_time_is_left(ends: Ends) -> None:
    sock, far = ends
    stream.send(sock, memoryview(b"hello"), time.monotonic() - 1)
    assert far.recv(100) == b"hello"
