"""What a page gets that has asked for the form with group and position."""

from __future__ import annotations

import json

from dwebsocket.groups import page
from dwebsocket.groups.backend import Present
from dwebsocket.websocket import GroupMessage


def test_message_has_its_group_and_position() -> None:
    assert page.envelope(GroupMessage("room:7", "hello", "e-1")) == '{"g":"room:7","p":"e-1","d":"hello"}'
    assert page.envelope(GroupMessage("room:7", b"\0\xff", "e-2")) == '{"g":"room:7","p":"e-2","b":"AP8="}'
    assert json.loads(page.envelope(GroupMessage("room:7", "hello"))) == {"g": "room:7", "p": None, "d": "hello"}


def test_page_is_told_where_it_is() -> None:
    assert page.joined("room:7", "e-1", True) == '{"g":"room:7","p":"e-1","joined":true}'
    assert json.loads(page.joined("room:7", None, None)) == {"g": "room:7", "p": None, "joined": None}
    assert page.gap("room:7", "e-3") == '{"g":"room:7","p":"e-3","gap":true}'


def test_members_have_names_that_tell_no_primary_key() -> None:
    one, two = (Present(user, '{"name": "a"}', 1) for user in ("1", "2"))
    told = json.loads(page.here("room:7", [one, two]))
    assert [member["info"] for member in told["here"]] == [{"name": "a"}] * 2
    first, second = (member["id"] for member in told["here"])
    assert first != second
    assert len(first) == 16
    assert json.loads(page.changes("room:7", [one], ["2"])) == {
        "g": "room:7",
        "came": [{"id": first, "info": {"name": "a"}}],
        "went": [second],
    }


def test_many_members_are_a_number() -> None:
    many = [Present(str(number), "{}", 1) for number in range(page.MAX_NAMED + 1)]
    assert json.loads(page.here("room:7", many)) == {"g": "room:7", "count": page.MAX_NAMED + 1}
    assert len(json.loads(page.here("room:7", many[1:]))["here"]) == page.MAX_NAMED
