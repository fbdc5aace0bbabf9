"""What a reactor offers to a connection, and what it asks of it."""

from __future__ import annotations

import heapq
import itertools
import select
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

#: Errors and a full hang-up are always told; the end of the peer's half is where the system knows it apart from data.
_HUNG_UP = getattr(select, "POLLRDHUP", 0)


class Served:
    """What a reactor calls. Always with the link's lock held; none of these may block or raise."""

    __slots__ = ()

    def on_readable(self) -> None:
        """The socket has bytes, or its end."""
        raise NotImplementedError

    def on_writable(self) -> None:
        """The socket takes bytes again."""
        raise NotImplementedError

    def on_turn(self) -> None:
        """What `call_soon()` asked for."""
        raise NotImplementedError

    def on_fork(self) -> None:
        """This process is the child of a fork; the connection is its parent's."""
        raise NotImplementedError

    def on_deadline(self, now: float) -> float | None:
        """The time asked for has passed; the answer is the next one (time.monotonic()), or None."""
        raise NotImplementedError


class Link:
    """The tie between one connection and the reactor that serves it."""

    __slots__ = ("holds", "lock")

    def __init__(self, lock: threading.Lock | None, *, holds: bool) -> None:
        self.lock = lock  # held around everything that touches the connection; None where nothing can come in between
        self.holds = holds  # whether `call_soon()` is to be had

    def watch(self, *, read: bool, write: bool) -> None:
        """Call `on_readable` and `on_writable` from now on, each if asked to."""
        raise NotImplementedError

    def park(self, timeout_seconds: float | None) -> None:
        """Give up the lock and sleep until somebody calls `wake()`, or the time is over; then take the lock again.

        May return early: the caller looks again at what it waits for.
        """
        raise NotImplementedError

    def wake(self) -> None:
        """Wake everybody who is parked."""
        raise NotImplementedError

    def resume(self) -> None:
        """Call `on_readable` once more, though nothing new may arrive, when others have had their turn."""
        raise NotImplementedError

    def call_soon(self) -> None:
        """Call `on_turn` before the reactor waits for anything."""
        raise NotImplementedError

    def breathe(self, now: float) -> None:
        """Let others run if this greenlet has not let them for a while; nothing where threads do so by themselves."""
        raise NotImplementedError

    def look(self, *, pause: bool) -> None:
        """Let what has already arrived be noticed, without waiting for more; `pause`: others may run first."""
        raise NotImplementedError

    def hung_up(self) -> bool:
        """Whether the peer has ended or reset its stream, though nothing may have been read for a while."""
        raise NotImplementedError

    def arrived(self) -> bool:
        """Whether bytes, or the end of the stream, wait to be read."""
        raise NotImplementedError

    def schedule(self, when: float) -> None:
        """Call `on_deadline` at `when` (time.monotonic()), or earlier if that was asked for before."""
        raise NotImplementedError

    def close(self, dispose: Callable[[], None]) -> None:
        """Serve no more, wake everybody, and call `dispose` as soon as nobody waits on the descriptor any more."""
        raise NotImplementedError


class Latch(Protocol):
    """A gate that opens once."""

    def set(self) -> None:
        """Open it."""
        ...  # pragma: no cover

    def wait(self, timeout_seconds: float | None = None, /) -> object:
        """Return when it is open, or when the time is over."""
        ...  # pragma: no cover


#: Runs a function so that no two of those it runs overlap.
Exclusively = Callable[[Callable[[], None]], None]


class Locked:
    """Runs one function at a time, whichever thread it comes from."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __call__(self, function: Callable[[], None]) -> None:
        with self._lock:
            function()


class Reactor(Protocol):
    """Serves the connections of one process (threads) or of one hub (gevent)."""

    #: What a server raises in a view in order to stop it: no fault of the view's.
    stops: tuple[type[BaseException], ...]

    #: What tells threads apart, and the one that may use the connections directly; None: any thread may.
    thread_ident: Callable[[], int]
    home: int | None

    #: How many connections one process can well serve; None: as many as it has descriptors.
    max_connections: int | None

    def link(self, served: Served, descriptor: int) -> Link:
        """The tie through which `served` is called back about `descriptor`."""
        ...  # pragma: no cover

    def run_home(self, function: Callable[[], T]) -> T:
        """The result of `function`, run where the connections live; blocks the calling thread meanwhile."""
        ...  # pragma: no cover

    def exclusively(self) -> Exclusively:
        """What runs functions, where the connections live, that must not overlap and never wait."""
        ...  # pragma: no cover

    def spawn(self, function: Callable[[], None], name: str) -> None:
        """Run `function` in a greenlet or thread of its own."""
        ...  # pragma: no cover

    def starter(self, function: Callable[[], None]) -> Callable[[], None]:
        """What starts `function` in a greenlet or thread of its own, also from a signal handler."""
        ...  # pragma: no cover

    def arrived(self, descriptor: int) -> bool:
        """Whether bytes, or the end of the stream, wait to be read from any `descriptor`; returns at once."""
        ...  # pragma: no cover

    def latch(self) -> Latch:
        """A closed gate that greenlets or threads of this reactor can wait at."""
        ...  # pragma: no cover

    def schedule(self, scheduled: Any, when: float) -> None:
        """Call `scheduled.on_deadline(now)` at `when` (time.monotonic()); called where connections live."""
        ...  # pragma: no cover

    def caller(self) -> Any:
        """What `frame_of()` knows the calling greenlet or thread by; it keeps none alive."""
        ...  # pragma: no cover

    def frame_of(self, caller: Any) -> FrameType | None:
        """The innermost frame of what once called `caller()`; None where it has ended. Asked from another one."""
        ...  # pragma: no cover


def hung_up(poll: Any, descriptor: int) -> bool:
    """Whether `poll`, a new select.poll object, sees that the peer of `descriptor` has ended or reset its stream."""
    poll.register(descriptor, _HUNG_UP)
    return bool(poll.poll(0))


def arrived(poll: Any, descriptor: int) -> bool:
    """Whether `poll`, a new select.poll object, sees something to be read on `descriptor`."""
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


class Deadlines:
    """The deadlines of many links in one heap, so that a process needs one timer for all of them.

    A link has one live entry at most. One that is no longer wanted, or was asked for later than it is needed, stays
    where it is and is judged when its time comes: a busy connection moves its deadlines without touching the heap.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Any]] = []
        self._live: dict[Any, float] = {}
        self._tie_breaker = itertools.count()

    def add(self, link: Any, when: float) -> bool:
        """Ask for `when`; whether that is now the earliest of all."""
        if when >= self._live.get(link, float("inf")):
            return False
        self._live[link] = when
        heapq.heappush(self._heap, (when, next(self._tie_breaker), link))
        return self._heap[0][2] is link

    def discard(self, link: Any) -> None:
        """Forget the link."""
        if self._live.pop(link, None) is not None and len(self._heap) > 2 * len(self._live) + 64:
            self._heap = [entry for entry in self._heap if self._live.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)

    def earliest(self) -> float | None:
        """When the next link is due; None when there is none."""
        while self._heap and self._live.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: float) -> list[Any]:
        """The links whose time has come; each must be added again to be called again."""
        due = []
        while (earliest := self.earliest()) is not None and earliest <= now:
            link = heapq.heappop(self._heap)[2]
            del self._live[link]
            due.append(link)
        return due
