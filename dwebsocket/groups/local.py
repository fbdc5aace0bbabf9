"""Groups within this process."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from .backend import Count, GroupsBackend, Presence, Publication, Read, Renewal, Roster, Sink, Want
from .memory.history import Histories
from .memory.once import Once
from .memory.presence import Attendees
from .messages import PRESENCE, RESET, Envelope
from .position import Position


class LocalGroups(GroupsBackend):
    """Reaches the WebSockets of this process, and needs nothing. What it keeps ends with the process."""

    reaches_all_processes = False

    def __init__(self, alias: str, settings: Mapping[str, Any]) -> None:
        super().__init__(alias, settings)
        if settings["LOCATION"]:
            raise ImproperlyConfigured(
                f"WEBSOCKET_GROUPS[{alias!r}] has a LOCATION, which LocalGroups does not use:"
                " BACKEND is dwebsocket.groups.redis.RedisGroups for Redis"
            )
        self._sink: Sink | None = None
        self._watched: set[str] = set()
        self._once = Once()
        self._histories = Histories(settings["META_TTL"])
        self._attendees = Attendees()
        self._lock = threading.RLock()  # all members of a group see one order, and that is the one of its history

    def open(self, sink: Sink) -> None:
        self._sink = sink

    def close(self) -> None:
        self._sink = None
        self._watched.clear()

    def publish(self, publications: Sequence[Publication]) -> list[Position | None]:
        with self._lock:
            positions = list(map(self._publish, publications))
        self._flush()
        return positions

    def _publish(self, publication: Publication) -> Position | None:
        group, payload, once, size, ttl_seconds = publication
        if once is not None and (first := self._once.find(group, once)):
            return first.position
        position = self._histories.append(group, payload, size, ttl_seconds) if size else None
        if once is not None:
            self._once.note(group, once, position)
        self._announce(group, payload, position)
        return position

    def watch(self, add: Collection[str], drop: Collection[str]) -> None:
        self._watched.difference_update(drop)
        self._watched.update(add)
        for group in drop:
            self._histories.leave(group)  # without the lock: a publisher that holds it may wait for the caller's
        if self._sink is not None:
            self._sink.watching(add)

    def read(self, wants: Mapping[str, Want]) -> dict[str, Read]:
        with self._lock:
            return {group: self._histories.read(group, want) for group, want in wants.items()}

    def clear(self, group: str) -> Position:
        with self._lock:
            previous = self._histories.forget(group)
            top = self._histories.read(group, Want()).top
            self._announce(group, Envelope(RESET, str(previous or "").encode()).serialize(), top)
        self._flush()
        return top

    def renew(self) -> Renewal:
        return Renewal(has_lapsed=False)  # there is no other process that could take this one for dead

    def attend(self, enter: Sequence[Presence], leave: Sequence[Presence]) -> list[bool]:
        with self._lock:
            notes = [self._attendees.enter(one) for one in enter] + [self._attendees.leave(one) for one in leave]
            for presence, noted in zip((*enter, *leave), notes, strict=True):
                if noted.arrival is not None:
                    self._announce(presence.group, Envelope(PRESENCE, noted.arrival.serialize()).serialize())
        self._flush()
        return [noted.has_changed for noted in notes]

    def roster(self, group: str) -> Roster:
        with self._lock:
            return self._attendees.roster(group)

    def count(self, group: str) -> Count:
        with self._lock:
            return self._attendees.count(group)

    def resign(self, grace_seconds: float) -> None:
        if grace_seconds <= 0:  # later, the process is not there any more
            with self._lock:
                self.attend((), self._attendees.present())

    def begin_anew(self) -> None:
        """Drop what was sent with `once`, and the histories and rosters of groups that have no members here.

        A group with members goes on: a test makes a second client while the page of the first one is open.
        """
        with self._lock:
            self._once.forget()
            for kept in (self._histories, self._attendees):
                for group in kept.groups():
                    if group not in self._watched:
                        kept.forget(group)

    def _announce(self, group: str, payload: bytes, position: Position | None = None) -> None:
        sink = self._sink
        if sink is not None and group in self._watched:
            sink.message(group, payload, position)

    def _flush(self) -> None:
        sink = self._sink
        if sink is not None:
            sink.flush()
