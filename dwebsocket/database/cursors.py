"""The cursors of a database connection that are in use."""

from __future__ import annotations

import contextvars
import functools
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from django.db.backends.base.base import BaseDatabaseWrapper

_MAKE_CURSOR = ("make_cursor", "make_debug_cursor")  # Django calls one of them for every cursor, once connected


class Holder(Protocol):
    """Told what its context does with databases."""

    def opened(self, database: BaseDatabaseWrapper) -> None:
        """A connection was opened."""
        ...  # pragma: no cover

    def queried(self) -> None:
        """A cursor was made."""
        ...  # pragma: no cover


#: The lease of the view that runs in this context.
current_lease: contextvars.ContextVar[Holder | None] = contextvars.ContextVar("dwebsocket_lease", default=None)


class _Watch:
    """Sees the cursors of one database connection, as long as the view holds them."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.can_close = True  # False once `close()` has left the connection open: asking again would not help
        self._cursors: weakref.WeakSet[Any] = weakref.WeakSet()
        for name in _MAKE_CURSOR:
            setattr(connection, name, self._seen(getattr(connection, name)))

    def sees_cursor(self) -> bool:
        """Whether the view still holds a cursor that is not closed."""
        return any(not getattr(cursor, "closed", False) for cursor in self._cursors)

    def _close(self, cursor: weakref.ref[Any], close: Callable[[], None]) -> None:
        self._cursors.discard(cursor())  # few drivers have an attribute that says that a cursor is closed
        close()

    def _seen(self, make_cursor: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(make_cursor)
        def make_and_see(*args: Any, **kwargs: Any) -> Any:
            cursor = make_cursor(*args, **kwargs)
            self._cursors.add(cursor)
            cursor.close = functools.partial(self._close, weakref.ref(cursor), cursor.close)
            if (lease := current_lease.get()) is not None:
                lease.queried()
            return cursor

        make_and_see.watch = self  # type: ignore[attr-defined]
        return make_and_see


def watch_of(connection: BaseDatabaseWrapper) -> _Watch | None:
    return getattr(connection.make_cursor, "watch", None)


def watch(connection: BaseDatabaseWrapper) -> _Watch:
    return watch_of(connection) or _Watch(connection)


def watch_no_longer(connection: BaseDatabaseWrapper) -> None:
    for name in _MAKE_CURSOR:
        if hasattr(vars(connection).get(name), "watch"):
            delattr(connection, name)
