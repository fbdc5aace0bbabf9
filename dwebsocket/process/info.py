"""A snapshot of one WebSocket that is open in this process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest

from ..websocket import WebSocket


@dataclass(frozen=True, kw_only=True)
class ConnectionInfo:
    """One open WebSocket: whose it is, and what has passed so far.

    `user` is the name of the user if the view, a guard of this package, or something before them has asked for one. It
    is "" where no user is logged in, and where nothing has used `request.user`: that would be a query. `address` is the
    server's REMOTE_ADDR. `seconds` since the connection was opened; bytes are those of frames on the wire.
    """

    websocket: WebSocket
    request: HttpRequest
    path: str
    user: str
    address: str
    seconds: float
    messages_received: int
    messages_sent: int
    bytes_received: int
    bytes_sent: int

    @property
    def traffic(self) -> dict[str, Any]:
        """The numbers alone."""
        return {
            "seconds": self.seconds,
            "messages_received": self.messages_received,
            "messages_sent": self.messages_sent,
            "bytes_received": self.bytes_received,
            "bytes_sent": self.bytes_sent,
        }
