"""``gevent_websocket_pywsgi.py FD``: an echo on gevent-websocket, a bare WSGI application without any framework."""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402
from collections.abc import Callable, Iterable  # noqa: E402
from typing import Any  # noqa: E402

from gevent import socket  # noqa: E402
from gevent.pywsgi import WSGIServer  # noqa: E402
from geventwebsocket.handler import WebSocketHandler  # noqa: E402


def echo(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    websocket = environ["wsgi.websocket"]
    while (message := websocket.receive()) is not None:
        websocket.send(message)
    return []


listener = socket.socket(fileno=int(sys.argv[1]))
WSGIServer(listener, echo, log=None, handler_class=WebSocketHandler).serve_forever()
