"""Answers to messages that have arrived together leave together. Sans I/O."""

from __future__ import annotations

_HELD_BYTES = 16 * 1024  # more than so many do not wait for another answer
_QUICK_SECONDS = 0.00025  # no answer is held longer, and only views are batched that need less for a message


class Batch:
    """The answers that wait for the next one. A connection makes it when a second message first waits.

    Only a view in a tight loop (less than 0.25 ms for a message) is batched. The first answer of a burst, and any that
    took its time, leaves at once. `size`: the bytes that are held.
    """

    __slots__ = ("_held", "_held_since", "_is_quick", "_last_take_at", "size")

    def __init__(self) -> None:
        self.size = 0
        self._held: list[bytes] = []
        self._held_since = 0.0
        self._last_take_at = 0.0  # when a message was taken that had others behind it
        self._is_quick = False  # that message was taken soon after the one before it

    def took(self, now: float) -> None:
        """Take note that a message has been taken that has others behind it."""
        self._is_quick = now - self._last_take_at < _QUICK_SECONDS
        self._last_take_at = now

    def may_hold(self, now: float) -> bool:
        """Whether an answer may wait for the one to the next message, which is here and will be taken at once."""
        return (
            self._is_quick
            and now - (self._held_since if self.size else self._last_take_at) < _QUICK_SECONDS
            and self.size < _HELD_BYTES
        )

    def hold(self, data: bytes, now: float) -> bool:
        """Hold `data` back; True when it is the first: then the caller must arrange that `release()` follows soon."""
        is_first = not self.size
        if is_first:
            self._held_since = now
        self._held.append(data)
        self.size += len(data)
        return is_first

    def release(self, data: bytes) -> bytes:
        """Return all that is held, and `data` behind it."""
        self._held.append(data)
        together = b"".join(self._held)
        self.drop()
        return together

    def drop(self) -> None:
        """Hold nothing any more."""
        self._held.clear()
        self.size = 0
