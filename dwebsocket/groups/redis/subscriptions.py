"""Groups that are wanted, that are received, and that are on their way: a reconciliation, no queue of commands."""

from __future__ import annotations

from collections.abc import Collection, Iterable

#: Names in one SUBSCRIBE or UNSUBSCRIBE.
CHUNK = 512
#: Joins of one moment leave in one SUBSCRIBE.
GATHER_SECONDS = 0.001
#: A page that is loaded again does not unsubscribe.
LINGER_SECONDS = 1.0


class Subscriptions:
    """The table of one process. Times are arguments; a group that is wanted stays so through every outage.

    `linger` is LINGER_SECONDS and a jitter, always the same: so `_leaving` is in order of time.
    """

    def __init__(self, linger: float = LINGER_SECONDS) -> None:
        self._linger = linger
        self._wanted: set[str] = set()
        self._received: set[str] = set()  # confirmed
        self._adding: set[str] = set()  # SUBSCRIBE sent
        self._dropping: set[str] = set()  # UNSUBSCRIBE sent
        self._pending: dict[str, None] = {}  # wanted, and nothing sent; in order
        self._pending_since: float | None = None
        self._leaving: dict[str, float] = {}  # received and no longer wanted: when UNSUBSCRIBE is due
        self._owed: set[str] = set()  # of the time before the outage, and not confirmed again

    def want(self, add: Collection[str], drop: Collection[str], now: float) -> list[str]:
        """Note what is wanted and what no more; returns those of `add` that are received already."""
        for group in drop:
            self._wanted.discard(group)
            self._owed.discard(group)
            self._pending.pop(group, None)
            if group in self._received or group in self._adding:
                self._leaving.pop(group, None)
                self._leaving[group] = now + self._linger
        confirmed = []
        for group in add:
            self._wanted.add(group)
            self._leaving.pop(group, None)
            if group in self._received:
                confirmed.append(group)
            elif group not in self._adding and group not in self._dropping:
                self._pend([group], now)
        return confirmed

    def _pend(self, groups: Iterable[str], now: float) -> None:
        self._pending.update(dict.fromkeys(groups))
        if self._pending and self._pending_since is None:
            self._pending_since = now

    def due(self) -> float | None:
        """When `take()` has something; None for never."""
        times = [next(iter(self._leaving.values()))] if self._leaving else []
        if self._pending_since is not None:
            times.append(self._pending_since + GATHER_SECONDS)
        return min(times, default=None)

    def take(self, now: float) -> tuple[list[list[str]], list[list[str]]]:
        """Chunks of groups to subscribe and to unsubscribe now; they count as sent."""
        add: list[str] = []
        if self._pending_since is not None and now >= self._pending_since + GATHER_SECONDS:
            add = list(self._pending)
            self._adding.update(add)
            self._pending.clear()
            self._pending_since = None
        drop = []
        while self._leaving:
            group, due = next(iter(self._leaving.items()))
            if due > now:
                break
            del self._leaving[group]
            if group in self._adding:  # not confirmed yet: later
                self._leaving[group] = now + self._linger
            else:
                drop.append(group)
        self._received.difference_update(drop)
        self._dropping.update(drop)
        return _chunks(add), _chunks(drop)

    def subscribed(self, groups: Collection[str]) -> list[str]:
        """Note that the server has confirmed SUBSCRIBE; returns those that are still wanted."""
        self._adding.difference_update(groups)
        self._received.update(groups)
        self._owed.difference_update(groups)
        return [group for group in groups if group in self._wanted]

    def unsubscribed(self, groups: Collection[str], now: float) -> None:
        """Note that the server has confirmed UNSUBSCRIBE; what is wanted again is subscribed again."""
        self._dropping.difference_update(groups)
        self._pend([group for group in groups if group in self._wanted], now)

    def reset(self, now: float) -> None:
        """Begin anew on another connection: nothing is received, and all that is wanted is due at once."""
        for held in (self._received, self._adding, self._dropping, self._pending, self._leaving):
            held.clear()
        self._pending_since = None
        self._owed = set(self._wanted)
        self._pend(sorted(self._wanted), now - GATHER_SECONDS)

    @property
    def is_whole(self) -> bool:
        """Whether all that was wanted at `reset()`, and still is, has been confirmed since."""
        return not self._owed

    @property
    def wanted(self) -> frozenset[str]:
        return frozenset(self._wanted)


def _chunks(groups: list[str]) -> list[list[str]]:
    return [groups[start : start + CHUNK] for start in range(0, len(groups), CHUNK)]
