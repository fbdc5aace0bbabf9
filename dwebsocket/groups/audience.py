"""The members of one group in one reactor, and the frames that they get."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import NamedTuple, Protocol

from ..connection.connection import Connection
from ..connection.limits import Bound
from ..protocol.deflate import SharedCompression, serialize_once
from ..protocol.messages import Message
from ..websocket import GroupMessage, Translate, WebSocket
from .backend import Kept
from .messages import Envelope
from .node import number_here
from .position import Position

logger = logging.getLogger("dwebsocket")


class Kind(NamedTuple):
    """The features that members share which get the same bytes under the same conditions.

    `translate` None: as it was sent. `is_forwarded` False: the view gets it, not the peer.
    """

    is_forwarded: bool
    translate: Translate | None
    shared: SharedCompression | None
    bound: Bound


class Owner(Protocol):
    """The WebSocket of a member, as far as a lane knows it."""

    @property
    def number(self) -> int:
        """Its number among the WebSockets of this process."""
        ...  # pragma: no cover

    #: Whether the lane has noticed that its peer, or its view, is too slow.
    was_too_slow: bool

    @property
    def websocket(self) -> WebSocket:
        """The WebSocket itself."""
        ...  # pragma: no cover

    @property
    def is_in_several(self) -> bool:
        """Whether it is in more than one group."""
        ...  # pragma: no cover

    def put(self, message: GroupMessage, key: str, bound: Bound) -> int:
        """Let `message` wait for the view; the answer is like that of `Connection.offer()`."""
        ...  # pragma: no cover

    def put_gap(self, group: str) -> None:
        """Let the view know that messages of `group` are missing."""
        ...  # pragma: no cover


class Host(Protocol):
    """The dispatcher of a group, as far as a member knows it."""

    alias: str
    #: Whether a member that gets its messages as they were sent is closed where some are missing of a history.
    closes_on_gap: bool

    def change(self, member: Member, kind: Kind) -> None:
        """Let `member` be of another kind."""
        ...  # pragma: no cover

    def leave(self, member: Member) -> None:
        """Let `member` get nothing any more."""
        ...  # pragma: no cover

    def leave_soon(self, member: Member) -> None:
        """Do so, but wait for nothing."""
        ...  # pragma: no cover

    def absent(self, group: str, socket: str, *, at_once: bool) -> None:
        """Let that WebSocket be present in `group` no longer. Waits for nothing."""
        ...  # pragma: no cover

    def note_soon(self, member: Member) -> None:
        """Tell that `member` was too slow, but wait for nothing."""
        ...  # pragma: no cover


class Member:
    """One WebSocket in one group. `is_in` is false as soon as it has left: then it gets nothing any more."""

    __slots__ = ("audience", "connection", "is_in", "kind", "owner")

    def __init__(self, owner: Owner, audience: Audience, connection: Connection, kind: Kind) -> None:
        self.owner = owner
        self.audience = audience
        self.connection = connection
        self.kind = kind
        self.is_in = True


class Entrance(NamedTuple):
    """A member comes in at this place of the queue: it gets `note`, then what it missed, then all that stands behind.

    `missed` is of `epoch`: the messages as they are kept, for all entrances that wait share them. `done` is called
    then, or where the member has left meanwhile.
    """

    member: Member
    kind: Kind
    note: str | None
    epoch: str
    missed: Sequence[Kept]
    done: Callable[[], None]


def parsed(group: str, messages: Iterable[tuple[Position, bytes]]) -> Iterable[Envelope]:
    """The envelopes of messages with their positions; what is none is logged."""
    for position, payload in messages:
        try:
            yield Envelope.parse(payload, position)
        except ValueError:  # of a newer version, or of another program
            logger.exception("a message to the group %r is no message of this version", group)


class Audience:
    """The members of one group that one reactor serves, ordered by what they have in common."""

    __slots__ = ("_expected", "_members", "_snapshots", "group", "host")

    def __init__(self, group: str, host: Host) -> None:
        self.group = group
        self.host = host
        self._members: dict[Kind, dict[Member, None]] = {}
        self._expected: set[Member] | None = None  # those whose Entrance is still to come
        self._snapshots: list[tuple[Kind, tuple[Member, ...]]] | None = None

    def __bool__(self) -> bool:
        return bool(self._members or self._expected)

    def expect(self, member: Member) -> None:
        """Hold a place for `member`: it gets nothing before its Entrance."""
        if self._expected is None:
            self._expected = set()
        self._expected.add(member)

    def add(self, member: Member) -> None:
        alike = self._members.get(member.kind)
        if alike is None:
            alike = self._members[member.kind] = {}
        elif alike:
            member.kind = next(iter(alike)).kind  # ten thousand that are equal need but one
        alike[member] = None
        self._snapshots = None

    def remove(self, member: Member) -> None:
        if self._expected and member in self._expected:
            self._expected.remove(member)
            return
        alike = self._members[member.kind]
        del alike[member]
        if not alike:
            del self._members[member.kind]
        self._snapshots = None

    def has(self, kind: Kind) -> bool:
        """Whether there is a member of that kind."""
        return kind in self._members

    def kinds(self) -> list[tuple[Kind, tuple[Member, ...]]]:
        """All members as they are now, whatever changes while the caller goes through them."""
        snapshots = self._snapshots
        if snapshots is None:
            snapshots = self._snapshots = [(kind, tuple(members)) for kind, members in self._members.items()]
        return snapshots


class Piece(NamedTuple):
    """One message for members of one kind. `number`: its place among those that have arrived together."""

    number: int
    exclude: int  # the number of the WebSocket that does not get it; 0: none of this process
    key: str
    message: GroupMessage
    frame: bytes  # nothing where the view gets the message


class Burst:
    """Messages of one group that have arrived together. Each is encoded once for every kind of member.

    A function that translates is called once for each message, and what it raises is logged.
    """

    __slots__ = ("_pieces", "_translated", "audience", "envelopes")

    def __init__(self, audience: Audience) -> None:
        self.audience = audience
        self.envelopes: list[tuple[int, Envelope]] = []
        self._pieces: dict[Hashable, list[Piece]] = {}
        self._translated: dict[Translate | None, list[tuple[int, Envelope, GroupMessage, Message]]] = {}

    def pieces(self, kind: Kind) -> list[Piece]:
        """Return the pieces for members of that kind."""
        pieces = self._pieces.get(kind[:3])
        if pieces is None:
            pieces = self._pieces[kind[:3]] = list(self._make(kind))
        return pieces

    def _make(self, kind: Kind) -> Iterable[Piece]:
        group = self.audience.group
        for number, envelope, message, data in self._translate(kind.translate):
            try:
                frame = serialize_once(data, kind.shared) if kind.is_forwarded else b""
                # The key of one group takes the place of no message of another group.
                key = f"{group}\0{envelope.key.decode()}"
                exclude = number_here(envelope.exclude) if envelope.exclude else 0
            except ValueError:  # half a surrogate pair that a function has returned, or an envelope of another program
                logger.exception("a message to the group %r could not be translated", group)
                continue
            yield Piece(number, exclude, key, message, frame)

    def _translate(self, translate: Translate | None) -> list[tuple[int, Envelope, GroupMessage, Message]]:
        translated = self._translated.get(translate)
        if translated is None:
            translated = self._translated[translate] = []
            for number, envelope in self.envelopes:
                try:
                    message = GroupMessage(self.audience.group, envelope.data, envelope.position)
                    data = message.data if translate is None else _checked(translate(message))
                except BaseException:  # SystemExit, too, of a view's function; or of text that is no UTF-8
                    logger.exception("a message to the group %r could not be translated", self.audience.group)
                else:
                    if data is not None:
                        translated.append((number, envelope, message, data))
        return translated


def _checked(data: object) -> Message | None:
    if data is None or isinstance(data, (str, bytes)):
        return data
    raise TypeError(f"the function that translates returns str, bytes or None, not {type(data).__name__}")
