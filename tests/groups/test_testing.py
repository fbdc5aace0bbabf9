"""What tests of a project do with groups: look at what was sent, and let the broker be gone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from django.db import transaction
from django.test import Client, TestCase, override_settings
from django.urls import path

from dwebsocket import Groups, GroupsUnavailable, WebSocketClosed, group, groups_interrupted, require_websocket
from dwebsocket.groups import process
from dwebsocket.groups.backend import Presence
from dwebsocket.test import SentMessage, WebSocketClient, WebSocketRefused, groups_down, sent_to
from tests.groups.backends import PATH
from tests.groups.helpers import members_of, new_room
from tests.helpers import recorded
from tests.links import until

ROOM = group("testing:1")


@require_websocket
def chat(request: Any) -> None:
    websocket = request.websocket
    websocket.join(ROOM)
    websocket.send("joined")
    for message in websocket:
        ROOM.send(message, once=message)


@require_websocket
def refusing(request: Any) -> None:
    ROOM.send("to see whether it is there")


urlpatterns = [path("chat/", chat), path("refusing/", refusing)]


@pytest.fixture
def client() -> Iterator[WebSocketClient]:
    with override_settings(ROOT_URLCONF=__name__):
        yield WebSocketClient()


# sent_to


def test_what_is_sent_inside_is_gathered() -> None:
    ROOM.send("before")
    with sent_to(ROOM) as sent:
        assert sent == []
        ROOM.send("a")
        ROOM.send(b"b")
        group("testing:2").send("to others")
        ROOM.disconnect()
        assert sent == [SentMessage("a", at_commit=False), SentMessage(b"b", at_commit=False)]
        assert sent[0].data == "a"
    ROOM.send("behind")
    assert len(sent) == 2


def test_it_says_what_waited_for_a_commit_and_has_nothing_of_what_was_rolled_back() -> None:
    with sent_to(ROOM) as sent:
        with transaction.atomic():
            ROOM.send("a")
            assert sent == []
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            ROOM.send("b")
            1 / 0  # noqa: B018
    assert sent == [("a", True)]


def test_two_blocks_gather_each_their_own() -> None:
    with sent_to(ROOM) as outer:
        ROOM.send("a")
        with sent_to(ROOM) as inner:
            ROOM.send("b")
        ROOM.send("c")
    assert [message.data for message in outer] == ["a", "b", "c"]
    assert [message.data for message in inner] == ["b"]


@pytest.mark.parametrize("wrong", ["room:7", None, 7, Groups])
def test_group_is_needed(wrong: Any) -> None:
    wrong = Groups("room") if wrong is Groups else wrong
    sentence = rf"sent_to\(\) takes a group, like rooms\[7\], not {type(wrong).__name__}"
    with pytest.raises(TypeError, match=sentence), sent_to(wrong):
        raise AssertionError


def test_what_a_view_sends_is_seen_and_arrives(client: WebSocketClient) -> None:
    with sent_to(ROOM) as sent, client.websocket("/chat/") as websocket:
        assert websocket.receive() == "joined"
        websocket.send("hello")
        assert websocket.receive() == "hello"
    assert sent == [("hello", False)]


# groups_down


def test_send_and_join_fail_while_the_backend_is_down_and_work_again(client: WebSocketClient) -> None:
    with groups_down():
        with pytest.raises(GroupsUnavailable, match="the test says so"):
            ROOM.send("a")
        with client.websocket("/chat/") as websocket, pytest.raises(WebSocketClosed) as closed:
            websocket.receive()
        assert closed.value.close_code == 1013
        with pytest.raises(WebSocketRefused) as refused, client.websocket("/refusing/"):
            raise AssertionError
        assert refused.value.response.status_code == 503
        assert refused.value.response["Retry-After"] == "5"
        with sent_to(ROOM) as sent:
            with pytest.raises(GroupsUnavailable):
                ROOM.send("a")
            with transaction.atomic():
                ROOM.send("is lost, and logged")
        assert sent == []
    with client.websocket("/chat/") as websocket:
        assert websocket.receive() == "joined"
        ROOM.send("hello")
        assert websocket.receive() == "hello"


def test_members_of_before_are_members_again(client: WebSocketClient) -> None:
    with recorded(groups_interrupted) as told, client.websocket("/chat/") as websocket:
        assert websocket.receive() == "joined"
        with groups_down(), pytest.raises(GroupsUnavailable):
            ROOM.send("lost")
        ROOM.send("found")
        assert websocket.receive() == "found"
        until(lambda: told, "the signal")
    assert [one["alias"] for one in told] == ["default"]
    until(lambda: not members_of(ROOM))


def test_every_alias_is_down() -> None:
    other = Groups("elsewhere", alias="other")[1]
    with override_settings(WEBSOCKET_GROUPS={"default": {}, "other": {"BACKEND": PATH}}):
        with groups_down(), pytest.raises(GroupsUnavailable):
            other.send("a")
        other.send("b")
        backend: Any = process.dispatcher("other").backend
        assert len(backend.published) == 1


def test_test_that_fails_inside_leaves_the_backend_up() -> None:
    with pytest.raises(ZeroDivisionError), groups_down():
        1 / 0  # noqa: B018
    new_room().send("a")


def test_nothing_of_the_backend_answers_while_it_is_down() -> None:
    with groups_down():
        down = process.dispatcher("default").backend
        tab = Presence("a", "1", "anna", "{}")
        for call in (
            lambda: down.publish([]),
            lambda: down.read({}),
            lambda: down.clear("a"),
            down.renew,
            lambda: down.attend([tab], []),
            lambda: down.roster("a"),
            lambda: down.count("a"),
            lambda: down.resign(0),
        ):
            with pytest.raises(GroupsUnavailable, match="the backend is down: the test says so"):
                call()
        assert down.source_of("a") == 0
        assert list(down.examine()) == []


def test_history_is_as_it_was_when_the_backend_is_back() -> None:
    room = Groups("kept", history=10)[1]
    position = room.send("a")
    with groups_down(), pytest.raises(GroupsUnavailable):
        room.send("b")
    assert room.position() == position
    room.send("c")
    assert [message.data for message in room.history(since=position)] == ["c"]


def test_every_server_of_an_alias_is_down_and_comes_back(client: WebSocketClient) -> None:
    with override_settings(WEBSOCKET_GROUPS={"default": {"BACKEND": PATH}}):
        backend: Any = process.dispatcher("default").backend
        backend.sources[ROOM.name] = 3
        with client.websocket("/chat/") as websocket:
            assert websocket.receive() == "joined"
            told: list[tuple[str, int]] = []
            dispatcher: Any = process.dispatcher("default")
            with (
                mock.patch.object(dispatcher, "lost", lambda why, source=0: told.append((why, source))),
                mock.patch.object(dispatcher, "restored", lambda source=0: told.append(("restored", source))),
                groups_down(),
            ):
                assert len(told) == 2
            assert sorted(told) == [
                ("restored", 0),
                ("restored", 3),
                ("the test says so", 0),
                ("the test says so", 3),
            ]


# Each test begins anew


def test_second_client_of_a_test_disturbs_no_member_of_the_first(client: WebSocketClient) -> None:
    groups = Groups("testing", history=10)
    backend = process.dispatcher("default").backend
    backend.attend([Presence(ROOM.name, "other:1", "anna", "{}")], [])
    with client.websocket("/chat/") as first:
        assert first.receive() == "joined"
        position = groups[1].send("a")
        with WebSocketClient().websocket("/chat/") as second:
            assert second.receive() == "joined"
            assert groups[1].position() == position
            assert backend.count(ROOM.name).users == 1
            assert first.receive() == "a"
            groups[1].send("b")
            assert first.receive() == second.receive() == "b"
    until(lambda: not members_of(ROOM))
    WebSocketClient()
    assert groups[1].history() == []
    assert backend.count(ROOM.name).users == 0


class OfOneTest(TestCase):
    """Each test has its client, and with it sends with `once` as if it were the first."""

    client_class = WebSocketClient

    def send_twice(self) -> None:
        with override_settings(ROOT_URLCONF=__name__), self.client.websocket("/chat/") as websocket:
            assert websocket.receive() == "joined"
            for message in ("the same", "the same", "other"):
                websocket.send(message)
            assert [websocket.receive(), websocket.receive()] == ["the same", "other"]

    def test_one(self) -> None:
        self.send_twice()

    def test_two(self) -> None:
        self.send_twice()


def test_ordinary_client_knows_no_groups() -> None:
    assert not hasattr(Client(), "websocket")
