"""Many groups in one process; processes that fork, are replaced, and end."""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.real.group_checker import check
from tests.real.group_crowd import Crowd, Subscriber, until
from tests.real.group_outages import join_come_back_and_leave, open_many, wait_for_last
from tests.real.group_site import BOTH, THREADS, Site, needs_redis, site
from tests.real.servers import Kind, Server, gunicorn

pytestmark = [needs_redis, pytest.mark.faults]


@pytest.mark.parametrize("kind", BOTH)
def test_thousand_groups_come_back_in_few_commands(tmp_path: Path, kind: str) -> None:
    with site(tmp_path, JOIN_TIMEOUT=30) as made, Crowd() as crowd:
        (server,) = made.start(kind)
        join_come_back_and_leave(made, crowd, server, 1000)


# Forks and reloads


def preloading(worker: str) -> Kind:
    options = ("--config=tests/project/gunicorn_conf.py", f"--worker-class={worker}", "--workers=2", "--preload")
    return Kind("gunicorn", ("tests.project.preloaded_wsgi", *options, *(["--threads=4"] * (worker == "gthread"))))


def connections_of(pid: int, port: int) -> set[str]:
    """The sockets of a process that are connected to that port of 127.0.0.1, by their inodes."""
    ours = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            ours.add(target.removeprefix("socket:[").removesuffix("]"))
    remote = f"0100007F:{port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {line[9] for line in lines if line[2] == remote} & ours


def assert_none_is_shared(made: Site, server: Server, pids: set[int]) -> None:
    """No two processes use the same connection to Redis, and Redis has no other of them."""
    held: Counter[str] = Counter()
    for pid in [server.process.pid, *pids]:
        held.update(connections_of(pid, made.relay.port))
    assert set(held.values()) <= {1}
    with made.redis.client() as client:
        names = Counter(found["name"] for found in client.client_list())
    assert names["dwebsocket-subscribe"] == len(pids)
    assert names["dwebsocket-subscribe"] + names["dwebsocket-publish"] == len(held)


def until_each_publishes(server: Server, is_wanted: Callable[[int], bool] = lambda pid: True) -> set[int]:
    """Publish by way of pages, until two processes that are wanted have done so; their process ids."""
    pids: set[int] = set()

    def publish() -> bool:
        answer = server.get(f"/publish/?group=g&text=g+{len(pids)}+{os.urandom(3).hex()}")
        assert answer.status == 200
        pid = json.loads(answer.body)["pid"]
        if is_wanted(pid):
            pids.add(pid)
        return len(pids) == 2

    until(publish, "two workers")
    return pids


def open_on_each(crowd: Crowd, server: Server) -> list[Subscriber]:
    """Open so many that each worker has one."""
    found: list[Subscriber] = []
    pids: set[str] = set()

    def open_one() -> bool:
        (subscriber,) = open_many(crowd, [server], "/member/?group=g", 1)
        found.append(subscriber)
        pids.add(subscriber.ask_pid())
        return len(pids) == 2

    until(open_one, "a member in each worker")
    return found


@pytest.mark.parametrize("worker", ["gthread", "gevent"])
def test_workers_of_a_master_that_has_published_share_nothing(tmp_path: Path, worker: str) -> None:
    with site(tmp_path) as made, Crowd() as crowd:
        (server,) = made.start(preloading(worker))
        members = open_on_each(crowd, server)
        pids = until_each_publishes(server)
        members[0].ask("send g g p 0", "sent g p 0")
        for subscriber in members:
            subscriber.wait_for("g p 0")
        assert_none_is_shared(made, server, pids)

        server.process.send_signal(signal.SIGHUP)
        for subscriber in members:
            until(lambda: subscriber.is_over, "the end of the old workers")  # noqa: B023
        new = until_each_publishes(server, lambda pid: pid not in pids)
        members = open_on_each(crowd, server)
        members[0].ask("send g g p 1", "sent g p 1")
        for subscriber in members:
            subscriber.wait_for("g p 1")
        until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), "the end of the old workers")
        assert_none_is_shared(made, server, new)


@pytest.mark.parametrize("kind", BOTH)
def test_workers_that_are_replaced_after_so_many_requests_leave_nothing_at_the_broker(
    tmp_path: Path, kind: str
) -> None:
    worker = kind.removeprefix("gunicorn-")
    with site(tmp_path) as made, Crowd() as crowd:
        (server,) = made.start(gunicorn(worker, "--max-requests=5"))
        pids: set[int] = set()
        numbers = itertools.count()

        def round_trip() -> bool:
            """Not every worker that is about to end answers what it has accepted."""
            number = next(numbers)
            with suppress(AssertionError, OSError):
                (subscriber,) = open_many(crowd, [server], "/member/?group=g", 1)
                answer = server.get(f"/publish/?group=g&text=g+p+{number}")
                assert answer.status == 200
                subscriber.wait_for(f"g p {number}", seconds=5)
                pids.add(json.loads(answer.body)["pid"])
            return len(pids) > 2

        until(round_trip, "three workers, one after the other", 60)
        with made.redis.client() as client:

            def subscribers() -> int:
                return sum(found["name"] == "dwebsocket-subscribe" for found in client.client_list())

            until(lambda: subscribers() <= 1, "the end of the connections of old workers")
            assert len(client.client_list()) < 12


def test_child_of_a_process_that_has_published_uses_connections_of_its_own(tmp_path: Path) -> None:
    """Under threads: in the child of a gevent worker the greenlets of the whole server go on."""
    with site(tmp_path) as made, Crowd() as crowd:
        (server,) = made.start(THREADS)
        members = open_many(crowd, [server], "/member/?group=g", 2)
        for number in range(3):
            since = [len(subscriber.log) for subscriber in members]
            answer = server.get("/publish-in-child/?group=g")
            assert (answer.status, json.loads(answer.body)) == (200, {"child": "sent"})
            for subscriber, start in zip(members, since, strict=True):
                for text in ("parent before", "child", "parent after"):
                    subscriber.wait_for(text, start)
                assert subscriber.texts()[start:] == ["parent before", "child", "parent after"], number
        publisher = made.publisher(["p"], ["g"], count=50)
        publisher.go()
        results = publisher.stop()
        wait_for_last(members, results)
        check(crowd.logs(), may_have_gaps=False)
        made.check_logs()
