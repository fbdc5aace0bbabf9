"""``python -m tests.project.serve NAME [CERTFILE KEYFILE]``: a server without a command of its own, on a port of the
kernel's choice. SIGTERM stops it as its documentation says, SIGINT where that says nothing.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Any

NAME, *TLS = sys.argv[1:]

if NAME in ("pywsgi", "gevent-websocket"):
    from gevent import monkey

    monkey.patch_all()


def application() -> Any:
    from tests.project.wsgi import application

    return application


def say(port: int) -> None:
    print(f"Listening at: http://127.0.0.1:{port}", flush=True)


def pywsgi(**options: Any) -> None:
    import gevent
    from gevent.pywsgi import WSGIServer

    if TLS:
        options |= {"certfile": TLS[0], "keyfile": TLS[1]}
    server = WSGIServer(("127.0.0.1", 0), application(), **options)
    gevent.signal_handler(signal.SIGTERM, server.stop)
    server.start()
    say(server.server_port)
    server.serve_forever()


def gevent_websocket() -> None:
    from geventwebsocket.handler import WebSocketHandler

    pywsgi(handler_class=WebSocketHandler)


def cheroot() -> None:
    from cheroot.ssl.builtin import BuiltinSSLAdapter
    from cheroot.wsgi import Server

    import dwebsocket

    server = Server(("127.0.0.1", 0), application(), numthreads=3, max=3, shutdown_timeout=1)
    if TLS:
        server.ssl_adapter = BuiltinSSLAdapter(*TLS)
    server.prepare()
    say(server.bind_addr[1])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        server.serve()
    finally:
        dwebsocket.shutdown()  # its stop() cuts off whoever is attached
        server.stop()


def werkzeug() -> None:
    from werkzeug.serving import make_server

    server = make_server("127.0.0.1", 0, application(), threaded=True, ssl_context=tuple(TLS) or None)
    say(server.port)
    server.serve_forever()


def werkzeug_sigterm() -> None:
    from dwebsocket import shutdown_on_signal

    shutdown_on_signal()
    werkzeug()


def uwsgi(*options: str) -> None:
    import pyuwsgi

    common = ("--module=tests.project.wsgi", "--need-app", "--die-on-term", "--enable-threads")
    pyuwsgi.run([*common, *options])


START: dict[str, Callable[[], None]] = {
    "pywsgi": pywsgi,
    "gevent-websocket": gevent_websocket,
    "cheroot": cheroot,
    "werkzeug": werkzeug,
    "werkzeug-sigterm": werkzeug_sigterm,
    "uwsgi-gevent": lambda: uwsgi("--http-socket=127.0.0.1:0", "--gevent=100", "--gevent-early-monkey-patch"),
    "uwsgi-threads": lambda: uwsgi("--http-socket=127.0.0.1:0", "--threads=20"),
}

if __name__ == "__main__":
    START[NAME]()
