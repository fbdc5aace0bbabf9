"""Members that are present, as a project sees them."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from typing import ClassVar

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.test import override_settings

from dwebsocket import Groups, GroupsUnavailable, Member, PresenceDisabled, group, is_online, user_group
from dwebsocket.groups.backend import Count, GroupsBackend, Present, Roster
from dwebsocket.groups.presence.members import MAX_INFO_BYTES, checked_info, key_of, member_of


@pytest.mark.parametrize(
    ("user", "key"),
    [("7", "u7"), ("a-b", "ua-b"), (None, "snode:1")],
)
def test_user_is_one_member_and_each_websocket_of_a_guest_is_another(user: str | None, key: str) -> None:
    assert key_of(user, "node:1") == key


def test_member_has_the_primary_key_and_the_info() -> None:
    assert member_of(Present("u7", '{"name":"Anne"}', 2)) == Member("7", {"name": "Anne"}, 2)
    assert member_of(Present("snode:1", "null", 1)) == Member(None, None, 1)


@pytest.mark.parametrize(
    ("presence", "text"),
    [
        (True, "null"),
        ({"name": "Zoë"}, '{"name":"Zoë"}'),
        ("", '""'),
        (0, "0"),
        ({"since": datetime.date(2026, 1, 2)}, '{"since":"2026-01-02"}'),
        ("ä" * ((MAX_INFO_BYTES - 2) // 2), f'"{"ä" * ((MAX_INFO_BYTES - 2) // 2)}"'),
        ("a\0b", '"a\\u0000b"'),
    ],
)
def test_info_is_json_as_django_has_it(presence: object, text: str) -> None:
    assert checked_info(presence) == text


def recursive() -> list[object]:
    circle: list[object] = []
    circle.append(circle)
    return circle


@pytest.mark.parametrize(
    ("presence", "error", "sentence"),
    [
        (False, TypeError, "or True, not False"),
        (None, TypeError, "or True, not None"),
        ({"user": object()}, TypeError, "that JSON can hold: Object of type object"),
        (float("nan"), ValueError, "that JSON can hold: Out of range"),
        (recursive(), ValueError, "that JSON can hold: Circular"),
        ("\ud800", ValueError, "no text"),
        ("x" * (MAX_INFO_BYTES - 1), ValueError, "at most 1024 bytes as JSON, not 1025"),
    ],
    ids=["False", "None", "object", "NaN", "circle", "surrogate", "long"],
)
def test_info_that_is_none_says_so(presence: object, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        checked_info(presence)


# Asking a group


class Attended(GroupsBackend):
    """A backend in which the test says who is present."""

    present: ClassVar[dict[str, list[Present]]] = {}
    is_down: ClassVar[bool] = False

    def close(self) -> None:
        """Have nothing to close."""

    def roster(self, group: str) -> Roster:
        if self.is_down:
            raise GroupsUnavailable("the test says so")
        return Roster(1, self.present.get(group, []))

    def count(self, group: str) -> Count:
        members = self.roster(group).members
        return Count(sum(member.sockets for member in members), len(members))


@pytest.fixture(autouse=True)
def _backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(Attended, "present", {})
    with override_settings(WEBSOCKET_GROUPS={"default": {"BACKEND": f"{__name__}.Attended"}}):
        yield


def test_members_come_users_first_and_in_the_order_of_their_keys() -> None:
    room = Groups("room", presence=True)[7]
    assert (room.members(), room.count(), room.count(users=True)) == ([], 0, 0)
    keys = ["u10", "snode:2", "u9", "snode:1", "u9b"]
    Attended.present[room.name] = [Present(key, json.dumps(key), 2) for key in keys]

    assert room.members() == [
        Member("9", "u9", 2), Member("10", "u10", 2), Member("9b", "u9b", 2),
        Member(None, "snode:1", 2), Member(None, "snode:2", 2),
    ]  # fmt: skip
    assert (room.count(), room.count(users=True)) == (10, 5)


def test_group_without_presence_says_so() -> None:
    for ask in (group("room:7").members, group("room:7").count, Groups("chat")[7].members):
        with pytest.raises(PresenceDisabled, match=r"declare it with Groups\(…, presence=True\)"):
            ask()


def test_user_is_online_that_has_joined_its_group(monkeypatch: pytest.MonkeyPatch) -> None:
    anne, bert = User(pk=7), User(pk=8)
    Attended.present[user_group(anne).name] = [Present("u7", "null", 1)]

    assert is_online(anne)
    assert is_online(7)
    assert not is_online(bert)
    assert user_group(anne).members() == [Member("7", None, 1)]
    with pytest.raises(ValueError, match="not logged in"):
        is_online(AnonymousUser())
    monkeypatch.setattr(Attended, "is_down", True)
    with pytest.raises(GroupsUnavailable):
        is_online(anne)
