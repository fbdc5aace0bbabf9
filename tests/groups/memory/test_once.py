"""What was sent with `once`, in memory."""

from __future__ import annotations

from unittest import mock

from dwebsocket.groups.backend import ONCE_SECONDS
from dwebsocket.groups.memory import once
from dwebsocket.groups.memory.once import Once
from dwebsocket.groups.position import Position


def test_first_one_is_found_until_its_time_is_over() -> None:
    memory = Once()
    with mock.patch.object(once, "monotonic", return_value=100.0) as clock:
        assert memory.find("a", "k") is None
        memory.note("a", "k", Position("e", 1))
        memory.note("b", "k", None)
        clock.return_value += ONCE_SECONDS - 0.1
        found, other = memory.find("a", "k"), memory.find("b", "k")
        assert found is not None
        assert found.position == Position("e", 1)
        assert other is not None
        assert other.position is None
        assert memory.find("a", "m") is None
        clock.return_value += 0.1
        assert memory.find("c", "k") is None
        assert len(memory) == 0


def test_it_can_be_forgotten() -> None:
    memory = Once()
    memory.note("a", "k", None)
    memory.forget()
    assert memory.find("a", "k") is None
