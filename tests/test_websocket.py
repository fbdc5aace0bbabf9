"""The class of `request.websocket`: what a project may subclass."""

from __future__ import annotations

from typing import Any

import pytest

from dwebsocket import Groups, GroupsUnavailable, WebSocket, group, require_websocket
from dwebsocket.connection.verbs import Verbs
from dwebsocket.groups import process
from tests.groups.backends import SETTING, ObedientGroups
from tests.sites import Site


class Shouting(WebSocket):
    """What a project makes of it."""

    def send(self, message: Any) -> None:
        super().send(message.upper())


def test_view_gets_a_websocket_with_every_verb(site: Site) -> None:
    @require_websocket
    def view(request):
        request.websocket.send(f"{type(request.websocket) is WebSocket} {isinstance(request.websocket, Verbs)}")

    assert site(view).connect().recv_message() == "True True"


def test_view_gets_the_class_of_the_project(site: Site) -> None:
    @require_websocket
    def view(request):
        request.websocket.send("hello")

    assert site(view, WEBSOCKET_CLASS=f"{__name__}.Shouting").connect().recv_message() == "HELLO"


@pytest.mark.parametrize("verb", ["join", "leave"])
@pytest.mark.parametrize(
    ("group", "says"),
    [
        ("room:7", "'room:7' is a str: write group('room:7'), or rooms[key] of the Groups that you have declared"),
        (Groups("a-whole"), "not Groups: take one of them, as in rooms[7]"),
        (7, "a group is made by Groups[key], group() or user_group(), not int"),
    ],
    ids=str,
)
def test_value_that_is_no_group_is_a_type_error_that_says_what_to_write(
    site: Site, group: Any, verb: str, says: str
) -> None:
    @require_websocket
    def view(request):
        with pytest.raises(TypeError) as caught:
            getattr(request.websocket, verb)(group)
        request.websocket.send(f"{request.websocket.groups} {caught.value}")

    answer = site(view).connect().recv_message()
    assert answer.startswith("frozenset() ")
    assert answer.endswith(says)


def test_join_that_the_backend_does_not_confirm_says_why(site: Site) -> None:
    @require_websocket
    def view(request):
        process.dispatcher("default")
        for lose in (False, True):
            if lose:
                ObedientGroups.made[-1].lose()
            else:
                ObedientGroups.made[-1].confirms = False
            with pytest.raises(GroupsUnavailable) as caught:
                request.websocket.join(group("room:7"), timeout=0.01)
            request.websocket.send(str(caught.value))

    peer = site(view, WEBSOCKET_GROUPS=SETTING).connect()
    said = "the backend of WEBSOCKET_GROUPS['default'] has not confirmed the group 'room:7' within 0.01 seconds"
    assert peer.recv_message() == said
    assert peer.recv_message() == f"{said}: the test says so"
