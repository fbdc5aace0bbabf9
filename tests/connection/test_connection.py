"""One live connection on either reactor, its peer at the other end of the socket: what it receives, and its faults."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import zlib
from collections.abc import Callable
from typing import Any, TypeVar
from unittest import mock

import pytest

from dwebsocket.protocol import endpoint, frames
from dwebsocket.protocol.codes import Opcode
from dwebsocket.protocol.deflate import NAME, Compression, PerMessageDeflate, agree
from dwebsocket.protocol.exceptions import WebSocketClosed
from dwebsocket.protocol.handshake import Offer
from dwebsocket.protocol.messages import Part
from tests.connection.helpers import MIB, Connect, echo, fill, parked
from tests.links import PATIENCE_SECONDS, Home, Link, assert_ends, descriptors, until
from tests.peer import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Close, Frame, close_payload, frame, text

Deflate = TypeVar("Deflate", bound=PerMessageDeflate)


# Messages


def test_response_goes_out_before_anything_else(link: Connect) -> None:
    a = link(response=b"HTTP/1.1 101 Switching Protocols\r\n\r\n", early=text("early"))
    assert a.peer.recv_response().status == 101
    assert a.do("receive", 5) == "early"


def test_early_bytes_that_end_within_a_frame_are_continued_by_the_socket(link: Connect) -> None:
    whole = text("one") + text("two")
    a = link(early=whole[:12])
    a.peer.send_raw(whole[12:])
    assert [a.do("receive", 5), a.do("receive", 5)] == ["one", "two"]


def test_early_ping_is_answered(link: Connect) -> None:
    a = link(early=frame(PING, b"early"))
    assert a.peer.recv_frame() == Frame(PONG, b"early")


@pytest.mark.parametrize(
    "message", ["Grüße 🎉", "", b"\x00\xff", b"", "x" * 70_000, bytes(MIB)], ids=lambda m: repr(m)[:12]
)
def test_message_arrives_as_it_was_sent_both_ways(link: Connect, message: str | bytes) -> None:
    a = link()
    received = a.start("receive", 5)
    a.peer.send_message(message)
    assert received.result(PATIENCE_SECONDS) == message
    answering = a.start("send", message)
    assert a.peer.recv_message() == message
    answering.result(PATIENCE_SECONDS)


def test_receive_that_waits_is_woken_by_the_message(link: Connect) -> None:
    a = link()
    received = parked(a, "receive")
    a.peer.send_message("there")
    assert received.result(PATIENCE_SECONDS) == "there"


def test_receive_with_a_timeout_returns_none_and_leaves_the_connection_open(link: Connect) -> None:
    a = link()
    assert a.do("receive", 0.05) is None
    assert not a.closed
    a.peer.send_message("later")
    assert a.do("receive", 5) == "later"


@pytest.mark.parametrize("seconds", [10**7, 10**10, float("inf")], ids=str)
def test_receive_with_a_very_long_timeout_waits(link: Connect, seconds: float) -> None:
    a = link()
    received = parked(a, "receive", seconds)
    a.peer.send_message("there")
    assert received.result(PATIENCE_SECONDS) == "there"


@pytest.mark.parametrize("seconds", [0, -1])
def test_receive_without_time_returns_at_once_what_is_there(link: Connect, seconds: float) -> None:
    a = link()
    assert a.do("receive", seconds) is None
    a.peer.send_message("there")
    assert until(lambda: a.do("receive", seconds)) == "there"


def test_receive_without_time_ignores_half_a_message(link: Connect) -> None:
    a = link()
    half = frame(TEXT, b"half", fin=False) + frame(CONTINUATION, b" a message")[:-1]
    a.peer.send_raw(half)
    until(lambda: a.connection.bytes_received == len(half))
    assert a.do("receive", 0) is None
    assert a.do("waiting") == 0


def test_message_that_has_arrived_is_found_at_once_by_a_view_that_never_paused(link: Connect) -> None:
    a = link()

    def compute_and_look() -> list[Any]:
        """Everything happens without the reactor getting a chance in between."""
        a.peer.send_message("first")
        found = [a.connection.waiting(), a.connection.receive(0)]
        a.peer.send_message("second")
        return [*found, a.connection.receive(0)]

    assert a.home.do(compute_and_look) == [1, "first", "second"]


def test_waiting_counts_complete_messages(link: Connect) -> None:
    a = link()
    assert a.do("waiting") == 0
    a.peer.send_raw(text("one") + text("two") + text("three")[:-1])
    assert until(lambda: a.do("waiting") == 2)
    assert a.do("receive", 0) == "one"
    assert a.do("waiting") == 1


def test_two_receivers_get_different_messages(link: Connect) -> None:
    a = link()
    receivers = [parked(a, "receive", 5) for _ in range(2)]
    a.peer.send_raw(text("one") + text("two"))
    assert {receiver.result(PATIENCE_SECONDS) for receiver in receivers} == {"one", "two"}


def test_receiver_takes_over_when_the_one_that_polled_is_served(link: Connect) -> None:
    a = link()
    receivers = [parked(a, "receive", 5) for _ in range(3)]
    for number in range(3):
        a.peer.send_message(str(number))
        until(lambda served=number + 1: sum(receiver.done() for receiver in receivers) == served)
    assert {receiver.result(PATIENCE_SECONDS) for receiver in receivers} == {"0", "1", "2"}


def test_receiver_with_a_timeout_behind_another_returns_none_in_time(link: Connect) -> None:
    a = link()
    first = parked(a, "receive")
    assert a.do("receive", 0.05) is None
    a.peer.send_message("for the first")
    assert first.result(PATIENCE_SECONDS) == "for the first"


def test_messages_survive_any_cut_on_the_wire(link: Connect) -> None:
    a = link()
    receiving = a.home.start(lambda: [a.connection.receive(5), a.connection.receive(5)])
    for byte in text("cut") + frame(BINARY, bytes(300)):
        a.peer.send_raw(bytes([byte]))
    assert receiving.result(PATIENCE_SECONDS) == ["cut", bytes(300)]


# Control frames, while nobody reads


def test_ping_is_answered_while_nobody_reads(link: Connect) -> None:
    a = link()
    a.peer.send_frame(PING, b"are you there?")
    assert a.peer.recv_frame() == Frame(PONG, b"are you there?")


def test_ping_is_answered_while_somebody_waits(link: Connect) -> None:
    a = link()
    received = parked(a, "receive")
    a.peer.send_frame(PING, b"1")
    assert a.peer.recv_frame() == Frame(PONG, b"1")
    a.peer.send_message("2")
    assert received.result(PATIENCE_SECONDS) == "2"


def test_pong_nobody_asked_for_is_ignored(link: Connect) -> None:
    a = link()
    a.peer.send_frame(PONG, b"unasked")
    a.peer.send_message("go on")
    assert a.do("receive", 5) == "go on"
    assert a.connection.latency is None


# What is made when it is first needed


def test_connection_with_one_message_in_flight_has_no_outbox_no_batch_and_no_end(link: Connect) -> None:
    a = link()
    for _ in range(3):
        a.peer.send_message("echo")
        a.home.do(echo, a, 1)
        assert a.peer.recv_message() == "echo"
    assert (a.connection._outbox, a.connection._batch, a.connection._ending) == (None, None, None)


def test_connection_that_streams_gives_the_parts_of_a_message(link: Connect) -> None:
    a = link(streaming=True)
    a.peer.send_frame(TEXT, b"one ", fin=False)
    assert a.do("receive", 5) == Part("one ", False)
    a.peer.send_frame(CONTINUATION, b"message")
    assert a.do("receive", 5) == Part("message", True)


# The inbox is full: reading stops


@pytest.mark.parametrize(
    "limits",
    [{"receive_queue": 2}, {"max_message_size": 20_000}, {"receive_queue": 2, "max_message_size": None}],
    ids=str,
)
def test_full_inbox_stops_reading_until_a_message_is_taken(link: Connect, limits: dict[str, Any]) -> None:
    a = link(**limits)
    message = b"x" * 10_000
    sent = fill(a.peer, frame(BINARY, message))
    assert sent < 2 * MIB  # what the kernel holds, and little more
    assert len(a.connection._inbox) <= 2 + 64 * 1024 // len(message)  # what one read brings
    whole, rest = divmod(sent, len(frame(BINARY, message)))
    for _ in range(whole):
        assert a.do("receive", 5) == message
    if rest:
        a.peer.send_raw(frame(BINARY, message)[rest:])
        assert a.do("receive", 5) == message
    a.peer.send_message("and on")
    assert a.do("receive", 5) == "and on"


@pytest.mark.parametrize(
    ("message", "fit"), [("a" * 1000, 10), ("é" * 1000, 10), ("ā" * 1000, 5), ("🎉" + "a" * 999, 3)], ids=ascii
)
def test_inbox_counts_the_bytes_that_a_text_takes_in_memory(link: Connect, message: str, fit: int) -> None:
    a = link(max_message_size=10_000)
    burst = text(message) * 20
    assert in_one_turn(a, burst, lambda: len(a.connection._inbox)) == fit
    assert [a.do("receive", 5) for _ in range(20)] == [message] * 20
    assert in_one_turn(a, burst, lambda: len(a.connection._inbox)) == fit  # nothing was left of the count


def test_close_behind_a_full_inbox_is_noticed_after_the_messages(link: Connect) -> None:
    a = link(receive_queue=1)
    a.peer.send_message("first")
    until(lambda: a.do("waiting"))
    a.peer.send_raw(text("second") + text("third"))
    a.peer.send_close(1001)
    assert [a.do("receive", 5) for _ in range(4)] == ["first", "second", "third", None]
    assert a.peer.recv_message() == Close(1001)


# Faults and leaks


class Faulty:
    """An extension that has never been tried."""

    uses_rsv1 = False

    def wire_size(self, message_size: int) -> int:
        return message_size

    def decode(self, frame: frames.Frame) -> frames.Frame:
        raise ZeroDivisionError

    def encode(self, frame: frames.Frame) -> frames.Frame:
        return frame


def test_fault_of_ours_drops_this_connection_and_is_logged(link: Connect, caplog: pytest.LogCaptureFixture) -> None:
    a, other = link(extensions=[Faulty()]), link()
    a.peer.send_message("boom")
    a.until_disposed()
    assert a.closed
    record = next(record for record in caplog.records if record.name == "dwebsocket")
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None and record.exc_info[0] is ZeroDivisionError
    other.peer.send_message("unharmed")
    assert other.do("receive", 5) == "unharmed"


@pytest.mark.parametrize("how", ["close", "eof", "reset", "garbage", "half a frame"])
def test_end_of_a_connection_logs_nothing(link: Connect, caplog: pytest.LogCaptureFixture, how: str) -> None:
    a = link(tcp=True)
    if how == "close":
        a.peer.close()
    elif how == "reset":
        a.peer.reset()
    elif how == "garbage":
        a.peer.send_raw(os.urandom(4096))
    elif how == "half a frame":
        a.peer.send_raw(text("half")[:3])
    a.peer.abandon()
    a.until_disposed()
    with pytest.raises(WebSocketClosed):
        a.do("send", "to nobody")
    assert a.do("receive") is None
    assert caplog.records == []


def test_two_hundred_connections_leave_no_descriptor_and_no_thread_behind(link: Connect, home: Home) -> None:
    warm_up = link()
    warm_up.do("receive", 0.01)
    warm_up.do("abort", "warm")
    warm_up.until_disposed()
    warm_up.peer.abandon()
    before, threads_before = descriptors(), threading.active_count()
    for number in range(200):
        a = link()
        received = a.start("receive", 5)
        a.peer.send_message(str(number))
        assert received.result(PATIENCE_SECONDS) == str(number)
        a.peer.send_close()
        assert a.do("receive") is None
        a.peer.abandon()
        a.do("finish")
    until(lambda: descriptors() <= before, "the descriptors to come back")
    until(lambda: threading.active_count() <= threads_before, "the threads to end")


# From elsewhere


def test_every_verb_works_from_a_thread_that_has_no_hub(link: Connect) -> None:
    a = link()
    a.peer.send_raw(text("one") + text("two"))
    assert until(lambda: a.connection.waiting() == 2)
    assert a.connection.receive(5) == "one"
    assert a.connection.receive() == "two"
    a.connection.send("back")
    assert a.peer.recv_message() == "back"
    assert not a.connection.closed
    a.connection.close(1001)
    assert_ends(a.peer, 1001)
    with pytest.raises(WebSocketClosed) as caught:
        a.connection.send("too late")
    assert caught.value.close_code == 1001
    assert a.connection.closed


def test_threads_without_a_hub_send_whole_messages(link: Connect) -> None:
    a = link()
    threads = [threading.Thread(target=a.connection.send, args=[chr(97 + n) * 100_000]) for n in range(6)]
    for thread in threads:
        thread.start()
    assert {a.peer.recv_message() for _ in threads} == {chr(97 + n) * 100_000 for n in range(6)}
    for thread in threads:
        thread.join(PATIENCE_SECONDS)


def test_hub_goes_on_while_a_thread_without_one_waits_for_a_message(link: Connect, home: Home) -> None:
    a, b = link(), link()
    received: list[Any] = []
    waiting = threading.Thread(target=lambda: received.append(a.connection.receive()))
    waiting.start()
    b.peer.send_message("b goes on")
    assert b.do("receive", 5) == "b goes on"
    a.peer.send_message("at last")
    waiting.join(PATIENCE_SECONDS)
    assert received == ["at last"]


# What an attacker tried


@pytest.mark.parametrize("how", ["half_close", "reset", "abandon"])
def test_peer_that_leaves_behind_a_full_inbox_is_noticed_though_nobody_reads(link: Connect, how: str) -> None:
    a = link(receive_queue=2, ping_interval=0.1, close_timeout=0.2)
    a.peer.send_raw(text("unread") * 10)
    until(lambda: a.do("waiting") >= 2)
    a.peer.send_raw(text("unread") * 10)
    getattr(a.peer, how)()
    a.until_disposed()
    assert a.closed


@pytest.mark.parametrize("receive_queue", [2, 32])
@pytest.mark.parametrize("how", ["half_close", "abandon"])
def test_view_that_takes_its_time_for_each_message_loses_none_of_a_peer_that_has_left(
    link: Connect, how: str, receive_queue: int
) -> None:
    a = link(receive_queue=receive_queue, ping_interval=0.1, close_timeout=0.5)
    a.peer.send_raw(b"".join(text(str(number)) for number in range(10)) + frame(CLOSE, close_payload(1001)))
    getattr(a.peer, how)()

    def take_slowly() -> str | None:
        a.home.pause(0.08)  # ten of them are more than `close_timeout`, each alone much less
        return a.connection.receive(5)  # type: ignore[return-value]

    assert [a.home.do(take_slowly) for _ in range(11)] == [*map(str, range(10)), None]
    assert a.connection.endpoint.close_code == 1001


def test_messages_and_close_of_a_peer_that_left_are_taken_though_a_send_to_it_failed(link: Connect) -> None:
    a = link()
    a.peer.send_raw(text("last words") + frame(CLOSE, close_payload(1001)))
    a.peer.abandon()

    def send_until_closed() -> WebSocketClosed:
        while True:
            try:
                a.connection.send("too late")
            except WebSocketClosed as error:
                return error

    assert a.home.do(send_until_closed).close_code == 1001
    assert a.do("receive") == "last words"
    assert a.do("receive") is None
    assert a.connection.endpoint.close_code == 1001


def test_memory_of_a_connection_is_freed_at_its_end_without_the_garbage_collector(link: Connect) -> None:
    a = link()
    a.peer.send_raw(frame(BINARY, bytes(MIB // 2), fin=False) + frame(CONTINUATION, bytes(MIB // 2))[:-1])
    until(lambda: len(getattr(a.connection.endpoint._assembler, "_parts", None) or b"") == MIB - 1)
    a.peer.reset()
    a.until_disposed()
    assert not a.connection.endpoint._assembler._parts
    assert not a.connection.endpoint.parser.buffered
    assert a.connection._link._served is None  # which would hold the connection, as that holds it


# More in one read than there is room or time for


class Counting(PerMessageDeflate):
    """Tells what it has inflated."""

    inflated_bytes = 0

    def decode(self, frame: frames.Frame) -> frames.Frame:
        decoded = super().decode(frame)
        self.inflated_bytes += len(decoded.payload)
        return decoded


def deflate(kind: Callable[..., Deflate] = PerMessageDeflate, *, max_message_size: int = MIB) -> Deflate:
    agreement = agree([Offer(NAME, [])], Compression())
    assert agreement is not None
    return kind(agreement, Compression(), max_message_size=max_message_size)


def test_messages_that_came_in_one_read_are_inflated_as_they_are_taken(link: Connect) -> None:
    a = link(extensions=[deflate()])
    client = deflate()
    messages = [client.encode(frames.Frame(Opcode.TEXT, b"x" * MIB)).payload for _ in range(40)]
    burst = b"".join(frame(TEXT, payload, rsv=4) for payload in messages)
    assert len(burst) < 64 * 1024
    a.peer.send_raw(burst)
    until(lambda: a.do("waiting"))
    for _ in messages:
        assert a.do("waiting") == 1
        assert a.do("receive", 5) == "x" * MIB
    assert a.do("waiting") == 0


def in_one_turn(a: Link, burst: bytes, outcome: Callable[[], Any]) -> Any:
    """``outcome()`` as it is when ``burst`` has been read, and before anything else can have its turn."""

    def turn() -> Any:
        with a.connection.lock or contextlib.nullcontext():
            a.peer.send_raw(burst)
            a.connection.on_readable()
            return outcome()

    return a.home.do(turn)


def test_turn_is_over_when_much_was_inflated_though_few_frames_were_looked_at(link: Connect) -> None:
    counting = deflate(Counting, max_message_size=64 * MIB)
    a = link(extensions=[counting], max_message_size=64 * MIB)
    client = zlib.compressobj(wbits=-15)
    fragments = [client.compress(bytes(MIB // 4)) + client.flush(zlib.Z_SYNC_FLUSH) for _ in range(40)]
    burst = b"".join(
        frame(CONTINUATION if index else BINARY, fragment, fin=index == 39, rsv=0 if index else 4)
        for index, fragment in enumerate(fragments)
    )
    assert len(burst) < 64 * 1024
    assert in_one_turn(a, burst, lambda: counting.inflated_bytes) == MIB
    assert a.do("receive", 5) == bytes(10 * MIB)


def test_bomb_behind_our_close_frame_does_not_go_off(link: Connect) -> None:
    counting = deflate(Counting)
    a = link(extensions=[counting])
    a.do("close")
    bomb = frame(BINARY, deflate().encode(frames.Frame(Opcode.BINARY, bytes(MIB))).payload, rsv=4)
    assert in_one_turn(a, bomb * 10, lambda: counting.inflated_bytes) == 0
    a.peer.send_raw(frame(PING, b"still here"))
    assert a.peer.recv_message() == Close(1000)
    assert a.peer.recv_frame() == Frame(PONG, b"still here")
    a.peer.send_close()
    assert a.peer.read_to_eof() == b""
    a.peer.abandon()


def test_end_behind_messages_that_are_dropped_is_found(link: Connect) -> None:
    a = link(receive_queue=1)
    a.peer.send_raw(text("first") + text("unparsed") + frame(CLOSE, close_payload(1000)))
    until(lambda: a.do("waiting"))
    finishing = a.start("finish")
    assert a.peer.recv_message() == Close(1000)
    a.peer.half_close()
    finishing.result(PATIENCE_SECONDS / 2)  # it is not the close timeout that ends it


@pytest.mark.parametrize("waits", [True, False], ids=["waiting", "busy"])
@pytest.mark.parametrize(
    "burst",
    [
        frame(PING) * 3000 + text("last"),
        frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 3000 + frame(CONTINUATION, b"last"),
    ],
    ids=["pings", "empty-fragments"],
)
def test_what_stands_behind_thousands_of_frames_in_one_read_is_found(link: Connect, burst: bytes, waits: bool) -> None:
    a = link()
    assert len(burst) < 64 * 1024
    taking = a.start("receive", 5) if waits else None
    a.peer.send_raw(burst)
    if taking is None:
        until(lambda: a.connection._inbox)
        taking = a.start("receive", 5)
    assert taking.result(PATIENCE_SECONDS) == "last"


@pytest.mark.parametrize("waits", [True, False], ids=["waiting", "busy"])
@pytest.mark.parametrize("flood", [frame(PING), frame(PONG), frame(CONTINUATION, fin=False)], ids=["9", "10", "0"])
def test_peer_that_floods_frames_without_content_is_ended(link: Connect, flood: bytes, waits: bool) -> None:
    with (
        mock.patch.object(endpoint, "MAX_EMPTY_FRAMES", 1000),
        mock.patch.object(endpoint, "EMPTY_FRAMES_PER_SECOND", 50),
    ):
        a = link(early=text("before") if waits else b"")
        if waits:
            assert a.do("receive", 5) == "before"
            taking = a.start("receive", PATIENCE_SECONDS)
        a.peer.send_raw(frame(TEXT, fin=False) + flood * 5000)
        while (message := a.peer.recv_frame()).opcode == PONG:
            pass
        assert message == Frame(CLOSE, close_payload(1008, "too many frames without content"))
        assert not waits or taking.result(PATIENCE_SECONDS) is None


def test_connection_given_up_with_frames_not_looked_at_is_not_called_back(link: Connect) -> None:
    given_up = link(receive_queue=1, early=text("one") + text("two"))
    given_up.do("abort", "the peer did not read")
    given_up.do("finish")
    given_up.home.do(given_up.home.pause, 0.02)  # on the hub, a call that was asked for has had its turn: no fault


# Who may still answer


def test_answer_of_one_view_still_leaves_when_another_comes_back_for_more(link: Connect) -> None:
    a = link()
    receiving = [parked(a, "receive", 5) for _ in range(2)]
    a.peer.send_raw(text("one") + text("two") + frame(CLOSE, close_payload(1001)))
    assert {one.result(PATIENCE_SECONDS) for one in receiving} == {"one", "two"}
    back = a.start("receive")
    assert back.result(PATIENCE_SECONDS) is None
    a.do("send", "the other's answer")
    assert a.peer.recv_message() == "the other's answer"
    assert a.do("receive") is None
    assert a.peer.recv_message() == Close(1001)


# A wait that can be called off


def test_wait_is_called_off_at_once_where_its_reason_is_there_before_a_message(link: Connect) -> None:
    a = link()
    assert a.do("receive", None, lambda: True) is None
    a.peer.send_message("first of all")
    until(lambda: a.do("waiting"))
    assert a.do("receive", None, lambda: True) == "first of all"


@pytest.mark.parametrize("caller", ["another thread", "its own kind"])
@pytest.mark.parametrize("timeout", [None, 60])
def test_wait_is_called_off_by_a_notice(link: Connect, caller: str, timeout: float | None) -> None:
    a = link()
    events: list[str] = []
    asked: list[int] = []

    def unless() -> bool:
        asked.append(1)
        return bool(events)

    receiving = parked(a, "receive", timeout, unless)
    before = len(asked)
    notify = a.connection.notify if caller == "another thread" else lambda: a.do("notify")
    notify()
    until(lambda: len(asked) > before)
    assert not receiving.done()
    events.append("something else")
    notify()
    assert receiving.result(PATIENCE_SECONDS) is None
    assert not a.closed
    events.clear()
    a.peer.send_message("and on")
    assert a.do("receive", 5, unless) == "and on"


def test_wait_that_can_be_called_off_ends_with_its_time_a_message_and_the_end(link: Connect) -> None:
    a = link()
    assert a.do("receive", 0, lambda: False) is None
    assert a.do("receive", 0.01, lambda: False) is None
    receiving = parked(a, "receive", None, lambda: False)
    a.peer.send_message("there")
    assert receiving.result(PATIENCE_SECONDS) == "there"
    receiving = parked(a, "receive", None, lambda: False)
    a.peer.send_close()
    assert receiving.result(PATIENCE_SECONDS) is None


def test_view_that_always_has_something_else_to_do_gets_its_messages_and_lets_others_run(link: Connect) -> None:
    a = link()

    def view() -> list[Any]:
        messages: list[Any] = []
        while len(messages) < 3:
            if message := a.connection.receive(None, lambda: True):
                messages.append(message)
        return messages

    viewing = a.home.start(view)
    assert a.home.do(lambda: "others run") == "others run"
    for message in ("one", "two", "three"):
        a.peer.send_message(message)
    assert viewing.result(PATIENCE_SECONDS) == ["one", "two", "three"]


def test_parts_of_a_message_are_kept_where_the_wait_for_the_rest_is_called_off(link: Connect) -> None:
    a = link(streaming=True)
    events: list[str] = []
    a.peer.send_frame(TEXT, b"one ", fin=False)
    until(lambda: a.do("look") or a.connection._inbox)
    receiving = parked(a, "receive_whole", None, lambda: bool(events))
    events.append("something else")
    a.connection.notify()
    assert receiving.result(PATIENCE_SECONDS) is None
    a.peer.send_frame(CONTINUATION, b"message")
    assert a.do("receive_whole", 5, lambda: False) == "one message"


def test_notice_does_not_wait_for_a_call_that_is_not_over(link: Connect) -> None:
    a = link()
    entered, go_on = threading.Event(), threading.Event()

    def stay_inside() -> None:
        entered.set()
        assert go_on.wait(PATIENCE_SECONDS)

    # under threads it holds the lock; under gevent, the hub stands still
    staying = a.home.start(a.connection.call_on_reactor, stay_inside, ())
    assert entered.wait(PATIENCE_SECONDS)
    a.connection.notify()
    assert not staying.done()
    go_on.set()
    staying.result(PATIENCE_SECONDS)
