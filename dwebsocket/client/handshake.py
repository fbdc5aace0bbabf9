"""The client's side of the opening handshake, and the HTTP that answers it."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from ..protocol.exceptions import ProtocolError, WebSocketError
from ..protocol.handshake import Headers, accept_token, is_token, pairs
from .stream import Stream, is_over, recv
from .url import Target

_MAX_HEAD_BYTES = 64 * 1024
_MAX_BODY_BYTES = 64 * 1024  # a developer reads no more of a refusal
_KEY_BYTES = 16
_STATUS_LINE = re.compile(r"(HTTP/\d\.\d) (\d{3})(?: (.*))?\Z")  # RFC 9112, 4
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r\n")  # RFC 9112, 7.1
_LENGTH = re.compile(r"[0-9]{1,18}\Z")  # RFC 9110, 8.6; Python refuses to read numbers that are much longer


class HandshakeFailed(ProtocolError):
    """The answer of the server is no opening handshake, or no HTTP at all."""


class Refused(WebSocketError):
    """The server answered the opening handshake with HTTP: `response`, and the beginning of its `body` (bytes)."""

    def __init__(self, response: Response, body: bytes) -> None:
        super().__init__(response, body)
        self.response = response
        self.body = body

    def __str__(self) -> str:
        return f"the server answered {self.response.status} {self.response.reason}".rstrip()


class Response(NamedTuple):
    """The head of an HTTP answer; `headers` are pairs in the order of the answer, with lower-case names."""

    status: int
    reason: str
    headers: Sequence[tuple[str, str]]
    http_version: str = "HTTP/1.1"

    def get(self, name: str) -> str | None:
        """The value of the header `name`; those of several joined by a comma (RFC 9110, 5.3); None without one."""
        values = self.get_all(name)
        return ", ".join(values) if values else None

    def get_all(self, name: str) -> list[str]:
        """Every value of the header `name`; Set-Cookie may have several."""
        return [value for other, value in self.headers if other == name.lower()]

    @classmethod
    def parse(cls, head: bytes) -> Response:
        """The answer in `head`, which may end with the blank line. HandshakeFailed where it is not HTTP/1."""
        status_line, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        match = _STATUS_LINE.match(status_line)
        if match is None:
            raise HandshakeFailed(f"the answer is not HTTP/1: it begins with {status_line[:40]!r}")
        version, status, reason = match.groups(default="")
        return cls(int(status), reason, tuple(map(_parse_field, lines)), version)


def _parse_field(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not is_token(name):
        raise HandshakeFailed(f"the answer has a malformed header: {line[:40]!r}")
    return name.lower(), value.strip(" \t")


class ClientHandshake:
    """The client's side of the opening handshake (RFC 6455, 4.1), with a fresh key."""

    def __init__(self, *, subprotocols: Sequence[str] = (), origin: str | None = None) -> None:
        self.key = base64.b64encode(os.urandom(_KEY_BYTES)).decode()
        self._subprotocols = tuple(subprotocols)
        self._origin = origin

    def headers(self) -> dict[str, str]:
        """The headers of the request that belong to the handshake; Host is not among them."""
        headers = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": self.key,
        }
        if self._subprotocols:
            headers["Sec-WebSocket-Protocol"] = ", ".join(self._subprotocols)
        if self._origin is not None:
            headers["Origin"] = self._origin
        return headers

    def read(self, head: bytes) -> Response:
        """The answer in `head`. HandshakeFailed where it is not HTTP, or a 101 that does not fit what was asked."""
        response = Response.parse(head)
        if response.status == 101:
            self._check(response)
        return response

    def _check(self, response: Response) -> None:
        """Verify the 101 as section 4.1 demands of a client."""
        if response.http_version != "HTTP/1.1":
            raise HandshakeFailed(f"the 101 is {response.http_version}, not HTTP/1.1")
        if (response.get("upgrade") or "").lower() != "websocket":
            raise HandshakeFailed("the Upgrade header of the 101 does not say websocket")
        if "upgrade" not in {token.strip().lower() for token in (response.get("connection") or "").split(",")}:
            raise HandshakeFailed("the Connection header of the 101 does not say Upgrade")
        if response.get_all("sec-websocket-accept") != [accept_token(self.key)]:
            raise HandshakeFailed("Sec-WebSocket-Accept does not answer the key that was sent")
        if response.get("sec-websocket-extensions"):
            raise HandshakeFailed("the server chose an extension, and none was offered")
        subprotocol = response.get("sec-websocket-protocol")
        if subprotocol is not None and subprotocol not in self._subprotocols:
            raise HandshakeFailed(f"the server chose the subprotocol {subprotocol!r}, which was not offered")


def read_head(sock: Stream, deadline: float | None) -> tuple[bytes, bytes]:
    """The head of an answer, with its blank line, and the bytes behind it.

    TimeoutError after `deadline` (of `time.monotonic()`); HandshakeFailed where the stream ends, or is not HTTP.
    """
    received = bytearray()
    while b"\r\n\r\n" not in received:
        if received and is_over(deadline):
            raise TimeoutError("the answer did not come in time")
        data = recv(sock, deadline)
        if not data:
            so_far = f"within the answer, after {bytes(received[:40])!r}" if received else "without an answer"
            raise HandshakeFailed(f"the server closed the connection {so_far}")
        received += data
        if not received.startswith(b"HTTP/"[: len(received)]):
            raise HandshakeFailed(f"the answer is not HTTP/1: it begins with {bytes(received[:40])!r}")
        if len(received) > _MAX_HEAD_BYTES and b"\r\n\r\n" not in received[:_MAX_HEAD_BYTES]:
            raise HandshakeFailed(f"the answer has more than {_MAX_HEAD_BYTES} bytes of headers")
    end = received.index(b"\r\n\r\n") + 4
    return bytes(received[:end]), bytes(received[end:])


def request_head(target: Target, handshake: ClientHandshake, headers: Headers) -> bytes:
    given = list(pairs(headers))
    fields = [*handshake.headers().items(), *given]
    if not any(name.lower() == "host" for name, _ in given):
        fields.insert(0, ("Host", target.authority))
    for name, value in fields:
        if not is_token(name) or "\r" in value or "\n" in value:
            raise ValueError(f"{name!r}: {value!r} is not a header")
    lines = [f"GET {target.resource} HTTP/1.1", *(f"{name}: {value}" for name, value in fields), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def read_body(sock: Stream, response: Response, early: bytes, deadline: float) -> bytes:
    """Read the beginning of the body, as far as it comes: a refusal is worth showing even with a cut body."""
    body = bytearray(early)
    chunked = (response.get("transfer-encoding") or "").lower().endswith("chunked")
    length = response.get("content-length") or ""
    size = min(int(length), _MAX_BODY_BYTES) if _LENGTH.match(length) and not chunked else _MAX_BODY_BYTES
    try:
        while len(body) < size and not (chunked and body.endswith(b"0\r\n\r\n")) and not is_over(deadline):
            data = recv(sock, deadline)
            if not data:
                break
            body += data
    except OSError:
        pass
    return _dechunk(bytes(body)) if chunked else bytes(body[:size])


def _dechunk(body: bytes) -> bytes:
    """The content of the chunks of `body` (RFC 9112, 7.1); the last may be cut."""
    parts = []
    begin = 0
    while (line := _CHUNK_SIZE.match(body, begin)) and (size := int(line[1], 16)):
        parts.append(body[line.end() : line.end() + size])
        begin = line.end() + size + 2
    return b"".join(parts)
