"""The interface between a reactor and the connections that it serves."""

from __future__ import annotations

import contextvars
import heapq
import itertools
import logging
import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import FrameType
from typing import Any, Protocol, TypeVar

try:
    import cython
except ImportError:
    from .. import _compiled as cython

from .clock import monotonic

T = TypeVar("T")

logger = logging.getLogger("dwebsocket")

#: The error in a thread that would wait for itself.
REENTERED = (
    "this thread is inside another call on this WebSocket already:"
    " what a signal handler or a __del__ wants of it must be done by another thread"
)

# A thread that gives way sleeps so long: enough for another one to get Python's own lock, too.
_NAP_SECONDS = 0.0005

#: Errors and a full hang-up are always told; the end of the peer's half is where the system knows it apart from data.
_HUNG_UP = getattr(select, "POLLRDHUP", 0)


class Served:
    """The methods that a reactor calls, always with the link's lock held; none of them may block or raise."""

    __slots__ = ()

    def on_readable(self) -> None:
        """Called when the socket has bytes, or its end."""
        raise NotImplementedError

    def on_writable(self) -> None:
        """Called when the socket takes bytes again."""
        raise NotImplementedError

    def on_turn(self) -> None:
        """Called once after each `call_soon()`."""
        raise NotImplementedError

    def on_fork(self) -> None:
        """Called in the child of a fork: the connection is its parent's."""
        raise NotImplementedError

    def on_deadline(self, now: float) -> float | None:
        """Called when the scheduled time has passed; returns the next one (time.monotonic()), or None."""
        raise NotImplementedError


_making_gate: Any = threading.RLock()  # a signal handler, or a __del__, may come into it


def _after_fork() -> None:
    global _making_gate
    _making_gate = threading.RLock()  # a thread that held it is the parent's


os.register_at_fork(after_in_child=_after_fork)


class LinkLock:
    """The lock of one connection under threads. No thread waits for itself; one that gives way queues up anew.

    A function whose caller must not wait for the lock is posted, and runs as soon as the lock is free.
    """

    __slots__ = ("_gate", "_mutex", "_owner", "_posted")

    def __init__(self) -> None:
        self._mutex: Any = threading.RLock()  # not to enter it twice, but because it knows its owner
        self._owner = 0  # where this is compiled, a thread is asked for so often that calls of Python are too dear
        self._gate: Any = None  # the next thread in line holds it; made with the first line
        self._posted: list[Callable[[], None]] = []

    def acquire(self) -> None:
        """Take the lock. RuntimeError where this very thread holds it: a signal handler, or a `__del__`."""
        if self._is_owned():
            raise RuntimeError(REENTERED)
        if not self._try():
            self._wait()

    def release(self) -> None:
        """Give the lock back, and call the functions that were posted meanwhile."""
        self._owner = 0
        self._mutex.release()
        if self._posted:
            self._run_posted()

    def give_way(self) -> None:
        """Let all threads that wait have the lock first, then take it again."""
        self.release()
        try:
            time.sleep(_NAP_SECONDS)
        finally:
            self._wait()

    def post(self, function: Callable[[], None]) -> None:
        """Have `function` called with the lock held: at once, or by the thread that holds it, when it releases it."""
        self._posted.append(function)
        if not self._is_owned():
            self._run_posted()

    def has_posted(self) -> bool:
        """Whether a posted function has not been called yet."""
        return bool(self._posted)

    def abandon(self) -> None:
        """Be free, in the child of a fork: a thread that held it, or waited, is the parent's."""
        self._posted.clear()
        self._gate = None
        if not self._is_owned():
            self._mutex = threading.RLock()
            self._owner = 0

    def _try(self) -> bool:
        """Take the lock if it is free."""
        if not self._mutex.acquire(False):
            return False
        self._own()
        return True

    def _wait(self) -> None:
        # A bare release and acquire is won by the thread that is running already. Here it queues up behind the gate,
        # whose holder gets the lock next.
        if self._gate is None:
            self._make_gate()
        with self._gate:
            self._mutex.acquire()
            self._own()

    def _make_gate(self) -> None:
        with _making_gate:
            if self._gate is None:
                self._gate = threading.RLock()  # a signal handler in the thread that holds it may need it, too

    def _run_posted(self) -> None:
        # The poster tries, and the holder looks once it has released: one of the two finds the lock free.
        while self._posted and self._try():
            try:
                while self._posted:
                    self._run(self._posted.pop(0))
            finally:
                self._owner = 0
                self._mutex.release()

    def _run(self, function: Callable[[], None]) -> None:
        try:
            function()
        except Exception:  # not a fault of the thread that happened to hold the lock
            logger.exception("what was asked of a WebSocket has failed")

    def _own(self) -> None:
        if cython.compiled:  # here no signal handler comes between the mutex and its owner, as it could in Python
            self._owner = PyThread_get_thread_ident()  # type: ignore # noqa: F821

    def _is_owned(self) -> bool:  # a Condition asks, too
        if cython.compiled:
            return self._owner != 0 and self._owner == PyThread_get_thread_ident()  # type: ignore # noqa: F821
        return bool(self._mutex._is_owned())

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()


