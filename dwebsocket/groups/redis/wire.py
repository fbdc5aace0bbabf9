"""One connection to the server: a socket of ours, which does not block, and the replies that come out of it."""

from __future__ import annotations

import math
import os
import select
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import hiredis

from . import faults

#: What is read at once. A record of TLS has 16 KiB at most, so it never remains within the TLS layer.
READ_BYTES = 65536
#: What `gets()` returns where no whole reply is there.
NOTHING = object()

#: Host and port.
Address: TypeAlias = tuple[str, int]

_WOULD_BLOCK = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Stale(Exception):
    """The server has closed the connection while it was idle: nothing of the command has left."""


class Wire:
    """A socket that has been connected, and a reader. One thread or greenlet uses it at a time.

    `select` and `socket` are looked up when they are called: monkey patching may come after the import.
    """

    __slots__ = ("_buffer", "_feed", "_readable", "address", "gets", "is_marked", "pid", "socket")

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.address: Address | None = None  # of the primary that the sentinels have named
        self.pid = os.getpid()
        self.is_marked = False  # the mark of this connection is with the server
        sock.setblocking(False)
        self._buffer = bytearray(READ_BYTES)
        reader: Any = hiredis.Reader(notEnoughData=NOTHING)
        self._feed = reader.feed
        #: The next reply, NOTHING, or an error of the server as a value. hiredis.ProtocolError where it is none.
        self.gets: Callable[[], Any] = reader.gets
        self._readable = select.poll()
        self._readable.register(sock, select.POLLIN)

    def close(self) -> None:
        """Close our descriptor. No shutdown(): a parent may still use the connection. TLS says no good-bye either."""
        self.socket.close()

    def __del__(self) -> None:
        self.close()  # of a backend that a child has forgotten, without a ResourceWarning

    def read(self) -> bool:
        """Feed the reader what the socket has; False where it has nothing. Broken at the end of the stream."""
        try:
            count = self.socket.recv_into(self._buffer)
        except _WOULD_BLOCK:
            return False
        except OSError as error:
            raise faults.Broken(_words(error)) from error
        if not count:
            raise faults.Broken("it has closed the connection")
        self._feed(self._buffer, 0, count)
        return True

    def write(self, data: bytes | memoryview) -> int:
        """Give the socket as much as it takes now."""
        try:
            return self.socket.send(data)
        except _WOULD_BLOCK:
            return 0

    def exchange(self, data: bytes, count: int, deadline: float) -> list[Any]:
        """Send `data`, and return `count` replies, errors of the server among them.

        Stale where the connection had ended before: it can be sent on another one. Broken, or TimeoutError, later:
        it may have been sent or not. Then the wire must be closed.
        """
        try:
            self.socket.recv(1)  # there is no reply that nothing has asked for
        except _WOULD_BLOCK:
            pass
        except OSError as error:
            raise Stale from error
        else:
            raise Stale
        try:
            sent = self.write(data)
        except OSError as error:
            raise Stale from error
        if sent < len(data):
            self._send_rest(memoryview(data)[sent:], deadline)
        replies: list[Any] = []
        while len(replies) < count:
            is_late = not _wait(self._readable, deadline)
            if self.read():  # even then: a process that stood still finds its answer
                while (reply := self.gets()) is not NOTHING:
                    replies.append(reply)
            elif is_late:
                raise TimeoutError
        return replies

    def _send_rest(self, rest: memoryview, deadline: float) -> None:
        writable = select.poll()
        writable.register(self.socket, select.POLLOUT)
        while rest:
            if not _wait(writable, deadline):
                raise TimeoutError
            try:
                rest = rest[self.write(rest) :]
            except OSError as error:
                raise faults.Broken(_words(error)) from error


def _wait(poller: select.poll, deadline: float) -> bool:
    """Wait until the socket is ready; False at the deadline."""
    return bool(poller.poll(max(0, math.ceil((deadline - time.monotonic()) * 1000))))


def _words(error: OSError) -> str:
    return f"the connection broke: {error.strerror or error}"
