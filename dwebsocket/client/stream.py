"""A socket, or TLS over one, on which each wait has its deadline (of `time.monotonic()`; None: for ever)."""

from __future__ import annotations

import contextlib
import time
from typing import Protocol

RECV_BYTES = 64 * 1024
SLICE_SECONDS = 0.5  # both directions share the timeout of the socket, so neither waits longer in one call
LEAST_SECONDS = 0.000_001  # a timeout of 0 would make the socket non-blocking


class Stream(Protocol):
    """The part of a socket that the client uses; TLSStream has the same methods."""

    def recv(self, size: int, /) -> bytes: ...
    def send(self, data: bytes | memoryview, /) -> int: ...
    def settimeout(self, seconds: float | None, /) -> None: ...
    def shutdown(self, how: int, /) -> None: ...
    def close(self) -> None: ...


def deadline_after(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def left(deadline: float | None) -> float:
    return SLICE_SECONDS if deadline is None else deadline - time.monotonic()


def is_over(deadline: float | None) -> bool:
    return left(deadline) <= 0


def recv(sock: Stream, deadline: float | None) -> bytes:
    """Bytes that have arrived, none at the end of the stream; TimeoutError when none are here and no time is left."""
    while True:
        sock.settimeout(min(max(left(deadline), LEAST_SECONDS), SLICE_SECONDS))
        try:
            return sock.recv(RECV_BYTES)
        except TimeoutError:
            if is_over(deadline):
                raise


def send(sock: Stream, data: memoryview, deadline: float | None) -> None:
    """Send all of `data`. The timeout of the socket is the receiver's: it only says how often to look at the clock."""
    while data:
        with contextlib.suppress(TimeoutError):
            data = data[sock.send(data) :]
        if data and is_over(deadline):
            raise TimeoutError("the peer did not take it in time")
