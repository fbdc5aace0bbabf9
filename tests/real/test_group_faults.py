"""Groups under load: the order of messages, joins and leaves, and a broker that dies."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.real.group_checker import Message, check, check_order, gaps, parse
from tests.real.group_crowd import Crowd, Subscriber, until
from tests.real.group_site import BOTH, GEVENT, THREADS, Publisher, Site, last, needs_redis, site, unsure
from tests.real.servers import Server

pytestmark = needs_redis


def open_many(crowd: Crowd, servers: list[Server], path: str, count: int) -> list[Subscriber]:
    """Open `count` on each server, several at a time; each has joined its groups."""

    def open_one(at: int) -> Subscriber:
        server = servers[at % len(servers)]
        return crowd.add(server, path, f"{path} {at} on {servers.index(server)}")

    with ThreadPoolExecutor(8) as pool:
        subscribers = list(pool.map(open_one, range(count * len(servers))))
    groups = [part.partition("=")[2] for part in path.partition("?")[2].split("&") if part.startswith("group=")]
    for subscriber in subscribers:
        for group in groups:
            subscriber.wait_for(f"joined {group}")
    return subscribers


def wait_for_last(subscribers: list[Subscriber], results: list, tail: str = "") -> None:
    for stream, n in last(results).items():
        for subscriber in subscribers:
            subscriber.wait_for(f"{stream.group} {stream.publisher} {n}{tail}")


@pytest.mark.parametrize("path", ["/member/?group=a&group=b", "/member/?group=a&group=b&forward=0"])
def test_all_members_in_all_processes_see_one_order(tmp_path: Path, path: str) -> None:
    with site(tmp_path) as made, Crowd() as crowd:
        servers = made.start(THREADS, GEVENT, GEVENT)
        subscribers = open_many(crowd, servers, path, 70)
        names = [[f"p{process}.{thread}" for thread in range(4)] for process in range(2)]
        publishers = [made.publisher(four, ["a", "b"], count=40) for four in names]
        for publisher in publishers:
            publisher.go()
        for n in range(20):  # from inside the servers, too
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
