"""Fan-out: what has arrived is written to the members, a burst in one send for each."""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial

from ..connection.limits import CLOSED, TAKEN, Bound
from ..protocol.codes import CloseCode
from ..protocol.deflate import serialize_once
from ..reactors.base import Latch, Reactor
from ..reactors.clock import monotonic
from ..websocket import GroupMessage
from . import page
from .audience import Audience, Burst, Entrance, Host, Kind, Member, Owner, Piece, parsed
from .backend import Kept
from .messages import CLOSE, GAP, Envelope
from .position import Position

Part = tuple[Member, Piece]

logger = logging.getLogger("dwebsocket")

_SLICE = 64  # members that are served before others have a turn, if it has come
_BURST = 1000  # messages that are written together at most
_BURST_BYTES = 256 * 1024  # and bytes, but for the last of them: as much may wait in an outbox beyond its bound
_MAX_QUEUED_BYTES = 32 * 1024 * 1024
_ITEM_BYTES = 100  # what a message takes in the queue besides its payload
_CHOOSY = ("latest", "drop_oldest")  # they drop messages one by one
_IF_NOTHING_WAITS = Bound(max_bytes=0, max_seconds=0, overflow="drop_new")
_STAY = (GAP, CLOSE)  # kinds that are never dropped, however much waits
_MAX_RECALLED = 1000  # messages of histories that are kept encoded, for the next one that comes back
_MAX_RECALLED_BYTES = 1024 * 1024

#: What stands in the queue.
Item = Envelope | Entrance


