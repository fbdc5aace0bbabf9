"""A loop that polls is woken from elsewhere."""

from __future__ import annotations

import contextlib
import socket


class Waker:
    """A byte in a socket: sent once until it is taken. Poll it for reading.

    To wake takes no lock, and never waits: a callback of a reactor may do so, or a signal handler.
    """

    __slots__ = ("_alarm", "_is_woken", "_sender")

    def __init__(self) -> None:
        self._sender, self._alarm = socket.socketpair()
        self._sender.setblocking(False)
        self._alarm.setblocking(False)
        self._is_woken = False

    def fileno(self) -> int:
        return self._alarm.fileno()

    def wake(self, *, again: bool = False) -> None:
        """Wake the loop; `again`: although it has been woken already, for it must end."""
        if not self._is_woken or again:
            self._is_woken = True
            with contextlib.suppress(OSError):  # full: it will be read; closed: the loop has ended
                self._sender.send(b"\0")

    def take(self) -> None:
        """Take what was sent. What the loop looks at from here on, it does not miss."""
        with contextlib.suppress(OSError):
            self._alarm.recv(64)
        self._is_woken = False

    def close(self) -> None:
        """Give the sockets back: the loop has ended."""
        self._sender.close()
        self._alarm.close()
