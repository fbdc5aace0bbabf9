"""The envelope in which a message travels between processes."""

from __future__ import annotations

from typing import NamedTuple

from ..protocol.frames import Close
from ..protocol.messages import Message
from .position import Position

TEXT, BINARY, CLOSE, RESET, PRESENCE = b"t", b"b", b"c", b"r", b"p"
#: Messages are missing; it never travels.
GAP = b""
_KINDS = frozenset((TEXT, BINARY, CLOSE, RESET, PRESENCE))


class Arrival(NamedTuple):
    """One change of a roster: its version from then on, and the user that has come, or gone."""

    version: int
    has_come: bool
    user: str
    info: str

    def serialize(self) -> bytes:
        """The payload of an envelope of the kind PRESENCE."""
        return f"{self.version} {'+' if self.has_come else '-'} {self.user}\0{self.info}".encode()


class Envelope(NamedTuple):
    """A message on its way: what it is, who does not get it, and what it replaces.

    `kind`: TEXT and BINARY carry a message, CLOSE ends the members' connections, RESET begins another epoch of the
    history, PRESENCE tells that a member has come or gone. `exclude` is the member that does not
    get it. `key`: with overflow "latest" it takes the place of an older message with the same key that still waits.
    """

    kind: bytes
    payload: bytes
    exclude: bytes = b""
    key: bytes = b""
    position: str | None = None  # its place in the history; it travels beside the envelope

    def serialize(self) -> bytes:
        """The envelope as bytes, which `parse()` reads."""
        return b"%b %b %d %b%b" % (self.kind, self.exclude, len(self.key), self.key, self.payload)

    @classmethod
    def parse(cls, data: bytes, position: Position | None = None) -> Envelope:
        """The envelope in `data`, which has come with that position.

        ValueError where it holds none, one of a kind that this version does not know, a close that may not be sent, or
        what is no change.
        """
        kind, exclude, size, rest = data.split(b" ", 3)
        if kind not in _KINDS:
            raise ValueError(f"an envelope of the unknown kind {kind!r}")
        key_size = int(size)
        where = None if position is None else str(position)
        envelope = cls(kind, rest[key_size:], exclude, rest[:key_size], where)
        if kind == CLOSE:
            envelope.close().serialize()
        elif kind == RESET:
            envelope.previous()
        elif kind == PRESENCE:
            envelope.arrival()
        return envelope

    def close(self) -> Close:
        """The close code and reason of an envelope of the kind CLOSE."""
        code, _, reason = self.payload.partition(b" ")
        return Close(int(code), reason.decode())

    def previous(self) -> Position | None:
        """The last position before an envelope of the kind RESET; None where that epoch had none."""
        return Position.parse(self.payload.decode())

    def arrival(self) -> Arrival:
        """The change that an envelope of the kind PRESENCE tells."""
        version, sign, rest = self.payload.split(b" ", 2)
        user, info = rest.decode().split("\0", 1)
        return Arrival(int(version), sign == b"+", user, info)

    @property
    def data(self) -> Message:
        """The message itself, as the group's members get it."""
        return self.payload.decode() if self.kind == TEXT else self.payload
