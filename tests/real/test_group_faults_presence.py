"""Presence under faults: who is present is right soon after a crash, and each member leaves once."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.real.group_crowd import Crowd, until
from tests.real.group_pages import Page, Pages
from tests.real.group_rosters import counts, members, roster, signals
from tests.real.group_site import AWAY, LOST, REFUSED, REPLACED, THREADS, Site, needs_redis, site
from tests.real.servers import Kind, Server, gunicorn

pytestmark = [needs_redis, pytest.mark.faults, pytest.mark.timeout(120)]

GROUP = "kept:p"
LEASE, GRACE = 3, 3
PRESENCE = {"LEASE": LEASE, "GRACE": GRACE, "JOIN_TIMEOUT": 20}
GEVENT = gunicorn("gevent", "--timeout=60")  # a worker that stands still is not killed
KINDS = [gunicorn("gthread", "--threads=2", "--timeout=60"), GEVENT]


def enter(pages: Pages, crowd: Crowd, server: Server, users: Iterable[int]) -> dict[str, Page]:
    """Open a page for each user."""
    found = {}
    for user in users:
        page = Page(crowd, f"user {user} on {server.port}", [GROUP], user=str(user))
        page.come(server)
        found[str(user)] = page
        pages.all.append(page)
    wait_until_present(found.values())
    return found


def wait_until_present(pages: Iterable[Page]) -> None:
    """Return when the view of each has joined: its page was told a moment before it was present."""
    for page in pages:
        until(page.has_joined, page.name)
        assert page.connection is not None
        page.connection.ask_pid()


def watch(pages: Pages, crowd: Crowd, server: Server) -> Page:
    """Open a page that is told who is present, and is not present itself."""
    page = Page(crowd, f"watcher on {server.port}", [GROUP], roster="1")
    page.come(server)
    until(lambda: any("here" in text for text in page.present().texts), "a roster")
    pages.all.append(page)
    return page


def wait_for_names(watcher: Page, names: set[str], seconds: float = 30) -> None:
    until(
        lambda: roster(GROUP, watcher.present()).names == names,
        f"{sorted(names)} at {watcher.name}, which has {sorted(roster(GROUP, watcher.present()).names)}",
        seconds,
    )


def worker_of(server: Server) -> int:
    return int(server.get("/pid/").body)


def wrong_until(server: Server, expected: dict[str, int], seconds: float = 30) -> float:
    """Ask until the members are as expected: when the last question was asked that was answered otherwise."""
    wrong_at = began = time.monotonic()
    while (found := members(server, GROUP)) != expected:
        wrong_at = began
        assert time.monotonic() - wrong_at < seconds, f"{found} instead of {expected}"
        time.sleep(0.02)
        began = time.monotonic()
    return wrong_at


@pytest.mark.parametrize("kind", KINDS, ids=["threads", "gevent"])
def test_members_of_a_worker_that_is_killed_are_gone_once(tmp_path: Path, kind: Kind) -> None:
    with site(tmp_path, **PRESENCE) as made, Crowd() as crowd:
        killed, other = made.start(kind, GEVENT)
        with Pages(crowd, [other], random.Random(1)) as pages:
            enter(pages, crowd, killed, range(1, 21))
            enter(pages, crowd, other, [1, 30])  # the first has a second tab
            watchers = [watch(pages, crowd, other) for _ in range(2)]
            all_names = {str(user) for user in (*range(1, 21), 30)}
            assert members(other, GROUP) == {**dict.fromkeys(all_names, 1), "1": 2}
            assert counts(other, GROUP) == (22, 21)
            for watcher in watchers:
                wait_for_names(watcher, all_names)

            os.kill(worker_of(killed), signal.SIGKILL)
            at = time.monotonic()
            assert wrong_until(other, {"1": 1, "30": 1}) - at < LEASE + 1
            assert counts(other, GROUP) == (2, 2)
            for watcher in watchers:
                wait_for_names(watcher, {"1", "30"})
            time.sleep(LEASE)  # another `left` would come by now
            for watcher in watchers:
                told = roster(GROUP, watcher.present())
                assert told.went == dict.fromkeys(all_names - {"1", "30"}, 1)
                assert not told.came
            came, went = signals([killed, other], GROUP)
            assert went == dict.fromkeys(all_names - {"1", "30"}, 1)
            assert came == dict.fromkeys(all_names, 1)
        made.check_logs(REPLACED)


@pytest.mark.parametrize("kind", KINDS, ids=["threads", "gevent"])
def test_members_of_a_worker_that_stands_still_are_gone_and_then_there_again(tmp_path: Path, kind: Kind) -> None:
    with site(tmp_path, **PRESENCE) as made, Crowd() as crowd:
        stopped, other = made.start(kind, GEVENT)
        with Pages(crowd, [other], random.Random(2)) as pages:
            enter(pages, crowd, stopped, range(1, 11))
            enter(pages, crowd, other, [1, 30])
            watcher = watch(pages, crowd, other)
            names = {str(user) for user in (*range(1, 11), 30)}
            wait_for_names(watcher, names)
            worker = worker_of(stopped)
            os.kill(worker, signal.SIGSTOP)
            at = time.monotonic()
            try:
                assert wrong_until(other, {"1": 1, "30": 1}) - at < LEASE + 1
                time.sleep(max(0.0, at + 2 * LEASE - time.monotonic()))
                assert members(other, GROUP) == {"1": 1, "30": 1}
                wait_for_names(watcher, {"1", "30"})
            finally:
                os.kill(worker, signal.SIGCONT)
            until(lambda: members(other, GROUP) == {**dict.fromkeys(names, 1), "1": 2}, "all of them")
            wait_for_names(watcher, names)
            time.sleep(LEASE)
            told = roster(GROUP, watcher.present())
            assert told.went == told.came == dict.fromkeys(names - {"1", "30"}, 1)
            came, went = signals([stopped, other], GROUP)
            assert went == dict.fromkeys(names - {"1", "30"}, 1)
            assert came == {**dict.fromkeys(names, 2), "1": 1, "30": 1}
        made.check_logs()


def test_page_that_is_loaded_again_has_not_been_away(tmp_path: Path) -> None:
    with site(tmp_path, **{**PRESENCE, "GRACE": 8}) as made, Crowd() as crowd:
        servers = made.start(THREADS, GEVENT)
        with Pages(crowd, servers, random.Random(3)) as pages:
            users = [enter(pages, crowd, server, range(5 * at, 5 * at + 5)) for at, server in enumerate(servers)]
            watcher = watch(pages, crowd, servers[0])
            names = {str(user) for user in range(10)}
            wait_for_names(watcher, names)
            for number in range(4):
                for at, found in enumerate(users):
                    for page in found.values():
                        page.go("reset" if number % 2 else "close")
                        page.come(servers[(at + number) % 2])
            wait_until_present(page for found in users for page in found.values())
            time.sleep(8 + 2)
            told = roster(GROUP, watcher.present())
            assert told.names == names
            assert not told.went
            assert not told.came
            came, went = signals(servers, GROUP)
            assert came == dict.fromkeys(names, 1)
            assert not went
            assert members(servers[0], GROUP) == dict.fromkeys(names, 1)
            for page in users[0].values():
                page.go("end")
            until(lambda: members(servers[1], GROUP) == dict.fromkeys("56789", 1), "the others")
            wait_for_names(watcher, set("56789"))
        made.check_logs()


def flush(made: Site) -> None:
    with made.redis.client() as client:
        client.flushall()


def restart(made: Site) -> None:
    made.redis.kill()
    time.sleep(0.5)
    made.redis.start()


@pytest.mark.parametrize("fault", [flush, restart])
def test_server_that_is_empty_has_all_members_soon(tmp_path: Path, fault: Callable[[Site], None]) -> None:
    with site(tmp_path, **PRESENCE) as made, Crowd() as crowd:
        servers = made.start(THREADS, GEVENT)
        with Pages(crowd, servers, random.Random(4)) as pages:
            for at, server in enumerate(servers):
                enter(pages, crowd, server, range(10 * at, 10 * at + 10))
            enter(pages, crowd, servers[0], [15])
            watchers = [watch(pages, crowd, server) for server in servers]
            expected = {**{str(user): 1 for user in range(20)}, "15": 2}
            assert members(servers[0], GROUP) == expected
            for watcher in watchers:
                wait_for_names(watcher, set(expected))
            for _ in range(2):
                fault(made)
                for server in servers:
                    until(lambda: members(server, GROUP) == expected, "all members", 3 * LEASE)  # noqa: B023
                    assert counts(server, GROUP) == (21, 20)
                time.sleep(2)
                for watcher in watchers:
                    wait_for_names(watcher, set(expected), 10)
            left = pages.all[0]
            left.go("end")
            until(lambda: "0" not in (members(servers[1], GROUP) or "0"), "the end of user 0")
            for watcher in watchers:
                wait_for_names(watcher, set(expected) - {"0"})
        made.check_logs(AWAY, REFUSED, LOST)


@pytest.mark.parametrize("kind", KINDS, ids=["threads", "gevent"])
def test_worker_that_ends_gives_its_pages_time_to_come_back(tmp_path: Path, kind: Kind) -> None:
    with site(tmp_path, **{**PRESENCE, "GRACE": 5}) as made, Crowd() as crowd:
        ending, other = made.start(kind, GEVENT)
        with Pages(crowd, [other], random.Random(5)) as pages:
            users = enter(pages, crowd, ending, range(1, 11))
            watcher = watch(pages, crowd, other)
            wait_for_names(watcher, set(users))
            worker = worker_of(ending)
            at = time.monotonic()
            os.kill(worker, signal.SIGTERM)
            back = [users[str(user)] for user in range(1, 6)]
            for page in back:
                until(lambda: page.is_away, f"the end of {page.name}")  # noqa: B023
                page.go("end")
                page.come(other)
            wait_until_present(back)
            while time.monotonic() < at + 4:  # and the answer comes before GRACE is over
                assert (members(other, GROUP) or {}).keys() == set(users)
                time.sleep(0.1)
            until(lambda: not os.path.exists(f"/proc/{worker}"), "the end of the worker")
            ended = time.monotonic()
            assert wrong_until(other, dict.fromkeys("12345", 1)) - ended < 5 + 1
            wait_for_names(watcher, set("12345"))
            time.sleep(LEASE)
            told = roster(GROUP, watcher.present())
            assert told.went == dict.fromkeys(set(users) - set("12345"), 1)
            assert not told.came
            came, went = signals([ending, other], GROUP)
            assert went == told.went
            assert came == dict.fromkeys(users, 1)
        made.check_logs(REPLACED)


def test_replica_that_has_missed_who_came_and_who_went(tmp_path: Path) -> None:
    """It takes over while all leases last: what they did since is done again."""
    with site(tmp_path, **{**PRESENCE, "LEASE": 30, "GRACE": 0}) as made, Crowd() as crowd:
        servers = made.start(THREADS, GEVENT)
        with Pages(crowd, servers, random.Random(6)) as pages:
            first = enter(pages, crowd, servers[0], range(10)) | enter(pages, crowd, servers[1], range(10, 20))
            watchers = [watch(pages, crowd, server) for server in servers]
            replica, replication = made.add_replica()
            replication.hold()
            for user in ("1", "2", "11"):
                first[user].go("end")
            enter(pages, crowd, servers[0], [2, 30])
            enter(pages, crowd, servers[1], [31, 5])
            expected = {str(user): 1 for user in (*range(20), 30, 31) if user not in (1, 11)}
            expected["5"] = 2
            until(lambda: members(servers[0], GROUP) == expected, "the members")
            for watcher in watchers:
                wait_for_names(watcher, set(expected))
            made.fail_over(replica)
            for server in servers:
                until(lambda: members(server, GROUP) == expected, "the same members", 15)  # noqa: B023
            for watcher in watchers:
                wait_for_names(watcher, set(expected))
        made.check_logs(AWAY, REFUSED, LOST)
