"""Django sites inside this process: one real server per kind, the views written next to the test.

The server stays for the session; what it serves is set by each test. Views run detached and attached: what both must
do is tested for both.
"""

from __future__ import annotations

import gc
import logging
import sys
import threading
import types
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from queue import SimpleQueue
from typing import Any
from unittest import mock

import gevent
import gevent.event
import gevent.hub
import gevent.pywsgi
import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler, is_broken_pipe_error
from django.test import override_settings
from django.urls import re_path

from dwebsocket import WebSocketView
from dwebsocket.process.registry import registry
from dwebsocket.reactors.gevent import GeventReactor
from dwebsocket.reactors.thread import ThreadReactor
from tests.links import PATIENCE_SECONDS, until
from tests.peer import Headers, Peer, Response

MODES = {"detached": True, "attached": False}


class InProcessServer:
    """A WSGI server in a thread of this process. ``errors`` is what it complained about."""

    name: str
    port: int

    def __init__(self) -> None:
        self.errors: list[Any] = []
        self.application: Callable[..., Any] = WSGIHandler
        self.running = 0  # requests and views that have not come to their end
        self._lock = threading.Lock()

    def count(self, change: int) -> None:
        with self._lock:
            self.running += change

    @contextmanager
    def counted(self) -> Iterator[None]:
        self.count(1)
        try:
            yield
        finally:
            self.count(-1)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        with self.counted():
            return Counted(self, self.application(environ, start_response))

    @contextmanager
    def watching_views(self) -> Iterator[None]:
        """Count the views that have left their request."""

        def watched(spawn: Callable[..., None]) -> Callable[..., None]:
            def spawn_and_watch(reactor: Any, function: Callable[[], None], name: str) -> None:
                def run() -> None:
                    with self.counted():
                        function()

                spawn(reactor, run, name)

            return spawn_and_watch

        with ExitStack() as stack:
            for reactor in (ThreadReactor, GeventReactor):
                stack.enter_context(mock.patch.object(reactor, "spawn", watched(reactor.spawn)))
            yield

    def until_idle(self) -> None:
        until(lambda: not self.running and not len(registry), "the requests and views to end")


class Counted:
    """A response; its request has not come to its end before it is closed."""

    def __init__(self, server: InProcessServer, response: Any) -> None:
        self._server = server
        self._response = response
        server.count(1)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._response)

    def close(self) -> None:
        self._response.close()
        self._server.count(-1)


class RunServer(InProcessServer):
    """Django's development server: a thread per request."""

    name = "runserver"

    def __init__(self) -> None:
        super().__init__()
        server = self

        class Recording(ThreadedWSGIServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                if not is_broken_pipe_error():
                    server.errors.append(sys.exc_info()[1])

        class Quiet(WSGIRequestHandler):
            def log_message(self, format: str, *arguments: Any) -> None:
                """Access lines are the tests of real servers' business."""

        self._server = Recording(("127.0.0.1", 0), Quiet)
        self._server.set_app(self)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.05], daemon=True)
        self._thread.start()

    def pause(self, seconds: float) -> None:
        """Sleep as a view of this server sleeps."""
        threading.Event().wait(seconds)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENCE_SECONDS)


class PyWSGI(InProcessServer):
    """gevent's server, with a hub in a thread of its own: nothing is monkey-patched."""

    name = "pywsgi"

    def __init__(self) -> None:
        super().__init__()
        ready: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, args=[ready], daemon=True)
        self._thread.start()
        self.port = ready.result(PATIENCE_SECONDS)

    def pause(self, seconds: float) -> None:
        """Sleep as a view of this server sleeps."""
        gevent.sleep(seconds)

    def stop(self) -> None:
        self._loop.run_callback_threadsafe(self._stopped.set)
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive()

    def _run(self, ready: Future[int]) -> None:
        hub = gevent.get_hub()
        hub.handle_error = lambda *error: self.errors.append(error)
        self._loop = hub.loop
        self._stopped = gevent.event.Event()
        server = gevent.pywsgi.WSGIServer(("127.0.0.1", 0), self, log=None, error_log=logging.getLogger("pywsgi"))
        server.start()
        ready.set_result(server.server_port)
        self._stopped.wait()
        server.stop()
        gc.collect()  # a socket in a cycle that is found after its loop was destroyed cannot be closed any more
        hub.destroy()


