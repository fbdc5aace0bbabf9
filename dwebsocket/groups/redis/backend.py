"""RedisGroups: publish by a pool, receive by one connection."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...exceptions import GroupsUnavailable
from ..backend import Finding, GroupsBackend, Publication, Sink
from . import commands, faults
from .location import Location
from .watchdog import Watchdog

if TYPE_CHECKING:
    from .subscriber import Subscriber


class RedisGroups(GroupsBackend):
    """Groups whose messages travel by one Redis (6.2 or newer), or Valkey.

    LOCATION is redis://, rediss:// (TLS) or unix://; OPTIONS goes to redis-py's Connection, but for `max_connections`,
    the bound of the connections that publish (16).
    """

    def __init__(self, alias: str, settings: Mapping[str, Any]) -> None:
        super().__init__(alias, settings)
        self._location = Location(alias, settings)
        # Only now: these need hiredis.
        from .pool import Pool

        self._timeout = float(settings["TIMEOUT"])
        self._names = commands.Names(settings["KEY_PREFIX"])
        self._node = self._names.node(secrets.token_hex(8))
        self._pool = Pool(lambda: self._location.connect("dwebsocket-publish"), self._location.max_connections)
        self._lock = threading.Lock()
        self._subscriber: Subscriber | None = None
        self._silent_until = 0.0  # it has not answered in time, and no caller waits for it again before that

    def open(self, sink: Sink) -> None:
        from .subscriber import Subscriber

        with self._lock:
            if self._subscriber is not None:
                return
            watchdog = Watchdog(float(self.settings["PROBE"]), self._timeout)
            self._subscriber = Subscriber(
                self.alias, self._location, self._names, sink, self._node, self._publish_probe, watchdog, self._is_back
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

    def publish(self, publications: Sequence[Publication]) -> None:
        if publications:
            if (seconds := self._silent_until - time.monotonic()) > 0:  # a view that sends ten times waits but once
                raise self._unavailable(f"it has not answered just now, and is asked again in {seconds:.1f} s")
            self._send([self._names.publication(publication) for publication in publications])
            if self._subscriber is not None:
                self._subscriber.server_answers()

    def examine(self) -> Iterator[Finding]:
        from .examination import examine

        return examine(self._location, self._timeout)

    def _is_back(self) -> None:
        self._silent_until = 0.0

    def _publish_probe(self) -> None:
        """Publish to our own channel. Unfit where publishers reach a server that is, by now, a replica."""
        try:
            _, hello = self._send([commands.publish(self._node, b""), commands.HELLO])
            faults.judge_hello(hello)
        except faults.Unfit:
            self._pool.discard_idle()  # the others were made when it was the primary
            raise
        except GroupsUnavailable as error:
            if isinstance(error.__cause__, faults.Unfit):  # it was judged when a connection was made
                raise error.__cause__ from None
            raise

    def _send(self, sent: Sequence[bytes]) -> list[Any]:
        """Send commands in one pipeline, and return when each has its answer."""
        from .wire import Stale

        deadline = time.monotonic() + self._timeout
        data = sent[0] if len(sent) == 1 else b"".join(sent)
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
                replies = wire.exchange(data, len(sent), deadline)
                is_in_order = len(replies) == len(sent)
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
                raise self._unavailable_of(reply)
        return replies

    def _unavailable(self, why: str) -> GroupsUnavailable:
        return GroupsUnavailable(f"groups {self.alias!r}: {self._location}: {why} (TIMEOUT is {self._timeout:g} s)")

    def _unavailable_of(self, error: Exception) -> GroupsUnavailable:
        return GroupsUnavailable(f"groups {self.alias!r}: {self._location}: {faults.as_fault(error)}")
