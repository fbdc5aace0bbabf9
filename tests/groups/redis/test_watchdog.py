from __future__ import annotations

import pytest

from dwebsocket.groups.redis.faults import Broken
from dwebsocket.groups.redis.watchdog import FIRST_SECONDS, LONGEST_SECONDS, RARELY, Backoff, Watchdog


@pytest.fixture
def watchdog() -> Watchdog:
    made = Watchdog(probe=10, timeout=2)
    made.reset(0.0)
    return made


def test_way_is_tried_after_silence_only(watchdog: Watchdog) -> None:
    assert watchdog.look(9.9) is None
    watchdog.heard_message(9.9)
    assert watchdog.look(10.0) is None
    assert watchdog.due() == 19.9
    assert watchdog.look(19.9) == 1


def test_way_is_tried_now_and_then_although_messages_come(watchdog: Watchdog) -> None:
    for now in range(1, 30):
        watchdog.heard_message(now)

    assert watchdog.due() == 30.0
    assert watchdog.look(30.0) == 1
    watchdog.heard_message(30.1)
    assert watchdog.due() == 40.1


def test_ping_without_an_answer_is_an_outage_within_probe_and_timeout(watchdog: Watchdog) -> None:
    watchdog.look(10.0)

    assert watchdog.due() == 12.0
    assert watchdog.look(11.9) is None
    with pytest.raises(Broken, match="did not answer a PING within 2 s"):
        watchdog.look(12.0)


def test_probe_that_was_published_and_does_not_come_is_an_outage(watchdog: Watchdog) -> None:
    watchdog.look(10.0)
    watchdog.heard_pong()
    watchdog.published(1, 10.5)

    assert watchdog.due() == 12.5
    with pytest.raises(Broken, match="two servers"):
        watchdog.look(12.5)


def test_probe_that_comes_back_ends_the_silence(watchdog: Watchdog) -> None:
    watchdog.look(10.0)
    watchdog.heard_pong()
    watchdog.published(1, 10.1)
    watchdog.heard_message(10.2)

    assert watchdog.due() == 20.2
    assert watchdog.look(20.2) == 2


def test_probe_that_came_back_before_its_publication_was_noted_is_not_waited_for(watchdog: Watchdog) -> None:
    watchdog.look(10.0)
    watchdog.heard_message(10.1)
    watchdog.published(1, 10.2)

    assert watchdog.due() == 20.1


def test_probe_that_could_not_be_published_says_nothing(watchdog: Watchdog) -> None:
    watchdog.look(10.0)
    watchdog.heard_pong()

    assert watchdog.look(19.9) is None
    assert watchdog.look(20.0) == 2


def test_probes_that_are_lost_come_ever_more_seldom_until_one_comes_back(watchdog: Watchdog) -> None:
    waits, now = [], 0.0
    for _ in range(8):
        start, now = now, watchdog.due()
        waits.append(now - start)
        number = watchdog.look(now)
        assert number is not None
        watchdog.heard_pong()
        watchdog.published(number, now)
        now += 2
        with pytest.raises(Broken):
            watchdog.look(now)
        watchdog.reset(now)

    assert waits == [10, 20, 40, 80, 160, 320, 320, 320]
    assert waits[-1] == 10 * RARELY
    watchdog.heard_message(now)
    assert watchdog.due() == now + 10


def test_waits_double_up_to_the_longest_with_full_jitter() -> None:
    backoff = Backoff()

    assert [backoff.next(0.5) for _ in range(9)] == [0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.5, 2.5]
    assert backoff.next(0.0) == 0.0
    assert backoff.next(1.0) == LONGEST_SECONDS


@pytest.mark.parametrize(("seconds", "expected"), [(LONGEST_SECONDS, FIRST_SECONDS), (1.0, 2 * FIRST_SECONDS)])
def test_connection_that_lasted_makes_the_next_attempt_soon(seconds: float, expected: float) -> None:
    backoff = Backoff()
    backoff.next(1.0)
    backoff.ended(seconds)

    assert backoff.next(1.0) == expected
