"""A backend that does not answer, seen by the views and their clients."""

from __future__ import annotations

import threading
from typing import Any
from unittest import mock

import pytest

from dwebsocket import (
    Gap,
    GroupMessage,
    GroupsUnavailable,
    WebSocketClosed,
    groups_interrupted,
    require_websocket,
)
from dwebsocket.groups import process
from tests.groups.backends import SETTING, ObedientGroups
from tests.groups.helpers import joined, joining, leave, members_of, new_room, quiet
from tests.helpers import levels, recorded
from tests.links import assert_ends, until
from tests.sites import Site


@pytest.fixture
def backend(site: Site) -> ObedientGroups:
    """The one backend of the site."""
    site(WEBSOCKET_GROUPS=SETTING)
    backend = process.dispatcher("default").backend
    assert isinstance(backend, ObedientGroups)
    return backend


def test_join_returns_when_the_backend_has_confirmed(site: Site, backend: ObedientGroups) -> None:
    room, backend.confirms = new_room(), False
    site(joining(room))
    peers = [site.connect() for _ in range(2)]
    until(lambda: members_of(room) == 2, "both to wait")
    backend.confirm()
    for peer in peers:
        assert peer.recv_message() == "joined"
    room.send("hello")
    for peer in peers:
        assert peer.recv_message() == "hello"
    leave(*peers)
    until(lambda: room.name not in backend.watched)


def test_view_that_does_not_handle_the_silence_closes_with_1013(
    site: Site, backend: ObedientGroups, caplog: pytest.LogCaptureFixture
) -> None:
    room, backend.confirms = new_room(), False
    assert_ends(site(joining(room, timeout=0.01)).connect(), 1013, "Service Unavailable")
    site.until_idle()
    assert members_of(room) == 0
    assert room.name not in backend.watched
    assert [entry for entry in levels(caplog) if entry[1] == "ERROR"] == [("django.request", "ERROR")]


def test_view_that_finds_it_out_before_the_101_answers_503(
    site: Site, backend: ObedientGroups, caplog: pytest.LogCaptureFixture
) -> None:
    room = new_room()
    backend.is_lost = True

    @require_websocket
    def view(request: Any) -> None:
        room.send("to see whether the broker is there")

    response = site(view).handshake()
    assert (response.status, response.headers["retry-after"]) == (503, "5")
    assert levels(caplog) == [("django.request", "WARNING")]


def test_view_may_handle_the_silence_and_say_how_long_it_waits(site: Site, backend: ObedientGroups) -> None:
    room, backend.confirms = new_room(), False

    @require_websocket
    def view(request: Any) -> None:
        with pytest.raises(GroupsUnavailable, match=rf"not confirmed the group '{room.name}' within 0.01 seconds"):
            request.websocket.join(room, timeout=0.01)
        site.tell(request.websocket.groups)
        backend.confirm()
        request.websocket.join(room)
        request.websocket.send("joined")
        request.websocket.wait()

    [peer] = joined(site(view))
    assert site.hear() == frozenset()
    room.send("hello")
    quiet(peer, "hello")


def test_setting_says_how_long_join_waits(site: Site) -> None:
    room = new_room()

    @require_websocket
    def view(request: Any) -> None:
        with pytest.raises(GroupsUnavailable, match=r"within 0\.02 seconds"):
            request.websocket.join(room)
        request.websocket.send("still here")

    site(view, WEBSOCKET_GROUPS={"default": {**SETTING["default"], "JOIN_TIMEOUT": 0.02}})
    backend: Any = process.dispatcher("default").backend
    backend.confirms = False
    assert site.connect().recv_message() == "still here"


