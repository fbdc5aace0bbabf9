"""The roster of a group, as this process knows it, and as it has told it to its members. Sans I/O."""

from __future__ import annotations

from collections.abc import Mapping

from .. import page
from ..backend import Present, Roster
from ..messages import Arrival

#: Arrivals that wait for a snapshot at most. The oldest are dropped: then a later snapshot is needed.
MAX_WAITING = 256


class RosterView:
    """Gathers the changes of one roster until `tell()`: all members know one state, that of the last call.

    A page that has `snapshot()` and every text after it knows who is present. The versions of a group never go back,
    so an older snapshot, and an arrival that it has, are ignored; call `lose()` where that may not be so.
    """

    __slots__ = ("_before", "_group", "_members", "_snapshot", "_told_count", "_version", "_waiting")

    def __init__(self, group: str) -> None:
        self._group = group
        self._version: int | None = None
        self._members: dict[str, str] = {}  # the info of each user
        self._waiting: dict[int, Arrival] = {}  # behind a hole, or before the first snapshot
        self._told_count: int | None = None  # of the members, when they were told; None: nothing was told yet
        self._before: dict[str, str | None] = {}  # the told info of users that have changed since; None: not present
        self._snapshot: str | None = None  # of the told state: many pages may join before the next `tell()`

    @property
    def members(self) -> Mapping[str, str]:
        """The info of each user that is present now, as far as this process knows."""
        return self._members

    @property
    def needs_read(self) -> bool:
        """Whether a snapshot is needed: there was none yet, or versions are missing."""
        return self._version is None or bool(self._waiting)

    def read(self, roster: Roster) -> None:
        """Take a snapshot, unless it is older than what is known."""
        if self._version is not None and roster.version < self._version:
            return
        now = {member.user: member.info for member in roster.members}
        for user in [user for user in self._members if user not in now]:
            self._set(user, None)
        for user, info in now.items():
            self._set(user, info)
        self._version = roster.version
        for version in [version for version in self._waiting if version <= roster.version]:
            del self._waiting[version]
        self._take_waiting()

    def arrive(self, arrival: Arrival) -> None:
        """Take a change that comes after the known version; keep a later one until it fits; ignore any other."""
        if self._version is not None and arrival.version <= self._version:
            return
        self._waiting[arrival.version] = arrival
        self._take_waiting()
        if len(self._waiting) > MAX_WAITING:
            del self._waiting[min(self._waiting)]

    def lose(self) -> None:
        """Take the next snapshot, whatever its version is: changes may have been missed, or the broker is another."""
        self._version = None
        self._waiting.clear()

    def tell(self) -> list[str]:
        """The texts that members need who know what was told before; there are none where nothing differs."""
        if self._told_count is None or not self._before:
            return []
        texts = self._differences(self._told_count)
        self._told_count = len(self._members)
        self._before.clear()
        self._snapshot = None
        return texts

    def snapshot(self) -> str:
        """The told state, for a member that joins: the next `tell()` fits it. The first one tells the present state.

        RuntimeError before the first `read()`: nothing is known then.
        """
        if self._told_count is None:
            if self._version is None:
                raise RuntimeError("the roster has not been read yet")
            self._told_count = len(self._members)
        if self._snapshot is None:
            self._snapshot = page.here(self._group, _present({**self._members, **self._before}))
        return self._snapshot

    def _take_waiting(self) -> None:
        while self._version is not None and (arrival := self._waiting.pop(self._version + 1, None)) is not None:
            self._version = arrival.version
            self._set(arrival.user, arrival.info if arrival.has_come else None)

    def _set(self, user: str, info: str | None) -> None:
        """Note the info of `user`, None where it is not present, and whether that differs from what was told."""
        before = self._members.get(user)
        if before == info:
            return
        if info is None:
            del self._members[user]
        else:
            self._members[user] = info
        if self._told_count is not None and self._before.setdefault(user, before) == info:
            del self._before[user]

    def _differences(self, told_count: int) -> list[str]:
        count = len(self._members)
        if count > page.MAX_NAMED:
            return [page.here(self._group, _present(self._members))] if count != told_count else []
        if told_count > page.MAX_NAMED:
            return [page.here(self._group, _present(self._members))]
        now = {user: self._members.get(user) for user in self._before}
        return [page.changes(self._group, _present(now), [user for user, info in now.items() if info is None])]


def _present(infos: Mapping[str, str | None]) -> list[Present]:
    return [Present(user, info, 1) for user, info in infos.items() if info is not None]
