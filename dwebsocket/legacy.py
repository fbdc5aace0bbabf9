"""The verbs of dwebsocket 0.5, for code that was written for it: WEBSOCKET_CLASS = "dwebsocket.legacy.WebSocket"."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NoReturn

from . import websocket
from .protocol.codes import CloseCode
from .protocol.exceptions import WebSocketClosed


class EndOfMessages(WebSocketClosed, EOFError):
    """Raised where a view waits on although it was told of the end: an EOFError, as in 0.5."""


class WebSocket(websocket.WebSocket):
    """A WebSocket that gives text as bytes, sends bytes as text, ends an iteration with None, and sends into the void.

    The end counts as a message until it is taken, and waiting on behind it is an EOFError. `str()` does not tell the
    state, so that it can be a key.

    Nothing else differs. New code is better off without: text and binary are two things, and a `send` that cannot
    arrive should not look as if it did.
    """

    def __iter__(self) -> Iterator[Any]:
        """Give every message until the connection closes, then a final None."""
        yield from super().__iter__()
        yield None

    __repr__ = object.__repr__

    def wait(self, timeout: float | None = None) -> bytes | None:
        """Return the next message as bytes; None as in the base class. EOFError for a call after the end was told."""
        message = super().wait(timeout)
        return message.encode() if isinstance(message, str) else message

    def count_messages(self) -> int:
        """Return how many messages are waiting; the None that tells of the end is one."""
        count = super().count_messages()
        return 1 if not count and not self._end_was_told and self.closed else count

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

    def close(self, code: int | None = None, reason: str | bytes | None = None) -> None:
        """Close as the base class does; the reason may be bytes."""
        text = reason.decode(errors="replace") if isinstance(reason, bytes) else reason or ""
        super().close(CloseCode.NORMAL_CLOSURE if code is None else code, text)

    @property
    def protocol(self) -> NoReturn:
        """Raise AttributeError: the object that 0.5 had here is gone."""
        raise AttributeError(
            "there is no protocol any more, nor a socket to select() on, for its bytes are read as they arrive:"
            " ask is_closed() and has_messages(), see docs/migration.md"
        )

    def _end_error(self) -> WebSocketClosed:
        error = EndOfMessages(self.close_code or CloseCode.ABNORMAL_CLOSURE, self.close_reason)
        error.websocket = self
        return error
