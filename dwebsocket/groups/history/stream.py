"""The history of one group as this process knows it: its position, and the latest messages. Sans I/O.

All members of a group in one process are at the same position: so one read mends a hole for all of them, and the
latest messages serve every page that comes back.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import NamedTuple

from ..backend import Kept, Read, Want
from ..position import START, Position

#: The latest messages that one group, and all of them together, keep in this process.
RING_BYTES = 256 * 1024
ALL_RINGS_BYTES = 32 * 1024 * 1024
#: What waits while messages are missing; beyond that it is read again.
_EARLY_BYTES = 1024 * 1024
_EARLY_MESSAGES = 10_000
_ITEM_BYTES = 150  # what a message takes besides its payload
#: A read brings so many of the latest at least: the others that come back find them here.
READ_AHEAD = 200
_REMEMBERED_EPOCHS = 16
_NOT_KNOWN = -1

_doubts = itertools.count(1)  # of all streams: the answer to a question of one is none for another, of the same group


class Found(NamedTuple):
    """The place at which a member comes in. `recovered`: it misses nothing then; None: it has not asked.

    It gets the messages of `missed`; `start` is the position before them, `position` the one behind them.
    """

    start: Position
    position: Position
    recovered: bool | None
    missed: Sequence[Kept] = ()


class Mended(NamedTuple):
    """The outcome of a read for the members: first a gap, perhaps, with the position behind it; then messages."""

    gap: Position | None = None
    messages: Sequence[tuple[Position, bytes]] = ()


class Asked(NamedTuple):
    """The state in which a question was asked: an answer says nothing about what a later doubt is about."""

    doubts: int  # the number of the latest one
    early: int  # messages that waited
    want: Want

    def expects(self, top: Position) -> int:
        """The offset of the first message of an answer from a broker that has them all."""
        since, latest, _ = self.want
        first = top.offset + 1 if since is None or since.epoch != top.epoch else since.offset + 1
        return max(1, min(first, top.offset - latest + 1))


class Budget:
    """The bytes that the rings of all groups take together."""

    def __init__(self, max_bytes: int = ALL_RINGS_BYTES) -> None:
        self.max_bytes = max_bytes
        self.used = 0


class Ring:
    """The latest messages of one epoch, without a hole; `settle()` bounds them."""

    def __init__(self, max_messages: int, budget: Budget) -> None:
        self._kept: deque[Kept] = deque()
        self._max_messages = max_messages
        self._budget = budget
        self._size = 0

    @property
    def first(self) -> int | None:
        """The offset of the oldest message; None where there is none."""
        return self._kept[0].offset if self._kept else None

    def is_full(self) -> bool:
        """Whether it has as many messages as the history."""
        return len(self._kept) >= self._max_messages

    def append(self, kept: Kept) -> None:
        """Add the next message."""
        self._kept.append(kept)
        self._add(len(kept.payload) + _ITEM_BYTES)
        self.settle()

    def settle(self) -> None:
        """Drop the oldest that are too many."""
        while len(self._kept) > self._max_messages or (
            self._kept and (self._size > RING_BYTES or self._budget.used > self._budget.max_bytes)
        ):
            self._add(-len(self._kept.popleft().payload) - _ITEM_BYTES)

    def _add(self, size: int) -> None:
        self._size += size
        self._budget.used += size

    def replace(self, kept: Sequence[Kept]) -> None:
        """Have these instead, however many."""
        self.clear()
        self._kept.extend(kept)
        self._add(sum(len(one.payload) + _ITEM_BYTES for one in kept))

    def clear(self) -> None:
        """Have none."""
        self._kept.clear()
        self._add(-self._size)

    def close(self) -> None:
        """Have none any more."""
        self._max_messages = 0
        self.clear()

    def after(self, offset: int) -> list[Kept]:
        """The messages behind `offset`."""
        if not self._kept:
            return []
        start = max(0, offset + 1 - self._kept[0].offset)
        return list(itertools.islice(self._kept, start, None))


class Stream:
    """The position of this process in the history of one group, and what must be read.

    `known` is the position up to which the members have got everything. While `is_whole` is false, messages behind it
    may be missing: what arrives waits, until a read has brought the others.
    """

    def __init__(self, history: int, ttl: float, max_missed_bytes: int, budget: Budget) -> None:
        self.known: Position | None = None
        self.is_whole = False
        self._history = history
        self._ttl = ttl
        self._max_missed_bytes = max_missed_bytes
        self._ring = Ring(history, budget)
        self.last_at = 0.0  # when the latest message came
        self._oldest = 1  # the broker has no message with a smaller offset
        self._too_far = _NOT_KNOWN  # an offset: what came after it is more than a member may be given at once
        self._gone: deque[str] = deque(maxlen=_REMEMBERED_EPOCHS)  # epochs that the broker does not have
        self._early: deque[tuple[Position, bytes]] = deque()
        self._early_bytes = 0
        self._doubts = next(_doubts)

    # What comes

    def arrive(self, position: Position, payload: bytes, now: float) -> bool:
        """Note a message; whether the members get it now. What does not fit waits, and `is_whole` is false then."""
        known = self.known
        if self.is_whole and known is not None and position.epoch == known.epoch:
            if position.offset <= known.offset:
                return False
            if position.offset == known.offset + 1:
                self.known = position
                self.last_at = now
                self._ring.append(Kept(position.offset, payload))
                return True
        if self.is_whole:
            self.doubt()
        self._early.append((position, payload))
        self._early_bytes += len(payload)
        if self._early_bytes > _EARLY_BYTES or len(self._early) > _EARLY_MESSAGES:
            self._forget_early()
            self.doubt()
        return False

    def reset(self, position: Position, previous: Position | None) -> None:
        """Note that the history was cleared: `position` begins it anew, behind `previous`."""
        if previous is not None and self.known == previous:
            self._move_to(position)
            self._ring.clear()
            if self.is_whole:
                return
        self.doubt()

    def doubt(self) -> None:
        """Note that messages may be missing: a read must look for them."""
        self.is_whole = False
        self._doubts = next(_doubts)

    def close(self) -> None:
        """Give the memory back: no member is left. A message that another thread brings just now takes none, either."""
        self._ring.close()
        self._forget_early()

    def _forget_early(self) -> None:
        self._early.clear()
        self._early_bytes = 0

    def _move_to(self, position: Position) -> None:
        if self.known is not None and self.known.epoch != position.epoch:
            self._gone.append(self.known.epoch)
        while position.epoch in self._gone:
            self._gone.remove(position.epoch)
        if self.known is None or self.known.epoch != position.epoch:
            self._oldest, self._too_far = 1, _NOT_KNOWN
        self.known = position

    # What is read

    def ask(self, sinces: Iterable[Position | str | None] = ()) -> Asked:
        """The question that brings what is missing, and what members ask for; `mend()` takes it back."""
        behind, most, start = self.known, self._history, None
        if self.is_whole and behind is not None and self._too_far != _NOT_KNOWN:
            start = Position(behind.epoch, self._too_far)
            most = min(most, behind.offset - start.offset)
        latest = 0 if self.is_whole else min(most, READ_AHEAD)
        for since in sinces:
            if self._is_answered_by_top(since):
                continue
            latest = max(latest, most if since == START else min(most, READ_AHEAD))
            if since == START and start is not None:
                since = start
            if isinstance(since, Position) and since.epoch not in self._gone:
                if behind is None or since.epoch == behind.epoch:
                    behind = since if behind is None else min(behind, since)
                else:  # which of the two epochs the broker has is not known
                    latest = self._history
        # Mostly the last position is what is known, and enough; if not, that is a doubt.
        want = Want() if latest == 0 and behind == self.known else Want(behind, latest)
        return Asked(self._doubts, len(self._early), want)

    def _is_answered_by_top(self, since: Position | str | None) -> bool:
        """Whether a question for no messages but those that are new shows the place of a member that was at `since`.

        A page may make a position up, and another one each time: messages would be read in vain. Where the broker has
        another epoch than this process, the answer is a doubt, and then they are read.
        """
        known = self.known
        if known is None or not self.is_whole or not isinstance(since, Position):
            return False
        return since.epoch != known.epoch or since.offset >= known.offset

    def is_current(self, asked: Asked) -> bool:
        """Whether no doubt was raised after the question: else its answer is none."""
        return asked.doubts == self._doubts

    def mend(self, read: Read, asked: Asked, now: float) -> Mended:
        """Take the answer to `ask()`; what the members get now.

        An answer that does not fit raises a doubt first, for messages may be on their way: what arrives from then on
        is put together with the next answer. If there is a hole even then, it is a gap.
        """
        is_check = self.is_whole and not asked.want.latest
        if not self.is_current(asked) or (is_check and read == (self.known, ())):
            return Mended()
        epoch, top = read.top
        known = Position(epoch, top) if self.known is None else self.known
        pool = {position.offset: payload for position, payload in self._early if position.epoch == epoch}
        pool.update(read.entries)
        if epoch == known.epoch and (self.is_whole or known.offset <= top):
            pool.update(self._ring.after(0))
            start = _last(pool, known.offset)
            if start >= top:
                return Mended(messages=self._continue(read, pool, known, asked, now))
        if self.is_whole:
            self.doubt()
            return Mended()
        behind = Position(epoch, _first(pool, _last(pool, top)) - 1)
        return Mended(behind, self._continue(read, pool, behind, asked, now))

    def _continue(
        self, read: Read, pool: Mapping[int, bytes], behind: Position, asked: Asked, now: float
    ) -> list[tuple[Position, bytes]]:
        """Be whole again; the messages behind `behind`, all of which are in `pool`."""
        epoch = read.top.epoch
        top = _last(pool, max(read.top.offset, behind.offset))
        if pool and self.known != (epoch, top):
            self.last_at = now
        self._move_to(Position(epoch, top))
        self._ring.replace([Kept(offset, pool[offset]) for offset in range(_first(pool, top), top + 1)])
        oldest = read.entries[0].offset if read.entries else read.top.offset + 1
        if oldest > asked.expects(read.top):
            self._oldest = oldest
        self.is_whole = True
        messages = [(Position(epoch, offset), pool[offset]) for offset in range(behind.offset + 1, top + 1)]
        # What had come before the question is in the answer, or of an epoch before it.
        later = list(itertools.islice(self._early, asked.early, None))
        self._forget_early()
        return messages + [(position, payload) for position, payload in later if self.arrive(position, payload, now)]

    def settle(self) -> None:
        """Bound the memory again, once all that asked have been served."""
        self._ring.settle()

    # What a member asks for

    def find(self, since: Position | str | None, now: float, *, was_read: bool = False) -> Found | None:
        """The place at which a member comes in that was at `since`. None: that must be read first.

        `was_read`: an answer has come that was asked for after the member had come.
        """
        known = self.known
        if not self.is_whole or known is None:
            return None
        if since is None or (isinstance(since, str) and since != START):
            return Found(known, known, None if since is None else False)
        first = known.offset + 1 if self._ring.first is None else self._ring.first
        if not isinstance(since, Position):
            if was_read or self._ring.is_full() or first <= max(self._oldest, self._too_far + 1):
                return self._from_start(known, now)
            return None
        if since.epoch == known.epoch and first <= since.offset + 1 <= known.offset + 1:
            missed = self._ring.after(since.offset)
            if len(self._fitting(missed)) == len(missed):
                return Found(since, known, True, missed)
            return Found(known, known, False)
        if was_read and since.epoch not in (known.epoch, *self._gone):
            self._gone.append(since.epoch)
        is_too_old = since.epoch == known.epoch and (
            since.offset < max(self._oldest - 1, self._too_far + 1, known.offset - self._history)
        )
        return Found(known, known, False) if was_read or is_too_old or since.epoch in self._gone else None

    def _from_start(self, known: Position, now: float) -> Found:
        """All that is kept, or as much of it as a member may be given at once."""
        kept = self._ring.after(self._oldest - 1) if now - self.last_at < self._ttl else []
        missed = self._fitting(kept[-self._history :])
        return Found(Position(known.epoch, known.offset - len(missed)), known, None, missed)

    def _fitting(self, messages: Sequence[Kept]) -> Sequence[Kept]:
        """The last of `messages`, which reach up to the last position: as many as a member may be given at once."""
        size = 0
        for count, kept in enumerate(reversed(messages)):
            size += len(kept.payload)
            if size > self._max_missed_bytes:
                self._too_far = max(self._too_far, kept.offset - 1)
                return messages[len(messages) - count :]
        return messages


def _last(offsets: Container[int], offset: int) -> int:
    """The last one of those behind `offset` that follow without a hole; `offset` itself where there is none."""
    while offset + 1 in offsets:
        offset += 1
    return offset


def _first(offsets: Container[int], offset: int) -> int:
    """The first one of those up to `offset` that are there without a hole; the one behind it where there is none."""
    offset += 1
    while offset - 1 in offsets:
        offset -= 1
    return offset
