"""One server: the connections that publish to it, and the one that receives from it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

from ...exceptions import GroupsUnavailable
from ..backend import Sink
from . import commands, faults
from .location import Location
from .scripts import UNKNOWN, Call, Script
from .watchdog import Watchdog

if TYPE_CHECKING:
    from .subscriber import Subscriber
    from .wire import Wire


#: How the answer begins of a server that has become a replica.
_READONLY = "READONLY"


class Server:
    """One server, by its number in LOCATION. It connects to nothing before it is used.

    `mark` makes the call that leaves the mark of a connection with the server: it runs on each before any other script.
    """

    def __init__(
        self,
        alias: str,
        number: int,
        location: Location,
        names: commands.Names,
        node: bytes,
        timeout_seconds: float,
        mark: Callable[[], Call] | None = None,
    ) -> None:
        from .pool import Pool  # only now: it needs hiredis

        self.location = location
        self._alias = alias
        self._number = number
        self._names = names
        self._node = node
        self._timeout = timeout_seconds
        self._mark = mark
        self._has_marked = False  # whether scripts have run that need the mark
        self._pool = Pool(lambda: location.connect("dwebsocket-publish"), location.max_connections, location.leads)
        self._lock = threading.Lock()
        self._subscriber: Subscriber | None = None
        self._silent_until = 0.0  # it has not answered in time, and no caller waits for it again before that

    def open(self, sink: Sink, probe_seconds: float) -> None:
        """Begin to receive; only the first call does something."""
        from .subscriber import Subscriber

        with self._lock:
            if self._subscriber is not None:
                return
            self._subscriber = Subscriber(
                self._alias,
                self._number,
                self.location,
                self._names,
                sink,
                self._node,
                self._publish_probe,
                Watchdog(probe_seconds, self._timeout),
                self._is_back,
            )

    def close(self) -> None:
        with self._lock:
            subscriber = self._subscriber
        if subscriber is not None:
            subscriber.close()
        self._pool.close()

    def watch(self, add: Collection[str], drop: Collection[str]) -> None:
        if self._subscriber is None:
            raise RuntimeError("a backend is opened before it watches")
        self._subscriber.watch(add, drop)

    def exchange(self, sent: Sequence[bytes | Call]) -> list[Any]:
        """Send commands in one pipeline, and return when each has its answer. GroupsUnavailable within TIMEOUT."""
        if (seconds := self._silent_until - time.monotonic()) > 0:  # a view that sends ten times waits but once
            raise self._unavailable(f"it has not answered just now, and is asked again in {seconds:.1f} s")
        replies = self._exchange(sent)
        if self._subscriber is not None:
            self._subscriber.server_answers()
        return replies

    def _is_back(self) -> None:
        self._silent_until = 0.0

    def _publish_probe(self) -> None:
        """Publish to our own channel. Unfit or Moved where publishers reach a server that is, by now, a replica."""
        self.location.look()
        # A connection may live through a demotion and a promotion: the mark notices both.
        marks = [self._mark().whole()] if self._mark is not None and self._has_marked else []
        try:
            _, hello, *_ = self._exchange([commands.publish(self._node, b""), commands.HELLO, *marks])
            self.location.judge(hello)
        except (faults.Unfit, faults.Moved):
            self._pool.discard_idle()  # the others were made when it was the primary
            raise
        except GroupsUnavailable as error:
            if isinstance(error.__cause__, (faults.Unfit, faults.Moved)):  # it was judged when a connection was made
                raise error.__cause__ from None
            raise

    def _exchange(self, sent: Sequence[bytes | Call]) -> list[Any]:
        from .wire import Stale

        deadline = time.monotonic() + self._timeout
        pool = self._pool
        while True:
            try:
                wire = pool.take(deadline)
            except TimeoutError as error:
                self._silent_until = time.monotonic() + self._timeout
                raise self._unavailable("no connection to it was free, or could be made") from error
            except Exception as error:
                raise self._unavailable_of(error) from error
            is_in_order = False
            try:
                replies = self._exchange_on(wire, sent, deadline)
                is_in_order = True
                self._silent_until = 0.0
                break
            except Stale:
                continue
            except TimeoutError as error:
                pool.discard_idle()
                self._silent_until = time.monotonic() + self._timeout
                raise self._unavailable("it did not answer; what was sent may have arrived or not") from error
            except Exception as error:
                raise self._unavailable_of(error) from error
            finally:
                if is_in_order:
                    pool.give(wire)
                else:
                    pool.discard(wire)
        for reply in replies:
            if isinstance(reply, Exception):
                if str(reply).startswith(_READONLY):
                    pool.discard_idle()  # a new connection asks who is the primary
                raise self._unavailable_of(reply)
        return replies

    def _exchange_on(self, wire: Wire, sent: Sequence[bytes | Call], deadline: float) -> list[Any]:
        """The replies, errors of the server among them."""
        from .wire import Stale

        marks = self._marks(wire, sent)
        parts = [*marks, *_as_bytes(sent)]
        replies = wire.exchange(parts[0] if len(parts) == 1 else b"".join(parts), len(parts), deadline)
        if len(replies) != len(parts):
            raise faults.Broken("it has answered what was not asked")
        if marks:
            mark = replies.pop(0)
            if isinstance(mark, Exception):
                return [mark]
            wire.is_marked = self._has_marked = True
        again = [
            (at, part.whole()) for at, part in enumerate(sent) if isinstance(part, Call) and _is_unknown(replies[at])
        ]
        if again:
            try:
                late = wire.exchange(b"".join([data for _, data in again]), len(again), deadline)
            except Stale as error:  # some of it has been done: all of it must not be done once more
                raise faults.Broken("it has closed the connection") from error
            if len(late) != len(again):
                raise faults.Broken("it has answered what was not asked")
            for (at, _), reply in zip(again, late, strict=True):
                replies[at] = reply
        return replies

    def _marks(self, wire: Wire, sent: Sequence[bytes | Call]) -> list[bytes]:
        if self._mark is None or wire.is_marked or not any(isinstance(part, Call) for part in sent):
            return []
        return [self._mark().whole()]  # the others follow in the same write: a mark that is not known would be late

    def _unavailable(self, why: str) -> GroupsUnavailable:
        return GroupsUnavailable(f"groups {self._alias!r}: {self.location}: {why} (TIMEOUT is {self._timeout:g} s)")

    def _unavailable_of(self, error: Exception) -> GroupsUnavailable:
        return GroupsUnavailable(f"groups {self._alias!r}: {self.location}: {faults.as_fault(error)}")


def _as_bytes(sent: Sequence[bytes | Call]) -> list[bytes]:
    """The bytes that leave. A script is sent whole, once, where others follow it that must not overtake it."""
    if len(sent) == 1:
        (only,) = sent
        return [only.short() if isinstance(only, Call) else only]
    known: set[Script] = set()
    parts = []
    for part in sent:
        if not isinstance(part, Call):
            parts.append(part)
        elif part.script in known:
            parts.append(part.short())
        else:
            known.add(part.script)
            parts.append(part.whole())
    return parts


def _is_unknown(reply: Any) -> bool:
    return isinstance(reply, Exception) and str(reply).startswith(UNKNOWN)