class Lane:
    """The way to the members that one reactor serves: a queue, and a worker that empties it. It waits for no peer.

    One worker keeps the order: all members of a group see the same. `overflowed` is told of the members for whom
    messages were dropped, or whose connections were closed, because they are too slow.
    """

    def __init__(self, reactor: Reactor, overflowed: Callable[[list[Member]], None]) -> None:
        self.reactor = reactor
        self.dropped = 0  # messages for which there was no place in the queue
        # Each may be entered twice by one thread: a signal handler, or a log handler, may send to a group.
        self.lock = threading.RLock()  # held while members are served: one that has left gets nothing any more
        self._overflowed = overflowed
        self._queue: deque[tuple[Audience, Item]] = deque()
        self._queued_bytes = 0
        self._reserved_bytes = 0  # for messages whose senders have waited for their place
        self._errands: deque[Callable[[], None]] = deque()
        self._queue_lock = threading.RLock()
        self._holes: dict[Audience, str | None] = {}  # what has no place, up to the position of the last one
        self._waiting: list[Latch] = []  # of senders that wait until there is place again
        self._slow: list[Member] = []
        self._recalled: dict[tuple[Audience, Hashable], dict[Position, Piece | None]] = {}
        self._recalled_count = self._recalled_bytes = 0
        self.wake = reactor.worker(self._run, "dwebsocket groups")

    # Members

    def enter(self, member: Member) -> None:
        """From now on `member` gets the messages that arrive."""
        with self.lock:
            member.audience.add(member)

    def expect(self, member: Member) -> None:
        """Hold a place for `member`, which gets nothing before its Entrance."""
        with self.lock:
            member.audience.expect(member)

    def change(self, member: Member, kind: Kind) -> None:
        """From the next message on `member` is of another kind."""
        with self.lock:
            if member.is_in:
                member.audience.remove(member)
                member.kind = kind
                member.audience.add(member)

    def leave(self, member: Member) -> bool:
        """From now on `member` gets nothing any more; whether it was in until now."""
        with self.lock:
            if not member.is_in:
                return False
            member.is_in = False
            member.audience.remove(member)
            self._discard_recalled(member.audience, member.kind)
            return True

    # Messages

    def put(self, audience: Audience, item: Item) -> None:
        """Queue `item` for `audience`. It is written when the worker has been woken."""
        size = _size(item)
        with self._queue_lock:
            has_place = self._queued_bytes + size <= _MAX_QUEUED_BYTES or not self._queue
            if isinstance(item, Entrance) or item.kind in _STAY or (has_place and audience not in self._holes):
                self._queued_bytes += size
                self._queue.append((audience, item))
                return
            self.dropped += 1
            begins = audience not in self._holes
            self._holes[audience] = item.position or self._holes.get(audience)
        if begins:
            logger.warning(
                "messages to the group %r come faster than they can be written: some are lost", audience.group
            )

    def _end_holes(self) -> None:
        """Let messages be queued again, behind a gap: so those that came in during the hole are told, too."""
        with self._queue_lock:
            while self._holes:
                audience, position = self._holes.popitem()
                self._queued_bytes += _ITEM_BYTES
                self._queue.append((audience, Envelope(GAP, b"", position=position)))

    def reserve(self, size: int, timeout_seconds: float) -> bool:
        """Return True as soon as the queue has place for `size` bytes, which `release()` ends; False after the time."""
        deadline = monotonic() + timeout_seconds
        while not self._take_place(size):
            latch = self.reactor.latch()
            self._waiting.append(latch)
            if self._take_place(size):  # the worker may have looked for waiting ones just before
                return True
            self.wake()
            latch.wait(max(0.0, deadline - monotonic()))
            if monotonic() >= deadline:
                return self._take_place(size)
        return True

    def release(self, size: int) -> None:
        """End what `reserve()` has begun: the message is in the queue, or will never be."""
        with self._queue_lock:
            self._reserved_bytes -= size

    def _take_place(self, size: int) -> bool:
        with self._queue_lock:
            taken = self._queued_bytes + self._reserved_bytes
            if taken > _MAX_QUEUED_BYTES // 2 or (taken and taken + size > _MAX_QUEUED_BYTES):
                return False
            self._reserved_bytes += size
            return True

    def _has_place(self) -> bool:
        return self._queued_bytes <= _MAX_QUEUED_BYTES // 2

    def soon(self, errand: Callable[[], None]) -> None:
        """Call `errand` in the worker: for a caller that must wait for nothing."""
        self._errands.append(errand)
        self.wake()

    def _run(self) -> None:
        while self._errands or self._queue:
            for step in (self._do_errands, self._serve_queue, self._tell_who_is_slow):
                try:
                    step()
                except Exception:  # the others must be served
                    logger.exception("internal error; messages to groups may be lost")

    def _do_errands(self) -> None:
        while self._errands:
            self._errands.popleft()()
            self.reactor.breathe(monotonic())

    def _serve_queue(self) -> None:
        self._serve(self._take())
        if self._has_place():
            self._end_holes()
            while self._waiting:
                self._waiting.pop().set()

    def _tell_who_is_slow(self) -> None:
        if self._slow:
            slow, self._slow = self._slow, []
            self._overflowed(slow)

    def _take(self) -> list[tuple[Audience, Item]]:
        with self._queue_lock:
            batch: list[tuple[Audience, Item]] = []
            size = 0
            while self._queue and len(batch) < _BURST and size < _BURST_BYTES:
                batch.append(self._queue.popleft())
                size += _size(batch[-1][1])
            self._queued_bytes -= size
        return batch

    def _serve(self, batch: list[tuple[Audience, Item]]) -> None:
        bursts: dict[Audience, Burst] = {}
        for number, (audience, item) in enumerate(batch):
            if isinstance(item, Envelope) and item.kind not in (GAP, CLOSE):
                if audience not in bursts:
                    bursts[audience] = Burst(audience)
                bursts[audience].envelopes.append((number, item))
                continue
            self._write(list(bursts.values()))
            bursts.clear()
            if isinstance(item, Entrance):
                self._admit(audience, item)
            elif item.kind == GAP:
                self._tell_gap(audience, item)
            else:
                self._close(audience, item)
        self._write(list(bursts.values()))

    def _write(self, bursts: list[Burst]) -> None:
        """Write the bursts: in one send for each member, in the order in which the messages came."""
        gathered: dict[Owner, list[Part]] | None = {} if len(bursts) > 1 else None
        for burst in bursts:
            for kind, members in self._members_of(burst.audience):
                if pieces := burst.pieces(kind):
                    self._write_to(members, kind, pieces, gathered)
        for parts in (gathered or {}).values():
            parts.sort(key=lambda part: part[1].number)
            with self.lock:
                self._deliver(parts)
            self.reactor.breathe(monotonic())

    def _members_of(self, audience: Audience) -> list[tuple[Kind, tuple[Member, ...]]]:
        with self.lock:  # another thread may join or leave just now
            return audience.kinds()

    def _write_to(
        self,
        members: tuple[Member, ...],
        kind: Kind,
        pieces: Sequence[Piece],
        gathered: dict[Owner, list[Part]] | None,
    ) -> None:
        excluded = frozenset(piece.exclude for piece in pieces if piece.exclude)
        together, count = b"".join([piece.frame for piece in pieces]), len(pieces)
        bound, key = kind.bound, pieces[0].key
        is_one_offer = kind.is_forwarded and (count == 1 or bound.overflow not in _CHOOSY)
        for start in range(0, len(members), _SLICE):
            with self.lock:
                for member in members[start : start + _SLICE]:
                    if not member.is_in:
                        continue
                    if gathered is not None and member.owner.is_in_several:
                        gathered.setdefault(member.owner, []).extend((member, piece) for piece in pieces)
                    elif not is_one_offer or (excluded and member.owner.number in excluded):
                        self._deliver([(member, piece) for piece in pieces])
                    elif result := member.connection.offer(together, count, bound, key):
                        self._note(member, result)
            self.reactor.breathe(monotonic())

    def _deliver(self, parts: Iterable[Part], bound: Bound | None = None) -> None:
        """Give one WebSocket what it gets of a burst. If nothing waits for its peer, that leaves in one send, too.

        `bound` is that of its kind where there is none.
        """
        for_peer: list[Part] = []
        for_view: list[Part] = []
        for member, piece in parts:
            if member.is_in and not (piece.exclude and piece.exclude == member.owner.number):
                (for_peer if piece.frame else for_view).append((member, piece))
        if len(for_peer) > 1:
            together = b"".join([piece.frame for _, piece in for_peer])
            if for_peer[0][0].connection.offer(together, len(for_peer), _IF_NOTHING_WAITS) == TAKEN:
                for_peer = []
        for member, piece in for_peer:
            if result := member.connection.offer(piece.frame, 1, bound or member.kind.bound, piece.key):
                self._note(member, result)
        for member, piece in for_view:
            self._note(member, member.owner.put(piece.message, piece.key, member.kind.bound))
        if for_view:
            for_view[0][0].connection.notify()

    def _note(self, member: Member, result: int) -> None:
        """Remember a member that is too slow; `result` is that of an offer."""
        if result > 0 or result == CLOSED:
            member.owner.was_too_slow = True
            self._slow.append(member)

    def note_soon(self, member: Member) -> None:
        """Do so for a member whose connection was closed while nothing was offered to it. Waits for nothing."""
        self.soon(partial(self._slow.append, member))

    def _admit(self, audience: Audience, entrance: Entrance) -> None:
        """Let a member in, and give it what it missed, in one send."""
        member, kind, note = entrance.member, entrance.kind, entrance.note
        try:
            if not member.is_in:
                return
            pieces = self._recall(audience, kind, entrance.epoch, entrance.missed)
            if note is not None:
                pieces.insert(0, _piece(audience, kind, note))
            with self.lock:
                if member.is_in:
                    before = member.kind
                    audience.remove(member)
                    member.kind = kind
                    audience.add(member)
                    self._discard_recalled(audience, before)
                    self._deliver([(member, piece) for piece in pieces], _undroppable(kind.bound))
        finally:
            entrance.done()
        self.reactor.breathe(monotonic())

    def _recall(self, audience: Audience, kind: Kind, epoch: str, missed: Sequence[Kept]) -> list[Piece]:
        """The pieces of messages that were sent before: many that come back at once miss the same ones."""
        if not missed:
            return []
        known = self._recalled.setdefault((audience, kind[:3]), {})
        positions = [Position(epoch, kept.offset) for kept in missed]
        fresh = [(at, kept.payload) for at, kept in zip(positions, missed, strict=True) if at not in known]
        if fresh:
            burst = Burst(audience)
            burst.envelopes = list(enumerate(parsed(audience.group, fresh)))
            made = {piece.message.position: piece for piece in burst.pieces(kind)}
            known.update((at, made.get(str(at))) for at, _ in fresh)
            self._recalled_count += len(fresh)
            self._recalled_bytes += sum(len(piece.frame) for piece in made.values())
        pieces = [known[at] for at in positions]
        if self._recalled_count > _MAX_RECALLED or self._recalled_bytes > _MAX_RECALLED_BYTES:
            self._recalled.clear()
            self._recalled_count = self._recalled_bytes = 0
        return [piece for piece in pieces if piece is not None]

    def _discard_recalled(self, audience: Audience, kind: Kind) -> None:
        """Discard what was recalled for members of that kind, where none is left: its function may hold a request."""
        if audience.has(kind):
            return
        pieces = list(self._recalled.pop((audience, kind[:3]), {}).values())  # the worker may add to them just now
        self._recalled_bytes -= sum(len(piece.frame) for piece in pieces if piece is not None)
        self._recalled_count -= len(pieces)

    def _close(self, audience: Audience, envelope: Envelope) -> None:
        """Close the connections of all members."""
        close = envelope.close()
        for _, members in self._members_of(audience):
            for member in members:
                with self.lock:
                    if member.is_in:
                        member.connection.close_soon(*close)
                self.reactor.breathe(monotonic())

    def _tell_gap(self, audience: Audience, envelope: Envelope) -> None:
        """Tell the views, and the pages that understand it, that messages are missing.

        Other pages cannot know. Where there is a history they are closed: so they come back, and load what they need.
        """
        position = envelope.position
        for kind, members in self._members_of(audience):
            is_told = kind.translate is page.envelope and position is not None
            piece = _piece(audience, kind, page.gap(audience.group, position or "")) if is_told else None
            closes = kind.is_forwarded and position is not None and audience.host.closes_on_gap
            for member in members:
                with self.lock:
                    if not member.is_in:
                        continue
                    if piece is not None:
                        self._deliver([(member, piece)])
                    elif closes:
                        member.connection.close_soon(CloseCode.SERVICE_RESTART, "messages are missing")
                    elif not kind.is_forwarded:
                        member.owner.put_gap(audience.group)
                        member.connection.notify()
                self.reactor.breathe(monotonic())


