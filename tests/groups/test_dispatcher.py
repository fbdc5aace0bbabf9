"""The groups of one process: what is watched, who is told, and what an outage does."""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, cast
from unittest import mock

import pytest

from dwebsocket.connection.limits import Bound
from dwebsocket.exceptions import GroupsUnavailable
from dwebsocket.groups import lane as lanes
from dwebsocket.groups import page
from dwebsocket.groups.audience import Member
from dwebsocket.groups.backend import Publication
from dwebsocket.groups.config import DEFAULTS
from dwebsocket.groups.dispatcher import Dispatcher
from dwebsocket.groups.history.stream import Found
from dwebsocket.groups.local import LocalGroups
from dwebsocket.groups.messages import TEXT, Envelope
from dwebsocket.groups.position import START, Position
from dwebsocket.reactors.base import Reactor
from tests.groups.backends import ObedientGroups
from tests.groups.lanes import FORWARDED, Offered, StillReactor, WebSocketOf, frame, kind, received
from tests.links import Home, until
from tests.peer import decode_all


class Office:
    """A dispatcher over a backend that obeys, and members on reactors that stand still."""

    def __init__(self, backend: Any = None) -> None:
        self.backend: Any = ObedientGroups("default", DEFAULTS) if backend is None else backend
        self.overflowed: list[list[Member]] = []
        self.interrupted: list[float] = []
        self.changed: list[tuple[Any, ...]] = []
        self.dispatcher = Dispatcher(
            self.backend,
            overflowed=self.overflowed.append,
            interrupted=self.interrupted.append,
            changed=lambda *change: self.changed.append(change),
        )
        self.reactor = StillReactor()

    def join(self, group: str, *, reactor: StillReactor | None = None, forward: bool = True) -> Member:
        websocket = WebSocketOf(7, Offered(reactor or self.reactor))
        chosen = FORWARDED if forward else kind(forward=False)
        return self.dispatcher.join(websocket, group, cast(Any, websocket.connection), chosen)

    def is_confirmed(self, group: str, seconds: float = 0) -> bool:
        return self.dispatcher.wait_for(group, cast(Reactor, self.reactor), seconds)

    def send(self, group: str, message: str) -> None:
        self.dispatcher.publish([Publication(group, Envelope(TEXT, message.encode()).serialize())])


@pytest.fixture
def office() -> Office:
    return Office()


def events(member: Member) -> list[Any]:
    return cast(WebSocketOf, member.owner).events


# Watching


def test_group_is_watched_from_its_first_member_to_its_last(office: Office) -> None:
    assert office.backend.opened == 0
    one = office.join("a")
    assert (office.backend.opened, office.backend.watched) == (1, {"a"})
    two = office.join("a")
    office.dispatcher.leave(one)
    office.dispatcher.leave(one)
    assert office.backend.watched == {"a"}
    assert office.dispatcher.watched() == ["a"]
    office.dispatcher.leave(two)
    assert office.backend.watched == set()
    assert office.dispatcher.watched() == []


def test_bound_of_members_is_that_of_the_settings() -> None:
    settings = {**DEFAULTS, "OUTBOX_BYTES": 5, "OUTBOX_SECONDS": 6, "OVERFLOW": "latest"}
    assert Office(ObedientGroups("default", settings)).dispatcher.bound == Bound(5, 6, "latest")


def test_join_waits_for_the_confirmation(office: Office) -> None:
    office.backend.confirms = False
    office.join("a")
    assert not office.is_confirmed("a", 0.001)
    results: list[bool] = []
    waiting = [threading.Thread(target=lambda: results.append(office.is_confirmed("a", 10))) for _ in range(2)]
    for thread in waiting:
        thread.start()
    until(lambda: office.dispatcher._watched["a"].latches)
    office.backend.confirm()
    for thread in waiting:
        thread.join(5)
    assert results == [True, True]
    assert office.is_confirmed("a")


def test_those_that_have_waited_in_vain_leave_nothing_behind(office: Office) -> None:
    """One member keeps the group; an outage may last for hours, and clients come again and again."""
    office.join("a")
    office.backend.lose()
    for _ in range(10):
        assert not office.is_confirmed("a", 0.001)
    assert len(office.dispatcher._watched["a"].latches) == 1


def test_group_that_was_left_meanwhile_is_not_confirmed(office: Office) -> None:
    assert not office.is_confirmed("a")


