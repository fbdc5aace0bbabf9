"""The rosters that members of this process are told: first a snapshot to each, then the changes of each second."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial

from ...connection.connection import Connection
from ...exceptions import GroupsUnavailable
from ...reactors.base import Reactor
from ..audience import Entrance, Kind, Member, Owner
from ..backend import Roster
from ..lane import Assembly, Lane
from ..loop import Loop
from ..messages import TEXT, Arrival, Envelope
from .roster import RosterView

logger = logging.getLogger("dwebsocket")

#: Changes are gathered for so long: a room of n in which all come at once would cost n² messages.
GATHER_SECONDS = 1.0

_ATTEMPTS = 2  # to read a roster at once: the first answer may have overtaken an announcement


class _Told(Assembly):
    """The roster of one group, and the members that are told of it."""

    __slots__ = ("lock", "reading", "view")

    def __init__(self, group: str) -> None:
        super().__init__()
        self.view = RosterView(group)
        self.lock = threading.RLock()  # of the view, and of the order in which its texts are put; nothing waits with it
        self.reading = threading.Lock()  # one reads for all that come in at once


class Rosters(Loop):
    """Those of one alias. As the host of their audiences it is told of members that leave."""

    closes_on_gap = False

    def __init__(self, alias: str, read: Callable[[str], Roster], lane_of: Callable[[Reactor], Lane]) -> None:
        self.alias = alias
        self._read = read
        self._lane_of = lane_of
        self._told: dict[str, _Told] = {}
        self._due: dict[str, float] = {}  # groups whose roster has changed, and when it is told
        self._lock = threading.RLock()
        super().__init__("dwebsocket groups roster", without="rosters are not told", lock=self._lock)

    # Members

    def join(self, owner: Owner, group: str, connection: Connection, kind: Kind) -> Member:
        """Let `owner` be told the roster of `group`; return when its snapshot is on its way. GroupsUnavailable."""
        lane = self._lane_of(connection.reactor)
        with self._lock:
            told = self._told.get(group)
            if told is None:
                told = self._told[group] = _Told(group)
            member = Member(owner, told.audience(lane, group, self), connection, kind)
            lane.expect(member)
            told.members += 1
        try:
            self._read_once(group, told)
        except BaseException:
            self.leave(member)
            raise
        latch = connection.reactor.latch()
        with told.lock:
            lane.put(member.audience, Entrance(member, kind, told.view.snapshot(), "", (), latch.set))
        lane.wake()
        try:
            latch.wait()  # for a lane, which waits for no peer
        except BaseException:  # a timeout of the view's own: no other code knows this member
            self.leave(member)
            raise
        return member

    def _read_once(self, group: str, told: _Told) -> None:
        with told.reading:
            for _ in range(_ATTEMPTS):
                with told.lock:
                    if not told.view.needs_read:
                        return
                roster = self._read(group)
                with told.lock:
                    told.view.read(roster)
        if told.view.needs_read:  # the answers are behind what was announced: of a former primary, perhaps
            self._tell_soon(group)

    def change(self, member: Member, kind: Kind) -> None:
        with self._lock:
            self._lane_of(member.connection.reactor).change(member, kind)

    def leave(self, member: Member) -> None:
        group, lane = member.audience.group, self._lane_of(member.connection.reactor)
        with self._lock:
            told = self._told.get(group)
            if not lane.leave(member) or told is None:
                return
            told.members -= 1
            told.dismiss(member.audience)
            if not told.members:
                del self._told[group]
                self._due.pop(group, None)

    def leave_soon(self, member: Member) -> None:
        self._lane_of(member.connection.reactor).soon(partial(self.leave, member))

    def absent(self, group: str, socket: str, *, at_once: bool) -> None:
        """Nothing: a member that is told is not present by that."""

    def note_soon(self, member: Member) -> None:
        self._lane_of(member.connection.reactor).note_soon(member)

    # Changes

    def arrive(self, group: str, arrival: Arrival) -> None:
        """Note a change; the members are told of it soon."""
        told = self._told.get(group)
        if told is not None:
            with told.lock:
                told.view.arrive(arrival)
            self._tell_soon(group)

    def doubt(self, groups: Iterable[str]) -> None:
        """Changes of these groups may have been missed."""
        for group in groups:
            told = self._told.get(group)
            if told is not None:
                with told.lock:
                    told.view.lose()
                self._tell_soon(group)

    def _tell_soon(self, group: str) -> None:
        with self._changed:
            if group in self._told and (group not in self._due or self._thread is None):
                self._due.setdefault(group, time.monotonic() + GATHER_SECONDS)
                self._wake()

    def _run(self) -> None:
        while not self._is_over():
            if (group := self._next()) is not None:
                try:
                    self._tell(group)
                except GroupsUnavailable:  # its own log tells of the outage
                    self._tell_soon(group)
                except Exception:
                    logger.exception("internal error; the roster of %r is told again", group)
                    self._tell_soon(group)

    def _next(self) -> str | None:
        """The next group that is due: the first one, for all wait for the same time."""
        with self._changed:
            if not self._due:
                self._changed.wait()
                return None
            group, due = next(iter(self._due.items()))
            if (remaining := due - time.monotonic()) > 0:
                self._changed.wait(remaining)
                return None
            del self._due[group]
            return group

    def _tell(self, group: str) -> None:
        told = self._told.get(group)
        if told is None:
            return
        self._read_once(group, told)
        busy: dict[Lane, None] = {}
        with told.lock:
            for text in told.view.tell():
                told.put(Envelope(TEXT, text.encode()), busy)
        for lane in busy:
            lane.wake()
