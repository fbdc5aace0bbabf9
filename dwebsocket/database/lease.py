"""A view's database connections, released while it waits for its peer."""

from __future__ import annotations

import contextvars
import logging
import math
import threading
from collections.abc import Iterator
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from ..connection.connection import Connection
from ..reactors.base import Reactor, Runner
from ..reactors.clock import monotonic
from .cursors import Holder, current_lease, watch, watch_no_longer
from .kept import KEPT_SECONDS, can_be_kept, give_up_place, has_place, let_keep, take_place
from .own import close, close_idle_connections, descriptor_of, in_transaction, may_be_closed, own_connections

logger = logging.getLogger("dwebsocket")
_NEVER = -math.inf
_warned: set[str] = set()  # views that were found waiting in a transaction: each is logged once


class Lease:
    """The database connections of one view, released when it waits for its peer."""

    __slots__ = (
        "_connection",
        "_is_needed",
        "_opened_at",
        "_queried_at",
        "_reactor",
        "_released_at",
        "_thread_ident",
        "_view",
    )

    def __init__(self, view: str, reactor: Reactor) -> None:
        self._view = view  # its dotted name, for the log
        self._reactor = reactor
        self._is_needed = False  # while the view has opened no connection, its waits cost no look at them
        self._thread_ident = 0  # of the view's thread; where gevent has patched, of its greenlet
        self._connection: Connection | None = None  # of the WebSocket, once it is open
        self._released_at = _NEVER
        self._opened_at = 0.0
        self._queried_at = 0.0

    def begin(self, *, inherits: bool) -> contextvars.Token[Holder | None]:
        """Count what this context opens as the view's; with `inherits`, also what it has opened before."""
        self._is_needed = inherits
        self._thread_ident = threading.get_ident()
        for connection in own_connections() if inherits else ():
            watch(connection)
        return current_lease.set(self)

    def end(self, token: contextvars.Token[Holder | None]) -> None:
        """Count nothing more that this context opens as the view's."""
        current_lease.reset(token)
        if self._is_needed:
            give_up_place(self)
            for connection in own_connections():
                watch_no_longer(connection)

    def park(self) -> None:
        """The view goes on in turns. Its thread, which ends, closes what it has opened."""
        give_up_place(self)
        self._need_no_more()

    def begin_turn(self, runner: Runner) -> None:
        """The view runs again, in the calling thread or greenlet."""
        self._thread_ident = runner.ident
        if runner.keeper is not None:  # what it keeps is this view's now
            self._need()
            self._close_ended()

    def end_turn(self, runner: Runner) -> None:
        """Release what was opened, or let the runner keep it for a second after the last query."""
        self._thread_ident = 0  # no thread's, until the next turn
        if self._is_needed:
            self._need_no_more()
            give_up_place(self)
            let_keep(runner, self._queried_at, self._view)

    def accepted(self, connection: Connection) -> None:
        """Release what the opening handshake needed; from now on, `connection` tells of the view's waits."""
        self._connection = connection
        if self._is_needed:
            connection.wait_hook = self
            if self._is_of_this_thread():
                self._close_what_can_be_closed()

    def opened(self, database: BaseDatabaseWrapper) -> None:
        """Take note that the view has opened `database`."""
        self._opened_at = self._queried_at = monotonic()
        watch(database)
        self._need()

    def queried(self) -> None:
        """Take note of a query of the view."""
        self._queried_at = monotonic()

    def _need(self) -> None:
        self._is_needed = True
        if self._connection is not None:
            self._connection.wait_hook = self

    def _need_no_more(self) -> None:
        self._is_needed = False
        if self._connection is not None:
            self._connection.wait_hook = None

    # The WaitHook of the WebSocket's connection

    def keeps_for(self, now: float) -> float:
        if not self._is_of_this_thread():
            return math.inf
        if not any(map(may_be_closed, own_connections())):
            self._unhook_if_idle()
            return math.inf if self._has_nothing_to_warn_of() else 0
        remaining = self._queried_at + KEPT_SECONDS - now
        return remaining if remaining > 0 and self._is_busy() and take_place(self) else 0

    def release(self) -> None:
        self._close_what_can_be_closed()
        if any(map(in_transaction, _open_connections())):
            self._warn()

    def woken(self) -> None:
        if has_place(self):
            self._close_ended()

    def _close_ended(self) -> None:
        """Close those that the database has ended meanwhile."""
        for connection in own_connections():
            if may_be_closed(connection) and self._has_been_ended(connection):
                close(connection)

    def _has_been_ended(self, connection: BaseDatabaseWrapper) -> bool:
        """Whether the database has hung up: bytes or an end that arrive without a query can mean nothing else."""
        descriptor = descriptor_of(connection)
        return descriptor is not None and (descriptor < 0 or self._reactor.arrived(descriptor))

    def _is_of_this_thread(self) -> bool:
        """Whether the view itself waits, not a thread that it has started, which may have inherited its context."""
        return current_lease.get() is self and threading.get_ident() == self._thread_ident

    def _close_what_can_be_closed(self) -> None:
        self._released_at = monotonic()
        give_up_place(self)
        close_idle_connections()
        self._unhook_if_idle()

    def _unhook_if_idle(self) -> None:
        if self._connection is not None and not any(_open_connections()):
            self._connection.wait_hook = None

    def _has_nothing_to_warn_of(self) -> bool:
        """Whether no log is due in this wait. A log handler may block, so `release()` writes it, where others run."""
        return self._view in _warned or not any(map(in_transaction, _open_connections()))

    def _is_busy(self) -> bool:
        """Whether the view had to open a connection soon after it had released them, and all can be kept."""
        return self._opened_at - self._released_at < KEPT_SECONDS and all(map(can_be_kept, own_connections()))

    def _warn(self) -> None:
        view = self._view
        if view not in _warned:
            _warned.add(view)
            logger.warning(
                "the view %s waits for its peer inside atomic(): the transaction, its locks and its database"
                " connection stay as long as that takes",
                view,
            )


def _connection_opened(connection: BaseDatabaseWrapper, **about: Any) -> None:
    lease = current_lease.get()
    if lease is not None and not connection.allow_thread_sharing:
        lease.opened(connection)


connection_created.connect(_connection_opened)


def _open_connections() -> Iterator[BaseDatabaseWrapper]:
    return (connection for connection in own_connections() if connection.connection is not None)
