"""A backend as a test wants it: it confirms late or never, loses what it has, and comes back."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

from dwebsocket.exceptions import GroupsUnavailable
from dwebsocket.groups.backend import (
    Count,
    Lapsed,
    Presence,
    Publication,
    Read,
    Renewal,
    Roster,
    Sink,
    Want,
)
from dwebsocket.groups.local import LocalGroups
from dwebsocket.groups.position import Position

PATH = f"{__name__}.ObedientGroups"
SETTING = {"default": {"BACKEND": PATH}}


class ObedientGroups(LocalGroups):
    """Reaches this process alone, and pretends to reach all. `made` has the backends that there were, latest last.

    `lost` are the numbers of the servers that are out of reach, `sources` the number of each group's server; others
    have 0. While `announces` is False what is sent is kept, and arrives nowhere. `renewals` are the next answers to
    `renew()`, and `has_lapsed` is whether the lease has run out: until the next `renew()`.
    """

    reaches_all_processes = True
    made: ClassVar[list[ObedientGroups]] = []

    def __init__(self, alias: str, settings: Mapping[str, Any]) -> None:
        super().__init__(alias, {**settings, "LOCATION": ""})
        self.settings = settings
        self.confirms = True
        self.announces = True
        self.lost: set[int] = set()
        self.sources: dict[str, int] = {}
        self.renewals: list[Renewal] = []
        self.has_lapsed = False
        self.opened = 0
        self.is_closed = False
        self.published: list[Publication] = []
        self.reads: list[Mapping[str, Want]] = []
        self.attended: list[tuple[Sequence[Presence], Sequence[Presence]]] = []
        self.resigned: list[float] = []
        self.made.append(self)

    @property
    def watched(self) -> set[str]:
        return self._watched

    @property
    def sink(self) -> Sink:
        assert self._sink is not None
        return self._sink

    @property
    def is_lost(self) -> bool:
        """Whether the server of all groups that have none of their own is out of reach."""
        return 0 in self.lost

    @is_lost.setter
    def is_lost(self, is_lost: bool) -> None:
        self.lost = {0} if is_lost else set()

    def open(self, sink: Sink) -> None:
        super().open(sink)
        self.opened += 1

    def close(self) -> None:
        self.is_closed = True

    def source_of(self, group: str) -> int:
        return self.sources.get(group, 0)

    def publish(self, publications: Sequence[Publication]) -> list[Position | None]:
        self._reach(*(publication.group for publication in publications))
        with self._lock:
            self.published.extend(publications)
            return super().publish(publications)

    def watch(self, add: Collection[str], drop: Collection[str]) -> None:
        self.watched.difference_update(drop)
        self.watched.update(add)
        self._confirm(add)

    def read(self, wants: Mapping[str, Want]) -> dict[str, Read]:
        self._reach(*wants)
        with self._lock:
            self.reads.append(wants)
            return super().read(wants)

    def clear(self, group: str) -> Position:
        self._reach(group)
        return super().clear(group)

    def renew(self) -> Renewal:
        self._reach()
        has_lapsed, self.has_lapsed = self.has_lapsed, False
        return self.renewals.pop(0) if self.renewals else Renewal(has_lapsed)

    def attend(self, enter: Sequence[Presence], leave: Sequence[Presence]) -> list[bool]:
        self._reach(*(presence.group for presence in (*enter, *leave)))
        if self.has_lapsed:
            raise Lapsed
        with self._lock:
            self.attended.append((enter, leave))
            return super().attend(enter, leave)

    def roster(self, group: str) -> Roster:
        self._reach(group)
        return super().roster(group)

    def count(self, group: str) -> Count:
        self._reach(group)
        return super().count(group)

    def resign(self, grace_seconds: float) -> None:
        self._reach()
        self.resigned.append(grace_seconds)

    def _reach(self, *groups: str) -> None:
        if self.lost.intersection(map(self.source_of, groups) if groups else (0,)):
            raise GroupsUnavailable("the broker is gone")

    def _announce(self, group: str, payload: bytes, position: Position | None = None) -> None:
        if self.announces:
            super()._announce(group, payload, position)

    def _confirm(self, groups: Collection[str]) -> None:
        if self.confirms:
            self.sink.watching([group for group in groups if self.source_of(group) not in self.lost])

    # What a test does

    def confirm(self) -> None:
        """Confirm what was not confirmed, and whatever comes."""
        self.confirms = True
        self._confirm(list(self.watched))

    def lose(self, source: int = 0) -> None:
        """Be out of reach: the server of that number."""
        self.lost.add(source)
        self.sink.lost("the test says so", source)

    def restore(self, source: int = 0) -> None:
        """Be back."""
        self.lost.discard(source)
        self.sink.watching([group for group in self.watched if self.source_of(group) == source])
        self.sink.restored(source)

    def begin_epoch(self, group: str) -> None:
        """Lose the history of `group`, and announce nothing: the server was emptied."""
        with self._lock:
            self._histories.forget(group)
            self._histories.read(group, Want())
