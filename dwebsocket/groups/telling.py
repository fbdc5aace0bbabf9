"""Signals are sent in a thread or greenlet made for it: their receivers may wait, for a database perhaps."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Mapping

from ..database.own import close_own_connections

logger = logging.getLogger("dwebsocket")

#: Starts a function in a new thread or greenlet of that name. RuntimeError where there can be none.
Spawn = Callable[[Callable[[], None], str], object]


def in_thread(function: Callable[[], None], name: str) -> None:
    """Start `function` in a new thread; a greenlet, where gevent has patched the standard library."""
    threading.Thread(target=function, name=name, daemon=True).start()


class Teller:
    """Calls what waits, one after the other, however long each takes. The oldest beyond `max_waiting` are dropped."""

    def __init__(self, signal: str, max_waiting: float) -> None:
        self.max_waiting = max_waiting
        self.is_telling = False
        self._signal = signal  # its name
        self._waiting: dict[Hashable, Callable[[], object]] = {}
        self._drops = False  # and has said so
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._waiting)

    def tell(self, calls: Mapping[Hashable, Callable[[], object]], spawn: Spawn = in_thread) -> None:
        """Have `calls` made soon; one whose key waits already takes its place. Never waits."""
        with self._lock:
            self._waiting.update(calls)
            begins_to_drop = len(self._waiting) > self.max_waiting and not self._drops
            while len(self._waiting) > self.max_waiting:
                del self._waiting[next(iter(self._waiting))]
                self._drops = True
            is_telling, self.is_telling = self.is_telling, True
        if begins_to_drop:
            logger.error("receivers of %s are too slow: the oldest changes are not told", self._signal)
        if is_telling:
            return
        try:
            spawn(self._tell_all, f"dwebsocket {self._signal}")
        except RuntimeError:  # no thread is left, perhaps: the next one tries again
            self.is_telling = False
            logger.exception("%s is not sent", self._signal)

    def _tell_all(self) -> None:
        try:
            while (call := self._next()) is not None:
                call()
        except BaseException:  # of a receiver: SystemExit
            self.is_telling = False
            raise
        finally:
            close_own_connections()

    def _next(self) -> Callable[[], object] | None:
        with self._lock:
            if not self._waiting:
                self.is_telling = self._drops = False
                return None
            return self._waiting.pop(next(iter(self._waiting)))
