"""The connections that publish: bounded, shared by threads and greenlets, never by a parent and its child."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from weakref import WeakSet

from .wire import Wire

_pools: WeakSet[Pool] = WeakSet()


class Pool:
    """At most `size` wires. A wire that is taken is given back, or discarded; one that is not `is_current` is.

    A connection is made by a separate thread: so it ends in its own time, where DNS, TLS or the server takes longer
    than the one that asked for it may wait, and serves the next one.
    """

    def __init__(
        self, connect: Callable[[], Wire], size: int, is_current: Callable[[Wire], bool] = lambda wire: True
    ) -> None:
        self._connect = connect
        self._is_current = is_current
        self._size = size
        self._idle: list[Wire] = []  # the last one is used first: so that the others may be closed by the server
        self._begin()
        _pools.add(self)

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition(threading.Lock())
        self._count = 0  # idle, taken, and being made
        self._waiting = 0
        self._is_closed = False

    def take(self, deadline: float) -> Wire:
        """A wire, idle or new. TimeoutError, or what the connecting raised."""
        self._forget_parent()
        while True:
            try:
                wire = self._idle.pop()
            except IndexError:
                return self._wait(deadline)
            if self._is_current(wire):
                return wire
            self.discard(wire)

    def _wait(self, deadline: float) -> Wire:
        attempt: _Attempt | None = None
        with self._changed:
            self._waiting += 1
            try:
                while True:
                    while self._idle:
                        wire = self._idle.pop()
                        if self._is_current(wire):
                            return wire
                        wire.close()
                        self._count -= 1
                    if attempt is not None and attempt.error is not None:
                        raise attempt.error
                    if (attempt is None or attempt.is_over) and self._count < self._size:
                        attempt = self._start()
                    remaining = deadline - time.monotonic()
                    if remaining <= 0:
                        raise TimeoutError
                    self._changed.wait(remaining)
            finally:
                self._waiting -= 1

    def _start(self) -> _Attempt:
        self._count += 1
        attempt = _Attempt()
        thread = threading.Thread(
            target=self._make, args=(attempt, self._changed), name="dwebsocket-connect", daemon=True
        )
        try:
            thread.start()
        except BaseException:
            self._count -= 1
            raise
        return attempt

    def _make(self, attempt: _Attempt, changed: threading.Condition) -> None:
        try:
            wire = self._connect()
        except BaseException as error:
            with changed:
                self._count -= 1
                attempt.error = error
                changed.notify_all()
            return
        with changed:
            if self._is_closed:
                wire.close()
            else:
                self._idle.append(wire)
            attempt.is_over = True  # another one may take the wire
            changed.notify_all()

    def give(self, wire: Wire) -> None:
        """Take back a wire that is in order."""
        if self._is_closed or wire.pid != self._pid or not self._is_current(wire):
            self.discard(wire)
            return
        self._idle.append(wire)
        if self._waiting:  # it has looked into _idle after it counted itself, or is woken now
            with self._changed:
                self._changed.notify()

    def discard(self, wire: Wire) -> None:
        """Close a wire."""
        wire.close()
        if wire.pid == self._pid:
            with self._changed:
                self._count -= 1
                self._changed.notify_all()  # one that waits may have its attempt already

    def discard_idle(self) -> None:
        """Close all that are idle: after a time-out the others may be as dead."""
        while self._idle:
            try:
                wire = self._idle.pop()
            except IndexError:
                return
            self.discard(wire)

    def close(self) -> None:
        """Close what is idle now, and the others when they are given back."""
        self._forget_parent()
        self._is_closed = True
        self.discard_idle()

    def _forget_parent(self) -> None:
        """Begin anew in a child: close our copies of the parent's descriptors, which disturbs no parent."""
        if self._pid == os.getpid():
            return
        theirs, self._idle = self._idle, []
        self._begin()
        for wire in theirs:
            wire.close()


def _forget_parents() -> None:
    """In the child of a fork: a backend that it never uses must not hold the connections of its parent open."""
    for pool in list(_pools):
        pool._forget_parent()


os.register_at_fork(after_in_child=_forget_parents)


class _Attempt:
    """A connection that is being made, and how it failed."""

    is_over = False
    error: BaseException | None = None
