"""What has arrived is written to the members: in order, in one send for each, without waiting for any of them."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator
from typing import Any, cast

import gevent
import pytest

from dwebsocket.connection.limits import CLOSED, NOT_OPEN, Bound
from dwebsocket.groups import lane as lanes
from dwebsocket.groups import page
from dwebsocket.groups.audience import Audience, Entrance, Host, Kind, Member
from dwebsocket.groups.backend import Kept
from dwebsocket.groups.lane import Lane
from dwebsocket.groups.messages import CLOSE, GAP, Envelope
from dwebsocket.groups.node import websocket_id
from dwebsocket.websocket import GroupMessage
from tests.groups.lanes import FORWARDED, Fleet, Offered, WebSocketOf, frame, kind, offers, received, text
from tests.links import Home, Hub, Threads

CHOOSY = ["drop_oldest", "latest"]


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


def frames(*messages: str) -> bytes:
    return b"".join(map(frame, messages))


# One burst, one send


def test_burst_leaves_in_one_send_for_each_member(fleet: Fleet) -> None:
    members = [fleet.join("a") for _ in range(3)]
    fleet.send("a", "1", "2", "3")
    fleet.run()
    for member in members:
        assert [(data, count) for data, count, *_ in offers(member)] == [(frames("1", "2", "3"), 3)]
    assert len({id(offers(member)[0][0]) for member in members}) == 1, "one bytes for all"


def test_messages_that_come_later_are_another_burst(fleet: Fleet) -> None:
    member = fleet.join("a")
    for message in ("1", "2"):
        fleet.send("a", message)
        fleet.run()
    fleet.run()
    assert [data for data, *_ in offers(member)] == [frame("1"), frame("2")]


def test_member_that_joins_behind_a_message_does_not_get_it_by_another_group(fleet: Fleet) -> None:
    fleet.join("a")
    fleet.send("a", "1")
    member = fleet.join("b")
    fleet.send("b", "2")
    fleet.run()
    assert received(member) == frame("2")


def test_burst_over_several_groups_is_one_send_too_in_the_order_of_arrival(fleet: Fleet) -> None:
    websocket = fleet.websocket()
    websocket.is_in_several = True
    fleet.join("a", websocket)
    fleet.join("b", websocket)
    only = fleet.join("b")
    fleet.send("a", "1")
    fleet.send("b", "2")
    fleet.send("a", "3")
    fleet.send("b", "4")
    fleet.run()
    assert [(data, count) for data, count, *_ in websocket.connection.offers] == [(frames("1", "2", "3", "4"), 4)]
    assert [(data, count) for data, count, *_ in offers(only)] == [(frames("2", "4"), 2)]


def test_sender_that_is_excluded_gets_all_but_its_own(fleet: Fleet) -> None:
    one, two = fleet.join("a"), fleet.join("a")
    fleet.send("a", "1")
    fleet.put("a", text("of one", exclude=websocket_id(one.owner.number)))
    fleet.put("a", text("of another process", exclude=b"else:%d" % one.owner.number))
    fleet.send("a", "4")
    fleet.run()
    assert [(data, count) for data, count, *_ in offers(one)] == [(frames("1", "of another process", "4"), 3)]
    assert received(two) == frames("1", "of one", "of another process", "4")


def test_excluded_from_all_gets_nothing(fleet: Fleet) -> None:
    one = fleet.join("a")
    fleet.put("a", text("1", exclude=websocket_id(one.owner.number)))
    fleet.run()
    assert offers(one) == []


def test_thousand_messages_are_a_burst_and_more_are_two(fleet: Fleet) -> None:
    member = fleet.join("a")
    fleet.send("a", *map(str, range(1500)))
    fleet.run()
    assert [count for _, count, *_ in offers(member)] == [1000, 500]
    assert received(member) == frames(*map(str, range(1500)))


def test_burst_of_large_messages_is_bounded_in_bytes(fleet: Fleet) -> None:
    """For a peer that does not read, all of a burst may have to wait in its outbox, whatever OUTBOX_BYTES says."""
    one, both = fleet.join("a"), fleet.websocket()
    both.is_in_several = True
    fleet.join("a", both)
    fleet.join("b", both)
    large = "x" * 100_000
    for _ in range(10):
        fleet.send("a", large)
        fleet.send("b", large)
    fleet.run()
    assert received(one) == frames(*[large] * 10)
    assert both.connection.received == frames(*[large] * 20)
    assert max(len(data) for data, *_ in [*offers(one), *both.connection.offers]) < 400_000


def test_worker_lets_others_run_between_members(fleet: Fleet) -> None:
    for _ in range(1000):
        fleet.join("a")
    fleet.send("a", "1")
    fleet.run()
    assert fleet.reactor.breaths >= 1000 // 64


# Members that are choosy


@pytest.mark.parametrize("overflow", CHOOSY)
def test_choosy_member_gets_a_burst_in_one_send_where_nothing_waits(fleet: Fleet, overflow: str) -> None:
    member = fleet.join("a", kind=kind(overflow=overflow))
    fleet.send("a", "1", "2")
    fleet.run()
    [(data, count, bound, _)] = offers(member)
    assert (data, count) == (frames("1", "2"), 2)
    assert (bound.max_bytes, bound.max_seconds) == (0, 0), "only where nothing waits"


@pytest.mark.parametrize("overflow", CHOOSY)
def test_choosy_member_for_which_something_waits_gets_them_one_by_one(fleet: Fleet, overflow: str) -> None:
    chosen = kind(overflow=overflow, max_bytes=100)
    member = fleet.join("a", kind=chosen)
    cast(Offered, member.connection).answers = [2]  # both would be dropped
    fleet.put("a", text("1", key=b"x"))
    fleet.put("a", text("2", key=b"y"))
    fleet.run()
    assert offers(member)[1:] == [
        (frame("1"), 1, chosen.bound, "a\0x"),
        (frame("2"), 1, chosen.bound, "a\0y"),
    ]


@pytest.mark.parametrize("overflow", ["close", "drop_new", *CHOOSY])
def test_single_message_comes_with_its_key_and_bound(fleet: Fleet, overflow: str) -> None:
    chosen = kind(overflow=overflow)
    member = fleet.join("a", kind=chosen)
    fleet.put("a", text("1", key=b"x"))
    fleet.run()
    assert offers(member) == [(frame("1"), 1, chosen.bound, "a\0x")]


# Views


def test_view_gets_its_messages_and_is_woken_once(fleet: Fleet) -> None:
    member = fleet.join("a", kind=kind(forward=False))
    owner = cast(WebSocketOf, member.owner)
    fleet.send("a", "1", "2", "3")
    fleet.run()
    assert (owner.events, offers(member), owner.connection.notifications) == (["1", "2", "3"], [], 1)


def test_peer_and_view_of_one_websocket_get_each_their_own(fleet: Fleet) -> None:
    websocket = fleet.websocket()
    websocket.is_in_several = True
    fleet.join("a", websocket)
    fleet.join("b", websocket, kind(forward=False))
    fleet.send("a", "1")
    fleet.send("b", "2")
    fleet.send("a", "3")
    fleet.run()
    assert (websocket.connection.received, websocket.events) == (frames("1", "3"), ["2"])
    assert websocket.connection.notifications == 1


def test_gap_is_told_to_views_alone_and_in_its_place(fleet: Fleet) -> None:
    peer, view = fleet.join("a"), fleet.join("a", kind=kind(forward=False))
    fleet.send("a", "1")
    fleet.put("a", Envelope(GAP, b""))
    fleet.send("a", "2")
    fleet.run()
    assert cast(WebSocketOf, view.owner).events == ["1", None, "2"]
    assert received(peer) == frames("1", "2")


# Leaving


def test_member_that_has_left_gets_nothing_that_was_queued_before(fleet: Fleet) -> None:
    member, other = fleet.join("a"), fleet.join("a")
    fleet.send("a", "1")
    assert fleet.lane.leave(member)
    assert not fleet.lane.leave(member)
    fleet.run()
    assert (received(member), received(other)) == (b"", frame("1"))


def test_members_may_leave_while_others_are_served(fleet: Fleet) -> None:
    members = [fleet.join("a") for _ in range(200)]

    def leave() -> None:
        for member in members:
            if not offers(member):
                fleet.lane.leave(member)

    fleet.reactor.on_breath = leave
    fleet.send("a", "1")
    fleet.run()
    assert [len(offers(member)) for member in members] == [1] * 64 + [0] * 136


def test_member_of_several_groups_that_leaves_one_gets_the_rest_of_the_other(fleet: Fleet) -> None:
    """What was gathered for it is looked at again when its turn has come."""
    websocket = fleet.websocket()
    websocket.is_in_several = True
    first = fleet.join("a", websocket)
    fleet.join("b", websocket)
    fleet.reactor.on_breath = lambda: fleet.lane.leave(first)
    fleet.send("a", "1")
    fleet.send("b", "2")
    fleet.run()
    assert websocket.connection.received == frame("2")


def test_members_may_join_while_others_are_served(fleet: Fleet) -> None:
    for _ in range(100):
        fleet.join("a")
    late: list[Member] = []
    fleet.reactor.on_breath = lambda: late.append(fleet.join("a"))
    fleet.send("a", "1")
    fleet.run()
    fleet.reactor.on_breath = lambda: None
    fleet.send("a", "2")
    fleet.run()
    assert late
    assert {received(member) for member in late} == {frame("2")}


def test_member_that_has_changed_gets_the_next_message_in_the_new_way(fleet: Fleet) -> None:
    member = fleet.join("a")
    fleet.send("a", "1")
    fleet.run()
    fleet.lane.change(member, kind(forward=False))
    fleet.send("a", "2")
    fleet.run()
    assert (received(member), cast(WebSocketOf, member.owner).events) == (frame("1"), ["2"])
    fleet.lane.leave(member)
    fleet.lane.change(member, FORWARDED)
    fleet.send("a", "3")
    fleet.run()
    assert received(member) == frame("1")
    assert not fleet.audiences["a"]


# The end of members


def test_close_comes_behind_what_was_sent_before_and_ahead_of_the_rest(fleet: Fleet) -> None:
    member, view = fleet.join("a"), fleet.join("a", kind=kind(forward=False))
    fleet.send("a", "1", "2")
    fleet.put("a", Envelope(CLOSE, b"4403 out"))
    fleet.send("a", "3")
    fleet.run()
    assert cast(Offered, member.connection).log == [frames("1", "2"), (4403, "out"), frame("3")]
    assert cast(WebSocketOf, view.owner).events == ["1", "2", "3"]
    assert cast(Offered, view.connection).closes == [(4403, "out")]


def test_close_of_one_group_keeps_the_order_of_the_others(fleet: Fleet) -> None:
    websocket = fleet.websocket()
    websocket.is_in_several = True
    fleet.join("a", websocket)
    fleet.join("b", websocket)
    fleet.send("a", "1")
    fleet.put("b", Envelope(CLOSE, b"4000 "))
    fleet.send("a", "2")
    fleet.run()
    assert websocket.connection.log == [frame("1"), (4000, ""), frame("2")]


def test_member_that_has_left_while_others_are_closed_stays_open(fleet: Fleet) -> None:
    one, two = fleet.join("a"), fleet.join("a")
    fleet.reactor.on_breath = lambda: fleet.lane.leave(two)
    fleet.put("a", Envelope(CLOSE, b"4403 "))
    fleet.run()
    assert cast(Offered, one.connection).closes == [(4403, "")]
    assert cast(Offered, two.connection).closes == []


# Slow members


def test_members_that_are_too_slow_are_told_of_together(fleet: Fleet) -> None:
    dropped, closed, gone, fine = (fleet.join("a") for _ in range(4))
    for member, answer in ((dropped, 3), (closed, CLOSED), (gone, NOT_OPEN), (fine, 0)):
        cast(Offered, member.connection).answers = [answer]
    fleet.send("a", "1")
    fleet.run()
    assert fleet.overflowed == [[dropped, closed]]
    fleet.send("a", "2")
    fleet.run()
    assert len(fleet.overflowed) == 1


def test_view_that_is_too_slow_is_told_of(fleet: Fleet) -> None:
    member = fleet.join("a", kind=kind(forward=False))
    cast(WebSocketOf, member.owner).answer = 1
    fleet.send("a", "1")
    fleet.run()
    assert fleet.overflowed == [[member]]


# The queue


def small_queue(monkeypatch: pytest.MonkeyPatch, messages: int) -> None:
    monkeypatch.setattr(lanes, "_MAX_QUEUED_BYTES", messages * 101)  # a message of one byte takes 101


def test_what_does_not_fit_is_a_gap_and_one_warning(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    small_queue(monkeypatch, 4)
    view, other = fleet.join("a", kind=kind(forward=False)), fleet.join("b", kind=kind(forward=False))
    for turn in range(2):
        caplog.clear()
        fleet.send("a", *"1234567")
        fleet.send("b", "1")
        fleet.run()
        assert cast(WebSocketOf, view.owner).events == [*"1234", None] * (turn + 1)
        assert cast(WebSocketOf, other.owner).events == [None] * (turn + 1)
        assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2, "one for each group"
        assert "to the group 'a' come faster than they can be written" in caplog.text
    assert fleet.lane.dropped == 8


def test_hole_of_a_full_queue_is_told_at_its_end(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short message that fits again would cut it in two, of which one is told."""
    small_queue(monkeypatch, 4)
    view = fleet.join("a", kind=kind(forward=False))
    fleet.send("a", "1", "x" * 300, "2")
    fleet.send("a", "x" * 300)
    fleet.run()
    fleet.send("a", "3")
    fleet.run()
    assert cast(WebSocketOf, view.owner).events == ["1", None, "3"]


