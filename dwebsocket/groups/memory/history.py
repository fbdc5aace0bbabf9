"""The histories of groups."""

from __future__ import annotations

import heapq
import secrets
from collections import OrderedDict, deque

from ...reactors.clock import monotonic
from ..backend import Kept, Read, Want
from ..position import Position

#: So long an epoch without a message lasts after the last member has left: pages may join many groups.
EMPTY_SECONDS = 300.0


class _History:
    """The messages of one group, from the first to the last epoch that this process gave it."""

    __slots__ = ("entries", "epoch", "expires_at", "is_due", "offset", "used_at")

    def __init__(self) -> None:
        self.epoch = secrets.token_hex(6)
        self.offset = 0
        self.entries: deque[Kept] = deque()
        self.expires_at = 0.0  # the entries, together
        self.is_due = False  # it stands among those whose entries expire
        self.used_at = 0.0

    @property
    def top(self) -> Position:
        return Position(self.epoch, self.offset)


class Histories:
    """Keeps the messages of each group for `ttl` seconds after its last one, and its epoch for `meta_ttl_seconds`.

    There is no timer: each use of one history drops what has expired of the others.
    """

    def __init__(self, meta_ttl_seconds: float) -> None:
        self._meta_ttl_seconds = meta_ttl_seconds
        self._histories: OrderedDict[str, _History] = OrderedDict()  # the one that was not used for longest is first
        self._left: deque[tuple[str, float]] = deque()  # groups without a message, and when they were left
        self._due: list[tuple[float, int, _History]] = []  # a heap; a history stands in it once at most

    def __len__(self) -> int:
        return len(self._histories)

    def groups(self) -> list[str]:
        """The names of all groups that have an epoch."""
        return list(self._histories)

    def append(self, group: str, payload: bytes, size: int, ttl_seconds: float) -> Position:
        """Keep `payload`, and no more than the last `size` messages, for `ttl_seconds` from now on."""
        now = monotonic()
        history = self._use(group, now)
        history.offset += 1
        history.entries.append(Kept(history.offset, payload))
        while len(history.entries) > size:
            history.entries.popleft()
        history.expires_at = now + ttl_seconds
        self._await_expiry(history)
        return history.top

    def read(self, group: str, want: Want) -> Read:
        """Return what is wanted of `group`."""
        history = self._use(group, monotonic())
        count = want.latest
        if want.since is not None and want.since.epoch == history.epoch:
            count = max(count, history.offset - want.since.offset)
        if count <= 0:
            return Read(history.top)
        return Read(history.top, tuple(history.entries)[-count:])

    def forget(self, group: str) -> Position | None:
        """Drop the history of `group`: the next use begins another epoch. The last position; None without any."""
        history = self._histories.pop(group, None)
        if history is None:
            return None
        history.entries.clear()  # it may stand in the heap for long
        return history.top

    def leave(self, group: str) -> None:
        """Note that `group` has no member any more. It may be called without the lock of the others."""
        history = self._histories.get(group)
        if history is not None and not history.offset:
            self._left.append((group, monotonic()))

    def _use(self, group: str, now: float) -> _History:
        self._drop_expired(now)
        history = self._histories.get(group)
        if history is None:
            history = self._histories[group] = _History()
        elif history.expires_at <= now:  # it stands in the heap with a `ttl` that was longer
            history.entries.clear()
        history.used_at = now
        self._histories.move_to_end(group)
        return history

    def _drop_expired(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            history = heapq.heappop(self._due)[2]
            history.is_due = False
            if history.expires_at > now:  # a message has come since
                self._await_expiry(history)
            else:
                history.entries.clear()
        while self._left and self._left[0][1] <= now - EMPTY_SECONDS:
            group, left_at = self._left.popleft()
            left = self._histories.get(group)
            if left is not None and not left.offset and left.used_at <= left_at:  # none has come since
                self.forget(group)
        while self._histories:
            group, oldest = next(iter(self._histories.items()))
            if oldest.used_at > now - self._meta_ttl_seconds:
                return
            self.forget(group)

    def _await_expiry(self, history: _History) -> None:
        if not history.is_due:
            history.is_due = True
            heapq.heappush(self._due, (history.expires_at, id(history), history))
