"""The values that Django keeps for one thread, carried over to another."""

from __future__ import annotations

import contextvars
import threading


def adopt_locals() -> None:
    """Make this thread the owner of what Django keeps in its context: language, time zone, URLconf, script prefix.

    asgiref's Local ties its values to the thread that set them, also in a context that was copied on purpose.
    """
    for variable, value in contextvars.copy_context().items():
        kind = type(value)
        if kind.__module__ == "asgiref.local" and hasattr(value, "thread_id"):  # older versions do not tie them
            variable.set(kind(threading.get_ident(), value.data))


def follow_locals(context: contextvars.Context) -> None:
    """Make this thread the owner of what another one has adopted, or set, in `context`, which is its own by now."""
    ident = threading.get_ident()
    for value in context.values():
        if type(value).__module__ == "asgiref.local" and hasattr(value, "thread_id"):
            value.thread_id = ident
