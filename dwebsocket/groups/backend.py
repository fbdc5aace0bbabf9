"""The contract of a backend: how messages travel between processes. It has no policy."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from .position import Position

#: For so long a publication whose `once` was seen for its group does nothing.
ONCE_SECONDS = 300


class Publication(NamedTuple):
    """One message on its way to a group: `payload` is an envelope, `once` its idempotency key.

    `history` is the number of messages that the group keeps, each for `ttl` seconds after the last one; 0: it has no
    history, and this message no position.
    """

    group: str
    payload: bytes
    once: str | None = None
    history: int = 0
    ttl: float = 0.0


class Want(NamedTuple):
    """A question about the history of a group: what came after `since`, and at least the `latest` so many messages.

    The last ones that have `max_bytes` are enough (None: all are wanted): a broker may be spared the others.
    """

    since: Position | None = None
    latest: int = 0
    max_bytes: int | None = None


class Kept(NamedTuple):
    """One message of a history."""

    offset: int
    payload: bytes


class Read(NamedTuple):
    """The answer: the position of the last message, and messages without a hole, the last one last.

    There are none where nothing was wanted, or nothing is kept.
    """

    top: Position
    entries: Sequence[Kept] = ()

    def reaches_back_to(self, since: Position) -> bool:
        """Whether the entries are known to have every message after `since`."""
        if since.epoch != self.top.epoch or since.offset > self.top.offset:
            return False
        first = self.entries[0].offset if self.entries else self.top.offset + 1
        return first <= since.offset + 1


class Presence(NamedTuple):
    """One WebSocket that is present in a group.

    `socket` is its name among those of all processes. WebSockets with the same `user` are one member. `info` is JSON.
    """

    group: str
    socket: str
    user: str
    info: str


class Present(NamedTuple):
    """One member of a roster: the user, the info of its latest WebSocket, and how many it has."""

    user: str
    info: str
    sockets: int


class Departed(NamedTuple):
    """The last WebSocket of a user has gone with its process."""

    group: str
    user: str
    info: str


class Roster(NamedTuple):
    """The members that are present in a group. Each change of them makes `version` one more.

    `departed`: those that this call has removed, because the lease of their process had run out.
    """

    version: int
    members: Sequence[Present]
    departed: Sequence[Departed] = ()


class Count(NamedTuple):
    """The number of members that are present in a group. `departed` as in a Roster."""

    sockets: int
    users: int
    departed: Sequence[Departed] = ()


class Renewal(NamedTuple):
    """The answer to `renew()`: whether the lease had run out, so that nothing of this process is present any more.

    `departed`: users that were present in processes whose lease had run out, and that this call has removed.
    `next_seconds`: when the lease of another process runs out; None where there is no other one.
    """

    has_lapsed: bool
    departed: Sequence[Departed] = ()
    next_seconds: float | None = None


class Lapsed(Exception):
    """The lease of this process has run out: nothing of it is present any more, and nothing was noted."""


class Finding(NamedTuple):
    """One thing that is wrong with a broker: a sentence, and what to do about it."""

    kind: Literal["unreachable", "buffer", "eviction", "durable"]
    what: str
    advice: str


class Sink(Protocol):
    """The ears of a process: a backend tells it what comes.

    Every method may be called from any thread, and never waits or raises.
    """

    def message(self, group: str, payload: bytes, position: Position | None = None) -> None:
        """A message has come; `position` is its place in the history. It is passed on at the next `flush()`.

        Where a history was cleared, an envelope of the kind RESET comes.
        """
        ...  # pragma: no cover

    def flush(self) -> None:
        """No further message is here now: those that have come may leave together."""
        ...  # pragma: no cover

    def watching(self, groups: Collection[str]) -> None:
        """From now on every message of these groups arrives."""
        ...  # pragma: no cover

    def lost(self, why: str, source: int = 0) -> None:
        """Messages may be missing from now on, of all groups of that source, until `restored()`. Told once."""
        ...  # pragma: no cover

    def restored(self, source: int = 0) -> None:
        """All groups of that source that are watched have been confirmed with `watching()` again."""
        ...  # pragma: no cover


class GroupsBackend:
    """The base of backends. One object serves one alias of WEBSOCKET_GROUPS in one process.

    `alias` names it in messages; `settings` is its dict of WEBSOCKET_GROUPS, complete with defaults. The constructor
    checks them, and connects to nothing: ImproperlyConfigured with a sentence that says what to write.

    A backend is forgotten in the child of a fork, and a new one is made: it must not use, and not disturb, the sockets
    of its parent. Several threads and greenlets use it at the same time.
    """

    #: Whether a message reaches the members that other processes hold.
    reaches_all_processes = True

    def __init__(self, alias: str, settings: Mapping[str, Any]) -> None:
        self.alias = alias
        self.settings = settings

    def open(self, sink: Sink) -> None:
        """Begin to receive, and pass everything on to `sink`. Returns at once; only the first call does something."""
        raise NotImplementedError

    def close(self) -> None:
        """Stop receiving, and give every connection back. A closed backend is not used again."""
        raise NotImplementedError

    def source_of(self, group: str) -> int:
        """The number of the server that carries `group`, for `Sink.lost()`: from 0."""
        return 0

    def publish(self, publications: Sequence[Publication]) -> list[Position | None]:
        """Return when the broker has all of them, in their order: the place of each in the history of its group.

        To keep it and to announce it are one: every watching process gets all that is kept, in that order. A
        publication whose `once` was seen for this group within ONCE_SECONDS does nothing, and has the place of the
        first one, or None.

        GroupsUnavailable after TIMEOUT seconds at the latest: some of them may have been sent or not.
        """
        raise NotImplementedError

    def watch(self, add: Collection[str], drop: Collection[str]) -> None:
        """Receive the groups of `add`, and those of `drop` no more. Returns at once; `sink.watching()` is the answer.

        The set of all groups that are wanted survives every outage. A group that is added while it is still received
        is confirmed at once.
        """
        raise NotImplementedError

    def read(self, wants: Mapping[str, Want]) -> dict[str, Read]:
        """Ask for the history of groups. GroupsUnavailable as for `publish()`.

        A position never comes back: where the broker has lost messages that it has announced (it was restarted with
        older data, emptied, or another one took its place), the epoch is another one. A read keeps the epoch alive.
        """
        raise NotImplementedError

    def clear(self, group: str) -> Position:
        """Drop the history of `group`, and begin a new epoch, which is announced. GroupsUnavailable as above."""
        raise NotImplementedError

    # Presence. A process has a lease of LEASE seconds; without it nothing of the process is present.

    def renew(self) -> Renewal:
        """Take a lease, or renew it, and remove what is present in processes that have none any more.

        Each member that is gone is removed, told and announced once, by whichever process finds it.
        GroupsUnavailable as above.
        """
        raise NotImplementedError

    def attend(self, enter: Sequence[Presence], leave: Sequence[Presence]) -> list[bool]:
        """Note who is present, and who no longer: for each, in this order, whether the roster has changed.

        It changes when the first WebSocket of a user enters, and when the last one leaves. To enter again, or with one
        more WebSocket, changes the info of the user. Each change, of an info too, makes the version one more, and is
        announced to the group with an envelope of the kind PRESENCE. Lapsed, GroupsUnavailable.
        """
        raise NotImplementedError

    def roster(self, group: str) -> Roster:
        """Return the members that are present in `group` now. GroupsUnavailable as above."""
        raise NotImplementedError

    def count(self, group: str) -> Count:
        """Return how many are present in `group` now. GroupsUnavailable as above."""
        raise NotImplementedError

    def resign(self, grace_seconds: float) -> None:
        """Let the lease end after `grace_seconds`: this process ends. 0: it leaves every group now.

        GroupsUnavailable as above.
        """
        raise NotImplementedError

    def examine(self) -> Iterable[Finding]:
        """Ask the broker what is wrong with it, for `manage.py check --deploy`. Needs no `open()`, and never raises."""
        return ()
