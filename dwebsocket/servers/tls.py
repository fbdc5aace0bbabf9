"""A TLS connection that a server has set up, with the methods and the errors of a plain non-blocking socket."""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import Any

_WANTS = (ssl.SSLWantReadError, ssl.SSLWantWriteError)


class TLSSocket:
    """What a connection needs of a socket, on top of an SSL socket (the standard library's or gevent's).

    The SSL socket is non-blocking. Whoever calls takes care that no two calls overlap.
    """

    def __init__(self, sock: Any) -> None:
        self._tls = sock
        self._inner = getattr(sock, "_sock", sock)
        self.fileno = sock.fileno
        self.setsockopt = sock.setsockopt

    def recv(self, size: int) -> bytes:
        """What has arrived, and all of it that is decrypted: nobody is told that the TLS layer holds more."""
        try:
            data: bytes = self._tls.recv(size)
        except _WANTS:
            raise BlockingIOError from None
        return data + self.pending()

    def pending(self) -> bytes:
        """What the TLS layer has decrypted, and nobody has read."""
        data = b""
        while size := self._tls.pending():
            data += self._tls.recv(size)
        return data

    def send(self, data: Any) -> int:
        """How much of `data` was taken."""
        try:
            sent: int = self._tls.send(data)
        except _WANTS:
            sent = 0
        if not sent:  # gevent's says so instead
            raise BlockingIOError
        return sent

    def shutdown(self, how: int) -> None:
        """Tell the peer that nothing more will come: close_notify, then the end of the stream below it."""
        with contextlib.suppress(OSError, ValueError):  # it has no answer yet, or there is nobody to tell
            self._tls.unwrap()
        socket.socket.shutdown(self._inner, how) if self._inner is self._tls else self._inner.shutdown(how)
