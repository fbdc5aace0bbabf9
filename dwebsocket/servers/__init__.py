"""The WSGI servers: each knows its requests, and takes over the socket of their connection.

The only code that reads `environ`. A server is one small class and one line in the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..exceptions import ServerNotSupported
from .base import Server, Taken, handshake_request
from .cheroot import Cheroot
from .gevent import PyWSGI
from .gevent_websocket import GeventWebSocket
from .gunicorn import Gunicorn
from .runserver import RunServer
from .testing import Testing
from .unknown import Unknown
from .uwsgi import UWSGI
from .werkzeug import Werkzeug

__all__ = ["SERVERS", "Server", "Taken", "find_server", "handshake_request"]

#: The most specific first: the first that knows the request's environ serves it.
SERVERS: tuple[type[Server], ...] = (
    GeventWebSocket,
    Gunicorn,
    UWSGI,
    PyWSGI,
    RunServer,
    Werkzeug,
    Cheroot,
    Testing,
    Unknown,
)

_WORKING = (
    "gunicorn (sync, gthread and gevent workers), gevent's pywsgi, uWSGI, Werkzeug, cheroot and Django's runserver"
)


def find_server(environ: dict[str, Any], *, first: Sequence[type[Server]] = ()) -> Server:
    """Find the server behind `environ`: one of `first`, or of SERVERS. ServerNotSupported (501) for any other."""
    for server in (*first, *SERVERS):
        if (found := server.find(environ)) is not None:
            return found
    raise ServerNotSupported(
        f"no WebSocket here: {server_name(environ)} does not hand out the socket of its connection;"
        f" it works on {_WORKING}"
    )


def server_name(environ: dict[str, Any]) -> str:
    """Return the name that the server has for itself."""
    if "wsgi.input" not in environ:
        return "the ASGI server"
    kind = type(environ["wsgi.input"])
    software = environ.get("SERVER_SOFTWARE")
    if software is None and kind.__module__ == "django.test.client":
        return "Django's test client (dwebsocket.test.WebSocketClient opens WebSockets)"
    software = software or "this WSGI server"
    return f"{software} (its wsgi.input is a {kind.__module__}.{kind.__qualname__})"
