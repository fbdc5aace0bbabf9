"""cheroot, the server of CherryPy."""

from __future__ import annotations

from typing import Any

from .base import BufferedServer


class Cheroot(BufferedServer):
    """cheroot reads the body through a reader around the one of the connection."""

    @staticmethod
    def find_reader(environ: dict[str, Any]) -> Any:
        if "ACTUAL_SERVER_PROTOCOL" not in environ:
            return None
        return getattr(environ.get("wsgi.input"), "rfile", None)
