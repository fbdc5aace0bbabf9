"""What a page gets where it follows its groups."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from django.test import override_settings

from dwebsocket.groups import page
from dwebsocket.groups.backend import Present
from dwebsocket.websocket import GroupMessage

ANNA = Present("7", '{"name": "Anna"}', 2)


def read(text: str) -> Any:
    assert "\n" not in text
    assert ": " not in text, "no byte is wasted"
    return json.loads(text)


@pytest.mark.parametrize("position", ["9f3c2a-12", None])
def test_message_has_its_group_and_its_position(position: str | None) -> None:
    text = page.envelope(GroupMessage("room:7", "grüße:\n\"'", position))
    assert json.loads(text) == {"g": "room:7", "p": position, "d": "grüße:\n\"'"}


def test_bytes_are_in_base64() -> None:
    found = read(page.envelope(GroupMessage("room:7", bytes(range(256)), "e-1")))
    assert found.keys() == {"g", "p", "b"}
    assert base64.b64decode(found["b"]) == bytes(range(256))


@pytest.mark.parametrize("recovered", [True, False, None])
def test_join_says_whether_all_that_was_missed_follows(recovered: bool | None) -> None:
    assert read(page.joined("room:7", "e-1", recovered)) == {"g": "room:7", "p": "e-1", "joined": recovered}


def test_gap_says_from_where_on_messages_follow() -> None:
    assert read(page.gap("room:7", "e-9")) == {"g": "room:7", "p": "e-9", "gap": True}


def test_roster_names_its_members() -> None:
    found = read(page.here("room:7", [ANNA, Present("8", "null", 1)]))
    assert found.keys() == {"g", "here"}
    assert [member["info"] for member in found["here"]] == [{"name": "Anna"}, None]


def test_roster_of_a_large_group_is_a_number() -> None:
    members = [Present(str(number), "{}", 1) for number in range(page.MAX_NAMED + 1)]
    assert read(page.here("room:7", members)) == {"g": "room:7", "count": 201}
    assert len(read(page.here("room:7", members[:-1]))["here"]) == 200


def test_changes_name_who_has_come_and_who_has_gone_as_the_roster_does() -> None:
    (here,) = read(page.here("room:7", [ANNA]))["here"]
    found = read(page.changes("room:7", [ANNA], ["7", "8"]))
    assert found.keys() == {"g", "came", "went"}
    assert found["came"] == [here]
    assert found["went"][0] == here["id"] != found["went"][1]
    assert read(page.changes("room:7", [], [])) == {"g": "room:7", "came": [], "went": []}


def test_page_learns_no_primary_key_and_cannot_try_them_out() -> None:
    text = page.here("room:1", [Present("7777", '{"name": "Anna"}', 1)])
    assert "7777" not in text
    (member,) = read(text)["here"]
    assert len(member["id"]) == 16
    with override_settings(SECRET_KEY="another"):
        (other,) = read(page.here("room:1", [Present("7777", "{}", 1)]))["here"]
    assert other["id"] != member["id"]
