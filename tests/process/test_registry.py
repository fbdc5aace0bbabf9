"""How many WebSockets a process holds, which are open, and in which order they are told to go."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar
from unittest import mock

import pytest
from django.http import HttpRequest, HttpResponse

from dwebsocket import accept_websocket, connections, require_websocket
from dwebsocket.process.registry import Registry, registry
from dwebsocket.reactors.gevent import GeventReactor
from dwebsocket.reactors.thread import ThreadReactor
from tests.links import Home, until
from tests.process.helpers import answered, echo, leave_when_told
from tests.sites import Site

# How they are told to go


class Waits(threading.Event):
    """A latch that remembers how long it was waited for."""

    seconds: ClassVar[list[float]] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds.append(timeout or 0.0)
        return super().wait(timeout)


def test_member_whose_time_to_be_told_has_passed_already_is_told_without_a_wait() -> None:
    """A wait of no time costs a turn of gevent's hub, which may take a second where it is busy."""
    ours = Registry()

    class SlowMember:
        request = HttpRequest()
        reactor: Any = mock.Mock(latch=Waits, max_connections=None)
        is_parked = False

        def go_away(self, code: int) -> None:
            time.sleep(0.02)  # more than there is between two
            ours.leave(self)

        def info(self) -> None:
            return None

    for _ in range(10):
        ours.enter(SlowMember())
    assert ours.end(1001, 1.0) == 0
    assert len(Waits.seconds) <= 3  # perhaps before the first, and for the last


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
    until(lambda: len(registry) == 1, "the end of the first")
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
    assert len(registry) == 0


def test_view_for_which_no_thread_could_be_started_is_not_counted(
    detached_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object, function: object, name: str) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        for reactor in (ThreadReactor, GeventReactor):
            patch.setattr(reactor, "spawn", fail)
        assert detached_site(echo).handshake().status == 500
    assert len(registry) == 0


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
from dwebsocket.process.registry import registry
registry._members.add(object())
registry.is_ending = True
child = os.fork()
if child == 0:
    os._exit(len(registry) + registry.is_ending)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), len(registry))
registry.forget()
"""


def test_child_of_a_fork_begins_anew() -> None:
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "0 1\n"
