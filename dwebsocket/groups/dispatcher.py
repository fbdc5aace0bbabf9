"""The groups of one process: their members, and what arrives for them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TypeVar

from ..connection.connection import Connection
from ..connection.limits import Bound
from ..exceptions import GroupsUnavailable
from ..reactors.base import Latch, Reactor
from ..reactors.clock import monotonic
from .audience import Entrance, Kind, Member, Owner
from .backend import Count, Departed, GroupsBackend, Presence, Present, Publication, Read, Roster, Want
from .history.history import Admission, History
from .history.reader import Reader
from .history.stream import Asked, Budget, Found, Stream
from .lane import Assembly, Item, Lane
from .messages import BINARY, CLOSE, GAP, PRESENCE, TEXT, Envelope
from .position import Position
from .presence.attendance import Attendance, Changed
from .presence.rosters import Rosters

T = TypeVar("T")

logger = logging.getLogger("dwebsocket")

_READ_BYTES = 8 * 1024 * 1024  # of one history: 100 MB take a broker nearly the 2 s of TIMEOUT


class Watched(Assembly):
    """A group that this process receives."""

    __slots__ = ("has_complained", "history", "is_confirmed", "latches", "listener", "source", "was_confirmed")

    def __init__(self, source: int) -> None:
        super().__init__()
        self.source = source  # the server that carries it
        self.history: History | None = None
        self.has_complained = False  # of a message without a position, although there is a history
        self.is_confirmed = False  # by the backend, since the last outage
        self.was_confirmed = False  # ever
        self.latches: dict[Reactor, Latch] = {}  # at which joining views wait for that
        self.listener: Callable[[Envelope], None] | None = None  # of the process itself


class Dispatcher:
    """The sink of a backend: it passes each message on to the lanes in which the group has members.

    `overflowed` is told of members that are too slow, `interrupted` after an outage, of how many seconds it took,
    `changed` of members that have come, or gone, by a group.
    """

    def __init__(
        self,
        backend: GroupsBackend,
        *,
        overflowed: Callable[[list[Member]], None],
        interrupted: Callable[[float], None],
        changed: Changed,
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
        self._lost_at: dict[int, float] = {}  # by source
        self._outages: dict[int, str] = {}  # the reasons
        self.closes_on_gap = backend.settings["ON_GAP"] == "close"
        self._budget = Budget()
        self._readers: dict[int, Reader] = {}  # by source: one that is out of reach delays no other
        self._attendance: Attendance | None = None
        self._changed = changed
        self._rosters = Rosters(self.alias, self.roster, self._lane)

    def use(self, backend: GroupsBackend) -> None:
        """Have another backend from now on: for tests."""
        self.backend = backend
        if self._attendance is not None:
            self._attendance.use(backend)

    def close(self) -> None:
        """Receive nothing any more, and give every connection back."""
        with self._lock:
            for reader in self._readers.values():
                reader.close()
        self._rosters.close()
        self.resign()
        self.backend.close()

    def outage_of(self, group: str) -> str:
        """The reason why the backend is lost to `group`; "" where it is not."""
        return self._outages.get(self.backend.source_of(group), "")

    # Members

    def join(
        self, owner: Owner, group: str, connection: Connection, kind: Kind, history: int = 0, ttl: float = 0.0
    ) -> Member:
        """Make `owner` a member of `group`. Every message arrives once `wait_for()` has returned True.

        With a `history` it does so once `admit()` has returned.
        """
        with self._lock:
            watched = self._watch(group)
            try:
                return self._enter(watched, owner, connection, kind, history, ttl, group)
            except BaseException:  # a timeout of the view's own, while the lane was busy: no member is there to leave
                self._watch_no_longer(group, watched)
                raise

    def _enter(
        self,
        watched: Watched,
        owner: Owner,
        connection: Connection,
        kind: Kind,
        history: int,
        ttl: float,
        group: str,
    ) -> Member:
        lane = self._lane(connection.reactor)
        member = Member(owner, watched.audience(lane, group, self), connection, kind)
        if not history:
            lane.enter(member)
            return member
        lane.expect(member)
        if watched.history is None:
            watched.history = self._history(group, watched, history, ttl)
        return member

    def admit(self, member: Member, kind: Kind, since: Position | str | None, timeout_seconds: float) -> Found | None:
        """Let a member in that has joined a group with a history, where it was; None when that takes longer."""
        group, reactor = member.audience.group, member.connection.reactor
        watched = self._watched.get(group)
        if watched is None or watched.history is None:  # its connection has ended meanwhile
            return None
        admission = Admission(member, kind, since, reactor.latch())
        deadline = monotonic() + timeout_seconds
        if not watched.history.admit(admission):
            self._read(group, watched, [admission])
        try:
            while not (admission.is_in or admission.is_over) and (remaining := deadline - monotonic()) > 0:
                admission.latch.wait(remaining)
        finally:
            admission.is_over = True
        return admission.found if admission.is_in else None

    def _history(self, group: str, watched: Watched, history: int, ttl: float) -> History:
        stream = Stream(history, ttl, self.backend.settings["OUTBOX_BYTES"] // 2, self._budget)

        def put_all(item: Item) -> None:
            watched.put(item, self._busy)

        def put(member: Member, entrance: Entrance) -> None:
            lane = self._lanes[member.connection.reactor]
            lane.put(member.audience, entrance)
            lane.wake()

        return History(group, stream, put_all, put)

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
            watched.dismiss(member.audience)
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

    # Presence

    def attend(self, presence: Presence, reactor: Reactor) -> None:
        """Let a member be present. Waits for the backend: GroupsUnavailable."""
        if self._attendance is None:
            with self._lock:
                if self._attendance is None:
                    self._attendance = Attendance(self.backend, self._changed)
        self._attendance.enter(presence, reactor.latch())

    def absent(self, group: str, socket: str, *, at_once: bool) -> None:
        """Let a member be present no longer, if it was: after GRACE seconds, or at once. Waits for nothing."""
        if self._attendance is not None:
            self._attendance.leave(group, socket, at_once)

    def tell_roster(self, owner: Owner, group: str, connection: Connection, kind: Kind) -> Member:
        """Let `owner` be told who is present in `group`. Waits for the backend: GroupsUnavailable."""
        return self._rosters.join(owner, group, connection, kind)

    def roster(self, group: str) -> Roster:
        """Return the members that are present in `group` now. GroupsUnavailable."""
        roster = self.backend.roster(group)
        self._tell_departed(roster.departed)
        return roster

    def count(self, group: str) -> Count:
        """Return how many are present in `group` now. GroupsUnavailable."""
        count = self.backend.count(group)
        self._tell_departed(count.departed)
        return count

    def resign(self) -> None:
        """Let all members be present no longer, after GRACE seconds: pages come back to another process meanwhile."""
        if self._attendance is not None:
            self._attendance.close(self.backend.settings["GRACE"])

    def _tell_departed(self, departed: Sequence[Departed]) -> None:
        for group, user, info in departed:
            self._changed(group, [], [Present(user, info, 0)])

    def _lane(self, reactor: Reactor) -> Lane:
        lane = self._lanes.get(reactor)
        if lane is None:
            lane = self._lanes[reactor] = Lane(reactor, self._overflow)
        return lane

    def _watch(self, group: str) -> Watched:
        watched = self._watched.get(group)
        if watched is None:
            watched = self._watched[group] = Watched(self.backend.source_of(group))
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
            if watched.history is not None:
                watched.history.close()
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

    def publish(self, publications: Sequence[Publication]) -> list[Position | None]:
        """Send; GroupsUnavailable when the backend does not take it in time."""
        with ExitStack() as stack:
            if not self.backend.reaches_all_processes:  # no broker holds what comes too fast for the members here
                self._reserve_place(publications, stack)
            return self.backend.publish(publications)

    def _reserve_place(self, publications: Sequence[Publication], stack: ExitStack) -> None:
        for publication in publications:
            watched, size = self._watched.get(publication.group), len(publication.payload)
            for lane, _ in () if watched is None else watched.audiences:
                if not lane.reserve(size, self.backend.settings["TIMEOUT"]):
                    raise GroupsUnavailable("messages come faster than they can be written to the members")
                stack.callback(lane.release, size)

    # The sink

    def message(self, group: str, payload: bytes, position: Position | None = None) -> None:
        watched = self._watched.get(group)
        if watched is None:
            return
        self.received += 1
        if position is not None and watched.history is not None:
            if watched.history.arrive(position, payload):
                self._read(group, watched)
            return
        try:
            envelope = Envelope.parse(payload, position)
        except ValueError:  # of a newer version, or of another program
            logger.exception("a message to the group %r is no message of this version", group)
            return
        if envelope.kind not in (TEXT, BINARY, CLOSE):
            if envelope.kind == PRESENCE:
                self._rosters.arrive(group, envelope.arrival())
            return
        if watched.history is not None and envelope.kind != CLOSE and not watched.has_complained:
            watched.has_complained = True
            logger.warning("a message to the group %r was sent by a process that has not declared its history", group)
        if watched.listener is not None:
            self._call(watched.listener, envelope)
        watched.put(envelope, self._busy)

    # Histories

    def _read(self, group: str, watched: Watched, admissions: Sequence[Admission] = ()) -> None:
        reader = self._readers.get(watched.source)
        if reader is None:
            with self._lock:
                reader = self._readers.setdefault(watched.source, self._reader(watched.source))
        reader.want(group, admissions)

    def _reader(self, source: int) -> Reader:
        return Reader(
            self._read_from_backend,
            self._ask,
            self._answer,
            lambda: self._silent(source),
            check_seconds=self.backend.settings["CHECK"],
            is_at_once=not self.backend.reaches_all_processes,
        )

    def _read_from_backend(self, wants: Mapping[str, Want]) -> Mapping[str, Read]:
        """Read no more than is of use to a member, nor than a broker can send in time: others wait for it meanwhile."""
        max_bytes = max(_READ_BYTES, self.backend.settings["OUTBOX_BYTES"])
        return self.backend.read({group: want._replace(max_bytes=max_bytes) for group, want in wants.items()})

    def _silent(self, source: int) -> list[str]:
        """The groups whose last message may have been missed: no later one would show it."""
        since = monotonic() - self.backend.settings["CHECK"]
        with self._lock:
            found = [(group, one.history) for group, one in self._watched.items() if one.source == source]
        return [group for group, history in found if history is not None and history.is_silent(since)]

    def _ask(self, group: str, admissions: Sequence[Admission]) -> Asked | None:
        watched = self._watched.get(group)
        for admission in admissions:
            if watched is None or not admission.member.is_in:
                admission.end()
        return None if watched is None or watched.history is None else watched.history.ask(admissions)

    def _answer(self, group: str, read: Read, asked: Asked, admissions: Sequence[Admission]) -> bool:
        watched = self._watched.get(group)
        if watched is None or watched.history is None:
            for admission in admissions:
                admission.end()
            return False
        has_gap, must_read, waiting = watched.history.answer(read, asked, admissions)
        self.flush()
        if must_read or waiting:
            self._read(group, watched, waiting)
        return has_gap

    def flush(self) -> None:
        while self._busy:  # several threads may flush at the same time
            try:
                lane, _ = self._busy.popitem()
            except KeyError:
                return
            lane.wake()

    def watching(self, groups: Collection[str]) -> None:
        with_history: list[tuple[str, Watched]] = []
        with self._lock:
            for group in groups:
                watched = self._watched.get(group)
                if watched is not None:
                    if watched.history is not None:
                        watched.history.doubt()  # what was read before is older than what arrives from now on
                        with_history.append((group, watched))
                    elif watched.was_confirmed and watched.source in self._lost_at:
                        # Now, before the first message that arrives again. At `restored()` it would be too late: of
                        # many groups some are received while others still wait for that.
                        watched.put(Envelope(GAP, b""), self._busy)
                    watched.is_confirmed = watched.was_confirmed = True
                    self._open(watched)
        self.flush()
        for group, watched in with_history:
            self._read(group, watched)
        self._rosters.doubt(groups)

    def lost(self, why: str, source: int = 0) -> None:
        with self._lock:
            if source not in self._lost_at:
                self._lost_at[source], self._outages[source] = monotonic(), why
            for watched in self._watched.values():
                if watched.source == source:
                    watched.is_confirmed = False

    def restored(self, source: int = 0) -> None:
        with self._lock:
            lost_at = self._lost_at.pop(source, None)
            self._outages.pop(source, None)
        if lost_at is not None:
            if self._attendance is not None:
                self._attendance.restored()
            self._call(self._interrupted, monotonic() - lost_at)

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
