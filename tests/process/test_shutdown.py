"""How the WebSockets of a process end when it does."""

from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.http import HttpRequest, HttpResponse

from dwebsocket import accept_websocket, require_websocket, shutdown, shutdown_on_signal
from dwebsocket.process import registry as registry_module
from dwebsocket.process.registry import registry
from tests.links import until
from tests.peer import Close
from tests.process.helpers import MANY, answered, echo, leave_when_told
from tests.sites import Site


def test_shutdown_closes_every_websocket_and_lets_every_view_end(site: Site, pool: ThreadPoolExecutor) -> None:
    @require_websocket
    def view(request: HttpRequest) -> None:
        try:
            request.websocket.send("ready")
            site.tell(request.websocket.wait())
        finally:
            site.tell("finally")

    peers = [site(view).connect() for _ in range(MANY)]
    assert [peer.recv_message() for peer in peers] == ["ready"] * MANY
    leaving = [pool.submit(leave_when_told, peer) for peer in peers]
    shutdown()
    assert sorted(str(site.hear()) for _ in range(2 * MANY)) == ["None"] * MANY + ["finally"] * MANY
    assert len(registry) == 0
    assert [left.result()[0] for left in leaving] == [Close(1012)] * MANY


def test_shutdown_uses_the_code_and_the_seconds_of_the_settings(site: Site) -> None:
    site(echo, WEBSOCKET_SHUTDOWN_CODE=4012, WEBSOCKET_DRAIN_SECONDS=0.2, WEBSOCKET_CLOSE_TIMEOUT=0.5)
    peer = answered(site.connect())
    started = time.monotonic()
    shutdown()  # its peer does not answer: it is not waited for
    assert time.monotonic() - started >= 0.4
    assert peer.recv_message() == Close(4012)


def test_shutdown_says_how_many_views_did_not_end(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    release = threading.Event()

    @require_websocket
    def view(request: HttpRequest) -> None:
        request.websocket.send("ready")
        site.wait_for(release)

    assert site(view).connect().recv_message() == "ready"
    shutdown(seconds=0.1)
    release.set()
    assert [record.getMessage() for record in caplog.records if record.name == "dwebsocket"] == [
        f"1 WebSocket views had not ended 0.2 seconds after they were told to: {view.__module__}.{view.__qualname__}"
    ]


def test_those_who_are_told_to_go_are_told_one_after_the_other(
    site: Site, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_module, "_STEP_SECONDS", 0.1)
    leaving = [pool.submit(leave_when_told, answered(site(echo).connect())) for _ in range(4)]
    shutdown(seconds=10)
    times = [left.result()[1] for left in leaving]
    assert max(times) - min(times) > 0.2


def test_handshake_during_the_end_is_refused_with_503_and_plain_http_is_answered(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    @accept_websocket
    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse("plain")

    shutdown()
    response = site(view).handshake()
    assert (response.status, response.headers["retry-after"]) == (503, "1")
    assert site.get().body == b"plain"
    assert [r.levelname for r in caplog.records if r.name == "dwebsocket"] == ["INFO"]


def test_view_that_accepts_during_the_end_is_closed_at_once(site: Site) -> None:
    release = threading.Event()

    @require_websocket
    def view(request: HttpRequest) -> None:
        site.tell("checking")
        site.wait_for(release)
        site.tell(request.websocket.wait())

    peer = site(view).peer()
    peer.send_raw(peer.handshake_request("/"))
    assert site.hear() == "checking"
    ending = threading.Thread(target=shutdown)
    ending.start()
    until(lambda: registry.is_ending)
    release.set()
    assert peer.recv_handshake().status == 101
    assert peer.recv_message() == Close(1012)
    peer.send_close()
    assert site.hear() is None
    ending.join()


def test_shutdown_of_a_process_without_websockets_returns_at_once() -> None:
    shutdown(seconds=1e9)


def test_signal_that_is_handled_outside_of_python_is_not_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    with pytest.raises(RuntimeError, match="signal 15 is handled outside of Python"):
        shutdown_on_signal()