class Keeper(Protocol):
    """Keeps something between two turns of a runner."""

    def rest(self, now: float) -> float | None:
        """The seconds after which to call this again, when no turn is due. None: it keeps nothing any more."""
        ...  # pragma: no cover

    def close(self) -> None:
        """Keep nothing any more: the runner ends."""
        ...  # pragma: no cover


class Runner:
    """A greenlet or a thread that runs turns. It makes this itself, as it takes its own `ident`.

    `ident` is `threading.get_ident()` of it, `caller` is what `Reactor.caller()` returns. A turn may leave a `keeper`,
    whose `rest()` is then called between two turns.
    """

    __slots__ = ("caller", "ident", "keeper")

    def __init__(self, caller: Any) -> None:
        self.ident = threading.get_ident()
        self.caller = caller
        self.keeper: Keeper | None = None

    def rest(self) -> float | None:
        """The seconds after which to call this again, when no turn is due. None: nothing is kept."""
        if self.keeper is None:
            return None
        seconds = self.keeper.rest(monotonic())
        if seconds is None:
            self.keeper = None
        return seconds

    def close(self) -> None:
        """Keep nothing any more: no turn comes."""
        if self.keeper is not None:
            self.keeper.close()
            self.keeper = None


#: One turn of a parked view; True: the next one is due although nothing has happened.
Turn = Callable[[Runner], bool]


