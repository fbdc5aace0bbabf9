"""The values that Django keeps for one thread, carried over to another."""

from __future__ import annotations

import contextvars
import threading
from datetime import tzinfo
from gettext import NullTranslations
from typing import Any

# Values that are the same for many requests, and hold none. asgiref never changes a dictionary that it has stored.
_SHARED_VALUES = (str, bool, type(None), tzinfo, NullTranslations)
_MOST_SHARED = 256
_shared: dict[tuple[tuple[str, object], ...], dict[str, Any]] = {}


def adopt_locals() -> None:
    """Make this thread the owner of what Django keeps in its context: language, time zone, URLconf, script prefix.

    asgiref's Local ties its values to the thread that set them, also in a context that was copied on purpose.
    """
    ident = threading.get_ident()
    for variable, value in contextvars.copy_context().items():
        kind = type(value)
        if kind.__module__ == "asgiref.local" and hasattr(value, "thread_id"):  # older versions do not tie them
            variable.set(kind(ident, _share(value.data)))


def follow_locals(context: contextvars.Context) -> None:
    """Make this thread the owner of what another one has adopted, or set, in `context`, which is its own by now."""
    ident = threading.get_ident()
    for value in context.values():
        if type(value).__module__ == "asgiref.local" and hasattr(value, "thread_id"):
            value.thread_id = ident


def _share(data: dict[str, Any]) -> dict[str, Any]:
    """The equal dictionary of an earlier request: each request has its own, of 184 bytes, for each of its locals."""
    if not all(isinstance(value, _SHARED_VALUES) for value in data.values()):
        return data
    if len(_shared) >= _MOST_SHARED:
        _shared.clear()
    # What is kept there keeps its values alive, and so their ids; time zones can be equal and have different names.
    key = tuple((name, value if type(value) is str else id(value)) for name, value in data.items())
    return _shared.setdefault(key, data)
