"""The database connections of a view: given back while it waits for its peer.

A view that waits for hours must not hold a server connection for hours. So before it blocks, the connections of its
thread or greenlet are closed (with psycopg's pool: returned to it); Django opens another one at the next query. What
is in use stays: a transaction, and a cursor that somebody still holds.

A view that queries at every message would connect at every message then. One that comes back to the database at once
keeps its connections for a moment, and no more than a few views of a process do: who has many busy views has a pool.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import logging
import math
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from django.db import DatabaseError, Error, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.http import HttpRequest

from .access import view_name
from .clock import monotonic
from .connection import Connection
from .reactors.base import Reactor

logger = logging.getLogger("dwebsocket")

KEPT_SECONDS = 1.0  # since its last query, by a view that comes back that soon
MOST_KEEPERS = 10  # of a process
_SQLITE = "sqlite"
_PSYCOPG_IN_TRANSACTION = (1, 2, 3)  # a query runs, none runs, one has failed
_MAKE_CURSOR = ("make_cursor", "make_debug_cursor")  # what Django calls, once it is connected, for every cursor

_lease: contextvars.ContextVar[Lease | None] = contextvars.ContextVar("dwebsocket_lease", default=None)
_keepers: set[Lease] = set()
_keepers_lock = threading.Lock()
_warned: set[str] = set()  # the views that were found waiting in a transaction


def own_connections() -> Iterator[BaseDatabaseWrapper]:
    """The database connections of this thread or greenlet that were used, and that no other one shares."""
    for connection in connections.all(initialized_only=True):
        if connection.allow_thread_sharing:  # LiveServerTestCase and our test client: it belongs to the test
            continue
        try:
            connection.validate_thread_sharing()
        except DatabaseError:  # all greenlets see the same where Django was imported before gevent has patched threads
            continue
        yield connection


def with_shared_connections(function: Callable[[], None]) -> Callable[[], None]:
    """`function` for another thread, with the database connections there that this thread shares with others.

    That is what tests do (LiveServerTestCase, the test client): whoever works for a request of theirs sees their data.
    """
    shared = {
        connection.alias: connection
        for connection in connections.all(initialized_only=True)
        if connection.allow_thread_sharing
    }
    return with_connections(shared, function) if shared else function


def with_connections(databases: Mapping[str, BaseDatabaseWrapper], function: Callable[[], None]) -> Callable[[], None]:
    """`function` for another thread, which uses these database connections, by alias, and shares them meanwhile."""

    def run() -> None:
        for alias, connection in databases.items():
            connection.inc_thread_sharing()
            connections[alias] = connection
        try:
            function()
        finally:
            for alias, connection in databases.items():
                del connections[alias]
                connection.dec_thread_sharing()

    return run


def close_own_connections() -> None:
    """Close the database connections of this thread or greenlet: nobody else will."""
    with contextlib.ExitStack() as stack:  # one that cannot be closed leaves no other one open
        for connection in own_connections():
            stack.callback(_close, connection)


def close_idle_connections() -> None:
    """Close the database connections of this thread or greenlet that are in no transaction, and in nobody's hands."""
    for connection in own_connections():
        if _may_be_closed(connection):
            _close(connection)


def give_back() -> None:
    """Do now what Django does with the database connections of this thread or greenlet at the end of a request."""
    for connection in own_connections():
        if not _in_transaction(connection):
            with contextlib.suppress(Error):
                connection.close_if_unusable_or_obsolete()


class Lease:
    """The database connections that one view has: let go of when it waits."""

    __slots__ = (
        "_connection",
        "_is_needed",
        "_let_go_at",
        "_opened_at",
        "_queried_at",
        "_reactor",
        "_request",
        "_thread_ident",
    )

    def __init__(self, request: HttpRequest, reactor: Reactor) -> None:
        self._request = request
        self._reactor = reactor
        self._is_needed = False  # a view that never asks the database costs no look at its connections
        self._thread_ident = 0  # of the view; where gevent has patched, that is its greenlet's
        self._connection: Connection | None = None  # the WebSocket's
        self._let_go_at = -math.inf
        self._opened_at = 0.0
        self._queried_at = 0.0

    def begin(self, *, inherits: bool) -> contextvars.Token[Lease | None]:
        """From now on, what this context opens is the view's; with `inherits`, what it has opened before is, too."""
        self._is_needed = inherits
        self._thread_ident = threading.get_ident()
        for connection in own_connections() if inherits else ():
            _watch(connection)
        return _lease.set(self)

    def end(self, token: contextvars.Token[Lease | None]) -> None:
        """Nothing that this context opens is the view's any more."""
        _lease.reset(token)
        if self._is_needed:
            self._keep_no_longer()
            for connection in own_connections():
                _watch_no_longer(connection)

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
        _watch(database)
        if self._connection is not None:
            self._connection.keeper = self

    def queries(self) -> None:
        """The view asks the database something."""
        self._queried_at = monotonic()

    # What the WebSocket's connection asks of its keeper

    def keeps_for(self, now: float) -> float:
        if not self._is_of_this_thread():
            return math.inf
        if not any(map(_may_be_closed, own_connections())):
            return math.inf if self._keeps_nothing_or_has_warned() else 0
        remaining = self._queried_at + KEPT_SECONDS - now
        return remaining if remaining > 0 and self._comes_back() and self._is_among_the_few() else 0

    def let_go(self) -> None:
        self._close_what_can_be_closed()
        if any(map(_in_transaction, _open_connections())):
            self._warn()

    def woken(self) -> None:
        if self not in _keepers:
            return
        for connection in own_connections():
            if _may_be_closed(connection) and self._has_been_ended(connection):
                _close(connection)

    def _has_been_ended(self, connection: BaseDatabaseWrapper) -> bool:
        """Whether the database has hung up: to somebody who has asked nothing it has nothing else to say."""
        descriptor = _descriptor(connection)
        return descriptor is not None and (descriptor < 0 or self._reactor.arrived(descriptor))

    def _is_of_this_thread(self) -> bool:
        """Not where a thread of the view's asks, which has connections of its own; its context may be the view's."""
        return _lease.get() is self and threading.get_ident() == self._thread_ident

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
        return not any(map(_in_transaction, left)) or view_name(self._request) in _warned

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
        view = view_name(self._request)
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
    lease = _lease.get()
    if lease is not None and not connection.allow_thread_sharing:
        lease.noticed(connection)


