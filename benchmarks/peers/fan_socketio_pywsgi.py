"""``fan_socketio_pywsgi.py FD``: python-socketio with its RedisManager, on gevent's pywsgi."""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402
import sys  # noqa: E402
from typing import Any  # noqa: E402
from urllib.parse import parse_qs  # noqa: E402

import socketio  # noqa: E402
from gevent import socket  # noqa: E402
from gevent.pywsgi import WSGIServer  # noqa: E402
from geventwebsocket.handler import WebSocketHandler  # noqa: E402

server = socketio.Server(async_mode="gevent", client_manager=socketio.RedisManager(os.environ["BENCHMARKS_REDIS"]))


@server.event
def connect(sid: str, environ: dict[str, Any], auth: object = None) -> None:
    server.enter_room(sid, "room:" + parse_qs(environ["QUERY_STRING"])["room"][0])


listener = socket.socket(fileno=int(sys.argv[1]))
WSGIServer(listener, socketio.WSGIApp(server), log=None, handler_class=WebSocketHandler).serve_forever()