def test_those_that_wait_for_a_group_are_told_when_it_is_left(office: Office) -> None:
    office.backend.confirms = False
    member = office.join("a")
    results: list[bool] = []
    waiting = threading.Thread(target=lambda: results.append(office.is_confirmed("a", 60)))
    waiting.start()
    until(lambda: office.dispatcher._watched["a"].latches)
    office.dispatcher.leave(member)
    waiting.join(10)
    assert results == [False]


def test_confirmation_of_a_group_that_was_left_does_nothing(office: Office) -> None:
    office.backend.confirms = False
    office.dispatcher.leave(office.join("a"))
    office.dispatcher.watching(["a", "b"])
    assert office.dispatcher.watched() == []


# Messages


def test_message_reaches_members_on_every_reactor_when_it_is_flushed(office: Office) -> None:
    other = StillReactor()
    here, there = office.join("a"), office.join("a", reactor=other)
    office.send("a", "1")
    assert (office.reactor.wakes, other.wakes) == (1, 1)
    office.reactor.run()
    other.run()
    assert received(here) == received(there) == frame("1")
    assert office.dispatcher.received == 1


def test_burst_of_the_broker_wakes_a_lane_once(office: Office) -> None:
    member = office.join("a")
    office.dispatcher.publish([Publication("a", Envelope(TEXT, b"%d" % n).serialize()) for n in range(10)])
    assert office.reactor.wakes == 1
    office.dispatcher.flush()
    assert office.reactor.wakes == 1, "nothing new"
    office.reactor.run()
    assert received(member) == b"".join(frame(str(n)) for n in range(10))


def test_lane_without_members_of_a_group_is_not_woken(office: Office) -> None:
    other = StillReactor()
    office.join("a")
    office.join("b", reactor=other)
    office.send("a", "1")
    assert other.wakes == 0


