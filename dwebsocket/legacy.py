"""The verbs of dwebsocket 0.5, for code that was written for it: WEBSOCKET_CLASS = "dwebsocket.legacy.WebSocket"."""

from __future__ import annotations

import contextlib
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
        """Send `message` as text: bytes are taken as UTF-8, anything else by its str(). Silent when closed.

        Bytes that are not UTF-8 go out as binary: no text can carry them.
        """
        if isinstance(message, (bytes, bytearray, memoryview)):
            message = bytes(message)
            with contextlib.suppress(UnicodeDecodeError):
                message = message.decode()
        elif not isinstance(message, str):
            message = str(message)
        with contextlib.suppress(WebSocketClosed):
            super().send(message)
