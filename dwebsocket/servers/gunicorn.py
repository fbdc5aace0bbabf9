"""gunicorn with its sync, gthread and gevent workers."""

from __future__ import annotations

from typing import Any

from .base import Server


class Gunicorn(Server):
    """gunicorn puts the socket into the environ, and keeps what it has read ahead in its unreader."""

    @staticmethod
    def find_socket(environ: dict[str, Any]) -> Any:
        if not str(environ.get("SERVER_SOFTWARE", "")).startswith("gunicorn"):
            return None
        return environ.get("gunicorn.socket")

    def buffered(self) -> bytes:
        unreader = self.environ["wsgi.input"].reader.unreader
        if hasattr(unreader, "take_buffered"):
            return bytes(unreader.take_buffered())
        early: bytes = unreader.buf.getvalue()  # gunicorn 26 and older
        unreader.buf.seek(0)
        unreader.buf.truncate()
        return early
