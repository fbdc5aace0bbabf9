"""Bytes in and out of a non-blocking socket; without a call of Python where this is compiled.

`descriptor` is the number of `sock` where no other code can close it, else -1: a number that was closed may belong to
another connection by now.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any

try:
    import cython
except ImportError:
    from .. import _compiled as cython

_LONGEST_SECONDS = 24 * 60 * 60  # every operating system can count so far
READ_BYTES = 64 * 1024  # one call reads so many at most; the compiled build has its own sizes, in sockets.pxd


def receive(sock: Any, descriptor: int) -> bytes | None:
    """Return the bytes that have arrived; None when there are none, b"" for the end of the stream, or its reset."""
    if cython.compiled and descriptor >= 0:
        return read_descriptor(descriptor)  # type: ignore # noqa: F821
    try:
        return sock.recv(READ_BYTES)  # type: ignore[no-any-return]
    except BlockingIOError:
        return None
    except OSError:  # reset by the peer, or timed out: the end of the stream all the same
        return b""


def send(sock: Any, descriptor: int, data: bytes | memoryview) -> int:
    """Send `data`; return how many bytes of it the kernel has taken, -1 when the peer is gone."""
    if cython.compiled and descriptor >= 0 and isinstance(data, bytes):
        return write_descriptor(descriptor, data)  # type: ignore # noqa: F821
    try:
        return sock.send(data)  # type: ignore[no-any-return]
    except BlockingIOError:
        return 0
    except OSError:
        return -1


def send_both(sock: Any, descriptor: int, header: bytes, payload: bytes) -> int:
    """Send both as `send()` does, one behind the other, without joining them first."""
    if cython.compiled and descriptor >= 0:
        return write_both(descriptor, header, payload)  # type: ignore # noqa: F821
    try:
        return sock.sendmsg((header, payload))  # type: ignore[no-any-return]
    except BlockingIOError:
        return 0
    except OSError:
        return -1


def limit_silence(sock: Any, ping_timeout: float | None, send_timeout: float | None) -> None:
    """Let the kernel notice a peer that has vanished, whether or not we read (TCP_USER_TIMEOUT, Linux)."""
    if ping_timeout is None or send_timeout is None or not hasattr(socket, "TCP_USER_TIMEOUT"):
        return
    seconds = min(max(ping_timeout, send_timeout), _LONGEST_SECONDS)
    with contextlib.suppress(OSError):  # a UNIX socket knows no such option
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))
