"""Servers that are not known here, but put the socket of the connection into the environ."""

from __future__ import annotations

from typing import Any

from .base import Server, read_ahead

_KEYS = ("gunicorn.socket", "werkzeug.socket")


class Unknown(Server):
    """Views run attached: such a server may not clean up quietly when its socket goes dead."""

    lets_go = False

    @staticmethod
    def find_socket(environ: dict[str, Any]) -> Any:
        return next((environ[key] for key in _KEYS if environ.get(key) is not None), None)

    def buffered(self) -> bytes:
        reader = self.environ.get("wsgi.input")
        return read_ahead(reader) if hasattr(reader, "peek") else b""