@pytest.mark.parametrize("has_others", [True, False])
def test_connection_that_ends_during_join_is_closed_and_in_no_group(
    site: Site, backend: ObedientGroups, has_others: bool
) -> None:
    """A view that joins a group alone hears of the end at once; else when its time is over, or at the confirmation."""
    room, backend.confirms = new_room(), False

    @require_websocket
    def view(request: Any) -> None:
        websocket = request.websocket
        try:
            websocket.join(room, timeout=60)
        except WebSocketClosed as error:
            site.tell((error.close_code, error.websocket is websocket, websocket.groups))

    peer = site(view).connect()
    until(lambda: members_of(room), "the join")
    if has_others:
        process.dispatcher("default").listen(room.name, lambda envelope: None)
    leave(peer, code=4001)
    until(lambda: members_of(room) == has_others, "the end of the membership")
    if has_others:
        backend.confirm()
    assert site.hear() == (4001, True, frozenset())
    assert members_of(room) == has_others


def test_end_that_comes_while_a_thread_joins_leaves_no_name(site: Site, backend: ObedientGroups) -> None:
    one, two = new_room(), new_room()

    @require_websocket
    def view(request: Any) -> None:
        websocket = request.websocket
        websocket.join(one)
        watch = backend.watch

        def end_and_watch(add: Any, drop: Any) -> None:
            if two.name in add:
                websocket._opening.members()()
            watch(add, drop)

        with mock.patch.object(backend, "watch", end_and_watch), pytest.raises(WebSocketClosed):
            websocket.join(two)
        site.tell(websocket.groups)

    peer = site(view).connect()
    assert site.hear() == frozenset()
    until(lambda: not members_of(one) and not members_of(two), "both to be left")
    leave(peer)


def test_outage_is_a_gap_for_the_view_and_a_signal_for_the_process(site: Site, backend: ObedientGroups) -> None:
    room, other = new_room(), new_room()

    @require_websocket
    def view(request: Any) -> None:
        websocket = request.websocket
        websocket.join(room, forward=False)
        websocket.join(other)
        websocket.send("joined")
        for event in websocket.events():
            site.tell(event)

    with recorded(groups_interrupted) as told:
        [peer] = joined(site(view))
        backend.lose()
        with pytest.raises(GroupsUnavailable):
            room.send("lost")
        backend.restore()
        assert site.hear() == Gap(room.name)
        room.send("found")
        assert site.hear() == GroupMessage(room.name, "found")
        until(lambda: told, "the signal")
        leave(peer)
        site.until_idle()
    assert [(one["alias"], one["sender"]) for one in told] == [("default", None)]
    assert 0 <= told[0]["seconds"] < 10


def test_receiver_of_the_signal_that_fails_stops_nothing(site: Site, backend: ObedientGroups) -> None:
    room, called = new_room(), threading.Event()

    def fail(**about: Any) -> None:
        called.set()
        raise LookupError("of a receiver")

    groups_interrupted.connect(fail)
    try:
        [peer] = joined(site(joining(room)))
        backend.lose()
        backend.restore()
        assert called.wait(10)
        room.send("hello")
        quiet(peer, "hello")
    finally:
        groups_interrupted.disconnect(fail)


def test_join_during_an_outage_waits_for_its_end(site: Site, backend: ObedientGroups) -> None:
    room = new_room()
    [peer] = joined(site(joining(room)))
    backend.lose()
    late = site.connect()
    until(lambda: members_of(room) == 2, "the second join")
    backend.restore()
    assert late.recv_message() == "joined"
    room.send("hello")
    assert (peer.recv_message(), late.recv_message()) == ("hello", "hello")
    leave(peer, late)


def test_member_stays_one_when_its_second_join_is_not_confirmed(site: Site, backend: ObedientGroups) -> None:
    room = new_room()

    @require_websocket
    def view(request: Any) -> None:
        websocket = request.websocket
        websocket.join(room)
        backend.lose()
        with pytest.raises(GroupsUnavailable):
            websocket.join(room, timeout=0.01)
        site.tell(websocket.groups)
        backend.restore()
        websocket.send("joined")
        websocket.wait()

    [peer] = joined(site(view))
    assert site.hear() == {room.name}
    room.send("hello")
    quiet(peer, "hello")
