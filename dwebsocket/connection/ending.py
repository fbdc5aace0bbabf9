"""The end of a connection: its phases, how long each may last, and the step that follows. Sans I/O.

An open connection has no `Ending`. The phase follows from the facts, so that it cannot disagree with them. Two things
are remembered: since when it lasts, and that this process goes away.
"""

from __future__ import annotations

import enum
import math
from typing import NamedTuple

from ..protocol.endpoint import State

#: After so long without a byte from the peer, our stream ends. A proxy cuts its client off when we end it, and bytes
#: that the proxy has not passed on yet are lost.
SILENCE_SECONDS = 0.25
#: After so long without a byte, a peer that does not hang up is cut off, once our stream has ended.
LINGER_SECONDS = 2.0


class Phase(enum.Enum):
    """The phase of a connection on its way to the end."""

    __hash__ = object.__hash__  # each is one object; Enum would call Python for the hash of its name

    HUNG_UP = "the peer has left, and its end waits behind a full inbox"
    DRAINING = "the peer has ended; what it sent before is still being taken"
    CLOSING = "our Close frame is on its way, or the peer's is awaited"
    GOING_AWAY = "as CLOSING, for a process that ends: a silent peer is not waited for"
    SILENCE = "our Close frame is out, and the peer may not have read it yet, and still be sending"
    LINGERING = "our stream has ended; we read until the peer's has"
    OVER = "the socket is not needed any more"


class Step(enum.Enum):
    """The next action of a connection on its way to the end."""

    __hash__ = object.__hash__

    GO_ON = "leave the phase: the end of the peer's stream can be read by now"
    ANSWER = "answer the end of the peer's side, its turn has come"
    DROP_INBOX = "drop the messages that no view came for"
    END_WRITING = "end our stream: all our bytes have left"
    ABORT = "give the connection up"
    DISPOSE = "give the socket back: both streams have ended"


class Facts:
    """The facts on which the end of a connection depends."""

    __slots__ = (
        "close_received",
        "is_owed",
        "is_paused",
        "is_writing",
        "last_progress_at",
        "last_read_at",
        "read_ended",
        "state",
        "write_ended",
    )

    def __init__(
        self,
        state: State,
        is_owed: bool = False,
        is_paused: bool = False,
        is_writing: bool = False,
        write_ended: bool = False,
        read_ended: bool = False,
        close_received: bool = False,
        last_read_at: float = 0.0,
        last_progress_at: float = 0.0,
    ) -> None:
        self.state = state
        self.is_owed = is_owed  # a message waits to be taken, or one that was taken may still be answered
        self.is_paused = is_paused  # reading is paused, for the inbox is full
        self.is_writing = is_writing  # bytes of ours wait for the peer to read
        self.write_ended = write_ended
        self.read_ended = read_ended
        self.close_received = close_received
        self.last_read_at = last_read_at
        self.last_progress_at = last_progress_at  # when bytes that wait last moved on


class Rule(NamedTuple):
    """The step after a phase: after `close_timeout`, or earlier after `silent_seconds` without a byte from the peer."""

    timed_out: Step
    reason: str = "the peer did not finish the closing handshake"
    silent_seconds: float = math.inf
    silent: Step = Step.ABORT


RULES = {
    Phase.HUNG_UP: Rule(Step.ABORT, "the peer has left, and the view did not take what it had sent"),
    Phase.DRAINING: Rule(Step.DROP_INBOX),
    Phase.CLOSING: Rule(Step.ABORT),
    Phase.GOING_AWAY: Rule(Step.ABORT, silent_seconds=LINGER_SECONDS),
    Phase.SILENCE: Rule(Step.ABORT, silent_seconds=SILENCE_SECONDS, silent=Step.END_WRITING),
    Phase.LINGERING: Rule(Step.ABORT, silent_seconds=LINGER_SECONDS),
}


_HUNG_UP, _DRAINING, _CLOSING, _GOING_AWAY = Phase.HUNG_UP, Phase.DRAINING, Phase.CLOSING, Phase.GOING_AWAY
_SILENCE, _LINGERING, _OVER = Phase.SILENCE, Phase.LINGERING, Phase.OVER
_IS_OPEN, _IS_ENDING, _IS_CLOSED = State.OPEN, State.ENDING, State.CLOSED


class Ending:
    """The end of one connection: facts and the time go in, steps come out.

    `since`: when the phase began, or last moved on: bytes of ours left, or the view took a message that came before the
    end. A phase has `close_timeout` seconds from then.
    """

    __slots__ = ("_close_timeout", "phase", "since")

    def __init__(self, now: float, close_timeout: float, phase: Phase = _CLOSING) -> None:
        self.phase = phase
        self.since = now
        self._close_timeout = close_timeout

    @property
    def is_over(self) -> bool:
        """Whether the socket is not needed any more."""
        return self.phase is _OVER

    @property
    def reason(self) -> str:
        """Why the connection is given up when this phase has lasted too long."""
        return RULES[self.phase].reason

    def move(self, now: float, facts: Facts) -> Step | None:
        """The step to take at once; ask again after it. None when there is something to wait for."""
        phase = self._phase_of(facts)
        if phase is not self.phase:
            self.phase, self.since = phase, now
            if phase is _OVER:
                return Step.DISPOSE
        if facts.is_writing:  # bytes on their way out get their time, as long as they move
            self.since = max(self.since, facts.last_progress_at)
        if phase is _DRAINING and not facts.is_owed:
            return Step.ANSWER
        if phase is _SILENCE and (facts.read_ended or facts.close_received):
            return Step.END_WRITING  # the peer sends nothing more
        return None

    def expire(self, now: float, facts: Facts) -> Step | None:
        """The step that is due because of the time alone; None while the phase may last."""
        if self.phase is _OVER:
            return None
        rule = RULES[self.phase]
        if self._silent_at(facts) <= now:
            return rule.silent
        if self._timed_out_at(facts) > now:
            return None
        return Step.GO_ON if self.phase is _HUNG_UP and not facts.is_paused else rule.timed_out

    def due(self, facts: Facts) -> float:
        """The time at which `expire()` has a step, if nothing else happens; infinity when it is over."""
        if self.phase is _OVER:
            return math.inf
        return min(self._silent_at(facts), self._timed_out_at(facts))

    def taken(self, now: float) -> None:
        """A view has taken a message that the peer sent before it ended: a view that comes for them loses none."""
        if self.phase is _HUNG_UP or self.phase is _DRAINING:
            self.since = now

    def hurry(self) -> None:
        """Do not wait for a peer that is silent: this process ends."""
        if self.phase is _CLOSING:
            self.phase = _GOING_AWAY

    def give_up(self) -> None:
        """Move to OVER: the connection is given up, or its socket has been given back."""
        self.phase = _OVER

    def _phase_of(self, facts: Facts) -> Phase:
        if self.phase is _OVER or (facts.read_ended and facts.write_ended):
            return _OVER
        if facts.state is _IS_OPEN:
            return _HUNG_UP
        if facts.state is _IS_ENDING:
            return _DRAINING
        if facts.write_ended:
            return _LINGERING
        if facts.state is _IS_CLOSED and not facts.is_writing:
            return _SILENCE
        return _GOING_AWAY if self.phase is _GOING_AWAY else _CLOSING

    def _silent_at(self, facts: Facts) -> float:
        if facts.is_writing:  # it may be silent because it reads
            return math.inf
        return max(self.since, facts.last_read_at) + RULES[self.phase].silent_seconds

    def _timed_out_at(self, facts: Facts) -> float:
        since = max(self.since, facts.last_progress_at) if facts.is_writing else self.since
        return since + self._close_timeout
