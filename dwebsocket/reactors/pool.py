"""The threads that run the turns of parked views. They wait in one epoll themselves: no thread hands over to another.

A thread that finds bytes for a parked view reads them, and runs the view's turn right there. Two threads do all of it
as long as turns are short: more would only wait for Python's lock. Where both are in turns that take longer, the
background thread of the reactor calls another one. While there can be no other, the background thread reads, so that
pings are answered and ends are noticed.
"""

from __future__ import annotations

import contextlib
import logging
import math
import queue
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from .base import Runner
from .clock import monotonic
from .wakeup import Wakeup

logger = logging.getLogger("dwebsocket")

#: The name of these threads.
TURNS = "dwebsocket turns"
#: While all threads are in turns, the background thread looks so often whether the turns take long.
WATCH_SECONDS = 0.01
_ACTIVE = 2  # threads, where no turn takes long
_LONG_SECONDS = 0.01  # a turn that takes longer waits for something
_WAITING_SHARE, _COMPUTING_SHARE = 0.5, 0.9  # of a core: with less, turns wait for something; with more, they compute
_IDLE_SECONDS = 0.1  # a thread beyond those two that finds nothing to do for so long rests
_CALM = 20  # so many looks in a row that find a thread free, and the background thread watches no more
_REST_SECONDS = 10.0  # a thread that is not needed for so long ends
_STUCK_SECONDS = 1.0  # where turns take longer in all threads, the log warns, once
_PAUSE_SECONDS = 0.1  # after an error that may come again at once
_READ_AHEAD = 1000  # sockets that the background thread reads at once

#: Whether this system has the epoll that the threads wait in. Without it, no view is parked under threads.
CAN_PARK = hasattr(select, "epoll")


