"""How many WebSockets a process holds, and how they end when the process does."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError
from typing import Any, ClassVar
from unittest import mock

import pytest
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse

from dwebsocket import accept_websocket, connections, require_websocket, shutdown, shutdown_on_signal
from dwebsocket.process import registry as live_module
from dwebsocket.process.registry import Live, live
from dwebsocket.reactors.gevent import GeventReactor
from dwebsocket.reactors.thread import ThreadReactor
from tests.links import Home, until
from tests.peer import TEXT, Close, Peer, frame, text
from tests.sites import Site

MANY = 30


@pytest.fixture(autouse=True)
def _reopened() -> Iterator[None]:
    """A process ends once; here it begins anew."""
    yield
    live.forget()


@require_websocket
def echo(request: HttpRequest) -> None:
    for message in request.websocket:
        request.websocket.send(message)


def leave_when_told(peer: Peer) -> tuple[str | bytes | Close, float]:
    """Answer the Close frame that comes; what it was, and when it came."""
    close = peer.recv_message()
    came = time.monotonic()
    peer.send_close()
    assert peer.read_to_eof() == b""
    peer.abandon()
    return close, came


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(MANY) as pool:
        yield pool


def answered(peer: Peer) -> Peer:
    peer.send_message("hello")
    assert peer.recv_message() == "hello"
    return peer


# The end


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
    assert len(live) == 0
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
        "1 WebSocket views had not ended 0.2 seconds after they were told to"
    ]


def test_those_who_are_told_to_go_are_told_one_after_the_other(
    site: Site, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_module, "_STEP_SECONDS", 0.1)
    leaving = [pool.submit(leave_when_told, answered(site(echo).connect())) for _ in range(4)]
    shutdown(seconds=10)
    times = [left.result()[1] for left in leaving]
    assert max(times) - min(times) > 0.2


class Waits(threading.Event):
    """A latch that remembers how long it was waited for."""

    seconds: ClassVar[list[float]] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds.append(timeout or 0.0)
        return super().wait(timeout)


def test_member_whose_time_to_be_told_has_passed_already_is_told_without_a_wait() -> None:
    """A wait of no time costs a turn of gevent's hub, which may take a second where it is busy."""
    ours = Live()

    class SlowMember:
        request = HttpRequest()
        reactor: Any = mock.Mock(latch=Waits, max_connections=None)

        def go_away(self, code: int) -> None:
            time.sleep(0.02)  # more than there is between two
            ours.leave(self)

        def info(self) -> None:
            return None

    for _ in range(10):
        ours.enter(SlowMember())
    assert ours.end(1001, 1.0) == 0
    assert len(Waits.seconds) <= 3  # perhaps before the first, and for the last


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
    until(lambda: live.is_ending)
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


# How many there may be


