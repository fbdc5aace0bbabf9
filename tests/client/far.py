"""The server's end of a connection, written by hand."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from tests.links import PATIENCE_SECONDS, run
from tests.peer import CLOSE, Frame, accept_value, decode, frame

MIB = 1 << 20


def said(opcode: int, payload: bytes = b"", **options) -> bytes:
    """A frame as a server sends it."""
    return frame(opcode, payload, **{"mask": None, **options})


class Far:
    """The server's end of a connection."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE_SECONDS)
        self.sock = sock
        self.buffer = b""

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def take(self) -> Frame:
        """The next frame of the client, which must be masked (5.1)."""
        while (found := decode(self.buffer)) is None:
            data = self.sock.recv(1 << 16)
            assert data, f"the stream ended after {self.buffer!r}"
            self.buffer += data
        self.buffer = self.buffer[found[1] :]
        assert found[0].mask is not None
        return found[0]

    def take_head(self) -> dict[str, str]:
        """The headers of the client's opening handshake, with its first line under ""."""
        while b"\r\n\r\n" not in self.buffer:
            data = self.sock.recv(1 << 16)
            assert data, f"the stream ended after {self.buffer!r}"
            self.buffer += data
        taken, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        first, *lines = taken.decode("latin-1").split("\r\n")
        return {"": first} | {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}

    def at_end(self) -> bool:
        return self.sock.recv(1) == b""


def flood(far: Far, data: bytes) -> None:
    """Send ``data`` again and again until the client ends the connection."""
    with contextlib.suppress(ConnectionError):
        while True:
            far.send(data * (1 + 65_536 // len(data)))


def drip(far: Far, data: bytes) -> None:
    """Send ``data`` byte by byte, a thousand a second at most, until the client ends the connection."""
    with contextlib.suppress(ConnectionError):
        for byte in data:
            far.send(bytes([byte]))
            time.sleep(0.001)


def drain(far: Far) -> None:
    """Read what the client sends until it ends the connection."""
    with contextlib.suppress(ConnectionError):
        while far.sock.recv(1 << 16):
            pass


@contextmanager
def soon() -> Iterator[None]:
    """What is inside ends long before the time that the peer would go on."""
    begin = time.monotonic()
    yield
    assert time.monotonic() - begin < PATIENCE_SECONDS / 2


def start(function: Callable, *arguments) -> Future:
    """The outcome of ``function``, which runs in a thread of its own."""
    future: Future = Future()
    threading.Thread(target=run, args=(future, function, *arguments), daemon=True).start()
    return future


@contextmanager
def listening(serve: Callable[[Far], None], tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """The port where ``serve`` has one connection; its error is the test's."""

    def accept() -> None:
        sock, _ = listener.accept()
        with sock, tls.wrap_socket(sock, server_side=True) if tls else sock as stream:
            serve(Far(stream))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_SECONDS)
        served = start(accept)
        yield listener.getsockname()[1]
        served.result(PATIENCE_SECONDS)


def shake_hands(far: Far, *, protocol: str = "", early: bytes = b"") -> dict[str, str]:
    headers = far.take_head()
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept_value(headers['sec-websocket-key'])}",
        *([f"Sec-WebSocket-Protocol: {protocol}"] if protocol else []),
    ]
    far.send("\r\n".join([*lines, "", ""]).encode() + early)
    return headers


def echo(far: Far) -> None:
    shake_hands(far)
    while True:
        taken = far.take()
        far.send(said(taken.opcode, taken.payload))
        if taken.opcode == CLOSE:
            return
