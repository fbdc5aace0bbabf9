from __future__ import annotations

import pytest

from dwebsocket.groups.redis.subscriptions import CHUNK, GATHER_SECONDS, Subscriptions


@pytest.fixture
def table() -> Subscriptions:
    return Subscriptions(linger=1.0)


def subscribe(table: Subscriptions, *groups: str, now: float = 0.0) -> None:
    """Bring groups to where they are received."""
    table.want(groups, [], now)
    (chunk,), _ = table.take(now + GATHER_SECONDS)
    assert table.subscribed(chunk) == list(groups)


def test_groups_of_one_moment_leave_together_a_little_later(table: Subscriptions) -> None:
    assert table.due() is None
    assert table.want(["a"], [], 1.0) == []
    table.want(["b", "a"], [], 1.0005)

    assert table.due() == 1.0 + GATHER_SECONDS
    assert table.take(1.0005) == ([], [])
    assert table.take(1.0 + GATHER_SECONDS) == ([["a", "b"]], [])
    assert table.due() is None
    assert table.take(2.0) == ([], [])


def test_many_groups_leave_in_chunks(table: Subscriptions) -> None:
    groups = [str(number) for number in range(2 * CHUNK + 1)]
    table.want(groups, [], 0.0)

    chunks, _ = table.take(1.0)

    assert [len(chunk) for chunk in chunks] == [CHUNK, CHUNK, 1]
    assert [group for chunk in chunks for group in chunk] == groups


def test_group_that_is_received_is_confirmed_at_once(table: Subscriptions) -> None:
    subscribe(table, "a")

    assert table.want(["a"], [], 1.0) == ["a"]
    assert table.take(9.0) == ([], [])


def test_group_that_comes_back_while_it_lingers_is_confirmed_and_stays(table: Subscriptions) -> None:
    subscribe(table, "a")
    table.want([], ["a"], 1.0)

    assert table.due() == 2.0
    assert table.want(["a"], [], 1.9) == ["a"]
    assert table.due() is None
    assert table.take(9.0) == ([], [])


def test_group_that_is_dropped_leaves_after_the_linger(table: Subscriptions) -> None:
    subscribe(table, "a", "b")
    table.want([], ["a"], 1.0)
    table.want([], ["b"], 1.5)

    assert table.take(1.99) == ([], [])
    assert table.take(2.0) == ([], [["a"]])
    assert table.due() == 2.5
    assert table.take(2.5) == ([], [["b"]])


def test_group_that_is_dropped_before_it_left_is_never_sent(table: Subscriptions) -> None:
    table.want(["a"], [], 0.0)
    table.want([], ["a"], 0.0)

    assert table.take(9.0) == ([], [])


def test_group_that_is_wanted_again_after_its_unsubscribe_is_subscribed_after_the_answer(table: Subscriptions) -> None:
    subscribe(table, "a")
    table.want([], ["a"], 1.0)
    table.take(2.0)

    assert table.want(["a"], [], 2.0) == []
    assert table.take(3.0) == ([], [])  # its UNSUBSCRIBE is on its way
    table.unsubscribed(["a"], 3.0)
    assert table.take(4.0) == ([["a"]], [])


def test_unsubscribe_waits_for_the_answer_to_subscribe(table: Subscriptions) -> None:
    table.want(["a"], [], 0.0)
    table.take(1.0)
    table.want([], ["a"], 1.0)

    assert table.take(2.0) == ([], [])
    assert table.due() == 3.0
    assert table.subscribed(["a"]) == []  # no longer wanted: there is none to tell
    assert table.take(3.0) == ([], [["a"]])


def test_what_is_wanted_survives_an_outage_and_is_sent_at_once(table: Subscriptions) -> None:
    subscribe(table, "a", "b", "c")
    table.want(["d"], ["c"], 1.0)
    table.reset(5.0)

    assert table.wanted == {"a", "b", "d"}
    assert not table.is_whole
    assert table.take(5.0) == ([["a", "b", "d"]], [])
    table.subscribed(["a", "b"])
    assert not table.is_whole
    table.subscribed(["d"])
    assert table.is_whole


def test_outage_in_the_middle_of_a_resubscription_forgets_nothing(table: Subscriptions) -> None:
    subscribe(table, "a", "b")
    table.reset(5.0)
    table.take(5.0)
    table.subscribed(["a"])
    table.reset(6.0)

    assert not table.is_whole
    assert table.take(6.0) == ([["a", "b"]], [])


def test_group_that_is_dropped_during_an_outage_is_not_waited_for(table: Subscriptions) -> None:
    subscribe(table, "a")
    table.reset(5.0)
    table.take(5.0)
    table.want(["new"], ["a"], 5.0)

    assert table.is_whole
