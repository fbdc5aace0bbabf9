"""Who is present in groups."""

from __future__ import annotations

from ..backend import Count, Presence, Present, Roster
from ..messages import Arrival


class _Members:
    """The members of one group: for each user the WebSockets and their infos, the latest last."""

    __slots__ = ("users", "version")

    def __init__(self, version: int) -> None:
        self.version = version
        self.users: dict[str, dict[str, str]] = {}


class Rosters:
    """Keeps who is present in each group, and nothing of a group in which no member is.

    The version of a group that comes back is not below the one that it had: a change of the roster is never taken for
    an older one.
    """

    def __init__(self) -> None:
        self._groups: dict[str, _Members] = {}
        self._version = 0  # of all groups without members; those with members began at it, or below

    def __len__(self) -> int:
        return len(self._groups)

    def groups(self) -> list[str]:
        """The names of all groups that have a member."""
        return list(self._groups)

    def enter(self, presence: Presence) -> Arrival | None:
        """Note that a WebSocket is present, or its new info: the change, where it is the first one of its user."""
        members = self._groups.get(presence.group)
        if members is None:
            members = self._groups[presence.group] = _Members(self._version)
        sockets = members.users.setdefault(presence.user, {})
        is_first = not sockets
        sockets.pop(presence.socket, None)
        sockets[presence.socket] = presence.info
        if not is_first:
            return None
        members.version += 1
        return Arrival(members.version, True, presence.user, presence.info)

    def leave(self, presence: Presence) -> Arrival | None:
        """Note that a WebSocket is no longer present: the change, where it was the last one of its user."""
        members = self._groups.get(presence.group)
        sockets = {} if members is None else members.users.get(presence.user, {})
        info = sockets.pop(presence.socket, None)
        if members is None or info is None or sockets:
            return None
        del members.users[presence.user]
        members.version += 1
        if not members.users:
            del self._groups[presence.group]
            self._version = max(self._version, members.version)
        return Arrival(members.version, False, presence.user, info)

    def roster(self, group: str) -> Roster:
        """Who is present in `group`."""
        members = self._groups.get(group)
        if members is None:
            return Roster(self._version, ())
        return Roster(
            members.version,
            [Present(user, list(sockets.values())[-1], len(sockets)) for user, sockets in members.users.items()],
        )

    def count(self, group: str) -> Count:
        """How many are present in `group`."""
        members = self._groups.get(group)
        users = {} if members is None else members.users
        return Count(sum(map(len, users.values())), len(users))

    def forget(self, group: str) -> None:
        """Take all members of `group` for gone, and announce none: the next change has a version that shows it."""
        self._version = max(self._version, self._groups.pop(group).version + 1)
