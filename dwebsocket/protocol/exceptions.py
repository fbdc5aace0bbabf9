"""The errors of the protocol; the whole tree is drawn in `dwebsocket.exceptions`."""

from __future__ import annotations

from collections.abc import Mapping

from .codes import CloseCode, close_code_for


class WebSocketError(Exception):
    """The root of every error that this package raises on purpose."""


class HandshakeError(WebSocketError):
    """The opening handshake is refused with `status_code` and `headers` (RFC 6455, 4.2.2 and 4.4)."""

    status_code = 400
    headers: Mapping[str, str] = {}

    @property
    def close_code(self) -> int:
        """The close code that says the same on an open WebSocket: 4403 for 403."""
        return close_code_for(self.status_code)


class UpgradeRequired(HandshakeError):
    """The client must come back with version 13 of the protocol (4.4)."""

    status_code = 426
    headers: Mapping[str, str] = {"Sec-WebSocket-Version": "13"}


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

    `close_code` (int) and `close_reason` (str) are those of the Close frame that ended it. The code is 1005 where that
    frame carried none, and 1006 where there was no Close frame (7.1.5, 7.1.6).
    """

    def __init__(self, close_code: int, close_reason: str = "") -> None:
        super().__init__(close_code, close_reason)
        self.close_code = close_code
        self.close_reason = close_reason
        #: The WebSocket that is closed, if a WebSocket raised this.
        self.websocket: object = None

    def __str__(self) -> str:
        reason = f": {self.close_reason}" if self.close_reason else ""
        return f"the WebSocket is closed ({self.close_code}){reason}"


class SendTimeout(WebSocketClosed):
    """The peer did not read in time, so the connection was dropped."""
