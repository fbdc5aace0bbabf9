"""A WebSocket client written by hand on a blocking socket, so that the codec under test never checks itself.

It imports nothing of the package. What it sends may be as wrong as a test wants it; what it receives it
decodes strictly, and a server that breaks RFC 6455 is an AssertionError here.
"""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import ssl
import struct
import time
from collections.abc import Mapping
from types import TracebackType
from typing import NamedTuple

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

MASK = bytes.fromhex("37fa213d")  # the masking key of the examples in RFC 6455, 5.7
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
NO_STATUS = 1005

Headers = Mapping[str, "str | None"]


class PeerTimeout(AssertionError):
    """The server did not send what was waited for in time."""


class PeerClosed(AssertionError):
    """The server ended the connection where the test waited for more."""


class Frame(NamedTuple):
    opcode: int
    payload: bytes
    fin: bool = True
    rsv: int = 0
    mask: bytes | None = None


class Close(NamedTuple):
    """What a close frame said; ``NO_STATUS`` for an empty one."""

    code: int
    reason: str = ""


class Response(NamedTuple):
    """The head of an HTTP response, header names in lower case, and its body."""

    status: int
    headers: dict[str, str]
    body: bytes


def head(
    opcode: int,
    length: int,
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = MASK,
    length_bytes: int | None = None,
) -> bytes:
    """The head of a frame whose payload is ``length`` bytes long, masking key included.

    ``rsv`` is the three reserved bits as a number (4 is rsv1); ``mask=None`` leaves the frame unmasked;
    ``length_bytes`` of 0, 2 or 8 picks the form of the extended length, instead of the shortest one.
    """
    if length_bytes is None:
        length_bytes = 0 if length < 126 else 2 if length < 65536 else 8
    short_length = {0: length, 2: 126, 8: 127}[length_bytes]
    first = fin << 7 | rsv << 4 | opcode
    second = (mask is not None) << 7 | short_length
    extended = length.to_bytes(length_bytes, "big") if length_bytes else b""
    return bytes([first, second]) + extended + (mask or b"")


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = MASK,
    length_bytes: int | None = None,
) -> bytes:
    """One frame as it travels; the options are those of ``head``."""
    start = head(opcode, len(payload), fin=fin, rsv=rsv, mask=mask, length_bytes=length_bytes)
    return start + (payload if mask is None else apply_mask(payload, mask))


def text(message: str) -> bytes:
    return frame(TEXT, message.encode())


def close_payload(code: int, reason: str = "") -> bytes:
    return struct.pack("!H", code) + reason.encode()


