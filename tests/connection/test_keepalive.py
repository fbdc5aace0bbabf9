"""Pings, latency and idleness as a table: times go in, what is due comes out. No socket, no sleep."""

from __future__ import annotations

import math

import pytest

from dwebsocket.connection.keepalive import Beat, KeepAlive

OPENED = 1000.0
MOMENT = 0.001
NEVER = None


def keep_alive(
    ping_interval: float | None = 20, ping_timeout: float | None = 10, idle_timeout: float | None = NEVER
) -> KeepAlive:
    return KeepAlive(OPENED, ping_interval, ping_timeout, idle_timeout)


def beat(it: KeepAlive, now: float, *, read: float = OPENED, message: float = OPENED) -> Beat | None:
    """What is due `now`; `due()` must say the same."""
    found = it.beat(now, read, message)
    assert (it.due(read, message) <= now) == (found is not None)
    return found


# Pings


@pytest.mark.parametrize("interval", [0.1, 20, 86400])
def test_ping_is_due_after_each_interval(interval: float) -> None:
    it = keep_alive(interval)
    now = OPENED
    for payload in (b"one", b"two", b"three"):
        assert beat(it, now + interval - MOMENT) is None
        now += interval
        assert beat(it, now) is Beat.PING
        it.pinged(now, payload)
        assert it.pong(payload, now)


def test_traffic_does_not_put_a_ping_off() -> None:
    assert beat(keep_alive(20), OPENED + 20, read=OPENED + 19, message=OPENED + 19) is Beat.PING


def test_no_ping_without_an_interval() -> None:
    it = keep_alive(ping_interval=NEVER)

    assert beat(it, OPENED + 1e9) is None
    assert it.due(OPENED, OPENED) == math.inf


def test_ping_that_is_left_out_is_due_again_an_interval_later_and_is_not_waited_for() -> None:
    it = keep_alive(20, 10)
    it.pinged(OPENED + 20, None)

    assert beat(it, OPENED + 40 - MOMENT) is None
    assert beat(it, OPENED + 40) is Beat.PING


# Their answers


def test_pong_with_the_payload_of_the_ping_gives_the_latency() -> None:
    it = keep_alive()
    assert it.latency is None
    it.pinged(OPENED + 20, b"ping")

    assert it.pong(b"ping", OPENED + 20.125)
    assert it.latency == 0.125
    assert not it.pong(b"ping", OPENED + 21)  # a second time it answers nothing
    assert it.latency == 0.125


@pytest.mark.parametrize("payload", [b"", b"wrong", b"ping "])
def test_another_pong_is_no_answer(payload: bytes) -> None:
    it = keep_alive()
    assert not it.pong(payload, OPENED + 1)
    it.pinged(OPENED + 20, b"ping")

    assert not it.pong(payload, OPENED + 21)
    assert it.latency is None
    assert beat(it, OPENED + 30) is Beat.DEAD


@pytest.mark.parametrize("timeout", [0.2, 10, 3600])
def test_peer_that_is_silent_for_ping_timeout_after_a_ping_is_dead(timeout: float) -> None:
    it = keep_alive(20, timeout)
    it.pinged(OPENED + 20, b"ping")

    assert beat(it, OPENED + 20 + timeout - MOMENT) is None
    assert beat(it, OPENED + 20 + timeout) is Beat.DEAD


def test_peer_that_talks_is_alive_without_answering_pings() -> None:
    it = keep_alive(20, 10)
    it.pinged(OPENED + 20, b"ping")

    for read in range(25, 300, 9):
        assert beat(it, OPENED + read + 9, read=OPENED + read) is None
    assert beat(it, OPENED + read + 10, read=OPENED + read) is Beat.DEAD


def test_what_came_before_the_ping_is_no_sign_of_life_after_it() -> None:
    it = keep_alive(20, 10)
    it.pinged(OPENED + 20, b"ping")

    assert beat(it, OPENED + 30, read=OPENED + 19) is Beat.DEAD


def test_ping_without_a_timeout_is_never_given_up_nor_followed_by_another() -> None:
    it = keep_alive(20, NEVER)
    it.pinged(OPENED + 20, b"ping")

    assert beat(it, OPENED + 1e9) is None


@pytest.mark.parametrize("interval", [1, 20])
def test_interval_shorter_than_the_timeout_is_kept_by_a_peer_that_answers(interval: float) -> None:
    it = keep_alive(interval, 3600)
    it.pinged(OPENED + interval, b"ping")
    it.pong(b"ping", OPENED + interval)

    assert it.due(OPENED, OPENED) == OPENED + 2 * interval


def test_excuse_begins_the_wait_anew_and_leaves_the_latency_true() -> None:
    it = keep_alive(20, 10)
    it.pinged(OPENED + 20, b"ping")
    assert beat(it, OPENED + 30) is Beat.DEAD
    it.excuse(OPENED + 30)

    assert beat(it, OPENED + 40 - MOMENT) is None
    assert beat(it, OPENED + 40) is Beat.DEAD
    assert it.pong(b"ping", OPENED + 40)
    assert it.latency == 20


# Idleness


def test_connection_without_a_message_for_idle_timeout_is_idle() -> None:
    it = keep_alive(NEVER, NEVER, 60)

    assert beat(it, OPENED + 60 - MOMENT) is None
    assert beat(it, OPENED + 60) is Beat.IDLE


def test_message_in_either_direction_begins_the_time_anew() -> None:
    it = keep_alive(NEVER, NEVER, 60)

    assert beat(it, OPENED + 100, message=OPENED + 50) is None
    assert beat(it, OPENED + 110, message=OPENED + 50) is Beat.IDLE


def test_bytes_that_are_no_message_do_not_make_a_connection_less_idle() -> None:
    it = keep_alive(20, 10, 60)
    it.pinged(OPENED + 59, b"ping")

    assert beat(it, OPENED + 60, read=OPENED + 59.5) is Beat.IDLE


def test_close_of_an_idle_connection_comes_before_its_ping() -> None:
    assert beat(keep_alive(60, 10, 60), OPENED + 60) is Beat.IDLE


@pytest.mark.parametrize(
    ("ping_interval", "idle_timeout", "seconds"), [(20, 60, 20), (60, 20, 20), (NEVER, 60, 60), (20, NEVER, 20)]
)
def test_what_comes_first_is_due_first(ping_interval: float | None, idle_timeout: float | None, seconds: float) -> None:
    assert keep_alive(ping_interval, 10, idle_timeout).due(OPENED, OPENED) == OPENED + seconds
