"""Pings and the idle timeout: is the peer of an open connection alive, is the connection used? Sans I/O."""

from __future__ import annotations

import enum
import math


class Beat(enum.Enum):
    """An action that is due, by its reason."""

    __hash__ = object.__hash__  # each is one object; Enum would call Python for the hash of its name

    IDLE = "no message has come or gone for idle_timeout seconds"
    PING = "a ping goes out every ping_interval seconds"
    DEAD = "neither a pong nor anything else has come for ping_timeout seconds"


class KeepAlive:
    """The pings of one connection: times go in, beats come out.

    `latency`: seconds between the last ping that was answered and its pong; None before the first. A timeout of None
    is never due.
    """

    __slots__ = (
        "_idle_timeout",
        "_payload",
        "_ping_interval",
        "_ping_timeout",
        "_pinged_at",
        "_waits_since",
        "latency",
    )

    def __init__(
        self, now: float, ping_interval: float | None, ping_timeout: float | None, idle_timeout: float | None
    ) -> None:
        self.latency: float | None = None
        self._ping_interval = math.inf if ping_interval is None else ping_interval
        self._ping_timeout = math.inf if ping_timeout is None else ping_timeout
        self._idle_timeout = math.inf if idle_timeout is None else idle_timeout
        self._pinged_at = now
        self._payload: bytes | None = None  # the payload of the ping that has not been answered
        self._waits_since = now  # when the wait for its pong began

    def beat(self, now: float, last_read_at: float, last_message_at: float) -> Beat | None:
        """Return the beat that is due, if one is. The caller then acts, and reports: `pinged()` or `excuse()`."""
        if last_message_at + self._idle_timeout <= now:
            return Beat.IDLE
        if self._ping_due(last_read_at) > now:
            return None
        return Beat.PING if self._payload is None else Beat.DEAD

    def due(self, last_read_at: float, last_message_at: float) -> float:
        """The time at which `beat()` has a beat, if nothing else happens; infinity for never."""
        return min(last_message_at + self._idle_timeout, self._ping_due(last_read_at))

    def pinged(self, now: float, payload: bytes | None) -> None:
        """Take note of a ping with `payload` that went out; None: it was left out this time."""
        self._pinged_at = self._waits_since = now
        self._payload = payload

    def pong(self, payload: bytes, now: float) -> bool:
        """Take note of a pong with `payload`, read at `now`; True when it answers our ping."""
        if self._payload is None or payload != self._payload:
            return False
        self.latency = now - self._pinged_at
        self._payload = None
        return True

    def excuse(self, now: float) -> None:
        """Wait for the pong anew: the peer was not silent, this side did not read."""
        self._waits_since = now

    def _ping_due(self, last_read_at: float) -> float:
        if self._payload is None:
            return self._pinged_at + self._ping_interval
        return max(self._waits_since, last_read_at) + self._ping_timeout
