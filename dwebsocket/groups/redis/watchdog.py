"""The silence of a connection: when the way of a message is tried, and when it is lost. The wait before an attempt."""

from __future__ import annotations

from . import faults

#: Before an attempt to connect: at most the first, then twice as long each time, up to the second. Full jitter.
FIRST_SECONDS, LONGEST_SECONDS = 0.05, 5.0
WANTED_SECONDS = 0.5  # between two attempts while a view waits that has joined a group: it does so for a few seconds
#: In PROBE: the way is tried so often although messages come, for they may come by a server that is no primary now.
ALTHOUGH_HEARD = 3
#: Probes that are lost one after the other come ever more seldom: at most so many times PROBE.
RARELY = 32


class Watchdog:
    """The silence of one connection. An outage is noticed within `probe` + `timeout` seconds.

    A probe travels as a message does: published through the pool, it comes back to the subscriber. So it notices a
    server that answers PING, and is not the one that publishers reach. A PING notices a server that does not answer.
    """

    def __init__(self, probe: float, timeout: float) -> None:
        self._probe = probe
        self._timeout = timeout
        self._patience = 1  # times `probe`, until the next one
        self._count = 0
        self._latest = 0.0  # when the next one is due, although messages come
        self.reset(0.0)

    def reset(self, now: float) -> None:
        """Watch a new connection."""
        self._latest = now + self._probe * max(self._patience, ALTHOUGH_HEARD)
        self._rest(now)

    def _rest(self, now: float) -> None:
        self._next = min(now + self._probe * self._patience, self._latest)
        self._open: int | None = None  # the probe that is on its way
        self._pong_due: float | None = None
        self._probe_due: float | None = None

    def heard_message(self, now: float) -> None:
        """Note that a message has come, or a probe: the whole way is open."""
        self._patience = 1
        self._rest(now)

    def heard_pong(self) -> None:
        self._pong_due = None

    def published(self, probe: int, now: float) -> None:
        """Note that the server has taken this probe. One that could not be published says nothing about reading."""
        if probe == self._open:  # else it has come back, or another message
            self._probe_due = now + self._timeout

    def due(self) -> float:
        """When to call `look()`."""
        return min((time for time in (self._pong_due, self._probe_due) if time is not None), default=self._next)

    def look(self, now: float) -> int | None:
        """The number of the probe that must leave now, with a PING. Broken where the connection is lost."""
        if self._pong_due is not None and now >= self._pong_due:
            raise faults.Broken(f"it did not answer a PING within {self._timeout:g} s")
        if self._probe_due is not None and now >= self._probe_due:
            self._patience = min(self._patience * 2, RARELY)
            raise faults.Broken(
                f"it took a message, which did not arrive within {self._timeout:g} s: do publishers and subscribers "
                "reach two servers?"
            )
        if now < self._next or self._pong_due is not None or self._probe_due is not None:
            return None
        self._next = now + max(self._probe * self._patience, self._timeout)
        self._latest = now + self._probe * max(self._patience, ALTHOUGH_HEARD)
        self._pong_due = now + self._timeout
        self._count += 1
        self._open = self._count
        return self._count


class Backoff:
    """The waits between attempts to connect, for ever."""

    def __init__(self) -> None:
        self._ceiling = FIRST_SECONDS

    def next(self, fraction: float) -> float:
        """The next wait; `fraction` is a random number from 0 to 1."""
        ceiling = self._ceiling
        self._ceiling = min(ceiling * 2, LONGEST_SECONDS)
        return ceiling * fraction

    def ended(self, seconds: float) -> None:
        """Note how long a connection has lasted: after a long one, the next attempt is soon."""
        if seconds >= LONGEST_SECONDS:
            self._ceiling = FIRST_SECONDS
