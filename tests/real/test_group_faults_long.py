"""The faults of groups at length: hundreds of outages, thousands of groups and of members (tox -e group-faults)."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from tests.real.group_checker import check, gaps
from tests.real.group_crowd import Crowd, until
from tests.real.group_disasters import EXPECTED, chance_disaster
from tests.real.group_outages import (
    assert_all_is_well_in_the_end,
    assert_told,
    chance_outage,
    fleet_comes_back,
    join_come_back_and_leave,
    open_many,
    wait_for_last,
    wait_until_it_goes_on,
)
from tests.real.group_pages import Page, Pages
from tests.real.group_rosters import members, roster
from tests.real.group_site import BOTH, GEVENT, THREADS, Site, last, needs_redis, site, unsure
from tests.real.servers import Server, gunicorn

pytestmark = [needs_redis, pytest.mark.group_faults, pytest.mark.timeout(0)]

OUTAGES = int(os.environ.get("GROUP_OUTAGES", "200"))
AT_ONCE = 20  # outages, until the members are others
GROUPS = int(os.environ.get("GROUP_GROUPS", "10000"))
MEMBERS = int(os.environ.get("GROUP_MEMBERS", "250"))  # in each of four processes
SEED = int(os.environ.get("GROUP_SEED", "1"))
FLEET = int(os.environ.get("GROUP_FLEET", "2500"))  # pages for each of four processes that come back at once
MAY_GROW_MIB = 8
KEPT = ("kept:a", "kept:b")
PRESENCE = {"LEASE": 3, "GRACE": 2, "CHECK": 2}


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


# Histories and presence


def some_disasters(made: Site, servers: list[Server], chance: random.Random, count: int) -> None:
    """So many faults while pages go and come back; then each has all, or was told, and knows who is present."""
    with Crowd() as crowd, Pages(crowd, servers, chance) as pages:
        pages.open(20, KEPT)
        for user in range(1, 16):
            pages.all.append(Page(crowd, f"user {user}", KEPT, user=str(user), roster="1"))
        publishers = [made.publisher(["p0"], KEPT, pause_seconds=0.02)]
        publishers.append(made.publisher(["p1"], KEPT, pause_seconds=0.02, is_direct=True))
        for publisher in publishers:
            publisher.go()
        pages.tend(4)
        for _ in range(count):
            began = time.monotonic()
            what = chance_disaster(made, servers[-1], chance)
            time.sleep(chance.choice([0.0, 0.3, 2.0]) * chance.random())
            print(f"{what}, {time.monotonic() - began:.1f} s", flush=True)
        pages.end_and_check(publishers, KEPT, goes_on=True)
        assert_presence_is_right(pages, servers)
        pages.stop()
        results = [result for publisher in publishers for result in publisher.results()]
        failed, longest = len(unsure(results)), max(result.seconds for result in results)
        print(
            f"{len(results)} sent, {failed} raised, the longest took {longest:.2f} s; {dict(pages.told())}", flush=True
        )
        made.check_logs(*EXPECTED)


def assert_presence_is_right(pages: Pages, servers: list[Server]) -> None:
    users = {page.name.removeprefix("user "): page for page in pages.all if page.name.startswith("user ")}
    for group in KEPT:
        for server in servers:
            until(
                lambda: members(server, group) == dict.fromkeys(users, 1),  # noqa: B023
                f"all members of {group} but {members(server, group)}",
            )
        for page in users.values():
            until(
                lambda: roster(group, page.present()).names == set(users),  # noqa: B023
                f"the roster of {group} at {page.name}, which has {roster(group, page.present()).names}",
            )


@pytest.mark.parametrize("persistence", ["rdb", "aof", "none"])
def test_histories_and_presence_through_faults_of_every_kind(tmp_path: Path, persistence: str) -> None:
    chance = random.Random(SEED)
    faults = OUTAGES // 3 or 1
    with site(tmp_path, persistence=persistence, JOIN_TIMEOUT=30, **PRESENCE) as made:
        servers = made.start(*BOTH, gunicorn("gevent", "--timeout=60"))
        some_disasters(made, servers, chance, min(AT_ONCE, faults))
        before = [server.resident_mib() for server in servers[:2]]
        for done in range(AT_ONCE, faults, AT_ONCE):
            some_disasters(made, servers, chance, min(AT_ONCE, faults - done))
        for server, memory in zip(servers, before, strict=False):
            grown = server.resident_mib() - memory
            print(f"{memory:.1f} MiB, {grown:+.1f} MiB")
            assert grown < MAY_GROW_MIB


def test_fleet_of_thousands_that_comes_back_at_once(tmp_path: Path) -> None:
    groups = [f"kept:{number}" for number in range(20)]
    with site(tmp_path, JOIN_TIMEOUT=60) as made, Crowd() as crowd:
        servers = made.start(GEVENT, GEVENT, THREADS, GEVENT)
        asked, _ = fleet_comes_back(made, crowd, servers, FLEET, groups)
        assert asked <= 3 * len(groups) * len(servers)
        made.check_logs()
