"""``python -m tests.project.serve NAME [CERTFILE KEYFILE]``: a server without a command of its own, on a port of the
kernel's choice. SIGTERM stops it as its documentation says, SIGINT where that says nothing.
"""

from __future__ import annotations

import _thread
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
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

    def tell_of_others(unraisable: Any) -> None:
        """Its writer, when it is collected, tries once more to send what nobody can read; Python 3.13 tells of it."""
        files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(unraisable.exc_traceback)]
        if not any(file.endswith("cheroot/makefile.py") for file in files):
            sys.__unraisablehook__(unraisable)

    sys.unraisablehook = tell_of_others
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


def runserver_plus() -> None:
    from django.core.management import execute_from_command_line

    from tests.project import settings

    settings.INSTALLED_APPS.append("django_extensions")
    if "TEST_PORT" not in os.environ:  # its reloader starts this program once more
        os.environ["TEST_PORT"] = str(free_port())
    execute_from_command_line(["manage", "runserver_plus", f"127.0.0.1:{os.environ['TEST_PORT']}"])


def unknown() -> None:
    """A server that nobody knows, and that puts the socket into the environ as others do."""
    from socketserver import ThreadingMixIn
    from wsgiref.simple_server import ServerHandler, WSGIRequestHandler, WSGIServer

    ServerHandler.http_version = "1.1"

    class Handler(WSGIRequestHandler):
        def get_environ(self) -> dict[str, Any]:
            return {**super().get_environ(), "SERVER_SOFTWARE": "Unheard/1.0", "gunicorn.socket": self.connection}

    class Server(ThreadingMixIn, WSGIServer):
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    server.set_app(application())
    say(server.server_port)
    server.serve_forever()


def waitress() -> None:
    from waitress.server import create_server

    server = create_server(application(), host="127.0.0.1", port=0)
    say(server.effective_port)
    server.run()


def free_port() -> int:
    """A port for a server that cannot say which one it got. It is said once somebody listens there."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]

    def say_when_up() -> None:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                return say(port)
            except ConnectionRefusedError:
                time.sleep(0.05)

    # Not threading's: where a server patches threads meanwhile, that one would not know itself any more when it ends.
    _thread.start_new_thread(say_when_up, ())
    return port


def granian() -> None:
    from granian import Granian

    Granian("tests.project.wsgi:application", "127.0.0.1", free_port(), interface="wsgi", log_enabled=False).serve()


def werkzeug_sigterm() -> None:
    from dwebsocket import shutdown_on_signal

    shutdown_on_signal()
    werkzeug()


def uwsgi(*options: str) -> None:
    import pyuwsgi

    common = ("--module=tests.project.wsgi", "--need-app", "--die-on-term")
    pyuwsgi.run([*common, *options])


def uwsgi_http() -> None:
    inner = tempfile.mkdtemp()
    router = (f"--http=127.0.0.1:{free_port()}", "--http-websockets", f"--socket={inner}/uwsgi")
    uwsgi(*router, "--gevent=100", "--gevent-early-monkey-patch", "--master")


START: dict[str, Callable[[], None]] = {
    "pywsgi": pywsgi,
    "gevent-websocket": gevent_websocket,
    "cheroot": cheroot,
    "werkzeug": werkzeug,
    "runserver-plus": runserver_plus,
    "unknown": unknown,
    "waitress": waitress,
    "granian": granian,
    "werkzeug-sigterm": werkzeug_sigterm,
    "uwsgi-gevent": lambda: uwsgi("--http-socket=127.0.0.1:0", "--gevent=100", "--gevent-early-monkey-patch"),
    "uwsgi-http": uwsgi_http,
    "uwsgi-plain": lambda: uwsgi("--http-socket=127.0.0.1:0"),
    "uwsgi-threads": lambda: uwsgi("--http-socket=127.0.0.1:0", "--threads=20"),
}

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background ignores it, and so would we
    with suppress(KeyboardInterrupt):
        START[NAME]()
