"""Who is present in a group: what a project asks, what pages are told, and what a signal says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from django.test import override_settings

from dwebsocket import (
    GroupMessage,
    Groups,
    GroupsUnavailable,
    Member,
    PresenceDisabled,
    envelope,
    group_presence_changed,
    is_online,
    require_websocket,
    user_group,
)
from dwebsocket.groups import page, process
from dwebsocket.groups.group import Group
from tests.groups.helpers import joining, kept_room, leave, new_room, quiet
from tests.links import until
from tests.peer import Close, Peer
from tests.sites import Site

NO_GRACE = {"default": {"GRACE": 0}}


@pytest.fixture(autouse=True)
def no_grace() -> Iterator[None]:
    """Before the site: what it serves with is undone first."""
    with override_settings(WEBSOCKET_GROUPS=NO_GRACE):
        yield


@pytest.fixture
def room() -> Group:
    return presence_of(new_room())


def presence_of(room: Group) -> Group:
    rooms = Groups("attended", presence=True)
    return rooms[room.name.partition(":")[2]]


def attending(room: Group, **options: Any) -> Callable[..., None]:
    """A view whose page says in the URL who it is, and as which user."""

    @require_websocket
    def view(request: Any) -> None:
        name, pk = request.GET["name"], request.GET.get("user")
        if pk is not None:
            request.user = SimpleNamespace(pk=int(pk), is_authenticated=True)
        request.websocket.join(room, presence={"name": name}, **options)
        request.websocket.send("joined")
        for message in request.websocket:
            room.send(message)

    return view


def enter(site: Site, name: str, user: int | None = None) -> Peer:
    peer = site.connect(f"/?name={name}" + (f"&user={user}" if user is not None else ""))
    assert peer.recv_message() == "joined"
    return peer


def names(members: list[dict[str, Any]]) -> list[str]:
    return sorted(member["info"]["name"] for member in members)


@contextmanager
def changes() -> Iterator[list[tuple[str, list[str], list[str]]]]:
    told: list[tuple[str, list[str], list[str]]] = []

    def receiver(*, group: str, alias: str, joined: list[Member], left: list[Member], **about: Any) -> None:
        assert alias == "default"
        told.append((group, [one.info["name"] for one in joined], [one.info["name"] for one in left]))

    group_presence_changed.connect(receiver)
    try:
        yield told
    finally:
        group_presence_changed.disconnect(receiver)


# What a project asks


def test_members_are_users_and_guests_and_tabs_of_a_user_are_one(site: Site, room: Group) -> None:
    site(attending(room))
    peers = [enter(site, "ada", 1), enter(site, "ada-again", 1), enter(site, "guest"), enter(site, "guest")]
    assert room.members() == [
        Member("1", {"name": "ada-again"}, 2),
        Member(None, {"name": "guest"}, 1),
        Member(None, {"name": "guest"}, 1),
    ]
    assert (room.count(), room.count(users=True)) == (4, 3)
    leave(*peers[1:])
    until(lambda: room.count() == 1)
    assert [member.sockets for member in room.members()] == [1]
    leave(peers[0])
    until(lambda: room.members() == [])


def test_leave_ends_the_presence_at_once_and_a_second_join_changes_the_info(site: Site, room: Group) -> None:
    @require_websocket
    def view(request: Any) -> None:
        websocket = request.websocket
        for name in websocket:
            if name:
                websocket.join(room, presence={"name": name})
            else:
                websocket.leave(room)
            websocket.send("done")

    peer = site(view).connect()
    for name in ("one", "two"):
        peer.send_message(name)
        assert peer.recv_message() == "done"
        assert [member.info for member in room.members()] == [{"name": name}]
    peer.send_message("")
    assert peer.recv_message() == "done"
    until(lambda: room.members() == [])
    leave(peer)


def test_page_is_told_that_it_has_joined_once_it_is_present(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    room = kept_room(presence=True)

    def attend(*presences: Any) -> Any:
        raise GroupsUnavailable("it does not answer")

    monkeypatch.setattr(process.dispatcher(room.alias).backend, "attend", attend)
    peer = site(joining(room, presence=True, forward=envelope)).connect()
    assert peer.recv_message() == Close(1013, "Service Unavailable")
    peer.abandon()


def test_member_that_joins_without_presence_is_not_there(site: Site, room: Group) -> None:
    @require_websocket
    def view(request: Any) -> None:
        request.websocket.join(room)
        request.websocket.send("joined")
        request.websocket.wait()

    peer = site(view).connect()
    assert peer.recv_message() == "joined"
    assert (room.members(), room.count()) == ([], 0)
    leave(peer)


def test_groups_without_presence_say_so(site: Site) -> None:
    room = new_room()

    @require_websocket
    def view(request: Any) -> None:
        for options in ({"presence": True}, {"roster": True}):
            with pytest.raises(PresenceDisabled, match=r"declare it with Groups\(…, presence=True\)"):
                request.websocket.join(room, **options)
        site.tell(request.websocket.groups)

    site(view).connect().abandon()
    assert site.hear() == frozenset()
    for question in (room.members, room.count):
        with pytest.raises(PresenceDisabled):
            question()


@pytest.mark.parametrize("presence", [{"name": "x" * 1100}, {"name": object()}, float("nan"), False])
def test_what_the_others_cannot_see_is_refused_before_anything_is_joined(
    site: Site, room: Group, presence: Any
) -> None:
    @require_websocket
    def view(request: Any) -> None:
        with pytest.raises((TypeError, ValueError), match=r"^presence is|^presence has"):
            request.websocket.join(room, presence=presence)
        site.tell(request.websocket.groups)

    site(view).connect().abandon()
    assert site.hear() == frozenset()


def test_user_is_online_while_a_tab_has_joined_the_own_group(site: Site) -> None:
    @require_websocket
    def view(request: Any) -> None:
        request.websocket.join(user_group(7))
        request.websocket.send("joined")
        request.websocket.wait()

    assert not is_online(7)
    peer = site(view).connect()
    assert peer.recv_message() == "joined"
    assert is_online(7)
    assert not is_online(8)
    leave(peer)
    until(lambda: not is_online(7))


def test_user_that_comes_back_within_the_grace_was_never_away(site: Site) -> None:
    with changes() as told:
        room = presence_of(new_room())
        site(attending(room), WEBSOCKET_GROUPS={"default": {"GRACE": 60}})
        leave(enter(site, "ada", 1))
        again = enter(site, "ada", 1)
        assert [member.info for member in room.members()] == [{"name": "ada"}]
        until(lambda: told == [(room.name, ["ada"], [])])
        leave(again)
        guest = enter(site, "guest")
        leave(guest)
        until(lambda: len(told) == 3)
        assert told[1:] == [(room.name, ["guest"], []), (room.name, [], ["guest"])]


# What pages are told


def test_page_gets_a_snapshot_and_then_the_changes(site: Site, room: Group) -> None:
    site(attending(room, roster=True))
    ada = site.connect("/?name=ada&user=1")
    here = json.loads(ada.recv_message())
    assert (here["g"], names(here["here"])) == (room.name, ["ada"])
    assert ada.recv_message() == "joined"
    ben = site.connect("/?name=ben")
    assert names(json.loads(ben.recv_message())["here"]) in (["ada"], ["ada", "ben"])
    change = json.loads(ada.recv_message())
    assert (names(change["came"]), change["went"]) == (["ben"], [])
    leave(ben)
    gone = json.loads(ada.recv_message())
    assert (gone["came"], gone["went"]) == ([], [change["came"][0]["id"]])
    leave(ada)


def test_view_gets_the_roster_as_messages(site: Site, room: Group) -> None:
    @require_websocket
    def view(request: Any) -> None:
        request.websocket.join(room, presence={"name": "ada"}, forward=False, roster=True)
        for event in request.websocket.events():
            site.tell(event)

    peer = site(view).connect()
    event = site.hear()
    assert isinstance(event, GroupMessage)
    assert names(event.json()["here"]) == ["ada"]
    leave(peer)


def test_many_are_a_number(site: Site, room: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MAX_NAMED", 2)
    site(attending(room))
    peers = [enter(site, f"guest-{number}") for number in range(3)]

    @require_websocket
    def view(request: Any) -> None:
        request.websocket.join(room, roster=True)
        request.websocket.wait()

    watcher = site(view).connect()
    assert json.loads(watcher.recv_message()) == {"g": room.name, "count": 3}
    leave(peers.pop())
    assert len(json.loads(watcher.recv_message())["here"]) == 2
    leave(watcher, *peers)


def test_roster_and_messages_of_one_group_are_told_apart_by_their_keys(site: Site, room: Group) -> None:
    site(attending(room, roster=True, forward=envelope))
    peer = site.connect("/?name=ada&user=1")
    assert "here" in json.loads(peer.recv_message())
    assert peer.recv_message() == "joined"
    peer.send_message("hello")
    assert json.loads(peer.recv_message()) == {"g": room.name, "p": None, "d": "hello"}
    leave(peer)


def test_signal_tells_of_users_not_of_tabs(site: Site, room: Group) -> None:
    site(attending(room))
    with changes() as told:
        peers = [enter(site, "ada", 1), enter(site, "ada", 1)]
        leave(*peers)
        until(lambda: told == [(room.name, ["ada"], []), (room.name, [], ["ada"])])


def test_receiver_that_waits_holds_no_view_up(site: Site, room: Group) -> None:
    go_on = threading.Event()

    def receiver(**about: Any) -> None:
        assert go_on.wait(20)

    group_presence_changed.connect(receiver)
    try:
        site(attending(room))
        leave(enter(site, "ada"), enter(site, "ben"))
    finally:
        go_on.set()
        group_presence_changed.disconnect(receiver)


class SlowUser:
    """A user that is looked up while the connection ends, or another thread leaves."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        self.meanwhile = meanwhile

    @property
    def pk(self) -> int:
        self.meanwhile()
        return 1


def test_member_whose_connection_ends_while_it_is_about_to_be_present_is_not(site: Site, room: Group) -> None:
    @require_websocket
    def view(request: Any) -> None:
        websocket = request.websocket
        websocket.accept()

        def end() -> None:
            peer.reset()
            until(lambda: websocket.closed)

        request.user = SlowUser(end)
        try:
            websocket.join(room, presence=True)
        finally:
            site.tell("over")

    peer = site(view).connect()
    assert site.hear() == "over"
    until(lambda: room.members() == [])


def test_member_that_leaves_while_it_is_about_to_be_present_is_not(site: Site, room: Group) -> None:
    @require_websocket
    def view(request: Any) -> None:
        websocket = request.websocket
        request.user = SlowUser(lambda: websocket.leave(room))
        websocket.join(room, presence=True)
        websocket.send("done")
        websocket.wait()

    peer = site(view).connect()
    assert peer.recv_message() == "done"
    until(lambda: room.members() == [])
    quiet(peer)
