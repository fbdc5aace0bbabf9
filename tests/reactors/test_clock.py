"""The clock of all deadlines is that of Python, in either build."""

from __future__ import annotations

import time

from dwebsocket.reactors.clock import monotonic


def test_clock_shows_the_seconds_of_the_monotonic_clock() -> None:
    for _ in range(1000):
        before, now, after = time.monotonic(), monotonic(), time.monotonic()
        assert before <= now <= after


def test_clock_is_a_float_that_tells_microseconds_apart() -> None:
    begun = monotonic()
    assert type(begun) is float
    readings = {monotonic() for _ in range(1000)}
    assert len(readings) > 10
