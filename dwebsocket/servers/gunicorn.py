"""gunicorn with its sync, gthread and gevent workers."""

from __future__ import annotations

from typing import Any, ClassVar

from ..exceptions import ServerNotSupported
from .base import Server


class Gunicorn(Server):
    """gunicorn puts the socket into the environ, and keeps what it has read ahead in its unreader."""

    dead_keys = frozenset({"gunicorn.socket", "wsgi.early_hints"})  # which holds its request, and takes 4 KiB

    _errors: ClassVar[Any] = None  # the last `wsgi.errors`: each request has a new one that writes to the same streams

    @classmethod
    def find(cls, environ: dict[str, Any]) -> Server | None:
        """Return an instance as all servers do. ServerNotSupported (501) where bytes read ahead are out of reach."""
        server = super().find(environ)
        if server is not None and "wsgi.input" in environ and _unreader(environ) is None:
            kind = type(environ["wsgi.input"])
            raise ServerNotSupported(
                "no WebSocket here: a WSGI middleware has replaced gunicorn's wsgi.input by a"
                f" {kind.__module__}.{kind.__qualname__}; let it leave requests with an Upgrade header as they are"
            )
        return server

    @staticmethod
    def find_socket(environ: dict[str, Any]) -> Any:
        if not str(environ.get("SERVER_SOFTWARE", "")).startswith("gunicorn"):
            return None
        return environ.get("gunicorn.socket")

    def kept(self, environ: dict[str, Any]) -> dict[str, Any]:
        kept = super().kept(environ)
        errors: Any = kept.get("wsgi.errors")
        if hasattr(errors, "streams"):
            if getattr(Gunicorn._errors, "streams", None) != errors.streams:  # the log was opened anew
                Gunicorn._errors = errors
            kept["wsgi.errors"] = Gunicorn._errors
        return kept

    def buffered(self) -> bytes:
        unreader = _unreader(self.environ)
        if hasattr(unreader, "take_buffered"):
            return bytes(unreader.take_buffered())
        early: bytes = unreader.buf.getvalue()  # gunicorn 26 and older
        unreader.buf.seek(0)
        unreader.buf.truncate()
        return early


def _unreader(environ: dict[str, Any]) -> Any:
    """Find the object with the bytes that gunicorn has read ahead; None where `wsgi.input` was replaced."""
    return getattr(getattr(environ.get("wsgi.input"), "reader", None), "unreader", None)
