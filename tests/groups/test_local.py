"""Groups within this process, as a dispatcher sees them."""

from __future__ import annotations

import threading
from typing import Any
from unittest import mock

import pytest

from dwebsocket.groups.backend import Count, Presence, Publication, Want
from dwebsocket.groups.config import DEFAULTS
from dwebsocket.groups.local import LocalGroups
from dwebsocket.groups.memory import once as memory
from dwebsocket.groups.position import Position
from tests.groups.sinks import Collector


@pytest.fixture
def sink() -> Collector:
    return Collector()


@pytest.fixture
def backend(sink: Collector) -> LocalGroups:
    backend = LocalGroups("default", DEFAULTS)
    backend.open(sink)
    return backend


def test_it_reaches_no_other_process() -> None:
    assert not LocalGroups.reaches_all_processes


def test_group_is_confirmed_at_once(backend: LocalGroups, sink: Collector) -> None:
    backend.watch(("a", "b"), ())
    assert sink.told == [("watching", ["a", "b"])]


def test_messages_arrive_in_their_order_and_then_the_flush(backend: LocalGroups, sink: Collector) -> None:
    backend.watch(("a", "b"), ())
    backend.publish([Publication("a", b"1"), Publication("b", b"2"), Publication("c", b"no member")])
    backend.publish([Publication("a", b"3")])
    assert sink.told[1:] == [
        ("message", ("a", b"1")),
        ("message", ("b", b"2")),
        ("flush", None),
        ("message", ("a", b"3")),
        ("flush", None),
    ]


def test_group_that_is_watched_no_more_is_silent(backend: LocalGroups, sink: Collector) -> None:
    backend.watch(("a",), ())
    backend.watch((), ("a",))
    backend.publish([Publication("a", b"1")])
    assert sink.messages == []


def test_once_counts_for_its_group_and_for_five_minutes(backend: LocalGroups, sink: Collector) -> None:
    backend.watch(("a", "b"), ())

    def publish(group: str, payload: bytes, now: float, once: str | None = "x") -> None:
        with mock.patch.object(memory, "monotonic", return_value=now):
            backend.publish([Publication(group, payload, once)])

    publish("a", b"1", 0)
    publish("a", b"again", 1)
    publish("b", b"2", 2)
    publish("a", b"3", 3, "y")
    publish("a", b"4", 4, None)
    publish("a", b"4", 5, None)
    publish("a", b"again", 299.9)
    publish("a", b"5", 300.1)
    publish("b", b"again", 301.9)
    publish("a", b"again", 600)
    assert [payload for _, payload in sink.messages] == [b"1", b"2", b"3", b"4", b"4", b"5"]


def test_names_of_once_are_dropped_when_their_time_is_over(backend: LocalGroups) -> None:
    with mock.patch.object(memory, "monotonic", return_value=0.0):
        backend.publish([Publication("a", b"", str(number)) for number in range(100)])
    with mock.patch.object(memory, "monotonic", return_value=301.0):
        backend.publish([Publication("a", b"", "new")])
    assert len(backend._once) == 1


def test_once_counts_although_the_group_has_no_member_yet(backend: LocalGroups, sink: Collector) -> None:
    backend.publish([Publication("a", b"1", "x")])
    backend.watch(("a",), ())
    backend.publish([Publication("a", b"1", "x")])
    assert sink.messages == []


def test_closed_backend_takes_messages_and_tells_of_none(backend: LocalGroups, sink: Collector) -> None:
    backend.watch(("a",), ())
    backend.close()
    backend.publish([Publication("a", b"1")])
    backend.watch((), ("a",))
    assert sink.messages == []


def test_backend_that_was_not_opened_takes_messages(sink: Collector) -> None:
    LocalGroups("default", DEFAULTS).publish([Publication("a", b"1", "x")])


