"""The greenlets that run the turns of parked views: one for all that are due in one turn of the hub."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any
from weakref import ref

from greenlet import getcurrent, greenlet

from .base import Link, Runner
from .clock import monotonic

_LONGEST_GO_SECONDS = 0.005  # so long turns may keep the hub from its other work
_ONE_TURN_SECONDS = 1e-6  # a timer: of callbacks, gevent runs up to 50 rounds in one turn of the hub
_getcurrent = getcurrent
_switch = greenlet.switch


class Runners:
    """Runs the turns of the links that are due. One that waits holds its greenlet; the others get another one.

    One greenlet stays for what comes next: turns that need no new one are cheaper. Others stay as long as they keep
    something for further turns, such as a database connection.
    """

    __slots__ = ("_due", "_hub", "_idle", "_is_called", "_late_at", "_loop", "_make")

    def __init__(self, hub: Any, loop: Any, make: Callable[[Callable[[], None]], Any]) -> None:
        self._hub = hub
        self._loop = loop
        self._make = make  # makes a greenlet
        self._due: deque[Link] = deque()
        self._idle: list[Any] = []  # greenlets
        self._is_called = False  # `_go()` is about to run
        self._late_at = 0.0

    def add(self, link: Link) -> None:
        """Let the turn of `link` run soon. On the hub's thread."""
        self._due.append(link)
        if not self._is_called:
            self._is_called = True
            self._loop.run_callback(self._go)

    def abandon(self) -> None:
        """Run nothing any more, in the child of a fork: the links and the greenlets are the parent's."""
        self._due.clear()
        self._idle.clear()

    def _go(self) -> None:
        """Run the turns that are due. Called in the hub: each greenlet returns to it when it waits, or has no turn."""
        self._is_called = True  # so that `add()` calls nothing: this loop runs what it adds
        self._late_at = monotonic() + _LONGEST_GO_SECONDS
        try:
            while self._due and monotonic() < self._late_at:
                _switch(self._idle.pop() if self._idle else self._make(self._run))
        finally:
            self._is_called = bool(self._due)
            if self._is_called:
                timer = self._loop.timer(_ONE_TURN_SECONDS)
                timer.start(self._go_on, timer)

    def _go_on(self, timer: Any) -> None:
        timer.close()
        self._go()

    def _run(self) -> None:
        runner = Runner(ref(_getcurrent()))
        try:
            while True:
                while self._due:
                    if not self._due.popleft().run_turn(runner):
                        return
                    if monotonic() >= self._late_at:
                        break
                seconds = runner.rest()
                if seconds is None and self._idle:
                    return
                self._rest(seconds)
        finally:
            runner.close()

    def _rest(self, seconds: float | None) -> None:
        """Wait until a turn is due, or the time is over."""
        current = _getcurrent()
        timer = None
        if seconds is not None:
            timer = self._loop.timer(seconds)
            timer.start(self._wake, current, update=True)
        self._idle.append(current)
        try:
            _switch(self._hub)
        finally:
            if timer is not None:
                timer.close()
            if current in self._idle:  # it was killed while it rested
                self._idle.remove(current)

    def _wake(self, sleeper: Any) -> None:
        if sleeper in self._idle:
            self._idle.remove(sleeper)
            _switch(sleeper)
