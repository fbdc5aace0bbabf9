"""A broker that stands still, or is gone: it is noticed, the site goes on, and it comes back by itself."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.peer import Close
from tests.real.group_crowd import Crowd, until
from tests.real.group_outages import (
    assert_all_is_well_in_the_end,
    assert_told,
    chance_outage,
    open_many,
    seconds_until_noticed,
    wait_for_last,
    wait_until_it_goes_on,
)
from tests.real.group_site import BOTH, Site, needs_redis, site
from tests.real.servers import Server

pytestmark = [needs_redis, pytest.mark.faults]

PROBE, TIMEOUT = 1, 1
#: What a loaded machine may take, where it should take PROBE + TIMEOUT.
NOTICED_SECONDS = 3 * (PROBE + TIMEOUT)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site that survives every test here."""
    with site(tmp_path_factory.mktemp("site"), PROBE=PROBE, TIMEOUT=TIMEOUT) as made:
        made.start(*BOTH)
        yield made


def client_pause(site: Site) -> None:
    """Let Redis answer no one for a while. It would not even be told to end that."""
    with site.redis.client() as client:
        client.execute_command("CLIENT", "PAUSE", "5000", "ALL")


def client_kill(site: Site) -> None:
    with site.redis.client() as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")


FAULTS: dict[str, tuple[Callable[[Site], None], Callable[[Site], None]]] = {
    "SIGSTOP": (lambda site: site.redis.pause(), lambda site: site.redis.resume()),
    "both ways held": (lambda site: site.relay.hold(), lambda site: site.relay.go_on()),
    "way to the server held": (lambda site: site.relay.hold(site.relay.up), lambda site: site.relay.go_on()),
    "way back held": (lambda site: site.relay.hold(site.relay.down), lambda site: site.relay.go_on()),
    "CLIENT PAUSE": (client_pause, lambda site: None),
    "CLIENT KILL": (client_kill, lambda site: None),
    "half-closed by the server": (lambda site: site.relay.half_close(site.relay.down), lambda site: None),
    "half-closed by the client": (lambda site: site.relay.half_close(site.relay.up), lambda site: None),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_silent_broker_is_noticed_and_told(shared: Site, fault: str) -> None:
    group = f"noticed{list(FAULTS).index(fault)}"
    with Crowd() as crowd:
        subscribers = open_many(crowd, shared.servers, f"/member/?group={group}&forward=0", 3)
        for server in shared.servers:
            assert server.get(f"/publish/?group={group}&text={group}+{server.port}+0").status == 200
        for subscriber in subscribers:
            for server in shared.servers:
                subscriber.wait_for(f"{group} {server.port} 0")
        begin, end = FAULTS[fault]
        try:
            took = seconds_until_noticed(shared.servers, lambda: begin(shared))
        finally:
            end(shared)
        assert took < NOTICED_SECONDS
        for subscriber in subscribers:
            subscriber.wait_for(f"gap {group}")
        for server in shared.servers:
            until(
                lambda: server.get(f"/publish/?group={group}&text={group}+{server.port}+1").status == 200,  # noqa: B023
                "a message that is sent",
            )
        for subscriber in subscribers:
            for server in shared.servers:
                subscriber.wait_for(f"{group} {server.port} 1")
    shared.check_logs(r"^\w+ django\.request: Service Unavailable: /publish/\n")


def percentile(seconds: list[float], share: float) -> float:
    return sorted(seconds)[int(len(seconds) * share)]


def times(server: Server, peer_path: str = "/echo/", count: int = 150) -> list[float]:
    """Seconds for a page and an echo, `count` times."""
    found = []
    with server.connect(peer_path) as peer:
        for number in range(count):
            began = time.monotonic()
            assert server.get("/plain/").status == 200
            peer.send_message(str(number))
            assert peer.recv_message() == str(number)
            found.append(time.monotonic() - began)
    return found


def facts(server: Server) -> dict[str, int]:
    found: dict[str, int] = json.loads(server.get("/facts/").body)
    return found


def test_nothing_of_the_site_hangs_on_a_broker_that_stands_still(shared: Site) -> None:
    def publish(server: Server) -> tuple[int, float]:
        answer = server.get("/publish/?group=still&text=still+page+0")
        return answer.status, json.loads(answer.body)["seconds"]

    with Crowd() as crowd, ThreadPoolExecutor(8) as pool:
        subscribers = open_many(crowd, shared.servers, "/member/?group=still&forward=0", 5)
        for server in shared.servers:
            publish(server)
        before = {server.port: percentile(times(server), 0.99) for server in shared.servers}
        held = {server.port: facts(server) for server in shared.servers}
        seconds_until_noticed(shared.servers, shared.redis.pause)
        try:
            for server in shared.servers:
                status, seconds = publish(server)
                assert status == 503
                assert seconds < 2 * TIMEOUT + 1
                assert server.get("/plain/").status == 200
                during = percentile(times(server), 0.99)
                assert during < max(10 * before[server.port], 0.25), f"{during} instead of {before[server.port]}"

            # Senders and members that wait: from inside views, which have threads of their own.
            for number in range(3):
                sending = [
                    pool.submit(s.ask, f"send still still x {number}", f"failed still x {number}") for s in subscribers
                ]
                for future in sending:
                    future.result()
            joining = []
            for server in shared.servers:
                for _ in range(5):
                    joining.append(server.connect("/member/?group=still&group=new"))
            began = time.monotonic()
            for peer in joining:
                with peer:
                    close = peer.recv_message(timeout=30)
                    assert isinstance(close, Close)
                    assert close.code == 1013
            assert time.monotonic() - began < 10  # JOIN_TIMEOUT is 2, and they wait at the same time

            # No thread or greenlet is left of all that, but for one that connects, and one that probes.
            for server in shared.servers:
                was = held[server.port]
                until(
                    lambda: all(facts(server)[name] <= was[name] + 6 for name in ("threads", "greenlets")),  # noqa: B023
                    f"fewer threads: {facts(server)} and before {was}",
                )
        finally:
            shared.redis.resume()
        for subscriber in subscribers:
            subscriber.wait_for("gap still")
            assert not subscriber.is_over
        for server in shared.servers:
            until(lambda: publish(server)[0] == 200, "a message that is sent")  # noqa: B023
    shared.check_logs(
        r"^ERROR django\.request: .*: /(publish|member)/\n",
    )


# It comes back by itself


def test_broker_that_comes_after_the_servers(tmp_path: Path) -> None:
    with site(tmp_path, JOIN_TIMEOUT=30) as made, Crowd() as crowd:
        made.redis.stop()
        made.relay.refuse()
        servers = made.start(*BOTH)
        waiting = [crowd.add(server, "/member/?group=g&forward=0") for server in servers for _ in range(3)]
        for server in servers:
            server.expect_log("is lost")
            assert server.get("/publish/?group=g&text=g+p+0").status == 503
        made.redis.start()
        made.relay.accept()
        for subscriber in waiting:
            subscriber.wait_for("joined g")
        publisher = made.publisher(["p"], ["g"], count=20)
        publisher.go()
        results = publisher.stop()
        wait_for_last(waiting, results)
        assert_told(waiting, results, at_least=0)
        made.check_logs(r"^\w+ django\.request: Service Unavailable: /publish/\n")


def test_broker_that_wants_another_password_and_then_takes_ours(tmp_path: Path) -> None:
    with site(tmp_path, JOIN_TIMEOUT=30, OPTIONS={"password": "right"}) as made, Crowd() as crowd:
        with made.redis.client() as client:
            client.config_set("requirepass", "right")
        servers = made.start(*BOTH)
        subscribers = open_many(crowd, servers, "/member/?group=g&forward=0", 3)
        made.redis.password = "right"
        with made.redis.client() as client:
            client.config_set("requirepass", "wrong")
            client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        for server in servers:
            server.expect_log("is lost.*")
            server.expect_log("does not accept the user or the password")
        made.redis.password = "wrong"
        with made.redis.client() as client:
            client.config_set("requirepass", "right")
        made.redis.password = "right"
        for subscriber in subscribers:
            subscriber.wait_for("gap g")
        for server in servers:
            assert server.get(f"/publish/?group=g&text=g+{server.port}+0").status == 200
        for subscriber in subscribers:
            for server in servers:
                subscriber.wait_for(f"g {server.port} 0")
        made.check_logs()


def test_outages_one_after_the_other(tmp_path: Path) -> None:
    chance = random.Random(7)
    with site(tmp_path, JOIN_TIMEOUT=30) as made, Crowd() as crowd:
        servers = made.start(*BOTH)
        many = open_many(crowd, servers, "/member-of-many/?prefix=many&count=600", 1)
        for subscriber in many:
            subscriber.wait_for("joined")
        told = open_many(crowd, servers, "/member/?group=a&group=z&forward=0", 5)
        publishers = [made.publisher(["p0"], ["a", "z"], pause_seconds=0.01)]
        publishers.append(made.publisher(["p1"], ["a", "z"], pause_seconds=0.01, is_direct=True))
        for publisher in publishers:
            publisher.go()
        for _ in range(8):
            print(chance_outage(made, chance))
            if chance.random() < 0.5:  # else the next one comes while this one is being mended
                wait_until_it_goes_on(told, publishers)
        assert_all_is_well_in_the_end(told, publishers, servers)
        made.check_logs()
