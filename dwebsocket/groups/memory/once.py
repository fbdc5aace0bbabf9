"""The publications that are not to be repeated."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from ...reactors.clock import monotonic
from ..backend import ONCE_SECONDS
from ..position import Position


class First(NamedTuple):
    """The publication that a later one with the same `once` repeats: when it was, and its place in the history."""

    at: float
    position: Position | None


class Once:
    """Remembers each publication with `once` for ONCE_SECONDS."""

    def __init__(self) -> None:
        self._firsts: OrderedDict[tuple[str, str], First] = OrderedDict()  # the oldest one first

    def __len__(self) -> int:
        return len(self._firsts)

    def find(self, group: str, once: str) -> First | None:
        """The publication to `group` with this `once`; None where this is the first one."""
        now = monotonic()
        while self._firsts and next(iter(self._firsts.values())).at <= now - ONCE_SECONDS:
            self._firsts.popitem(last=False)
        return self._firsts.get((group, once))

    def note(self, group: str, once: str, position: Position | None) -> None:
        """Remember the first one."""
        self._firsts[group, once] = First(monotonic(), position)

    def forget(self) -> None:
        """Take every publication for the first one again."""
        self._firsts.clear()
