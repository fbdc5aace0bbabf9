"""Histories in memory: what is kept, and for how long."""

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

import pytest

from dwebsocket.groups.backend import Want
from dwebsocket.groups.memory import history
from dwebsocket.groups.memory.history import Histories
from dwebsocket.groups.position import Position

META_TTL = 1000.0
ALL = Want(latest=10_000)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Iterator[Clock]:
    with mock.patch.object(history, "monotonic", Clock()) as clock:
        yield clock


@pytest.fixture
def histories(clock: Clock) -> Histories:
    return Histories(META_TTL)


def entries_in_memory(histories: Histories) -> int:
    return sum(len(kept.entries) for kept in histories._histories.values())


def test_offsets_begin_at_one_and_follow_each_other(histories: Histories) -> None:
    positions = [histories.append("a", b"x", 2, 10) for _ in range(3)]
    assert [position.offset for position in positions] == [1, 2, 3]
    assert len({position.epoch for position in positions}) == 1
    assert histories.append("b", b"x", 2, 10).epoch != positions[0].epoch


def test_history_that_is_declared_smaller_shrinks_at_the_next_message(histories: Histories) -> None:
    for number in range(10):
        histories.append("a", b"%d" % number, 10, 10)
    histories.append("a", b"10", 2, 10)
    assert [payload for _, payload in histories.read("a", ALL).entries] == [b"9", b"10"]


def test_messages_expire_together_after_the_last_one(histories: Histories, clock: Clock) -> None:
    histories.append("a", b"1", 10, 10)
    clock.now += 9
    histories.append("a", b"2", 10, 10)
    clock.now += 9
    assert len(histories.read("a", ALL).entries) == 2
    clock.now += 1
    top, entries = histories.read("a", ALL)
    assert (top.offset, list(entries)) == (2, [])
    assert histories.append("a", b"3", 10, 10) == Position(top.epoch, 3)
    assert [offset for offset, _ in histories.read("a", ALL).entries] == [3]


def test_time_to_keep_may_become_shorter(histories: Histories, clock: Clock) -> None:
    histories.append("a", b"1", 10, 100)
    histories.append("a", b"2", 10, 10)
    clock.now += 10
    assert not histories.read("a", ALL).entries
    histories.append("a", b"3", 10, 10)
    assert len(histories.read("a", ALL).entries) == 1


def test_what_has_expired_is_dropped_when_another_group_is_asked_for(histories: Histories, clock: Clock) -> None:
    for number in range(100):
        histories.append(f"a{number}", b"x", 10, 10 + number)
    clock.now += 59
    histories.read("other", Want())
    assert entries_in_memory(histories) == 50
    clock.now += 100
    histories.append("other", b"x", 10, 10)
    assert entries_in_memory(histories) == 1
    assert len(histories) == 101, "the epochs are remembered"


def test_history_that_is_used_for_long_stands_in_the_heap_once(histories: Histories, clock: Clock) -> None:
    for _ in range(1000):
        for group in "abc":
            histories.append(group, b"x", 10, 2.5)
        clock.now += 1
        assert len(histories._due) <= 3
    for _ in range(100):
        histories.append("a", b"x", 10, 2.5)
        clock.now += 10
        assert len(histories._due) <= 3


def test_history_that_was_forgotten_frees_its_messages_and_expires_none_of_the_next(
    histories: Histories, clock: Clock
) -> None:
    histories.append("a", b"1", 10, 5)
    (forgotten,) = histories._histories.values()
    before = histories.forget("a")
    assert before is not None
    assert not forgotten.entries
    after = histories.append("a", b"2", 10, 50)
    assert (before.offset, after.offset) == (1, 1)
    assert before.epoch != after.epoch
    clock.now += 6
    assert len(histories.read("a", ALL).entries) == 1


def test_group_that_was_not_there_has_nothing_to_forget(histories: Histories) -> None:
    assert histories.forget("a") is None
    assert len(histories) == 0


def test_epoch_is_forgotten_when_its_group_was_quiet_for_long(histories: Histories, clock: Clock) -> None:
    used, read, quiet = (histories.append(group, b"x", 10, 10) for group in ("used", "read", "quiet"))
    for _ in range(3):
        clock.now += 400
        histories.append("used", b"x", 10, 10)
        assert histories.read("read", Want()).top == read
    assert sorted(histories.groups()) == ["read", "used"]
    assert histories.append("quiet", b"x", 10, 10) != quiet
    assert histories.read("used", Want()).top == Position(used.epoch, 4)


def test_messages_are_kept_no_longer_than_their_epoch(histories: Histories, clock: Clock) -> None:
    first = histories.append("a", b"x", 10, 5000)
    clock.now += META_TTL
    found = histories.read("a", ALL)
    assert found.top != first
    assert not found.entries


def test_group_without_messages_is_not_remembered_for_long_once_it_was_left(histories: Histories, clock: Clock) -> None:
    """A page may join a thousand rooms, and as many others the next second."""
    for group in ("left", "left with a message", "joined again", "never joined"):
        histories.read(group, Want())
    histories.append("left with a message", b"1", 10, 10)
    for group in ("left", "left with a message", "joined again"):
        histories.leave(group)
    clock.now += history.EMPTY_SECONDS - 1
    histories.read("joined again", Want())
    assert len(histories) == 4
    clock.now += 2
    histories.read("joined again", Want())
    assert histories.groups() == ["never joined", "left with a message", "joined again"]
    histories.leave("not known")
