"""Bytes of a connection that the kernel has not taken. Sans I/O."""

from __future__ import annotations

from ..protocol.exceptions import WebSocketClosed

#: What happens to frames that are offered while as much waits as may: see `Bound`.
OVERFLOWS = ("close", "drop_new", "drop_oldest", "latest")
_JOINED_BYTES = 64 * 1024  # small pieces leave together, up to so many bytes in one call of send()


class Outbox:
    """Bytes that wait, in the order in which they leave. A connection has none as long as the kernel takes everything.

    `mark` counts the bytes that were ever put in, `left` those that have left: a sender waits until `left` reaches the
    `mark` that its own bytes made. `waiting`: bytes that can leave now. `last_progress_at`: when some last did, or the
    outbox was made. `error`: raised in a sender when its bytes cannot leave any more; None while they may.
    """

    __slots__ = (
        "_behind",
        "_behind_bytes",
        "_late_pongs",
        "_pieces",
        "error",
        "last_progress_at",
        "left",
        "mark",
        "waiting",
    )

    def __init__(self, now: float) -> None:
        self.left = self.mark = self.waiting = 0
        self.last_progress_at = now
        self.error: type[WebSocketClosed] | None = None
        self._pieces: list[bytes | memoryview] = []
        self._behind: list[bytes] = []  # whole frames that wait for the end of a message sent in fragments
        self._behind_bytes = 0
        self._late_pongs = b""

    def put(self, data: bytes, payload: bytes = b"", sent: int = 0) -> None:
        """Let `data` and `payload` leave, but for the first `sent` bytes; after `end()` they are only counted."""
        self.mark += len(data) + len(payload) - sent
        if self.error is not None:
            return
        for piece in (data, payload):
            rest = memoryview(piece)[sent:] if sent else piece
            sent = max(0, sent - len(piece))
            if rest:
                self._pieces.append(rest)
                self.waiting += len(rest)

    def first(self) -> bytes | memoryview:
        """Return what leaves next: never less than the time before, for TLS must be offered the same bytes again."""
        pieces = self._pieces
        if len(pieces) > 1 and len(pieces[0]) + len(pieces[1]) <= _JOINED_BYTES:
            size, count = len(pieces[0]), 1
            while count < len(pieces) and size + len(pieces[count]) <= _JOINED_BYTES:
                size += len(pieces[count])
                count += 1
            pieces[:count] = [b"".join(pieces[:count])]
        return pieces[0]

    def sent(self, count: int, now: float) -> None:
        """Take note that the kernel has taken `count` bytes of `first()`."""
        first = self._pieces[0]
        if count < len(first):
            self._pieces[0] = memoryview(first)[count:]
        else:
            self._pieces.pop(0)
        self.left += count
        self.waiting -= count
        self.last_progress_at = now

    def fits(self, size: int, limit: int) -> bool:
        """Whether `size` bytes may wait as well; the first always may, however many they are."""
        waiting = self.waiting + self._behind_bytes
        return not waiting or waiting + size <= limit

    def put_behind(self, frame: bytes) -> None:
        """Let `frame` wait until the message that is sent in fragments has its end."""
        self._behind.append(frame)
        self._behind_bytes += len(frame)

    def release(self, *, drop: bool = False) -> None:
        """Let the frames leave that waited for the end of the message, or drop them."""
        behind, self._behind, self._behind_bytes = self._behind, [], 0
        for frame in () if drop else behind:
            self.put(frame)

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
        self._behind.clear()
        self._late_pongs = b""
        self.waiting = self._behind_bytes = 0

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do, so that the connection can drop this outbox."""
        return self.error is None and not self.waiting and not self._behind and not self._late_pongs