class Assembly:
    """The members of one group in this process: an audience for each lane that serves some of them."""

    __slots__ = ("audiences", "members")

    def __init__(self) -> None:
        self.audiences: tuple[tuple[Lane, Audience], ...] = ()
        self.members = 0

    def audience(self, lane: Lane, group: str, host: Host) -> Audience:
        """The audience that `lane` serves; a new one where there is none."""
        audience = next((audience for at, audience in self.audiences if at is lane), None)
        if audience is None:
            audience = Audience(group, host)
            self.audiences = (*self.audiences, (lane, audience))
        return audience

    def dismiss(self, audience: Audience) -> None:
        """Drop `audience`, if no member is left in it."""
        if not audience:
            self.audiences = tuple(pair for pair in self.audiences if pair[1] is not audience)

    def put(self, item: Item, busy: dict[Lane, None]) -> None:
        """Queue `item` for every audience, and note in `busy` the lanes that must be woken."""
        for lane, audience in self.audiences:
            lane.put(audience, item)
            busy[lane] = None


def _undroppable(bound: Bound) -> Bound:
    """The bound of what a member is told that it has recovered: it gets that, or is closed."""
    return bound if bound.overflow == "close" else bound._replace(overflow="close", max_seconds=math.inf)


def _piece(audience: Audience, kind: Kind, text: str) -> Piece:
    """A text for members of that kind that is no message of the group."""
    frame = serialize_once(text, kind.shared) if kind.is_forwarded else b""
    return Piece(0, 0, f"{audience.group}\0\0", GroupMessage(audience.group, text), frame)


def _size(item: Item) -> int:
    return _ITEM_BYTES + (len(item.payload) if isinstance(item, Envelope) else 0)