def test_one_too_many_is_refused_with_503_until_another_has_left(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site(echo, WEBSOCKET_MAX_CONNECTIONS=2)
    first, second = answered(site.connect()), answered(site.connect())
    response = site.handshake()
    assert (response.status, response.headers["retry-after"]) == (503, "10")
    assert response.body == b"this server has 2 WebSockets open, and takes no more\n"
    assert [r.levelname for r in caplog.records if r.name == "dwebsocket"] == ["WARNING"]
    first.close()
    first.abandon()
    until(lambda: len(live) == 1, "the end of the first")
    answered(site.connect())
    answered(second)


def test_refused_and_failed_views_are_not_counted(site: Site) -> None:
    @require_websocket
    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(status=402)

    site(view, WEBSOCKET_MAX_CONNECTIONS=1)
    for _ in range(3):
        assert site.handshake().status == 402
        site.until_idle()
    assert len(live) == 0


def test_view_for_which_no_thread_could_be_started_is_not_counted(
    detached_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object, function: object, name: str) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        for reactor in (ThreadReactor, GeventReactor):
            patch.setattr(reactor, "spawn", fail)
        assert detached_site(echo).handshake().status == 500
    assert len(live) == 0


def test_threads_have_a_limit_and_greenlets_have_none(home: Home) -> None:
    assert home.do(lambda: home.reactor.max_connections) == {"thread": 1000, "gevent": None}[home.name]


# What is open


def test_connections_are_those_that_are_open(site: Site) -> None:
    assert connections() == []
    first, second = answered(site(echo).connect("/first/")), answered(site.connect("/second/"))
    assert sorted(info.path for info in connections()) == ["/first/", "/second/"]
    first.close()
    first.abandon()
    until(lambda: [info.path for info in connections()] == ["/second/"], "the end of the first")
    second.reset()
    site.until_idle()
    assert connections() == []


def test_connection_is_none_before_the_101(site: Site) -> None:
    @accept_websocket
    def view(request: HttpRequest) -> HttpResponse | None:
        site.tell(len(connections()))
        if not request.is_websocket() or "refuse" in request.path:
            return HttpResponse("plain")
        request.websocket.accept()
        site.tell(len(connections()))
        return None

    assert site(view).get().status == site.handshake("/refuse/").status == 200
    assert [site.hear(), site.hear()] == [0, 0]
    leave_when_told(site.connect())
    assert [site.hear(), site.hear()] == [0, 1]


def test_connection_says_whose_it_is_and_what_has_passed(site: Site) -> None:
    @require_websocket
    def view(request: HttpRequest) -> None:
        request.user = User(username="ada")
        site.tell(request)
        echo(request)

    peer = answered(site(view).connect("/rooms/7/?q=1"))
    until(lambda: connections()[0].bytes_sent)  # counted when the kernel has taken them: the peer may be faster
    (info,) = connections()
    assert info.request is site.hear()
    assert info.websocket is info.request.websocket
    assert (info.path, info.user, info.address) == ("/rooms/7/", "ada", "127.0.0.1")
    assert info.seconds >= 0
    assert info.traffic == {
        "seconds": info.seconds, "messages_received": 1, "messages_sent": 1,
        "bytes_received": len(text("hello")), "bytes_sent": len(frame(TEXT, b"hello", mask=None)),
    }  # fmt: skip
    peer.reset()


def test_what_is_known_of_a_connection_does_not_change_and_cannot_be_changed(site: Site) -> None:
    peer = answered(site(echo).connect())
    (before,) = connections()
    answered(peer)
    (after,) = connections()
    assert (before.messages_received, after.messages_received) == (1, 2)
    assert after.seconds > before.seconds
    with pytest.raises(FrozenInstanceError):
        before.messages_received = 2  # type: ignore[misc]
    peer.reset()


def test_connection_can_be_closed_by_whoever_has_found_it(site: Site) -> None:
    peer = answered(site(echo).connect("/rooms/7/"))
    for info in connections():
        info.websocket.close(4000, "the room is closed")
    assert leave_when_told(peer)[0] == Close(4000, "the room is closed")
    site.until_idle()
    assert connections() == []


def test_connections_are_found_from_views_and_from_other_threads(site: Site, pool: ThreadPoolExecutor) -> None:
    @require_websocket
    def view(request: HttpRequest) -> None:
        request.websocket.accept()
        request.websocket.send(f"{len(connections())} are here")
        echo(request)

    peers = [site(view).connect() for _ in range(3)]
    assert [peer.recv_message() for peer in peers][-1] == "3 are here"
    assert [pool.submit(lambda: len(connections())).result() for _ in range(3)] == [3, 3, 3]
    for peer in peers:
        peer.reset()


def test_view_that_fails_leaves_no_connection_behind(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    @require_websocket
    def view(request: HttpRequest) -> None:
        request.websocket.accept()
        raise RuntimeError

    leave_when_told(site(view).connect())
    site.until_idle()
    assert connections() == []


# Processes

FORK = """
import os
from dwebsocket.process.registry import live
live._members.add(object())
live.is_ending = True
child = os.fork()
if child == 0:
    os._exit(len(live) + live.is_ending)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), len(live))
live.forget()
"""


def test_child_of_a_fork_begins_anew() -> None:
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "0 1\n"
