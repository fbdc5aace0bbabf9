from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dwebsocket.groups.backend import Count, Departed, Lapsed, Presence, Present, Renewal, Roster
from dwebsocket.groups.config import DEFAULTS
from dwebsocket.groups.messages import PRESENCE, Arrival, Envelope
from dwebsocket.groups.redis import faults, presence
from dwebsocket.groups.redis.commands import Names
from dwebsocket.groups.redis.location import Location
from dwebsocket.groups.redis.scripts import UNKNOWN, Call
from tests.groups.servers import PROGRAMS, RedisServer
from tests.links import PATIENCE_SECONDS

LONG, SHORT = 600.0, 0.2
_prefixes = (f"presence{number}" for number in itertools.count())


class Broker:
    """One connection to a server: scripts are sent short, and whole where the server does not know them."""

    def __init__(self, server: RedisServer, **given: Any) -> None:
        url = given.get("LOCATION", server.url)
        self.server = server
        self.wire = Location("default", {**DEFAULTS, "LOCATION": url}).connect("test")

    def exchange(self, *calls: Call) -> list[Any]:
        deadline = time.monotonic() + PATIENCE_SECONDS
        replies = self.wire.exchange(b"".join(call.short() for call in calls), len(calls), deadline)
        for at, reply in enumerate(replies):
            if str(reply).startswith(UNKNOWN):
                (replies[at],) = self.wire.exchange(calls[at].whole(), 1, deadline)
            if isinstance(replies[at], Exception):
                raise replies[at]
        return replies

    def ask(self, call: Call) -> Any:
        return self.exchange(call)[0]


class Node:
    """One process, which speaks to the broker as a backend does."""

    def __init__(self, broker: Broker, names: Names, name: str) -> None:
        self.broker = broker
        self.names = names
        self.name = name

    def renew(self, lease: float = LONG) -> Renewal:
        return presence.parse_renew(self.broker.ask(presence.renew(self.names, self.name, lease)))

    def attend(self, group: str, enter: Sequence[Presence] = (), leave: Sequence[Presence] = ()) -> list[bool]:
        return presence.parse_attend(self.broker.ask(presence.attend(self.names, self.name, group, enter, leave)))

    def enter(self, group: str, socket: str, user: str, info: str = "{}") -> bool:
        (has_changed,) = self.attend(group, enter=[Presence(group, socket, user, info)])
        return has_changed

    def leave(self, group: str, socket: str, user: str) -> bool:
        (has_changed,) = self.attend(group, leave=[Presence(group, socket, user, "{}")])
        return has_changed

    def roster(self, group: str) -> tuple[Roster, list[Departed]]:
        roster = presence.parse_roster(self.broker.ask(presence.roster(self.names, group)))
        return roster._replace(departed=()), list(roster.departed)

    def members(self, group: str) -> dict[str, Present]:
        return {member.user: member for member in self.roster(group)[0].members}

    def count(self, group: str) -> Count:
        return self.counted(group)[0]

    def counted(self, group: str) -> tuple[Count, list[Departed]]:
        count = presence.parse_count(self.broker.ask(presence.count(self.names, group)))
        return count._replace(departed=()), list(count.departed)

    def resign(self, grace: float = 0.0) -> list[Departed]:
        return presence.parse_resign(self.broker.ask(presence.resign(self.names, self.name, grace)))

    def die(self) -> None:
        """Let the lease be over."""
        with self.broker.server.client() as client:
            client.zadd(self.names.nodes(), {self.name: 1}, xx=True)


@pytest.fixture
def nodes(any_server: RedisServer) -> Iterator[Callable[..., list[Node]]]:
    """Makes processes with a lease: `nodes("a", "b")`. Each test has another prefix."""
    names = Names(next(_prefixes))
    broker = Broker(any_server)

    def make(*given: str, lease: float = LONG) -> list[Node]:
        made = [Node(broker, names, name) for name in given]
        for node in made:
            node.renew(lease)
        return made

    yield make
    broker.wire.close()


