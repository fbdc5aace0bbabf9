"""A sink that keeps all it is told, in order."""

from __future__ import annotations

import threading
from collections.abc import Collection
from typing import Any

from dwebsocket.groups.backend import GroupsBackend
from dwebsocket.groups.position import Position
from tests.links import until


class Collector:
    """A Sink: `told` is a list of (what, value)."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []
        self._lock = threading.Lock()

    def _tell(self, what: str, value: Any = None) -> None:
        with self._lock:
            self.told.append((what, value))

    def message(self, group: str, payload: bytes, position: Position | None = None) -> None:
        self._tell("message", (group, payload))

    def flush(self) -> None:
        self._tell("flush")

    def watching(self, groups: Collection[str]) -> None:
        self._tell("watching", sorted(groups))

    def lost(self, why: str, source: int = 0) -> None:
        self._tell("lost", why)

    def restored(self, source: int = 0) -> None:
        self._tell("restored")

    def all(self, what: str) -> list[Any]:
        with self._lock:
            return [value for name, value in self.told if name == what]

    @property
    def messages(self) -> list[tuple[str, bytes]]:
        return self.all("message")

    @property
    def watched(self) -> set[str]:
        return {group for groups in self.all("watching") for group in groups}

    def wait(self, what: str, count: int = 1) -> list[Any]:
        """What was told of it, once it was told `count` times."""
        return until(lambda: found if len(found := self.all(what)) >= count else None, f"{count} x {what}")

    def wait_watched(self, *groups: str) -> None:
        until(lambda: self.watched >= set(groups) or None, f"watching {groups}")


def listen(backend: GroupsBackend, *groups: str) -> Collector:
    """A sink to which these groups come."""
    sink = Collector()
    backend.open(sink)
    backend.watch(groups, [])
    sink.wait_watched(*groups)
    return sink
