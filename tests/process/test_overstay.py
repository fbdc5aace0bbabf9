"""Views that go on although their connection is over, and the line of the log that names them."""

from __future__ import annotations

import gc
import linecache
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from unittest import mock

import gevent
import pytest

from dwebsocket import require_websocket, shutdown
from dwebsocket.process import overstay
from dwebsocket.process.registry import registry
from dwebsocket.reactors.gevent import GeventReactor
from dwebsocket.reactors.thread import ThreadReactor
from tests.links import run_program, until
from tests.peer import Close, Peer
from tests.sites import Site


@pytest.fixture(autouse=True)
def _hurry() -> Iterator[None]:
    with mock.patch.object(overstay, "OVERSTAY_SECONDS", 0.1):
        yield


def leave(peer: Peer) -> None:
    peer.close()
    peer.abandon()


def reports(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if "still runs" in record.getMessage()]


def until_reported(caplog: pytest.LogCaptureFixture) -> str:
    return until(lambda: reports(caplog), "the line of the log")[0].getMessage()


class Sleeper:
    """A view that sleeps, from the time its peer has left until the test wakes it."""

    def __init__(self, site: Site, begin: Callable[..., object] = lambda websocket: websocket.accept()) -> None:
        self.begin = begin
        self.go = threading.Event()
        sleeps = {"runserver": partial(self.go.wait, 10), "pywsgi": partial(gevent.sleep, 0.01)}
        self.sleep = sleeps[site.server.name]

    def __call__(self, request):
        self.begin(request.websocket)
        while not self.go.is_set():
            self.sleep()  # here it is


@pytest.mark.parametrize("end", ["close", "abandon", "reset"])
def test_view_that_goes_on_after_its_client_has_left_is_logged_with_its_line(
    site: Site, end: str, caplog: pytest.LogCaptureFixture
) -> None:
    sleeper = Sleeper(site)
    with site(require_websocket(sleeper)).connect("/room/%0a7/") as peer:
        {"close": leave, "abandon": Peer.abandon, "reset": Peer.reset}[end](peer)
        message = until_reported(caplog)
    sleeper.go.set()
    record = reports(caplog)[0]
    assert (record.name, record.levelname) == ("dwebsocket", "WARNING")
    assert message.startswith(r"the view at '/room/\n7/' still runs 0.1 seconds after its connection is over: ")
    _, _, file, line, function = record.args  # type: ignore[misc]
    assert (file, function) == (__file__, "__call__")
    assert "here it is" in linecache.getline(str(file), int(str(line)))


@pytest.mark.parametrize("end", ["close", "abandon", "reset"])
def test_turn_that_goes_on_after_its_client_has_left_is_logged_with_its_line(
    site: Site, end: str, caplog: pytest.LogCaptureFixture
) -> None:
    sleeper = Sleeper(site)

    @require_websocket
    def view(request):
        return request.websocket.stay_open(closed=lambda *about: sleeper(request))

    with site(view).connect() as peer:
        {"close": leave, "abandon": Peer.abandon, "reset": Peer.reset}[end](peer)
        message = until_reported(caplog)
    sleeper.go.set()
    assert f"{__file__}, line" in message


