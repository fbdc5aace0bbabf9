"""A thread that is started at its first need, and sleeps until something changes.

Where gevent has patched the standard library, it is a greenlet.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

logger = logging.getLogger("dwebsocket")


class Loop:
    """The base of what runs in such a thread: `_run()`, which ends when `_is_over()`.

    That is after `close()`, and in a child of gevent's fork(), in which the greenlets of the parent go on. `without`
    says in the log what does not happen where no thread can be started: the next `_wake()` tries again.
    """

    def __init__(self, name: str, *, without: str, lock: Any = None) -> None:
        self._changed = threading.Condition(threading.Lock() if lock is None else lock)
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._pid = os.getpid()
        self._name = name
        self._without = without

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def _is_over(self) -> bool:
        return self._is_closed or self._pid != os.getpid()

    def _wake(self) -> None:
        """Wake the thread, or start it. Called with `_changed` held."""
        if self._thread is None and not self._is_closed:
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no thread is left, perhaps
                logger.exception(self._without)
            else:
                self._thread = thread
        self._changed.notify()

    def _run(self) -> None:
        raise NotImplementedError
