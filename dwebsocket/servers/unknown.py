"""Servers that nobody has named here, but that put the socket of the connection into the environ."""

from __future__ import annotations

from typing import Any

from .base import Server, read_ahead

_KEYS = ("gunicorn.socket", "werkzeug.socket")


class Unknown(Server):
    """What such a server does with a connection whose socket went dead is not known: attached."""

    lets_go = False

    @staticmethod
    def find_socket(environ: dict[str, Any]) -> Any:
        return next((environ[key] for key in _KEYS if environ.get(key) is not None), None)

    def buffered(self) -> bytes:
        reader = self.environ.get("wsgi.input")
        return read_ahead(reader) if hasattr(reader, "peek") else b""
