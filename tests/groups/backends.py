"""A backend as a test wants it: it confirms late or never, loses what it has, and comes back."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

from dwebsocket.exceptions import GroupsUnavailable
from dwebsocket.groups.backend import (
    Count,
    GroupsBackend,
    Lapsed,
    Presence,
    Publication,
    Read,
    Renewal,
    Roster,
    Sink,
    Want,
)
from dwebsocket.groups.memory.history import Histories
from dwebsocket.groups.memory.presence import Rosters
from dwebsocket.groups.messages import PRESENCE, RESET, Envelope
from dwebsocket.groups.position import Position

PATH = f"{__name__}.ObedientGroups"
SETTING = {"default": {"BACKEND": PATH}}


class ObedientGroups(GroupsBackend):
    """Reaches this process alone, and pretends to reach all. `made` has the backends that there were, latest last.

    `lost` are the numbers of the servers that are out of reach, `sources` the number of each group's server; others
    have 0. While `announces` is False what is sent is kept, and arrives nowhere. `renewals` are the next answers to
    `renew()`, and `has_lapsed` is whether the lease has run out: until the next `renew()`.
    """

    made: ClassVar[list[ObedientGroups]] = []

    def __init__(self, alias: str, settings: Mapping[str, Any]) -> None:
        super().__init__(alias, settings)
        self.confirms = True
        self.announces = True
        self.lost: set[int] = set()
        self.sources: dict[str, int] = {}
        self.renewals: list[Renewal] = []
        self.has_lapsed = False
        self.opened = 0
        self.is_closed = False
        self.watched: set[str] = set()
        self.published: list[Publication] = []
        self.reads: list[Mapping[str, Want]] = []
        self.attended: list[tuple[Sequence[Presence], Sequence[Presence]]] = []
        self.resigned: list[float] = []
        self._histories = Histories(settings["META_TTL"])
        self._rosters = Rosters()
        self._sink: Sink | None = None
        self._lock = threading.RLock()
        self.made.append(self)

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
        self._sink = sink
        self.opened += 1

    def close(self) -> None:
        self.is_closed = True

    def source_of(self, group: str) -> int:
        return self.sources.get(group, 0)

    def publish(self, publications: Sequence[Publication]) -> list[Position | None]:
        self._reach(*(publication.group for publication in publications))
        with self._lock:
            self.published.extend(publications)
            positions = list(map(self._publish, publications))
        self._flush()
        return positions

    def _publish(self, publication: Publication) -> Position | None:
        group, payload, _, size, ttl_seconds = publication
        position = self._histories.append(group, payload, size, ttl_seconds) if size else None
        self._announce(group, payload, position)
        return position

    def watch(self, add: Collection[str], drop: Collection[str]) -> None:
        self.watched.difference_update(drop)
        self.watched.update(add)
        self._confirm(add)

    def read(self, wants: Mapping[str, Want]) -> dict[str, Read]:
        self._reach(*wants)
        with self._lock:
            self.reads.append(wants)
            return {group: self._histories.read(group, want) for group, want in wants.items()}

    def clear(self, group: str) -> Position:
        self._reach(group)
        with self._lock:
            previous = self._histories.forget(group)
            top = self._histories.read(group, Want()).top
            self._announce(group, Envelope(RESET, str(previous or "").encode()).serialize(), top)
        self._flush()
        return top

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
            notes = [self._rosters.enter(one) for one in enter] + [self._rosters.leave(one) for one in leave]
            for presence, noted in zip((*enter, *leave), notes, strict=True):
                if noted.arrival is not None:
                    self._announce(presence.group, Envelope(PRESENCE, noted.arrival.serialize()).serialize())
        self._flush()
        return [noted.has_changed for noted in notes]

    def roster(self, group: str) -> Roster:
        self._reach(group)
        with self._lock:
            return self._rosters.roster(group)

    def count(self, group: str) -> Count:
        self._reach(group)
        with self._lock:
            return self._rosters.count(group)

    def resign(self, grace_seconds: float) -> None:
        self._reach()
        self.resigned.append(grace_seconds)

    def _reach(self, *groups: str) -> None:
        if self.lost.intersection(map(self.source_of, groups) if groups else (0,)):
            raise GroupsUnavailable("the broker is gone")

    def _announce(self, group: str, payload: bytes, position: Position | None = None) -> None:
        if self.announces and group in self.watched:
            self.sink.message(group, payload, position)

    def _flush(self) -> None:
        if self._sink is not None:
            self._sink.flush()

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
