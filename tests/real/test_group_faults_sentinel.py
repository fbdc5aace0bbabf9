"""Failovers that real sentinels make: the receiver and the publishers follow, whatever the old primary does."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dwebsocket.exceptions import GroupsUnavailable
from dwebsocket.groups.backend import Publication
from dwebsocket.groups.config import DEFAULTS
from dwebsocket.groups.redis import RedisGroups
from tests.groups.servers import RedisServer, SentinelServer
from tests.groups.sinks import Collector, listen
from tests.real.group_crowd import Crowd, until
from tests.real.group_outages import open_many, seconds_until_noticed, wait_until_they_send
from tests.real.group_pages import Pages
from tests.real.group_site import BOTH, LOST, REFUSED, needs_redis, site

pytestmark = [needs_redis, pytest.mark.faults]

PROBE, TIMEOUT = 1, 1
#: What a loaded machine may take, where it should take PROBE + TIMEOUT after the sentinels name another one.
FOLLOWED_SECONDS = 3 * (PROBE + TIMEOUT)
SECRET = "secret"
#: The user by which the sentinels log in; the others use the default one.
WATCH = ("watch", "watching")


class Service:
    """Two servers, of which the second is a replica at first, and three sentinels that watch them."""

    def __init__(self, folder: Path) -> None:
        users = [f"{WATCH[0]} on >{WATCH[1]} ~* &* +@all"]
        settings = {"masterauth": SECRET, "repl-diskless-sync-delay": "0"}
        self.first = RedisServer(folder, password=SECRET, users=users, settings=settings)
        replica = {**settings, "replicaof": f"127.0.0.1 {self.first.port}"}
        self.second = RedisServer(folder, password=SECRET, users=users, settings=replica)
        self.sentinels = [SentinelServer(folder, self.first, quorum=2, user=WATCH) for _ in range(3)]

    def start(self) -> None:
        for server in (self.first, self.second, *self.sentinels):
            server.start()
        self.wait_until_ready()

    def stop(self) -> None:
        for server in (*self.sentinels, self.second, self.first):
            server.stop()

    def wait_until_ready(self) -> None:
        """Return when a failover can be made: each sentinel knows a good replica, and the other sentinels."""
        for sentinel in self.sentinels:
            until(lambda: sentinel.has_replicas(1), "a replica")  # noqa: B023
            until(lambda: _others(sentinel) == 2, "two other sentinels")  # noqa: B023

    @property
    def url(self) -> str:
        one, *others = self.sentinels
        return one.location(*others).replace("://", f"://:{SECRET}@")

    def fail_over(self) -> None:
        """Tell a sentinel to let the replica be the primary; the old one is told to follow it."""
        with self.sentinels[0].client() as client:
            client.execute_command("SENTINEL", "FAILOVER", "shop")

    def hide(self, server: RedisServer) -> None:
        """Let no sentinel use the server any more. All others can."""
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", WATCH[0], "off")
            client.execute_command("CLIENT", "KILL", "USER", WATCH[0])

    def wait_until_named(self, server: RedisServer) -> float:
        """Return when most sentinels name it: when that was."""
        until(lambda: sum(one.primary_port() == server.port for one in self.sentinels) >= 2, "a failover", 60)
        return time.monotonic()


def _others(sentinel: SentinelServer) -> int:
    with sentinel.client() as client:
        found: list[Any] = client.execute_command("SENTINEL", "SENTINELS", "shop")
    return len(found)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path)
    try:
        made.start()
        yield made
    finally:
        made.stop()


class Process:
    """A backend that receives, one that publishes all the time, as another process does, and what became of it."""

    def __init__(self, service: Service) -> None:
        given = {**DEFAULTS, "LOCATION": service.url, "PROBE": PROBE, "TIMEOUT": TIMEOUT}
        self.receiver, self.publisher = RedisGroups("default", given), RedisGroups("default", given)
        self.sink: Collector = listen(self.receiver, "a")
        self.publisher.open(Collector())
        self.receiver.publish([Publication("b", b"t")])  # so that its probes need no new connection, which would ask
        self._sent: list[tuple[float, bytes]] = []
        self._is_over = False
        self._thread = threading.Thread(target=self._publish)
        self._thread.start()

    def _publish(self) -> None:
        for number in itertools.count():
            if self._is_over:
                return
            payload = b"t%d" % number
            began = time.monotonic()
            try:
                self.publisher.publish([Publication("a", payload)])
            except GroupsUnavailable:
                pass
            else:
                self._sent.append((began, payload))
            time.sleep(0.01)

    def wait_until_it_goes_on(self, since: float) -> float:
        """Return when a message that was sent after that has come: how long after it that is."""

        def has_come() -> bool:
            fresh = {payload for began, payload in list(self._sent)[-300:] if began >= since}
            return any(payload in fresh for _, payload in self.sink.messages[-100:])

        until(has_come, "messages after the failover", 60)
        return time.monotonic() - since

    def close(self) -> None:
        self._is_over = True
        self._thread.join()
        self.receiver.close()
        self.publisher.close()

    def has_told_each_outage(self) -> bool:
        """Whether each one has a begin and an end, and nothing came twice, or in another order."""
        told = [what for what, _ in self.sink.told if what in ("lost", "restored")]
        numbers = [int(payload[1:]) for _, payload in self.sink.messages]
        return told == ["lost", "restored"] * (len(told) // 2) and numbers == sorted(set(numbers))


@pytest.fixture
def process(service: Service) -> Iterator[Process]:
    made = Process(service)
    try:
        made.wait_until_it_goes_on(0)
        yield made
    finally:
        made.close()


def receives(server: RedisServer, group: str = "a") -> int:
    """How many connections receive the group from it."""
    with server.client() as client:
        return int(client.pubsub_numsub(f"dws:g:{group}")[0][1])


def assert_followed(service: Service, process: Process, to: RedisServer) -> None:
    """Within PROBE + TIMEOUT after most sentinels name it."""
    named_at = service.wait_until_named(to)
    assert process.wait_until_it_goes_on(named_at) < FOLLOWED_SECONDS
    until(lambda: receives(to) == 1, "the group at the new primary")
    assert process.has_told_each_outage()
    assert process.sink.all("lost")


def test_primary_that_is_killed(service: Service, process: Process) -> None:
    service.first.kill()
    assert_followed(service, process, service.second)

    # It comes back with its old settings, as a primary, until the sentinels have made a replica of it.
    service.first.start()
    outages = len(process.sink.all("lost"))
    until(lambda: service.sentinels[0].has_replicas(1), "the old primary as a replica", 60)
    process.wait_until_it_goes_on(time.monotonic())
    assert len(process.sink.all("lost")) == outages
    assert receives(service.first) == 0


def test_primary_that_stands_still_and_goes_on(service: Service, process: Process) -> None:
    service.first.pause()
    assert_followed(service, process, service.second)
    service.first.resume()
    until(lambda: service.sentinels[0].has_replicas(1), "the old primary as a replica", 60)
    process.wait_until_it_goes_on(time.monotonic())

    assert process.has_told_each_outage()
    assert receives(service.first) == 0


def test_primary_that_is_told_to_follow_and_is_promoted_again(service: Service, process: Process) -> None:
    service.fail_over()
    assert_followed(service, process, service.second)
    service.wait_until_ready()
    service.fail_over()
    assert_followed(service, process, service.first)


def test_primary_that_goes_on_where_no_sentinel_sees_it(service: Service, process: Process) -> None:
    service.hide(service.first)
    named_at = service.wait_until_named(service.second)
    # It takes messages all the time, and gives them to those who receive from it: the answers of the sentinels alone
    # show that it is the primary no more.
    until(lambda: receives(service.second) == 1, "the group at the new primary", 60)

    assert time.monotonic() - named_at < 3 * (3 * PROBE + TIMEOUT)
    until(lambda: receives(service.first) == 0, "the end of the group at the old one")
    process.wait_until_it_goes_on(time.monotonic())
    assert process.has_told_each_outage()
    with service.first.client() as client:
        assert client.execute_command("ROLE")[0] == b"master"
        until(lambda: not _publishers(client), "the end of the publishers at the old one", 60)


def _publishers(client: Any) -> list[Any]:
    return [one for one in client.client_list() if one["name"] == "dwebsocket-publish"]


def test_site_follows_and_tells_its_members(service: Service, tmp_path: Path) -> None:
    with site(tmp_path, LOCATION=service.url, PROBE=PROBE, TIMEOUT=TIMEOUT) as made, Crowd() as crowd:
        servers = made.start(*BOTH)
        members = open_many(crowd, servers, "/member/?group=g&forward=0", 3)
        seconds_until_noticed(servers, service.fail_over)
        for server in servers:
            server.expect_log("is back after")
        for server in servers:
            until(lambda: server.get(f"/publish/?group=g&text=g+{server.port}+0").status == 200, "a message")  # noqa: B023
        for member in members:
            member.wait_for("gap g")
            for server in servers:
                member.wait_for(f"g {server.port} 0")
        assert receives(service.second, "g") == len(servers)
        made.check_logs(r"^\w+ django\.request: Service Unavailable: /publish/\n")


def test_pages_that_keep_positions_have_all_or_are_told(service: Service, tmp_path: Path) -> None:
    """Failovers under load; what a primary has taken while another one takes its place is lost, and told."""
    groups = ("kept:a", "kept:b")
    given = {"LOCATION": service.url, "PROBE": PROBE, "TIMEOUT": TIMEOUT, "JOIN_TIMEOUT": 20, "CHECK": 1}
    with site(tmp_path, **given) as made, Crowd() as crowd:
        with Pages(crowd, made.start(*BOTH), random.Random(1)) as pages:
            pages.open(12, groups)
            publishers = [made.publisher([f"p{number}"], groups, pause_seconds=0.01) for number in range(2)]
            for publisher in publishers:
                publisher.go()
            pages.tend(1.5)
            time.sleep(1)
            service.fail_over()
            service.wait_until_named(service.second)
            wait_until_they_send(publishers)
            service.wait_until_ready()
            service.second.kill()
            service.wait_until_named(service.first)
            wait_until_they_send(publishers)
            time.sleep(1)
            pages.end_and_check(publishers, groups)
            assert pages.told()["gap"]
        made.check_logs(LOST, REFUSED)