class Site:
    """What a test makes of the server: views, settings, peers."""

    def __init__(self, server: InProcessServer, mode: str, settings: ExitStack, peers: ExitStack) -> None:
        self.server = server
        self.mode = mode
        self.host = f"127.0.0.1:{server.port}"
        self.told: SimpleQueue[Any] = SimpleQueue()
        self._settings = settings
        self._peers = peers

    def __call__(self, *views: Any, **settings: Any) -> Site:
        """Serve the one view at every path, or the URL patterns, with these settings."""
        urls = types.ModuleType("urls")
        urls.urlpatterns = [re_path("", view) if callable(view) else view for view in views]  # type: ignore[attr-defined]
        chosen = {"WEBSOCKET_DETACH": MODES[self.mode], **settings}
        self._settings.enter_context(override_settings(ROOT_URLCONF=urls, **chosen))
        self.server.application = WSGIHandler()
        return self

    # What views use

    def tell(self, anything: Any) -> None:
        """Say something to the test."""
        self.told.put(anything)

    def pause(self, seconds: float) -> None:
        self.server.pause(seconds)

    def wait_for(self, event: threading.Event) -> None:
        """Let the view sleep until the test sets ``event``."""
        for _ in range(int(PATIENCE_SECONDS / 0.005)):
            if event.is_set():
                return
            self.pause(0.005)
        raise AssertionError("the test did not wake the view")

    # What tests use

    def hear(self) -> Any:
        """The next thing that a view said."""
        return self.told.get(timeout=PATIENCE_SECONDS)

    def peer(self) -> Peer:
        return self._peers.enter_context(Peer("127.0.0.1", self.server.port))

    def connect(self, path: str = "/", headers: Headers | None = None, early: bytes = b"") -> Peer:
        return self.peer().connect(path, headers, early)

    def handshake(self, path: str = "/", headers: Headers | None = None, **options: str) -> Response:
        """The answer to an opening handshake."""
        return self.peer().handshake(path, {"Connection": "Upgrade", **(headers or {})}, **options)

    def get(self, path: str = "/", headers: Headers | None = None) -> Response:
        """The answer to plain HTTP."""
        return self.peer().http(path, {"Connection": "close", **(headers or {})})

    def until_idle(self) -> None:
        """Return when every request and every view has come to its end."""
        self.server.until_idle()


@contextmanager
def changing(change: Callable[[Any], object], *others: str) -> Iterator[dict[str, Any]]:
    """Settings with a middleware that changes each request, behind `others`, in front of the view."""

    def middleware(get_response: Any) -> Any:
        def call(request: Any) -> Any:
            change(request)
            return get_response(request)

        return call

    with mock.patch(f"{__name__}.middleware", middleware, create=True):
        yield {"MIDDLEWARE": [*others, f"{__name__}.middleware"]}


class Teller(WebSocketView):
    """Tells the test whatever it is told."""

    site: Any = None

    def opened(self) -> None:
        self.site.tell("opened")

    def received(self, message: str | bytes) -> None:
        self.site.tell(message)

    def closed(self, code: int, reason: str) -> None:
        self.site.tell((code, reason))


def all_told(site: Site) -> list[Any]:
    """What was told, once everything is over."""
    site.until_idle()
    return [site.hear() for _ in range(site.told.qsize())]


@pytest.fixture(scope="session", params=[RunServer, PyWSGI], ids=lambda kind: kind.name)
def wsgi_server(request: pytest.FixtureRequest) -> Iterator[InProcessServer]:
    server = request.param()
    yield server
    server.stop()


@contextmanager
def serving(server: InProcessServer, mode: str) -> Iterator[Site]:
    with server.watching_views(), ExitStack() as settings:
        with ExitStack() as peers:
            yield Site(server, mode, settings, peers)
        server.until_idle()
    errors, server.errors = server.errors, []
    assert errors == []


@pytest.fixture(params=MODES)
def site(request: pytest.FixtureRequest, wsgi_server: InProcessServer) -> Iterator[Site]:
    """A site on each server, its views detached and attached."""
    with serving(wsgi_server, request.param) as site:
        yield site


@pytest.fixture
def detached_site(wsgi_server: InProcessServer) -> Iterator[Site]:
    """A site on each server, for what only a detached view shows."""
    with serving(wsgi_server, "detached") as site:
        yield site