class Link:
    """The tie between one connection and the reactor that serves it."""

    __slots__ = ("holds", "is_due", "lock", "reads", "runs", "turn", "writes")

    def __init__(self, lock: LinkLock | None, *, holds: bool) -> None:
        self.lock = lock  # held around everything that touches the connection; None where one thread does all of it
        self.holds = holds  # whether `call_soon()` works, so that answers may be held
        self.reads = self.writes = False  # the events that are watched
        self.turn: Turn | None = None  # of the view, where it is parked
        self.runs = False  # the turn runs just now
        self.is_due = False  # the turn must run, or run again: the link was woken since it began

    def employ(self, turn: Turn) -> None:
        """From now on run `turn` after each `wake()`, in a greenlet or thread that the reactor has for that.

        It runs at once, too. It runs once for all wake-ups before it begins, never twice at the same time, and again
        where the link was woken while it ran. The end of the connection wakes it, too. What it raises stops its runner.
        """
        self.turn = turn
        self.wake()

    def dismiss(self) -> None:
        """Run no turn any more."""
        self.turn = None

    def run_turn(self, runner: Runner) -> bool:
        """Run one turn; False: it was stopped, and its greenlet must end. For the greenlets or threads that do so."""
        raise NotImplementedError

    def watch(self, *, read: bool, write: bool) -> None:
        """From now on, call `on_readable` if `read`, and `on_writable` if `write`."""
        raise NotImplementedError

    def sleep(self, timeout_seconds: float | None) -> None:
        """Release the lock and sleep until `wake()` is called, or the time is over; then take the lock again.

        May return early: the caller checks again the condition that it waits for.
        """
        raise NotImplementedError

    def wake(self) -> None:
        """Wake all threads and greenlets that sleep."""
        raise NotImplementedError

    def write_soon(self) -> None:
        """Where `on_writable` is watched for: call it as soon as it is time, though no thread waits on the link."""
        raise NotImplementedError

    def resume(self) -> None:
        """Call `on_readable` once more, though nothing new may arrive, when others have had their turn."""
        raise NotImplementedError

    def call_soon(self) -> None:
        """Call `on_turn` before the reactor waits for anything."""
        raise NotImplementedError

    def breathe(self, now: float) -> None:
        """Let others run if this greenlet has not let them for a while; does nothing under threads."""
        raise NotImplementedError

    def look(self, *, pause: bool) -> None:
        """Read what has already arrived, without waiting for more; `pause`: others may run first."""
        raise NotImplementedError

    def hung_up(self) -> bool:
        """Whether the peer has ended or reset its stream; works while reading is paused, too."""
        raise NotImplementedError

    def arrived(self) -> bool:
        """Whether bytes, or the end of the stream, wait to be read."""
        raise NotImplementedError

    def schedule(self, when: float) -> None:
        """Call `on_deadline` at `when` (time.monotonic()), or earlier if that was asked for before."""
        raise NotImplementedError

    def close(self, dispose: Callable[[], None]) -> None:
        """Serve no more, wake all waiters, and call `dispose` as soon as no thread polls the descriptor any more."""
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
        self._lock: Any = threading.RLock()  # not to enter it twice, but because it knows its owner

    def __call__(self, function: Callable[[], None]) -> None:
        if self._lock._is_owned():
            raise RuntimeError(REENTERED)
        with self._lock:
            function()


