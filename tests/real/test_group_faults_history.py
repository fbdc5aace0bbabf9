"""Histories under faults: a page that comes back has all, in order, or it is told; and "recovered" is never a lie."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.peer import Close
from tests.real.group_checker import check_order, gaps
from tests.real.group_crowd import Crowd, until
from tests.real.group_outages import assert_told, fleet_comes_back, open_many, wait_for_last, wait_until_it_goes_on
from tests.real.group_pages import Pages
from tests.real.group_site import GEVENT, LOST, REFUSED, REPLACED, SMALL, THREADS, Publisher, Site, needs_redis, site
from tests.real.servers import gunicorn

pytestmark = [needs_redis, pytest.mark.faults, pytest.mark.timeout(120)]

GROUPS = ("kept:a", "kept:b")
GEVENT_TWICE = gunicorn("gevent", "--workers=2")
CHECK = {"CHECK": 1, "JOIN_TIMEOUT": 20}


def publish(made: Site, **options: object) -> list[Publisher]:
    """Two publishers, one of which does not go through the relay."""
    publishers = [
        made.publisher(["p0"], GROUPS, pause_seconds=0.01, **options),
        made.publisher(["p1"], GROUPS, pause_seconds=0.01, is_direct=True, **options),
    ]
    for publisher in publishers:
        publisher.go()
    return publishers


def wait_until_they_send(publishers: Sequence[Publisher]) -> None:
    """Return when each has sent a message that it had begun after this call."""
    now = time.monotonic()
    for publisher in publishers:
        until(
            lambda: any(r.began > now and r.outcome == "ok" for r in publisher.results()[-50:]),  # noqa: B023
            "a message that is sent",
            60,
        )


@pytest.mark.parametrize("kind", [THREADS, GEVENT_TWICE], ids=["threads", "gevent"])
def test_pages_that_go_and_come_back_anywhere_miss_nothing(tmp_path: Path, kind: object) -> None:
    with site(tmp_path) as made, Crowd() as crowd:
        with Pages(crowd, made.start(kind, kind), random.Random(1)) as pages:
            pages.open(24, GROUPS)
            publishers = publish(made)
            pages.tend(0.7)
            time.sleep(6)  # that is the load
            pages.end_and_check(publishers, GROUPS, may_lose=False)
            assert pages.told()["joined true"] > 100
        made.check_logs()


# The server is another one


@pytest.mark.parametrize("seconds", [0.1, 5])
@pytest.mark.parametrize("persistence", ["none", "rdb", "aof"])
def test_server_that_dies_and_comes_back_older(tmp_path: Path, persistence: str, seconds: float) -> None:
    with site(tmp_path, persistence=persistence, **CHECK) as made, Crowd() as crowd:
        with Pages(crowd, made.start(THREADS, GEVENT, GEVENT), random.Random(2)) as pages:
            pages.open(18, GROUPS)
            publishers = publish(made)
            pages.tend(1.5)
            wait_until_they_send(publishers)
            if persistence == "rdb":
                with made.redis.client() as client:
                    client.save()
            time.sleep(1)  # so much is sent behind the snapshot
            made.redis.kill()
            time.sleep(seconds)  # that is the fault
            made.redis.start()
            wait_until_they_send(publishers)
            time.sleep(1)
            pages.end_and_check(publishers, GROUPS)
            assert_each_was_told(pages)  # in any case: messages may be lost that were announced
        made.check_logs(LOST, REFUSED)


def assert_each_was_told(pages: Pages, at_least: int = 1) -> None:
    for page in pages.all:
        for group in GROUPS:
            count = sum(
                text["g"] == group and ("gap" in text or text.get("joined") is False)
                for visit in page.visits()
                for text in visit.texts
            )
            assert count >= at_least, f"{page.name} was told {count} times that {group} has lost messages"


def delete(pattern: str) -> Callable[[Site], None]:
    """Let the server forget what an eviction may take."""

    def forget(made: Site) -> None:
        with made.redis.client() as client:
            names = client.keys(pattern)
            assert names, client.keys()
            client.delete(*names)

    return forget


def flush(made: Site) -> None:
    with made.redis.client() as client:
        client.flushall()


def forget_run(made: Site) -> None:
    """Twice in a row: only a process that connects leaves it there again."""
    with made.redis.client() as client:
        client.delete("dws:run")
        time.sleep(0.3)
        made.relay.cut()
        until(lambda: client.exists("dws:run"), "the run")
        client.delete("dws:run")


@pytest.mark.parametrize(
    "forget",
    [flush, delete("dws:m:*"), delete("dws:s:*"), forget_run],
    ids=["all", "meta", "stream", "run"],
)
def test_keys_that_are_gone(tmp_path: Path, forget: Callable[[Site], None]) -> None:
    with site(tmp_path, **CHECK) as made, Crowd() as crowd:
        with Pages(crowd, made.start(THREADS, GEVENT), random.Random(3)) as pages:
            pages.open(16, GROUPS)
            publishers = publish(made)
            pages.tend(1.0)
            for _ in range(3):
                wait_until_they_send(publishers)
                time.sleep(0.5)
                forget(made)
            wait_until_they_send(publishers)
            time.sleep(1)
            pages.end_and_check(publishers, GROUPS)
        made.check_logs(LOST)


def test_replica_that_lags_and_is_promoted(tmp_path: Path) -> None:
    with site(tmp_path, **CHECK) as made, Crowd() as crowd:
        with Pages(crowd, made.start(THREADS, GEVENT), random.Random(4)) as pages:
            pages.open(16, GROUPS)
            replica, replication = made.add_replica()
            publishers = publish(made)
            pages.tend(1.5)
            wait_until_they_send(publishers)
            replication.hold()
            time.sleep(1.5)  # so much it does not get
            made.fail_over(replica)
            wait_until_they_send(publishers)
            time.sleep(1)
            pages.end_and_check(publishers, GROUPS)
            assert_each_was_told(pages)
        made.check_logs(LOST, REFUSED)


def test_history_that_does_not_reach_back_is_told(tmp_path: Path) -> None:
    """It has 20 messages, and many more are sent meanwhile."""
    groups = ("few:a", "few:b")
    with site(tmp_path, **CHECK) as made, Crowd() as crowd:
        with Pages(crowd, made.start(THREADS, GEVENT), random.Random(9)) as pages:
            pages.open(16, groups)
            publisher = made.publisher(["p"], groups, pause_seconds=0.005, is_direct=True)
            publisher.go()
            pages.tend(1.0)
            for _ in range(3):
                made.relay.refuse()
                time.sleep(1)
                made.relay.accept()
                wait_until_they_send([publisher])
                time.sleep(1)
            pages.end_and_check([publisher], groups)
            told = pages.told()
            assert all(told[what] for what in ("gap", "joined true", "joined false")), told
        made.check_logs(LOST, REFUSED)


def test_members_that_keep_no_position_are_told_or_closed(tmp_path: Path) -> None:
    with site(tmp_path, **CHECK) as made, Crowd() as crowd:
        servers = made.start(THREADS, GEVENT)
        told = open_many(crowd, servers, "/member/?group=kept:a&group=kept:b&forward=0", 4)
        forwarded = open_many(crowd, servers, "/member/?group=kept:a&group=kept:b", 4)
        publishers = publish(made)
        for fault in (made.relay.cut, lambda: flush(made)):
            wait_until_it_goes_on(told, publishers)
            assert not any(gaps(subscriber.entries()) for subscriber in told)
            assert not any(subscriber.close for subscriber in forwarded)
            fault()
        wait_until_it_goes_on(told, publishers)
        for subscriber in forwarded:
            until(lambda: subscriber.close, f"the end of {subscriber.name}")  # noqa: B023
            assert subscriber.close == Close(1012, "messages are missing")
        results = [result for publisher in publishers for result in publisher.stop()]
        wait_for_last(told, results)
        assert_told(told, results)
        check_order([subscriber.entries() for subscriber in told + forwarded])
        made.check_logs(LOST)


def test_page_that_was_too_slow_comes_back_and_has_all(tmp_path: Path) -> None:
    with site(tmp_path, OUTBOX_SECONDS=1, **CHECK) as made, Crowd() as crowd:
        servers = made.start(*SMALL.values())
        with Pages(crowd, servers, random.Random(10)) as pages:
            slow = pages.open(6, GROUPS, receive_buffer=16 * 1024)
            pages.open(6, GROUPS)
            publishers = publish(made, size=200)
            pages.tend(0)
            for number in range(2):
                slowed = [page.connection for page in slow]
                for connection in slowed:
                    assert connection is not None
                    crowd.pause(connection)
                time.sleep(4)
                for connection in slowed:
                    crowd.resume(connection)
                for page in slow:
                    until(lambda: len(page.visits()) == number + 2, f"the end of {page.name}")  # noqa: B023
                pages.wait_until_joined()
            pages.end_and_check(publishers, GROUPS, may_lose=False)
        made.check_logs()


# A worker, or its way to the server


def test_worker_that_is_killed_under_its_pages(tmp_path: Path) -> None:
    with site(tmp_path) as made, Crowd() as crowd:
        servers = made.start(GEVENT, THREADS)
        with Pages(crowd, servers, random.Random(5)) as pages:
            pages.open(20, GROUPS)
            publishers = publish(made)
            pages.tend(3)
            for server in (*servers, *servers):
                time.sleep(1)
                os.kill(int(server.get("/pid/").body), signal.SIGKILL)
                server.until(lambda: server.get("/pid/").status == 200, "another worker")  # noqa: B023
            pages.end_and_check(publishers, GROUPS, may_lose=False)
        made.check_logs(REPLACED)


def cut_while_it_sends(made: Site) -> None:
    made.relay.cut()


def swallow(made: Site) -> None:
    """Nothing comes back for longer than a process waits."""
    made.relay.hold(made.relay.down)
    time.sleep(2.5)
    made.relay.cut()
    made.relay.go_on()


def delay(made: Site) -> None:
    made.relay.delay(made.relay.down, 0.4)
    time.sleep(1)
    made.relay.delay(made.relay.down, 0)


def kill_subscribers(made: Site) -> None:
    with made.redis.client() as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")


def refuse(made: Site) -> None:
    made.relay.refuse()
    time.sleep(2)
    made.relay.accept()


@pytest.mark.parametrize("fault", [cut_while_it_sends, swallow, delay, kill_subscribers, refuse])
def test_outage_that_a_history_mends_is_not_told(tmp_path: Path, fault: Callable[[Site], None]) -> None:
    """The members have not even noticed: what they missed comes as if it had come in time."""
    with site(tmp_path, **CHECK) as made, Crowd() as crowd:
        with Pages(crowd, made.start(THREADS, GEVENT), random.Random(6)) as pages:
            stay = pages.open(8, GROUPS)
            publishers = publish(made)
            for _ in range(2):
                wait_until_they_send(publishers[1:])
                fault(made)
            wait_until_they_send(publishers)
            assert not any(page.is_away for page in stay)
            pages.tend(1.0)
            time.sleep(1)
            pages.end_and_check(publishers, GROUPS, may_lose=False)
        made.check_logs(REFUSED)


# A fleet


def test_fleet_that_comes_back_reads_each_group_once_for_each_process(tmp_path: Path) -> None:
    groups = [f"kept:{number}" for number in range(5)]
    with site(tmp_path) as made, Crowd() as crowd:
        servers = made.start(THREADS, GEVENT, GEVENT, THREADS)
        asked, _ = fleet_comes_back(made, crowd, servers, 150, groups)
        # Once, and again for pages that have missed more than the first one; and the marks of new connections.
        assert asked <= 3 * len(groups) * len(servers)
        made.check_logs()
