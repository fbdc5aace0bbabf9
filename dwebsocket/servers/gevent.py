"""gevent's own WSGI server."""

from __future__ import annotations

from typing import Any

from .base import BufferedServer


class PyWSGI(BufferedServer):
    """gevent.pywsgi gives an upgrade request its reader as it is."""

    @staticmethod
    def find_reader(environ: dict[str, Any]) -> Any:
        if not str(environ.get("SERVER_SOFTWARE", "")).startswith("gevent/"):
            return None
        wsgi_input = environ.get("wsgi.input")
        return getattr(wsgi_input, "rfile", wsgi_input)