def test_close_is_never_dropped(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    small_queue(monkeypatch, 2)
    member = fleet.join("a")
    fleet.send("a", *"1234")
    fleet.put("a", Envelope(CLOSE, b"4403 "))
    fleet.run()
    assert cast(Offered, member.connection).closes == [(4403, "")]


def test_sender_waits_until_half_of_the_queue_is_empty(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    small_queue(monkeypatch, 4)
    fleet.join("a")
    assert fleet.lane.reserve(0, 0)
    fleet.send("a", *"12")
    assert fleet.lane.reserve(0, 0), "half of it"
    fleet.send("a", "3")
    wakes = fleet.reactor.wakes
    assert not fleet.lane.reserve(0, 0.001)
    assert fleet.reactor.wakes == wakes + 1, "a worker that sleeps would never make place"
    results: list[bool] = []
    sender = threading.Thread(target=lambda: results.append(fleet.lane.reserve(0, 10)))
    sender.start()
    while len(fleet.lane._waiting) < 2:
        time.sleep(0.001)
    began = time.monotonic()
    fleet.run()
    sender.join()
    assert results == [True]
    assert time.monotonic() - began < 5
    assert fleet.lane._waiting == []


def test_sender_that_begins_to_wait_when_the_worker_has_just_emptied_the_queue_goes_on(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_queue(monkeypatch, 4)
    fleet.join("a")
    fleet.send("a", *"1234")
    latch = fleet.reactor.latch

    def run_first() -> threading.Event:
        fleet.run()
        return latch()

    monkeypatch.setattr(fleet.reactor, "latch", run_first)
    began = time.monotonic()
    assert fleet.lane.reserve(0, 10)
    assert time.monotonic() - began < 5


# Errands


def test_errand_waits_for_no_stream_of_messages_to_end(fleet: Fleet) -> None:
    member, slow = fleet.join("a"), fleet.join("a")
    ran: list[int] = []
    cast(Offered, slow.connection).answers = [1]

    def go_on() -> None:
        count = len(offers(member))
        if count == 1:
            fleet.lane.soon(lambda: ran.append(len(offers(member))))
        if count < 50:
            fleet.send("a", "again")  # there is always one more

    cast(Offered, member.connection).on_offer = go_on
    fleet.send("a", "1")
    fleet.run()
    assert len(offers(member)) == 51
    assert ran == [2]
    assert fleet.overflowed == [[slow]]


def test_errands_run_although_no_message_comes(fleet: Fleet) -> None:
    ran: list[str] = []
    fleet.lane.soon(lambda: ran.append("one"))
    fleet.lane.soon(lambda: ran.append("two"))
    assert fleet.reactor.wakes == 2
    fleet.run()
    assert ran == ["one", "two"]


# On a reactor


class Busy(Offered):
    """A connection whose offers take a while, as system calls do."""

    def offer(self, *arguments: Any) -> int:
        began = time.perf_counter()
        while time.perf_counter() - began < 0.0001:
            pass
        return 0


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    yield hub
    hub.stop()


def test_two_thousand_members_do_not_keep_others_from_running(hub: Hub) -> None:
    """A greenlet that wants to run all the time runs many times meanwhile; threads run side by side anyway."""
    done, turns = gevent.event.Event(), list[float]()

    def fan_out() -> float:
        lane = Lane(hub.reactor, lambda members: None)
        audience = Audience("a", cast(Host, None))
        for number in range(2000):
            websocket = WebSocketOf(number, Busy(cast(Any, None)))
            lane.enter(Member(websocket, audience, cast(Any, websocket.connection), FORWARDED))
        lane.put(audience, text("1"))
        lane.soon(lambda: None)
        lane.put(audience, text("2"))
        last = WebSocketOf(2001, Offered(cast(Any, None)))
        last.connection.on_offer = lambda: done.set()
        lane.enter(Member(last, audience, cast(Any, last.connection), FORWARDED))
        began = time.perf_counter()
        lane.wake()
        while not done.is_set():
            before = time.perf_counter()
            gevent.sleep(0)
            turns.append(time.perf_counter() - before)
        return time.perf_counter() - began

    seconds = hub.do(fan_out)
    assert len(turns) >= 5
    assert max(turns) < seconds / 2


@pytest.mark.parametrize("senders", [1, 8])
def test_members_on_a_reactor_see_the_order_in_which_messages_were_queued(home: Home, senders: int) -> None:
    lane = Lane(home.reactor, lambda members: None)
    audience = Audience("a", cast(Host, None))
    websockets = [WebSocketOf(number, Offered(cast(Any, None))) for number in range(3)]
    for websocket in websockets:
        lane.enter(Member(websocket, audience, cast(Any, websocket.connection), FORWARDED))

    def send(name: int) -> None:
        for number in range(200):
            lane.put(audience, text(f"{name}:{number}"))
            lane.wake()

    threads = [threading.Thread(target=send, args=(name,)) for name in range(senders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done = threading.Event()
    for _ in range(2):
        done.clear()
        lane.soon(done.set)
        assert done.wait(10)
    logs = [websocket.connection.received for websocket in websockets]
    assert logs[1:] == logs[:1] * 2
    assert sum(count for _, count, *_ in websockets[0].connection.offers) == 200 * senders
    for name in range(senders):
        places = [logs[0].index(frame(f"{name}:{number}")) for number in range(200)]
        assert places == sorted(places)


@pytest.mark.parametrize("waits_at_home", [True, False])
def test_sender_waits_for_place_wherever_it_runs(
    home: Home, monkeypatch: pytest.MonkeyPatch, waits_at_home: bool
) -> None:
    """The sender may be a view of the reactor, or a thread that has nothing to do with it."""
    small_queue(monkeypatch, 4)
    lane = Lane(home.reactor, lambda members: None)
    audience = Audience("a", cast(Host, None))
    websocket = WebSocketOf(1, Offered(cast(Any, None)))
    lane.enter(Member(websocket, audience, cast(Any, websocket.connection), FORWARDED))
    begins, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        begins.set()
        while not go_on.is_set():
            home.pause(0.001)

    lane.soon(hold)
    assert begins.wait(10)
    for number in range(4):
        lane.put(audience, text(str(number)))
    assert not (home if waits_at_home else Threads()).do(lane.reserve, 0, 0.001)
    waiting = (home if waits_at_home else Threads()).start(lane.reserve, 0, 30)
    while len(lane._waiting) < 2:
        time.sleep(0.001)
    began = time.monotonic()
    go_on.set()
    assert waiting.result(30)
    assert time.monotonic() - began < 10
    assert websocket.connection.received == frames(*"0123")


# Entrances


class HostOf:
    """The dispatcher of the audience."""

    alias = "default"

    def __init__(self, *, closes_on_gap: bool = True) -> None:
        self.closes_on_gap = closes_on_gap


def at(offset: int, message: str = "") -> Envelope:
    return text(message or str(offset))._replace(position=f"e-{offset}")


def kept(*offsets: int) -> list[Kept]:
    return [Kept(offset, text(str(offset)).serialize()) for offset in offsets]


class Door:
    """A group with a history, and members that come in."""

    def __init__(self, fleet: Fleet, *, closes_on_gap: bool = True) -> None:
        self.fleet = fleet
        self.audience = Audience("a", cast(Host, HostOf(closes_on_gap=closes_on_gap)))
        fleet.audiences["a"] = self.audience
        self.done: list[Member] = []

    def expect(self, kind: Kind = FORWARDED) -> Member:
        websocket = self.fleet.websocket()
        member = Member(websocket, self.audience, cast(Any, websocket.connection), kind)
        self.fleet.lane.expect(member)
        return member

    def let_in(self, member: Member, *missed: int, kind: Kind = FORWARDED, note: str | None = None) -> None:
        entrance = Entrance(member, kind, note, "e", kept(*missed), lambda: self.done.append(member))
        self.fleet.lane.put(self.audience, entrance)

    def put(self, *envelopes: Envelope) -> None:
        for envelope in envelopes:
            self.fleet.lane.put(self.audience, envelope)


@pytest.fixture
def door(fleet: Fleet) -> Door:
    return Door(fleet)


def test_member_gets_what_it_missed_and_then_what_stands_behind_its_entrance(fleet: Fleet, door: Door) -> None:
    other, member = fleet.join("a"), door.expect()
    door.put(at(3))
    door.let_in(member, 1, 2, 3)
    door.put(at(4))
    fleet.run()
    assert received(member) == frames(*"1234")
    assert offers(member)[0][:2] == (frames(*"123"), 3), "in one send"
    assert received(other) == frames(*"34")
    assert door.done == [member]


def test_place_is_held_for_a_member_that_gets_nothing_yet(fleet: Fleet, door: Door) -> None:
    member = door.expect()
    assert door.audience
    assert door.audience.kinds() == []
    door.put(at(1))
    fleet.run()
    assert offers(member) == []
    assert fleet.lane.leave(member)
    assert not door.audience


@pytest.mark.parametrize("ends", ["before", "between"])
def test_member_that_has_left_does_not_come_in(fleet: Fleet, door: Door, ends: str) -> None:
    member = door.expect()
    if ends == "before":
        assert fleet.lane.leave(member)
    door.let_in(member, 1)
    if ends == "between":
        assert fleet.lane.leave(member)
    door.put(at(2))
    fleet.run()
    assert offers(member) == []
    assert door.done == [member], "none waits for it in vain"
    assert not door.audience


def test_member_that_is_in_comes_in_again_in_another_way(fleet: Fleet, door: Door) -> None:
    member = door.expect()
    door.let_in(member)
    door.put(at(1))
    door.let_in(member, 1, kind=kind(forward=False))
    door.put(at(2))
    fleet.run()
    assert received(member) == frame("1")
    assert cast(WebSocketOf, member.owner).events == ["1", "2"]
    assert [members for _, members in door.audience.kinds()] == [(member,)]


def test_connection_that_is_closed_when_it_comes_in_ends_no_lane(fleet: Fleet, door: Door) -> None:
    closed, other = door.expect(), door.expect()
    cast(Offered, closed.connection).answers = [NOT_OPEN, NOT_OPEN, NOT_OPEN]
    door.let_in(closed, 1, 2)
    door.let_in(other, 1, 2)
    fleet.run()
    assert received(other) == frames("1", "2")
    assert door.done == [closed, other]
    assert fleet.overflowed == []


def test_note_comes_first_and_messages_with_their_positions(fleet: Fleet, door: Door) -> None:
    member = door.expect()
    door.let_in(member, 1, 2, kind=kind(translate=page.envelope), note=page.joined("a", "e-0", True))
    door.put(at(3))
    fleet.run()
    assert received(member) == frames(
        '{"g":"a","p":"e-0","joined":true}',
        *(page.envelope(GroupMessage("a", str(number), f"e-{number}")) for number in (1, 2, 3)),
    )


@pytest.mark.parametrize("overflow", ["drop_new", "drop_oldest", "latest"])
def test_what_a_member_has_missed_is_not_dropped_because_something_waits(
    fleet: Fleet, door: Door, overflow: str
) -> None:
    """The page is told that it has recovered all."""
    chosen = kind(overflow=overflow)
    member = door.expect(chosen)
    cast(Offered, member.connection).answers = [1]  # something waits: it must not be taken together
    door.let_in(member, 1, 2, kind=chosen, note="joined")
    fleet.run()
    assert [bound for _, _, bound, _ in offers(member)[1:]] == [Bound(overflow="close", max_seconds=math.inf)] * 3
    fleet.lane.put(door.audience, text("3"))
    fleet.run()
    assert offers(member)[-1][2] == chosen.bound


def test_message_that_many_have_missed_is_translated_once(fleet: Fleet, door: Door) -> None:
    calls: list[str | None] = []

    def translate(message: GroupMessage) -> str | None:
        calls.append(message.position)
        return None if message.data == "2" else f"<{message.data!s}>"

    chosen = kind(translate=translate)
    members = [door.expect(chosen) for _ in range(20)]
    for number, member in enumerate(members):
        door.let_in(member, *[2, 3, 4][number % 2 :], kind=chosen)
        if number % 3 == 0:
            fleet.run()
    fleet.run()
    assert sorted(calls, key=str) == ["e-2", "e-3", "e-4"]
    assert {received(member) for member in members} == {frames("<3>", "<4>")}


def test_what_is_recalled_is_bounded(fleet: Fleet, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "_MAX_RECALLED", 10)
    for first in range(1, 60, 5):
        member = door.expect()
        door.let_in(member, *range(first, first + 5))
        fleet.run()
        assert received(member) == frames(*map(str, range(first, first + 5)))
        assert sum(map(len, fleet.lane._recalled.values())) <= 10
    monkeypatch.setattr(lanes, "_MAX_RECALLED_BYTES", 10)
    member = door.expect()
    door.let_in(member, *range(100, 120))
    fleet.run()
    assert received(member) == frames(*map(str, range(100, 120)))
    assert fleet.lane._recalled == {}


def test_function_of_a_view_is_forgotten_with_its_last_member(fleet: Fleet, door: Door) -> None:
    """It may hold the request."""
    members = [door.expect() for _ in range(2)]
    chosen = kind(translate=lambda message: message.data)
    for member in members:
        door.let_in(member, 1, 2, kind=chosen)
    fleet.run()
    fleet.lane.leave(members[0])
    assert fleet.lane._recalled
    fleet.lane.leave(members[1])
    assert fleet.lane._recalled == {}
    assert fleet.lane._recalled_count == fleet.lane._recalled_bytes == 0


def test_what_is_kept_and_is_no_message_loses_no_other(
    fleet: Fleet, door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    member = door.expect()
    missed = [*kept(1), Kept(2, b"of another program"), *kept(3)]
    fleet.lane.put(door.audience, Entrance(member, FORWARDED, None, "e", missed, lambda: None))
    fleet.run()
    assert received(member) == frames("1", "3")
    assert "a message to the group 'a' is no message of this version" in caplog.text


def test_view_that_comes_back_gets_what_it_missed(fleet: Fleet, door: Door) -> None:
    member = door.expect()
    door.let_in(member, 1, 2, kind=kind(forward=False))
    door.put(at(3))
    fleet.run()
    assert cast(WebSocketOf, member.owner).events == ["1", "2", "3"]
    assert offers(member) == []


# A gap in a history


@pytest.mark.parametrize("closes", [True, False])
def test_gap_in_a_history_is_told_to_those_that_understand_it_and_closes_others(fleet: Fleet, closes: bool) -> None:
    door = Door(fleet, closes_on_gap=closes)
    peer, other = fleet.join("a"), fleet.join("a", kind=kind(translate=lambda message: message.data))
    told, view = fleet.join("a", kind=kind(translate=page.envelope)), fleet.join("a", kind=kind(forward=False))
    door.put(Envelope(GAP, b"", position="e-7"), at(8))
    fleet.run()
    assert received(told) == frames(page.gap("a", "e-7"), page.envelope(GroupMessage("a", "8", "e-8")))
    assert cast(WebSocketOf, view.owner).events == [None, "8"]
    for member in (peer, other):
        assert cast(Offered, member.connection).closes == [(1012, "messages are missing")] * closes
    for member in (told, view):
        assert cast(Offered, member.connection).closes == []


def test_gap_without_a_history_closes_none(fleet: Fleet, door: Door) -> None:
    member, told = fleet.join("a"), fleet.join("a", kind=kind(translate=page.envelope))
    door.put(Envelope(GAP, b""))
    fleet.run()
    assert cast(Offered, member.connection).log == cast(Offered, told.connection).log == []


def test_members_that_come_in_while_the_queue_is_full_are_told_of_the_hole_behind_them(
    fleet: Fleet, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_queue(monkeypatch, 3)
    told, late = (fleet.join("a", kind=kind(translate=page.envelope)), door.expect())
    door.put(*map(at, range(1, 6)))
    door.let_in(late, 3, 4, 5, kind=kind(translate=page.envelope), note=page.joined("a", "e-2", True))
    door.put(at(6), at(7))
    fleet.run()
    door.put(at(8))
    fleet.run()

    def message(number: int) -> str:
        return page.envelope(GroupMessage("a", str(number), f"e-{number}"))

    gap = page.gap("a", "e-7")
    assert received(told) == frames(*map(message, (1, 2, 3)), gap, message(8))
    assert received(late) == frames(page.joined("a", "e-2", True), *map(message, (3, 4, 5)), gap, message(8))
