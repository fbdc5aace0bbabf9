"""The messages that wait for a view, and what happens to too many: as tables, without a clock."""

from __future__ import annotations

import pytest

from dwebsocket.connection.limits import Bound
from dwebsocket.groups.events import FULL, Events
from dwebsocket.websocket import Gap, GroupMessage

ROOM = "room:1"
TWO = Bound(max_bytes=2 * 210, max_seconds=10, overflow="")  # a message of ten bytes takes 210


def message(text: str, group: str = ROOM) -> GroupMessage:
    return GroupMessage(group, text.ljust(10))


def put(events: Events, *texts: str, overflow: str = "close", now: float = 0, key: str = "") -> list[int]:
    return [events.put(message(text), key, now, TWO._replace(overflow=overflow)) for text in texts]


def taken(events: Events) -> list[str]:
    found = []
    while (event := events.take()) is not None:
        found.append("gap" if isinstance(event, Gap) else str(event.data).strip())
    assert not events
    assert events.size == 0
    return found


def test_messages_wait_in_their_order() -> None:
    events = Events()
    assert put(events, "a", "b") == [0, 0]
    assert taken(events) == ["a", "b"]


@pytest.mark.parametrize(
    ("overflow", "results", "left"),
    [
        ("close", [0, 0, FULL], ["a", "b"]),
        ("drop_new", [0, 0, 1], ["a", "b", "gap"]),
        ("drop_oldest", [0, 0, 1], ["gap", "b", "c"]),
        ("latest", [0, 1, 1], ["c"]),
    ],
)
def test_third_of_two(overflow: str, results: list[int], left: list[str]) -> None:
    events = Events()
    assert put(events, "a", "b", "c", overflow=overflow) == results
    assert taken(events) == left


def test_latest_replaces_what_has_its_key_and_no_other() -> None:
    events = Events()
    put(events, "a", overflow="latest", key="EUR")
    put(events, "b", overflow="latest", key="USD")
    assert put(events, "c", overflow="latest", key="EUR") == [1]
    assert taken(events) == ["b", "c"]


def test_too_many_keys_drop_the_oldest() -> None:
    events = Events()
    for key in "abc":
        put(events, key, overflow="latest", key=key)
    assert taken(events) == ["gap", "b", "c"]


@pytest.mark.parametrize(("overflow", "result"), [("close", FULL), ("drop_new", 1), ("drop_oldest", 1)])
def test_message_that_waits_for_too_long_is_an_overflow_too(overflow: str, result: int) -> None:
    events = Events()
    put(events, "a", now=0)
    assert put(events, "b", overflow=overflow, now=10.5) == [result]


def test_one_gap_stands_for_many_messages() -> None:
    events = Events()
    put(events, *"abcdefg", overflow="drop_new")
    assert taken(events) == ["a", "b", "gap"]
    put(events, *"abcdefg", overflow="drop_oldest")
    assert taken(events) == ["gap", "f", "g"]


def test_message_that_is_larger_than_the_bound_waits_alone() -> None:
    events = Events()
    assert events.put(GroupMessage(ROOM, "x" * 10_000), "", 0, TWO._replace(overflow="close")) == 0
    assert put(events, "a") == [FULL]


def test_group_that_was_left_is_forgotten() -> None:
    events = Events()
    put(events, "a")
    events.put(message("b", "other"), "", 0, TWO._replace(overflow="close"))
    events.gap(ROOM)
    events.forget(ROOM)
    assert taken(events) == ["b"]


def test_gaps_of_two_groups_are_told_apart() -> None:
    events = Events()
    events.gap(ROOM)
    events.gap("other")
    assert [events.take(), events.take(), events.take()] == [Gap(ROOM), Gap("other"), None]


def test_gaps_of_two_groups_that_are_full_in_turn_take_no_memory() -> None:
    events = Events()
    put(events, "a", "b")
    for number in range(1000):
        events.put(message("x", f"other:{number % 2}"), "", 0, TWO._replace(overflow="drop_new"))
    assert len(events) == 4
    assert [events.take() for _ in range(4)][2:] == [Gap("other:0"), Gap("other:1")]
    events.gap("other:0")
    assert events.take() == Gap("other:0"), "what was told is told again after the next hole"
