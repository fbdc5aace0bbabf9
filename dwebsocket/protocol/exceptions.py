"""Everything that can go wrong, as one tree.

    WebSocketError
    ├── HandshakeError            the opening handshake is refused; knows its HTTP answer
    │   ├── UpgradeRequired       426: not this version of the protocol, or no WebSocket at all
    │   ├── OriginForbidden       403: a page of another site opened it
    │   ├── Unauthorized          401: nobody is logged in, or not any more
    │   ├── Forbidden             403: whoever is logged in may not
    │   ├── ServerNotSupported    501: this server does not give away its socket
    │   ├── TooManyConnections    503: this process holds as many as it may
    │   └── ShuttingDown          503: this process is about to end
    ├── ProtocolError             the peer broke RFC 6455; knows its close code, 1002
    │   ├── InvalidPayload        1007: text that is not UTF-8
    │   ├── MessageTooBig         1009: more than the limit
    │   └── PolicyViolation       1008: within the rules, but far more work than content
    └── WebSocketClosed           the connection is closed; knows the close code and reason
        └── SendTimeout           it was closed because the peer did not read

Each says in lower case what was wrong.
"""

from __future__ import annotations

from collections.abc import Mapping

from .codes import CloseCode


class WebSocketError(Exception):
    """The root of every error that this package raises on purpose."""


class HandshakeError(WebSocketError):
    """The opening handshake is refused with `status_code` and `headers` (RFC 6455, 4.2.2 and 4.4)."""

    status_code = 400
    headers: Mapping[str, str] = {}


class UpgradeRequired(HandshakeError):
    """The client must come back with version 13 of the protocol (4.4)."""

    status_code = 426
    headers: Mapping[str, str] = {"Sec-WebSocket-Version": "13"}


class OriginForbidden(HandshakeError):
    """The page that opened the WebSocket belongs to a site that may not (10.2)."""

    status_code = 403


class Unauthorized(HandshakeError):
    """Who opens the WebSocket is not logged in; on one that is open it closes with 4401."""

    status_code = 401
    headers: Mapping[str, str] = {"WWW-Authenticate": "Session"}  # RFC 9110, 15.5.2: there must be one


class Forbidden(HandshakeError):
    """Who opens the WebSocket may not; on one that is open it closes with 4403."""

    status_code = 403


class ServerNotSupported(HandshakeError):
    """The WSGI server does not give away the socket of its connection."""

    status_code = 501


class TooManyConnections(HandshakeError):
    """This process serves as many WebSockets as it may; the client can try again."""

    status_code = 503
    headers: Mapping[str, str] = {"Retry-After": "10"}


class ShuttingDown(HandshakeError):
    """This process is about to end; another one will answer the client that tries again."""

    status_code = 503
    headers: Mapping[str, str] = {"Retry-After": "1"}


class ProtocolError(WebSocketError):
    """The peer broke RFC 6455; the connection is failed with `close_code` (7.1.7)."""

    close_code = CloseCode.PROTOCOL_ERROR


class InvalidPayload(ProtocolError):
    """The peer sent text that is not UTF-8 (8.1)."""

    close_code = CloseCode.INVALID_FRAME_PAYLOAD_DATA


class MessageTooBig(ProtocolError):
    """The peer announced a message larger than the limit (7.4.1)."""

    close_code = CloseCode.MESSAGE_TOO_BIG


class PolicyViolation(ProtocolError):
    """The peer kept to RFC 6455, but made this side work for next to no content (7.4.1)."""

    close_code = CloseCode.POLICY_VIOLATION


class WebSocketClosed(WebSocketError):
    """The connection is closed: nothing more can be sent.

    `close_code` (int) and `close_reason` (str) are those of the Close frame that ended it, or 1005 where that frame
    carried none, or 1006 where there was no Close frame (7.1.5, 7.1.6).
    """

    def __init__(self, close_code: int, close_reason: str = "") -> None:
        super().__init__(close_code, close_reason)
        self.close_code = close_code
        self.close_reason = close_reason
        #: The WebSocket that is closed, where one raised this.
        self.websocket: object = None

    def __str__(self) -> str:
        reason = f": {self.close_reason}" if self.close_reason else ""
        return f"the WebSocket is closed ({self.close_code}){reason}"


class SendTimeout(WebSocketClosed):
    """The peer did not read what was sent to it in time, so the connection was dropped."""
