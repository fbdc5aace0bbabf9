"""The history of one group in this process: what arrives is passed on in order, and members come in between."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ...reactors.base import Latch
from ...reactors.clock import monotonic
from .. import page
from ..audience import Entrance, Kind, Member, parsed
from ..backend import Read
from ..messages import GAP, RESET, Envelope
from ..position import Position
from .stream import Asked, Found, Stream

logger = logging.getLogger("dwebsocket")


class Admission:
    """A member that waits for its place, which is `found` first. Once it `is_in`, the latch opens."""

    __slots__ = ("found", "is_in", "is_over", "kind", "latch", "member", "since")

    def __init__(self, member: Member, kind: Kind, since: Position | str | None, latch: Latch) -> None:
        self.member = member
        self.kind = kind
        self.since = since
        self.latch = latch
        self.found: Found | None = None
        self.is_in = False
        self.is_over = False  # it waits no longer

    def come_in(self) -> None:
        self.is_in = True
        self.latch.set()

    def end(self) -> None:
        """Wait no longer: the member has left."""
        self.is_over = True
        self.latch.set()


class Answered(NamedTuple):
    """The outcome of an answer: whether there is a gap, whether something must be read again, and for which members."""

    has_gap: bool
    must_read: bool
    waiting: list[Admission]


class History:
    """Keeps one order: whatever is put to the lanes is put while the lock is held, and nothing waits with it.

    `put_all` puts to every lane that has members, `put` to the one of a member.
    """

    __slots__ = ("_group", "_lock", "_put", "_put_all", "_stream")

    def __init__(
        self,
        group: str,
        stream: Stream,
        put_all: Callable[[Envelope], None],
        put: Callable[[Member, Entrance], None],
    ) -> None:
        self._group = group
        self._stream = stream
        self._put_all = put_all
        self._put = put
        self._lock = threading.RLock()

    def arrive(self, position: Position, payload: bytes) -> bool:
        """Pass a message on, or let it wait; whether something must be read."""
        with self._lock:
            if payload.startswith(RESET):
                previous = next((one.previous() for one in parsed(self._group, [(position, payload)])), None)
                self._stream.reset(position, previous)
            elif self._stream.arrive(position, payload, monotonic()):
                self._pass_on([(position, payload)])
            return not self._stream.is_whole

    def doubt(self) -> None:
        """Messages may be missing: a read must look for them."""
        with self._lock:
            self._stream.doubt()

    def admit(self, admission: Admission, *, was_read: bool = False) -> bool:
        """Let a member in, if its place is known; False: something must be read for it."""
        with self._lock:
            if admission.found is not None:
                return True
            found = self._stream.find(admission.since, monotonic(), was_read=was_read)
            if found is None:
                return False
            admission.found = found
            note = None
            if admission.kind.translate is page.envelope:
                note = page.joined(self._group, str(found.start), found.recovered)
            member, kind = admission.member, admission.kind
            self._put(member, Entrance(member, kind, note, found.start.epoch, found.missed, admission.come_in))
            return True

    def ask(self, admissions: Sequence[Admission]) -> Asked | None:
        """The question that serves all of `admissions`, and brings what is missing.

        None where there is nothing to ask: those who came during a read find here what it has brought.
        """
        with self._lock:
            waiting = [one for one in admissions if not one.is_over and not self.admit(one)]
            if admissions and not waiting and self._stream.is_whole:
                return None
            return self._stream.ask([one.since for one in waiting])

    def is_silent(self, since: float) -> bool:
        """Whether no message has come since then."""
        return self._stream.last_at < since

    def answer(self, read: Read, asked: Asked, admissions: Sequence[Admission]) -> Answered:
        """Take the answer, and let the members in whose places it shows."""
        with self._lock:
            was_read = self._stream.is_current(asked)
            gap, messages = self._stream.mend(read, asked, monotonic())
            if gap is not None:
                self._put_all(Envelope(GAP, b"", position=str(gap)))
            self._pass_on(messages)
            waiting = [one for one in admissions if not one.is_over and not self.admit(one, was_read=was_read)]
            self._stream.settle()
            return Answered(gap is not None, not self._stream.is_whole, waiting)

    def close(self) -> None:
        """Give the memory back: no member is left."""
        with self._lock:
            self._stream.close()

    def _pass_on(self, messages: Iterable[tuple[Position, bytes]]) -> None:
        for envelope in parsed(self._group, messages):
            self._put_all(envelope)