connection_created.connect(_notice)


class _Watch:
    """Sees the cursors of one database connection, as long as somebody holds them."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.can_close = True  # what `close()` left open once stays open
        self._cursors: weakref.WeakSet[Any] = weakref.WeakSet()
        for name in _MAKE_CURSOR:
            setattr(connection, name, self._seen(getattr(connection, name)))

    def sees_cursor(self) -> bool:
        """Whether somebody holds a cursor that is not closed."""
        return any(not getattr(cursor, "closed", False) for cursor in self._cursors)

    def _close(self, cursor: weakref.ref[Any], close: Callable[[], None]) -> None:
        self._cursors.discard(cursor())  # few drivers tell of a cursor that it is closed
        close()

    def _seen(self, make_cursor: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(make_cursor)
        def make_and_see(*args: Any, **kwargs: Any) -> Any:
            cursor = make_cursor(*args, **kwargs)
            self._cursors.add(cursor)
            cursor.close = functools.partial(self._close, weakref.ref(cursor), cursor.close)
            if (lease := _lease.get()) is not None:
                lease.queries()
            return cursor

        make_and_see.watch = self  # type: ignore[attr-defined]
        return make_and_see


def _watch_of(connection: BaseDatabaseWrapper) -> _Watch | None:
    return getattr(connection.make_cursor, "watch", None)


def _watch(connection: BaseDatabaseWrapper) -> _Watch:
    return _watch_of(connection) or _Watch(connection)


def _watch_no_longer(connection: BaseDatabaseWrapper) -> None:
    for name in _MAKE_CURSOR:
        if hasattr(vars(connection).get(name), "watch"):
            delattr(connection, name)


def _in_transaction(connection: BaseDatabaseWrapper) -> bool:
    """Whether a transaction is open: of Django, or begun behind its back, as far as the driver tells."""
    if connection.connection is None:
        return False
    if connection.in_atomic_block or not connection.autocommit:
        return True
    if connection.vendor == _SQLITE:
        return bool(connection.connection.in_transaction)
    status = getattr(getattr(connection.connection, "info", None), "transaction_status", None)  # of psycopg
    return status is not None and int(status) in _PSYCOPG_IN_TRANSACTION


def _may_be_closed(connection: BaseDatabaseWrapper) -> bool:
    if connection.connection is None or _in_transaction(connection) or _is_in_memory(connection):
        return False
    watch = _watch_of(connection)
    return watch is None or (watch.can_close and not watch.sees_cursor())


def _is_in_memory(connection: BaseDatabaseWrapper) -> bool:
    """Whether it is SQLite without a file: closing it would lose everything, so Django does not."""
    return connection.vendor == _SQLITE and connection.is_in_memory_db()  # type: ignore[attr-defined]


def _can_be_kept(connection: BaseDatabaseWrapper) -> bool:
    """Whether it costs something to open another one, and its end can be seen."""
    if connection.connection is None:
        return True
    descriptor = _descriptor(connection)
    return not getattr(connection, "pool", None) and (descriptor is None or descriptor >= 0)


def _descriptor(connection: BaseDatabaseWrapper) -> int | None:
    """The number of its socket; -1 where the driver does not tell, None where no server can hang up."""
    if connection.vendor == _SQLITE:
        return None
    try:
        return int(connection.connection.fileno())
    except Exception:  # of whatever kind a driver raises for a connection that is broken
        return -1


def _open_connections() -> Iterator[BaseDatabaseWrapper]:
    return (connection for connection in own_connections() if connection.connection is not None)


def _close(connection: BaseDatabaseWrapper) -> None:
    with contextlib.suppress(Error):  # it was broken before: that it is gone is all that is wanted
        connection.close()
    if connection.connection is not None:  # whatever keeps it open, asking again would not help
        _watch(connection).can_close = False


# ATOMIC_REQUESTS


class Exempt(set[str]):
    """What Django looks up to see which databases a view is exempt on from ATOMIC_REQUESTS: all.

    Its elements are those for which the project has said so itself.
    """

    def __contains__(self, alias: object) -> bool:
        return True


def exempt(view: Any) -> Exempt:
    """What takes the place of the view's own exemptions."""
    return Exempt(tuple(getattr(view, "_non_atomic_requests", ())))


def atomic_request(view: Callable[..., Any], exempt: Exempt, request: HttpRequest) -> Callable[..., Any]:
    """The view as Django calls it for plain HTTP: in a transaction where ATOMIC_REQUESTS says so."""
    match = request.resolver_match  # a class is decorated at each request, and its view was exempted once
    own = {*exempt, *getattr(match and match.func, "_non_atomic_requests", ())}
    for alias, database in connections.settings.items():
        if database["ATOMIC_REQUESTS"] and alias not in own:
            view = transaction.atomic(using=alias)(view)
    return view