class Reactor(Protocol):
    """Serves the connections of one process (threads) or of one hub (gevent)."""

    #: The errors that a server raises in a view in order to stop it: no fault of the view's.
    stops: tuple[type[BaseException], ...]

    #: The function that tells threads apart, and the thread that may use the connections directly; None: any may.
    thread_ident: Callable[[], int]
    owner_thread: int | None

    #: The number of waiting views that one process can serve well; None: as many as it has descriptors.
    max_connections: int | None

    #: Whether views can be parked (see `Link.employ()`), and how many threads there may be for their turns.
    parks: bool
    max_threads: int

    def link(self, served: Served, descriptor: int) -> Link:
        """Make the link through which `served` is called back about `descriptor`."""
        ...  # pragma: no cover

    def call(self, function: Callable[[], T], undo: Callable[[T], None] | None = None) -> T:
        """Return the result of `function`, run on the reactor's thread; blocks the calling thread meanwhile.

        When the caller is stopped, `function` is stopped, too, or its result is given to `undo`.
        """
        ...  # pragma: no cover

    def exclusively(self) -> Exclusively:
        """Return what runs functions on the reactor's thread, no two at a time. They must not wait."""
        ...  # pragma: no cover

    def turnstile(self) -> AbstractContextManager[object]:
        """Return a lock for greenlets and threads of all hubs; its holder may wait, and stops no hub."""
        ...  # pragma: no cover

    def spawn(self, function: Callable[[], None], name: str) -> None:
        """Run `function` in a new greenlet or thread."""
        ...  # pragma: no cover

    def post(self, function: Callable[[], object]) -> None:
        """Have `function`, which must not wait, run on the reactor's thread, soon or at once. Never waits.

        For the threads that may not use the connections directly.
        """
        ...  # pragma: no cover

    def worker(self, function: Callable[[], None], name: str) -> Callable[[], None]:
        """Return a function that wakes a worker: `function` runs in a greenlet or thread of the reactor.

        It runs once for all wake-ups before it begins, never twice at the same time, and again where it was woken
        while it ran. Its exceptions are logged. Every thread and greenlet may wake it, and never waits. The child of a
        fork has no part in it.
        """
        ...  # pragma: no cover

    def breathe(self, now: float) -> None:
        """Let others run if the calling greenlet has not let them for a while; does nothing under threads."""
        ...  # pragma: no cover

    def enter(self, context: contextvars.Context) -> bool:
        """Let the calling greenlet, which the reactor has spawned, run in `context` from now on.

        False: threads cannot; there it is `context.run()`, which costs a greenlet that waits 600 bytes of its stack.
        """
        ...  # pragma: no cover

    def starter(self, function: Callable[[], None]) -> Callable[[], None]:
        """Return a function that starts `function` in a new greenlet or thread, even from a signal handler."""
        ...  # pragma: no cover

    def arrived(self, descriptor: int) -> bool:
        """Whether bytes, or the end of the stream, wait to be read from any `descriptor`; returns at once."""
        ...  # pragma: no cover

    def latch(self) -> Latch:
        """Return a closed gate at which greenlets or threads of this reactor can wait."""
        ...  # pragma: no cover

    def schedule(self, scheduled: Any, when: float) -> None:
        """Call `scheduled.on_deadline(now)` at `when` (time.monotonic()). Call this on the reactor's thread."""
        ...  # pragma: no cover

    def caller(self) -> Any:
        """Return the identity, for `frame_of()`, of the calling greenlet or thread; it does not keep it alive."""
        ...  # pragma: no cover

    def frame_of(self, caller: Any) -> FrameType | None:
        """Return the innermost frame of a `caller()`, asked from another one; None when it has ended."""
        ...  # pragma: no cover


def run_logged(function: Callable[[], None], name: str) -> None:
    """Call `function`, and log what it raises."""
    try:
        function()
    except Exception:
        logger.exception("%s has failed, and goes on with its next wake-up", name)


def hung_up(poll: Any, descriptor: int) -> bool:
    """Whether `poll`, a new select.poll object, sees that the peer of `descriptor` has ended or reset its stream."""
    poll.register(descriptor, _HUNG_UP)
    return bool(poll.poll(0))


def arrived(poll: Any, descriptor: int) -> bool:
    """Whether `poll`, a new select.poll object, sees bytes, or the end, to be read on `descriptor`."""
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


class Deadlines:
    """The deadlines of many links in one heap, so that a process needs one timer for all of them.

    A link has one live entry at most. An entry that is no longer wanted, or has become too early, stays in the heap and
    is judged when its time comes. So a busy connection moves its deadlines without touching the heap.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Any]] = []
        self._live: dict[Any, float] = {}
        self._tie_breaker = itertools.count()

    def add(self, link: Any, when: float) -> bool:
        """Add the deadline `when`; True when it is now the earliest of all."""
        if when >= self._live.get(link, float("inf")):
            return False
        self._live[link] = when
        heapq.heappush(self._heap, (when, next(self._tie_breaker), link))
        return self._heap[0][2] is link

    def discard(self, link: Any) -> None:
        """Remove the link."""
        if self._live.pop(link, None) is not None and len(self._heap) > 2 * len(self._live) + 64:
            self._heap = [entry for entry in self._heap if self._live.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)

    def earliest(self) -> float | None:
        """The time at which the next link is due; None when there is none."""
        while self._heap and self._live.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: float) -> list[Any]:
        """Remove and return the links that are due; each must be added again to be called again."""
        due = []
        while (earliest := self.earliest()) is not None and earliest <= now:
            link = heapq.heappop(self._heap)[2]
            del self._live[link]
            due.append(link)
        return due
