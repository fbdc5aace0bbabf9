"""Callers that wait while a thread passes on what they bring: all that have come meanwhile, in one call.

Where gevent has patched the standard library, the thread is a greenlet.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from ...reactors.base import Latch

T = TypeVar("T")


class _Ticket(Generic[T]):
    """One thing that was brought, and the gate at which its caller waits."""

    __slots__ = ("error", "is_done", "item", "latch")

    def __init__(self, item: T, latch: Latch) -> None:
        self.item = item
        self.latch = latch
        self.is_done = False
        self.error: BaseException | None = None

    def end(self, error: BaseException | None) -> None:
        self.error = error
        self.is_done = True
        self.latch.set()


class Gatherer(Generic[T]):
    """Calls `work` with what has come, `max_items` at most, in its order. What it raises, each of their callers gets.

    A caller that waits no longer takes nothing back.
    """

    def __init__(self, work: Callable[[list[T]], None], name: str, max_items: int) -> None:
        self._work = work
        self._name = name
        self._max_items = max_items
        self._waiting: deque[_Ticket[T]] = deque()
        self._changed = threading.Condition(threading.Lock())
        self._thread: threading.Thread | None = None
        self._closed: Exception | None = None
        self._pid = os.getpid()

    def do(self, item: T, latch: Latch) -> None:
        """Return when `work` has had `item`; raise what it has raised. `latch` is of the caller's reactor."""
        ticket = _Ticket(item, latch)
        with self._changed:
            if self._closed is not None:
                raise self._closed
            if self._thread is None:
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                thread.start()
                self._thread = thread
            self._waiting.append(ticket)
            self._changed.notify()
        while not ticket.is_done:
            latch.wait()
        if ticket.error is not None:
            raise ticket.error

    def close(self, error: Exception) -> None:
        """End the thread; all that wait, and that come, get `error`."""
        with self._changed:
            self._closed = error
            self._changed.notify()

    def _run(self) -> None:
        while self._pid == os.getpid():
            with self._changed:
                while not self._waiting and self._closed is None:
                    self._changed.wait()
                closed = self._closed
                count = len(self._waiting) if closed is not None else min(len(self._waiting), self._max_items)
                tickets = [self._waiting.popleft() for _ in range(count)]
            error: BaseException | None = closed
            if closed is None:
                try:
                    self._work([ticket.item for ticket in tickets])
                except BaseException as raised:  # it is the callers', not the thread's
                    error = raised
            for ticket in tickets:
                ticket.end(error)
            if closed is not None:
                return
