"""Sentinels that are asked: what they answer, and do not. Real failovers are in tests/real."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dwebsocket.exceptions import GroupsUnavailable
from dwebsocket.groups.backend import Publication
from dwebsocket.groups.config import DEFAULTS
from dwebsocket.groups.redis import RedisGroups
from dwebsocket.groups.redis.faults import Broken, Moved, Refused, Unfit
from dwebsocket.groups.redis.location import Location
from dwebsocket.groups.redis.sentinel import Primary, choose, named
from tests.groups.servers import Certificates, RedisServer, SentinelServer, free_port
from tests.groups.sinks import Collector, listen
from tests.links import until

NewServer = Callable[..., RedisServer]
NewSentinel = Callable[..., SentinelServer]
NewBackend = Callable[..., RedisGroups]

A, B = ("10.0.0.1", 6379), ("10.0.0.2", 6379)


def location(url: str, options: Any = None, **settings: Any) -> Location:
    return Location("default", {**DEFAULTS, "LOCATION": url, "OPTIONS": options or {}, **settings})


def test_answer_of_a_sentinel_is_read() -> None:
    answer = [b"name", b"shop", b"ip", b"::1", b"port", b"6380", b"flags", b"s_down,master", b"config-epoch", b"3"]

    assert Primary.parse(answer) == Primary(3, ("::1", 6380), True)
    assert Primary.parse([*answer, b"flags", b"master"]) == Primary(3, ("::1", 6380), False)
    assert named(("::1", 6380)) == "[::1]:6380"


@pytest.mark.parametrize(
    ("answers", "known", "expected"),
    [
        ([(0, A, False)], None, (0, A, False)),
        ([(0, A, False), (1, B, False), (0, A, False)], None, (1, B, False)),  # one knows of the failover already
        ([(0, A, False), (1, B, True)], None, (1, B, True)),  # the latest one counts, down or not
        ([(1, B, True), (1, B, False)], None, (1, B, False)),
        ([(0, A, False)], (1, B, False), (1, B, False)),  # one of three, which is behind
        ([(0, A, False), (0, A, False)], (1, B, False), (0, A, False)),  # two of three: they were set up anew
        ([(2, A, False)], (1, B, False), (2, A, False)),
        ([(1, A, False), (1, B, False)], (1, B, False), (1, B, False)),  # they disagree: no to and fro
        ([(1, A, False)], (1, B, False), (1, A, False)),  # another address was set by hand
    ],
)
def test_primary_of_the_latest_failover_is_chosen(answers: list[Any], known: Any, expected: Any) -> None:
    found = choose([Primary(*one) for one in answers], 3, Primary(*known) if known else None)

    assert found == Primary(*expected)


def refusal(url: str, options: Any = None, kind: type[Exception] = Refused, **settings: Any) -> str:
    with pytest.raises(kind) as caught:
        location(url, options, **settings).connect("dwebsocket-test")
    assert type(caught.value) is kind
    return str(caught.value)


def test_connection_leads_to_the_primary_that_is_named(
    server: RedisServer, new_server: NewServer, new_sentinel: NewSentinel
) -> None:
    other = new_server()
    sentinel = new_sentinel(server)
    place = location(sentinel.location(database=2))
    wire = place.connect("dwebsocket-test")
    with server.client() as client:
        (found,) = [one for one in client.client_list() if one["name"] == "dwebsocket-test"]
    assert found["db"] == "2"
    assert place.leads(wire)
    place.must_lead(wire)

    sentinel.name(other)
    place.look()
    assert not place.leads(wire)
    with pytest.raises(Moved, match=rf"name 127\.0\.0\.1:{other.port} as the primary, no more .*:{server.port}"):
        place.must_lead(wire)
    wire.close()


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_sentinels_that_do_not_answer_are_not_waited_for_long(
    server: RedisServer, new_sentinel: NewSentinel, silent_port: int
) -> None:
    sentinel = new_sentinel(server)
    refusing = free_port()
    url = f"redis+sentinel://127.0.0.1:{refusing},127.0.0.1:{silent_port},127.0.0.1:{sentinel.port}/0/shop"
    began = time.monotonic()
    location(url, TIMEOUT=3).connect("dwebsocket-test").close()
    assert 0.9 < time.monotonic() - began < 3  # a third of TIMEOUT: the silent one could be the one that knows more

    url = f"redis+sentinel://127.0.0.1:{silent_port},127.0.0.1:{sentinel.port},127.0.0.1:{new_sentinel(server).port}"
    began = time.monotonic()
    location(f"{url}/0/shop", TIMEOUT=20).connect("dwebsocket-test").close()
    assert time.monotonic() - began < 5  # two of three know enough


def test_no_sentinel_answers(silent_port: int) -> None:
    refusing = free_port()
    url = f"redis+sentinel://127.0.0.1:{refusing},127.0.0.1:{silent_port}/0/shop"
    said = refusal(url, kind=Broken, TIMEOUT=0.3)

    assert "no sentinel of LOCATION answers (" in said
    assert f"127.0.0.1:{refusing}: it refuses connections" in said
    assert f"127.0.0.1:{silent_port}: it did not answer" in said


def test_those_who_ask_at_the_same_time_share_the_answer(silent_port: int) -> None:
    sentinels = location(f"redis+sentinel://127.0.0.1:{silent_port}/0/shop", TIMEOUT=3)._sentinels
    assert sentinels is not None
    said: list[str] = []

    def ask() -> None:
        with pytest.raises(Broken) as caught:
            sentinels.ask()
        said.append(str(caught.value))

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    names = [thread.name for thread in threading.enumerate()]
    for thread in threads:
        thread.join()

    assert names.count("dwebsocket-sentinel") == 1
    assert len(said) == 20
    assert all("it did not answer" in one for one in said)
    until(lambda: not sentinels._open or None, "the end of the question")


def test_sentinel_does_not_know_the_service(server: RedisServer, new_sentinel: NewSentinel) -> None:
    url = new_sentinel(server).location().replace("/shop", "/store")

    assert "it knows no such service: write the name of its 'sentinel monitor'" in refusal(url)


def test_port_of_a_redis_is_no_sentinel(server: RedisServer) -> None:
    said = refusal(f"redis+sentinel://127.0.0.1:{server.port}/0/shop")

    assert f"the sentinel 127.0.0.1:{server.port}: it is no sentinel: write the port of one" in said


def test_port_of_a_sentinel_is_no_redis(server: RedisServer, new_sentinel: NewSentinel) -> None:
    assert "write redis+sentinel://" in refusal(new_sentinel(server).url, kind=Unfit)


def test_password_of_the_sentinels_is_another_one(new_server: NewServer, new_sentinel: NewSentinel) -> None:
    locked = new_server(password="secret")
    url = new_sentinel(locked, password="other").location().replace("://", "://:secret@")

    assert "give OPTIONS 'sentinel_kwargs' with 'username' and 'password'" in refusal(url)
    assert "or the 'password' of OPTIONS['sentinel_kwargs']" in refusal(url, {"sentinel_kwargs": {"password": "wrong"}})
    location(url, {"sentinel_kwargs": {"password": "other"}}).connect("dwebsocket-test").close()
    said = refusal(url.replace(":secret@", ""), {"sentinel_kwargs": {"password": "other"}})
    assert said.startswith(f"127.0.0.1:{locked.port}, the primary by the word of the sentinels: it wants a password")


def test_user_of_a_sentinel_needs_one_command(server: RedisServer, new_sentinel: NewSentinel) -> None:
    users = ["shop on >secret +sentinel|master", "other on >secret +ping"]
    sentinel = new_sentinel(server, users=users)
    of = {"username": "shop", "password": "secret"}

    location(sentinel.location(), {"sentinel_kwargs": of}).connect("dwebsocket-test").close()
    assert "give it +sentinel|master" in refusal(sentinel.location(), {"sentinel_kwargs": {**of, "username": "other"}})


def test_sentinels_and_servers_speak_tls(new_server: NewServer, new_sentinel: NewSentinel, tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    primary = new_server(certificates=certificates)
    sentinel = new_sentinel(primary, certificates=certificates)

    location(sentinel.location(), certificates.options).connect("dwebsocket-test").close()
    assert "'ssl_ca_certs'" in refusal(sentinel.location())


def test_primary_that_is_a_replica_still_is_waited_for(new_server: NewServer, new_sentinel: NewSentinel) -> None:
    replica = new_server(settings={"replicaof": "127.0.0.1 1"})
    sentinel = new_sentinel(new_server())
    sentinel.name(replica)
    said = refusal(sentinel.location(), kind=Moved)

    assert f"127.0.0.1:{replica.port}, the primary by the word of the sentinels: it is a replica" in said


def test_primary_that_is_gone(new_server: NewServer, new_sentinel: NewSentinel) -> None:
    gone = new_server()
    sentinel = new_sentinel(gone)
    gone.kill()

    assert f"127.0.0.1:{gone.port}, the primary by the word of" in refusal(sentinel.location(), kind=Broken)


# The old primary still answers

PROBE, TIMEOUT = 0.3, 1


@pytest.fixture
def pair(new_server: NewServer, new_sentinel: NewSentinel) -> tuple[RedisServer, RedisServer, SentinelServer]:
    """Two primaries, and a sentinel that names the first."""
    old, new = new_server(), new_server()
    return old, new, new_sentinel(old)


def make(backend: NewBackend, sentinel: SentinelServer) -> RedisGroups:
    return backend(sentinel, LOCATION=sentinel.location(), PROBE=PROBE, TIMEOUT=TIMEOUT)


def wait_until_moved(sink: Collector, to: RedisServer) -> None:
    (why,) = sink.wait("lost")
    assert f"127.0.0.1:{to.port} as the primary" in why
    sink.wait("restored")


def test_other_primary_is_noticed_though_the_old_one_answers(
    pair: tuple[RedisServer, RedisServer, SentinelServer], backend: NewBackend
) -> None:
    old, new, sentinel = pair
    groups = make(backend, sentinel)
    sink = listen(groups, "a")
    groups.publish([Publication("a", b"t1")])
    sink.wait("message")
    began = time.monotonic()
    sentinel.name(new)
    wait_until_moved(sink, new)
    assert time.monotonic() - began < 5 * (PROBE + TIMEOUT)
    groups.publish([Publication("a", b"t2")])
    sink.wait("message", 2)
    until(lambda: not channels(old) or None, "the end of the connections to the old primary")

    assert channels(new) == 1
    sentinel.name(old)  # promoted again
    sink.wait("lost", 2)
    sink.wait("restored", 2)
    groups.publish([Publication("a", b"t3")])
    sink.wait("message", 3)
    assert sink.messages == [("a", b"t1"), ("a", b"t2"), ("a", b"t3")]


def channels(server: RedisServer) -> int:
    """How many groups are received from it."""
    with server.client() as client:
        return sum("dwebsocket" in one["name"] and one["sub"] not in ("0", "1") for one in client.client_list())


def test_other_primary_is_noticed_while_messages_come_all_the_time(
    pair: tuple[RedisServer, RedisServer, SentinelServer], backend: NewBackend
) -> None:
    old, new, sentinel = pair
    groups = make(backend, sentinel)
    sink = listen(groups, "a")
    groups.publish([Publication("b", b"t")])  # so that a probe needs no new connection, which would ask the sentinel
    sentinel.name(new)
    deadline = time.monotonic() + 20
    with old.client() as client:  # a process that has not noticed it yet
        while not sink.all("lost") and time.monotonic() < deadline:
            client.publish(groups._names.channel("a"), b"t of the old one")
            time.sleep(0.01)
    wait_until_moved(sink, new)


def test_wire_in_use_is_not_given_back(
    pair: tuple[RedisServer, RedisServer, SentinelServer], backend: NewBackend
) -> None:
    _, new, sentinel = pair
    (one,) = make(backend, sentinel)._servers
    taken, idle = (one._pool.take(time.monotonic() + 5) for _ in range(2))
    one._pool.give(idle)
    sentinel.name(new)
    one.location.look()
    one._pool.give(taken)
    assert taken.socket.fileno() == -1
    after = one._pool.take(time.monotonic() + 5)

    assert after.address == ("127.0.0.1", new.port)
    assert idle.socket.fileno() == -1
    assert one._pool._count == 1
    one._pool.give(after)


def test_primary_goes_on_where_no_sentinel_answers(
    pair: tuple[RedisServer, RedisServer, SentinelServer], backend: NewBackend
) -> None:
    _, _, sentinel = pair
    groups = make(backend, sentinel)
    sink = listen(groups, "a")
    sentinel.stop()
    watchdog = groups._servers[0]._subscriber._watchdog  # type: ignore[union-attr]
    probes = watchdog._count
    until(lambda: watchdog._count >= probes + 3 or None, "three probes")
    groups.publish([Publication("a", b"t")])

    sink.wait("message")
    assert sink.all("lost") == []


def test_primary_that_becomes_a_replica_is_no_place_to_publish(
    pair: tuple[RedisServer, RedisServer, SentinelServer], backend: NewBackend
) -> None:
    old, new, sentinel = pair
    groups = make(backend, sentinel)
    groups.publish([Publication("a", b"t", "1")])
    with old.client() as client:
        client.slaveof("127.0.0.1", new.port)
    with pytest.raises(GroupsUnavailable):
        groups.publish([Publication("a", b"t", "2")])
    sentinel.name(new)

    groups.publish([Publication("a", b"t", "3")])
