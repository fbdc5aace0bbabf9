"""The faults of groups at length: hundreds of outages, thousands of groups and of members (tox -e group-faults)."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from tests.real.group_checker import check, gaps
from tests.real.group_crowd import Crowd
from tests.real.group_outages import (
    assert_all_is_well_in_the_end,
    assert_told,
    chance_outage,
    join_come_back_and_leave,
    open_many,
    wait_for_last,
    wait_until_it_goes_on,
)
from tests.real.group_site import BOTH, GEVENT, THREADS, Site, last, needs_redis, site, unsure
from tests.real.servers import Server

pytestmark = [needs_redis, pytest.mark.group_faults, pytest.mark.timeout(0)]

OUTAGES = int(os.environ.get("GROUP_OUTAGES", "200"))
AT_ONCE = 20  # outages, until the members are others
GROUPS = int(os.environ.get("GROUP_GROUPS", "10000"))
MEMBERS = int(os.environ.get("GROUP_MEMBERS", "250"))  # in each of four processes
SEED = int(os.environ.get("GROUP_SEED", "1"))
MAY_GROW_MIB = 8


def some_outages(made: Site, servers: list[Server], chance: random.Random, count: int) -> None:
    """So many outages under load; then each member has all messages, or a Gap."""
    with Crowd() as crowd:
        many = [crowd.add(server, "/member-of-many/?prefix=many&count=600") for server in servers]
        for subscriber in many:
            subscriber.wait_for("joined", seconds=60)
        told = open_many(crowd, servers, "/member/?group=a&group=z&forward=0", 5)
        publishers = [made.publisher(["p0"], ["a", "z"], pause_seconds=0.02)]
        publishers.append(made.publisher(["p1"], ["a", "z"], pause_seconds=0.02, is_direct=True))
        for publisher in publishers:
            publisher.go()
        for _ in range(count):
            began = time.monotonic()
            what = chance_outage(made, chance)
            waits = chance.random() < 0.5
            if waits:
                wait_until_it_goes_on(told, publishers)
            print(f"{what}{', over' if waits else ''} after {time.monotonic() - began:.1f} s", flush=True)
        results = assert_all_is_well_in_the_end(told, publishers, servers)
        failed, longest = len(unsure(results)), max(result.seconds for result in results)
        told_of = sum(gaps(subscriber.entries()) for subscriber in told) / len(told)
        print(f"{len(results)} sent, {failed} raised, the longest took {longest:.2f} s; {told_of:.1f} gaps for each")
        made.check_logs()


def test_outages_of_every_kind(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    with site(tmp_path, JOIN_TIMEOUT=30) as made:
        servers = made.start(*BOTH)
        some_outages(made, servers, chance, min(AT_ONCE, OUTAGES))  # until every pool is as large as it gets
        before = [server.resident_mib() for server in servers]
        for done in range(AT_ONCE, OUTAGES, AT_ONCE):
            some_outages(made, servers, chance, min(AT_ONCE, OUTAGES - done))
        for server, memory in zip(servers, before, strict=True):
            grown = server.resident_mib() - memory
            print(f"{memory:.1f} MiB, {grown:+.1f} MiB")
            assert grown < MAY_GROW_MIB


@pytest.mark.parametrize("kind", BOTH)
def test_ten_thousand_groups_come_back_in_few_commands(tmp_path: Path, kind: str) -> None:
    with site(tmp_path, JOIN_TIMEOUT=60) as made, Crowd() as crowd:
        (server,) = made.start(kind)
        server.get("/publish/?group=warm&text=warm")
        before = server.resident_mib()
        began = time.monotonic()
        join_come_back_and_leave(made, crowd, server, GROUPS)
        kib = (server.resident_mib() - before) * 1024 / GROUPS
        print(f"{kind}: {GROUPS} groups in {time.monotonic() - began:.1f} s; {kib:.2f} KiB for each, at the end")


def test_thousand_members_in_four_processes_see_one_order(tmp_path: Path) -> None:
    with site(tmp_path) as made, Crowd() as crowd:
        servers = made.start(THREADS, THREADS, GEVENT, GEVENT)
        subscribers = open_many(crowd, servers, "/member/?group=a&group=b", MEMBERS)
        publishers = [made.publisher([f"p{number}"], ["a", "b"], count=60, pause_seconds=0.02) for number in range(8)]
        began = time.monotonic()
        for publisher in publishers:
            publisher.go()
        results = [result for publisher in publishers for result in publisher.stop()]
        assert not unsure(results)
        wait_for_last(subscribers, results)
        print(f"{len(results) * len(subscribers) / (time.monotonic() - began):.0f} deliveries a second")
        check(crowd.logs(), last=last(results), may_have_gaps=False)
        made.check_logs()


def test_broker_that_is_away_for_a_minute(tmp_path: Path) -> None:
    with site(tmp_path) as made, Crowd() as crowd:
        servers = made.start(*BOTH)
        told = open_many(crowd, servers, "/member/?group=g&forward=0", 20)
        publishers = [made.publisher([f"p{at}"], ["g"], pause_seconds=0.01) for at in range(4)]
        for publisher in publishers:
            publisher.go()
        for seconds in (0.1, 5, 60):
            wait_until_it_goes_on(told, publishers)
            made.redis.kill()
            time.sleep(seconds)
            made.redis.start()
            began = time.monotonic()
            wait_until_it_goes_on(told, publishers)
            print(f"away for {seconds} s: over {time.monotonic() - began:.1f} s after it was back")
        results = [result for publisher in publishers for result in publisher.stop()]
        wait_for_last(told, results)
        assert_told(told, results, at_least=3)
        made.check_logs()
