"""The messages that wait for `events()`. Sans I/O."""

from __future__ import annotations

import threading
from collections import deque
from typing import NamedTuple

from ..connection.limits import Bound
from ..websocket import Gap, GroupMessage

#: `put()`: too much waits, and overflow is "close".
FULL = -1

_MESSAGE_BYTES = 200  # what a message takes besides its data


class _Waiting(NamedTuple):
    event: GroupMessage | Gap
    size: int
    key: str
    since: float


class Events:
    """The messages of a WebSocket's groups that its view takes one by one. Where some were dropped, a Gap stands."""

    __slots__ = ("_ends_in_gap", "_gaps", "_lock", "_waiting", "size")

    def __init__(self) -> None:
        self._gaps: dict[str, None] = {}  # groups whose oldest messages were dropped: their Gaps come first
        self._ends_in_gap: set[str] = set()  # groups of which nothing waits behind their last Gap
        self._waiting: deque[_Waiting] = deque()
        self._lock = threading.RLock()  # a lane puts, and the view takes
        self.size = 0

    def __len__(self) -> int:
        return len(self._gaps) + len(self._waiting)

    def take(self) -> GroupMessage | Gap | None:
        """The next one; None when there is none."""
        with self._lock:
            if self._gaps:
                return Gap(self._gaps.popitem()[0])
            if not self._waiting:
                return None
            waiting = self._waiting.popleft()
            self.size -= waiting.size
            if isinstance(waiting.event, Gap):
                self._ends_in_gap.discard(waiting.event.group)
            return waiting.event

    def put(self, message: GroupMessage, key: str, now: float, bound: Bound) -> int:
        """Let `message` wait. How many were dropped in its favour, or itself; FULL where that must not be."""
        size = len(message.data) + _MESSAGE_BYTES
        with self._lock:
            dropped = self._drop_key(key) if bound.overflow == "latest" else 0
            if not self._fits(size, now, bound):
                if bound.overflow == "close":
                    return FULL
                if bound.overflow == "drop_new":
                    self._append_gap(message.group)
                    return 1
                while self._waiting and not self._fits(size, now, bound):
                    dropped += self._drop_oldest()
            self._ends_in_gap.discard(message.group)
            self._append(message, size, key, now)
            return dropped

    def gap(self, group: str) -> None:
        """Let a Gap of `group` wait."""
        with self._lock:
            self._append_gap(group)

    def forget(self, group: str) -> None:
        """Drop what waits of `group`: its member has left."""
        with self._lock:
            self._gaps.pop(group, None)
            self._ends_in_gap.discard(group)
            self._waiting = deque(waiting for waiting in self._waiting if waiting.event.group != group)
            self.size = sum(waiting.size for waiting in self._waiting)

    def _append_gap(self, group: str) -> None:
        if group not in self._ends_in_gap:
            self._ends_in_gap.add(group)
            self._append(Gap(group), _MESSAGE_BYTES, "", float("inf"))

    def _append(self, event: GroupMessage | Gap, size: int, key: str, now: float) -> None:
        self._waiting.append(_Waiting(event, size, key, now))
        self.size += size

    def _fits(self, size: int, now: float, bound: Bound) -> bool:
        if not self._waiting:
            return True
        return self.size + size <= bound.max_bytes and now - self._waiting[0].since <= bound.max_seconds

    def _drop_key(self, key: str) -> int:
        for at, waiting in enumerate(self._waiting):
            if waiting.key == key:
                del self._waiting[at]
                self.size -= waiting.size
                return 1
        return 0

    def _drop_oldest(self) -> int:
        """Drop the first one, and let a Gap of its group come before all that waits; how many messages were dropped."""
        first = self._waiting.popleft()
        self.size -= first.size
        self._gaps[first.event.group] = None
        if isinstance(first.event, Gap):
            self._ends_in_gap.discard(first.event.group)
        return isinstance(first.event, GroupMessage)
