"""The groups of one WebSocket."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from django.http import HttpRequest

from ..connection.connection import Connection
from ..connection.limits import CLOSED, TOO_SLOW, Bound
from ..exceptions import GroupsUnavailable, TooManyGroups
from ..process.naming import user_key_of
from ..process.registry import Entry
from ..reactors.clock import monotonic
from ..websocket import Gap, GroupMessage, Joined, Overflow, Translate, WebSocket
from . import page, process, siblings
from .audience import Kind, Member
from .backend import Presence
from .dispatcher import Dispatcher
from .events import FULL, Events
from .group import Group, Policy, check_overflow
from .node import websocket_id
from .position import START, Position
from .presence.members import checked_info, key_of

_NO_POSITION = "?"  # what a page has sent is none: it has missed it cannot be known what

_lock = threading.RLock()  # for the memberships of all WebSockets: one for each would take more memory than the rest


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)


def exclusively(function: Callable[[], None]) -> None:
    """Call `function`, which must not wait, so that no two overlap: two threads ask for the groups of one WebSocket."""
    with _lock:
        function()


class Memberships:
    """The groups that one WebSocket is in, and the messages of them that wait for its view.

    A membership ends with the connection, not with the view: the entry of the registry tells.
    """

    __slots__ = ("_entry", "_events", "_is_full", "_is_over", "_members", "_sinces", "_told", "number", "was_too_slow")

    def __init__(self, entry: Entry) -> None:
        self.number = entry.id
        self._entry = entry
        self._members: tuple[Member, ...] = ()  # mostly one: a dict would take four times its memory
        self._told: tuple[Member, ...] = ()  # of rosters
        self._events: Events | None = None  # once the view wants messages for itself
        self._sinces: dict[str, str] | None = None  # what the page has sent, and was not used yet
        self._is_full = False  # too much waited for the view, and the connection ends
        self._is_over = False
        self.was_too_slow = False
        entry.on_close(self)

    @property
    def id(self) -> bytes:
        return websocket_id(self.number)

    @property
    def is_in_several(self) -> bool:
        return len(self._members) > 1

    @property
    def websocket(self) -> WebSocket:
        return self._entry.websocket  # type: ignore[return-value]  # a connection is open, so there is one

    # The verbs

    def join(
        self,
        group: Group,
        connection: Connection,
        *,
        since: str | None,
        presence: Any,
        roster: bool,
        forward: bool | Translate,
        overflow: Overflow | None,
        timeout_seconds: float | None,
    ) -> Joined | None:
        """Become a member of `group`, or change how; return when every later message will arrive.

        None where the connection has ended meanwhile.
        """
        dispatcher = process.dispatcher(group.alias)
        if not dispatcher.backend.reaches_all_processes:
            siblings.warn(group.alias)
        if since:
            group.check_history()
        if roster or presence is not None:
            group.check_presence()
        policy = group.policy
        info = checked_info(True if presence is None else presence)
        kind = self._kind(connection, dispatcher.bound, forward, check_overflow(overflow) or policy.overflow)
        if timeout_seconds is None:
            timeout_seconds = dispatcher.backend.settings["JOIN_TIMEOUT"]
        deadline = monotonic() + timeout_seconds
        member, is_new = self._enter(dispatcher, group, policy, connection, kind)
        try:
            joined = Joined() if dispatcher.wait_for(group.name, self._entry.reactor, timeout_seconds) else None
            if joined is not None and not self._is_over and (presence is not None or policy.is_attended):
                self._be_present(dispatcher, group, member, info)  # before the page is told that it has joined
            if joined is not None and policy.history:
                joined = self._come_in(dispatcher, member, kind, self._place(group, since), deadline - monotonic())
            if joined is not None and not self._is_over and roster:
                self._tell_roster(dispatcher, group, connection, kind)
        except BaseException:  # a timeout of the view's own, by a signal or by gevent: it has not joined
            if is_new:
                self.leave(group)
            raise
        if self._is_over:  # its end may have come before this group was there
            self()
            return None
        if joined is None:
            if is_new:
                self.leave(group)
            outage = dispatcher.outage_of(group.name)
            raise GroupsUnavailable(
                f"the backend of WEBSOCKET_GROUPS[{group.alias!r}] has not confirmed the group {group.name!r}"
                f" within {timeout_seconds:g} seconds{outage and f': {outage}'}"
            )
        return joined

    def _enter(
        self, dispatcher: Dispatcher, group: Group, policy: Policy, connection: Connection, kind: Kind
    ) -> tuple[Member, bool]:
        """The member of `group`, and whether it is new. TooManyGroups."""
        with _lock:
            present = self._find(group)
            if present is not None and present.audience.host is not dispatcher:  # the settings have changed: in tests
                self._members = tuple(member for member in self._members if member is not present)
                present = None
            if present is not None:
                if not policy.history:
                    dispatcher.change(present, kind)
                return present, False
            if len(self._members) >= connection.limits.max_groups:
                raise TooManyGroups(
                    f"a WebSocket may be in {connection.limits.max_groups} groups (max_groups), not in more"
                )
            member = dispatcher.join(self, group.name, connection, kind, policy.history, policy.ttl)
            self._members += (member,)
            return member, True

    def _be_present(self, dispatcher: Dispatcher, group: Group, member: Member, info: str) -> None:
        user = user_key_of(self._entry.request)
        name = member.audience.group  # one string for all memberships of the group
        dispatcher.attend(Presence(name, self._name, key_of(user, self._name), info), self._entry.reactor)
        if self._find(group) is None:  # it has left, or is over, and that came before it was present
            dispatcher.absent(name, self._name, at_once=not self._is_over)

    @property
    def _name(self) -> str:
        return self.id.decode()

    def _tell_roster(self, dispatcher: Dispatcher, group: Group, connection: Connection, kind: Kind) -> None:
        if any(_is_of(member, group) for member in self._told):
            return
        # A text that is dropped would leave the page with a wrong roster for ever.
        kind = kind._replace(translate=None, bound=kind.bound._replace(overflow="close"))
        told = dispatcher.tell_roster(self, group.name, connection, kind)
        with _lock:
            self._told += (told,)

    def _come_in(
        self, dispatcher: Dispatcher, member: Member, kind: Kind, since: Position | str | None, seconds: float
    ) -> Joined | None:
        found = dispatcher.admit(member, kind, since, seconds)
        return None if found is None else Joined(str(found.position), found.recovered, len(found.missed))

    def _place(self, group: Group, since: str | None) -> Position | str | None:
        """The position at which the page was: `since`, or what it has sent in the URL when it came back."""
        if self._sinces is None:
            self._sinces = _sinces(self._entry.request)
        sent = self._sinces.pop(group.name, None)  # for the first join, whatever that says itself
        since = sent if since is None else since
        if not since:
            return None
        return since if since == START else Position.parse(since) or _NO_POSITION

    def leave(self, group: Group) -> None:
        """Be no member of `group` any more; nothing of it arrives after this."""
        with _lock:
            left = [member for member in self._members + self._told if _is_of(member, group)]
            self._members = tuple(member for member in self._members if member not in left)
            self._told = tuple(member for member in self._told if member not in left)
        for member in left:
            member.audience.host.leave(member)
            member.audience.host.absent(group.name, self._name, at_once=True)
        if self._events is not None:
            self._events.forget(group.name)

    def names(self) -> frozenset[str]:
        """The names of the groups."""
        if self._is_over:  # a thread that has joined or left at the same time may have written what it had read before
            return frozenset()
        return frozenset(member.audience.group for member in self._members)

    def _find(self, group: Group) -> Member | None:
        return next((member for member in self._members if _is_of(member, group)), None)

    # The view's own messages

    def has_events(self) -> bool:
        """Whether a message of a group waits for the view."""
        return bool(self._events)

    def take_event(self) -> GroupMessage | Gap | None:
        """The next message of a group that waits for the view; None when there is none."""
        return None if self._events is None else self._events.take()

    # Called by a lane

    def put(self, message: GroupMessage, key: str, bound: Bound) -> int:
        if self._events is None or self._is_full:
            return 0
        dropped = self._events.put(message, key, monotonic(), bound)
        if dropped != FULL:
            return dropped
        self._is_full = True  # told once, though further messages come before the end
        self._entry.close(*TOO_SLOW)
        return CLOSED

    def put_gap(self, group: str) -> None:
        if self._events is not None:
            self._events.gap(group)

    def _kind(self, connection: Connection, bound: Bound, forward: bool | Translate, overflow: Overflow | None) -> Kind:
        if overflow is not None:
            bound = bound._replace(overflow=overflow)
        if forward is False:
            if self._events is None:
                self._events = Events()
            return Kind(False, None, None, bound)
        return Kind(True, None if forward is True else forward, connection.share_compression(), bound)

    def __call__(self) -> None:
        """Leave all groups: the connection is over. Called in a reactor, perhaps: it waits for no lock."""
        self._is_over = True
        members, told = self._members, self._told
        self._members = self._told = ()
        if members and not self.was_too_slow and _was_too_slow(members[0].connection):
            members[0].audience.host.note_soon(members[0])
        for member in members + told:
            member.audience.host.leave_soon(member)
            member.audience.host.absent(member.audience.group, self._name, at_once=False)


def _is_of(member: Member, group: Group) -> bool:
    return member.audience.group == group.name and member.audience.host.alias == group.alias


def _was_too_slow(connection: Connection) -> bool:
    return (connection.endpoint.close_code, connection.endpoint.close_reason) == TOO_SLOW


def _sinces(request: HttpRequest) -> dict[str, str]:
    """The positions that the page has sent, by group: `?since=<position>:<group>`, once for each."""
    pairs = (text.partition(":") for text in request.GET.getlist(page.PARAMETER))
    return {group: position for position, colon, group in pairs if colon}
