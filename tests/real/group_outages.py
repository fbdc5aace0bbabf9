"""Outages of every kind, and what all of them must come to: noticed, told, over."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.real.group_checker import check, gaps, has_end
from tests.real.group_crowd import Crowd, Subscriber, until
from tests.real.group_pages import Pages
from tests.real.group_site import Publisher, Result, Site, last, unsure
from tests.real.servers import Server

NOTICED = r"groups 'default': redis(?:\+sentinel)?://\S+ is lost"


def open_many(crowd: Crowd, servers: Sequence[Server], path: str, count: int) -> list[Subscriber]:
    """Open `count` on each server, several at a time; each has joined the groups of `path`."""

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


def wait_for_last(subscribers: Sequence[Subscriber], results: Sequence[Result]) -> None:
    """Return when each subscriber has the last message of each stream, or a Gap where it was."""
    for subscriber in subscribers:
        for stream, n in last(results).items():
            until(
                lambda: has_end(subscriber.entries(), stream, n),  # noqa: B023
                f"{stream} {n} at {subscriber.name}",
            )


def wait_until_it_goes_on(subscribers: Sequence[Subscriber], publishers: Sequence[Publisher]) -> None:
    """Return when each subscriber has a message that was sent from now on."""
    now = time.monotonic()

    def all_have() -> bool:
        fresh = {str(r.message) for p in publishers for r in p.results() if r.began > now and r.outcome == "ok"}
        return bool(fresh) and all(
            any(entry.text in fresh for entry in subscriber.log[-200:]) for subscriber in subscribers
        )

    until(all_have, "messages after the outage", 60)


def assert_told(subscribers: Sequence[Subscriber], results: Sequence[Result], at_least: int = 1) -> None:
    """Each subscriber has all, or a Gap where something is missing."""
    logs = {subscriber.name: subscriber.entries() for subscriber in subscribers}
    check(logs, unsure=unsure(results), last=last(results))
    for name, log in logs.items():
        assert gaps(log) >= at_least, f"{name} has {gaps(log)} gaps"


def seconds_until_noticed(servers: Sequence[Server], fault: Callable[[], None]) -> float:
    """Let `fault` come, and return how long the slowest server took to say so."""
    began = time.monotonic()
    fault()
    for server in servers:
        server.expect_log(NOTICED)
    return time.monotonic() - began


def chance_outage(site: Site, chance: random.Random) -> str:
    """Let one outage of a random kind and length come and go; what it was."""
    seconds = chance.choice([0.0, 0.05, 0.3]) + chance.random() * chance.choice([0.0, 0.2, 3.0])
    relay, redis = site.relay, site.redis

    def kill() -> None:
        redis.kill()
        time.sleep(seconds)
        redis.start()

    def stop() -> None:
        redis.pause()
        time.sleep(seconds)
        redis.resume()

    def refuse() -> None:
        relay.refuse()
        time.sleep(seconds)
        relay.accept()

    def hold(*ways: object) -> None:
        relay.hold(*ways)  # type: ignore[arg-type]
        time.sleep(seconds)
        if chance.random() < 0.5:
            relay.cut()
        relay.go_on()

    def cut_twice() -> None:
        """Again, while the groups are being subscribed."""
        relay.trickle(relay.up, 200, 0.01)
        relay.cut()
        time.sleep(seconds / 4)
        relay.cut()
        relay.trickle(relay.up, 0, 0)

    def kill_subscribers() -> None:
        with redis.client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")

    kinds: dict[str, Callable[[], None]] = {
        "kill -9": kill,
        "SIGSTOP": stop,
        "refuse": refuse,
        "hold": hold,
        "hold up": lambda: hold(relay.up),
        "hold down": lambda: hold(relay.down),
        "cut": relay.cut,
        "cut twice": cut_twice,
        "half-close up": lambda: relay.half_close(relay.up),
        "half-close down": lambda: relay.half_close(relay.down),
        "CLIENT KILL": kill_subscribers,
    }
    kind = chance.choice(sorted(kinds))
    kinds[kind]()
    return f"{kind} {seconds:.2f} s"


# Many groups

CHUNK = 512  # groups in one SUBSCRIBE


def subscribe_commands(site: Site) -> int:
    with site.redis.client() as client:
        calls: int = client.info("commandstats").get("cmdstat_subscribe", {"calls": 0})["calls"]
    return calls


def join_come_back_and_leave(made: Site, crowd: Crowd, server: Server, count: int) -> None:
    """One process with so many groups: after an outage they come back in few commands, and they leave Redis."""
    with ThreadPoolExecutor(8) as pool:
        paths = [f"/member-of-many/?prefix=many{number}&count=100" for number in range(count // 100)]
        members = list(pool.map(lambda path: crowd.add(server, path), paths))
    for member in members:
        member.wait_for("joined", seconds=120)
    with made.redis.client() as client:
        names = [f"dws:g:many{number}.{within}" for number in range(count // 100) for within in range(100)]
        assert {number for _, number in client.pubsub_numsub(*names)} == {1}
        client.config_resetstat()
        made.relay.cut()
        server.expect_log("is back after")
        # Ours for the probes, and one for the orders to all processes, which is in the chunks.
        assert subscribe_commands(made) <= math.ceil((count + 1) / CHUNK) + 1
        for number, member in enumerate(members):
            assert server.get(f"/publish/?group=many{number}.99&text=many{number}.99+p+0").status == 200
            member.wait_for(f"many{number}.99 p 0")
        for member in members:
            member.ask("leave", "leave", 120)
        until(lambda: not any(number for _, number in client.pubsub_numsub(*names)), "the end of all subscriptions")
    made.check_logs()


def assert_all_is_well_in_the_end(
    told: Sequence[Subscriber], publishers: Sequence[Publisher], servers: Sequence[Server]
) -> list[Result]:
    """Nothing is unaccounted for, and each server reaches all again. The results of the publishers, which end."""
    wait_until_it_goes_on(told, publishers)
    results = [result for publisher in publishers for result in publisher.stop()]
    wait_for_last(told, results)
    assert_told(told, results)
    for server in servers:
        server.get(f"/publish/?group=a&text=a+{server.port}+0")
        for subscriber in told:
            subscriber.wait_for(f"a {server.port} 0")
    return results


# A fleet that comes back

READS = ("evalsha", "eval")


def scripts(made: Site) -> int:
    """The scripts that Redis was asked for: the reads of histories, where no process publishes, and marks."""
    with made.redis.client() as client:
        found = client.info("commandstats")
    return sum(found.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in READS)


def fleet_comes_back(
    made: Site, crowd: Crowd, servers: Sequence[Server], count: int, groups: Sequence[str]
) -> tuple[int, float]:
    """So many pages for each server go, and come back at once with what they had: the scripts, and the seconds.

    They go while messages are sent, so each has missed another number of them.
    """
    with Pages(crowd, servers, random.Random(8)) as pages:
        for group in groups:
            pages.open(count * len(servers) // len(groups), [group])
        publisher = made.publisher(["p"], groups, pause_seconds=0.002, is_direct=True)
        publisher.go()
        for at, page in enumerate(pages.all):
            page.go("end")
            if at % (len(pages.all) // 100) == 0:
                time.sleep(0.02)
        results = publisher.stop()
        assert not unsure(results)
        ends = {result.message.group: result.position for result in results}
        with made.redis.client() as client:
            client.config_resetstat()
        began = time.monotonic()
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda at: pages.all[at].come(servers[at % len(servers)]), range(len(pages.all))))
        for page in pages.all:
            (group,) = page.groups
            until(
                lambda: str(page.position(group)) == ends[group],  # noqa: B023
                f"{ends[group]} at {page.name}, which is at {page.position(group)}",
                120,
            )
        seconds, asked = time.monotonic() - began, scripts(made)
        pages.check(results, may_lose=False)
        missed = [len(page.present().texts) - 1 for page in pages.all]
        print(f"{len(pages.all)} pages came back, and missed {min(missed)} to {max(missed)} messages;", end=" ")
        print(f"they had all after {seconds:.1f} s, and {asked} scripts for {len(groups)} groups")
        return asked, seconds
