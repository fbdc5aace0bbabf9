"""Groups under load: the order of messages, joins and leaves, and a broker that dies."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.real.group_checker import Message, check, check_order, gaps, parse
from tests.real.group_crowd import Crowd, Subscriber, until
from tests.real.group_outages import assert_told, open_many, wait_for_last, wait_until_it_goes_on
from tests.real.group_site import BOTH, GEVENT, THREADS, last, needs_redis, site, unsure
from tests.real.servers import Server

pytestmark = [needs_redis, pytest.mark.faults]


@pytest.mark.parametrize("path", ["/member/?group=a&group=b", "/member/?group=a&group=b&forward=0"])
def test_all_members_in_all_processes_see_one_order(tmp_path: Path, path: str) -> None:
    with site(tmp_path) as made, Crowd() as crowd:
        servers = made.start(THREADS, GEVENT, GEVENT)
        subscribers = open_many(crowd, servers, path, 60)
        names = [[f"p{process}.{thread}" for thread in range(4)] for process in range(2)]
        publishers = [made.publisher(four, ["a", "b"], count=25) for four in names]
        for publisher in publishers:
            publisher.go()
        for n in range(15):  # from inside the servers, too
            for at, server in enumerate(servers):
                subscribers[at].ask(f"send a a view{at} {n}", f"sent a view{at} {n}")
                assert server.get(f"/publish/?group=b&text=b+page{at}+{n}").status == 200
        results = [result for publisher in publishers for result in publisher.stop()]
        assert not unsure(results)
        wait_for_last(subscribers, results)
        ends = last(results)
        assert len(ends) == 16
        check(crowd.logs(), last=ends, may_have_gaps=False)
        made.check_logs()


# Joins and leaves


def marked(subscriber: Subscriber, group: str) -> list:
    """The log, with a Gap where it left the group."""
    found = []
    for text in subscriber.texts():
        found.append(parse(f"gap {group}" if text == f"left {group}" else text))
    return [entry for entry in found if entry is not None]


def come_and_go(subscriber: Subscriber, group: str, rounds: int) -> list[tuple[float, int, int]]:
    """Join and leave `rounds` times, and stay; for each membership: when it began, and where it is in the log."""
    memberships = []
    for number in range(rounds):
        joined = subscriber.ask(f"join {group}", f"joined {group}")
        start = subscriber.log.index(joined)
        until(lambda: len(subscriber.log) > start + 3, "messages")  # noqa: B023
        if number + 1 < rounds:
            left = subscriber.ask(f"leave {group}", f"left {group}")
            end = subscriber.log.index(left)
            echoed = subscriber.ask(f"echo {number}", f"echo {number}")
            between = subscriber.log[end + 1 : subscriber.log.index(echoed)]
            assert not between, f"after leave() came {between}"
            memberships.append((joined.at, start, end))
        else:
            memberships.append((joined.at, start, -1))
    return memberships


def assert_no_hole(subscriber: Subscriber, memberships: list[tuple[float, int, int]], results: list) -> None:
    """Every message that was sent after join() had returned has arrived, up to leave()."""
    for joined_at, start, end in memberships:
        first: dict[str, int] = {}
        for entry in subscriber.log[start : end if end >= 0 else None]:
            message = parse(entry.text)
            if isinstance(message, Message):
                first.setdefault(message.publisher, message.n)
        assert first
        for publisher, n in first.items():
            owed = min(r.message.n for r in results if r.message.publisher == publisher and r.began > joined_at)
            assert n <= owed, f"{subscriber.name} joined at {joined_at}: {publisher} {owed} is missing, {n} came first"


@pytest.mark.parametrize("seconds", [0.0, 0.02])
def test_join_misses_nothing_and_nothing_comes_after_leave(tmp_path: Path, seconds: float) -> None:
    with site(tmp_path, JOIN_TIMEOUT=20) as made, Crowd() as crowd:
        servers = made.start(THREADS, GEVENT)
        publisher = made.publisher(["p0", "p1"], ["g"], pause_seconds=0.002, is_direct=True)
        subscribers = open_many(crowd, servers, "/member/", 6)
        made.relay.delay(made.relay.down, seconds)  # the acknowledgements
        publisher.go()

        def close_in_the_middle(server: Server) -> None:
            for number in range(15):
                with server.connect(f"/member/?group=g&group=h{number}") as peer:
                    if number % 3:
                        peer.recv_frame()
                    if number % 2:
                        peer.reset()

        with ThreadPoolExecutor(len(subscribers) + len(servers)) as pool:
            closing = [pool.submit(close_in_the_middle, server) for server in servers]
            memberships = list(pool.map(lambda subscriber: come_and_go(subscriber, "g", 8), subscribers))
            for future in closing:
                future.result()
        results = publisher.stop()
        made.relay.delay(made.relay.down, 0)
        assert not unsure(results)
        wait_for_last(subscribers, results)
        for subscriber, found in zip(subscribers, memberships, strict=True):
            assert_no_hole(subscriber, found, results)
        check({subscriber.name: marked(subscriber, "g") for subscriber in subscribers}, last=last(results))
        with made.redis.client() as client:
            names = [f"dws:g:h{number}" for number in range(15)]
            until(lambda: not any(count for _, count in client.pubsub_numsub(*names)), "the end of all subscriptions")
        made.check_logs()


# A broker that dies: what is told


def test_broker_that_dies_is_told_to_every_view(tmp_path: Path) -> None:
    with site(tmp_path) as made, Crowd() as crowd:
        servers = made.start(*BOTH)
        told = open_many(crowd, servers, "/member/?group=g&forward=0", 15)
        forwarded = open_many(crowd, servers, "/member/?group=g", 5)
        publishers = [made.publisher([f"p{at}.0", f"p{at}.1"], ["g"], pause_seconds=0.005) for at in range(2)]
        for publisher in publishers:
            publisher.go()
        wait_until_it_goes_on(told + forwarded, publishers)
        for at, seconds in enumerate([0.1, 5]):
            made.redis.kill()
            time.sleep(seconds)  # that is the fault
            made.redis.start()
            wait_until_it_goes_on(told + forwarded, publishers)
            for subscriber in told:
                assert gaps(subscriber.entries()) > at, f"{subscriber.name}: no gap after {seconds} s"
        results = [result for publisher in publishers for result in publisher.stop()]
        wait_for_last(told + forwarded, results)
        assert unsure(results)
        assert max(result.seconds for result in results) < 4
        assert_told(told, results)
        check_order([subscriber.entries() for subscriber in told + forwarded])
        made.check_logs()


def test_gap_stands_at_the_hole_while_thousands_of_groups_come_back(tmp_path: Path) -> None:
    with site(tmp_path, JOIN_TIMEOUT=20) as made, Crowd() as crowd:
        servers = made.start(*BOTH)
        many = open_many(crowd, servers, "/member-of-many/?prefix=many&count=1500", 1)
        for subscriber in many:
            subscriber.wait_for("joined")
        told = open_many(crowd, servers, "/member/?group=a&group=z&forward=0", 3)  # confirmed first, and last
        publisher = made.publisher(["p"], ["a", "z"], pause_seconds=0.002, is_direct=True)
        publisher.go()
        wait_until_it_goes_on(told, [publisher])
        made.relay.trickle(made.relay.up, 2000, 0.02)  # SUBSCRIBE by SUBSCRIBE
        made.relay.cut()
        for subscriber in told:
            subscriber.wait_for("gap a")
            subscriber.wait_for("gap z")
        made.relay.trickle(made.relay.up, 0, 0)
        wait_until_it_goes_on(told, [publisher])
        results = publisher.stop()
        wait_for_last(told, results)
        assert not unsure(results)
        assert_told(told, results, at_least=2)
        made.check_logs()
