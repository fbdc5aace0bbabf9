"""A WebSocket in its groups: what it gets from the moment it has joined to the moment it has left."""

from __future__ import annotations

import contextlib
import gc
import json
import random
import threading
import time
import weakref
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from django.http import HttpResponse

from dwebsocket import (
    GroupMessage,
    Groups,
    Joined,
    Tick,
    TooManyGroups,
    WebSocketClosed,
    group_overflow,
    require_websocket,
)
from dwebsocket.groups import page, process
from dwebsocket.groups.group import Group
from dwebsocket.groups.position import START
from tests.groups.helpers import joined, joining, kept_room, leave, members_of, new_room, quiet, settle
from tests.helpers import levels, recorded
from tests.links import assert_ends, until
from tests.peer import Close, Peer, PeerTimeout
from tests.sites import Site

# Joining


def test_member_gets_what_is_sent_and_a_sender_that_is_excluded_does_not(site: Site) -> None:
    room = new_room()
    one, two = joined(site(joining(room)), 2)
    one.send_message("hello")
    assert two.recv_message() == "hello"
    room.send(b"to both")
    assert (one.recv_message(), two.recv_message()) == (b"to both", b"to both")
    quiet(one)
    quiet(two)


def test_join_accepts_the_connection_and_gives_what_it_has(site: Site) -> None:
    room = new_room()

    @require_websocket
    def view(request: Any) -> None:
        site.tell(request.websocket.join(room))
        site.tell(request.websocket.groups)
        request.websocket.wait()

    peer = site(view).connect()
    assert site.hear() == Joined(position=None, recovered=None, missed=0)
    assert site.hear() == {room.name}
    room.send("hello")
    quiet(peer, "hello")


@pytest.mark.parametrize("message", ["text", "", "ä" * 1000, b"binary", b"\0", b"\0" * 100_000], ids=range(6))
def test_message_arrives_as_it_was_sent(site: Site, message: str | bytes) -> None:
    room = new_room()
    [peer] = joined(site(joining(room)))
    room.send(message)
    assert peer.recv_message() == message


