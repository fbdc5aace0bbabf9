"""The contract of backends, as a project's own class meets it."""

from __future__ import annotations

import pytest

from dwebsocket.groups.backend import GroupsBackend, Kept, Publication, Read
from dwebsocket.groups.config import DEFAULTS
from dwebsocket.groups.local import LocalGroups
from dwebsocket.groups.position import Position
from tests.groups.backends import ObedientGroups
from tests.groups.sinks import Collector


def test_class_without_the_methods_says_so_at_their_use() -> None:
    backend = GroupsBackend("default", DEFAULTS)
    assert (backend.alias, backend.settings, backend.reaches_all_processes) == ("default", DEFAULTS, True)
    for call in (
        lambda: backend.open(Collector()),
        backend.close,
        lambda: backend.publish([]),
        lambda: backend.watch((), ()),
        lambda: backend.read({}),
        lambda: backend.clear("a"),
        backend.renew,
        lambda: backend.attend([], []),
        lambda: backend.roster("a"),
        lambda: backend.count("a"),
        lambda: backend.resign(0),
    ):
        with pytest.raises(NotImplementedError):
            call()
    assert backend.source_of("a") == 0
    assert list(backend.examine()) == []


@pytest.mark.parametrize(
    ("read", "since", "reaches"),
    [
        (Read(Position("e", 5), [Kept(4, b""), Kept(5, b"")]), Position("e", 5), True),
        (Read(Position("e", 5), [Kept(4, b""), Kept(5, b"")]), Position("e", 4), True),
        (Read(Position("e", 5), [Kept(4, b""), Kept(5, b"")]), Position("e", 3), True),
        (Read(Position("e", 5), [Kept(4, b""), Kept(5, b"")]), Position("e", 2), False),
        (Read(Position("e", 5), [Kept(4, b""), Kept(5, b"")]), Position("e", 6), False),
        (Read(Position("e", 5), [Kept(4, b""), Kept(5, b"")]), Position("f", 4), False),
        (Read(Position("e", 5)), Position("e", 5), True),
        (Read(Position("e", 5)), Position("e", 4), False),
        (Read(Position("e", 0)), Position("e", 0), True),
        (Read(Position("e", 0)), Position("f", 0), False),
    ],
)
def test_read_reaches_back_where_no_message_is_missing(read: Read, since: Position, reaches: bool) -> None:
    assert read.reaches_back_to(since) is reaches


@pytest.mark.parametrize("kind", [LocalGroups, ObedientGroups])
def test_backends_without_a_broker_keep_the_contract(kind: type[GroupsBackend]) -> None:
    backend, sink = kind("default", DEFAULTS), Collector()
    backend.publish([Publication("a", b"before it was opened")])
    backend.open(sink)
    backend.open(sink)
    backend.watch(("a",), ())
    backend.watch(("a",), ())
    assert sink.all("watching") == [["a"], ["a"]]
    backend.publish([])
    backend.publish([Publication("a", b"1"), Publication("b", b"2"), Publication("a", b"3")])
    assert sink.messages == [("a", b"1"), ("a", b"3")]
    assert sink.told[-1] == ("flush", None)
    backend.watch((), ("a",))
    backend.publish([Publication("a", b"4")])
    assert len(sink.messages) == 2
    backend.close()
