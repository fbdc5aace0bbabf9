"""The WebSockets that are open in this process, and how many there may be."""

from __future__ import annotations

import os
import threading
import time
from typing import Protocol

from django.http import HttpRequest

from .. import conf
from ..exceptions import ShuttingDown, TooManyConnections
from ..reactors.base import Latch, Reactor
from .info import ConnectionInfo

_STEP_SECONDS = 0.01  # between two of few; many are told faster, so that all are told in time


class Member(Protocol):
    """What is counted, and told to end."""

    request: HttpRequest
    reactor: Reactor

    def go_away(self, code: int) -> None:
        """End with `code`; returns at once."""
        ...  # pragma: no cover

    def info(self) -> ConnectionInfo | None:
        """What is known of its connection; None before there is one."""
        ...  # pragma: no cover


class Live:
    """The members of one process."""

    def __init__(self) -> None:
        self.is_ending = False
        self._members: set[Member] = set()
        self._gone: Latch | None = None  # opens when the last member has left
        self._lock = threading.Lock()

    def forget(self) -> None:
        """A fork's child begins anew: what is open belongs to its parent."""
        self.is_ending = False
        self._members = set()
        self._gone = None
        self._lock = threading.Lock()

    def members(self) -> list[Member]:
        """All members."""
        with self._lock:
            return list(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def enter(self, member: Member) -> None:
        """Count `member`. TooManyConnections or ShuttingDown (503) when there is no place for it."""
        limit = conf.get("MAX_CONNECTIONS")
        if limit is None:
            limit = member.reactor.max_connections
        with self._lock:
            if self.is_ending:
                raise ShuttingDown("this server is about to end: try again")
            if limit is not None and len(self._members) >= limit:
                raise TooManyConnections(f"this server has {limit} WebSockets open, and takes no more")
            self._members.add(member)

    def leave(self, member: Member) -> None:
        """Count `member` no more."""
        with self._lock:
            self._members.discard(member)
            if self._gone is not None and not self._members:
                self._gone.set()

    def end(self, code: int, seconds: float) -> int:
        """Let no member in any more, and tell all to go; how many are left after twice `seconds`.

        They are told one after the other, over at most `seconds`: clients that come back do not come all at once.
        """
        with self._lock:
            self.is_ending = True
            members = list(self._members)
            if not members:
                return 0
            self._gone = gone = members[0].reactor.latch()
        started = time.monotonic()
        step = min(_STEP_SECONDS, seconds / len(members))
        for number, member in enumerate(members):
            delay = started + number * step - time.monotonic()
            if delay > 0:  # a wait without one would be a turn of the hub for each member, and late already
                gone.wait(delay)
            member.go_away(code)
        gone.wait(max(0.0, started + 2 * seconds - time.monotonic()))
        return len(self._members)


live = Live()

os.register_at_fork(after_in_child=live.forget)


def connections() -> list[ConnectionInfo]:
    """What is open in this process: a ConnectionInfo for each WebSocket (path, user, address, seconds, traffic)."""
    return [info for member in live.members() if (info := member.info()) is not None]
