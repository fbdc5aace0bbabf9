"""A sink that keeps all it is told, in order."""

from __future__ import annotations

import threading
from collections.abc import Collection
from typing import Any

from dwebsocket.groups.backend import GroupsBackend
from dwebsocket.groups.messages import PRESENCE, RESET, Arrival, Envelope
from dwebsocket.groups.position import Position
from tests.links import until


class Collector:
    """A Sink: `told` is a list of (what, value); a message has its position where it has one."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []
        self._lock = threading.Lock()

    def _tell(self, what: str, value: Any = None) -> None:
        with self._lock:
            self.told.append((what, value))

    def message(self, group: str, payload: bytes, position: Position | None = None) -> None:
        self._tell("message", (group, payload) if position is None else (group, payload, position))

    def flush(self) -> None:
        self._tell("flush")

    def watching(self, groups: Collection[str]) -> None:
        self._tell("watching", sorted(groups))

    def lost(self, why: str, source: int = 0) -> None:
        self._tell("lost", (why, source) if source else why)

    def restored(self, source: int = 0) -> None:
        self._tell("restored", source or None)

    def all(self, what: str) -> list[Any]:
        with self._lock:
            return [value for name, value in self.told if name == what]

    @property
    def messages(self) -> list[Any]:
        return self.all("message")

    def positions(self, group: str) -> list[Position]:
        """Those of the messages of `group` that have one, and of its RESETs."""
        return [message[2] for message in self.messages if message[0] == group and len(message) > 2]

    def arrivals(self, group: str) -> list[Arrival]:
        """The changes of its roster."""
        return [envelope.arrival() for envelope in self._envelopes(group, PRESENCE)]

    def resets(self, group: str) -> list[Position | None]:
        """The last position of each of its epochs that has ended."""
        return [envelope.previous() for envelope in self._envelopes(group, RESET)]

    def _envelopes(self, group: str, kind: bytes) -> list[Envelope]:
        return [
            Envelope.parse(message[1]) for message in self.messages if message[0] == group and message[1][:1] == kind
        ]

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
