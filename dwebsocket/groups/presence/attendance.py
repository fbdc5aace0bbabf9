"""The WebSockets of this process that are present: they enter and leave, and the lease is renewed by a loop.

Where gevent has patched the standard library, the loop's thread is a greenlet. So modules are asked for their functions
when they are called, never before.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import select
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from ...exceptions import GroupsUnavailable
from ...reactors.base import Latch
from ...reactors.clock import monotonic
from ..backend import Departed, GroupsBackend, Lapsed, Presence, Present, Renewal
from ..chance import chance
from ..waker import Waker
from . import members
from .gathering import Gatherer

logger = logging.getLogger("dwebsocket")

#: Called with the name of a group, who has come, and who has gone. It must not wait: the lease ends meanwhile.
Changed = Callable[[str, list[Present], list[Present]], None]

_RENEWALS = 3  # in the time of a lease
_BATCH = 500  # that enter or leave in one call
_GATHER_SECONDS = 0.05  # between two calls in which members leave: those of the same moment leave together
_PAUSE_SECONDS = 0.05  # between two batches that enter again: the broker has just come up, perhaps, for a fleet
_ATTEMPTS = 3  # to enter, where the lease runs out in between each time
_SOONEST_SECONDS = 1.0  # until another process is looked at whose lease runs out
_JITTER_SECONDS = 0.5  # at most, after that: not all processes look at once, and one of them removes what is there
_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 0.1, 5.0
_MAX_LEAVES = 100_000  # that wait for the backend: those dropped are gone with the lease, which ends in a long outage

_Key = tuple[str, str]  # the group, and the name of the WebSocket


class _Known:
    """The presences of this process. For each WebSocket a tuple, of mostly one: a dict would take four times that."""

    def __init__(self) -> None:
        self._of: dict[str, tuple[Presence, ...]] = {}

    def find(self, group: str, name: str) -> Presence | None:
        return next((presence for presence in self._of.get(name, ()) if presence.group == group), None)

    def sharing(self, presence: Presence) -> Presence:
        """The same, with the strings of the others of its WebSocket: they are half of its memory."""
        for other in self._of.get(presence.socket, ()):
            user = other.user if other.user == presence.user else presence.user
            return presence._replace(socket=other.socket, user=user)
        return presence

    def put(self, presence: Presence) -> Presence | None:
        """Note `presence`; return the one that was there before."""
        before = self.pop(presence.group, presence.socket)
        self._of[presence.socket] = (*self._of.get(presence.socket, ()), presence)
        return before

    def pop(self, group: str, name: str) -> Presence | None:
        found = self.find(group, name)
        if found is not None:
            rest = tuple(presence for presence in self._of[name] if presence is not found)
            if rest:
                self._of[name] = rest
            else:
                del self._of[name]
        return found

    def __iter__(self) -> Iterator[Presence]:
        return (presence for presences in self._of.values() for presence in presences)

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))


class Attendance:
    """The presence of this process's WebSockets in one backend.

    `changed` is told of each change that the backend has made for this process: by the thread that enters, or the loop.
    The first one that enters starts the loop; it ends at `close()`, and at nothing else.
    """

    def __init__(self, backend: GroupsBackend, changed: Changed) -> None:
        self._backend = backend
        self._alias = backend.alias
        self._changed = changed
        self._lease_seconds: float = backend.settings["LEASE"]
        self._grace_seconds: float = backend.settings["GRACE"]
        self._pid = os.getpid()
        self._lock = threading.Lock()  # of all that follows; never held while something waits
        self._known = _Known()
        self._gone: deque[tuple[str, str, bool, float]] = deque()  # what `leave()` has handed over
        self._leaving: dict[_Key, Presence] = {}  # now
        self._in_grace: dict[_Key, tuple[Presence, float]] = {}  # until that time; the first one is due first
        self._leave_at = 0.0
        self._again: deque[Presence] = deque()  # that must enter again
        self._again_at = 0.0
        self._gatherers: dict[int, Gatherer[Presence]] = {}  # of those that enter, by source
        self._left: deque[tuple[Presence, float]] = deque()  # within a lease, and when

        self._renewing = threading.Lock()  # held while the backend is asked for the lease: one caller at a time
        self._renewals = 0  # that were tried
        self._failure: str | None = None  # of the last one
        self._has_lease = False  # was taken once: from then on the backend says when it has run out
        self._renew_at = 0.0

        self._failures = 0  # of the loop, one after the other
        self._retry_at = 0.0
        self._down_since = 0.0
        self._is_closed = False
        self._resign_seconds = 0.0
        self._thread: threading.Thread | None = None
        self._waker: Waker | None = None

    def __len__(self) -> int:
        """The number of presences, without those that leave."""
        return len(self._known)

    def use(self, backend: GroupsBackend) -> None:
        """Have another backend from now on: for tests."""
        self._backend = backend

    # What members do

    def enter(self, presence: Presence, latch: Latch | None = None) -> None:
        """Let a WebSocket be present, or change its info. GroupsUnavailable where the backend does not confirm it.

        Waits for the backend, at `latch`; those that wait at the same time enter in one call. A `leave()` from now on
        counts.
        """
        with self._lock:
            self._start()
            presence = self._known.sharing(presence)
            before = self._note(presence)
            gatherer = self._gatherer(self._backend.source_of(presence.group))
        try:
            gatherer.do(presence, threading.Event() if latch is None else latch)
        except BaseException:  # it may be noted or not
            with self._lock:
                self._undo(presence, before)
            self._wake()
            raise

    def leave(self, group: str, name: str, at_once: bool = False) -> None:
        """Let a WebSocket be present no longer, after GRACE seconds; a guest, who cannot come back, at once.

        Never waits, not even for a lock.
        """
        if self._thread is not None and not self._is_closed:
            self._gone.append((group, name, at_once, monotonic()))
            self._wake()

    def restored(self) -> None:
        """Renew the lease now, and repeat what the backend was told: it can be reached again.

        A server that has taken the place of another one may have missed the latest, and know the lease all the same.
        What is older than the lease it has not missed, or the lease has run out there.
        """
        self._begin_anew()
        with self._lock:
            while self._left:
                presence, at = self._left.popleft()
                key = presence.group, presence.socket
                if monotonic() - at < self._lease_seconds and key not in self._in_grace and not self._known.find(*key):
                    self._leave_now(presence)
        self._renew_at = self._retry_at = 0.0
        self._wake()

    def close(self, grace_seconds: float) -> None:
        """Let everything leave `grace_seconds` from now: this process ends. Returns within TIMEOUT."""
        if self._pid != os.getpid():
            return  # in a child: the loop and the lease are the parent's
        self._resign_seconds = grace_seconds
        self._is_closed = True
        with self._lock:
            gatherers = list(self._gatherers.values())
        for gatherer in gatherers:
            gatherer.close(GroupsUnavailable("this process ends"))
        self._wake(again=True)
        if self._thread is not None and threading.current_thread() is not self._thread:
            self._thread.join(self._backend.settings["TIMEOUT"])

    def _gatherer(self, source: int) -> Gatherer[Presence]:
        """Those that enter at one server: another one that does not answer holds none of them up."""
        gatherer = self._gatherers.get(source)
        if gatherer is None:
            name = f"dwebsocket-presence-enter-{self._alias}"
            gatherer = self._gatherers[source] = Gatherer(self._enter_together, name, _BATCH)
        return gatherer

    def _enter_together(self, presences: Sequence[Presence]) -> None:
        if not self._has_lease:
            self._renew(self._renewals)
        self._attend(presences, [])

    def _note(self, presence: Presence) -> Presence | None:
        self._take_gone()
        key = presence.group, presence.socket
        self._leaving.pop(key, None)
        self._in_grace.pop(key, None)
        return self._known.put(presence)

    def _undo(self, presence: Presence, before: Presence | None) -> None:
        self._take_gone()
        if self._known.find(presence.group, presence.socket) is not presence:
            return
        if before is not None:
            self._known.put(before)
            self._again.append(before)
        else:
            self._known.pop(presence.group, presence.socket)
            self._leave_now(presence)

    def _take_gone(self) -> None:
        """Take what `leave()` has handed over, in the order of all that enters."""
        while self._gone:
            group, name, at_once, since = self._gone.popleft()
            presence = self._known.pop(group, name)
            if presence is None:
                continue
            if at_once or not self._grace_seconds or members.is_guest(presence.user):
                self._leave_now(presence)
            else:
                self._in_grace[group, name] = presence, since + self._grace_seconds

    def _leave_now(self, presence: Presence) -> None:
        self._leaving[presence.group, presence.socket] = presence
        if len(self._leaving) > _MAX_LEAVES:
            del self._leaving[next(iter(self._leaving))]

    def _note_left(self, presence: Presence) -> None:
        now = monotonic()
        self._left.append((presence, now))
        while now - self._left[0][1] > self._lease_seconds or len(self._left) > _MAX_LEAVES:
            self._left.popleft()

    # What the backend is told

    def _attend(self, enter: Sequence[Presence], leave: Sequence[Presence]) -> None:
        for _ in range(_ATTEMPTS):
            renewals = self._renewals
            try:
                changes = self._backend.attend(enter, leave)
            except Lapsed:
                self._renew(renewals)
                continue
            self._reconcile(enter, leave)
            came = [presence for presence, has_changed in zip(enter, changes, strict=False) if has_changed]
            went = [presence for presence, has_changed in zip(leave, changes[len(enter) :], strict=True) if has_changed]
            self._tell(came, went)
            return
        raise GroupsUnavailable("the lease of this process runs out faster than it can be renewed: is LEASE too short?")

    def _reconcile(self, entered: Sequence[Presence], left: Sequence[Presence]) -> None:
        """Mend what the backend was told while something else happened here: calls may overtake each other."""
        with self._lock:
            self._take_gone()
            count = len(self._leaving) + len(self._again)
            for presence in entered:
                present = self._known.find(presence.group, presence.socket)
                if present is None:
                    if (presence.group, presence.socket) not in self._in_grace:
                        self._leave_now(presence)
                elif present != presence:
                    self._again.append(present)
            for presence in left:
                present = self._known.find(presence.group, presence.socket)
                if present is not None:
                    self._again.append(present)
                self._note_left(presence)
            has_more = len(self._leaving) + len(self._again) > count
        if has_more:
            self._wake()

    def _renew(self, tried: int) -> None:
        """Take or renew the lease, unless another thread has tried since that many attempts: its outcome counts."""
        renewal = None
        with self._renewing:
            if self._renewals == tried:
                renewal = self._ask_for_lease()
            elif self._failure is not None:
                raise GroupsUnavailable(self._failure)
        if renewal is not None:
            self._tell([], renewal.departed)

    def _ask_for_lease(self) -> Renewal:
        if self._is_closed:
            raise GroupsUnavailable("this process ends")
        began = monotonic()
        try:
            renewal = self._backend.renew()
        except Exception as error:
            self._failure = str(error)
            raise
        else:
            self._failure = None
        finally:
            self._renewals += 1
        if renewal.has_lapsed and self._has_lease:  # before the first one, all that are known are about to enter
            self._begin_anew()
        self._has_lease = True
        self._renew_at = began + self._until_next(renewal)
        self._wake()
        return renewal

    def _begin_anew(self) -> None:
        """Let all enter again that have not left. Those that leave do so all the same: they may have entered since."""
        with self._lock:
            self._take_gone()
            self._again = deque(self._known)
            self._again_at = 0.0

    def _until_next(self, renewal: Renewal) -> float:
        seconds = self._lease_seconds / _RENEWALS
        if renewal.next_seconds is None:
            return seconds
        if renewal.departed and renewal.next_seconds <= 0:  # there were too many for one call: more are left
            return 0.0
        jitter = chance.uniform(0.0, _JITTER_SECONDS)
        return min(seconds, max(renewal.next_seconds, _SOONEST_SECONDS) + jitter)

    def _tell(self, came: Iterable[Presence], went: Iterable[Presence | Departed]) -> None:
        changes: dict[str, tuple[list[Present], list[Present]]] = {}
        for presence in came:
            changes.setdefault(presence.group, ([], []))[0].append(Present(presence.user, presence.info, 1))
        for gone in went:
            changes.setdefault(gone.group, ([], []))[1].append(Present(gone.user, gone.info, 0))
        for group, (joined, left) in changes.items():
            try:
                self._changed(group, joined, left)
            except Exception:  # the others must be told
                logger.exception("groups %r: %r failed", self._alias, self._changed)

    # The loop

    def _start(self) -> None:
        if self._thread is not None:
            return
        waker = Waker()
        self._waker, self._renew_at = waker, math.inf  # the one that enters asks for the lease
        name = f"dwebsocket-presence-{self._alias}"
        thread = threading.Thread(target=self._run, args=(waker,), name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no thread can be started now: the next one that enters tries again
            waker.close()
            raise
        self._thread = thread

    def _wake(self, *, again: bool = False) -> None:
        if self._waker is not None:
            self._waker.wake(again=again)

    def _is_over(self) -> bool:
        """Whether the loop must end. In a child of gevent's fork() the greenlets of the parent go on: ours must not."""
        return self._is_closed or self._pid != os.getpid()

    def _run(self, waker: Waker) -> None:
        poller = select.poll()
        poller.register(waker, select.POLLIN)
        while not self._is_over():
            self._turn()
            self._sleep(poller, waker)
        if self._pid == os.getpid():
            self._resign()
        waker.close()

    def _turn(self) -> None:
        now = monotonic()
        with self._lock:
            self._take_gone()
        if now < self._retry_at:
            return
        try:
            self._work(now)
        except Exception as error:  # the loop goes on, whatever happens
            self._lose(error)
        else:
            self._come_up()

    def _work(self, now: float) -> None:
        """Tell the backend what is due: one batch of each kind."""
        if now >= self._renew_at:
            self._renew(self._renewals)
        if now >= self._leave_at and (leaves := self._take_leaves(now)):
            try:
                self._attend([], leaves)
            except BaseException:
                self._put_back(leaves)
                raise
            self._leave_at = 0.0 if len(leaves) == _BATCH else now + _GATHER_SECONDS
        if self._again and now >= self._again_at:
            self._enter_again()
            self._again_at = monotonic() + _PAUSE_SECONDS

    def _take_leaves(self, now: float) -> list[Presence]:
        with self._lock:
            for key, (presence, due) in list(itertools.islice(self._in_grace.items(), _BATCH)):
                if due > now:
                    break
                del self._in_grace[key]
                self._leave_now(presence)
            keys = list(itertools.islice(self._leaving, _BATCH))
            return [self._leaving.pop(key) for key in keys]

    def _put_back(self, leaves: Sequence[Presence]) -> None:
        """Let these leave later: the backend may have noted it or not. Those that have entered since do so again."""
        with self._lock:
            for presence in leaves:
                present = self._known.find(presence.group, presence.socket)
                if present is None:
                    self._leave_now(presence)
                else:
                    self._again.append(present)

    def _enter_again(self) -> None:
        with self._lock:
            batch = [self._again.popleft() for _ in range(min(len(self._again), _BATCH))]
            found = (self._known.find(presence.group, presence.socket) for presence in batch)
            present = [presence for presence in found if presence is not None]
        try:
            if present:
                self._attend(present, [])
        except BaseException:
            with self._lock:
                self._again.extendleft(reversed(batch))
            raise

    def _due(self) -> float:
        """When the next thing is due."""
        if self._failures:
            return self._retry_at
        with self._lock:
            times = [self._renew_at]
            if self._leaving:
                times.append(self._leave_at)
            if self._in_grace:
                times.append(max(self._leave_at, next(iter(self._in_grace.values()))[1]))
            if self._again:
                times.append(self._again_at)
        return min(times)

    def _sleep(self, poller: select.poll, waker: Waker) -> None:
        """Sleep until something is due, or `_wake()`."""
        due = self._due()
        milliseconds = None if due == math.inf else max(0, math.ceil((due - monotonic()) * 1000))
        if poller.poll(milliseconds):
            waker.take()

    def _lose(self, error: Exception) -> None:
        now = monotonic()
        longest = min(_LONGEST_RETRY_SECONDS, self._lease_seconds / _RENEWALS)
        wait = min(longest, _FIRST_RETRY_SECONDS * 2 ** min(self._failures, 10))
        self._retry_at = now + wait * chance.uniform(0.5, 1.0)
        self._failures += 1
        if self._failures > 1:
            return
        self._down_since = now
        if isinstance(error, GroupsUnavailable):
            logger.warning("groups %r: presence is not told to the backend until it answers: %s", self._alias, error)
        else:
            logger.error("groups %r: presence met an error that was not expected", self._alias, exc_info=error)

    def _come_up(self) -> None:
        if self._failures:
            self._failures = 0
            self._retry_at = 0.0
            logger.warning(
                "groups %r: presence is told to the backend again after %.1f s",
                self._alias,
                monotonic() - self._down_since,
            )

    def _resign(self) -> None:
        """Let the lease end: the last thing that the backend gets, for a renewal behind it would give it back."""
        with self._renewing:
            if self._has_lease:
                try:
                    self._backend.resign(self._resign_seconds)
                except Exception as error:
                    logger.warning("groups %r: the lease of this process was not given back: %s", self._alias, error)
