"""Views that are parked between their turns: order, fairness, context, what they hold, and how they end."""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import gevent
import pytest
from django.conf import settings
from django.test import override_settings
from django.urls import get_urlconf, set_urlconf
from django.utils import timezone, translation

from dwebsocket import WebSocket, WebSocketView, connections, require_websocket, shutdown
from dwebsocket.process.registry import registry
from dwebsocket.reactors import thread as thread_reactor
from dwebsocket.signals import websocket_closed, websocket_opened
from dwebsocket.upgrade import viewrun
from tests.groups.helpers import new_room
from tests.helpers import exchange, levels, recorded
from tests.links import PATIENCE_SECONDS, assert_ends, until
from tests.peer import BINARY, Close, Peer, frame, text
from tests.sites import PyWSGI, RunServer, Site, Teller, all_told, changing, serving


class Echo(WebSocketView):
    def received(self, message: str | bytes) -> None:
        self.send(message)


def parked(site: Site) -> None:
    """Return when no view has a greenlet or thread of its own."""
    until(lambda: not site.server.running, "the views to be parked")


@pytest.fixture
def _reopened() -> Iterator[None]:
    """A process ends once; here it begins anew."""
    yield
    registry.forget()


# Who is parked


def test_view_holds_no_greenlet_or_thread_between_two_calls(detached_site: Site) -> None:
    site = detached_site
    peer = site(Echo.as_view()).connect()
    parked(site)
    assert exchange(peer, "hello") == "hello"
    assert not site.server.running
    assert len(connections()) == 1
    assert peer.close() == Close(1000)


@pytest.mark.parametrize("how", ["class", "as_view"])
def test_view_that_wants_its_own_greenlet_or_thread_has_one(detached_site: Site, how: str) -> None:
    site = detached_site

    class View(Teller):
        parked = how != "class"

        def received(self, message: str | bytes) -> None:
            site.tell(threading.get_ident() if site.server.name == "runserver" else id(gevent.getcurrent()))

    peer = site(View.as_view(site=site, **({"parked": False} if how == "as_view" else {}))).connect()
    assert site.hear() == "opened"
    idents = set()
    for _ in range(3):
        peer.send_message("who?")
        idents.add(site.hear())
    assert len(idents) == 1
    assert site.server.running
    assert peer.close(4001) == Close(4001)
    assert all_told(site) == [(4001, "")]


def test_mixin_that_does_something_behind_dispatch_does_it_at_the_end_where_the_view_is_not_parked(site: Site) -> None:
    class View(Teller):
        parked = False

        def dispatch(self, *args: Any, **kwargs: Any) -> Any:
            response = super().dispatch(*args, **kwargs)
            site.tell("dispatch() has returned")
            return response

    peer = site(View.as_view(site=site)).connect()
    assert peer.close() == Close(1000)
    assert all_told(site) == ["opened", (1000, ""), "dispatch() has returned"]