def test_view_is_logged_once(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    first, second = Sleeper(site), Sleeper(site)
    with site(require_websocket(first)).connect() as peer:
        leave(peer)
        until_reported(caplog)
    with site(require_websocket(second)).connect() as peer:
        leave(peer)
        until(lambda: len(reports(caplog)) > 1)  # meanwhile the first could have been told of again
    first.go.set()
    second.go.set()
    site.until_idle()
    assert len(reports(caplog)) == 2


def test_view_that_ends_with_its_connection_is_not_logged(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    sleeper = Sleeper(site)

    @require_websocket
    def view(request):
        if request.path == "/late/":
            sleeper(request)
        for message in request.websocket:
            request.websocket.send(message)

    for path in ("/a/", "/b/", "/late/", "/c/"):
        with site(view).connect(path) as peer:
            leave(peer)
    assert "'/late/'" in until_reported(caplog)
    sleeper.go.set()
    site.until_idle()
    assert len(reports(caplog)) == 1


def test_view_that_ends_while_its_client_stays_for_the_closing_handshake_is_not_logged(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    @require_websocket
    def view(request):
        request.websocket.accept()

    sleeper = Sleeper(site)
    with site(view).connect() as peer:
        assert peer.recv_message() == Close(1000)
        time.sleep(0.2)  # longer than a view may stay
        peer.send_close()
    site.until_idle()
    with site(require_websocket(sleeper)).connect("/late/") as peer:
        leave(peer)
        assert "'/late/'" in until_reported(caplog)
    sleeper.go.set()
    assert len(reports(caplog)) == 1


@pytest.mark.parametrize("told", ["close", "idle timeout", "shutdown"])
def test_view_that_was_told_to_go_and_goes_on_is_logged(
    site: Site, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    def begin(websocket):
        websocket.accept()
        if told == "close":
            websocket.close()

    sleeper = Sleeper(site, begin)
    idle_timeout = 0.05 if told == "idle timeout" else None
    with site(require_websocket(idle_timeout=idle_timeout)(sleeper)).connect() as peer:
        if told == "shutdown":
            until(lambda: [member for member in registry.members() if member.info() is not None])
            threading.Thread(target=shutdown, kwargs={"seconds": 0.01}).start()
        assert isinstance(peer.recv_message(), Close)
        peer.send_close()
        peer.abandon()
        until_reported(caplog)
    sleeper.go.set()
    site.until_idle()
    registry.forget()


def test_line_is_that_of_the_view_and_not_of_what_it_calls(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    go = threading.Event()

    @require_websocket
    def view(request):
        request.websocket.accept()
        while not go.is_set():
            _wait_in_a_library(site)

    with site(view).connect() as peer:
        leave(peer)
        message = until_reported(caplog)
    go.set()
    assert __file__ in message
    assert "in _wait_in_a_library " in message


def _wait_in_a_library(site: Site) -> None:
    if site.server.name == "runserver":
        threading.Event().wait(0.01)
    else:
        gevent.event.Event().wait(0.01)


def test_nothing_of_the_view_is_kept_alive(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    class Thing:
        """Something that a view has."""

    sleeper = Sleeper(site)
    things: list[weakref.ref[Thing]] = []

    @require_websocket
    def view(request):
        thing = Thing()
        things.append(weakref.ref(thing))
        sleeper(request)

    with site(view).connect() as peer:
        leave(peer)
        until_reported(caplog)
    sleeper.go.set()
    site.until_idle()
    caplog.clear()
    gc.collect()
    assert [thing() for thing in things] == [None]
    assert not any(watch._over for watch in overstay._watches.values())


def test_where_no_thread_can_be_started_the_reactor_goes_on(
    detached_site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    kind: Any = {"runserver": ThreadReactor, "pywsgi": GeventReactor}[detached_site.server.name]
    tried = threading.Event()
    sleeper = Sleeper(detached_site)
    spawn = kind.spawn

    def refuse(reactor: Any, function: Callable[[], None], name: str) -> None:
        if name == "websocket overstay" and not tried.is_set():
            tried.set()
            raise RuntimeError("can't start new thread")
        spawn(reactor, function, name)

    with mock.patch.object(kind, "spawn", refuse):
        with detached_site(require_websocket(sleeper)).connect() as peer:
            leave(peer)
            assert tried.wait(10)
        with detached_site.connect() as peer:
            leave(peer)
            until_reported(caplog)
        sleeper.go.set()
        detached_site.until_idle()


FORK = """
import os
from dwebsocket.process import overstay
from dwebsocket.reactors import thread

reactor = thread.current()
stay = overstay.Stay("/", reactor)
stay.begin(reactor.caller())
stay.connection_over()
assert len(overstay._watches) == 1
child = os.fork()
if child == 0:
    os._exit(len(overstay._watches))
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert len(overstay._watches) == 1
"""


def test_child_of_a_fork_watches_no_view_of_its_parent() -> None:
    run_program(FORK)
