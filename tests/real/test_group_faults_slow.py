"""Members that do not read: they delay no other, and memory is bounded."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.real.group_checker import GapIn, Message, check, gaps, parse
from tests.real.group_crowd import Crowd, Subscriber, until
from tests.real.group_outages import open_many
from tests.real.group_site import SMALL, Publisher, Result, needs_redis, site
from tests.real.servers import Server

pytestmark = [needs_redis, pytest.mark.faults]

ONE_KIB = 1000
#: What the kernel of a peer that does not read holds.
SMALL_BUFFER = 16 * 1024


def delays(subscribers: list[Subscriber], results: list[Result], since: float) -> list[float]:
    """Seconds from `send()` to the peer, of all messages that were sent from `since` on, in order of size."""
    began = {result.message: result.began for result in results if result.began > since and result.outcome == "ok"}
    found = []
    for subscriber in subscribers:
        for at, text in list(subscriber.log):
            message = parse(text)
            if isinstance(message, Message) and message in began:
                found.append(at - began[message])
    return sorted(found)


def p99(subscribers: list[Subscriber], publisher: Publisher, since: float) -> float:
    found = delays(subscribers, publisher.results(), since)
    return found[int(len(found) * 0.99)]


def rest(subscriber: Subscriber, publisher: Publisher, seconds: float) -> float:
    """Let the publisher go on for a while; when that began."""
    began = publisher.results()[-1].began
    until(lambda: publisher.results()[-1].began > began + seconds, "messages")
    return began


@pytest.mark.parametrize("kind", SMALL)
def test_one_of_two_hundred_that_stops_reading_delays_no_other(tmp_path: Path, kind: str) -> None:
    with site(tmp_path, OUTBOX_BYTES=256 * 1024, OUTBOX_SECONDS=60) as made, Crowd() as crowd:
        (server,) = made.start(SMALL[kind])
        others = open_many(crowd, [server], "/member/?group=g", 199)
        slow = crowd.add(server, "/member/?group=g", "slow", receive_buffer=SMALL_BUFFER)
        publisher = made.publisher(["p"], ["g"], pause_seconds=0.01, size=ONE_KIB)
        publisher.go()
        crowd.read(slow)
        wait_until_it_goes_on_with(slow)
        before = p99(others, publisher, rest(slow, publisher, 1))
        memory = server.resident_mib()
        crowd.pause(slow)
        began = rest(slow, publisher, 1)
        server.expect_log("overflow of g")
        during = p99(others, publisher, began)
        grown = server.resident_mib() - memory
        results = publisher.stop()
        for subscriber in others:
            subscriber.wait_for(f"{results[-1].message} {'x' * ONE_KIB}")
        check({subscriber.name: subscriber.entries() for subscriber in others}, may_have_gaps=False)
        assert during < max(5 * before, 0.5), f"p99 of the others was {during} s, and before {before} s"
        assert grown < 16
        server.expect_log("closed 1013")
        crowd.resume(slow)
        until(lambda: slow.is_over, "the end of the slow one")
        check({"slow": slow.entries()}, may_have_gaps=False)
        made.check_logs()


def wait_until_it_goes_on_with(subscriber: Subscriber) -> None:
    until(lambda: len(subscriber.log) > 10, "messages")


@pytest.mark.parametrize("kind", SMALL)
def test_each_policy_for_members_that_are_too_slow(tmp_path: Path, kind: str) -> None:
    policies = ["close", "drop_new", "drop_oldest", "latest"]
    with site(tmp_path, OUTBOX_BYTES=256 * 1024, OUTBOX_SECONDS=60) as made, Crowd() as crowd:
        (server,) = made.start(SMALL[kind])
        (fast,) = open_many(crowd, [server], "/member/?group=g", 1)
        slow = {
            policy: crowd.add(server, f"/member/?group=g&overflow={policy}", policy, receive_buffer=SMALL_BUFFER)
            for policy in policies
        }
        publisher = made.publisher(["p"], ["g"], pause_seconds=0.001, size=4 * ONE_KIB)
        publisher.go()
        until(lambda: len(publisher.results()) > 100, "messages")
        server.expect_log("overflow of g")
        server.expect_log("closed 1013 too slow")
        until_all_have_dropped(server, publisher)
        results = publisher.stop()
        newest = f"{results[-1].message} {'x' * 4 * ONE_KIB}"
        fast.wait_for(newest)
        for subscriber in slow.values():
            crowd.read(subscriber)
        for policy in ("drop_oldest", "latest"):
            slow[policy].wait_for(newest)
        until(lambda: slow["close"].is_over, "the end of the one that is closed")
        fast.ask("send g g fin 0", "sent g fin 0")
        for policy in policies[1:]:
            slow[policy].wait_for("g fin 0")
        assert not slow["drop_new"].has(newest)
        check({policy: slow[policy].entries() for policy in ("close",)}, may_have_gaps=False)
        for policy in policies:
            numbers = [entry.n for entry in slow[policy].entries() if isinstance(entry, Message)][:-1]
            assert numbers == sorted(set(numbers)), f"{policy}: doubled, or out of order"
            assert len(numbers) < len(results)
        made.check_logs()


def until_all_have_dropped(server: Server, publisher: Publisher) -> None:
    """Let so many messages follow that each of the slow ones has no place for one more."""
    count = len(publisher.results())
    until(lambda: len(publisher.results()) > count + 300, "messages")


def test_view_that_is_too_slow_gets_a_gap(tmp_path: Path) -> None:
    """Its peer does not read, so that the view waits in `send()`; what waits for the view is bounded as well."""
    with site(tmp_path, OUTBOX_BYTES=64 * 1024, OUTBOX_SECONDS=60) as made, Crowd() as crowd:
        servers = made.start(*SMALL.values())
        slow = [
            crowd.add(server, f"/member/?group=g&forward=0&overflow={policy}", policy, receive_buffer=SMALL_BUFFER)
            for server in servers
            for policy in ("drop_new", "drop_oldest")
        ]
        publisher = made.publisher(["p"], ["g"], pause_seconds=0.001, size=ONE_KIB)
        publisher.go()
        for server in servers:
            for _ in range(2):
                server.expect_log("overflow of g")
        until_all_have_dropped(servers[0], publisher)
        for subscriber in slow:
            crowd.read(subscriber)
        for subscriber in slow:
            subscriber.wait_for("gap g")
        results = publisher.stop()
        for server in servers:
            server.get("/publish/?group=g&text=g+fin+0")
        for subscriber in slow:
            subscriber.wait_for("g fin 0")
            check({subscriber.name: [e for e in subscriber.entries() if not is_fin(e)]})
            assert gaps(subscriber.entries())
        assert results
        made.check_logs()


def is_fin(entry: Message | GapIn) -> bool:
    return isinstance(entry, Message) and entry.publisher == "fin"


@pytest.mark.parametrize("kind", SMALL)
def test_peer_that_takes_a_byte_now_and_then_is_too_slow_all_the_same(tmp_path: Path, kind: str) -> None:
    with site(tmp_path, OUTBOX_BYTES=64 * 1024 * 1024, OUTBOX_SECONDS=1) as made, Crowd() as crowd:
        (server,) = made.start(SMALL[kind])
        (other,) = open_many(crowd, [server], "/member/?group=g", 1)
        slow = crowd.add(server, "/member/?group=g", "slow", receive_buffer=SMALL_BUFFER)
        publisher = made.publisher(["p"], ["g"], pause_seconds=0.005, size=20 * ONE_KIB)
        is_over = threading.Event()

        def nibble() -> None:
            while not is_over.wait(0.2) and slow.peer.sock.recv(1):
                pass

        nibbling = threading.Thread(target=nibble)
        nibbling.start()
        try:
            publisher.go()
            server.expect_log("closed 1013 too slow")
        finally:
            is_over.set()
            nibbling.join()
        results = publisher.stop()
        other.wait_for(f"{results[-1].message} {'x' * 20 * ONE_KIB}")
        check({"other": other.entries()}, may_have_gaps=False)
        made.check_logs()


@pytest.mark.parametrize("kind", SMALL)
def test_message_in_chunks_delays_no_other_member_and_is_not_broken_into(tmp_path: Path, kind: str) -> None:
    with site(tmp_path) as made, Crowd() as crowd:
        (server,) = made.start(SMALL[kind])
        (other,) = open_many(crowd, [server], "/member/?group=g", 1)
        with server.connect("/member-in-chunks/?group=g&chunks=20&seconds=0.05") as peer:
            assert peer.recv_message() == "joined"
            peer.send_message("go")
            assert not peer.recv_frame().fin  # the message has begun
            for n in range(20):
                assert server.get(f"/publish/?group=g&text=g+p+{n}").status == 200
                other.wait_for(f"g p {n}", seconds=10)
            while not (frame := peer.recv_frame()).fin:  # nothing else is between the parts of the message
                assert frame.payload in (b"c", b"")
            answers = [peer.recv_message() for _ in range(20)]
            assert answers == [f"g p {n}" for n in range(20)]
            peer.send_message("over")
            assert peer.recv_message() == "over"
        made.check_logs()