def test_dispatch_that_returns_nothing_is_a_mistake_that_says_what_to_write(
    detached_site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site = detached_site

    class View(Teller):
        def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
            super().dispatch(request, *args, **kwargs)

    assert_ends(site(View.as_view(site=site)).connect(), 1011)
    assert all_told(site) == ["opened", (1011, "")]
    assert levels(caplog) == [("django.request", "ERROR")]
    assert "write `return super().dispatch(" in caplog.text


def test_wrong_number_of_threads_closes_the_connection_and_is_told(
    detached_site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site = detached_site
    assert_ends(site(Teller.as_view(site=site), WEBSOCKET_THREADS=0).connect(), 1011)
    assert all_told(site) == ["opened", (1011, "")]
    assert "WEBSOCKET_THREADS is 0; it must be a whole number above 0" in caplog.text


# Order


def test_messages_are_handed_on_in_their_order_and_no_two_at_the_same_time(site: Site) -> None:
    inside: list[bool] = []

    class View(Teller):
        def received(self, message: str | bytes) -> None:
            assert not inside
            inside.append(True)
            if int(message) % 50 == 0:
                site.pause(0.01)
            inside.pop()
            super().received(message)

    peer = site(View.as_view(site=site)).connect()
    for number in range(300):
        peer.send_message(str(number))
        if number % 70 == 0:
            threading.Event().wait(0.005)
    assert peer.close() == Close(1000)
    assert all_told(site) == ["opened", *map(str, range(300)), (1000, "")]


def test_message_that_comes_while_the_view_opens_is_handed_on_behind_it(site: Site) -> None:
    class View(Teller):
        def opened(self) -> None:
            self.send("go")
            site.pause(0.05)
            super().opened()

    peer = site(View.as_view(site=site)).connect(early=text("early"))
    assert peer.recv_message() == "go"
    peer.send_message("late")
    assert [site.hear() for _ in range(3)] == ["opened", "early", "late"]
    assert peer.close() == Close(1000)


def test_answers_leave_before_the_close_is_answered(site: Site) -> None:
    peer = site(Echo.as_view()).connect()
    messages = [str(number) for number in range(200)]
    peer.send_raw(b"".join(map(text, messages)))
    peer.send_close(1000)
    assert [peer.recv_message() for _ in messages] == messages
    assert peer.recv_message() == Close(1000)


@pytest.mark.parametrize("message", [b"", b"\x00\xff" * 40_000, "🎉" * 20_000], ids=["empty", "binary", "text"])
def test_message_of_any_size_and_kind_comes_whole(site: Site, message: str | bytes) -> None:
    peer = site(Echo.as_view()).connect()
    assert exchange(peer, message) == message


def test_method_waits_for_the_next_message_itself(site: Site) -> None:
    class View(Teller):
        def received(self, message: str | bytes) -> None:
            site.tell([message, self.websocket.wait(PATIENCE_SECONDS)])

    peer = site(View.as_view(site=site)).connect()
    assert site.hear() == "opened"
    for first, second in (("a", "b"), ("c", "d")):
        peer.send_message(first)
        peer.send_message(second)
        assert site.hear() == [first, second]
    assert peer.close() == Close(1000)
    assert all_told(site) == [(1000, "")]


def test_method_that_waits_for_a_message_that_is_not_there_yet_gets_it_and_the_next_turn_the_one_behind_it(
    site: Site,
) -> None:
    class View(Teller):
        def received(self, message: str | bytes) -> None:
            self.send("waits")
            site.tell([message, self.websocket.wait(PATIENCE_SECONDS)])

    peer = site(View.as_view(site=site)).connect()
    assert site.hear() == "opened"
    for _ in range(3):
        peer.send_message("first")
        assert peer.recv_message() == "waits"
        peer.send_message("second")
        assert site.hear() == ["first", "second"]
    assert peer.close() == Close(1000)


# Others


def test_peer_that_floods_does_not_keep_others_waiting(site: Site) -> None:
    stop = threading.Event()
    site(Echo.as_view())
    flooder, other = site.connect(), site.connect()

    def flood() -> None:
        try:
            while not stop.is_set():
                flooder.send_raw(text("x" * 100) * 500)
        except OSError:
            pass

    def drain() -> None:
        try:
            while flooder.sock.recv(1 << 18):
                pass
        except OSError:
            pass

    flooder.sock.settimeout(PATIENCE_SECONDS)
    threads = [threading.Thread(target=function, daemon=True) for function in (flood, drain)]
    for thread in threads:
        thread.start()
    try:
        for number in range(20):
            assert exchange(other, str(number)) == str(number)
    finally:
        stop.set()
        threads[0].join(PATIENCE_SECONDS)
        flooder.reset()
        threads[1].join(PATIENCE_SECONDS)
    assert other.close() == Close(1000)


def test_peer_that_floods_and_never_reads_stops_no_one(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site(Echo.as_view(), WEBSOCKET_SEND_TIMEOUT=0.5, WEBSOCKET_CLOSE_TIMEOUT=0.5)
    flooder, other = site.connect(), site.connect()
    flooder.sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            flooder.sock.send(text("x" * 10_000) * 50)
    for number in range(10):
        assert exchange(other, str(number)) == str(number)
    flooder.abandon()
    assert other.close() == Close(1000)


def test_turn_that_blocks_stops_no_other_and_pings_of_its_own_peer_are_answered(site: Site) -> None:
    go = threading.Event()

    class View(WebSocketView):
        def received(self, message: str | bytes) -> None:
            if message == "block":
                site.tell("blocks")
                site.wait_for(go)
            self.send(message)

    site(View.as_view())
    stuck, other = site.connect(), site.connect()
    stuck.send_message("block")
    assert site.hear() == "blocks"
    assert exchange(other, "hello") == "hello"
    stuck.send_frame(9, b"there?")
    assert stuck.recv_frame().payload == b"there?"
    stuck.send_message("behind it")
    go.set()
    assert [stuck.recv_message(), stuck.recv_message()] == ["block", "behind it"]
    for peer in (stuck, other):
        assert peer.close() == Close(1000)


def test_many_that_get_a_message_at_once_are_all_served_and_may_all_leave_at_once(site: Site) -> None:
    room = new_room()

    class View(Teller):
        def opened(self) -> None:
            self.join(room)
            self.send("joined")

        def group_message(self, message: Any) -> None:
            self.send(f"told {message.data}")

    site(View.as_view(site=site))
    peers = [site.connect() for _ in range(40)]
    for peer in peers:
        assert peer.recv_message() == "joined"
    for number in range(3):
        room.send(str(number))
    for peer in peers:
        assert [peer.recv_message() for _ in range(3)] == [f"told {number}" for number in range(3)]
    for peer in peers:
        peer.send_close(4001)
    for peer in peers:
        assert peer.recv_message() == Close(4001)
        peer.abandon()
    assert all_told(site) == [(4001, "")] * len(peers)


@pytest.mark.usefixtures("_reopened")
def test_process_that_ends_tells_all_that_are_parked(site: Site) -> None:
    site(Teller.as_view(site=site))
    peers = [site.connect() for _ in range(20)]
    assert [site.hear() for _ in peers] == ["opened"] * 20
    done = threading.Thread(target=lambda: site.tell(shutdown(seconds=0.01)))
    done.start()
    for peer in peers:
        assert peer.recv_message() == Close(1012)
        peer.send_close(1012)
        peer.abandon()
    done.join(PATIENCE_SECONDS)
    told = all_told(site)
    assert told.count((1012, "")) == 20
    assert len(told) == 21


@pytest.mark.usefixtures("_reopened")
def test_turn_that_outlives_the_end_of_the_process_is_told_of_the_end_when_it_returns(site: Site) -> None:
    go = threading.Event()

    class View(Teller):
        def received(self, message: str | bytes) -> None:
            super().received(message)
            site.wait_for(go)

    peer = site(View.as_view(site=site), WEBSOCKET_DRAIN_SECONDS=0.1).connect()
    peer.send_message("work")
    assert [site.hear(), site.hear()] == ["opened", "work"]
    shutdown(seconds=0.05)
    assert peer.recv_message() == Close(1012)
    peer.send_close(1012)
    peer.read_to_eof()
    go.set()
    assert all_told(site) == [(1012, "")]


# Context


class Places(WebSocketView):
    """Says its language, its time zone and its URLconf; a message sets the first two."""

    def received(self, message: str | bytes) -> None:
        if message == "?":
            self.send(f"{translation.get_language()} {timezone.get_current_timezone_name()} {get_urlconf()}")
        elif str(message).startswith("off"):
            translation.deactivate()
            timezone.deactivate()
        else:
            language, zone = str(message).split()
            translation.activate(language)
            timezone.activate(zone)


@pytest.fixture
def french() -> Iterator[dict[str, Any]]:
    def change(request: Any) -> None:
        translation.activate(request.GET.get("language", "fr"))
        timezone.activate("Europe/Paris")
        set_urlconf("tests.project.urls")

    with changing(change) as middleware, override_settings(USE_I18N=True, USE_TZ=True):
        yield middleware


def test_turns_run_in_the_context_of_the_opening_and_what_one_activates_holds_for_the_next(
    site: Site, french: dict[str, Any]
) -> None:
    site(Places.as_view(), **french)
    one, other = site.connect(), site.connect("/?language=de")
    for _ in range(2):
        assert exchange(one, "?") == "fr Europe/Paris tests.project.urls"
        assert exchange(other, "?") == "de Europe/Paris tests.project.urls"
    one.send_message("it Asia/Tokyo")
    for _ in range(3):
        assert exchange(one, "?") == "it Asia/Tokyo tests.project.urls"
        assert exchange(other, "?") == "de Europe/Paris tests.project.urls"
    other.send_message("off")
    assert str(exchange(other, "?")).startswith(f"{settings.LANGUAGE_CODE} {settings.TIME_ZONE} ")
    assert exchange(one, "?") == "it Asia/Tokyo tests.project.urls"
    for peer in (one, other):
        assert peer.close() == Close(1000)


def test_context_holds_where_turns_move_from_thread_to_thread(detached_site: Site, french: dict[str, Any]) -> None:
    site, go = detached_site, threading.Event()

    class View(Places):
        def received(self, message: str | bytes) -> None:
            if message == "block":
                site.tell("blocks")
                site.wait_for(go)
            else:
                super().received(message)

    site(View.as_view(), **french)
    one, *blockers = [site.connect() for _ in range(5)]
    one.send_message("it Asia/Tokyo")
    for blocker in blockers:
        blocker.send_message("block")
        assert site.hear() == "blocks"
        assert exchange(one, "?") == "it Asia/Tokyo tests.project.urls"
    go.set()
    for peer in (one, *blockers):
        assert peer.close() == Close(1000)


def test_context_of_the_opening_reaches_closed(site: Site, french: dict[str, Any]) -> None:
    class View(WebSocketView):
        def closed(self, code: int, reason: str) -> None:
            site.tell(translation.get_language())

    assert site(View.as_view(), **french).connect().close() == Close(1000)
    assert site.hear() == "fr"


# Threads, and how many there may be


@pytest.fixture
def few_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A site under threads, whose reactor has had no connection yet."""
    monkeypatch.setattr(thread_reactor, "_reactor", None)
    server = RunServer()
    with serving(server, "detached") as site:
        yield site
    server.stop()


def test_turns_have_no_more_threads_than_the_setting_says(few_threads: Site) -> None:
    site, go = few_threads, threading.Event()
    inside: set[int] = set()

    class View(WebSocketView):
        def received(self, message: str | bytes) -> None:
            inside.add(threading.get_ident())
            site.tell("inside")
            site.wait_for(go)
            self.send("done")

    site(View.as_view(), WEBSOCKET_THREADS=2)
    peers = [site.connect() for _ in range(5)]
    for peer in peers:
        peer.send_message("block")
    assert [site.hear(), site.hear()] == ["inside", "inside"]
    threading.Event().wait(0.1)
    assert site.told.empty()
    go.set()
    for peer in peers:
        assert peer.recv_message() == "done"
        peer.reset()
    assert len(inside) == 2


def test_flood_leaves_room_for_others_where_there_is_one_thread(few_threads: Site) -> None:
    stop = threading.Event()

    class View(Echo):
        def received(self, message: str | bytes) -> None:
            if len(message) < 50:
                super().received(message)

    few_threads(View.as_view(), WEBSOCKET_THREADS=1)
    flooder, other = few_threads.connect(), few_threads.connect()

    def flood() -> None:
        with contextlib.suppress(OSError):
            while not stop.is_set():
                flooder.send_raw(text("x" * 100) * 500)

    thread = threading.Thread(target=flood, daemon=True)
    thread.start()
    try:
        for number in range(20):
            assert exchange(other, str(number)) == str(number)
    finally:
        stop.set()
        thread.join(PATIENCE_SECONDS)
    flooder.reset()
    assert other.close() == Close(1000)


def test_views_that_hold_no_thread_take_no_place_under_threads(
    detached_site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site = detached_site

    class View(WebSocketView):
        def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
            self.parked = "hold" not in request.GET  # type: ignore[misc]
            return super().dispatch(request, *args, **kwargs)

    site(View.as_view(), WEBSOCKET_MAX_CONNECTIONS=2)
    peers = []
    for number in range(2 if site.server.name == "pywsgi" else 5):
        peers.append(site.connect())
        until(lambda number=number: registry._parked == number + 1, "it to be parked")
    if site.server.name != "pywsgi":
        for _ in range(2):
            peers.append(site.connect("/?hold"))
    assert site.handshake("/?hold").status == 503
    for peer in peers:
        assert peer.close() == Close(1000)
        peer.abandon()
    site.until_idle()
    assert registry._parked == 0


# Signals, guards, limits


def test_signals_tell_of_the_opening_and_of_the_end_once_each(site: Site) -> None:
    with recorded(websocket_opened) as opened, recorded(websocket_closed) as closed:
        peer = site(Echo.as_view()).connect()
        assert exchange(peer, "hello") == "hello"
        assert (len(opened), len(closed)) == (1, 0)
        assert peer.close(4001) == Close(4001)
        site.until_idle()
        assert (len(opened), len(closed)) == (1, 1)


def test_signal_of_the_end_comes_behind_closed(site: Site) -> None:
    def receive(**about: Any) -> None:
        site.tell("signal")

    websocket_closed.connect(receive)
    try:
        peer = site(Teller.as_view(site=site)).connect()
        assert peer.close(4001) == Close(4001)
        assert all_told(site) == ["opened", (4001, ""), "signal"]
    finally:
        websocket_closed.disconnect(receive)


def test_guard_closes_a_parked_view(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    may = [True]

    def guard(request: Any) -> bool:
        return may[0]

    peer = site(Teller.as_view(site=site), WEBSOCKET_GUARD=[guard], WEBSOCKET_GUARD_INTERVAL=0.05).connect()
    assert site.hear() == "opened"
    may.clear()
    may.append(False)
    close = peer.recv_message()
    assert isinstance(close, Close)
    assert close.code in (4401, 4403)
    peer.send_close()
    peer.read_to_eof()
    peer.abandon()
    assert all_told(site) == [tuple(close)]


def test_idle_timeout_closes_a_parked_view(site: Site) -> None:
    peer = site(Teller.as_view(site=site), WEBSOCKET_IDLE_TIMEOUT=0.1).connect()
    close = peer.recv_message()
    assert isinstance(close, Close)
    peer.send_close()
    peer.abandon()
    assert all_told(site) == ["opened", tuple(close)]


def test_peer_that_answers_no_ping_ends_a_parked_view(site: Site) -> None:
    peer = site(Teller.as_view(site=site), WEBSOCKET_PING_INTERVAL=0.1, WEBSOCKET_PING_TIMEOUT=0.1).connect()
    assert site.hear() == "opened"
    code, _reason = site.hear()
    assert code in (1006, 1011)
    peer.abandon()


def test_peer_that_does_not_answer_the_close_is_not_waited_for_longer_than_close_timeout(site: Site) -> None:
    class View(Teller):
        def received(self, message: str | bytes) -> None:
            self.close(4002)

    peer = site(View.as_view(site=site), WEBSOCKET_CLOSE_TIMEOUT=0.1).connect()
    peer.send_message("close")
    assert peer.recv_message() == Close(4002)
    assert all_told(site) == ["opened", (4002, "")]


def test_message_that_is_too_big_closes_with_1009(site: Site) -> None:
    peer = site(Teller.as_view(site=site), WEBSOCKET_MAX_MESSAGE_SIZE=10).connect()
    peer.send_message("x" * 11)
    close = peer.recv_message()
    assert isinstance(close, Close)
    assert close.code == 1009
    peer.send_close()
    peer.abandon()
    assert all_told(site) == ["opened", tuple(close)]


# Streaming, and classes with their own wait()


class Streaming(Echo):
    websocket_options = {"streaming": True}  # noqa: RUF012


def test_view_with_streaming_gets_whole_messages_however_slowly_their_parts_come(site: Site) -> None:
    peer = site(Streaming.as_view()).connect()
    assert exchange(peer, "whole") == "whole"
    for message in (b"x" * 300_000, "y" * 300_000, b""):
        data = message.encode() if isinstance(message, str) else message
        for at in range(0, max(len(data), 1), 100_000):
            opcode = 0 if at else 1 if isinstance(message, str) else BINARY
            peer.send_raw(frame(opcode, data[at : at + 100_000], fin=at + 100_000 >= len(data)))
            threading.Event().wait(0.01)
        assert peer.recv_message() == message
    assert peer.close() == Close(1000)


def test_view_with_streaming_takes_the_next_message_in_chunks(site: Site) -> None:
    class View(Streaming):
        def received(self, message: str | bytes) -> None:
            self.send("".join(map(str, self.websocket.receive_chunks())))

    peer = site(View.as_view()).connect()
    peer.send_message("go")
    peer.send_frame(1, b"one ", fin=False)
    peer.send_frame(0, b"two")
    assert peer.recv_message() == "one two"
    assert peer.close() == Close(1000)


def test_legacy_class_gives_bytes_and_sends_into_the_void(site: Site) -> None:
    peer = site(Teller.as_view(site=site), WEBSOCKET_CLASS="dwebsocket.legacy.WebSocket").connect()
    for number in range(100):
        peer.send_message(str(number))
    assert peer.close(4001) == Close(4001)
    assert all_told(site) == ["opened", *(str(number).encode() for number in range(100)), (4001, "")]


def telling(site: Site, how: str) -> Callable[..., Any]:
    """A Teller, as a class or as a function that stays open."""
    if how == "class":
        return Teller.as_view(site=site)

    @require_websocket
    def view(request):
        site.tell("opened")
        return request.websocket.stay_open(site.tell, lambda *end: site.tell(end))

    return view


class Decoding(WebSocket):
    """What a project makes of it: JSON that it cannot decode is skipped."""

    def wait(self, timeout: float | None = None) -> Any:
        while (message := super().wait(timeout)) is not None:
            with contextlib.suppress(ValueError):
                return json.loads(message)
        return None


class Waiting(WebSocket):
    def wait(self) -> Any:  # type: ignore[override]
        message = super().wait()
        return None if message is None else ["waited for", message]


@pytest.mark.parametrize("how", ["class", "function"])
def test_class_with_its_own_wait_is_asked_for_each_message(site: Site, how: str) -> None:
    site(telling(site, how), WEBSOCKET_CLASS=Decoding)
    peer = site.connect()
    for message in ("[1]", "no JSON", '{"two": 3}', "neither", "4"):
        peer.send_message(message)
    assert peer.close(4001) == Close(4001)
    assert all_told(site) == ["opened", [1], {"two": 3}, 4, (4001, "")]


@pytest.mark.parametrize("how", ["class", "function"])
def test_class_whose_wait_knows_no_timeout_is_not_parked(site: Site, how: str) -> None:
    site(telling(site, how), WEBSOCKET_CLASS=Waiting)
    peer = site.connect()
    assert site.hear() == "opened"
    for message in ("one", "two"):
        peer.send_message(message)
        assert site.hear() == ["waited for", message]
    assert site.server.running
    assert peer.close(4001) == Close(4001)
    assert all_told(site) == [(4001, "")]


# Faults


@pytest.mark.parametrize("when", ["opened", "received"])
def test_turn_that_raises_leaves_the_next_connections_alone(
    site: Site, when: str, caplog: pytest.LogCaptureFixture
) -> None:
    class View(Teller):
        def opened(self) -> None:
            super().opened()
            if when == "opened" and "fail" in self.request.GET:
                raise RuntimeError

        def received(self, message: str | bytes) -> None:
            if message == "fail":
                raise RuntimeError
            self.send(message)

    site(View.as_view(site=site))
    good = site.connect()
    for _ in range(3):
        bad = site.connect("/?fail")
        if when == "received":
            bad.send_message("fail")
        assert_ends(bad, 1011)
        bad.abandon()
        assert exchange(good, "hello") == "hello"
    assert good.close() == Close(1000)
    told = all_told(site)
    assert told.count((1011, "")) == 3
    assert levels(caplog) == [("django.request", "ERROR")] * 3


@pytest.mark.parametrize("kind", ["stop", "other"])
def test_turn_that_is_stopped_ends_its_connection_and_no_other(
    site: Site, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    is_hub = site.server.name == "pywsgi"
    error = (gevent.GreenletExit if is_hub else SystemExit) if kind == "stop" else KeyboardInterrupt

    class View(Teller):
        def received(self, message: str | bytes) -> None:
            if message == "stop":
                raise error
            self.send(message)

    site(View.as_view(site=site))
    good = site.connect()
    for _ in range(3):
        bad = site.connect()
        bad.send_message("stop")
        assert_ends(bad, 1001)
        bad.abandon()
        assert exchange(good, "hello") == "hello"
    assert good.close() == Close(1000)
    assert all_told(site).count((1001, "")) == 3
    if site.mode == "attached":
        site.server.errors.clear()


@pytest.mark.parametrize("wsgi_server", [PyWSGI], indirect=True, ids=["pywsgi"])
def test_greenlet_that_is_killed_in_a_turn_closes_with_1001(detached_site: Site) -> None:
    site = detached_site
    greenlets: list[Any] = []

    class View(Teller):
        def received(self, message: str | bytes) -> None:
            if message == "sleep":
                greenlets.append(gevent.getcurrent())
                site.tell("sleeps")
                site.pause(PATIENCE_SECONDS)
            elif message == "kill":
                greenlets.pop().kill()
                self.send("killed")

    site(View.as_view(site=site))
    victim, killer = site.connect(), site.connect()
    assert [site.hear(), site.hear()] == ["opened", "opened"]
    victim.send_message("sleep")
    assert site.hear() == "sleeps"
    assert exchange(killer, "kill") == "killed"
    assert_ends(victim, 1001)
    assert site.hear() == (1001, "")
    assert killer.close() == Close(1000)


def test_peer_that_vanishes_in_a_turn_is_told_when_the_turn_is_over(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    go = threading.Event()

    class View(Teller):
        def received(self, message: str | bytes) -> None:
            super().received(message)
            site.wait_for(go)

    peer = site(View.as_view(site=site)).connect()
    peer.send_message("work")
    assert [site.hear(), site.hear()] == ["opened", "work"]
    peer.reset()
    go.set()
    ((code, _reason),) = all_told(site)
    assert code == 1006
    assert levels(caplog) == []


def test_message_before_the_end_of_the_stream_is_handed_on(site: Site) -> None:
    peer = site(Teller.as_view(site=site)).connect()
    assert site.hear() == "opened"
    peer.send_raw(text("last words"))
    peer.abandon()
    words, (code, _reason) = all_told(site)
    assert (words, code) == ("last words", 1006)


def test_closed_may_be_slow_and_stops_no_one(site: Site) -> None:
    go = threading.Event()

    class View(Echo):
        def closed(self, code: int, reason: str) -> None:
            site.tell("in closed()")
            site.wait_for(go)
            site.tell("closed")

    site(View.as_view())
    leaving, other = site.connect(), site.connect()
    assert leaving.close() == Close(1000)
    assert site.hear() == "in closed()"
    assert exchange(other, "hello") == "hello"
    go.set()
    assert site.hear() == "closed"
    other.reset()


def test_thread_of_the_project_closes_a_parked_view(site: Site) -> None:
    websockets: list[Any] = []

    class View(Teller):
        def opened(self) -> None:
            websockets.append(self.websocket)
            super().opened()

    peer = site(View.as_view(site=site)).connect()
    assert site.hear() == "opened"
    threading.Thread(target=lambda: websockets[0].close(4005, "from afar")).start()
    assert_ends(peer, 4005, "from afar")
    peer.abandon()
    assert all_told(site) == [(4005, "from afar")]


def test_thread_of_the_project_that_waits_gets_messages_too_and_each_comes_once(site: Site) -> None:
    class View(Teller):
        def opened(self) -> None:
            websocket = self.websocket
            threading.Thread(target=lambda: site.tell(websocket.wait(PATIENCE_SECONDS))).start()

    peer = site(View.as_view(site=site)).connect()
    for message in ("one", "two"):
        peer.send_message(message)
    assert {site.hear(), site.hear()} == {"one", "two"}
    assert peer.close() == Close(1000)
    site.until_idle()
    told = [site.hear()]
    if (1000, "") not in told:
        told.append(site.hear())
    assert (1000, "") in told  # and None, where the thread still waited


def test_every_message_comes_once_and_in_order_and_every_end_once_whatever_happens_meanwhile(
    detached_site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site, room, count = detached_site, new_room(), 24
    told: dict[str, list[Any]] = {str(number): [] for number in range(count)}

    class View(WebSocketView):
        def opened(self) -> None:
            self.name = self.request.GET["name"]
            self.chance = random.Random(self.name)
            self.busy = False
            self.join(room)

        def received(self, message: str | bytes) -> None:
            assert not self.busy
            self.busy = True
            told[self.name].append(message)
            if self.chance.random() < 0.1:
                site.pause(0.001)
            self.send(message)
            if self.chance.random() < 0.05 and (also := self.websocket.wait(0.001)) is not None:
                told[self.name].append(also)
                self.send(also)
            self.busy = False

        def group_message(self, message: Any) -> None:
            self.send(f"group {message.data}")

        def closed(self, code: int, reason: str) -> None:
            told[self.name].append(code)

    def talk(name: str) -> None:
        chance, peer = random.Random(name), site.connect(f"/?name={name}")
        for number in range(60):
            data = text(str(number))
            cut = chance.randrange(len(data)) if chance.random() < 0.3 else 0
            peer.send_raw(data[:cut])
            if chance.random() < 0.3:
                time.sleep(0.001)
            peer.send_raw(data[cut:])
            if chance.random() < 0.1:
                room.send(name)
        if int(name) % 3:
            peer.send_close(4000 + int(name))
            while not isinstance(peer.recv_message(), Close):
                pass
            peer.abandon()
        else:
            while peer.recv_message() != "59":
                pass
            peer.reset()

    site(View.as_view())
    threads = [threading.Thread(target=talk, args=[name]) for name in told]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    site.until_idle()
    for name, said in told.items():
        assert said == [*map(str, range(60)), 4000 + int(name) if int(name) % 3 else 1006]
    assert levels(caplog) == []
    if site.server.name == "runserver":
        pool = thread_reactor.current().pool
        assert pool is not None
        assert len(pool) == 0


def test_view_that_cannot_be_parked_keeps_its_greenlet_or_thread(
    detached_site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site = detached_site
    site(Teller.as_view(site=site))
    parked = mock.Mock()
    parked.begin.side_effect = RuntimeError("can't start new thread")
    with mock.patch.object(viewrun, "Parked", return_value=parked):
        peer = site.connect()
        assert site.hear() == "opened"
        until(lambda: caplog.records, "the log")
    for message in ("one", "two"):
        peer.send_message(message)
        assert site.hear() == message
    assert site.server.running
    assert peer.close(4001) == Close(4001)
    assert all_told(site) == [(4001, "")]
    assert levels(caplog) == [("dwebsocket", "WARNING")]
    assert registry._parked == 0


def test_stay_open_from_a_view_and_from_a_class_count_alike(detached_site: Site) -> None:
    site = detached_site

    @require_websocket
    def view(request):
        return request.websocket.stay_open()

    site(view)
    peers: list[Peer] = [site.connect() for _ in range(5)]
    parked(site)
    assert len(registry) == registry._parked == 5
    for peer in peers:
        assert peer.close() == Close(1000)
        peer.abandon()
    site.until_idle()
    assert registry._parked == 0
