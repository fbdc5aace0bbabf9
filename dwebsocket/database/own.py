"""The database connections of this thread or greenlet, which of them may be closed, and closing them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from django.db import DatabaseError, Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from .cursors import watch, watch_of

_SQLITE = "sqlite"
_PSYCOPG_IN_TRANSACTION = (1, 2, 3)  # TransactionStatus: a query runs, none runs, one has failed


def own_connections() -> Iterator[BaseDatabaseWrapper]:
    """The database connections of this thread or greenlet that were used, and that no other one shares."""
    for connection in connections.all(initialized_only=True):
        if connection.allow_thread_sharing:  # LiveServerTestCase and our test client: it belongs to the test
            continue
        try:
            connection.validate_thread_sharing()
        except DatabaseError:  # another greenlet's: all share one where gevent patches after Django's import
            continue
        yield connection


def close_own_connections() -> None:
    """Close the database connections of this thread or greenlet: no other code does it at its end."""
    with contextlib.ExitStack() as stack:  # a connection that fails to close leaves no other one open
        for connection in own_connections():
            stack.callback(close, connection)


def close_idle_connections() -> None:
    """Close the database connections of this thread or greenlet that are in no transaction and have no open cursor."""
    for connection in own_connections():
        if may_be_closed(connection):
            close(connection)


def give_back() -> None:
    """Do now what Django does with the database connections of this thread or greenlet at the end of a request."""
    for connection in own_connections():
        if not in_transaction(connection):
            with contextlib.suppress(Error):
                connection.close_if_unusable_or_obsolete()


def in_transaction(connection: BaseDatabaseWrapper) -> bool:
    """Whether a transaction is open: of Django, or begun behind its back, as far as the driver tells."""
    if connection.connection is None:
        return False
    if connection.in_atomic_block or not connection.autocommit:
        return True
    if connection.vendor == _SQLITE:
        return bool(connection.connection.in_transaction)
    status = getattr(getattr(connection.connection, "info", None), "transaction_status", None)  # of psycopg
    return status is not None and int(status) in _PSYCOPG_IN_TRANSACTION


def may_be_closed(connection: BaseDatabaseWrapper) -> bool:
    if connection.connection is None or in_transaction(connection) or is_in_memory(connection):
        return False
    watch = watch_of(connection)
    return watch is None or (watch.can_close and not watch.sees_cursor())


def is_in_memory(connection: BaseDatabaseWrapper) -> bool:
    """Whether it is SQLite without a file: closing it would lose everything, so Django does not."""
    return connection.vendor == _SQLITE and connection.is_in_memory_db()  # type: ignore[attr-defined]


def descriptor_of(connection: BaseDatabaseWrapper) -> int | None:
    """Return the number of its socket; -1 where the driver does not tell, None where no server can hang up."""
    if connection.vendor == _SQLITE:
        return None
    try:
        return int(connection.connection.fileno())
    except Exception:  # each driver raises its kind for a broken connection
        return -1


def close(connection: BaseDatabaseWrapper) -> None:
    with contextlib.suppress(Error):  # it was broken before, and is gone now, as wanted
        connection.close()
    if connection.connection is not None:  # something keeps it open, so asking again would not help
        watch(connection).can_close = False
