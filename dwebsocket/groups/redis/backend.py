"""RedisGroups: the contract of backends, over one server or several."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from ...exceptions import GroupsUnavailable
from ..backend import (
    Count,
    Finding,
    GroupsBackend,
    Presence,
    Publication,
    Read,
    Renewal,
    Roster,
    Sink,
    Want,
)
from ..position import Position
from . import commands, history, presence
from .location import locations
from .scripts import Call
from .server import Server
from .spread import server_of

_T = TypeVar("_T")

_LOOK = 500  # groups in one command that asks for their last positions


class RedisGroups(GroupsBackend):
    """Groups whose messages travel by Redis (6.2 or newer), or Valkey.

    LOCATION is redis://, rediss:// (TLS), unix:// or redis+sentinel://, or a list of them: then each group belongs to
    one of these servers. OPTIONS goes to redis-py's Connection, but for `max_connections`, the bound of the connections
    that publish to one server (16), and `sentinel_kwargs`.
    """

    def __init__(self, alias: str, settings: Mapping[str, Any]) -> None:
        super().__init__(alias, settings)
        places = locations(alias, settings)
        timeout = float(settings["TIMEOUT"])
        self._names = commands.Names(settings["KEY_PREFIX"])
        self._node = secrets.token_hex(8)
        node = self._names.node(self._node)
        #: Arguments of the scripts of a history.
        self._life: dict[str, Any] = {
            "meta_ttl": float(settings["META_TTL"]),
            "is_durable": bool(settings["DURABLE"]),
        }
        self._empty_ttl = max(history.EMPTY_SECONDS, 4 * float(settings["CHECK"]))  # members ask every CHECK seconds
        mark = None if settings["DURABLE"] else self._mark
        self._servers = [
            Server(alias, number, place, self._names, node, timeout, mark) for number, place in enumerate(places)
        ]

    def open(self, sink: Sink) -> None:
        for server in self._servers:
            server.open(sink, float(self.settings["PROBE"]))

    def close(self) -> None:
        for server in self._servers:
            server.close()

    def source_of(self, group: str) -> int:
        return server_of(group, len(self._servers))

    def watch(self, add: Collection[str], drop: Collection[str]) -> None:
        added, dropped = self._by_server(add), self._by_server(drop)
        for number in added.keys() | dropped.keys():
            self._servers[number].watch(added.get(number, ()), dropped.get(number, ()))

    def publish(self, publications: Sequence[Publication]) -> list[Position | None]:
        sent = [(one.group, self._append(one) if one.history else self._names.publication(one)) for one in publications]
        replies = self._exchange(sent)
        return [
            history.parse_append(reply) if one.history else None
            for one, reply in zip(publications, replies, strict=True)
        ]

    def read(self, wants: Mapping[str, Want]) -> dict[str, Read]:
        reads = self._look([group for group, want in wants.items() if want.since is None and not want.latest])
        rest = {group: want for group, want in wants.items() if group not in reads}
        how = {"empty_ttl": self._empty_ttl, **self._life}
        calls = [(group, history.read(self._names, group, want, fresh=_fresh(), **how)) for group, want in rest.items()]
        reads.update(zip(rest, map(history.parse_read, self._exchange(calls)), strict=True))
        return reads

    def _look(self, groups: Sequence[str]) -> dict[str, Read]:
        """The last positions, for many groups in one command; those are left out that the server does not know."""
        batches = [
            found[start : start + _LOOK]
            for found in self._by_server(groups).values()
            for start in range(0, len(found), _LOOK)
        ]
        how = {"empty_ttl": self._empty_ttl, **self._life}
        calls = [(batch[0], history.look(self._names, batch, **how)) for batch in batches]
        reads: dict[str, Read] = {}
        for batch, reply in zip(batches, self._exchange(calls), strict=True):
            places = zip(batch, history.parse_look(reply), strict=True)
            reads.update((group, Read(place)) for group, place in places if place is not None)
        return reads

    def clear(self, group: str) -> Position:
        (reply,) = self._exchange([(group, history.clear(self._names, group, fresh=_fresh(), **self._life))])
        return history.parse_clear(reply)

    # Presence: each server has a lease of this process, and who is present in the groups that it carries.

    def renew(self) -> Renewal:
        call = presence.renew(self._names, self._node, float(self.settings["LEASE"]))
        answers = self._ask_all(call)
        renewals = [presence.parse_renew(answer) for answer in answers if not isinstance(answer, GroupsUnavailable)]
        if not renewals:
            raise answers[0]
        # The groups of a server that is down wait for it: when it is back, its lease has run out.
        return Renewal(
            any(renewal.has_lapsed for renewal in renewals),
            [departed for renewal in renewals for departed in renewal.departed],
            min((one.next_seconds for one in renewals if one.next_seconds is not None), default=None),
        )

    def attend(self, enter: Sequence[Presence], leave: Sequence[Presence]) -> list[bool]:
        places: dict[str, tuple[list[int], list[int]]] = {}  # of each group: where in `enter` and in `leave` it is
        for which, changes in enumerate((enter, leave)):
            for at, change in enumerate(changes):
                places.setdefault(change.group, ([], []))[which].append(at)
        calls = [
            (group, self._attend(group, [enter[at] for at in entering], [leave[at] for at in leaving]))
            for group, (entering, leaving) in places.items()
        ]
        changed = [False] * (len(enter) + len(leave))
        for (entering, leaving), reply in zip(places.values(), self._exchange(calls), strict=True):
            where = [*entering, *(len(enter) + at for at in leaving)]
            for at, has_changed in zip(where, presence.parse_attend(reply), strict=True):
                changed[at] = has_changed
        return changed

    def roster(self, group: str) -> Roster:
        (reply,) = self._exchange([(group, presence.roster(self._names, group))])
        return presence.parse_roster(reply)

    def count(self, group: str) -> Count:
        (reply,) = self._exchange([(group, presence.count(self._names, group))])
        return presence.parse_count(reply)

    def resign(self, grace_seconds: float) -> None:
        call = presence.resign(self._names, self._node, grace_seconds)
        for answer in self._ask_all(call):
            if isinstance(answer, GroupsUnavailable):
                raise answer

    def _attend(self, group: str, enter: Sequence[Presence], leave: Sequence[Presence]) -> Call:
        return presence.attend(self._names, self._node, group, enter, leave)

    def _ask_all(self, call: Call) -> list[Any]:
        """The reply of each server, or its GroupsUnavailable."""

        def ask(server: Server) -> Any:
            try:
                return server.exchange([call])[0]
            except GroupsUnavailable as error:
                return error

        return _at_once([partial(ask, server) for server in self._servers])

    def examine(self) -> Iterator[Finding]:
        from .examination import examine

        for server in self._servers:
            yield from examine(server.location, float(self.settings["TIMEOUT"]), self.settings["DURABLE"])

    def _append(self, publication: Publication) -> Call:
        return history.append(self._names, publication, fresh=_fresh(), **self._life)

    def _mark(self) -> Call:
        return history.mark(self._names, _fresh())

    def _by_server(self, groups: Iterable[str]) -> dict[int, list[str]]:
        found: dict[int, list[str]] = {}
        for group in groups:
            found.setdefault(self.source_of(group), []).append(group)
        return found

    def _exchange(self, sent: Sequence[tuple[str, bytes | Call]]) -> list[Any]:
        """The reply to each command; what goes to one server keeps its order. All servers are asked at once."""
        if not sent:
            return []
        if len(self._servers) == 1:
            return self._servers[0].exchange([part for _, part in sent])
        places: dict[int, list[int]] = {}  # of each server: where in `sent` its commands are
        for at, (group, _) in enumerate(sent):
            places.setdefault(self.source_of(group), []).append(at)
        answers = _at_once(
            [partial(self._servers[number].exchange, [sent[at][1] for at in found]) for number, found in places.items()]
        )
        replies: list[Any] = [None] * len(sent)
        for found, answer in zip(places.values(), answers, strict=True):
            for at, reply in zip(found, answer, strict=True):
                replies[at] = reply
        return replies


def _fresh() -> str:
    """An epoch that never was."""
    return secrets.token_hex(8)


def _at_once(jobs: Sequence[Callable[[], _T]]) -> list[_T]:
    """Return the result of each job: the last one runs here, the others in threads. All end before one's error.

    Where no thread can be started, jobs run here, too: from Python 3.12 none starts once the interpreter ends, and that
    is when the lease is given back.
    """
    results: dict[int, _T] = {}
    errors: list[Exception] = []

    def run(number: int) -> None:
        try:
            results[number] = jobs[number]()
        except Exception as error:
            errors.append(error)

    threads = []
    for number in range(len(jobs) - 1):
        thread = threading.Thread(target=run, args=[number], name="dwebsocket-groups-server", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            run(number)
        else:
            threads.append(thread)
    run(len(jobs) - 1)
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [results[number] for number in range(len(jobs))]