def test_two_groups_have_one_order_for_all_that_send(sink: Collector) -> None:
    """Each sender's messages stay in their order, whatever others send."""
    backend = LocalGroups("default", DEFAULTS)
    backend.open(sink)
    backend.watch(("a",), ())

    def send(name: str) -> None:
        for number in range(200):
            backend.publish([Publication("a", f"{name} {number}".encode())])

    threads = [threading.Thread(target=send, args=(name,)) for name in "xyz"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    by_sender: dict[Any, list[int]] = {}
    for _, payload in sink.messages:
        name, number = payload.split()
        by_sender.setdefault(name, []).append(int(number))
    assert by_sender == {name: list(range(200)) for name in (b"x", b"y", b"z")}


# What is kept


def kept(group: str, payload: bytes = b"x") -> Publication:
    return Publication(group, payload, None, 10, 60.0)


def test_it_is_kept_although_the_backend_was_never_opened() -> None:
    backend = LocalGroups("default", DEFAULTS)
    (position,) = backend.publish([kept("a")])
    assert position is not None
    assert backend.read({"a": Want(latest=1)})["a"] == (position, ((1, b"x"),))
    assert backend.clear("a").epoch != position.epoch
    assert backend.attend([Presence("a", "1", "anna", "{}")], []) == [True]
    assert backend.count("a") == Count(1, 1)


def test_group_that_is_not_watched_is_not_told_of_its_epochs_and_members(backend: LocalGroups, sink: Collector) -> None:
    backend.watch(("a",), ())
    for group in "ab":
        backend.publish([kept(group)])
        backend.clear(group)
        backend.attend([Presence(group, "1", "anna", "{}")], [])
        backend.attend([], [Presence(group, "1", "anna", "{}")])
    assert {message[0] for message in sink.messages} == {"a"}
    assert [message[1][:1] for message in sink.messages] == [b"x", b"r", b"p", b"p"]
    assert sink.told[-1] == ("flush", None)


def test_another_process_has_other_epochs() -> None:
    positions = [LocalGroups("default", DEFAULTS).publish([kept("a")])[0] for _ in range(2)]
    assert positions[0] != positions[1]


def test_reset_says_which_epoch_has_ended_where_there_was_one(backend: LocalGroups, sink: Collector) -> None:
    backend.watch(("a",), ())
    backend.clear("a")
    (position,) = backend.publish([kept("a")])
    backend.clear("a")
    assert sink.resets("a") == [None, position]


def test_listener_may_send_to_another_group(backend: LocalGroups) -> None:
    """The lock is held while the sink is told."""

    class Echo(Collector):
        def message(self, group: str, payload: bytes, position: Position | None = None) -> None:
            super().message(group, payload, position)
            if group == "a":
                backend.publish([kept("b", payload)])

    sink = Echo()
    backend.open(sink)
    backend.watch(("a", "b"), ())
    backend.publish([kept("a", b"1"), kept("a", b"2")])
    assert [(message[0], message[1]) for message in sink.messages] == [
        ("a", b"1"),
        ("b", b"1"),
        ("a", b"2"),
        ("b", b"2"),
    ]


def test_lease_is_as_long_as_the_process(backend: LocalGroups, sink: Collector) -> None:
    backend.watch(("a",), ())
    assert backend.renew() == (False, (), None)
    backend.attend([Presence("a", "1", "anna", "{}"), Presence("a", "2", "anna", "{}")], [])
    backend.resign(5)
    assert backend.count("a") == Count(2, 1)
    backend.resign(0)
    assert backend.roster("a").members == ()
    assert [change.has_come for change in sink.arrivals("a")] == [True, False]
    assert backend.renew() == (False, (), None)


def test_test_begins_anew_in_groups_without_members(backend: LocalGroups, sink: Collector) -> None:
    backend.watch(("here",), ())
    positions = {}
    for group in ("here", "gone"):
        backend.publish([Publication(group, b"1", "k")])
        positions[group] = backend.publish([kept(group)])[0]
        backend.attend([Presence(group, "1", "anna", "{}")], [])
    told = len(sink.told)
    backend.begin_anew()
    assert len(sink.told) == told
    found = backend.read({"here": Want(latest=9), "gone": Want(latest=9)})
    assert found["here"] == (positions["here"], ((1, b"x"),))
    assert (found["gone"].top.offset, found["gone"].entries) == (0, ())
    assert [backend.count(group).sockets for group in ("here", "gone")] == [1, 0]
    backend.publish([Publication("here", b"2", "k")])
    assert sink.messages[-1] == ("here", b"2")
