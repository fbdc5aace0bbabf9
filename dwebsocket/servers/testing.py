"""The test client as a server: one end of a socket pair, and a function that runs the view."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from .base import Server

#: The key in the environ of a request of the test client; its value is the exchange.
KEY = "dwebsocket.exchange"


class Exchange(Protocol):
    """The object that the test client puts into the environ."""

    socket: Any

    def spawn(self, run: Callable[..., None], function: Callable[[], None], name: str) -> None:
        """Let `run` run `function`, the view, in a new thread."""
        ...  # pragma: no cover


class Testing(Server):
    """No server, and no network."""

    __test__ = False  # else pytest collects a class with this name

    @staticmethod
    def find_socket(environ: dict[str, Any]) -> Any:
        exchange = environ.get(KEY)
        return None if exchange is None else exchange.socket

    def buffered(self) -> bytes:
        return b""

    def spawn(self, function: Callable[[], None], name: str) -> None:
        self.environ[KEY].spawn(self.reactor.spawn, function, name)
