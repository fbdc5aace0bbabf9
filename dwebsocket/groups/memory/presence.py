"""Members that are present in groups."""

from __future__ import annotations

from typing import NamedTuple

from ..backend import Count, Presence, Present, Roster
from ..messages import Arrival


class Noted(NamedTuple):
    """The outcome of an entry: whether a user has come or gone, and what the group is told, another info too."""

    has_changed: bool
    arrival: Arrival | None = None


class _User:
    """One member: its WebSockets, and the info that was entered last."""

    __slots__ = ("info", "sockets")

    def __init__(self) -> None:
        self.info = ""
        self.sockets: set[str] = set()


class _Members:
    """The members of one group."""

    __slots__ = ("users", "version")

    def __init__(self, version: int) -> None:
        self.version = version
        self.users: dict[str, _User] = {}


class Attendees:
    """Keeps who is present in each group, and nothing of a group in which no member is.

    The version of a group that comes back is not below the one that it had: a change of the roster is never taken for
    an older one.
    """

    def __init__(self) -> None:
        self._groups: dict[str, _Members] = {}
        self._version = 0  # of all groups without members; no group that has none had a higher one

    def __len__(self) -> int:
        return len(self._groups)

    def groups(self) -> list[str]:
        """The names of all groups that have a member."""
        return list(self._groups)

    def present(self) -> list[Presence]:
        """All WebSockets that are present, in every group."""
        return [
            Presence(group, socket, user, member.info)
            for group, members in self._groups.items()
            for user, member in members.users.items()
            for socket in member.sockets
        ]

    def enter(self, presence: Presence) -> Noted:
        """Note that a WebSocket is present, and the info of its user."""
        group, socket, user, info = presence
        members = self._groups.get(group)
        if members is None:
            members = self._groups[group] = _Members(self._version)
        is_first = user not in members.users
        member = members.users.setdefault(user, _User())
        member.sockets.add(socket)
        if not is_first and member.info == info:
            return Noted(False)
        member.info = info
        members.version += 1
        return Noted(is_first, Arrival(members.version, True, user, info))

    def leave(self, presence: Presence) -> Noted:
        """Note that a WebSocket is no longer present."""
        group, socket, user, _ = presence
        members = self._groups.get(group)
        member = members.users.get(user) if members else None
        if members is None or member is None or socket not in member.sockets:
            return Noted(False)
        member.sockets.remove(socket)
        if member.sockets:
            return Noted(False)
        del members.users[user]
        members.version += 1
        if not members.users:
            del self._groups[group]
            self._version = max(self._version, members.version)
        return Noted(True, Arrival(members.version, False, user, member.info))

    def roster(self, group: str) -> Roster:
        """Return the members that are present in `group`."""
        members = self._groups.get(group)
        if members is None:
            return Roster(self._version, ())
        present = [Present(user, member.info, len(member.sockets)) for user, member in members.users.items()]
        return Roster(members.version, present)

    def count(self, group: str) -> Count:
        """Return how many are present in `group`."""
        members = self._groups.get(group)
        users = members.users if members else {}
        return Count(sum(len(member.sockets) for member in users.values()), len(users))

    def forget(self, group: str) -> None:
        """Take all members of `group` for gone, and announce none: the next change has a version that shows it."""
        self._version = max(self._version, self._groups.pop(group).version + 1)
