"""The values that Django keeps for one thread, carried over to another."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Iterator
from datetime import tzinfo
from gettext import NullTranslations
from typing import Any

# Many requests have these values in common, and they hold no request. asgiref changes no dictionary that it has stored.
_SHARED_VALUES = (str, bool, type(None), tzinfo, NullTranslations)
_MOST_SHARED = 256
_shared: dict[tuple[tuple[str, object], ...], Any] = {}  # what was last stored for each
# By a thread and the id of a stored object: that object, which so keeps its id, and the thread's own.
_moved: dict[tuple[int, int], tuple[Any, Any]] = {}


def adopt_locals() -> None:
    """Make this thread the owner of what Django keeps in its context: language, time zone, URLconf, script prefix.

    asgiref's Local ties its values to the thread that set them, also in a context that was copied on purpose.
    """
    ident = threading.get_ident()
    for variable, stored in _tied():
        variable.set(_owned(stored, ident))


def follow_locals() -> None:
    """Make this thread the owner of what another one has adopted, or set, in this context: for a turn that moves."""
    ident = threading.get_ident()
    for variable, stored in _tied():
        if stored.thread_id != ident:
            variable.set(_moved_to(ident, stored))


def _tied() -> Iterator[tuple[contextvars.ContextVar[Any], Any]]:
    """Yield each variable in which asgiref has stored something in this context, and that."""
    for variable, value in contextvars.copy_context().items():
        if type(value).__module__ == "asgiref.local" and hasattr(value, "thread_id"):  # older versions do not tie them
            yield variable, value


def _moved_to(ident: int, stored: Any) -> Any:
    """The same values for another thread; the turns of a connection change their threads all the time."""
    found = _moved.get((ident, id(stored)))
    if found is None:
        if len(_moved) >= _MOST_SHARED:
            _moved.clear()
        found = _moved[ident, id(stored)] = stored, _owned(stored, ident)
    return found[1]


def _owned(stored: Any, ident: int) -> Any:
    """The same values for another thread, in the object of an earlier request if they are equal there.

    Each request has two of them, with a dictionary each: they take half a kilobyte.
    """
    data: dict[str, Any] = stored.data
    if not all(isinstance(value, _SHARED_VALUES) for value in data.values()):
        return type(stored)(ident, data)
    # What is kept there keeps its values alive, and so their ids; time zones can be equal and have different names.
    key = tuple((name, value if type(value) is str else id(value)) for name, value in data.items())
    last = _shared.get(key)
    if last is None or last.thread_id != ident:
        if len(_shared) >= _MOST_SHARED:
            _shared.clear()
        last = _shared[key] = type(stored)(ident, data if last is None else last.data)
    return last
