"""The WebSockets that are open in this process, and how many there may be."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable

from django.http import HttpRequest

from .. import conf
from ..connection.connection import Connection
from ..exceptions import HandshakeError, ShuttingDown, TooManyConnections
from ..protocol.endpoint import State
from ..protocol.frames import cut_reason
from ..reactors.base import Latch, Reactor
from ..reactors.clock import monotonic
from ..servers.base import alike
from ..websocket import WebSocket
from .info import ConnectionInfo
from .naming import user_name
from .overstay import Stay

logger = logging.getLogger("dwebsocket")

_STEP_SECONDS = 0.01  # between two of few; many are told faster, so that all are told in time


_ids = itertools.count(1)
_adding = threading.RLock()  # a signal handler, or a __del__, may come into it


class Entry(Stay):
    """One WebSocket of this process, from its opening handshake to the end of its view.

    The registry, guards and whatever else follows a WebSocket hold this, and neither the view nor the connection. `id`
    is unique in the process. A subclass of Stay, and not beside it: an idle connection has one object less.
    """

    __slots__ = (
        "_connection",
        "_on_close",
        "_opened_at",
        "id",
        "is_parked",
        "request",
        "websocket",
    )

    def __init__(self, request: HttpRequest, reactor: Reactor) -> None:
        super().__init__(alike(request.path), reactor)
        self.id = next(_ids)
        self.request = request
        self.websocket: WebSocket | None = None
        self.is_parked = False  # the view holds no greenlet or thread
        self._connection: Connection | None = None
        self._opened_at = 0.0
        self._on_close: list[Callable[[], None]] | None = None

    def opened(self, connection: Connection) -> None:
        """The 101 is about to leave on `connection`."""
        self._connection = connection
        self._opened_at = monotonic()

    def info(self) -> ConnectionInfo | None:
        """A snapshot of the connection; None before there is one."""
        connection, request = self._connection, self.request
        if connection is None or self.websocket is None:
            return None
        return ConnectionInfo(
            websocket=self.websocket,
            request=request,
            path=request.path,
            user=user_name(request),
            address=request.META.get("REMOTE_ADDR", ""),
            seconds=monotonic() - self._opened_at,
            messages_received=connection.messages_received,
            messages_sent=connection.messages_sent,
            bytes_received=connection.bytes_received,
            bytes_sent=connection.bytes_sent,
        )

    def close(self, code: int, reason: str = "") -> None:
        """Begin the closing handshake of the connection, if there is one. Waits for nothing, from any thread."""
        if (connection := self._open_connection()) is not None:
            connection.close_soon(code, reason)

    def revoke(self, error: HandshakeError) -> None:
        """Close the connection because a guard refused it (4401 or 4403)."""
        self.close(error.close_code, cut_reason(str(error)))

    def go_away(self, code: int) -> None:
        """Close the connection because the process ends: a peer that does not answer soon is not waited for."""
        if (connection := self._open_connection()) is not None:
            connection.go_away(code)

    def _open_connection(self) -> Connection | None:
        """The connection whose 101 has left; an opening that is just under way looks by itself whether all must go."""
        connection = self._connection
        return None if connection is None or connection.endpoint.state is State.CONNECTING else connection

    def on_close(self, function: Callable[[], None]) -> None:
        """Call `function` once when the connection is over; at once where it is.

        It runs where the connection ends, perhaps in the reactor: it must not wait. What it raises is logged.
        """
        if self._on_close is None:
            with _adding:
                if self._on_close is None:
                    self._on_close = []
        self._on_close.append(function)
        if self._is_over:
            self._call_all()

    def over(self) -> None:
        """The socket of the connection has been disposed of."""
        self._call(self.connection_over)
        self._call_all()

    def _call_all(self) -> None:
        while self._on_close:  # another thread may take some of them, and may just be adding one
            with contextlib.suppress(IndexError):
                self._call(self._on_close.pop(0))

    def _call(self, function: Callable[[], None]) -> None:
        try:
            function()
        except Exception:
            logger.exception("%r failed at the end of a WebSocket", function)


class Registry:
    """The entries of one process."""

    def __init__(self) -> None:
        self.is_ending = False
        self._members: set[Entry] = set()
        self._parked = 0  # so many of them have a parked view
        self._gone: Latch | None = None  # opens when the last member has left
        self._lock = threading.RLock()  # a signal handler may ask while its thread is inside

    def forget(self) -> None:
        """A fork's child begins anew: what is open belongs to its parent."""
        global _adding
        _adding = threading.RLock()
        self.is_ending = False
        self._members = set()
        self._parked = 0
        self._gone = None
        self._lock = threading.RLock()

    def members(self) -> list[Entry]:
        """All entries."""
        with self._lock:
            return list(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def enter(self, member: Entry) -> None:
        """Count `member`. TooManyConnections or ShuttingDown (503) when there is no place for it.

        Under threads the limit is one of threads: a parked view holds none, and takes no place.
        """
        most_threads, limit = member.reactor.max_connections, conf.get("MAX_CONNECTIONS")
        if limit is None:
            limit = most_threads
        with self._lock:
            if self.is_ending:
                raise ShuttingDown("this server is about to end: try again")
            if limit is not None and len(self._members) - (self._parked if most_threads else 0) >= limit:
                raise TooManyConnections(f"this server has {limit} WebSockets open, and takes no more")
            self._members.add(member)

    def park(self, member: Entry) -> None:
        """Take note that the view of `member` holds no greenlet or thread any more."""
        with self._lock:
            if member in self._members and not member.is_parked:
                member.is_parked = True
                self._parked += 1

    def leave(self, member: Entry) -> None:
        """Count `member` no more."""
        with self._lock:
            if member in self._members and member.is_parked:
                self._parked -= 1
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


registry = Registry()

os.register_at_fork(after_in_child=registry.forget)


def connections() -> list[ConnectionInfo]:
    """The WebSockets that are open in this process: a ConnectionInfo (path, user, address, traffic …) for each."""
    return [info for member in registry.members() if (info := member.info()) is not None]