def test_messages_of_many_senders_come_to_all_in_one_order(site: Site) -> None:
    room = new_room()
    peers = joined(site(joining(room)), 4)

    def send(name: str) -> None:
        for number in range(50):
            room.send(f"{name} {number}")

    threads = [threading.Thread(target=send, args=(name,)) for name in "xyz"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    logs = [[peer.recv_message() for _ in range(150)] for peer in peers]
    assert logs[1:] == logs[:1] * 3
    for name in "xyz":
        assert [entry for entry in logs[0] if entry.startswith(name)] == [f"{name} {number}" for number in range(50)]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ("room:7", r"'room:7' is a str: write group\('room:7'\), or rooms\[key\]"),
        (7, r"a group is made by Groups\[key\], group\(\) or user_group\(\), not int"),
        (None, r"not NoneType"),
        (Groups, "not Groups: take one of them, as in rooms"),
    ],
)
def test_what_is_no_group_says_what_is(site: Site, wrong: Any, sentence: str) -> None:
    if wrong is Groups:
        wrong = Groups("room")

    @require_websocket
    def view(request: Any) -> None:
        for verb in (request.websocket.join, request.websocket.leave):
            with pytest.raises(TypeError, match=sentence):
                verb(wrong)
        site.tell(request.websocket.groups)
        request.websocket.send("still here")

    assert site(view).connect().recv_message() == "still here"
    assert site.hear() == frozenset()


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"since": 7}, TypeError, "since is a position, as join\\(\\) or a message has it, not int"),
        ({"overflow": "newest"}, ValueError, "overflow is 'newest'; it must be one of 'close'"),
        ({"forward": None}, TypeError, "forward is True, False or a function, not NoneType"),
        ({"forward": 1}, TypeError, "forward is True, False or a function, not int"),
        ({"forward": "yes"}, TypeError, "forward is True, False or a function, not str"),
    ],
)
def test_option_that_join_does_not_know_says_so(
    site: Site, options: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    room = new_room()

    @require_websocket
    def view(request: Any) -> None:
        with pytest.raises(error, match=sentence):
            request.websocket.join(room, **options)
        site.tell(request.websocket.groups)
        request.websocket.send("still here")

    assert site(view).connect().recv_message() == "still here"
    assert site.hear() == frozenset()
    assert members_of(room) == 0


def test_too_many_groups_are_refused_and_the_others_stay(site: Site) -> None:
    rooms = [new_room() for _ in range(4)]

    @require_websocket(max_groups=3)
    def view(request: Any) -> None:
        websocket = request.websocket
        for room in rooms[:3]:
            websocket.join(room)
        with pytest.raises(TooManyGroups, match=r"may be in 3 groups \(max_groups\), not in more"):
            websocket.join(rooms[3])
        websocket.join(rooms[0], overflow="latest")  # it is in it already
        websocket.leave(rooms[1])
        websocket.join(rooms[3])
        site.tell(websocket.groups)
        websocket.wait()

    peer = site(view).connect()
    assert site.hear() == {rooms[0].name, rooms[2].name, rooms[3].name}
    leave(peer)


def test_view_that_joins_too_many_ends_with_a_fault(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    rooms = [new_room() for _ in range(2)]
    assert_ends(site(joining(*rooms), WEBSOCKET_MAX_GROUPS=1).connect(), 1011)
    site.until_idle()
    assert [entry for entry in levels(caplog) if entry[0] == "django.request"] == [("django.request", "ERROR")]
    until(lambda: not members_of(rooms[0]), "the first to be left")


def test_join_after_the_end_is_refused(site: Site) -> None:
    room = new_room()

    @require_websocket
    def view(request: Any) -> None:
        websocket = request.websocket
        assert websocket.wait() is None
        for _ in range(2):
            try:
                websocket.join(room)
            except WebSocketClosed as error:
                site.tell((error.close_code, error.close_reason, error.websocket is websocket))
        websocket.leave(room)
        site.tell(websocket.groups)

    peer = site(view).connect()
    leave(peer, code=4001)
    assert [site.hear(), site.hear(), site.hear()] == [(4001, "", True), (4001, "", True), frozenset()]
    assert members_of(room) == 0


def test_join_after_a_refusal_is_refused(site: Site) -> None:
    room = new_room()

    @require_websocket
    def view(request: Any) -> None:
        request.websocket.close(4000, "no")
        with pytest.raises(WebSocketClosed):
            request.websocket.join(room)
        site.tell((list(request.websocket.events()), request.websocket.groups))

    assert site(view).handshake().status == 403
    assert site.hear() == ([], frozenset())


def test_websocket_that_a_view_leaves_behind_is_in_no_group(site: Site) -> None:
    room, kept = new_room(), list[Any]()

    @require_websocket
    def view(request: Any) -> None:
        kept.append(request.websocket)
        request.websocket.join(room)
        request.websocket.send("joined")
        request.websocket.wait()

    [peer] = joined(site(view))
    leave(peer)
    site.until_idle()
    websocket = kept.pop()
    assert websocket.groups == frozenset()
    websocket.leave(room)
    with pytest.raises(WebSocketClosed):
        websocket.join(room)
    room.send("hello", exclude=websocket)
    until(lambda: not members_of(room))


# forward


def test_function_translates_once_for_all_members(site: Site) -> None:
    room, calls = new_room(), list[GroupMessage]()

    def translate(message: GroupMessage) -> str | None:
        calls.append(message)
        return None if message.data == "secret" else json.dumps({"g": message.group, "d": message.data})

    peers = joined(site(joining(room, forward=translate)), 3)
    room.send("one")
    room.send("secret")
    room.send("two")
    expected = [json.dumps({"g": room.name, "d": word}) for word in ("one", "two")]
    for peer in peers:
        assert [peer.recv_message(), peer.recv_message()] == expected
    assert calls == [GroupMessage(room.name, word) for word in ("one", "secret", "two")]


def test_function_that_fails_is_logged_and_harms_no_other_message_and_no_other_member(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    room = new_room()

    def translate(message: GroupMessage) -> Any:
        if message.data == "number":
            return 7
        if message.data == "wrong":
            raise LookupError("no such word")
        return f"translated {message.data}"

    @require_websocket
    def view(request: Any) -> None:
        request.websocket.join(room, forward=translate if "translate" in request.path else True)
        request.websocket.send("joined")
        request.websocket.wait()

    [plain], [translated] = joined(site(view)), joined(site, path="/translate/")
    with process.dispatcher("default")._lanes[next(iter(process.dispatcher("default")._lanes))].lock:
        for word in ("one", "wrong", "number", "two"):  # while its lock is held they gather: they are one burst
            room.send(word)
    assert [plain.recv_message() for _ in range(4)] == ["one", "wrong", "number", "two"]
    assert [translated.recv_message() for _ in range(2)] == ["translated one", "translated two"]
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 2
    assert all(room.name in record.getMessage() for record in errors)


def test_view_that_takes_its_messages_gets_them_in_events(site: Site) -> None:
    room = new_room()

    @require_websocket
    def view(request: Any) -> None:
        websocket = request.websocket
        websocket.join(room, forward=False)
        websocket.send("joined")
        for event in websocket.events():
            site.tell(event)
            if isinstance(event, GroupMessage) and event.data == "enough":
                break
        site.tell("out")

    [peer] = joined(site(view))
    room.send("hello")
    assert site.hear() == GroupMessage(room.name, "hello", None)
    peer.send_message("from the peer")
    assert site.hear() == "from the peer"
    room.send_json({"a": 1})
    assert site.hear().json() == {"a": 1}
    room.send("enough")
    assert [site.hear(), site.hear()] == [GroupMessage(room.name, "enough"), "out"]
    assert peer.recv_message() == Close(1000)


def test_second_join_changes_how_messages_come(site: Site) -> None:
    room = new_room()

    @require_websocket
    def view(request: Any) -> None:
        websocket = request.websocket
        websocket.join(room)
        websocket.send("joined")
        for event in websocket.events():
            if event == "to the view":
                websocket.join(room, forward=False)
            elif event == "to a function":
                websocket.join(room, forward=lambda message: f"translated {message.data}")
            elif event == "to the peer":
                websocket.join(room, forward=True)
            site.tell(event)

    [peer] = joined(site(view))
    room.send("1")
    assert peer.recv_message() == "1"
    for command, number in (("to the view", "2"), ("to a function", "3"), ("to the peer", "4")):
        peer.send_message(command)
        assert site.hear() == command
        assert members_of(room) == 1
        room.send(number)
        if number == "2":
            assert site.hear() == GroupMessage(room.name, "2")
        else:
            assert peer.recv_message() == {"3": "translated 3", "4": "4"}[number]
    quiet(peer)


# Leaving


def test_nothing_arrives_after_leave(site: Site) -> None:
    room, other = new_room(), new_room()

    @require_websocket
    def view(request: Any) -> None:
        websocket = request.websocket
        websocket.join(room)
        websocket.join(other)
        websocket.send("joined")
        websocket.wait()
        websocket.leave(room)
        websocket.leave(room)
        room.send("too late")
        other.send("in time")
        site.tell(websocket.groups)
        websocket.wait()

    [peer] = joined(site(view))
    room.send("first")
    assert peer.recv_message() == "first"
    peer.send_message("leave")
    assert site.hear() == {other.name}
    assert peer.recv_message() == "in time"
    assert members_of(room) == 0
    quiet(peer)


def test_leave_drops_what_the_view_has_not_taken(site: Site) -> None:
    room, other = new_room(), new_room()

    @require_websocket
    def view(request: Any) -> None:
        websocket = request.websocket
        websocket.join(room, forward=False)
        websocket.join(other, forward=False)
        websocket.send("joined")
        websocket.wait()
        websocket.leave(room)
        for event in websocket.events():
            site.tell(event)

    [peer] = joined(site(view))
    room.send("never taken")
    other.send("taken")
    peer.send_message("go")
    assert site.hear() == GroupMessage(other.name, "taken")
    leave(peer)
    site.until_idle()
    assert site.told.empty()


def test_member_that_comes_and_goes_under_fire_gets_messages_in_order_and_none_while_it_is_out(site: Site) -> None:
    room, over = new_room(), threading.Event()

    @require_websocket
    def view(request: Any) -> None:
        websocket = request.websocket
        for _ in range(20):
            websocket.join(room)
            site.pause(0.002)
            websocket.leave(room)
            websocket.send("out")
            site.pause(0.002)
            websocket.send("back")
        websocket.send("end")
        websocket.wait()

    def send() -> None:
        number = 0
        while not over.is_set():
            room.send(str(number))
            number += 1

    sender = threading.Thread(target=send)
    peers = [site(view).connect() for _ in range(3)]
    sender.start()
    try:
        for peer in peers:
            numbers: list[int] = []
            while (message := peer.recv_message()) != "end":
                if message == "out":
                    assert peer.recv_message() == "back"
                else:
                    numbers.append(int(message))
            assert numbers
            assert numbers == sorted(set(numbers))
    finally:
        over.set()
        sender.join()
    leave(*peers)


# The end


def ends() -> dict[str, Callable[[Peer], object]]:
    return {"close": lambda peer: peer.send_close(), "eof": lambda peer: peer.abandon(), "reset": Peer.reset}


@pytest.mark.parametrize("end", ends())
def test_membership_ends_with_the_connection_although_the_view_goes_on(site: Site, end: str) -> None:
    room, goes_on = new_room(), threading.Event()

    @require_websocket
    def view(request: Any) -> None:
        request.websocket.join(room)
        request.websocket.send("joined")
        site.wait_for(goes_on)
        site.tell(request.websocket.groups)

    [peer] = joined(site(view))
    assert members_of(room) == 1
    ends()[end](peer)
    if end == "close":
        peer.read_to_eof()
        peer.abandon()
    until(lambda: members_of(room) == 0, "the end of the membership")
    goes_on.set()
    assert site.hear() == frozenset()


def test_socket_that_is_closed_by_the_view_leaves(site: Site) -> None:
    room = new_room()

    @require_websocket
    def view(request: Any) -> None:
        request.websocket.join(room)
        request.websocket.close(4000)

    peer = site(view).connect()
    assert peer.recv_message() == Close(4000)
    peer.send_close(4000)
    peer.read_to_eof()
    peer.abandon()
    until(lambda: members_of(room) == 0, "the end of the membership")


def test_two_threads_join_and_leave_at_the_same_time(site: Site) -> None:
    rooms = [new_room() for _ in range(3)]

    @require_websocket
    def view(request: Any) -> None:
        websocket = request.websocket
        websocket.accept()
        faults: list[BaseException] = []

        def come_and_go(first: int) -> None:
            try:
                for number in range(100):
                    websocket.join(rooms[(first + number) % 3])
                    websocket.leave(rooms[(first + number) % 3])
            except BaseException as fault:
                faults.append(fault)

        threads = [threading.Thread(target=come_and_go, args=(first,)) for first in range(4)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            site.pause(0.005)
        site.tell(faults)
        site.tell((websocket.groups, [members_of(room) for room in rooms]))
        websocket.join(rooms[0])
        websocket.send("joined")
        websocket.wait()

    [peer] = joined(site(view))
    assert site.hear() == []
    assert site.hear() == (frozenset(), [0, 0, 0])
    rooms[0].send("hello")
    quiet(peer, "hello")


@pytest.mark.parametrize("forward", [True, False, lambda message: message.data], ids=["peer", "view", "function"])
def test_websocket_of_groups_that_is_over_is_freed_at_once(site: Site, forward: Any) -> None:
    alive: list[weakref.ref[Any]] = []
    room, other = new_room(), new_room()

    @require_websocket
    def view(request: Any) -> None:
        websocket = request.websocket
        websocket.join(room, forward=forward)
        websocket.join(other, forward=forward)
        websocket.send("joined")
        alive.extend(map(weakref.ref, (request, websocket)))
        for event in websocket.events():
            if event == "enough":
                websocket.leave(other)

    site(view, MIDDLEWARE=[])
    gc.collect()
    gc.disable()
    try:
        [peer] = joined(site)
        room.send("hello")
        other.send("hello")
        peer.send_message("enough")
        leave(peer)
        site.until_idle()
        until(lambda: not any(one() for one in alive), "the request to go")
    finally:
        gc.enable()


def test_websocket_that_was_refused_after_it_was_asked_for_its_groups_is_freed_at_once(site: Site) -> None:
    alive: list[weakref.ref[Any]] = []

    @require_websocket
    def view(request: Any) -> HttpResponse:
        alive.extend(map(weakref.ref, (request, request.websocket)))
        assert request.websocket.groups == frozenset()
        new_room().send("a", exclude=request.websocket)
        return HttpResponse("no WebSocket")

    site(view, MIDDLEWARE=[])
    gc.collect()
    gc.disable()
    try:
        assert site.handshake().status == 200
        site.until_idle()
        until(lambda: not any(one() for one in alive), "the request to go")
    finally:
        gc.enable()


# Several groups


def test_burst_over_several_groups_arrives_in_its_order(site: Site) -> None:
    rooms = [new_room() for _ in range(3)]
    one, two = joined(site(joining(*rooms)), 2)
    [only] = joined(site(joining(rooms[1])))
    expected = [f"{number} {number % 3}" for number in range(300)]
    for number, message in enumerate(expected):
        rooms[number % 3].send(message)
    assert [one.recv_message() for _ in expected] == expected
    assert [two.recv_message() for _ in expected] == expected
    assert [only.recv_message() for _ in expected[1::3]] == expected[1::3]


def test_peer_and_view_get_the_messages_of_their_groups(site: Site) -> None:
    room, own = new_room(), new_room()

    @require_websocket
    def view(request: Any) -> None:
        websocket = request.websocket
        websocket.join(room)
        websocket.join(own, forward=False)
        websocket.send("joined")
        for event in websocket.events():
            site.tell(event)

    [peer] = joined(site(view))
    for number in range(10):
        room.send(f"to the peer {number}")
        own.send(f"to the view {number}")
    assert [peer.recv_message() for _ in range(10)] == [f"to the peer {number}" for number in range(10)]
    assert [site.hear() for _ in range(10)] == [GroupMessage(own.name, f"to the view {n}") for n in range(10)]
    leave(peer)


# events()


@pytest.mark.parametrize("every", [0, -1, float("nan")])
def test_events_come_every_some_seconds(site: Site, every: float) -> None:
    @require_websocket
    def view(request: Any) -> None:
        with pytest.raises(ValueError, match="every is a number of seconds above 0"):
            request.websocket.events(every)
        request.websocket.send("still here")

    assert site(view).connect().recv_message() == "still here"


def test_ticks_messages_and_group_messages_come_in_one_loop(site: Site) -> None:
    room = new_room()

    @require_websocket
    def view(request: Any) -> None:
        websocket = request.websocket
        websocket.join(room, forward=False)
        websocket.send("joined")
        for event in websocket.events(every=0.02):
            site.tell(event)

    [peer] = joined(site(view))
    peer.send_message("message")
    room.send("group message")
    events: list[Any] = []
    while len([event for event in events if isinstance(event, Tick)]) < 4:
        events.append(site.hear())
    assert [event for event in events if isinstance(event, Tick)] == [Tick(1), Tick(2), Tick(3), Tick(4)]
    assert "message" in events
    assert GroupMessage(room.name, "group message") in events
    leave(peer)
    site.until_idle()


def test_ticks_do_not_stand_still_under_load_and_neither_source_waits_for_the_other(site: Site) -> None:
    room, over = new_room(), threading.Event()

    @require_websocket
    def view(request: Any) -> None:
        websocket = request.websocket
        websocket.join(room, forward=False, overflow="drop_oldest")
        websocket.send("joined")
        kinds: dict[str, int] = {"str": 0, "GroupMessage": 0, "Tick": 0, "Gap": 0}
        for event in websocket.events(every=0.01):
            kinds[type(event).__name__] += 1
            if min(kinds["str"], kinds["GroupMessage"]) >= 200 and kinds["Tick"] >= 3:
                break
        site.tell(kinds)

    def flood() -> None:
        while not over.is_set():
            for _ in range(20):
                room.send("x")
            time.sleep(0.001)

    [peer] = joined(site(view))
    sender = threading.Thread(target=flood)
    sender.start()
    try:
        for _ in range(1000):
            peer.send_message("y")
        kinds = site.hear()
    finally:
        over.set()
        sender.join()
    assert kinds["str"] >= 200
    assert kinds["GroupMessage"] >= 200


def test_messages_that_wait_on_both_sides_are_taken_in_turn(site: Site) -> None:
    room, go = new_room(), threading.Event()

    @require_websocket
    def view(request: Any) -> None:
        websocket = request.websocket
        websocket.join(room, forward=False)
        websocket.send("joined")
        site.wait_for(go)
        while websocket.count_messages() < 5 or len(websocket._opening.members()._events) < 5:
            site.pause(0.005)
        for number, event in enumerate(websocket.events(), 1):
            site.tell(type(event))
            if number == 10:
                break

    [peer] = joined(site(view))
    for number in range(5):
        room.send(str(number))
        peer.send_message(str(number))
    go.set()
    assert [site.hear() for _ in range(10)] == [GroupMessage, str] * 5


def test_events_end_with_the_connection_and_stay_at_their_end(site: Site) -> None:
    @require_websocket
    def view(request: Any) -> None:
        websocket = request.websocket
        websocket.send("joined")
        site.tell([*websocket.events()])
        site.tell([*websocket.events()])
        site.tell([*websocket.events(every=0.001)])
        with pytest.raises(WebSocketClosed):
            websocket.wait()

    [peer] = joined(site(view))
    peer.send_message("last words")
    leave(peer)
    assert [site.hear(), site.hear(), site.hear()] == [["last words"], [], []]


def test_events_accept_the_connection(site: Site) -> None:
    @require_websocket
    def view(request: Any) -> None:
        for event in request.websocket.events():
            request.websocket.send(event)

    peer = site(view).connect()
    peer.send_message("a")
    assert peer.recv_message() == "a"
    leave(peer)


def test_group_that_is_joined_inside_the_loop_counts(site: Site) -> None:
    room = new_room()

    @require_websocket
    def view(request: Any) -> None:
        websocket = request.websocket
        for event in websocket.events():
            if event == "join":
                websocket.join(room, forward=False)
                websocket.send("joined")
            else:
                websocket.send(event.data)

    peer = site(view).connect()
    peer.send_message("join")
    assert peer.recv_message() == "joined"
    room.send("hello")
    quiet(peer, "hello")


def test_streaming_view_gets_events_and_whole_messages(site: Site) -> None:
    room = new_room()

    @require_websocket(streaming=True)
    def view(request: Any) -> None:
        websocket = request.websocket
        websocket.join(room, forward=False)
        websocket.send("joined")
        for event in websocket.events():
            site.tell(event)

    [peer] = joined(site(view))
    peer.send_frame(1, b"one ", fin=False)
    room.send("in between")
    assert site.hear() == GroupMessage(room.name, "in between")
    peer.send_frame(0, b"message", fin=True)
    assert site.hear() == "one message"
    leave(peer)


def test_message_in_fragments_is_not_cut_by_messages_of_the_group(site: Site) -> None:
    room = new_room()

    @require_websocket
    def view(request: Any) -> None:
        websocket = request.websocket
        websocket.join(room)
        websocket.send("joined")

        def chunks() -> Any:
            for number in range(5):
                yield str(number)
                done = threading.Thread(target=room.send, args=(f"between {number}",))
                done.start()
                while done.is_alive():
                    site.pause(0.001)

        websocket.send_chunks(chunks())
        websocket.wait()

    [peer] = joined(site(view))
    quiet(peer, "01234", *(f"between {number}" for number in range(5)))


# A view that does not take its messages


def gathered(websocket: Any) -> list[str | bytes | None]:
    """The messages that wait for a view, up to the one that says "last"; None for a gap."""
    found: list[str | bytes | None] = []
    for event in websocket.events():
        found.append(event.data if isinstance(event, GroupMessage) else None)
        if found[-1] == "last":
            break
    return found


@pytest.mark.parametrize(
    ("overflow", "expected"),
    [
        ("drop_new", ["0", "1", "2", "3", "4", None]),
        ("drop_oldest", [None, "6", "7", "8", "9", "last"]),
        ("latest", ["last"]),
    ],
)
def test_view_that_does_not_come_for_its_messages_misses_some(
    site: Site, overflow: str, expected: list[str | None]
) -> None:
    room, go = new_room(), threading.Event()

    @require_websocket
    def view(request: Any) -> None:
        request.websocket.join(room, forward=False, overflow=overflow)
        request.websocket.send("joined")
        site.wait_for(go)
        site.tell(gathered(request.websocket))
        request.websocket.wait()

    with recorded(group_overflow) as overflows:
        [peer] = joined(site(view, WEBSOCKET_GROUPS={"default": {"OUTBOX_BYTES": 1010}}))  # five times 201
        for number in range(10):
            room.send(str(number), key="a")
        until(lambda: overflows, "the signal")
        room.send("last", key="a")
        settle(room)
        go.set()
        while overflow == "drop_new" and site.told.empty():
            room.send("last")
            settle(room)
        found = site.hear()
        assert {one["group"] for one in overflows} == {room.name}
        leave(peer)
        site.until_idle()
    assert found[: len(expected)] == expected


def test_view_that_does_not_come_for_its_messages_is_closed(site: Site) -> None:
    room, go = new_room(), threading.Event()

    @require_websocket
    def view(request: Any) -> None:
        request.websocket.join(room, forward=False)
        request.websocket.send("joined")
        site.wait_for(go)
        site.tell(len(gathered(request.websocket)))

    with recorded(group_overflow) as overflows:
        [peer] = joined(site(view, WEBSOCKET_GROUPS={"default": {"OUTBOX_BYTES": 1010}}))
        for number in range(10):
            room.send(str(number))
        settle(room)
        assert process.dispatcher("default").overflows == 1, "once, though more comes before the end"
        assert_ends(peer, 1013, "too slow")
        go.set()
        assert site.hear() <= 1, "its messages end with the connection"
        site.until_idle()
        until(lambda: overflows, "the signal")
    assert [one["group"] for one in overflows] == [room.name]
    assert overflows[0]["websocket"].close_code == 1013


# A peer that does not read

LARGE = "x" * 60_000


@pytest.mark.parametrize("several", [False, True], ids=["one group", "two groups"])
def test_peer_that_does_not_read_is_closed_and_delays_no_other(site: Site, several: bool) -> None:
    room = new_room()
    rooms = [room, new_room()][: 1 + several]
    with recorded(group_overflow) as overflows:
        slow, fast = joined(site(joining(*rooms), WEBSOCKET_GROUPS={"default": {"OUTBOX_BYTES": 100_000}}), 2)
        for number in range(300):
            rooms[number % len(rooms)].send(f"{number} {LARGE}")
            assert fast.recv_message().split()[0] == str(number)
            if overflows:
                break
        until(lambda: overflows, "the end of the slow one")
        received = []
        while not isinstance(message := slow.recv_message(), Close):
            received.append(int(message.split()[0]))
        assert message == Close(1013, "too slow")
        assert received == list(range(len(received))), "nothing is missing of what it got"
        room.send("last")
        assert fast.recv_message() == "last"
        leave(fast)
        slow.abandon()
        site.until_idle()
    [overflow] = overflows
    assert overflow["group"] in {one.name for one in rooms}
    assert isinstance(overflow["websocket"], overflow["sender"])


def test_peer_that_takes_too_long_for_what_it_was_sent_is_told_of_too(site: Site) -> None:
    """The time closes it, and no further message."""
    room = new_room()
    bounds = {"OUTBOX_BYTES": 100_000_000, "OUTBOX_SECONDS": 0.2}
    with recorded(group_overflow) as overflows:
        [slow] = joined(site(joining(room), WEBSOCKET_GROUPS={"default": bounds}, WEBSOCKET_CLOSE_TIMEOUT=0.2))
        for number in range(300):
            room.send(f"{number} {LARGE}")
        until(lambda: overflows, "the signal")
        slow.abandon()
        site.until_idle()
    assert [one["group"] for one in overflows] == [room.name]
    assert overflows[0]["websocket"].close_code == 1013


@pytest.mark.parametrize("overflow", ["drop_new", "drop_oldest", "latest"])
@pytest.mark.parametrize("several", [False, True], ids=["one group", "two groups"])
def test_peer_that_does_not_read_misses_whole_messages(site: Site, overflow: str, several: bool) -> None:
    room = new_room()
    rooms = [room, new_room()][: 1 + several]
    with recorded(group_overflow) as overflows:
        view = joining(*rooms, overflow=overflow)
        [slow] = joined(site(view, WEBSOCKET_GROUPS={"default": {"OUTBOX_BYTES": 1_000_000}}))
        for number in range(400):
            rooms[number % len(rooms)].send(f"{number} {LARGE}", key=str(number % 2))
        settle(room)
        until(lambda: overflows, "the signal")
        numbers: list[int] = []
        slow.send_message("to no other member")
        with contextlib.suppress(PeerTimeout):
            while True:
                numbers.append(int(slow.recv_message(timeout=0.3).split()[0]))
        assert numbers == sorted(set(numbers))
        assert len(numbers) < 400
        assert 399 in numbers or overflow == "drop_new"
        room.send("7 last")
        assert slow.recv_message() == "7 last"
        leave(slow)
        site.until_idle()
    assert {one["group"] for one in overflows} <= {one.name for one in rooms}


# Compression, and the end of a group


def test_compressed_and_plain_members_get_the_same(site: Site) -> None:
    room, text = new_room(), "the same words, and " * 100
    site(joining(room), WEBSOCKET_COMPRESSION=True)
    plain = site.connect()
    packed = site.connect(headers={"Sec-WebSocket-Extensions": "permessage-deflate"})
    assert plain.recv_message() == "joined"
    assert packed.recv_frame().payload == b"joined", "too short to be deflated"
    for _ in range(2):
        room.send(text)
        assert plain.recv_message() == text
        received = packed.recv_frame()
        assert received.rsv == 4
        assert len(received.payload) < len(text) / 10
        assert zlib.decompressobj(-15).decompress(received.payload + b"\0\0\xff\xff").decode() == text
    leave(plain)
    packed.abandon()


def test_group_that_is_disconnected_closes_all_its_members_behind_what_was_sent(site: Site) -> None:
    room, other = new_room(), new_room()
    members = joined(site(joining(room)), 3)
    [outside] = joined(site(joining(other)))
    room.send("last words")
    room.disconnect(4000, "closing time")
    for peer in members:
        assert peer.recv_message() == "last words"
        assert_ends(peer, 4000, "closing time")
    until(lambda: members_of(room) == 0)
    leave(outside)


# A history


def coming_back(site: Site, room: Group, **options: Any) -> Callable[..., None]:
    """A view that joins, tells what it has got for that, and passes on what comes for itself."""

    @require_websocket
    def view(request: Any) -> None:
        websocket = request.websocket
        site.tell(websocket.join(room, **options))
        for event in websocket.events():
            if isinstance(event, GroupMessage):
                site.tell(event)

    return view


def sent(room: Group, *messages: str) -> list[str]:
    """The positions of these messages."""
    positions = [room.send(message) for message in messages]
    assert None not in positions
    return [position for position in positions if position is not None]


def test_member_that_comes_back_gets_first_what_it_missed(site: Site) -> None:
    room = kept_room()
    positions = sent(room, *"12345")
    peer = site(coming_back(site, room, since=positions[1])).connect()
    assert site.hear() == Joined(positions[4], True, 3)
    room.send("6")
    quiet(peer, *"3456")


def test_member_that_missed_nothing_is_recovered(site: Site) -> None:
    room = kept_room()
    beginning = room.position()
    peer = site(coming_back(site, room, since=beginning)).connect()
    assert site.hear() == Joined(beginning, True, 0)
    leave(peer)
    [position] = sent(room, "1")
    peer = site(coming_back(site, room, since=position)).connect()
    assert site.hear() == Joined(position, True, 0)
    quiet(peer)


def test_member_that_does_not_ask_gets_what_comes_from_now_on(site: Site) -> None:
    room = kept_room()
    positions = sent(room, *"12")
    for since in (None, ""):
        peer = site(coming_back(site, room, since=since)).connect()
        assert site.hear() == Joined(positions[1], None, 0)
        quiet(peer)
    peer = site.connect()
    site.hear()
    room.send("3")
    quiet(peer, "3")


@pytest.mark.parametrize("since", ["too old", "foreign", "too far", "garbage", "-", "x" * 100, "e-\u0662", "START"])
def test_position_that_cannot_be_recovered_says_so(site: Site, since: str) -> None:
    room = kept_room(history=3)
    positions = sent(room, *"12345")
    known = {"too old": positions[0], "foreign": "0123456789ab-3", "too far": positions[4].replace("-5", "-6")}
    peer = site(coming_back(site, room, since=known.get(since, since))).connect()
    assert site.hear() == Joined(positions[4], False, 0)
    room.send("6")
    quiet(peer, "6")


def test_cleared_history_cannot_be_recovered(site: Site) -> None:
    room = kept_room()
    [before] = sent(room, "1")
    [member] = joined(site(joining(room)))
    room.clear()
    view = coming_back(site, room, since=before)
    peer = site(view).connect()
    assert site.hear() == Joined(room.position(), False, 0)
    room.send("2")
    quiet(peer, "2")
    quiet(member, "2")


@pytest.mark.parametrize("count", [2, 3, 7])
def test_member_that_wants_all_gets_what_is_kept(site: Site, count: int) -> None:
    room = kept_room(history=3)
    positions = sent(room, *map(str, range(count)))
    peer = site(coming_back(site, room, since=START)).connect()
    assert site.hear() == Joined(positions[-1], None, min(count, 3))
    room.send("last")
    quiet(peer, *[*map(str, range(count))][-3:], "last")


@pytest.mark.parametrize("has_member", [False, True])
def test_more_than_half_an_outbox_is_not_recovered(site: Site, has_member: bool) -> None:
    room = kept_room()
    site(joining(room), WEBSOCKET_GROUPS={"default": {"OUTBOX_BYTES": 20_000}})
    if has_member:
        joined(site)
    positions = sent(room, *("x" * 3000 for _ in range(5)))
    for missed, recovered in ((3, True), (4, False)):
        peer = site(coming_back(site, room, since=positions[4 - missed])).connect()
        assert site.hear() == Joined(positions[4], recovered, missed if recovered else 0)
        quiet(peer, *["x" * 3000] * (missed if recovered else 0))


def test_view_that_takes_its_messages_gets_what_it_missed_with_positions(site: Site) -> None:
    room = kept_room()
    positions = sent(room, *"123")
    peer = site(coming_back(site, room, since=positions[0], forward=False)).connect()
    assert site.hear() == Joined(positions[2], True, 2)
    positions += sent(room, "4")
    for number in (2, 3, 4):
        assert site.hear() == GroupMessage(room.name, str(number), positions[number - 1])
    quiet(peer)


@pytest.mark.parametrize("since", ["known", "gone", None])
def test_page_that_understands_it_is_told_first_where_it_is(site: Site, since: str | None) -> None:
    room = kept_room()
    positions = sent(room, *"123")
    asked = {"known": positions[1], "gone": "0123456789ab-3"}.get(since or "")
    peer = site(coming_back(site, room, since=asked, forward=page.envelope)).connect()
    site.hear()
    positions += sent(room, "4")
    recovered = {"known": True, "gone": False}.get(since or "")
    missed = [3, 4] if recovered else [4]
    texts = [json.loads(peer.recv_message()) for _ in range(1 + len(missed))]
    assert texts[0] == {"g": room.name, "p": positions[1 if recovered else 2], "joined": recovered}
    assert texts[1:] == [{"g": room.name, "p": positions[n - 1], "d": str(n)} for n in missed]
    quiet(peer)


def test_position_in_the_url_is_that_of_the_page_and_used_once(site: Site) -> None:
    room, other, plain = kept_room(), kept_room(), new_room()
    positions, others = sent(room, *"12"), sent(other, *"345")

    @require_websocket
    def view(request: Any) -> None:
        websocket = request.websocket
        for group in (room, other, plain, room):
            site.tell(websocket.join(group))
        websocket.leave(other)
        site.tell(websocket.join(other))
        websocket.wait()

    query = f"since={positions[0]}:{room.name}&since={others[0]}:{other.name}&since=1-1:{plain.name}&since=nonsense"
    peer = site(view).connect(path=f"/?{query}")
    assert [site.hear() for _ in range(5)] == [
        Joined(positions[1], True, 1),
        Joined(others[2], True, 2),
        Joined(None, None, 0),
        Joined(positions[1], None, 0),
        Joined(others[2], None, 0),
    ]
    quiet(peer, "2", "4", "5")


def test_view_that_says_since_itself_uses_up_that_of_the_url(site: Site) -> None:
    room = kept_room()
    positions = sent(room, *"123")

    @require_websocket
    def view(request: Any) -> None:
        for since in (positions[1], None):
            site.tell(request.websocket.join(room, since=since))
        request.websocket.wait()

    peer = site(view).connect(path=f"/?since={positions[0]}:{room.name}")
    assert [site.hear(), site.hear()] == [Joined(positions[2], True, 1), Joined(positions[2], None, 0)]
    quiet(peer, "3")


def test_url_that_says_start_gets_all(site: Site) -> None:
    room = kept_room()
    positions = sent(room, *"12")
    peer = site(coming_back(site, room)).connect(path=f"/?since={START}:{room.name}")
    assert site.hear() == Joined(positions[1], None, 2)
    quiet(peer, *"12")


def test_second_join_since_a_position_gives_the_messages_again(site: Site) -> None:
    room = kept_room()
    positions = sent(room, *"12")

    @require_websocket
    def view(request: Any) -> None:
        websocket = request.websocket
        site.tell(websocket.join(room, since=positions[0]))
        for message in websocket:
            site.tell(websocket.join(room, since=message or None, forward=lambda message: f"<{message.data}>"))

    peer = site(view).connect()
    assert site.hear() == Joined(positions[1], True, 1)
    room.send("3")
    assert [peer.recv_message(), peer.recv_message()] == ["2", "3"]
    peer.send_message(positions[0])
    assert site.hear() == Joined(room.position(), True, 2)
    room.send("4")
    assert members_of(room) == 1
    quiet(peer, "<2>", "<3>", "<4>")


@pytest.mark.parametrize("forward", [True, False, page.envelope], ids=["peer", "view", "envelope"])
def test_websocket_of_a_history_that_is_over_is_freed_at_once(site: Site, forward: Any) -> None:
    alive: list[weakref.ref[Any]] = []
    room = kept_room()
    positions = sent(room, *"123")

    @require_websocket
    def view(request: Any) -> None:
        websocket = request.websocket
        alive.extend(map(weakref.ref, (request, websocket)))
        function = (lambda message: str(request and message.data)) if forward is True else forward
        websocket.join(room, since=positions[0], forward=function)
        websocket.send("joined")
        websocket.wait()

    site(view, MIDDLEWARE=[])
    gc.collect()
    gc.disable()
    try:
        peer = site.connect()
        while peer.recv_message() != "joined":
            pass
        leave(peer)
        site.until_idle()
        until(lambda: not any(one() for one in alive), "the request to go")
    finally:
        gc.enable()


def test_pages_that_come_back_under_a_fast_sender_miss_nothing(site: Site) -> None:
    """2,000 messages in a second; each page is cut off again and again, and sends the last position it has."""
    room, over = kept_room(history=5000), threading.Event()
    counts: list[int] = []
    faults: list[BaseException] = []

    @require_websocket
    def view(request: Any) -> None:
        request.websocket.join(room, forward=page.envelope)
        request.websocket.wait()

    def send() -> None:
        began, number = time.monotonic(), 0
        while (passed := time.monotonic() - began) < 0.4:
            while number < passed * 2000:
                number += 1
                room.send(str(number))
            time.sleep(0.001)
        over.set()
        room.send(str(number + 1))  # for those that wait for one more

    def read(seed: int) -> None:
        choice, position, last, visits = random.Random(seed), "", 0, 0
        while not over.is_set() or visits < 2:  # once with a position at least
            peer = site.connect(path=f"/?since={position}:{room.name}")
            for at in range(1 if over.is_set() else choice.randrange(1, 60)):
                text = json.loads(peer.recv_message())
                if at:
                    assert text["d"] == str(last + 1) if last else True, "no hole, no double"
                    last = int(text["d"])
                else:
                    assert text["joined"] is (True if position else None)
                position = text["p"]
                if over.is_set():
                    break
            choice.choice([Peer.reset, Peer.abandon])(peer)
            visits += 1
        counts.append(visits)

    def reader(seed: int) -> None:
        try:
            read(seed)
        except BaseException as fault:
            faults.append(fault)

    site(view)
    threads = [threading.Thread(target=send), *(threading.Thread(target=reader, args=(seed,)) for seed in range(3))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert len(counts) == 3
    until(lambda: not members_of(room), "all to have left")
