"""An opening handshake is accepted or refused, once; what fails in the middle leaves neither side in doubt."""

from __future__ import annotations

import gc
import threading
import time
import types
from contextlib import nullcontext
from typing import Any, ClassVar
from unittest import mock

import pytest

from dwebsocket import HandshakeError, State, WebSocket, WebSocketClosed, guards, require_websocket
from dwebsocket.connection.connection import Connection
from dwebsocket.groups.membership import Memberships
from dwebsocket.process.registry import Entry, registry
from dwebsocket.upgrade.opening import Outcome
from tests.helpers import levels
from tests.sites import Site

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: testserver\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def failing(*arguments: Any, **more: Any) -> None:
    raise RuntimeError("can't start new thread")


def test_connection_whose_guards_cannot_be_asked_is_open_all_the_same_and_closes_as_a_fault(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    @require_websocket(guard=lambda request: True)
    def view(request: Any) -> None:
        with mock.patch.object(guards, "watch", failing):
            try:
                request.websocket.accept()
            finally:
                site.tell(request.websocket.state)
                request.websocket.accept()  # nothing: it is open
                request.websocket.send("still here")

    with site(view).connect() as peer:
        assert site.hear() is State.OPEN
        assert peer.recv_message() == "still here"
        assert peer.recv_message().code == 1011
    site.until_idle()
    assert levels(caplog) == [("django.request", "ERROR")]


def test_client_whose_socket_cannot_be_served_is_not_left_waiting_and_the_view_cannot_try_again(
    detached_site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site = detached_site

    @require_websocket
    def view(request: Any) -> None:
        with mock.patch("dwebsocket.upgrade.opening.Connection", failing):
            try:
                request.websocket.accept()
            except RuntimeError as error:
                site.tell(str(error))
        try:
            request.websocket.accept()
        except WebSocketClosed as error:
            site.tell(error.close_code)
            site.tell(request.websocket.state)
            raise

    with site(view).peer() as peer:
        peer.send_raw(HANDSHAKE)
        assert site.hear() == "can't start new thread"
        assert site.hear() == 1006
        assert site.hear() is State.CLOSED
        assert peer.read_to_eof() == b""
    site.until_idle()


def test_close_that_comes_while_another_thread_accepts_refuses_or_closes_and_nothing_in_between(site: Site) -> None:
    """Either the view's client was refused with HTTP, or it has a connection that closes: the socket is never lost."""

    @require_websocket
    def view(request: Any) -> None:
        websocket = request.websocket
        thread = threading.Thread(target=websocket.close, args=(4000, "early"))
        thread.start()
        try:
            websocket.accept()
        finally:
            while thread.is_alive():
                site.pause(0.001)

    server = site(view)
    for _ in range(10):
        with server.peer() as peer:
            peer.send_raw(HANDSHAKE)
            response = peer.recv_response()
            assert response.status in (101, 403)
            if response.status == 101:
                assert peer.recv_message().code == 4000


def test_connection_is_made_of_the_socket_that_was_taken(site: Site) -> None:
    made = []

    class Watched(Connection):
        def __init__(self, sock: Any, *arguments: Any, **more: Any) -> None:
            made.append(sock.fileno())
            super().__init__(sock, *arguments, **more)

    @require_websocket
    def view(request: Any) -> None:
        with mock.patch("dwebsocket.upgrade.opening.Connection", Watched):
            request.websocket.send("hello")

    with site(view).connect() as peer:
        assert peer.recv_message() == "hello"
    assert len(made) == 1
    assert made[0] >= 0


def test_class_of_a_project_that_cannot_be_made_takes_no_place(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(WebSocket):
        def __init__(self, *arguments: Any, **more: Any) -> None:
            raise ValueError("no such thing")

    @require_websocket(websocket_class=Broken)
    def view(request: Any) -> None:
        raise AssertionError("it has no WebSocket")

    server = site(view)
    assert [server.handshake().status for _ in range(3)] == [500] * 3
    site.until_idle()
    assert len(registry) == 0


def test_refusal_whose_header_cannot_be_sent_is_a_fault_and_no_101(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    class Odd(HandshakeError):
        headers: ClassVar[dict[str, str]] = {"X-Why": "two\nlines"}

    @require_websocket
    def view(request: Any) -> None:
        raise Odd("no")

    assert site(view).handshake().status == 500
    site.until_idle()


def test_thread_that_finds_the_connection_can_use_it_at_once(site: Site) -> None:
    """It is found when the 101 has left, and not a moment earlier."""
    seen: list[Any] = []
    opening = Connection.open

    @require_websocket
    def view(request: Any) -> None:
        websocket = request.websocket

        class Watched(Connection):
            def open(self, *arguments: Any) -> None:
                seen.append((websocket.state, websocket.closed))
                opening(self, *arguments)

        with mock.patch("dwebsocket.upgrade.opening.Connection", Watched):
            websocket.accept()
        seen.append((websocket.state, websocket.closed))

    with site(view).connect() as peer:
        assert peer.recv_message().code == 1000
    assert seen == [(State.CONNECTING, False), (State.OPEN, False)]


def test_opening_that_is_decided_holds_only_its_outcome(site: Site) -> None:
    """All else would live as long as the view. The entry does so anyway."""
    kept = (type, Outcome, Connection, Entry, types.FunctionType, nullcontext, str, tuple, bool, type(None))

    @require_websocket
    def view(request: Any) -> None:
        request.websocket.accept()
        site.tell([thing for thing in gc.get_referents(request.websocket._opening) if not isinstance(thing, kept)])
        request.websocket.wait()

    site(view).connect()
    assert site.hear() == []


def test_threads_that_ask_for_the_groups_at_the_same_time_get_the_same(site: Site) -> None:
    made: list[Memberships] = []

    class Slow(Memberships):
        def __init__(self, *arguments: Any) -> None:
            time.sleep(0.01)  # so that the others come meanwhile
            super().__init__(*arguments)
            made.append(self)

    @require_websocket
    def view(request: Any) -> None:
        request.websocket.accept()
        barrier = threading.Barrier(4)

        def ask() -> None:
            barrier.wait()
            request.websocket._opening.members()

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            site.pause(0.005)
        site.tell(len(made))

    with mock.patch("dwebsocket.upgrade.opening.Memberships", Slow):
        site(view).connect()
        assert site.hear() == 1
