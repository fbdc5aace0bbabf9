"""Calls that wait for their turn in a thread made for it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from functools import partial

import pytest

from dwebsocket.groups.telling import Teller, in_thread
from tests.links import until


class Later:
    """Runs what it is given when the test says so."""

    def __init__(self) -> None:
        self.functions: list[Callable[[], None]] = []
        self.names: list[str] = []

    def __call__(self, function: Callable[[], None], name: str) -> None:
        self.functions.append(function)
        self.names.append(name)


def refuse(function: Callable[[], None], name: str) -> None:
    raise RuntimeError("can't start new thread")


@pytest.fixture
def told() -> list[str]:
    return []


def calls(told: list[str], *keys: str) -> dict[str, Callable[[], object]]:
    return {key: partial(told.append, key) for key in keys}


def test_all_that_come_meanwhile_are_told_by_one_in_their_order(told: list[str]) -> None:
    teller, later = Teller("a_signal", math.inf), Later()
    teller.tell(calls(told, "a", "b"), later)
    teller.tell(calls(told, "c", "a"), later)
    assert (later.names, told, len(teller)) == (["dwebsocket a_signal"], [], 3)
    later.functions[0]()
    assert told == ["a", "b", "c"]
    teller.tell(calls(told, "a"), later)
    later.functions[1]()
    assert told == ["a", "b", "c", "a"]


def test_oldest_are_dropped_and_that_is_told_once(told: list[str], caplog: pytest.LogCaptureFixture) -> None:
    teller, later = Teller("a_signal", 2), Later()
    for key in "abcde":
        teller.tell(calls(told, key), later)
    later.functions[0]()
    assert told == ["d", "e"]
    assert [one.message for one in caplog.records] == [
        "receivers of a_signal are too slow: the oldest changes are not told"
    ]


def test_call_that_ends_its_thread_ends_no_teller(told: list[str]) -> None:
    def leave() -> None:
        raise SystemExit

    teller, later = Teller("a_signal", math.inf), Later()
    teller.tell({"x": leave, **calls(told, "a")}, later)
    with pytest.raises(SystemExit):
        later.functions[0]()
    teller.tell(calls(told, "b"), later)
    later.functions[1]()
    assert told == ["a", "b"]


def test_next_one_tries_again_where_no_thread_could_be_started(
    told: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    teller = Teller("a_signal", math.inf)
    teller.tell(calls(told, "a"), refuse)
    assert "a_signal is not sent" in caplog.text
    teller.tell(calls(told, "b"))
    until(lambda: told == ["a", "b"])


def test_thread_has_its_name_and_holds_no_process_up() -> None:
    found: list[threading.Thread] = []
    in_thread(lambda: found.append(threading.current_thread()), "tells")
    until(lambda: found)
    assert (found[0].name, found[0].daemon) == ("tells", True)
