"""``simple_websocket_pywsgi.py FD``: an echo on simple-websocket, a bare WSGI application without any framework."""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402
from collections.abc import Callable, Iterable  # noqa: E402
from typing import Any  # noqa: E402

from gevent import socket  # noqa: E402
from gevent.pywsgi import WSGIServer  # noqa: E402
from simple_websocket import ConnectionClosed, Server  # noqa: E402


def echo(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    websocket = Server.accept(environ, max_message_size=2 << 20)
    try:
        while True:
            websocket.send(websocket.receive())
    except ConnectionClosed:
        return []


listener = socket.socket(fileno=int(sys.argv[1]))
WSGIServer(listener, echo, log=None).serve_forever()