@contextmanager
def listening(node: Node, group: str) -> Iterator[Callable[[], list[Arrival]]]:
    """What is announced to the group: a function that returns all since the last time."""
    channel = node.names.channel(group)
    with node.broker.server.client() as client, client.pubsub() as subscription:
        subscription.subscribe(channel)
        assert subscription.get_message(timeout=PATIENCE_SECONDS)["type"] == "subscribe"

        def heard() -> list[Arrival]:
            client.publish(channel, b"end")
            arrivals = []
            while (data := subscription.get_message(timeout=PATIENCE_SECONDS)["data"]) != b"end":
                envelope = Envelope.parse(data)
                assert envelope.kind == PRESENCE
                assert data == Envelope(PRESENCE, envelope.arrival().serialize()).serialize()
                arrivals.append(envelope.arrival())
            return arrivals

        yield heard


def eventually(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def until_departed(node: Node, number: int) -> list[Departed]:
    """Renew until so many users have departed."""
    departed: list[Departed] = []

    def are_there() -> bool:
        departed.extend(node.renew().departed)
        return len(departed) >= number

    eventually(are_there)
    return departed


def test_tabs_of_a_user_are_one_member(nodes: Callable[..., list[Node]]) -> None:
    a, b = nodes("a", "b")

    assert a.enter("g", "a:1", "ann") is True
    assert b.enter("g", "b:1", "ann") is False
    assert b.enter("g", "b:2", "bob") is True
    assert a.members("g") == {"ann": Present("ann", "{}", 2), "bob": Present("bob", "{}", 1)}
    assert a.count("g") == Count(3, 2)
    assert a.leave("g", "a:1", "ann") is False
    assert b.leave("g", "b:1", "ann") is True
    assert a.count("g") == Count(1, 1)


def test_each_in_its_order_is_told_whether_the_members_are_others_now(nodes: Callable[..., list[Node]]) -> None:
    (a,) = nodes("a")
    first, second, other = (Presence("g", f"a:{number}", user, "{}") for number, user in enumerate(["x", "x", "y"]))

    assert a.attend("g", [first, second, other], [first, other, other]) == [True, False, True, False, True, False]
    assert a.attend("g") == []
    assert a.count("g") == Count(1, 1)


def test_enter_and_leave_may_be_said_twice(nodes: Callable[..., list[Node]]) -> None:
    (a,) = nodes("a")

    with listening(a, "g") as heard:
        assert [a.enter("g", "a:1", "ann") for _ in range(2)] == [True, False]
        assert [a.leave("g", "a:1", "ann") for _ in range(2)] == [True, False]
        assert [(one.has_come, one.user) for one in heard()] == [(True, "ann"), (False, "ann")]
    assert a.count("g") == Count(0, 0)


def test_socket_leaves_with_its_user_only(nodes: Callable[..., list[Node]]) -> None:
    a, b = nodes("a", "b")
    a.enter("g", "a:1", "ann")
    before = a.roster("g")

    assert [a.leave("g", "a:1", "bob"), a.leave("g", "a:2", "ann"), b.leave("g", "a:1", "ann")] == [False] * 3
    assert a.leave("h", "a:1", "ann") is False
    assert a.roster("g") == before
    assert a.count("g") == Count(1, 1)
    assert a.leave("g", "a:1", "ann") is True


def test_new_info_is_announced_and_is_no_change_of_the_members(nodes: Callable[..., list[Node]]) -> None:
    (a,) = nodes("a")
    a.enter("g", "a:1", "ann", "1")

    with listening(a, "g") as heard:
        assert a.enter("g", "a:1", "ann", "2") is False
        assert a.enter("g", "a:2", "ann", "2") is False
        assert a.enter("g", "a:3", "ann", "3") is False
        assert [one[1:] for one in heard()] == [(True, "ann", "2"), (True, "ann", "3")]
        assert a.members("g") == {"ann": Present("ann", "3", 3)}
        for number in (3, 2, 1):
            a.leave("g", f"a:{number}", "ann")
        assert [one[1:] for one in heard()] == [(False, "ann", "3")]


def test_socket_whose_user_is_another_one_now_leaves_and_enters(nodes: Callable[..., list[Node]]) -> None:
    (a,) = nodes("a")
    a.enter("g", "a:1", "ann")

    with listening(a, "g") as heard:
        assert a.enter("g", "a:1", "bob") is True
        a.enter("g", "a:2", "ann")
        assert a.enter("g", "a:2", "bob") is True
        assert a.enter("g", "a:2", "ann") is True
        assert a.enter("g", "a:1", "ann") is True
        assert [(one.has_come, one.user) for one in heard()] == [
            *[(False, "ann"), (True, "bob")],
            *[(True, "ann"), (False, "ann"), (True, "ann"), (False, "bob")],
        ]
    assert a.members("g") == {"ann": Present("ann", "{}", 2)}
    assert a.count("g") == Count(2, 1)


def test_version_of_the_roster_is_that_of_the_last_announcement(nodes: Callable[..., list[Node]]) -> None:
    a, b = nodes("a", "b")
    before = a.roster("g")[0].version

    with listening(a, "g") as heard:
        for number in range(3):
            a.enter("g", f"a:{number}", f"user {number}")
        a.leave("g", "a:1", "user 1")
        a.die()
        b.renew()
        versions = [one.version for one in heard()]
    assert versions == [*range(before + 1, before + 7)]
    assert b.roster("g")[0] == Roster(before + 6, [])


def test_version_that_is_lost_goes_on_with_a_higher_one(nodes: Callable[..., list[Node]]) -> None:
    (a,) = nodes("a")
    a.enter("g", "a:1", "ann")
    before = a.roster("g")[0].version
    with a.broker.server.client() as client:
        assert 0 < client.ttl(a.names.presence() + b"v:g") <= 86400
        client.delete(a.names.presence() + b"v:g")

    assert a.roster("g")[0].version > before + 1


def test_process_that_dies_and_a_tab_that_leaves_leave_no_user_behind(nodes: Callable[..., list[Node]]) -> None:
    a, b = nodes("a", "b")
    a.enter("g", "a:1", "ann")
    b.enter("g", "b:1", "ann")

    a.die()
    assert b.count("g") == Count(1, 1)
    assert b.leave("g", "b:1", "ann") is True
    assert b.count("g") == Count(0, 0)


def test_roster_and_count_are_right_as_soon_as_a_lease_is_over(nodes: Callable[..., list[Node]]) -> None:
    a, b = nodes("a", "b")
    for group in ("g", "h"):
        a.enter(group, "a:1", "ann", '{"tab": 1}')
        a.enter(group, "a:2", "bob")
        b.enter(group, "b:1", "bob")
    a.die()

    roster, departed = b.roster("g")
    assert roster.members == [Present("bob", "{}", 1)]
    assert departed == [Departed("g", "ann", '{"tab": 1}')]
    assert b.counted("h") == (Count(1, 1), [Departed("h", "ann", '{"tab": 1}')])
    assert b.renew() == Renewal(False, [], None)


def test_process_that_has_crashed_is_removed_when_its_lease_is_over(nodes: Callable[..., list[Node]]) -> None:
    (b,) = nodes("b")
    (a,) = nodes("a", lease=SHORT)
    a.enter("g", "a:1", "ann")
    b.enter("g", "b:1", "bob")
    next_seconds = b.renew().next_seconds

    assert next_seconds is not None
    assert 0 <= next_seconds <= SHORT
    with listening(b, "g") as heard:
        departed = until_departed(b, 1)
        assert [(one.has_come, one.user) for one in heard()] == [(False, "ann")]
    assert departed == [Departed("g", "ann", "{}")]
    assert b.renew() == Renewal(False, [], None)


def test_counts_follow_the_lease_without_a_reaper(nodes: Callable[..., list[Node]]) -> None:
    a, b = nodes("a", "b", lease=SHORT)
    a.enter("g", "a:1", "ann")

    eventually(lambda: b.count("g") == Count(0, 0))
    with pytest.raises(Lapsed):
        a.enter("g", "a:2", "ann")


def test_process_without_a_lease_changes_nothing(nodes: Callable[..., list[Node]]) -> None:
    a, b = nodes("a", "b")
    a.enter("g", "a:1", "ann")
    a.die()

    for change in (lambda: a.enter("g", "a:2", "bob"), lambda: a.leave("g", "a:1", "ann"), lambda: a.attend("g")):
        with pytest.raises(Lapsed):
            change()
    assert b.renew().departed == [Departed("g", "ann", "{}")]
    with pytest.raises(Lapsed):
        a.leave("g", "a:1", "ann")


def test_process_that_slept_over_its_lease_is_seen_to_leave_and_enters_again(nodes: Callable[..., list[Node]]) -> None:
    (a,) = nodes("a")
    a.enter("g", "a:1", "ann")
    a.die()

    with listening(a, "g") as heard:
        assert a.renew() == Renewal(True, [Departed("g", "ann", "{}")], None)
        assert a.renew() == Renewal(False, [], None)
        assert a.count("g") == Count(0, 0)
        assert a.enter("g", "a:1", "ann") is True
        assert [one.has_come for one in heard()] == [False, True]


def test_new_process_has_lapsed_and_knows_when_the_next_lease_ends(nodes: Callable[..., list[Node]]) -> None:
    (a,) = nodes("a")
    b = Node(a.broker, a.names, "b")

    first, again = b.renew(2 * LONG), b.renew(2 * LONG)
    assert (first.has_lapsed, again.has_lapsed) == (True, False)
    assert first.next_seconds is not None
    assert LONG / 2 < first.next_seconds <= LONG
    next_seconds = Node(a.broker, a.names, "c").renew(3 * LONG).next_seconds
    assert next_seconds is not None
    assert LONG / 2 < next_seconds <= LONG


def test_server_that_was_emptied_is_filled_again(new_server: Callable[..., RedisServer]) -> None:
    server = new_server()
    broker = Broker(server)
    a = Node(broker, Names("p"), "a")
    a.renew()
    a.enter("g", "a:1", "ann")
    before = a.roster("g")[0].version

    with server.client() as client:
        client.flushall()
        client.script_flush()
    with pytest.raises(Lapsed):
        a.enter("g", "a:2", "bob")
    assert a.renew() == Renewal(True, [], None)
    assert a.enter("g", "a:1", "ann") is True
    assert a.count("g") == Count(1, 1)
    assert a.roster("g")[0].version > before + 1
    broker.wire.close()


def test_member_leaves_once_though_eight_processes_reap_at_the_same_time(nodes: Callable[..., list[Node]]) -> None:
    (dead,) = nodes("dead")
    users = [f"user {number}" for number in range(300)]
    dead.attend("g", enter=[Presence("g", f"dead:{user}", user, "{}") for user in users])
    start = threading.Barrier(8)
    departed: list[Departed] = []

    def reap(number: int) -> None:
        broker = Broker(dead.broker.server)
        node = Node(broker, dead.names, f"node {number}")
        start.wait(PATIENCE_SECONDS)
        departed.extend(node.renew().departed if number % 2 else node.roster("g")[1])
        broker.wire.close()

    with listening(dead, "g") as heard:
        dead.die()
        threads = [threading.Thread(target=reap, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        announced = [one.user for one in heard()]
    assert sorted(one.user for one in departed) == sorted(users)
    assert sorted(announced) == sorted(users)


def test_renewal_removes_a_bounded_number_at_once(nodes: Callable[..., list[Node]]) -> None:
    big, small, a = nodes("big", "small", "a")
    sockets = [Presence("g", f"big:{number}", f"user {number}", "{}") for number in range(2600)]
    big.attend("g", enter=sockets)
    small.enter("h", "small:1", "ann")
    a.enter("g", "a:1", "user 0")
    big.die()
    small.die()

    renewals = [a.renew()]
    while renewals[-1].next_seconds == 0:
        renewals.append(a.renew())
    departed = [one for renewal in renewals for one in renewal.departed]
    assert len(renewals) >= 3
    assert all(len(renewal.departed) < 1.5 * presence.REAP_SOCKETS for renewal in renewals)
    assert sorted(departed) == sorted(
        [Departed("h", "ann", "{}"), *(Departed("g", one.user, "{}") for one in sockets[1:])]
    )
    assert a.count("g") == Count(1, 1)
    assert renewals[-1].next_seconds is None


def test_process_that_is_partly_removed_is_whole_again_only_when_it_enters_again(
    nodes: Callable[..., list[Node]],
) -> None:
    big, a = nodes("big", "a")
    sockets = [Presence("g", f"big:{number}", f"user {number}", "{}") for number in range(2600)]
    big.attend("g", enter=sockets)
    big.die()
    assert a.renew().next_seconds == 0

    renewal = big.renew()
    assert renewal.has_lapsed
    assert a.count("g") == Count(0, 0)
    assert all(big.attend("g", enter=sockets))
    assert a.count("g") == Count(2600, 2600)


def test_resigning_removes_at_once_or_after_the_grace(nodes: Callable[..., list[Node]]) -> None:
    a, b, other = nodes("a", "b", "other")
    a.enter("g", "a:1", "ann")
    b.enter("g", "b:1", "bob")

    assert a.resign() == [Departed("g", "ann", "{}")]
    assert b.resign(SHORT) == []
    b.enter("g", "b:2", "bea")
    assert other.roster("g")[0].members != []
    assert {one.user for one in until_departed(other, 2)} == {"bob", "bea"}
    assert other.count("g") == Count(0, 0)
    for node in (a, b):
        with pytest.raises(Lapsed):
            node.enter("g", "x:1", "eve")


def test_grace_is_no_new_lease_for_a_process_that_has_none(nodes: Callable[..., list[Node]]) -> None:
    a, b = nodes("a", "b")
    a.enter("g", "a:1", "ann")
    a.die()

    assert a.resign(LONG) == [Departed("g", "ann", "{}")]
    assert b.renew() == Renewal(False, [], None)


def test_nothing_is_left_when_all_have_gone(nodes: Callable[..., list[Node]]) -> None:
    a, b = nodes("a", "b")
    for node in (a, b):
        for group in ("g", "h"):
            node.enter(group, f"{node.name}:1", "ann")
            node.enter(group, f"{node.name}:2", "bob")

    def left() -> set[bytes]:
        with a.broker.server.client() as client:
            return set(client.scan_iter(a.names.presence() + b"*"))

    b.resign()
    before = left()
    a.leave("g", "a:1", "ann")
    a.leave("g", "a:2", "bob")
    assert {key.rpartition(b":")[0] for key in before - left()} == {
        a.names.presence() + rest for rest in (b"n", b"u", b"s:1:a")
    }
    a.resign()
    assert left() == {a.names.presence() + b"v:g", a.names.presence() + b"v:h"}


@pytest.mark.parametrize("odd", ["a:b", ":", "s:1:a", "ä:日本", "%s %d", "a b", "\\", "'\"", "x" * 200, "\U0001f600"])
def test_names_and_infos_may_have_any_characters(nodes: Callable[..., list[Node]], odd: str) -> None:
    plain, node = nodes("a", odd)
    info = f'{{"name": "{odd}", "line": "\n\r\t\\u0000"}}'

    with listening(node, odd) as heard:
        assert node.enter(odd, f"{odd}:1", odd, info) is True
        assert plain.enter(odd, "a:1", "ann", info) is True
        assert node.leave(odd, "a:1", "ann") is False
        assert node.members(odd) == {odd: Present(odd, info, 1), "ann": Present("ann", info, 1)}
        node.die()
        assert plain.renew().departed == [Departed(odd, odd, info)]
        assert [one[1:] for one in heard()] == [(True, odd, info), (True, "ann", info), (False, odd, info)]


@pytest.mark.parametrize("lost", ["n:g", "i:a"])
def test_numbers_that_an_eviction_has_taken_leave_no_user_behind(nodes: Callable[..., list[Node]], lost: str) -> None:
    a, b = nodes("a", "b")
    for number in range(3):
        a.enter("g", f"a:{number}", f"u{number}")
    with a.broker.server.client() as client:
        assert client.delete(a.names.presence() + lost.encode())
    a.leave("g", "a:0", "u0")
    a.enter("g", "a:3", "u3")
    assert a.count("g") == Count(3, 3)
    a.die()
    assert sorted(departed.user for departed in b.renew().departed) == ["u1", "u2", "u3"]
    assert b.members("g") == {}
    assert b.count("g") == Count(0, 0)


def test_names_with_colons_are_not_taken_for_each_other(nodes: Callable[..., list[Node]]) -> None:
    a, ab = nodes("a", "a:b")
    a.enter("b:c", "1", "ann")
    ab.enter("c", "1", "bob")

    assert [*a.members("b:c")] == ["ann"]
    assert [*a.members("c")] == ["bob"]
    ab.die()
    assert a.renew().departed == [Departed("c", "bob", "{}")]
    assert a.count("b:c") == Count(1, 1)
    assert a.leave("b:c", "1", "ann") is True


@pytest.mark.parametrize("user", ["\0", "ann\0{}", "\ud800"])
def test_user_that_could_not_be_told_from_the_info_is_refused(user: str) -> None:
    with pytest.raises(ValueError, match=r"no NUL|surrogates"):
        presence.attend(Names("p"), "a", "g", [Presence("g", "a:1", user, "{}")], [])


#: What a user of an ACL needs for presence.
RIGHTS = "eval evalsha publish time get set hdel hget hgetall hincrby hlen hscan hset".split()  # noqa: SIM905
RIGHTS += "sadd srandmember srem zadd zrange zrem zscore".split()  # noqa: SIM905


def use_as(server: RedisServer, rights: Sequence[str]) -> None:
    """Do everything once, as a user with these rights."""
    with server.client() as client:
        client.flushall()
        client.script_flush()
        client.acl_deluser("shop")
        client.execute_command(
            "ACL",
            "SETUSER",
            "shop",
            "on",
            ">secret",
            "~dws:*",
            "resetchannels",
            "&dws:*",
            *(f"+{right}" for right in rights),
        )
    broker = Broker(server, LOCATION=server.url.replace("//", "//shop:secret@"))
    try:
        a, b = (Node(broker, Names("dws"), name) for name in "ab")
        for node, user in ((a, "ann"), (b, "bob")):
            node.renew()
            node.enter("g", f"{node.name}:1", user)
        a.leave("g", "a:1", "ann")
        a.enter("g", "a:1", "ann")
        a.roster("g")
        a.count("g")
        a.die()
        b.renew()
        b.resign()
    finally:
        broker.wire.close()


@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_user_of_an_acl_needs_these_rights_and_no_others(new_server: Callable[..., RedisServer], program: str) -> None:
    server = new_server(program=PROGRAMS[program])

    use_as(server, ["select", *RIGHTS])
    for right in RIGHTS:
        with pytest.raises(Exception, match=r"NOPERM|ACL|can't run") as caught:
            use_as(server, ["select", *(other for other in RIGHTS if other != right)])
        assert f"+{right}" in str(faults.explain(str(caught.value))).split("(")[0].replace(",", "").split()


@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_server_that_is_full_notes_nothing_or_all(new_server: Callable[..., RedisServer], program: str) -> None:
    server = new_server(program=PROGRAMS[program])
    a = Node(Broker(server), Names("p"), "a")
    a.renew()
    a.enter("g", "a:1", "ann")

    with server.client() as client:
        before = keys_of(client)
        client.config_set("maxmemory", "1")
        for refused in (lambda: a.enter("g", "a:2", "bob"), lambda: a.enter("h", "a:2", "ann"), a.renew):
            with pytest.raises(Exception, match="OOM"):
                refused()
        assert keys_of(client) == before
        assert a.members("g") == {"ann": Present("ann", "{}", 1)}
        assert a.leave("g", "a:1", "ann") is True
        assert a.count("g") == Count(0, 0)
    a.broker.wire.close()


def keys_of(client: Any) -> dict[bytes, bytes]:
    """All that the server has."""
    return {key: client.dump(key) for key in client.scan_iter()}


# A model in Python of what the scripts do, and what may happen.

NODES, GROUPS, USERS = ("a", "b", "c"), ("g", "h"), ("ann", "bob")


class Model:
    def __init__(self) -> None:
        self.alive = dict.fromkeys(NODES, False)
        self.sockets: dict[tuple[str, str, str], str] = {}  # node, group, socket
        self.infos: dict[tuple[str, str], str] = {}  # group, user

    def users(self, group: str) -> Counter[str]:
        return Counter(user for (_, in_group, _), user in self.sockets.items() if in_group == group)

    def drop(self, keys: Sequence[tuple[str, str, str]]) -> set[Departed]:
        """Remove sockets: the users that have gone with them."""
        gone = {(group, self.sockets.pop((node, group, socket))) for node, group, socket in keys}
        departed = {(group, user) for group, user in gone if not self.users(group)[user]}
        return {Departed(group, user, self.infos.pop((group, user))) for group, user in departed}

    def enter(self, node: str, group: str, socket: str, user: str, info: str) -> bool:
        key, has_left = (node, group, socket), False
        if key in self.sockets and self.sockets[key] != user:
            has_left = bool(self.drop([key]))
        has_come = not self.users(group)[user]
        self.sockets[key] = user
        self.infos[group, user] = info
        return has_left or has_come

    def dead(self, group: str | None = None) -> list[tuple[str, str, str]]:
        return [key for key in self.sockets if not self.alive[key[0]] and group in (None, key[1])]


steps = st.one_of(
    st.tuples(
        st.just("enter"),
        st.sampled_from(NODES),
        st.sampled_from(GROUPS),
        st.sampled_from("12"),
        st.sampled_from(USERS),
        st.sampled_from("xy"),
    ),
    st.tuples(
        st.just("leave"),
        st.sampled_from(NODES),
        st.sampled_from(GROUPS),
        st.sampled_from("12"),
        st.sampled_from(USERS),
    ),
    st.tuples(st.sampled_from(("die", "renew", "renew", "resign")), st.sampled_from(NODES)),
    st.tuples(st.sampled_from(("roster", "count")), st.sampled_from(GROUPS)),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(steps, max_size=40))
def test_scripts_do_what_the_model_does(server: RedisServer, happened: list[tuple[str, ...]]) -> None:
    names, broker, model = Names(next(_prefixes)), Broker(server), Model()
    nodes = {name: Node(broker, names, name) for name in NODES}
    start = {group: nodes["a"].roster(group)[0].version for group in GROUPS}
    with listening(nodes["a"], "g") as heard_g, listening(nodes["a"], "h") as heard_h:
        for step in happened:
            take(step, nodes, model)
        for group, heard in (("g", heard_g), ("h", heard_h)):
            mirror: dict[str, str] = {}
            arrivals = heard()
            nodes["a"].count(group)
            arrivals += heard()
            for arrival in arrivals:
                if arrival.has_come:
                    mirror[arrival.user] = arrival.info
                else:
                    assert mirror.pop(arrival.user) == arrival.info
            roster = nodes["a"].roster(group)[0]
            assert [one.version for one in arrivals] == [*range(start[group] + 1, roster.version + 1)]
            assert {one.user: one.info for one in roster.members} == mirror
    broker.wire.close()


def take(step: tuple[str, ...], nodes: dict[str, Node], model: Model) -> None:
    """Do it to the server and to the model, and compare."""
    verb, what, *rest = step
    if verb in ("roster", "count"):
        node = nodes["a"]
        departed = model.drop(model.dead(what))
        if verb == "count":
            users = model.users(what)
            expected = Count(users.total(), len(users))
            found, gone = node.counted(what)
            assert found == expected
        else:
            roster, gone = node.roster(what)
            users = model.users(what)
            assert set(roster.members) == {Present(user, model.infos[what, user], n) for user, n in users.items()}
        assert_same(gone, departed)
        return
    node, is_alive = nodes[what], model.alive[what]
    if verb == "die":
        node.die()
        model.alive[what] = False
    elif verb == "renew":
        departed = model.drop(model.dead())
        model.alive[what] = True
        renewal = node.renew()
        assert renewal.has_lapsed is not is_alive
        assert_same(renewal.departed, departed)
    elif verb == "resign":
        model.alive[what] = False
        assert_same(node.resign(), model.drop([key for key in model.sockets if key[0] == what]))
    elif not is_alive:
        with pytest.raises(Lapsed):
            getattr(node, verb)(*rest)
    elif verb == "enter":
        assert node.enter(*rest) is model.enter(what, *rest)
    else:
        key = (what, rest[0], rest[1])
        assert node.leave(*rest) is bool(model.drop([key] if model.sockets.get(key) == rest[2] else []))


def assert_same(found: Sequence[Departed], expected: set[Departed]) -> None:
    assert len(found) == len(expected)
    assert set(found) == expected