@pytest.mark.parametrize("payload", [b"", b"x  0 of a newer version", b"c  0 soon", b"c  0 1006 "])
def test_what_is_no_message_is_logged_and_hurts_no_other(
    office: Office, payload: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    member = office.join("a")
    office.backend.publish([Publication("a", payload), Publication("a", Envelope(TEXT, b"1").serialize())])
    office.reactor.run()
    assert received(member) == frame("1")
    assert "a message to the group 'a' is no message of this version" in caplog.text


@pytest.mark.parametrize(
    ("payload", "position"),
    [
        (b"p  0 of another program", None),
        (b"p  0 7 + \xff\0null", None),
        (b"p  0 " + b"7" * 5000 + b" + u1\0null", None),
        (b"r", Position("e", 0)),
        (b"r  0 \xff", Position("e", 0)),
        (b"r of another program", Position("e", 3)),
    ],
)
def test_change_that_is_none_is_logged_and_does_not_stop_the_backend(
    office: Office, caplog: pytest.LogCaptureFixture, payload: bytes, position: Position | None
) -> None:
    websocket = WebSocketOf(7, Offered(office.reactor))
    office.dispatcher.join(websocket, "a", cast(Any, websocket.connection), FORWARDED, 10, 60)
    office.backend.sink.message("a", payload, position)
    assert "a message to the group 'a' is no message of this version" in caplog.text


def test_listener_hears_its_group_and_what_it_raises_is_logged(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Envelope] = []

    def listen(envelope: Envelope) -> None:
        heard.append(envelope)
        raise LookupError("of a listener")

    member = office.join("a")
    for _ in range(3):
        office.dispatcher.listen("a", listen)
    office.send("a", "1")
    office.reactor.run()
    assert heard == [Envelope(TEXT, b"1")]
    assert received(member) == frame("1")
    assert "of a listener" in caplog.text
    office.dispatcher.leave(member)
    assert office.backend.watched == {"a"}, "it listens for ever"


def test_leave_soon_waits_for_no_lock(office: Office) -> None:
    member = office.join("a")
    lane = office.dispatcher._lanes[cast(Reactor, office.reactor)]
    with office.dispatcher._lock, lane.lock:
        ended = threading.Thread(target=office.dispatcher.leave_soon, args=(member,))
        ended.start()
        ended.join(5)
        assert not ended.is_alive()
    assert office.dispatcher.watched() == ["a"]
    office.reactor.run()
    assert office.dispatcher.watched() == []


def test_members_come_and_go_in_many_threads_and_the_count_is_right(office: Office) -> None:
    def come_and_go(name: str) -> None:
        for _ in range(300):
            office.dispatcher.leave(office.join(name))

    threads = [threading.Thread(target=come_and_go, args=("ab"[number % 2],)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert office.dispatcher.watched() == []
    assert office.backend.watched == set()


# Too much


def test_sender_within_the_process_waits_and_then_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "_MAX_QUEUED_BYTES", 404)
    office = Office(LocalGroups("default", {**DEFAULTS, "TIMEOUT": 0.01}))
    member = office.join("a")
    for _ in range(3):
        office.send("a", "1")
    with pytest.raises(GroupsUnavailable, match="messages come faster than they can be written to the members"):
        office.send("a", "1")
    office.reactor.run()
    office.send("a", "2")
    office.reactor.run()
    assert received(member) == frame("1") * 3 + frame("2")


def test_sender_by_way_of_a_broker_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "_MAX_QUEUED_BYTES", 404)
    office = Office()
    member = office.join("a", forward=False)
    for number in range(10):
        office.send("a", str(number))
    office.reactor.run()
    assert events(member) == ["0", "1", "2", "3", None]


# An outage


def test_outage_is_a_gap_for_views_and_told_once(office: Office) -> None:
    view, peer, late = office.join("a", forward=False), office.join("a"), office.join("b", forward=False)
    office.send("a", "1")
    office.backend.lose()
    office.dispatcher.lost("again")
    assert not office.is_confirmed("a")
    with pytest.raises(GroupsUnavailable):
        office.send("a", "lost")
    assert office.interrupted == []
    office.backend.restore()
    office.dispatcher.restored()
    office.send("a", "2")
    office.reactor.run()
    assert events(view) == ["1", None, "2"]
    assert events(late) == [None]
    assert received(peer) == frame("1") + frame("2")
    assert len(office.interrupted) == 1
    assert 0 <= office.interrupted[0] < 5
    assert office.is_confirmed("a")


def test_first_contact_is_no_outage(office: Office) -> None:
    view = office.join("a", forward=False)
    office.dispatcher.restored()
    office.reactor.run()
    assert (events(view), office.interrupted) == ([], [])


def test_second_outage_is_told_too(office: Office) -> None:
    view = office.join("a", forward=False)
    for _ in range(2):
        office.backend.lose()
        office.backend.restore()
    office.reactor.run()
    assert events(view) == [None, None]
    assert len(office.interrupted) == 2


def test_gap_comes_before_what_arrives_while_other_groups_still_wait(office: Office) -> None:
    """Of many groups some are received again before the outage is over; and a second break may come before that."""
    view, other = office.join("a", forward=False), office.join("b", forward=False)
    office.send("a", "1")
    office.dispatcher.lost("the connection broke")
    for message in ("2", "3"):
        office.dispatcher.watching(["a"])
        office.send("a", message)
    office.dispatcher.watching(["b"])
    office.dispatcher.restored()
    office.reactor.run()
    assert events(view) == ["1", None, "2", None, "3"]
    assert events(other) == [None]


def test_group_that_is_joined_during_an_outage_is_confirmed_at_its_end(office: Office) -> None:
    office.join("a")
    office.backend.lose()
    office.join("b")
    assert not office.is_confirmed("b", 0.001)
    office.backend.restore()
    assert office.is_confirmed("b")
    assert office.is_confirmed("a")


def test_interruption_that_cannot_be_told_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    office = Office()

    def fail(seconds: float) -> None:
        raise LookupError("no thread can be started")

    office.dispatcher._interrupted = fail
    office.join("a")
    office.backend.lose()
    office.backend.restore()
    assert "no thread can be started" in caplog.text


# Counters


def test_members_that_are_too_slow_are_counted(office: Office) -> None:
    member = office.join("a")
    cast(Offered, member.connection).answers = [1]
    office.send("a", "x")
    office.reactor.run()
    assert (office.dispatcher.overflows, office.overflowed) == (1, [[member]])


def test_messages_that_come_too_fast_are_counted(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "_MAX_QUEUED_BYTES", 300)
    office.join("a")
    for _ in range(5):
        office.dispatcher.message("a", Envelope(TEXT, b"x").serialize())
    assert (office.dispatcher.received, office.dispatcher.dropped) == (5, 3)


def test_member_whose_kind_changes_while_a_burst_is_written_gets_the_message(office: Office) -> None:
    first = [office.join("a") for _ in range(lanes._SLICE)]
    last = office.join("a")
    office.reactor.on_breath = lambda: office.dispatcher.change(last, kind(forward=False))
    office.send("a", "x")
    office.reactor.run()
    assert received(first[0]) == received(last) == frame("x")


def test_group_whose_watching_fails_once_is_watched_the_next_time(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(OSError, match="no descriptor"):
        patch.setattr(office.backend, "watch", mock.Mock(side_effect=OSError("no descriptor")))
        office.dispatcher.listen("a", lambda envelope: None)
    assert office.dispatcher.watched() == []
    told: list[Envelope] = []
    office.dispatcher.listen("a", told.append)
    office.send("a", "x")
    assert [envelope.data for envelope in told] == ["x"]


def test_many_senders_within_the_process_wait_for_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each gets a place: none gives up because another one was faster."""
    monkeypatch.setattr(lanes, "_MAX_QUEUED_BYTES", 2000)
    office = Office(LocalGroups("default", {**DEFAULTS, "TIMEOUT": 30}))
    member = office.join("a")
    errors: list[Exception] = []

    def send(number: int) -> None:
        try:
            for _ in range(20):
                office.send("a", str(number) * 500)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        office.reactor.run()
    office.reactor.run()
    assert errors == []
    assert len(received(member)) == 8 * 20 * len(frame("x" * 500))
    assert office.dispatcher.dropped == 0


def test_message_larger_than_the_queue_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "_MAX_QUEUED_BYTES", 300)
    office = Office(LocalGroups("default", DEFAULTS))
    member = office.join("a")
    office.send("a", "x" * 1000)
    office.reactor.run()
    assert received(member) == frame("x" * 1000)


# A history


class Room:
    """A group with a history, whose messages are the numbers from 1 on, as are their offsets."""

    def __init__(self, office: Office, *, history: int = 500) -> None:
        self.office = office
        self.history = history
        self.epoch = ""

    def expect(self, websocket: WebSocketOf | None = None, **options: Any) -> Member:
        websocket = websocket or WebSocketOf(7, Offered(self.office.reactor))
        chosen = kind(translate=page.envelope, **options) if not options else kind(**options)
        connection = cast(Any, websocket.connection)
        return self.office.dispatcher.join(websocket, "a", connection, chosen, self.history, 60.0)

    def admit(self, member: Member, since: Position | str | None = None, seconds: float = 0.0) -> Found | None:
        """Its worker stands still: it is run while the view waits."""
        found: list[Found | None] = []
        view = threading.Thread(
            target=lambda: found.append(self.office.dispatcher.admit(member, member.kind, since, seconds or 10))
        )
        view.start()
        while view.is_alive():
            self.office.reactor.run()
            view.join(0.001)
        return found[0]

    def send(self, *numbers: int) -> None:
        for number in numbers:
            payload = Envelope(TEXT, b"%d" % number).serialize()
            [position] = self.office.dispatcher.publish([Publication("a", payload, None, self.history, 60.0)])
            assert position is not None
            assert position.offset == number
            self.epoch = position.epoch


@pytest.fixture
def room(office: Office) -> Iterator[Room]:
    yield Room(office)
    office.dispatcher.close()


def read_texts(member: Member) -> list[Any]:
    """What a page has got: the offset of each message, and (what, offset) of the rest."""
    found: list[Any] = []
    for one in decode_all(received(member)):
        text = json.loads(one.payload)
        position = Position.parse(text["p"])
        assert position is not None
        if "d" in text:
            assert int(text["d"]) == position.offset
            found.append(position.offset)
        else:
            found.append((text.get("joined", "gap"), position.offset))
    return found


def test_member_of_a_history_gets_nothing_before_it_was_let_in(office: Office, room: Room) -> None:
    member = room.expect()
    room.send(1, 2)
    office.reactor.run()
    assert received(member) == b""
    found = room.admit(member)
    room.send(3)
    office.reactor.run()
    assert found == Found(Position(room.epoch, 2), Position(room.epoch, 2), None)
    assert read_texts(member) == [(None, 2), 3]


def test_message_that_was_lost_without_a_word_is_found_at_the_next_one(office: Office, room: Room) -> None:
    member = room.expect()
    room.admit(member)
    room.send(1)
    office.backend.announces = False
    room.send(2, 3)
    office.backend.announces = True
    room.send(4)
    until(lambda: office.reactor.run() or len(read_texts(member)) == 5 or None, "all messages")
    assert read_texts(member) == [(None, 0), 1, 2, 3, 4]


def test_last_message_that_was_lost_without_a_word_is_found_by_the_check() -> None:
    office = Office(ObedientGroups("default", {**DEFAULTS, "CHECK": 0.02}))
    room = Room(office)
    member = room.expect()
    room.admit(member)
    office.backend.announces = False
    room.send(1, 2)
    until(lambda: office.reactor.run() or len(read_texts(member)) == 3 or None, "the check")
    assert read_texts(member) == [(None, 0), 1, 2]
    office.dispatcher.close()


def test_outage_of_a_history_is_mended(office: Office, room: Room) -> None:
    member, view = room.expect(), room.expect(forward=False)
    for one in (member, view):
        room.admit(one)
    room.send(1)
    office.dispatcher.lost("the connection broke")
    office.backend.announces = False
    room.send(2, 3)
    office.backend.announces = True
    office.backend.restore()
    until(lambda: office.reactor.run() or len(read_texts(member)) == 4 or None, "all messages")
    assert read_texts(member) == [(None, 0), 1, 2, 3]
    assert events(view) == ["1", "2", "3"], "and no gap"


def test_server_that_comes_back_without_its_history_is_a_gap(office: Office, room: Room) -> None:
    member, view, plain = room.expect(), room.expect(forward=False), room.expect(forward=True)
    for one in (member, view, plain):
        room.admit(one)
    room.send(1, 2)
    office.dispatcher.lost("the server has gone")
    office.backend.begin_epoch("a")
    office.backend.restore()
    until(lambda: office.reactor.run() or len(read_texts(member)) == 4 or None, "the gap")
    room.send(1)
    until(lambda: office.reactor.run() or len(read_texts(member)) == 5 or None, "the next message")
    assert read_texts(member) == [(None, 0), 1, 2, ("gap", 0), 1]
    assert events(view) == ["1", "2", None, "1"]
    assert cast(Offered, plain.connection).closes == [(1012, "messages are missing")]


def test_history_that_is_ignored_closes_none() -> None:
    office = Office(ObedientGroups("default", {**DEFAULTS, "ON_GAP": "ignore"}))
    room = Room(office)
    plain = room.expect(forward=True)
    room.admit(plain)
    office.backend.begin_epoch("a")
    room.send(1)
    until(lambda: office.reactor.run() or received(plain) or None, "the message")
    assert cast(Offered, plain.connection).closes == []
    office.dispatcher.close()


def test_hundred_members_that_come_back_at_once_are_few_questions(office: Office, room: Room) -> None:
    first = room.expect()
    room.admit(first)
    room.send(*range(1, 301))
    office.dispatcher.leave(first)
    members = [room.expect() for _ in range(100)]
    office.backend.reads.clear()
    since, results = Position(room.epoch, 10), list[Any]()
    views = [
        threading.Thread(
            target=lambda member=member: results.append(office.dispatcher.admit(member, member.kind, since, 10))
        )
        for member in members
    ]
    for view in views:
        view.start()
    while any(view.is_alive() for view in views):
        office.reactor.run()
        views[-1].join(0.001)
    assert [(found.recovered, len(found.missed)) for found in results] == [(True, 290)] * 100
    assert len(office.backend.reads) <= 3
    assert {received(member) for member in members} == {received(members[0])}
    assert read_texts(members[0]) == [(True, 10), *range(11, 301)]


def test_member_that_cannot_be_let_in_in_time_is_not(office: Office, room: Room) -> None:
    member = room.expect()
    office.backend.is_lost = True
    assert room.admit(member, seconds=0.05) is None
    office.dispatcher.leave(member)
    office.backend.is_lost = False
    room.send(1)
    office.reactor.run()
    assert received(member) == b""
    assert office.dispatcher.watched() == []


@pytest.mark.parametrize("has_others", [True, False])
def test_view_whose_connection_ends_while_it_waits_is_told_soon(office: Office, room: Room, has_others: bool) -> None:
    others = [room.expect()] if has_others else []
    member = room.expect()
    office.backend.is_lost = True
    results: list[Found | None] = []
    view = threading.Thread(target=lambda: results.append(office.dispatcher.admit(member, member.kind, None, 60)))
    began = time.monotonic()
    view.start()
    until(lambda: office.dispatcher._readers, "a question")
    office.dispatcher.leave(member)
    office.backend.is_lost = False
    view.join(30)
    assert results == [None]
    assert time.monotonic() - began < 20
    assert office.dispatcher._watched["a"].members == 1 if others else not office.dispatcher.watched()


def test_source_that_is_out_of_reach_delays_no_other(office: Office) -> None:
    """One question for both would have no answer."""
    office.backend.sources = {"b": 1}
    rooms = [Room(office), Room(office)]
    members = []
    for group in "ab":
        websocket = WebSocketOf(7, Offered(office.reactor))
        connection = cast(Any, websocket.connection)
        members.append(office.dispatcher.join(websocket, group, connection, FORWARDED, 100, 60.0))
    office.backend.lost = {1}
    office.dispatcher.watching(["a", "b"])
    found = rooms[0].admit(members[0], seconds=20)
    assert found is not None
    assert rooms[0].admit(members[1], seconds=0.05) is None
    office.dispatcher.close()


def test_message_without_a_position_is_passed_on_and_told_once(
    office: Office, room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    member = room.expect(forward=False)
    room.admit(member)
    for message in "12":
        office.send("a", message)
    office.reactor.run()
    assert events(member) == ["1", "2"]
    assert caplog.text.count("was sent by a process that has not declared its history") == 1


class Storm:
    """Members that come, go and come back while a publisher sends, and faults of the broker."""

    HISTORY = 3000  # one and a half seconds of messages: a machine that is as late as that must not fail

    def __init__(self, home: Home, backend: Any, seconds: float) -> None:
        self.home = home
        self.backend = backend
        self.dispatcher = Dispatcher(
            backend,
            overflowed=lambda members: None,
            interrupted=lambda seconds: None,
            changed=lambda group, joined, left: None,
        )
        self.over = threading.Event()
        self.seconds = seconds
        self.sent = 0
        self.joins = 0
        self.recovered = 0
        self._numbers = itertools.count(1)

    def publish(self) -> None:
        began = time.monotonic()
        while (passed := time.monotonic() - began) < self.seconds:
            while self.sent < passed * 2000:
                payload = Envelope(TEXT, b"%d" % (self.sent + 1)).serialize()
                try:
                    self.dispatcher.publish([Publication("a", payload, None, self.HISTORY, 60.0)])
                except GroupsUnavailable:
                    break
                self.sent += 1
            time.sleep(0.001)
        self.over.set()

    def come_and_go(self, seed: int) -> None:
        choice = random.Random(seed)
        chosen = kind(translate=page.envelope)
        last: Position | None = None
        while not self.over.is_set():
            websocket = WebSocketOf(next(self._numbers), Offered(cast(Any, self.home.reactor)))
            member = self.dispatcher.join(websocket, "a", cast(Any, websocket.connection), chosen, self.HISTORY, 60.0)
            since: Any = choice.choice([None, START, last, last, last and last._replace(offset=last.offset // 2)])
            assert self.dispatcher.wait_for("a", self.home.reactor, 20)
            ends_early = choice.random() < 0.2
            if ends_early:
                (self.dispatcher.leave if choice.random() < 0.3 else self.dispatcher.leave_soon)(member)
            found = self.dispatcher.admit(member, chosen, since, 20)
            assert found is not None or ends_early
            self.home.pause(choice.choice([0, 0, 0.002, 0.02]))
            self.dispatcher.leave(member)
            texts = read_texts(member)
            self.home.pause(0)
            assert len(read_texts(member)) == len(texts), "nothing comes after leave"
            if not texts or found is None:
                assert ends_early
                continue
            self.joins += 1
            (recovered, at), *numbers = texts
            assert (recovered, at) == (found.recovered, found.start.offset)
            if recovered:
                self.recovered += 1
                assert found.start == since
            elif isinstance(since, Position):
                assert self.sent - since.offset > self.HISTORY // 2, "it is too old"
            assert numbers == [*range(at + 1, at + 1 + len(numbers))], "no hole, no double"
            last = Position(found.start.epoch, at + len(numbers))

    def run(self, fault: Callable[[], None] | None = None) -> None:
        members = [self.home.start(self.come_and_go, seed) for seed in range(6)]
        publisher = threading.Thread(target=self.publish)
        publisher.start()
        while not self.over.wait(0.01):
            if fault is not None:
                fault()
        publisher.join()
        for member in members:
            member.result(60)
        self.dispatcher.close()
        assert self.joins > 20
        assert self.recovered > 5


def test_members_come_and_go_under_a_fast_sender_without_hole_or_double(home: Home) -> None:
    Storm(home, LocalGroups("default", DEFAULTS), 0.5).run()


def test_members_come_and_go_while_messages_are_lost_on_their_way(home: Home) -> None:
    backend = ObedientGroups("default", DEFAULTS)

    def lose() -> None:
        backend.announces = False
        time.sleep(0.002)
        backend.announces = True

    Storm(home, backend, 0.5).run(lose)


def test_members_come_and_go_during_outages(home: Home) -> None:
    backend = ObedientGroups("default", DEFAULTS)

    def break_off() -> None:
        if backend._sink is not None:
            backend.announces = False
            backend.lose()
            time.sleep(0.01)
            backend.announces = True
            backend.restore()

    Storm(home, backend, 0.5).run(break_off)


# Members that come back at once


def test_members_that_come_during_a_read_need_no_other(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process asks once for what a fleet has missed in a group."""
    dispatcher, backend, is_open = office.dispatcher, office.backend, threading.Event()
    text = Envelope(TEXT, b"hello").serialize()
    places = backend.publish([Publication("a", text, history=10, ttl=60)] * 5)
    answer = backend.read
    monkeypatch.setattr(backend, "read", lambda wants: answer(wants) if is_open.wait(10) else {})
    websockets = [WebSocketOf(number, Offered(office.reactor)) for number in range(1, 6)]
    members = [dispatcher.join(one, "a", cast(Any, one.connection), FORWARDED, 10, 60.0) for one in websockets]
    found: list[Any] = []

    def come(member: Member) -> threading.Thread:
        view = threading.Thread(
            target=lambda: found.append(dispatcher.admit(member, FORWARDED, cast(Position, places[1]), 10))
        )
        view.start()
        return view

    views = [come(members[0])]
    until(lambda: 0 in dispatcher._readers or None, "a reader")
    reader = dispatcher._readers[0]
    until(lambda: (reader._thread and not reader._wanted) or None, "the first question")
    views += map(come, members[1:])
    until(lambda: len(reader._wanted.get("a", ())) == 4, "the others")
    is_open.set()
    while any(view.is_alive() for view in views):
        office.reactor.run()
        views[0].join(0.001)
        views.append(views.pop(0))
    dispatcher.close()
    assert [(one.recovered, len(one.missed)) for one in found] == [(True, 3)] * 5
    assert [received(one) for one in members] == [frame("hello") * 3] * 5
    assert len(backend.reads) == 1


@pytest.mark.parametrize(("outbox_bytes", "max_bytes"), [(1024, 8 * 1024 * 1024), (10**9, 10**9)])
def test_history_is_read_as_far_as_it_is_of_use(outbox_bytes: int, max_bytes: int) -> None:
    office = Office(ObedientGroups("default", {**DEFAULTS, "OUTBOX_BYTES": outbox_bytes}))
    websocket = WebSocketOf(7, Offered(office.reactor))
    member = office.dispatcher.join(websocket, "a", cast(Any, websocket.connection), FORWARDED, 10_000, 60)
    office.dispatcher.admit(member, FORWARDED, START, 0)
    until(lambda: office.backend.reads)
    assert [want.max_bytes for want in office.backend.reads[0].values()] == [max_bytes]
    office.dispatcher.close()


@pytest.mark.parametrize("history", [0, 10])
def test_join_that_is_interrupted_while_the_lane_is_busy_leaves_nothing_behind(
    office: Office, monkeypatch: pytest.MonkeyPatch, history: int
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    websocket = WebSocketOf(7, Offered(office.reactor))
    for name in ("enter", "expect"):
        monkeypatch.setattr(lanes.Lane, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        office.dispatcher.join(websocket, "a", cast(Any, websocket.connection), FORWARDED, history, 60)
    assert office.dispatcher.watched() == []
    assert office.backend.watched == set()