def apply_mask(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def decode(data: bytes | bytearray) -> tuple[Frame, int] | None:
    """The first frame of ``data`` and its size in bytes, or None while it is not there whole."""
    if len(data) < 2:
        return None
    first, second = data[0], data[1]
    length, start = second & 0x7F, 2
    if length > 125:
        extended, shortest = {126: (2, 126), 127: (8, 65536)}[length]
        if len(data) < start + extended:
            return None
        length, start = int.from_bytes(data[start : start + extended], "big"), start + extended
        assert shortest <= length < 1 << 63, f"length {length} written in {extended} bytes (5.2)"
    mask = bytes(data[start : start + 4]) if second & 0x80 else None
    start += 4 if second & 0x80 else 0
    end = start + length
    if len(data) < end:
        return None
    payload = bytes(data[start:end])
    payload = apply_mask(payload, mask) if mask else payload
    return Frame(first & 0xF, payload, bool(first & 0x80), first >> 4 & 7, mask), end


def decode_all(data: bytes) -> list[Frame]:
    """Every frame of ``data``, which must end where a frame ends."""
    frames = []
    while data:
        found = decode(data)
        assert found, f"half a frame: {data[:100]!r}"
        frames.append(found[0])
        data = data[found[1] :]
    return frames


def request(path: str, headers: Headers, *, method: str = "GET", version: str = "HTTP/1.1") -> bytes:
    """The head of an HTTP request; a header whose value is None is left out."""
    lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join([f"{method} {path} {version}", *lines, "", ""]).encode("latin-1")


def new_key() -> str:
    """A fresh Sec-WebSocket-Key."""
    return base64.b64encode(os.urandom(16)).decode()


def accept_value(key: str) -> str:
    """What Sec-WebSocket-Accept must say to ``key`` (4.2.2)."""
    return base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()


class Peer:
    """The client's end of one connection. ``timeout`` is in seconds and bounds every wait."""

    timeout = 10.0

    def __init__(self, host: str, port: int, timeout: float = timeout, tls: ssl.SSLContext | None = None) -> None:
        sock = socket.create_connection((host, port), timeout)
        if tls is not None:
            sock = tls.wrap_socket(sock, server_hostname=host, suppress_ragged_eofs=False)
        self._start(sock, f"{host}:{port}", timeout)

    @classmethod
    def over(cls, sock: socket.socket, timeout: float = timeout) -> Peer:
        """A peer on a socket that is connected already, such as one side of a ``socketpair``."""
        peer = cls.__new__(cls)
        peer._start(sock, "testserver", timeout)
        return peer

    def _start(self, sock: socket.socket, host: str, timeout: float) -> None:
        self.sock = sock
        self.host = host
        self.timeout = timeout
        self.buffer = bytearray()
        self.truncated = False  # the stream has ended without the close_notify of TLS
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.abandon()

    # HTTP

    def handshake_request(self, path: str = "/", headers: Headers | None = None, **options: str) -> bytes:
        """The opening handshake as bytes. ``headers`` come on top of the usual ones; None leaves one out."""
        merged = {
            "Host": self.host,
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": new_key(),
            "Sec-WebSocket-Version": "13",
            **(headers or {}),
        }
        return request(path, merged, **options)

    def handshake(
        self, path: str = "/", headers: Headers | None = None, early: bytes = b"", **options: str
    ) -> Response:
        """The answer to an opening handshake, with ``early`` sent in the same segment behind it."""
        headers = {"Sec-WebSocket-Key": new_key(), **(headers or {})}
        self.send_raw(self.handshake_request(path, headers, **options) + early)
        return self.recv_handshake(headers["Sec-WebSocket-Key"])

    def recv_handshake(self, key: str | None = None) -> Response:
        """The answer to an opening handshake; a 101 that does not belong to ``key`` is an AssertionError."""
        response = self.recv_response()
        if response.status == 101:
            assert response.headers.get("upgrade", "").lower() == "websocket", response
            assert response.headers.get("connection", "").lower() == "upgrade", response
            assert key is None or response.headers.get("sec-websocket-accept") == accept_value(key), response
        return response

    def connect(self, path: str = "/", headers: Headers | None = None, early: bytes = b"") -> Peer:
        """This peer, after a handshake that the server must accept."""
        response = self.handshake(path, headers, early)
        assert response.status == 101, response
        return self

    def http(
        self, path: str, headers: Headers | None = None, *, method: str = "GET", timeout: float | None = None
    ) -> Response:
        """The answer to an ordinary HTTP request on this connection."""
        self.send_raw(request(path, {"Host": self.host, **(headers or {})}, method=method))
        return self.recv_response(timeout)

    def recv_response(self, timeout: float | None = None) -> Response:
        """One HTTP response; without a length of any kind its body ends with the stream."""
        deadline = self._deadline(timeout)
        status_line, *lines = self._recv_until(b"\r\n\r\n", deadline).decode("latin-1").split("\r\n")
        version, status, *_ = status_line.split(" ", 2)
        assert version == "HTTP/1.1", status_line
        headers: dict[str, str] = {}
        for name, value in (line.split(":", 1) for line in lines):
            name = name.strip().lower()
            headers[name] = ", ".join([*([headers[name]] if name in headers else []), value.strip()])
        return Response(int(status), headers, b"" if status == "101" else self._recv_body(headers, deadline))

    def _recv_body(self, headers: dict[str, str], deadline: float) -> bytes:
        if headers.get("transfer-encoding") == "chunked":
            return b"".join(iter(lambda: self._recv_chunk(deadline), b""))
        if "content-length" in headers:
            return self._recv_exactly(int(headers["content-length"]), deadline)
        return self._read_to_eof(deadline)

    def _recv_chunk(self, deadline: float) -> bytes:
        length = int(self._recv_until(b"\r\n", deadline), 16)
        return self._recv_exactly(length + 2, deadline)[:-2]

    # Sending

    def send_raw(self, data: bytes) -> None:
        self.sock.settimeout(self.timeout)
        self.sock.sendall(data)

    def send_frame(
        self,
        opcode: int,
        payload: bytes = b"",
        *,
        fin: bool = True,
        rsv: int = 0,
        mask: bytes | None = MASK,
        length_bytes: int | None = None,
    ) -> None:
        self.send_raw(frame(opcode, payload, fin=fin, rsv=rsv, mask=mask, length_bytes=length_bytes))

    def send_message(self, message: str | bytes) -> None:
        self.send_raw(text(message) if isinstance(message, str) else frame(BINARY, message))

    def send_close(self, code: int = 1000, reason: str = "") -> None:
        self.send_frame(CLOSE, close_payload(code, reason))

    # Receiving

    def recv_frame(self, timeout: float | None = None) -> Frame:
        """The next frame, checked for what a server may send (5.1, 5.2, 5.5)."""
        deadline = self._deadline(timeout)
        while (found := decode(self.buffer)) is None:
            self._receive(deadline, "a frame")
        received, size = found
        del self.buffer[:size]
        assert received.mask is None, f"a server must not mask: {received}"
        assert received.opcode in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG), received
        if received.opcode >= CLOSE:
            assert received.fin and len(received.payload) < 126, f"not a valid control frame: {received}"
        return received

    def recv_message(self, timeout: float | None = None) -> str | bytes | Close:
        """The next message, or the ``Close``. Pings on the way are answered, pongs dropped."""
        deadline = self._deadline(timeout)
        fragments: list[Frame] = []
        while True:
            received = self.recv_frame(max(deadline - time.monotonic(), 0))
            assert received.rsv == 0, f"reserved bits without an extension: {received}"
            if received.opcode == CLOSE:
                return parse_close(received.payload)
            if received.opcode == PING:
                self.send_frame(PONG, received.payload)
            if received.opcode >= CLOSE:
                continue
            assert (received.opcode == CONTINUATION) == bool(fragments), f"{received} after {len(fragments)} fragments"
            fragments.append(received)
            if received.fin:
                message = b"".join(fragment.payload for fragment in fragments)
                return message.decode() if fragments[0].opcode == TEXT else message

    def close(self, code: int = 1000, reason: str = "") -> Close:
        """Send a close frame; the server's close frame comes back. Messages before it are dropped."""
        self.send_close(code, reason)
        while not isinstance(answer := self.recv_message(), Close):
            pass
        return answer

    def read_to_eof(self, timeout: float | None = None) -> bytes:
        """Every byte the server still sends until it ends the connection."""
        return self._read_to_eof(self._deadline(timeout))

    # Leaving

    def abandon(self) -> None:
        """Close the socket without a word: the server reads the end of the stream."""
        self.sock.close()

    def reset(self) -> None:
        """Close the socket with a RST, as a process that dies with unread data does."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def half_close(self) -> None:
        """Send no more, but go on reading."""
        self.sock.shutdown(socket.SHUT_WR)

    # Bytes

    def _deadline(self, timeout: float | None) -> float:
        return time.monotonic() + (self.timeout if timeout is None else timeout)

    def _recv_until(self, end: bytes, deadline: float) -> bytes:
        while (position := self.buffer.find(end)) < 0:
            self._receive(deadline, f"HTTP up to {end!r}")
        return self._take(position + len(end))[: -len(end)]

    def _recv_exactly(self, size: int, deadline: float) -> bytes:
        while len(self.buffer) < size:
            self._receive(deadline, f"{size} bytes of HTTP")
        return self._take(size)

    def _take(self, size: int) -> bytes:
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        return data

    def _read_to_eof(self, deadline: float) -> bytes:
        try:
            while True:
                self._receive(deadline, "the end of the stream")
        except PeerClosed:
            return self._take(len(self.buffer))

    def _receive(self, deadline: float, wanted: str) -> None:
        """Append what the server sends next to the buffer."""
        seconds = deadline - time.monotonic()
        try:
            self.sock.settimeout(max(seconds, 0.001))
            data = self.sock.recv(1 << 18)
        except ssl.SSLEOFError:
            self.truncated, data = True, b""
        except TimeoutError:
            raise PeerTimeout(f"waited for {wanted} in vain; received so far: {bytes(self.buffer[:200])!r}") from None
        if not data:
            raise PeerClosed(f"the stream ended before {wanted}; received so far: {bytes(self.buffer[:200])!r}")
        self.buffer += data


def parse_close(payload: bytes) -> Close:
    """What the payload of a close frame says (5.5.1)."""
    if not payload:
        return Close(NO_STATUS)
    assert len(payload) > 1, f"a close frame of one byte: {payload!r}"
    return Close(int.from_bytes(payload[:2], "big"), payload[2:].decode())
