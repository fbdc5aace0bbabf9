"""Groups within this process."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from ..reactors.clock import monotonic
from .backend import ONCE_SECONDS, GroupsBackend, Publication, Sink


class LocalGroups(GroupsBackend):
    """Reaches the WebSockets of this process, and needs nothing."""

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
        self._once: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._lock = threading.RLock()  # all members of a group see one order

    def open(self, sink: Sink) -> None:
        self._sink = sink

    def close(self) -> None:
        self._sink = None
        self._watched.clear()

    def publish(self, publications: Sequence[Publication]) -> None:
        sink = self._sink
        with self._lock:
            for publication in publications:
                if self._is_new(publication) and sink is not None and publication.group in self._watched:
                    sink.message(publication.group, publication.payload)
        if sink is not None:
            sink.flush()

    def watch(self, add: Collection[str], drop: Collection[str]) -> None:
        self._watched.difference_update(drop)
        self._watched.update(add)
        if self._sink is not None:
            self._sink.watching(add)

    def forget_once(self) -> None:
        """Let a message be sent again though its `once` was seen."""
        with self._lock:
            self._once.clear()

    def _is_new(self, publication: Publication) -> bool:
        if publication.once is None:
            return True
        now = monotonic()
        while self._once and next(iter(self._once.values())) <= now - ONCE_SECONDS:
            self._once.popitem(last=False)
        name = publication.group, publication.once
        if name in self._once:
            return False
        self._once[name] = now
        return True
