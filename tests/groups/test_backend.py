"""The contract of backends, as a project's own class meets it."""

from __future__ import annotations

import pytest

from dwebsocket.groups.backend import GroupsBackend, Publication
from dwebsocket.groups.config import DEFAULTS
from dwebsocket.groups.local import LocalGroups
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
    ):
        with pytest.raises(NotImplementedError):
            call()


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
