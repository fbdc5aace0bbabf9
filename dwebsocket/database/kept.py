"""Database connections that are kept for a second after their last query: the next query need not open them again.

A view that waits keeps them by its lease, a greenlet or thread that runs turns by a Kept. Both take a place.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from ..reactors.base import Runner
from .own import close, close_own_connections, descriptor_of, in_transaction, is_in_memory, own_connections

logger = logging.getLogger("dwebsocket")

#: So long after their last query connections are kept.
KEPT_SECONDS = 1.0
# The places of a process, which bound what it keeps; a project with many busy views should use a connection pool.
MAX_KEPT_LEASES = 10
_keepers: set[Any] = set()
_lock = threading.Lock()
_warned: set[str] = set()  # views whose turn has ended in a transaction: each is logged once


def take_place(keeper: Any) -> bool:
    """Take one of the places of the process, unless `keeper` has one. False when none is free."""
    with _lock:
        if len(_keepers) < MAX_KEPT_LEASES:
            _keepers.add(keeper)
        return keeper in _keepers


def has_place(keeper: Any) -> bool:
    return keeper in _keepers


def give_up_place(keeper: Any) -> None:
    with _lock:
        _keepers.discard(keeper)


def can_be_kept(connection: BaseDatabaseWrapper) -> bool:
    """Whether keeping it saves time (it has no pool) and is safe (its end can be seen)."""
    if connection.connection is None:
        return True
    descriptor = descriptor_of(connection)
    return not getattr(connection, "pool", None) and (descriptor is None or descriptor >= 0)


class Kept:
    """Database connections that a runner keeps between two turns."""

    __slots__ = ("until",)

    def __init__(self) -> None:
        self.until = 0.0

    def rest(self, now: float) -> float | None:
        if now < self.until:
            return self.until - now
        self.close()
        return None

    def close(self) -> None:
        give_up_place(self)
        close_own_connections()


def let_keep(runner: Runner, queried_at: float, view: str) -> None:
    """Close the connections that a turn of `view` has left, or let `runner` keep them."""
    kept = runner.keeper if isinstance(runner.keeper, Kept) else Kept()
    is_kept = False
    with contextlib.ExitStack() as stack:  # a connection that fails to close leaves no other one open
        for connection in own_connections():
            if connection.connection is None or is_in_memory(connection):
                continue
            if in_transaction(connection):
                _warn(view)
                stack.callback(_roll_back, connection)
            elif can_be_kept(connection) and take_place(kept):
                is_kept = True
            else:
                stack.callback(close, connection)
        if is_kept:
            kept.until = max(kept.until, queried_at + KEPT_SECONDS)
            runner.keeper = kept
        else:
            give_up_place(kept)
            runner.keeper = None


def _roll_back(connection: BaseDatabaseWrapper) -> None:
    try:
        close(connection)
    finally:
        if connection.in_atomic_block:  # Django would keep it so, closed, until the block ends
            del connections[connection.alias]


def _warn(view: str) -> None:
    if view not in _warned:
        _warned.add(view)
        logger.warning("a call of the view %s has left a transaction open: it is rolled back", view)


def _after_fork() -> None:
    """Free the places: what the parent keeps takes none in the child."""
    global _lock
    _lock = threading.Lock()
    _keepers.clear()


os.register_at_fork(after_in_child=_after_fork)
