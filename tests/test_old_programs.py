"""Programs that were written for dwebsocket 0.5, run with `dwebsocket.legacy.WebSocket`.

Each test does what the program's page does: it sends text, looks at what comes, and leaves. Then the view ends, or,
where it did not in 0.5 either, the log tells of it.
"""

from __future__ import annotations

import json
import time
import types
from collections.abc import Iterator
from unittest import mock

import pytest
from django.urls import path

from dwebsocket.process import overstay
from tests.links import until
from tests.old_programs import chats, machines
from tests.peer import Close, Peer
from tests.sites import Site

URLS = [
    path("online/<user>/", chats.online),
    path("push/", chats.push),
    path("notifications/<user>/", chats.notifications),
    path("robot/", chats.robot),
    path("blog/", chats.blog),
    path("alchemy/", chats.alchemy),
    path("chat-room/", chats.chat_room),
    path("heartbeat/<user>/", chats.heartbeat),
    path("class-room/", chats.class_room),
    path("echo/", chats.echo),
    path("friends/", chats.friends),
    path("console/", machines.console),
    path("shell/", machines.shell),
    path("shell-tail/", machines.shell_tail),
    path("drone/", machines.drone),
    path("drone-map/", machines.drone_map),
    path("device/<number>/", machines.device),
    path("watcher/<number>/", machines.watcher),
    path("polling-shell/", machines.polling_shell),
    path("clock/", machines.clock),
    path("log-tail/", machines.log_tail),
    path("while-not-closed/", machines.while_not_closed),
    path("over-messages/", machines.over_messages),
    path("has-messages/", machines.has_messages),
]


#: What the programs keep in their modules.
KEPT = (
    *(chats.OnlineUsers, chats.clients, chats.room, chats.queues, chats.pupils, chats.everybody),
    *(machines.consoles, machines.devices, machines.watchers),
)


class Stopped(Exception):
    """The test is over, and a view that never ends by itself with it."""


@pytest.fixture
def old(site: Site, caplog: pytest.LogCaptureFixture) -> Iterator[Site]:
    """The old programs; in the end all their views have ended, and the log is empty."""
    for kept in KEPT:
        kept.clear()
    clock = types.SimpleNamespace(sleep=site.pause, time=time.time, strftime=time.strftime)
    with mock.patch.object(chats, "time", clock), mock.patch.object(machines, "time", clock):
        yield site(*URLS, WEBSOCKET_CLASS="dwebsocket.legacy.WebSocket")
        site.until_idle()
    assert caplog.records == []


@pytest.fixture
def leaking(site: Site) -> Iterator[Site]:
    """The same, for views that never end; they are stopped behind the test."""
    stopped = False

    def sleep(seconds: float) -> None:
        if stopped:
            raise Stopped
        site.pause(seconds)

    clock = types.SimpleNamespace(sleep=sleep, time=time.time, strftime=time.strftime)
    with mock.patch.object(machines, "time", clock), mock.patch.object(overstay, "OVERSTAY_SECONDS", 0.1):
        yield site(*URLS, WEBSOCKET_CLASS="dwebsocket.legacy.WebSocket", WEBSOCKET_CLOSE_TIMEOUT=0.1)
        stopped = True
        site.until_idle()


def ask(peer: Peer, *lines: str) -> list[str]:
    """What comes back for each line, always text."""
    answers = []
    for line in lines:
        peer.send_message(line)
        answers.append(hear(peer))
    return answers


def hear(peer: Peer) -> str:
    message = peer.recv_message()
    assert isinstance(message, str), message
    return message


def leave(peer: Peer) -> None:
    peer.close(1001)
    peer.abandon()


def test_chat_with_push_over_http_pushes_to_those_who_left_too(old: Site) -> None:
    anna, ben = old.connect("/online/anna/"), old.connect("/online/ben/")
    assert ask(anna, "hello") == ["hello"]
    assert ask(ben, "hello") == ["hello"]
    assert old.get("/push/").body == b"pushed to 2"
    assert [json.loads(hear(peer)) for peer in (anna, ben)] == [{"to": "anna"}, {"to": "ben"}]
    leave(anna)
    assert old.get("/push/").body == b"pushed to 2"
    assert json.loads(hear(ben)) == {"to": "ben"}
    leave(ben)
    assert old.get("/online/anna/").body == b"the page"


def test_notifications_reach_every_tab_of_a_user(old: Site) -> None:
    first, second = old.connect("/notifications/anna/"), old.connect("/notifications/anna/")
    until(lambda: len(chats.clients["anna"]) == 2)
    assert ask(first, "one") == ["one"]
    assert hear(second) == "one"
    leave(first)
    until(lambda: len(chats.clients["anna"]) == 1)
    assert ask(second, "two") == ["two"]
    leave(second)
    old.until_idle()
    assert chats.clients["anna"] == {}


def test_customer_service_answers(old: Site) -> None:
    with old.connect("/robot/") as peer:
        assert ask(peer, "opening hours", "Grüße") == ["nine to five", "pardon?"]
        leave(peer)


