"""Callers that wait while a thread passes on what they bring."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from dwebsocket.groups.presence.gathering import Gatherer
from tests.links import PATIENCE_SECONDS, until


class Work:
    """What was passed on; it waits while it is closed, and raises what it is told."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[str] = set()
        self.is_open = threading.Event()
        self.is_open.set()
        self.arrived = threading.Event()
        self.error: BaseException | None = None

    def __call__(self, items: list[int]) -> None:
        self.batches.append(items)
        self.threads.add(threading.current_thread().name)
        self.arrived.set()
        assert self.is_open.wait(PATIENCE_SECONDS)
        if self.error is not None:
            raise self.error


@pytest.fixture
def work() -> Work:
    return Work()


def test_each_caller_returns_when_its_item_was_passed_on(work: Work) -> None:
    gatherer = Gatherer(work, "gathers", 10)
    gatherer.do(1, threading.Event())
    gatherer.do(2, threading.Event())
    assert work.batches == [[1], [2]]
    assert work.threads == {"gathers"}
    gatherer.close(LookupError("closed"))


def test_all_that_come_meanwhile_go_together_in_their_order_and_no_more_than_may(work: Work) -> None:
    gatherer = Gatherer(work, "gathers", 3)
    work.is_open.clear()
    with ThreadPoolExecutor(6) as pool:
        callers = [pool.submit(gatherer.do, 0, threading.Event())]
        assert work.arrived.wait(PATIENCE_SECONDS)
        for number in range(1, 6):
            callers.append(pool.submit(gatherer.do, number, threading.Event()))
            until(lambda: len(gatherer._waiting) == number)  # noqa: B023
        work.is_open.set()
        for caller in callers:
            caller.result(PATIENCE_SECONDS)
    assert work.batches == [[0], [1, 2, 3], [4, 5]]
    gatherer.close(LookupError("closed"))


@pytest.mark.parametrize("error", [LookupError("no"), SystemExit(1)])
def test_error_is_raised_to_its_callers_and_the_thread_goes_on(work: Work, error: BaseException) -> None:
    gatherer = Gatherer(work, "gathers", 10)
    work.error = error
    with pytest.raises(type(error)):
        gatherer.do(1, threading.Event())
    work.error = None
    gatherer.do(2, threading.Event())
    assert work.batches == [[1], [2]]
    gatherer.close(LookupError("closed"))


def test_close_ends_the_thread_and_all_that_wait(work: Work) -> None:
    gatherer = Gatherer(work, "gathers", 1)
    work.is_open.clear()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(gatherer.do, 1, threading.Event())
        assert work.arrived.wait(PATIENCE_SECONDS)
        second = pool.submit(gatherer.do, 2, threading.Event())
        until(lambda: len(gatherer._waiting) == 1)
        gatherer.close(LookupError("closed"))
        work.is_open.set()
        assert first.exception(PATIENCE_SECONDS) is None
        assert isinstance(second.exception(PATIENCE_SECONDS), LookupError)
    with pytest.raises(LookupError):
        gatherer.do(3, threading.Event())
    assert gatherer._thread is not None
    gatherer._thread.join(PATIENCE_SECONDS)
    assert not gatherer._thread.is_alive()
    assert work.batches == [[1]]
