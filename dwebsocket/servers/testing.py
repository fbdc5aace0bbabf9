"""The test client, which is its own server: one end of a socket pair, and whatever runs the view."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from .base import Server

#: Where the test client says so in the environ.
KEY = "dwebsocket.exchange"


class Exchange(Protocol):
    """What the test client gives to the request."""

    socket: Any

    def spawn(self, run: Callable[..., None], function: Callable[[], None], name: str) -> None:
        """Let `run` run `function`, the view, in a thread of its own."""
        ...  # pragma: no cover


class Testing(Server):
    """No server, and no network."""

    __test__ = False  # pytest takes the name for one of its own

    @staticmethod
    def find_socket(environ: dict[str, Any]) -> Any:
        exchange = environ.get(KEY)
        return None if exchange is None else exchange.socket

    def buffered(self) -> bytes:
        return b""

    def spawn(self, function: Callable[[], None], name: str) -> None:
        self.environ[KEY].spawn(self.reactor.spawn, function, name)
