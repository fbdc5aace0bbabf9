"""The threads that run the turns of parked views. They wait in one epoll themselves: no thread hands over to another.

A thread that finds bytes for a parked view reads them, and runs the view's turn right there. While all threads are in
turns that block, the background thread of the reactor reads, so that pings are answered and ends are noticed.
"""

from __future__ import annotations

import contextlib
import logging
import math
import select
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Any

from .base import Runner
from .clock import monotonic
from .wakeup import Wakeup

logger = logging.getLogger("dwebsocket")

#: The name of these threads.
TURNS = "dwebsocket turns"
_STUCK_SECONDS = 1.0  # turns that take longer, in all threads, are told of once
_PAUSE_SECONDS = 0.1  # after an error that may come again at once
_READ_AHEAD = 1000  # sockets that the background thread reads at once

#: Whether this system has what the threads wait in. Elsewhere a view that could be parked has its own thread.
CAN_PARK = hasattr(select, "epoll")


class Pool:
    """At most `max_threads` threads, started as they are needed: while one runs a turn, another one waits."""

    def __init__(self) -> None:
        self.max_threads = 1
        self._epoll = select.epoll()
        self._wakeup = Wakeup()
        self._epoll.register(self._wakeup.descriptor, select.EPOLLIN | select.EPOLLET)  # each write wakes one thread
        self._links: dict[int, Any] = {}  # by descriptor
        self._due: deque[Any] = deque()  # links that need a thread, though nothing has come for them
        self._busy: dict[int, tuple[Any, float]] = {}  # what each thread that runs a turn is at, and since when
        self._count = 0  # of the threads
        self._lock: Any = threading.RLock()  # of the start of one
        self._is_over = False
        self._has_warned = False

    def add(self, link: Any, *, is_open: bool) -> None:
        """Watch the socket of `link`, if it `is_open`, once it is armed; attend to it in any case.

        RuntimeError where there is no thread, and none can start; OSError where the system watches no more.
        """
        if not self._count:
            self._start()
        if is_open:
            self._epoll.register(link.descriptor, select.EPOLLONESHOT)
            self._links[link.descriptor] = link

    def remove(self, link: Any) -> None:
        """Watch its socket no more."""
        if self._links.pop(link.descriptor, None) is not None and not self._is_over:
            with contextlib.suppress(OSError):
                self._epoll.unregister(link.descriptor)

    def arm(self, link: Any) -> None:
        """Have `link` attended to once when its socket is ready for `link.mask`."""
        self._epoll.modify(link.descriptor, link.mask | select.EPOLLONESHOT)  # poll() has the same numbers

    def attend(self, link: Any) -> None:
        """Have `link` attended to soon. Never waits."""
        self._due.append(link)
        self._wake_one()

    def links(self) -> Iterable[Any]:
        """The links whose turns run just now: no thread waits for their sockets."""
        return [link for link, _ in list(self._busy.values())]

    def __len__(self) -> int:
        """The number of links."""
        return len(self._links)

    def look(self, now: float) -> None:
        """Read what has come, where all threads are in turns. Called by the background thread, a few times a second."""
        if self._is_over or not self._count or len(self._busy) < self._count:
            return
        if self._count >= self.max_threads:
            self._warn(now)
        for descriptor, events in self._epoll.poll(0, _READ_AHEAD):
            link = self._links.get(descriptor)
            if link is not None:
                link.serve_parked(events)
        if self._due:  # a thread may be free by now, and this poll may have taken what was to wake it
            self._wake_one()

    def abandon(self) -> None:
        """End, in the child of a fork: the threads are the parent's."""
        self._is_over = True
        self._links.clear()
        self._due.clear()
        self._epoll.close()
        self._wakeup.close()

    def _wake_one(self) -> None:
        if len(self._busy) < self._count:
            self._wakeup.set()

    def _warn(self, now: float) -> None:
        if not self._has_warned and all(now - since > _STUCK_SECONDS for _, since in list(self._busy.values())):
            self._has_warned = True
            logger.warning(
                "all %d threads for parked WebSocket views are in turns of more than %g s, and the others wait:"
                " raise WEBSOCKET_THREADS, or let views that wait for long have their own thread (parked = False)",
                self.max_threads, _STUCK_SECONDS,
            )  # fmt: skip

    def _start(self) -> None:
        with self._lock:
            if len(self._busy) < self._count or self._count >= self.max_threads:
                return
            self._count += 1
            try:
                threading.Thread(target=self._run, name=TURNS, daemon=True).start()
            except BaseException:
                self._count -= 1
                raise

    def _run(self) -> None:
        runner = Runner()
        while not self._is_over:
            try:
                self._serve(runner)
            except BaseException:  # no memory, perhaps: the thread must go on
                if not self._is_over:
                    with contextlib.suppress(BaseException):
                        logger.exception("a WebSocket could not be served")
                    time.sleep(_PAUSE_SECONDS)

    def _serve(self, runner: Runner) -> None:
        """Attend to one link that is ready, and to one that is due: neither kind holds up the other."""
        for descriptor, events in self._epoll.poll(self._seconds(runner), 1):
            link = self._links.get(descriptor)
            if link is not None and link.attend(events):
                self._run_turn(link, runner)
        if self._due:
            with contextlib.suppress(IndexError):  # another thread was faster
                link = self._due.popleft()
                if self._due:
                    self._wake_one()
                if link.attend(0):
                    self._run_turn(link, runner)

    def _seconds(self, runner: Runner) -> float | None:
        """The seconds that the thread may wait; None: until it is woken."""
        if self._due:
            return 0
        if runner.keeper is None:
            return None
        seconds = runner.keeper.rest(monotonic())
        if seconds is None:
            runner.keeper = None
            return None
        return math.ceil(seconds * 1000) / 1000

    def _run_turn(self, link: Any, runner: Runner) -> None:
        ident = threading.get_ident()
        self._busy[ident] = link, monotonic()
        if len(self._busy) >= self._count and self._count < self.max_threads:
            with contextlib.suppress(RuntimeError):  # no thread can be started: those that there are go on
                self._start()
        try:
            link.run_turn(runner)
        finally:
            self._busy.pop(ident, None)
