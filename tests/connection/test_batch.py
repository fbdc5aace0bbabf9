"""Which answers wait for the next one, as a table. No socket, no sleep."""

from __future__ import annotations

import pytest

from dwebsocket.connection.batch import Batch

NOW = 1000.0
QUICK = 0.0002  # seconds
SLOW = 0.0003
KIB = 1024


def quick() -> Batch:
    """The batch of a view that has taken two messages soon one after the other, the second at NOW."""
    batch = Batch()
    batch.took(NOW - QUICK)
    batch.took(NOW)
    return batch


def test_first_answer_of_a_burst_leaves_at_once() -> None:
    batch = Batch()
    batch.took(NOW)

    assert not batch.may_hold(NOW)


def test_answer_of_a_view_in_a_tight_loop_may_wait() -> None:
    assert quick().may_hold(NOW + QUICK)


def test_answer_that_took_its_time_leaves_at_once() -> None:
    assert not quick().may_hold(NOW + SLOW)


def test_answer_after_a_slow_one_leaves_at_once() -> None:
    batch = quick()
    batch.took(NOW + SLOW)

    assert not batch.may_hold(NOW + SLOW)


def test_none_waits_longer_than_one_may_take() -> None:
    batch = quick()
    batch.hold(b"first", NOW)
    batch.took(NOW + QUICK)
    assert batch.may_hold(NOW + QUICK)
    batch.hold(b"second", NOW + QUICK)
    batch.took(NOW + SLOW)

    assert not batch.may_hold(NOW + SLOW)


@pytest.mark.parametrize(("size", "holds"), [(16 * KIB - 1, True), (16 * KIB, False)])
def test_16_kib_wait_at_most(size: int, holds: bool) -> None:
    batch = quick()
    batch.hold(bytes(size), NOW)

    assert batch.may_hold(NOW) is holds


def test_first_that_is_held_says_so() -> None:
    batch = quick()

    assert [batch.hold(b"answer", NOW) for _ in range(3)] == [True, False, False]


def test_release_gives_all_in_their_order_and_holds_nothing() -> None:
    batch = quick()
    batch.hold(b"one ", NOW)
    batch.hold(b"two ", NOW)
    assert batch.size == 8

    assert batch.release(b"three") == b"one two three"
    assert batch.size == 0
    assert batch.release(b"") == b""
    assert batch.hold(b"four", NOW)


def test_what_is_dropped_is_not_sent() -> None:
    batch = quick()
    batch.hold(b"of the parent of a fork", NOW)
    batch.drop()

    assert (batch.size, batch.release(b"")) == (0, b"")
