"""The opening handshake, as a server answers it (section 4.2)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from .exceptions import HandshakeError, UpgradeRequired

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # 1.3
_VERSION = "13"
_KEY_BYTES = 16
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")  # RFC 9110, 5.6.2
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*\Z")  # RFC 9110, 5.5

#: Headers of the answer that only the handshake itself sets.
_RESERVED = frozenset({"upgrade", "connection", "content-length", "transfer-encoding"})
_RESERVED_PREFIX = "sec-websocket-"

#: Header fields of the answer: a mapping, or pairs where a name comes more than once.
Headers = Mapping[str, str] | Iterable[tuple[str, str]]


class Request(NamedTuple):
    """The client's opening handshake: `method`, `http_version` ("HTTP/1.1"), `headers` with lower-case names."""

    method: str
    http_version: str
    headers: Mapping[str, str]


class Offer(NamedTuple):
    """One extension that the client offers (9.1): its `name`, and `parameters` with their values, None without one."""

    name: str
    parameters: Sequence[tuple[str, str | None]] = ()


class Handshake(NamedTuple):
    """A valid opening handshake: its `key`, and the `subprotocols` and `extensions` that it offers."""

    key: str
    subprotocols: Sequence[str] = ()
    extensions: Sequence[Offer] = ()

    def response(
        self, subprotocol: str | None = None, headers: Headers | None = None, *, extensions: Sequence[str] = ()
    ) -> bytes:
        """The 101 that completes the handshake (4.2.2), with the `extensions` that were agreed upon.

        ValueError for a subprotocol that was not offered, and for headers that are malformed or set by the handshake.
        """
        if subprotocol is not None and subprotocol not in self.subprotocols:
            offered = ", ".join(self.subprotocols) or "none"
            raise ValueError(f"the client did not offer the subprotocol {subprotocol!r} (it offered: {offered})")
        lines = [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {accept_token(self.key)}",
        ]
        if subprotocol is not None:
            lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
        if extensions:
            lines.append(f"Sec-WebSocket-Extensions: {', '.join(extensions)}")
        lines.extend(f"{name}: {value}" for name, value in _checked(headers))
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


def is_websocket(request: Request) -> bool:
    """Whether the request asks to become a WebSocket; it may still be refused."""
    return "websocket" in _tokens(request.headers.get("upgrade", ""))


def has_lost_its_upgrade(request: Request) -> bool:
    """Whether the client wanted a WebSocket, and a proxy in between has removed the Upgrade header."""
    return "sec-websocket-key" in request.headers and "upgrade" not in request.headers


def read(request: Request) -> Handshake:
    """Read the request (4.2.1). HandshakeError, which knows its HTTP answer, where the handshake is invalid."""
    headers = request.headers
    if request.method != "GET":
        raise HandshakeError(f"a WebSocket is opened with GET, not {request.method}")
    if request.http_version != "HTTP/1.1":
        raise HandshakeError(
            f"a WebSocket is opened with HTTP/1.1, not {request.http_version} (behind nginx: proxy_http_version 1.1)"
        )
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        raise HandshakeError("an opening handshake has no body")
    if not headers.get("host"):
        raise HandshakeError("the Host header is missing")
    if "websocket" not in _tokens(headers.get("upgrade", "")):
        raise UpgradeRequired("the Upgrade header does not say websocket")
    if "upgrade" not in _tokens(headers.get("connection", "")):
        raise HandshakeError('the Connection header does not say Upgrade (behind nginx: Connection "upgrade")')
    if headers.get("sec-websocket-version", "").strip() != _VERSION:
        raise UpgradeRequired("only version 13 of the WebSocket protocol (RFC 6455) is spoken here")
    return Handshake(_read_key(headers), _read_subprotocols(headers), _read_extensions(headers))


def choose_subprotocol(offered: Sequence[str], supported: Sequence[str]) -> str | None:
    """The first of `supported` that is among `offered`: the server's preference decides. None where there is none."""
    return next((subprotocol for subprotocol in supported if subprotocol in offered), None)


def accept_token(key: str) -> str:
    """The Sec-WebSocket-Accept that answers `key` (4.2.2, step 5.4)."""
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()


def pairs(headers: Headers | None) -> Iterable[tuple[str, str]]:
    """The names and values in `headers`, whichever way they are written."""
    return headers.items() if isinstance(headers, Mapping) else headers or ()


def is_token(text: str) -> bool:
    """Whether `text` is a token of HTTP, as the name of a subprotocol must be."""
    return _TOKEN.match(text) is not None


def _read_key(headers: Mapping[str, str]) -> str:
    key = headers.get("sec-websocket-key", "").strip()
    if not key:
        raise HandshakeError("Sec-WebSocket-Key is missing")
    try:
        decoded = base64.b64decode(key.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        decoded = b""
    if len(decoded) != _KEY_BYTES:
        raise HandshakeError("Sec-WebSocket-Key is not 16 bytes in base64")
    return key


def _read_subprotocols(headers: Mapping[str, str]) -> tuple[str, ...]:
    if "sec-websocket-protocol" not in headers:
        return ()
    offered = tuple(part.strip() for part in headers["sec-websocket-protocol"].split(","))
    if len(set(offered)) != len(offered) or not all(map(is_token, offered)):
        raise HandshakeError("Sec-WebSocket-Protocol is not a list of different tokens")
    return offered


def _read_extensions(headers: Mapping[str, str]) -> tuple[Offer, ...]:
    # A quoted value must be a token all the same (9.1), so no comma or semicolon hides in one.
    elements = [element.strip() for element in headers.get("sec-websocket-extensions", "").split(",")]
    return tuple(_read_offer(element) for element in elements if element)


def _read_offer(element: str) -> Offer:
    name, *parameters = (part.strip() for part in element.split(";"))
    read = []
    for parameter in parameters:
        key, equals, value = (part.strip() for part in parameter.partition("="))
        if len(value) > 1 and value[0] == value[-1] == '"':
            value = value[1:-1]
        if not is_token(key) or (equals and not is_token(value)):
            raise HandshakeError("Sec-WebSocket-Extensions has a malformed parameter")
        read.append((key, value if equals else None))
    if not is_token(name):
        raise HandshakeError("Sec-WebSocket-Extensions is not a list of extensions")
    return Offer(name, tuple(read))


def _tokens(value: str) -> set[str]:
    return {part.strip().lower() for part in value.split(",")}


def _checked(headers: Headers | None) -> Iterable[tuple[str, str]]:
    for name, value in pairs(headers):
        if not is_token(name):
            raise ValueError(f"{name!r} is not the name of a header")
        if name.lower() in _RESERVED or name.lower().startswith(_RESERVED_PREFIX):
            raise ValueError(f"the header {name} is set by the handshake itself")
        if not _FIELD_VALUE.match(value):
            raise ValueError(f"the value of the header {name} has a character that a header cannot carry")
        yield name, value
