"""Django's development server."""

from __future__ import annotations

from typing import Any

from .base import BufferedServer


class RunServer(BufferedServer):
    """runserver reads through a LimitedStream, which holds only the reader's bound `read`."""

    @staticmethod
    def find_reader(environ: dict[str, Any]) -> Any:
        if not str(environ.get("SERVER_SOFTWARE", "")).startswith("WSGIServer/"):
            return None
        return getattr(getattr(environ.get("wsgi.input"), "_read", None), "__self__", None)
