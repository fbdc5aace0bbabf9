"""The groups of one process: their members, and what arrives for them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TypeVar

from ..connection.connection import Connection
from ..connection.limits import Bound
from ..exceptions import GroupsUnavailable
from ..reactors.base import Latch, Reactor
from ..reactors.clock import monotonic
from .audience import Audience, Kind, Member, Owner
from .backend import GroupsBackend, Publication
from .lane import GAP, Lane
from .messages import Envelope

T = TypeVar("T")

logger = logging.getLogger("dwebsocket")


class Watched:
    """A group that this process receives."""

    __slots__ = ("audiences", "is_confirmed", "latches", "listener", "members", "was_confirmed")

    def __init__(self) -> None:
        self.audiences: tuple[tuple[Lane, Audience], ...] = ()  # one for each reactor that has members
        self.is_confirmed = False  # by the backend, since the last outage
        self.was_confirmed = False  # ever
        self.latches: dict[Reactor, Latch] = {}  # at which joining views wait for that
        self.listener: Callable[[Envelope], None] | None = None  # of the process itself
        self.members = 0


class Dispatcher:
    """The sink of a backend: it passes each message on to the lanes in which the group has members.

    `overflowed` is told of members that are too slow, `interrupted` after an outage, of how many seconds it took.
    """

    def __init__(
        self,
        backend: GroupsBackend,
        *,
        overflowed: Callable[[list[Member]], None],
        interrupted: Callable[[float], None],
    ) -> None:
        self.backend = backend
        self.alias = backend.alias
        self.received = 0  # messages
        self.bound = Bound(*(backend.settings[name] for name in ("OUTBOX_BYTES", "OUTBOX_SECONDS", "OVERFLOW")))
        self.overflows = 0  # members that were too slow, each time
        self._overflowed = overflowed
        self._interrupted = interrupted
        self._watched: dict[str, Watched] = {}
        self._lanes: dict[Reactor, Lane] = {}
        self._busy: dict[Lane, None] = {}  # lanes that have something to write since the last flush
        self._lock = threading.RLock()  # a backend may confirm a group inside `watch()`
        self._lost_at: float | None = None
        self.outage = ""  # the reason, while the backend is lost

    # Members

    def join(self, owner: Owner, group: str, connection: Connection, kind: Kind) -> Member:
        """Make `owner` a member of `group`. Every message arrives once `wait_for()` has returned True."""
        with self._lock:
            watched = self._watch(group)
            lane = self._lane(connection.reactor)
            audience = next((audience for at, audience in watched.audiences if at is lane), None)
            if audience is None:
                audience = Audience(group, self)
                watched.audiences = (*watched.audiences, (lane, audience))
            member = Member(owner, audience, connection, kind)
            lane.enter(member)
            return member

    def change(self, member: Member, kind: Kind) -> None:
        """From the next message on `member` is of another kind."""
        with self._lock:
            self._lane(member.connection.reactor).change(member, kind)

    def wait_for(self, group: str, reactor: Reactor, timeout_seconds: float) -> bool:
        """Return True when the backend has confirmed `group`; False when that takes longer."""
        deadline = monotonic() + timeout_seconds
        while True:
            with self._lock:
                watched = self._watched.get(group)
                if watched is None or watched.is_confirmed:
                    return watched is not None
                latch = watched.latches.get(reactor)
                if latch is None:
                    latch = watched.latches[reactor] = reactor.latch()
            remaining = deadline - monotonic()
            if remaining <= 0:
                return False
            latch.wait(remaining)

    def leave(self, member: Member) -> None:
        """Let `member` get nothing any more; only the first call does something."""
        group = member.audience.group
        with self._lock:
            if not self._lane(member.connection.reactor).leave(member):
                return
            watched = self._watched[group]
            if not member.audience:
                watched.audiences = tuple(pair for pair in watched.audiences if pair[1] is not member.audience)
            self._watch_no_longer(group, watched)

    def leave_soon(self, member: Member) -> None:
        """Do what `leave()` does, but wait for nothing, not even for a lock."""
        self._lanes[member.connection.reactor].soon(partial(self.leave, member))

    def note_soon(self, member: Member) -> None:
        """Tell that `member` was too slow: its connection was closed while nothing was offered to it."""
        self._lanes[member.connection.reactor].note_soon(member)

    def listen(self, group: str, listener: Callable[[Envelope], None]) -> None:
        """Call `listener`, which must not wait, with each envelope to `group`; for ever."""
        watched = self._watched.get(group)
        if watched is None or watched.listener is None:
            with self._lock:
                self._watch(group).listener = listener

    def _lane(self, reactor: Reactor) -> Lane:
        lane = self._lanes.get(reactor)
        if lane is None:
            lane = self._lanes[reactor] = Lane(reactor, self._overflow)
        return lane

    def _watch(self, group: str) -> Watched:
        watched = self._watched.get(group)
        if watched is None:
            watched = self._watched[group] = Watched()
            try:
                self.backend.open(self)
                self.backend.watch((group,), ())
            except BaseException:  # no descriptor is left, perhaps: the next one tries again
                del self._watched[group]
                raise
        watched.members += 1
        return watched

    def _watch_no_longer(self, group: str, watched: Watched) -> None:
        watched.members -= 1
        if not watched.members:
            del self._watched[group]
            self.backend.watch((), (group,))
            self._open(watched)  # the connection of a view that joins has ended meanwhile: it need not wait

    def watched(self) -> list[str]:
        """The names of all groups that this process receives."""
        with self._lock:
            return list(self._watched)

    @property
    def dropped(self) -> int:
        """The messages that came faster than they could be written."""
        return sum(lane.dropped for lane in list(self._lanes.values()))

    def _overflow(self, members: list[Member]) -> None:
        self.overflows += len(members)
        self._overflowed(members)

    # Sending

    def publish(self, publications: Sequence[Publication]) -> None:
        """Send; GroupsUnavailable when the backend does not take it in time."""
        with ExitStack() as stack:
            if not self.backend.reaches_all_processes:  # no broker holds what comes too fast for the members here
                self._reserve_place(publications, stack)
            self.backend.publish(publications)

    def _reserve_place(self, publications: Sequence[Publication], stack: ExitStack) -> None:
        for publication in publications:
            watched, size = self._watched.get(publication.group), len(publication.payload)
            for lane, _ in () if watched is None else watched.audiences:
                if not lane.reserve(size, self.backend.settings["TIMEOUT"]):
                    raise GroupsUnavailable("messages come faster than they can be written to the members")
                stack.callback(lane.release, size)

    # The sink

    def message(self, group: str, payload: bytes) -> None:
        watched = self._watched.get(group)
        if watched is None:
            return
        self.received += 1
        try:
            envelope = Envelope.parse(payload)
        except ValueError:  # of a newer version, or of another program
            logger.exception("a message to the group %r is no message of this version", group)
            return
        if watched.listener is not None:
            self._call(watched.listener, envelope)
        for lane, audience in watched.audiences:
            lane.put(audience, envelope)
            self._busy[lane] = None

    def flush(self) -> None:
        while self._busy:  # several threads may flush at the same time
            try:
                lane, _ = self._busy.popitem()
            except KeyError:
                return
            lane.wake()

    def watching(self, groups: Collection[str]) -> None:
        with self._lock:
            for group in groups:
                watched = self._watched.get(group)
                if watched is not None:
                    if watched.was_confirmed and self._lost_at is not None:
                        self._tell_gap(watched)
                    watched.is_confirmed = watched.was_confirmed = True
                    self._open(watched)
        self.flush()

    def lost(self, why: str) -> None:
        with self._lock:
            if self._lost_at is None:
                self._lost_at, self.outage = monotonic(), why
            for watched in self._watched.values():
                watched.is_confirmed = False

    def restored(self) -> None:
        with self._lock:
            if self._lost_at is None:
                return
            seconds, self._lost_at, self.outage = monotonic() - self._lost_at, None, ""
        self._call(self._interrupted, seconds)

    def _tell_gap(self, watched: Watched) -> None:
        """Let the members know that messages are missing: now, before the first one that arrives again.

        At `restored()` it would be too late: of many groups some are received while others still wait for that.
        """
        for lane, audience in watched.audiences:
            lane.put(audience, GAP)
            self._busy[lane] = None

    @staticmethod
    def _open(watched: Watched) -> None:
        latches, watched.latches = watched.latches, {}
        for latch in latches.values():
            latch.set()

    @staticmethod
    def _call(function: Callable[[T], None], argument: T) -> None:
        try:
            function(argument)
        except Exception:  # the backend must go on
            logger.exception("%r failed", function)