def test_console_of_a_game_server(old: Site) -> None:
    with old.connect("/console/") as peer:
        (server,) = until(lambda: machines.consoles)
        server.sendall(b"welcome")
        assert hear(peer) == "welcome"
        peer.send_message("status")
        assert server.recv(100) == b"status"
        leave(peer)
        assert server.recv(100) == b""
        server.close()


def test_shell_with_a_thread_that_sends(old: Site) -> None:
    with old.connect("/shell/") as peer:
        assert ask(peer, "ls", "pwd") == ["ls\n", "pwd\n"]
        leave(peer)


def test_tail_beside_the_shell_ends(old: Site) -> None:
    with old.connect("/shell-tail/") as peer:
        assert [hear(peer), hear(peer)] == ["line one\n", "line two\n"]
        leave(peer)


def test_drone_tells_where_it_is(old: Site) -> None:
    with old.connect("/drone/") as peer:
        peer.send_message('{"lat": 7}')
        until(lambda: machines.position["lat"] == 7)
        leave(peer)


def test_blog_ends(old: Site) -> None:
    with old.connect("/blog/") as peer:
        assert ask(peer, "one", "two") == ["read: one", "read: two"]
        leave(peer)


def test_game_adds_a_method_to_the_class(old: Site) -> None:
    chats.add_send_data()
    try:
        with old.connect("/alchemy/") as peer:
            peer.send_message("fire")
            assert json.loads(hear(peer)) == {"kind": "mixed", "of": ["fire"]}
            leave(peer)
        old.until_idle()
    finally:
        del chats.WebSocket.send_data  # type: ignore[attr-defined]


def test_chat_room_of_requests(old: Site) -> None:
    one, other = old.connect("/chat-room/"), old.connect("/chat-room/")
    until(lambda: len(chats.room) == 2)
    assert ask(one, "hello") == ["hello"]
    assert hear(other) == "hello"
    leave(one)
    until(lambda: len(chats.room) == 1)
    assert ask(other, "alone") == ["alone"]
    leave(other)


def test_diagnostics_relay_both_ways(old: Site) -> None:
    device, watcher = old.connect("/device/7/"), old.connect("/watcher/7/")
    until(lambda: machines.devices and machines.watchers)
    watcher.send_message("do self-test")
    assert hear(device) == "self-test"
    device.send_message("ok")
    assert hear(watcher) == "device: ok"
    leave(device)
    leave(watcher)


def test_shell_that_polls(old: Site) -> None:
    with old.connect("/polling-shell/") as peer:
        assert hear(peer) == "$ "
        assert ask(peer, "ls") == ["you typed ls"]
        leave(peer)


def test_heartbeat_and_queue(old: Site) -> None:
    with old.connect("/heartbeat/anna/") as peer:
        assert ask(peer, "ping") == ["pong"]
        chats.queues["anna"].append("news")
        assert hear(peer) == "news"
        leave(peer)


def test_class_room(old: Site) -> None:
    with old.connect("/class-room/") as peer:
        assert ask(peer, '{"text": "hello"}') == ['{"said": "hello"}']
        leave(peer)
    old.until_idle()
    assert chats.pupils == set()


def test_echo_to_everybody(old: Site) -> None:
    with old.connect("/echo/") as peer:
        assert ask(peer, "hello") == ["somebody said hello"]
        leave(peer)
    old.until_idle()
    assert chats.everybody == []


def test_requests_for_friendship(old: Site) -> None:
    with old.connect("/friends/") as peer:
        assert ask(peer, '{"friend": "anna"}', '{"friend": "x"}') == ['{"state": "asked"}', '{"state": "unknown"}']
        leave(peer)


@pytest.mark.parametrize(("page", "sends"), [("log-tail", "line 1"), ("while-not-closed", "tick")])
def test_small_view_that_pushes_ends(old: Site, page: str, sends: str) -> None:
    with old.connect(f"/{page}/") as peer:
        assert hear(peer) == sends
        leave(peer)


def test_small_view_that_loops_over_messages_ends(old: Site) -> None:
    with old.connect("/over-messages/") as peer:
        assert ask(peer, "one", "two") == ["one", "two"]
        leave(peer)


@pytest.mark.parametrize(
    ("page", "begins"), [("clock", None), ("drone-map", '{"lat": '), ("has-messages", "one")], ids=str
)
def test_view_that_never_ended_is_named_in_the_log(
    leaking: Site, page: str, begins: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    with leaking.connect(f"/{page}/") as peer:
        if page == "has-messages":
            peer.send_message("one")
        message = hear(peer)
        assert message.startswith(begins) if begins else len(message) == len("12:00:00")
        peer.abandon()
        record = until(lambda: [record for record in caplog.records if "still runs" in record.getMessage()])[0]
    assert f"the view at '/{page}/' still runs" in record.getMessage()


def test_server_tells_a_page_that_leaves_without_a_word(old: Site) -> None:
    with old.connect("/blog/") as peer:
        peer.half_close()
        assert peer.read_to_eof() == b""


def test_page_is_closed_with_1000_where_the_view_ends_first(old: Site) -> None:
    with old.connect("/echo/") as peer:
        peer.send_message("")  # `str(b"", "utf-8")` is no end
        assert hear(peer) == "somebody said "
        assert peer.close() == Close(1000)
