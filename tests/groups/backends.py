"""A backend as a test wants it: it confirms late or never, loses what it has, and comes back."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

from dwebsocket.exceptions import GroupsUnavailable
from dwebsocket.groups.backend import GroupsBackend, Publication, Sink

PATH = f"{__name__}.ObedientGroups"
SETTING = {"default": {"BACKEND": PATH}}


class ObedientGroups(GroupsBackend):
    """Reaches this process alone, and pretends to reach all. `made` has the backends that there were, latest last."""

    made: ClassVar[list[ObedientGroups]] = []

    def __init__(self, alias: str, settings: Mapping[str, Any]) -> None:
        super().__init__(alias, settings)
        self.confirms = True
        self.is_lost = False
        self.opened = 0
        self.is_closed = False
        self.watched: set[str] = set()
        self.published: list[Publication] = []
        self._sink: Sink | None = None
        self._lock = threading.RLock()
        self.made.append(self)

    @property
    def sink(self) -> Sink:
        assert self._sink is not None
        return self._sink

    def open(self, sink: Sink) -> None:
        self._sink = sink
        self.opened += 1

    def close(self) -> None:
        self.is_closed = True

    def publish(self, publications: Sequence[Publication]) -> None:
        if self.is_lost:
            raise GroupsUnavailable("the broker is gone")
        with self._lock:
            self.published.extend(publications)
            for publication in publications:
                if publication.group in self.watched:
                    self.sink.message(publication.group, publication.payload)
        if self._sink is not None:
            self._sink.flush()

    def watch(self, add: Collection[str], drop: Collection[str]) -> None:
        self.watched.difference_update(drop)
        self.watched.update(add)
        if self.confirms and not self.is_lost:
            self.sink.watching(add)

    # What a test does

    def confirm(self) -> None:
        """Confirm what was not confirmed, and whatever comes."""
        self.confirms = True
        self.sink.watching(list(self.watched))

    def lose(self) -> None:
        """Be out of reach."""
        self.is_lost = True
        self.sink.lost("the test says so")

    def restore(self) -> None:
        """Be back."""
        self.is_lost = False
        self.sink.watching(list(self.watched))
        self.sink.restored()
