"""A TLS connection that a server has set up, with the methods and the errors of a plain non-blocking socket."""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import Any

_WANTS = (ssl.SSLWantReadError, ssl.SSLWantWriteError)


class TLSSocket:
    """The part of a socket that a connection uses, on top of an SSL socket (the standard library's or gevent's).

    The SSL socket is non-blocking. The caller makes sure that no two calls overlap.
    """

    def __init__(self, sock: Any) -> None:
        self._tls = sock
        self._inner = getattr(sock, "_sock", sock)
        self.fileno = sock.fileno
        self.setsockopt = sock.setsockopt

    def recv(self, size: int) -> bytes:
        """Return what has arrived, and all that the TLS layer holds of it: no poll() would report that rest."""
        try:
            data: bytes = self._tls.recv(size)
        except _WANTS:
            raise BlockingIOError from None
        return data + self.pending()

    def pending(self) -> bytes:
        """Return the bytes that the TLS layer has decrypted and no call has read."""
        data = b""
        while size := self._tls.pending():
            data += self._tls.recv(size)
        return data

    def send(self, data: Any) -> int:
        """Send `data`; return how many bytes of it were taken."""
        try:
            sent: int = self._tls.send(data)
        except _WANTS:
            sent = 0
        if not sent:  # gevent's SSL socket returns 0 instead of raising
            raise BlockingIOError
        return sent

    def shutdown(self, how: int) -> None:
        """Tell the peer that nothing more will come: close_notify, then the end of the stream below it."""
        with contextlib.suppress(OSError, ValueError):  # the peer has not answered yet, or is gone
            self._tls.unwrap()
        socket.socket.shutdown(self._inner, how) if self._inner is self._tls else self._inner.shutdown(how)
