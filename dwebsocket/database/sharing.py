"""Database connections that a test shares with the threads that work for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper


def with_shared_connections(function: Callable[[], None]) -> Callable[[], None]:
    """Return `function` for another thread, with the database connections that this thread shares with others."""
    return with_connections(shared_connections(), function)


def shared_connections() -> Mapping[str, BaseDatabaseWrapper]:
    """The database connections, by alias, that this thread shares with others.

    Tests share theirs (LiveServerTestCase, the test client): a thread that works for their request sees their data.
    """
    return {
        connection.alias: connection
        for connection in connections.all(initialized_only=True)
        if connection.allow_thread_sharing
    }


def with_connections(databases: Mapping[str, BaseDatabaseWrapper], function: Callable[[], None]) -> Callable[[], None]:
    """Return `function` for another thread, with these database connections, by alias, shared while it runs."""
    if not databases:
        return function

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
