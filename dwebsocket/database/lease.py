"""A view's database connections, released while it waits for its peer."""

from __future__ import annotations

import contextvars
import logging
import math
import os
import threading
from collections.abc import Iterator
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from ..connection.connection import Connection
from ..reactors.base import Reactor
from ..reactors.clock import monotonic
from .cursors import Holder, current_lease, watch, watch_no_longer
from .own import close, close_idle_connections, descriptor_of, in_transaction, may_be_closed, own_connections

logger = logging.getLogger("dwebsocket")
KEPT_SECONDS = 1.0  # since its last query, by a view that comes back that soon
MOST_KEEPERS = 10  # of a process
_keepers: set[Lease] = set()
_keepers_lock = threading.Lock()
_warned: set[str] = set()  # the views that were found waiting in a transaction


class Lease:
    """The database connections that one view has: let go of when it waits."""

    __slots__ = (
        "_connection",
        "_is_needed",
        "_let_go_at",
        "_opened_at",
        "_queried_at",
        "_reactor",
        "_thread_ident",
        "_view",
    )

    def __init__(self, view: str, reactor: Reactor) -> None:
        self._view = view  # its dotted name, for the log
        self._reactor = reactor
        self._is_needed = False  # a view that never asks the database costs no look at its connections
        self._thread_ident = 0  # of the view; where gevent has patched, that is its greenlet's
        self._connection: Connection | None = None  # the WebSocket's
        self._let_go_at = -math.inf
        self._opened_at = 0.0
        self._queried_at = 0.0

    def begin(self, *, inherits: bool) -> contextvars.Token[Holder | None]:
        """From now on, what this context opens is the view's; with `inherits`, what it has opened before is, too."""
        self._is_needed = inherits
        self._thread_ident = threading.get_ident()
        for connection in own_connections() if inherits else ():
            watch(connection)
        return current_lease.set(self)

    def end(self, token: contextvars.Token[Holder | None]) -> None:
        """Nothing that this context opens is the view's any more."""
        current_lease.reset(token)
        if self._is_needed:
            self._keep_no_longer()
            for connection in own_connections():
                watch_no_longer(connection)

    def accepted(self, connection: Connection) -> None:
        """Let go of what the opening handshake needed; from now on the view's waits are those of `connection`."""
        self._connection = connection
        if self._is_needed:
            connection.keeper = self
            if self._is_of_this_thread():
                self._close_what_can_be_closed()

    def noticed(self, database: BaseDatabaseWrapper) -> None:
        """The view has opened `database`."""
        self._is_needed = True
        self._opened_at = self._queried_at = monotonic()
        watch(database)
        if self._connection is not None:
            self._connection.keeper = self

    def queries(self) -> None:
        """The view asks the database something."""
        self._queried_at = monotonic()

    # What the WebSocket's connection asks of its keeper

    def keeps_for(self, now: float) -> float:
        if not self._is_of_this_thread():
            return math.inf
        if not any(map(may_be_closed, own_connections())):
            return math.inf if self._keeps_nothing_or_has_warned() else 0
        remaining = self._queried_at + KEPT_SECONDS - now
        return remaining if remaining > 0 and self._comes_back() and self._is_among_the_few() else 0

    def let_go(self) -> None:
        self._close_what_can_be_closed()
        if any(map(in_transaction, _open_connections())):
            self._warn()

    def woken(self) -> None:
        if self not in _keepers:
            return
        for connection in own_connections():
            if may_be_closed(connection) and self._has_been_ended(connection):
                close(connection)

    def _has_been_ended(self, connection: BaseDatabaseWrapper) -> bool:
        """Whether the database has hung up: to somebody who has asked nothing it has nothing else to say."""
        descriptor = descriptor_of(connection)
        return descriptor is not None and (descriptor < 0 or self._reactor.arrived(descriptor))

    def _is_of_this_thread(self) -> bool:
        """Not where a thread of the view's asks, which has connections of its own; its context may be the view's."""
        return current_lease.get() is self and threading.get_ident() == self._thread_ident

    def _close_what_can_be_closed(self) -> None:
        self._let_go_at = monotonic()
        self._keep_no_longer()
        close_idle_connections()
        if self._connection is not None and not any(_open_connections()):
            self._connection.keeper = None

    def _keeps_nothing_or_has_warned(self) -> bool:
        """Whether there is nothing to do in this wait; a log may do anything, so it is written where others may run."""
        left = list(_open_connections())
        if not left and self._connection is not None:
            self._connection.keeper = None
        return not any(map(in_transaction, left)) or self._view in _warned

    def _comes_back(self) -> bool:
        return self._opened_at - self._let_go_at < KEPT_SECONDS and all(map(_can_be_kept, own_connections()))

    def _is_among_the_few(self) -> bool:
        with _keepers_lock:
            if len(_keepers) < MOST_KEEPERS:
                _keepers.add(self)
            return self in _keepers

    def _keep_no_longer(self) -> None:
        with _keepers_lock:
            _keepers.discard(self)

    def _warn(self) -> None:
        view = self._view
        if view not in _warned:
            _warned.add(view)
            logger.warning(
                "the view %s waits for its peer inside atomic(): the transaction, its locks and its database"
                " connection stay as long as that takes",
                view,
            )


def _forget() -> None:
    """What is kept in the parent of a fork takes no place in the child."""
    global _keepers_lock
    _keepers_lock = threading.Lock()
    _keepers.clear()


os.register_at_fork(after_in_child=_forget)


def _notice(connection: BaseDatabaseWrapper, **about: Any) -> None:
    lease = current_lease.get()
    if lease is not None and not connection.allow_thread_sharing:
        lease.noticed(connection)


connection_created.connect(_notice)


def _can_be_kept(connection: BaseDatabaseWrapper) -> bool:
    """Whether it costs something to open another one, and its end can be seen."""
    if connection.connection is None:
        return True
    descriptor = descriptor_of(connection)
    return not getattr(connection, "pool", None) and (descriptor is None or descriptor >= 0)


def _open_connections() -> Iterator[BaseDatabaseWrapper]:
    return (connection for connection in own_connections() if connection.connection is not None)