class Pool:
    """At most `max_threads` threads, started as they are needed. `alert` wakes the background thread."""

    __slots__ = (
        "_alert",
        "_busy",
        "_calm",
        "_cpu",
        "_due",
        "_epoll",
        "_has_warned",
        "_is_over",
        "_links",
        "_lock",
        "_reserve",
        "_resting",
        "_wait",
        "_wakeup",
        "_watched_at",
        "active",
        "is_watched",
        "max_threads",
    )

    def __init__(self, alert: Callable[[], None]) -> None:
        self.max_threads = 1
        self.is_watched = False  # by the background thread, which calls `watch()`: all threads are in turns
        self._calm = 0
        self._cpu = self._watched_at = 0.0  # the CPU seconds of this process, and the time, of the last `watch()`
        self._wait = False  # the turns do, for other things than Python's lock: more than two threads get more done
        self._alert = alert
        self._epoll = select.epoll()
        self._wakeup = Wakeup()
        self._epoll.register(self._wakeup.descriptor, select.EPOLLIN | select.EPOLLET)  # each write wakes one thread
        self._links: dict[int, Any] = {}  # by descriptor
        self._due: deque[Any] = deque()  # links that need a thread, though nothing has come for them
        self._busy: dict[int, tuple[Any, float]] = {}  # by thread: the link whose turn it runs, and since when
        self.active = 0  # threads that wait for sockets, or are in turns
        self._resting = 0  # threads that are not needed just now
        self._reserve: queue.SimpleQueue[None] = queue.SimpleQueue()  # an item makes one of these active again
        self._lock: Any = threading.RLock()  # of these numbers
        self._is_over = False
        self._has_warned = False

    def add(self, link: Any, *, is_open: bool) -> None:
        """Take `link` in. Its socket, if it `is_open`, is watched from the first `arm()` on.

        RuntimeError where there is no thread, and none can start; OSError where the system watches no more sockets.
        """
        if not self.active:
            self._grow()
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
        self._epoll.modify(
            link.descriptor, link.mask | select.EPOLLONESHOT
        )  # the mask is one of poll(), which has the same numbers

    def attend(self, link: Any) -> None:
        """Have `link` attended to soon. Never waits."""
        self._due.append(link)
        self._wake_one()

    def busy_links(self) -> Iterable[Any]:
        """The links whose turns run just now: no thread of the pool waits for their sockets."""
        return [link for link, _ in list(self._busy.values())]

    def __len__(self) -> int:
        """The number of links whose sockets it may watch."""
        return len(self._links)

    def watch(self, now: float) -> None:
        """Call another thread where all turns take long, or wait. For the background thread, every 10 ms."""
        is_full = len(self._busy) >= self.active
        share = self._core_share(now)
        if is_full and share is not None:
            self._wait = share < (_COMPUTING_SHARE if self._wait else _WAITING_SHARE)
        if self._is_stuck(now, _LONG_SECONDS) or (is_full and self._wait):
            with contextlib.suppress(RuntimeError):  # no thread can be started: those that there are go on
                self._grow()
        elif not is_full:
            self._calm += 1
            self.is_watched = self._calm < _CALM
            self._wait = self._wait and self.is_watched

    def _core_share(self, now: float) -> float | None:
        """The share of a core that this process has used since the last look; None where that is long ago."""
        cpu, seconds = time.process_time(), now - self._watched_at
        used, self._cpu, self._watched_at = cpu - self._cpu, cpu, now
        return used / seconds if 0 < seconds < 10 * WATCH_SECONDS else None

    def look(self, now: float) -> None:
        """Read what has come, where all threads are in turns. For the background thread, a few times a second."""
        if not self._is_stuck(now, _LONG_SECONDS):
            return
        if self.active >= self.max_threads:
            self._warn(now)
        for descriptor, events in self._epoll.poll(0, _READ_AHEAD):
            link = self._links.get(descriptor)
            if link is not None:
                link.serve_parked(events)
        if self._due:  # a thread may be free by now, and this poll may have taken what was to wake it
            self._wake_one()

    def _is_stuck(self, now: float, seconds: float) -> bool:
        """Whether all threads are in turns that take longer than `seconds`."""
        busy = list(self._busy.values())
        return not self._is_over and len(busy) >= self.active > 0 and all(now - since > seconds for _, since in busy)

    def abandon(self) -> None:
        """End, in the child of a fork: the threads are the parent's."""
        self._is_over = True
        self._links.clear()
        self._due.clear()
        self._epoll.close()
        self._wakeup.close()

    def _wake_one(self) -> None:
        if len(self._busy) < self.active:
            self._wakeup.set()

    def _warn(self, now: float) -> None:
        if not self._has_warned and self._is_stuck(now, _STUCK_SECONDS):
            self._has_warned = True
            logger.warning(
                "all %d threads for parked WebSocket views are in turns of more than %g s, and the others wait:"
                " raise WEBSOCKET_THREADS, or let views that wait for long have their own thread (parked = False)",
                self.max_threads, _STUCK_SECONDS,
            )  # fmt: skip

    def _grow(self) -> None:
        """Let another thread wait for sockets, unless there are as many as there may be."""
        with self._lock:
            if self._resting:
                self._resting -= 1
                self.active += 1
                self._reserve.put(None)
            elif self.active < self.max_threads:
                threading.Thread(target=self._run, name=TURNS, daemon=True).start()
                self.active += 1

    def _run(self) -> None:
        runner = Runner(threading.get_ident())
        while not self._is_over:
            try:
                has_served = self._serve(runner)
                if self.active <= _ACTIVE or (has_served and self._wait):
                    continue
                if not self._rest_until_needed(runner):
                    return
            except BaseException:  # no memory, perhaps: the thread must go on
                if not self._is_over:
                    with contextlib.suppress(BaseException):
                        logger.exception("a WebSocket could not be served")
                    time.sleep(_PAUSE_SECONDS)

    def _rest_until_needed(self, runner: Runner) -> bool:
        """Rest while there are enough other threads. False when this one was not needed for ten seconds."""
        now = monotonic()
        with self._lock:
            long = sum(now - since > _LONG_SECONDS for _, since in list(self._busy.values()))
            if self.active - long <= _ACTIVE:
                return True
            self.active -= 1
            self._resting += 1
        runner.close()
        with contextlib.suppress(queue.Empty):
            self._reserve.get(timeout=_REST_SECONDS)
            return True
        with self._lock:
            with contextlib.suppress(queue.Empty):
                self._reserve.get_nowait()  # `_grow()` has just called it
                return True
            self._resting -= 1
        return False

    def _serve(self, runner: Runner) -> bool:
        """Attend to one link that is ready, and to one that is due: neither kind holds up the other. False: to none."""
        has_served = False
        for descriptor, events in self._epoll.poll(self._seconds(runner), 1):
            has_served = True
            link = self._links.get(descriptor)
            if link is not None and link.attend(events):
                self._run_turn(link, runner)
        if self._due:
            has_served = True
            with contextlib.suppress(IndexError):  # another thread was faster
                link = self._due.popleft()
                if self._due:
                    self._wake_one()
                if link.attend(0):
                    self._run_turn(link, runner)
        return has_served

    def _seconds(self, runner: Runner) -> float | None:
        """The seconds that the thread may wait; None: until it is woken."""
        if self._due:
            return 0
        longest = None if self.active <= _ACTIVE else _IDLE_SECONDS
        seconds = runner.rest()
        if seconds is None:
            return longest
        seconds = math.ceil(seconds * 1000) / 1000
        return seconds if longest is None else min(seconds, longest)

    def _run_turn(self, link: Any, runner: Runner) -> None:
        self._busy[runner.ident] = link, monotonic()
        if len(self._busy) >= self.active:
            if self.active < _ACTIVE:
                with contextlib.suppress(RuntimeError):  # no thread can be started: this one goes on
                    self._grow()
            self._calm = 0
            if not self.is_watched:
                self.is_watched = True
                self._alert()
        try:
            link.run_turn(runner)
        finally:
            self._busy.pop(runner.ident, None)
