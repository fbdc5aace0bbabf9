"""The contract of a backend: how messages travel between processes. It has no policy."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

#: For so long a publication whose `once` was seen for its group does nothing.
ONCE_SECONDS = 300


class Publication(NamedTuple):
    """One message on its way to a group: `payload` is an envelope, `once` its idempotency key."""

    group: str
    payload: bytes
    once: str | None = None


class Finding(NamedTuple):
    """One thing that is wrong with a broker: a sentence, and what to do about it."""

    kind: Literal["unreachable", "buffer", "eviction"]
    what: str
    advice: str


class Sink(Protocol):
    """The ears of a process: a backend tells it what comes.

    Every method may be called from any thread, and never waits or raises.
    """

    def message(self, group: str, payload: bytes) -> None:
        """A message has come. It is passed on at the next `flush()`, or earlier."""
        ...  # pragma: no cover

    def flush(self) -> None:
        """No further message is here now: those that have come may leave together."""
        ...  # pragma: no cover

    def watching(self, groups: Collection[str]) -> None:
        """From now on every message of these groups arrives."""
        ...  # pragma: no cover

    def lost(self, why: str) -> None:
        """Messages may be missing from now on, of all groups, until `restored()`. Told once for each outage."""
        ...  # pragma: no cover

    def restored(self) -> None:
        """All groups that are watched have been confirmed with `watching()` again."""
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

    def publish(self, publications: Sequence[Publication]) -> None:
        """Return when the broker has all of them, in their order.

        GroupsUnavailable after TIMEOUT seconds at the latest: some of them may have been sent or not. A publication
        whose `once` was seen for this group within ONCE_SECONDS does nothing.
        """
        raise NotImplementedError

    def watch(self, add: Collection[str], drop: Collection[str]) -> None:
        """Receive the groups of `add`, and those of `drop` no more. Returns at once; `sink.watching()` is the answer.

        The set of all groups that are wanted survives every outage. A group that is added while it is still received
        is confirmed at once.
        """
        raise NotImplementedError

    def examine(self) -> Iterable[Finding]:
        """Ask the broker what is wrong with it, for `manage.py check --deploy`. Needs no `open()`, and never raises."""
        return ()
