"""The verbs of dwebsocket 0.5, for code that was written for it: WEBSOCKET_CLASS = "dwebsocket.legacy.WebSocket"."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import websocket
from .protocol.exceptions import WebSocketClosed


class WebSocket(websocket.WebSocket):
    """A WebSocket that gives text as bytes, sends bytes as text, ends an iteration with None, and sends into the void.

    Nothing else differs. New code is better off without: text and binary are two things, and a `send` that cannot
    arrive should not look as if it did.
    """

    def __iter__(self) -> Iterator[Any]:
        """Every message until the connection closes, then a final None."""
        yield from super().__iter__()
        yield None

    def wait(self, timeout: float | None = None) -> bytes | None:
        """The next message as bytes; None as in the base class."""
        message = super().wait(timeout)
        return message.encode() if isinstance(message, str) else message

    def send(self, message: Any) -> None:
        """Send `message` as text: bytes are taken as UTF-8, anything else by its str(). Silent when closed."""
        if isinstance(message, (bytes, bytearray, memoryview)):
            message = bytes(message).decode()
        try:
            self._send(str(message))
        except WebSocketClosed:
            return
