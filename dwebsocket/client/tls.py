"""TLS over a socket, for one thread that sends while another one receives."""

from __future__ import annotations

import socket
import ssl
import threading
import time

from .stream import LEAST_SECONDS, RECV_BYTES, is_over


class TLSStream:
    """TLS over a socket, with the methods of a socket. One thread may send while another one receives, which
    CPython's own does not allow in every version. OpenSSL only sees memory, so no thread waits inside of it."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, hostname: str, deadline: float) -> None:
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=hostname)
        self._using = threading.Lock()  # guards OpenSSL's state
        self._flushing = threading.Lock()  # keeps records in their order
        self._unsent = b""
        self._taken = 0  # bytes of the data offered last that are in records not yet sent
        self._shake_hands(deadline)

    def version(self) -> str | None:
        """The version of TLS, as "TLSv1.3"."""
        return self._tls.version()

    def settimeout(self, seconds: float | None) -> None:
        self._sock.settimeout(seconds)

    def recv(self, size: int) -> bytes:
        """Receive as a socket does; TimeoutError also while a record is incomplete."""
        data = self._read(size)
        if data is not None:
            return data
        if not self._taken:  # else a sender is about to send all there is
            self._flush()
        self._fill()
        data = self._read(size)
        if data is None:
            raise TimeoutError("a record of TLS has not arrived as a whole")
        return data

    def send(self, data: bytes | memoryview) -> int:
        if not self._taken:
            with self._using:
                self._taken = self._tls.write(data[:RECV_BYTES])
        self._flush()  # after a TimeoutError the same data is offered again
        taken, self._taken = self._taken, 0
        return taken

    def shutdown(self, how: int) -> None:
        self._sock.shutdown(how)

    def close(self) -> None:
        self._sock.close()

    def _read(self, size: int) -> bytes | None:
        """Bytes that are here already, none at the end of the stream; None when more has to come first."""
        with self._using:
            try:
                return self._tls.read(size)
            except ssl.SSLWantReadError:
                return None
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    def _shake_hands(self, deadline: float) -> None:
        while not is_over(deadline):
            self._sock.settimeout(max(deadline - time.monotonic(), LEAST_SECONDS))
            try:
                self._tls.do_handshake()
                self._flush()
                return
            except ssl.SSLWantReadError:
                self._flush()
                self._fill()
            except ssl.SSLError:
                self._flush()  # the alert that says why
                raise
        raise TimeoutError("the handshake of TLS was not over in time")

    def _fill(self) -> None:
        data = self._sock.recv(RECV_BYTES)
        with self._using:
            if data:
                self._incoming.write(data)
            else:
                self._incoming.write_eof()

    def _flush(self) -> None:
        """Send what waits to be sent; TimeoutError where the socket has not taken all of it."""
        with self._flushing:
            with self._using:
                self._unsent += self._outgoing.read()
            if self._unsent:
                self._unsent = self._unsent[self._sock.send(self._unsent) :]
            if self._unsent:
                raise TimeoutError("not all of a record of TLS was taken")
