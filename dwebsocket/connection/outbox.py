"""Bytes of a connection that the kernel has not taken. Sans I/O."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right

from ..protocol.exceptions import WebSocketClosed
from .limits import Bound

#: What happens to frames that are offered while as much waits as may: see `Bound`.
OVERFLOWS = ("close", "drop_new", "drop_oldest", "latest")
NO_ROOM = -1
_JOINED_BYTES = 64 * 1024  # small pieces leave together, up to so many bytes in one call of send()
_BEHIND = 1 << 62  # the end of what has no place among the pieces yet; behind all that have


class Offer:
    """Frames that were offered together, and wait. `end`: the mark that their last byte made."""

    __slots__ = ("at", "due", "end", "frames", "key", "max_seconds", "messages", "overflow", "size")

    def __init__(self, frames: bytes, size: int, messages: int, bound: Bound, key: str) -> None:
        self.frames = frames  # empty once they are among the pieces
        self.size = size
        self.messages = messages
        self.overflow = bound.overflow
        self.max_seconds = bound.max_seconds
        self.key = key
        self.end = _BEHIND
        self.at = self.due = math.inf  # offered at; the time at which the peer counts as too slow for it

    def begin(self, now: float, end: int) -> None:
        """Have a place among the pieces, from now on."""
        self.frames = b""
        self.end = end
        self.at = now
        if self.overflow == "close":
            self.due = now + self.max_seconds


def _end(offer: Offer) -> int:
    return offer.end


class Outbox:
    """Bytes that wait, in the order in which they leave. A connection has none as long as the kernel takes everything.

    `mark` counts the bytes that were ever put in, `left` those that have left, or were dropped before them: a sender
    waits until `left` reaches the `mark` that its own bytes made. `waiting`: bytes that can leave now.
    `last_progress_at`: when some last did, or the outbox was made. `error`: raised in a sender when its bytes cannot
    leave any more; None while they may. `overdue_at`: not before this time, `is_overdue()` has something to tell.
    """

    __slots__ = (
        "_begun",
        "_ends",
        "_late_pongs",
        "_latest",
        "_offered",
        "_offers",
        "_pieces",
        "error",
        "last_progress_at",
        "left",
        "mark",
        "overdue_at",
        "waiting",
    )

    def __init__(self, now: float) -> None:
        self.left = self.mark = self.waiting = 0
        self.last_progress_at = now
        self.overdue_at = math.inf
        self.error: type[WebSocketClosed] | None = None
        self._pieces: list[bytes | memoryview] = []
        self._ends: list[int] = []  # for each piece, the mark that its last byte made; where one was dropped, a gap
        self._begun = 0  # up to this mark, bytes have been shown to the kernel
        self._offers: list[Offer] = []  # by their ends; last those that wait for the end of a message in fragments
        self._offered = 0  # their bytes, with those of the first that have left
        self._latest: dict[str, Offer] | None = None  # by their keys
        self._late_pongs = b""

    def put(self, data: bytes, payload: bytes = b"", sent: int = 0) -> None:
        """Let `data` and `payload` leave, but for the first `sent` bytes; after `end()` they are only counted."""
        end = self.mark
        self.mark += len(data) + len(payload) - sent
        if self.error is not None:
            return
        for piece in (data, payload):
            rest = memoryview(piece)[sent:] if sent else piece
            sent = max(0, sent - len(piece))
            if rest:
                end += len(rest)
                self._pieces.append(rest)
                self._ends.append(end)
                self.waiting += len(rest)

    def first(self) -> bytes | memoryview:
        """Return what leaves next: never less than the time before, for TLS must be offered the same bytes again."""
        pieces, ends = self._pieces, self._ends
        if len(pieces) > 1 and len(pieces[0]) + len(pieces[1]) <= _JOINED_BYTES:
            size, count = len(pieces[0]), 1
            while count < len(pieces):
                following = len(pieces[count])
                if size + following > _JOINED_BYTES or ends[count] - following != ends[count - 1]:
                    break
                size += following
                count += 1
            pieces[:count] = [b"".join(pieces[:count])]
            ends[:count] = [ends[count - 1]]
        self._begun = ends[0]
        return pieces[0]

    def sent(self, count: int, now: float) -> None:
        """Take note that the kernel has taken `count` bytes of `first()`."""
        first = self._pieces[0]
        rest = len(first) - count
        self.left = self._ends[0] - rest
        if rest:
            self._pieces[0] = memoryview(first)[count:]
        else:
            self._pieces.pop(0)
            self._ends.pop(0)
        self.waiting -= count
        self.last_progress_at = now
        if self._offers:
            self._forget_what_has_left()

    def offer(self, frames: bytes, messages: int, now: float, bound: Bound, key: str, behind: bool = False) -> None:
        """Let `frames`, which carry so many `messages`, leave; if `behind`, not before `release()`."""
        if not frames or self.error is not None:
            return
        offer = Offer(frames, len(frames), messages, bound, key)
        if not behind:
            self._begin(offer, now)
        self._remember(offer)
        if bound.overflow == "latest":
            if self._latest is None:
                self._latest = {}
            self._latest[key] = offer

    def has_begun(self, size: int, messages: int, now: float, bound: Bound) -> None:
        """Take note that what waits was shown to the kernel, and that its last bytes, `size` at most, were offered."""
        if self.error is not None:
            return
        self._begun = self.mark
        offer = Offer(b"", min(size, self.waiting), messages, bound, "")
        offer.begin(now, self.mark)
        self.overdue_at = min(self.overdue_at, offer.due)
        self._remember(offer)

    def fits(self, size: int, now: float, bound: Bound) -> bool:
        """Whether `size` bytes may wait as well; the first always may, however many they are."""
        if not self._offers:
            return True
        return self._offers[0].at + bound.max_seconds >= now and self._offered_bytes() + size <= bound.max_bytes

    def make_room(self, size: int, now: float, bound: Bound, key: str) -> int:
        """Drop what `size` bytes more need to be dropped. Return how many messages that is, or NO_ROOM: none was."""
        if bound.overflow not in ("drop_oldest", "latest"):
            return 0 if self.fits(size, now, bound) else NO_ROOM
        waiting = self._offered_bytes()
        victims: list[Offer] = []
        twin = self._latest.get(key) if bound.overflow == "latest" and self._latest is not None else None
        if twin is not None and twin.end > self._begun:
            victims.append(twin)
            waiting -= twin.size
        for index in range(bisect_right(self._offers, self._begun, key=_end), len(self._offers)):
            offer = self._offers[index]
            if offer.at + bound.max_seconds >= now and (not waiting or waiting + size <= bound.max_bytes):
                break
            if offer is not twin and offer.overflow in ("drop_oldest", "latest"):
                victims.append(offer)
                waiting -= offer.size
        if waiting and waiting + size > bound.max_bytes:
            return NO_ROOM
        messages = 0
        for offer in victims:
            messages += offer.messages
            self._drop(offer)
        return messages

    def drop_offers(self) -> None:
        """Drop all that was offered and has not begun to leave."""
        for offer in reversed(self._offers[bisect_right(self._offers, self._begun, key=_end) :]):
            self._drop(offer)

    def release(self, now: float, *, drop: bool = False) -> None:
        """Let the frames leave that waited for the end of the message, or drop them."""
        behind = self._offers[bisect_left(self._offers, _BEHIND, key=_end) :]
        for offer in behind:
            if drop:
                self._drop(offer)
            else:
                self._begin(offer, now)

    def is_overdue(self, now: float) -> bool:
        """Whether frames that were offered with "close" have waited for too long."""
        if self.overdue_at <= now:
            self.overdue_at = min([offer.due for offer in self._offers], default=math.inf)
        return self.overdue_at <= now

    def pong_later(self, pongs: bytes) -> None:
        """Keep `pongs` until everything else has left; the latest are enough (5.5.3), so they cost no memory."""
        self._late_pongs = pongs

    def take_late_pongs(self) -> bytes:
        """Return the pongs that waited; each is given once."""
        pongs, self._late_pongs = self._late_pongs, b""
        return pongs

    def end(self, error: type[WebSocketClosed]) -> None:
        """Drop all bytes: nothing leaves any more. The first `error` stays."""
        self.error = self.error or error
        self._pieces.clear()
        self._ends.clear()
        self._offers.clear()
        self._latest = None
        self._late_pongs = b""
        self.waiting = self._offered = 0
        self.overdue_at = math.inf

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do, so that the connection can drop this outbox."""
        return self.error is None and not self.waiting and not self._offers and not self._late_pongs

    def _begin(self, offer: Offer, now: float) -> None:
        frames = offer.frames
        offer.begin(now, self.mark + len(frames))
        self.put(frames)
        self.overdue_at = min(self.overdue_at, offer.due)

    def _remember(self, offer: Offer) -> None:
        self._offers.append(offer)
        self._offered += offer.size

    def _offered_bytes(self) -> int:
        """The bytes that were offered and wait."""
        if not self._offers:
            return 0
        first = self._offers[0]
        return self._offered - max(0, self.left - (first.end - first.size))

    def _forget_what_has_left(self) -> None:
        offers = self._offers
        count = 0
        while count < len(offers) and offers[count].end <= self.left:
            self._offered -= offers[count].size
            self._forget_key(offers[count])
            count += 1
        del offers[:count]

    def _forget_key(self, offer: Offer) -> None:
        if self._latest is not None and self._latest.get(offer.key) is offer:
            del self._latest[offer.key]

    def _drop(self, offer: Offer) -> None:
        """Drop an offer that has not begun to leave. In the marks it leaves a gap, so that those of others stay."""
        if offer.end != _BEHIND:
            index = bisect_left(self._ends, offer.end)
            del self._pieces[index], self._ends[index]
            self.waiting -= offer.size
        self._offers.pop(self._offers.index(offer, bisect_left(self._offers, offer.end, key=_end)))
        self._offered -= offer.size
        self._forget_key(offer)
