"""gevent-websocket's handler for gevent.pywsgi, and its worker for gunicorn."""

from __future__ import annotations

from typing import Any

from .base import BufferedServer


class GeventWebSocket(BufferedServer):
    """The handler has sent the 101 before it calls the application; its WebSocket object is left closed."""

    has_answered = True
    dead_keys = frozenset({"wsgi.websocket"})

    @staticmethod
    def find_reader(environ: dict[str, Any]) -> Any:
        handler = getattr(environ.get("wsgi.websocket"), "handler", None)
        return getattr(handler, "rfile", None)

    def buffered(self) -> bytes:
        early = super().buffered()
        self.environ["wsgi.websocket"].closed = True  # else the handler sends another Close frame at the end
        return early
