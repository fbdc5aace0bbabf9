"""One live connection on either reactor, its peer at the other end of the socket."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import socket
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import wait as wait_for_all
from typing import Any, TypeVar, cast
from unittest import mock

import pytest

from dwebsocket.connection.ending import RULES, Phase
from dwebsocket.protocol import endpoint, frames
from dwebsocket.protocol.codes import Opcode
from dwebsocket.protocol.deflate import NAME, Compression, PerMessageDeflate, agree
from dwebsocket.protocol.endpoint import State
from dwebsocket.protocol.exceptions import SendTimeout, WebSocketClosed
from dwebsocket.protocol.handshake import Offer
from dwebsocket.protocol.messages import Part
from tests.links import PATIENCE_SECONDS, Home, Hub, Link, assert_ends, descriptors, until
from tests.peer import (
    BINARY,
    CLOSE,
    CONTINUATION,
    NO_STATUS,
    PING,
    PONG,
    TEXT,
    Close,
    Frame,
    Peer,
    PeerClosed,
    PeerTimeout,
    close_payload,
    frame,
    text,
)

Connect = Callable[..., Link]
Deflate = TypeVar("Deflate", bound=PerMessageDeflate)

MIB = 1 << 20
FOREVER = 3600.0  # seconds: not within this test


PINGS = frame(PING, bytes(125)) * 100


def fill(peer: Peer, data: bytes, limit: int = 16 * MIB) -> int:
    """Send ``data`` again and again until the connection takes no more for a while; how many bytes it took."""
    peer.sock.settimeout(0.5)
    sent = 0
    while sent < limit:
        try:
            sent += peer.sock.send(data[sent % len(data) :])
        except TimeoutError:
            return sent
    raise AssertionError(f"the connection took {sent} bytes and would take more")


def until_blocked(sending: Any) -> None:
    """Return when a send that has no room is under way."""
    time.sleep(0.05)
    assert not sending.done()


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
    received = a.start("receive")
    time.sleep(0.05)
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
    received = a.start("receive", seconds)
    time.sleep(0.05)
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
    a.peer.send_frame(TEXT, b"half", fin=False)
    a.peer.send_raw(frame(CONTINUATION, b" a message")[:-1])
    time.sleep(0.05)
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
    receivers = [a.start("receive", 5) for _ in range(2)]
    time.sleep(0.05)
    a.peer.send_raw(text("one") + text("two"))
    assert {receiver.result(PATIENCE_SECONDS) for receiver in receivers} == {"one", "two"}


def test_receiver_takes_over_when_the_one_that_polled_is_served(link: Connect) -> None:
    a = link()
    receivers = [a.start("receive", 5) for _ in range(3)]
    for number in range(3):
        time.sleep(0.02)
        a.peer.send_message(str(number))
    assert {receiver.result(PATIENCE_SECONDS) for receiver in receivers} == {"0", "1", "2"}


def test_receiver_with_a_timeout_behind_another_returns_none_in_time(link: Connect) -> None:
    a = link()
    first = a.start("receive")
    time.sleep(0.05)
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
    received = a.start("receive")
    time.sleep(0.05)
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


# Sending


def test_send_blocks_while_the_peer_is_slow_and_returns_when_it_has_read(link: Connect) -> None:
    a = link()
    sending = a.start("send", bytes(8 * MIB))
    until_blocked(sending)
    assert a.peer.recv_message() == bytes(8 * MIB)
    sending.result(PATIENCE_SECONDS)


def test_send_to_a_peer_that_does_not_read_raises_send_timeout_and_drops_the_connection(link: Connect) -> None:
    a = link(send_timeout=0.3)
    with pytest.raises(SendTimeout) as caught:
        a.do("send", bytes(8 * MIB))
    assert caught.value.close_code == 1006
    assert caught.value.close_reason == "the peer did not read for 0.3 seconds"
    assert a.closed
    a.until_disposed()
    with pytest.raises(WebSocketClosed) as later:
        a.do("send", "more")
    assert not isinstance(later.value, SendTimeout)
    assert a.do("receive") is None


def test_pongs_that_are_not_read_drop_the_connection_after_send_timeout(link: Connect) -> None:
    a = link(send_timeout=0.3)
    with contextlib.suppress(BrokenPipeError):
        for _ in range(100):
            a.peer.send_raw(PINGS)
    a.until_disposed()
    assert a.connection.endpoint.close_reason == "the peer did not read for 0.3 seconds"


def test_send_to_a_peer_that_reads_but_too_slowly_for_the_message_raises_send_timeout(link: Connect) -> None:
    a = link(send_timeout=0.5)
    sending = a.start("send", bytes(32 * MIB))
    while not sending.done():
        a.peer.sock.recv(16 * 1024)
        time.sleep(0.01)
    with pytest.raises(SendTimeout):
        sending.result()
    a.until_disposed()


def test_send_without_send_timeout_waits_as_long_as_it_takes(link: Connect) -> None:
    a = link(send_timeout=None)
    sending = a.start("send", bytes(8 * MIB))
    until_blocked(sending)
    assert a.peer.recv_message() == bytes(8 * MIB)
    sending.result(PATIENCE_SECONDS)


def test_slow_but_steady_peer_is_no_stall(link: Connect) -> None:
    a = link(send_timeout=5, ping_interval=0.05)
    sending = a.start("send", bytes(4 * MIB))
    received = 0
    while received < 4 * MIB:
        time.sleep(0.001)
        received += len(a.peer.sock.recv(64 * 1024))
    sending.result(PATIENCE_SECONDS)
    assert not a.closed


def test_messages_of_many_senders_are_whole_and_in_the_order_of_each(link: Connect) -> None:
    a = link()
    senders, each = 8, 40

    def send_all(name: str) -> None:
        for number in range(each):
            a.connection.send(f"{name} {number} " + name * (number * 997 % 20_000))

    sending = [a.home.start(send_all, chr(ord("a") + number)) for number in range(senders)]
    received: dict[str, list[int]] = {}
    for _ in range(senders * each):
        message = a.peer.recv_message()
        assert isinstance(message, str)
        name, number, body = message.split(" ", 2)
        assert set(body) <= {name}
        received.setdefault(name, []).append(int(number))
    assert received == {chr(ord("a") + number): list(range(each)) for number in range(senders)}
    wait_for_all(sending, PATIENCE_SECONDS)


def test_receiver_gets_messages_while_a_sender_is_blocked(link: Connect) -> None:
    a = link()
    sending = a.start("send", bytes(4 * MIB))
    until_blocked(sending)
    received = a.start("receive", 5)
    a.peer.send_message("meanwhile")
    assert received.result(PATIENCE_SECONDS) == "meanwhile"
    assert a.peer.recv_message() == bytes(4 * MIB)
    sending.result(PATIENCE_SECONDS)


def test_sender_that_is_blocked_is_woken_by_the_reset_of_the_peer(link: Connect) -> None:
    a = link(tcp=True)
    sending = a.start("send", bytes(32 * MIB))
    until_blocked(sending)
    a.peer.reset()
    with pytest.raises(WebSocketClosed) as caught:
        sending.result(PATIENCE_SECONDS)
    assert caught.value.close_code == 1006
    a.until_disposed()


def test_sender_that_is_blocked_is_woken_by_abort(link: Connect) -> None:
    a = link()
    sending = a.start("send", bytes(4 * MIB))
    until_blocked(sending)
    a.do("abort", "enough")
    with pytest.raises(WebSocketClosed) as caught:
        sending.result(PATIENCE_SECONDS)
    assert (caught.value.close_code, caught.value.close_reason) == (1006, "enough")


def test_send_that_has_left_whole_raises_nothing_though_the_connection_ends_behind_it(link: Connect) -> None:
    a = link()
    sending = a.start("send", bytes(4 * MIB))
    until_blocked(sending)
    a.do("close", 1001)
    assert a.peer.recv_message() == bytes(4 * MIB)
    sending.result(PATIENCE_SECONDS)
    assert_ends(a.peer, 1001)


def test_peer_that_does_not_read_its_pongs_costs_no_memory_and_gets_the_latest_later(link: Connect) -> None:
    a = link(send_timeout=None)
    received = a.start("receive")
    for _ in range(200):
        a.peer.send_raw(PINGS)
    a.peer.send_raw(frame(PING, b"the last") + text("behind the pings"))
    assert received.result(PATIENCE_SECONDS) == "behind the pings"
    assert a.connection._outbox.waiting < 256 * 1024
    while (pong := a.peer.recv_frame()).payload != b"the last":
        assert pong == Frame(PONG, bytes(125))
    a.do("send", "and on")
    assert a.peer.recv_message() == "and on"


def test_pong_that_is_late_goes_out_behind_our_close_too(link: Connect) -> None:
    """5.5.2: a ping is answered unless a Close frame has been received."""
    a = link()
    received = a.start("receive")
    sending = a.start("send", bytes(MIB))
    until_blocked(sending)
    a.peer.send_raw(frame(PING, b"too late") + text("go on"))
    assert received.result(PATIENCE_SECONDS) == "go on"
    a.do("close")
    assert a.peer.recv_message() == bytes(MIB)
    assert a.peer.recv_frame() == Frame(CLOSE, close_payload(1000))
    assert a.peer.recv_frame() == Frame(PONG, b"too late")
    a.peer.send_frame(CLOSE, close_payload(1000))
    assert a.peer.read_to_eof() == b""
    sending.result(PATIENCE_SECONDS)


# Who is alive


def test_ping_goes_out_each_interval_and_its_answer_gives_the_latency(link: Connect) -> None:
    a = link(ping_interval=0.1, ping_timeout=5)
    assert a.connection.latency is None
    payloads = set()
    for _ in range(4):
        ping = a.peer.recv_frame()
        assert ping.opcode == PING
        payloads.add(ping.payload)
        a.peer.send_frame(PONG, ping.payload)
    assert len(payloads) == 4
    until(lambda: a.connection.latency is not None)
    assert 0 < a.connection.latency < 5


def test_pong_and_close_in_one_segment_are_both_understood(link: Connect) -> None:
    a = link(ping_interval=0.05)
    ping = a.peer.recv_frame()
    a.peer.send_raw(frame(PONG, ping.payload) + frame(CLOSE, close_payload(1001)))
    assert a.peer.recv_message() == Close(1001)
    assert a.connection.latency is not None


def test_pings_are_sent_while_the_view_only_sends(link: Connect) -> None:
    a = link(ping_interval=0.1, ping_timeout=FOREVER)

    def stream() -> None:
        for _ in range(30):
            a.connection.send("tick")
            a.home.pause(0.02)

    streaming = a.home.start(stream)
    until(lambda: a.peer.recv_frame().opcode == PING)
    streaming.result(PATIENCE_SECONDS)


def test_silent_peer_is_dropped(link: Connect) -> None:
    a = link(ping_interval=0.1, ping_timeout=0.2)
    waiting = a.start("receive")
    assert a.peer.recv_frame().opcode == PING
    assert waiting.result(PATIENCE_SECONDS) is None
    assert a.connection.endpoint.close_code == 1006
    assert a.connection.endpoint.close_reason == "no answer to a ping within 0.2 seconds"
    a.until_disposed()
    with pytest.raises((PeerClosed, ConnectionError)):
        a.peer.recv_frame()


def test_silent_peer_is_dropped_while_nobody_reads(link: Connect) -> None:
    a = link(ping_interval=0.1, ping_timeout=0.2)
    a.until_disposed()
    assert a.closed


def test_peer_whose_answer_waits_behind_a_full_inbox_is_not_dropped(link: Connect) -> None:
    a = link(ping_interval=0.1, ping_timeout=0.1, receive_queue=1)
    a.peer.send_message("taken late")
    ping = a.peer.recv_frame()
    a.peer.send_frame(PONG, ping.payload)
    time.sleep(0.5)
    assert not a.closed
    assert a.do("receive", 5) == "taken late"
    until(lambda: a.connection.latency is not None)


def test_ping_is_left_out_while_the_peer_has_enough_to_read(link: Connect) -> None:
    a = link(ping_interval=0.05, ping_timeout=0.1)
    sending = a.start("send", bytes(4 * MIB))
    time.sleep(0.5)
    assert not sending.done()
    frames = []
    while (frames or [Frame(PING, b"")])[-1].opcode == PING:
        frames.append(a.peer.recv_frame())
    assert len(frames) < 3
    sending.result(PATIENCE_SECONDS)


def test_idle_connection_is_closed_with_1000(link: Connect) -> None:
    a = link(idle_timeout=0.2)
    assert_ends(a.peer, 1000, "idle")
    assert a.closed


@pytest.mark.parametrize("what", ["received", "sent", "offered", "a held answer"])
def test_message_in_either_direction_counts_as_activity(link: Connect, what: str) -> None:
    a = link()
    a.peer.send_raw(b"".join(map(text, FIVE)))
    until(lambda: a.do("waiting") == len(FIVE))
    a.home.do(echo, a, 3 if what == "a held answer" else 1)
    before = a.connection.last_message_at
    if what == "received":
        a.peer.send_message("busy")
        until(lambda: a.do("waiting") == len(FIVE))
    elif what == "sent":
        a.do("send", "busy")
    elif what == "offered":
        assert a.do("offer", server_frame(b"busy"))
    else:
        a.home.do(echo, a, 1)
    assert a.connection.last_message_at > before


def test_ping_and_pong_are_no_activity_but_signs_of_life(link: Connect) -> None:
    a = link()
    read_before, message_before = a.connection.last_read_at, a.connection.last_message_at
    a.peer.send_raw(frame(PONG, b"unasked") + frame(PING, b"ping"))
    assert a.peer.recv_frame() == Frame(PONG, b"ping")
    assert a.connection.last_read_at > read_before
    assert a.connection.last_message_at == message_before


def test_nothing_follows_the_close_of_an_idle_connection_whose_ping_is_due_at_the_same_time(link: Connect) -> None:
    a = link(idle_timeout=0.2, ping_interval=0.2)
    assert a.peer.recv_frame() == Frame(CLOSE, close_payload(1000, "idle"))
    a.peer.send_close(1000)
    assert a.peer.read_to_eof() == b""


def test_closing_handshake_of_an_idle_connection_is_not_cut_short_by_an_unanswered_ping(link: Connect) -> None:
    a = link(idle_timeout=0.4, ping_interval=0.2, ping_timeout=0.2)
    assert a.peer.recv_frame().opcode == PING
    assert a.peer.recv_frame() == Frame(CLOSE, close_payload(1000, "idle"))
    time.sleep(0.1)
    assert not a.disposals
    a.peer.send_close(1000)
    assert a.peer.read_to_eof() == b""


# The end: the peer begins


@pytest.mark.parametrize(
    ("payload", "close"),
    [
        (close_payload(1000), Close(1000)),
        (close_payload(1001, "bye"), Close(1001, "bye")),
        (close_payload(4999), Close(4999)),
        (b"", Close(NO_STATUS)),
    ],
    ids=repr,
)
def test_close_of_the_peer_is_answered_while_nobody_reads(link: Connect, payload: bytes, close: Close) -> None:
    a = link()
    a.peer.send_frame(CLOSE, payload)
    assert a.peer.recv_message() == Close(close.code)
    assert a.peer.read_to_eof() == b""
    a.peer.abandon()
    a.until_disposed()
    assert (a.connection.endpoint.close_code, a.connection.endpoint.close_reason) == close
    assert a.closed
    with pytest.raises(WebSocketClosed) as caught:
        a.do("send", "too late")
    assert (caught.value.close_code, caught.value.close_reason) == close


def test_receiver_that_waits_is_woken_by_the_close(link: Connect) -> None:
    a = link()
    waiting = [a.start("receive") for _ in range(3)]
    time.sleep(0.05)
    a.peer.send_close(1000)
    assert [one.result(PATIENCE_SECONDS) for one in waiting] == [None] * 3


@pytest.mark.parametrize("end", ["close", "error", "eof"])
def test_messages_before_the_end_are_delivered_and_can_be_answered_before_it_is(link: Connect, end: str) -> None:
    a = link()
    last = {"close": frame(CLOSE, close_payload(1001)), "error": frame(0x3), "eof": b""}[end]
    a.peer.send_raw(text("one") + text("two") + last)
    if end == "eof":
        a.peer.half_close()
    until(lambda: a.connection.endpoint.state is State.ENDING)
    for message in ("one", "two"):
        assert a.do("receive", 5) == message
        a.do("send", message.upper())
    assert [a.peer.recv_message() for _ in range(2)] == ["ONE", "TWO"]
    with pytest.raises(PeerTimeout):
        a.peer.recv_frame(timeout=0.1)
    assert a.do("receive") is None
    if end != "eof":
        assert a.peer.recv_message() == {"close": Close(1001), "error": Close(1002, "reserved opcode 0x3")}[end]
    assert a.peer.read_to_eof() == b""
    assert a.connection.endpoint.close_code == {"close": 1001, "error": 1002, "eof": 1006}[end]


@pytest.mark.parametrize("taken", [True, False], ids=["taken", "waiting"])
def test_end_is_answered_after_close_timeout_though_nobody_came_back_for_the_messages(
    link: Connect, taken: bool
) -> None:
    a = link(close_timeout=0.3)
    a.peer.send_raw(text("last") + frame(CLOSE, close_payload(1001)))
    if taken:
        assert a.do("receive", 5) == "last"
    else:
        until(lambda: a.connection.endpoint.state is State.ENDING)
        assert not a.closed
    assert a.peer.recv_message() == Close(1001)
    assert a.peer.read_to_eof() == b""
    assert a.closed
    assert a.do("receive") is None


def test_view_that_asks_whether_more_messages_wait_may_still_answer_the_last(link: Connect) -> None:
    a = link()
    a.peer.send_raw(text("last") + frame(CLOSE, close_payload(1001)))
    assert a.do("receive", 5) == "last"
    assert a.do("waiting") == 0
    a.do("send", "answer")
    assert a.peer.recv_message() == "answer"
    assert a.do("receive") is None
    assert a.peer.recv_message() == Close(1001)


def test_bytes_behind_the_close_are_dropped(link: Connect) -> None:
    a = link()
    a.peer.send_raw(text("before") + frame(CLOSE, close_payload(1000)) + text("behind") + frame(PING, b"behind"))
    assert a.do("receive", 5) == "before"
    a.peer.send_message("later still")
    assert a.do("receive") is None
    assert a.peer.recv_frame() == Frame(CLOSE, close_payload(1000))
    assert a.peer.read_to_eof() == b""


def test_frame_that_breaks_the_rules_fails_the_connection(link: Connect) -> None:
    a = link()
    a.peer.send_frame(TEXT, b"\xff")
    assert a.peer.recv_message() == Close(1007, "text is not UTF-8")
    assert a.peer.read_to_eof() == b""
    assert a.closed


def test_peer_that_only_ends_its_stream_gets_the_end_of_ours(link: Connect) -> None:
    a = link()
    a.peer.half_close()
    assert a.peer.read_to_eof() == b""
    a.until_disposed()
    assert a.connection.endpoint.close_code == 1006
    assert a.connection.endpoint.close_reason == "the peer left without a closing handshake"


def test_peer_that_half_closes_still_gets_a_long_answer(link: Connect) -> None:
    a = link()
    a.peer.send_message("question")
    a.peer.half_close()
    assert a.do("receive", 5) == "question"
    answering = a.start("send", bytes(4 * MIB))
    assert a.peer.recv_message() == bytes(4 * MIB)
    answering.result(PATIENCE_SECONDS)
    assert a.do("receive") is None
    assert a.peer.read_to_eof() == b""


def test_reset_is_the_end_like_any_other(link: Connect, caplog: pytest.LogCaptureFixture) -> None:
    a = link(tcp=True)
    waiting = a.start("receive")
    time.sleep(0.05)
    a.peer.reset()
    assert waiting.result(PATIENCE_SECONDS) is None
    a.until_disposed()
    assert a.connection.endpoint.close_code == 1006
    assert caplog.records == []


def test_peer_that_says_goodbye_and_resets_does_not_get_its_answer(
    link: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    a = link(tcp=True)
    a.peer.send_raw(text("last") + frame(CLOSE, close_payload(1001)))
    assert a.do("receive", 5) == "last"
    a.peer.reset()
    until(lambda: a.connection._read_ended)
    assert a.do("receive") is None
    a.until_disposed()
    assert a.connection.endpoint.close_code == 1001
    assert caplog.records == []


def test_reset_is_noticed_while_nobody_reads(link: Connect) -> None:
    a = link(tcp=True)
    a.peer.reset()
    a.until_closed()
    a.until_disposed()


@pytest.mark.parametrize("how", ["close", "eof"])
def test_closed_is_true_at_once_for_a_view_that_never_pauses(link: Connect, how: str) -> None:
    a = link()

    def compute_and_look() -> list[bool]:
        """Everything happens without the reactor getting a chance in between."""
        before = a.connection.closed
        if how == "close":
            a.peer.send_close()
        else:
            a.peer.half_close()
        return [before, a.connection.closed]

    assert a.home.do(compute_and_look) == [False, True]


def test_messages_that_have_not_been_taken_keep_the_connection_from_being_closed(link: Connect) -> None:
    a = link()
    a.peer.send_raw(text("unread") + frame(CLOSE))
    until(lambda: a.connection.endpoint.state is State.ENDING)
    assert not a.closed
    assert a.do("receive", 0) == "unread"
    assert a.do("receive") is None
    assert a.closed


# The end: we begin


def test_close_sends_its_frame_and_waits_for_the_answer_of_the_peer(link: Connect) -> None:
    a = link()
    a.do("close", 3001, "enough")
    assert a.peer.recv_message() == Close(3001, "enough")
    assert a.connection.endpoint.state is State.CLOSING
    assert a.closed
    a.peer.send_close(1000)
    assert a.peer.read_to_eof() == b""
    a.peer.abandon()
    a.until_disposed()
    assert (a.connection.endpoint.close_code, a.connection.endpoint.close_reason) == (3001, "enough")


def test_second_close_does_nothing(link: Connect) -> None:
    a = link()
    a.do("close", 3001)
    a.do("close", 3002)
    assert_ends(a.peer, 3001)
    a.do("close", 3003)
    assert a.connection.endpoint.close_code == 3001


def test_close_drops_what_has_not_been_taken_and_what_still_arrives(link: Connect) -> None:
    a = link()
    a.peer.send_message("before")
    until(lambda: a.do("waiting"))
    a.do("close")
    a.peer.send_message("behind")
    assert a.do("receive") is None
    assert_ends(a.peer, 1000)


def test_close_wakes_who_waits(link: Connect) -> None:
    a = link()
    waiting = [a.start("receive") for _ in range(2)]
    time.sleep(0.05)
    a.do("close")
    assert [one.result(PATIENCE_SECONDS) for one in waiting] == [None, None]


def test_close_in_answer_to_the_peer_drops_what_it_sent_before(link: Connect) -> None:
    a = link()
    a.peer.send_raw(text("unread") + frame(CLOSE, close_payload(1001)))
    until(lambda: a.connection.endpoint.state is State.ENDING)
    a.do("close", 3000)
    assert a.peer.recv_message() == Close(1001)
    assert a.do("receive") is None
    assert a.connection.endpoint.close_code == 1001


def test_peer_that_does_not_answer_the_close_is_given_up_after_close_timeout(link: Connect) -> None:
    a = link(close_timeout=0.3)
    a.do("close")
    assert a.peer.recv_message() == Close(1000)
    a.until_disposed()
    assert a.connection.endpoint.close_code == 1000


def test_peer_that_has_closed_and_says_nothing_more_is_not_waited_for_for_long(
    link: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RULES, Phase.LINGERING, RULES[Phase.LINGERING]._replace(silent_seconds=0.2))
    a = link(close_timeout=1000)
    a.do("close")
    a.peer.send_close()
    a.until_disposed()


def test_peer_that_sends_for_ever_after_the_close_is_given_up_after_close_timeout(link: Connect) -> None:
    a = link(close_timeout=0.3)
    a.do("close")
    with pytest.raises(ConnectionError):
        fill(a.peer, bytes(4096), limit=1 << 40)
    a.until_disposed()


def test_fail_sends_its_frame_and_looks_at_nothing_that_still_arrives(link: Connect) -> None:
    a = link()
    a.do("fail", 1007, "not JSON")
    a.peer.send_raw(text("behind") + frame(0x3))
    assert a.peer.recv_message() == Close(1007, "not JSON")
    assert a.peer.read_to_eof() == b""
    assert a.do("receive") is None
    assert a.connection.endpoint.close_code == 1007


def test_unread_bytes_do_not_turn_the_close_into_a_reset(link: Connect) -> None:
    a = link(tcp=True, receive_queue=1)
    a.peer.send_raw(text("first") + text("x" * 10) * 2000)
    until(lambda: a.do("waiting"))
    a.do("fail", 1011)
    for _ in range(20):
        a.peer.send_raw(text("x" * 1000))
        time.sleep(0.005)
    assert a.peer.recv_message() == Close(1011)
    assert a.peer.read_to_eof() == b""


def test_abort_ends_without_a_close_frame(link: Connect) -> None:
    a = link()
    waiting = a.start("receive")
    time.sleep(0.05)
    a.do("abort", "enough")
    assert waiting.result(PATIENCE_SECONDS) is None
    assert a.peer.read_to_eof() == b""
    a.until_disposed()
    a.do("abort", "more than enough")
    assert (a.connection.endpoint.close_code, a.connection.endpoint.close_reason) == (1006, "enough")


def test_stream_does_not_end_after_an_error_while_the_peer_may_still_be_sending(
    link: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy cuts its client off when we end the stream, and what it has not passed on is lost."""
    monkeypatch.setitem(RULES, Phase.SILENCE, RULES[Phase.SILENCE]._replace(silent_seconds=600))
    failed = link(max_message_size=1)
    failed.peer.send_message("too long")
    assert failed.peer.recv_message() == Close(1009, "message of more than 1 bytes")
    failed.peer.send_raw(bytes(1000))
    with pytest.raises(PeerTimeout):
        failed.peer.read_to_eof(0.2)
    failed.peer.half_close()
    assert failed.peer.read_to_eof() == b""
    failed.until_disposed()


def test_stream_ends_after_an_error_when_the_peer_is_silent(link: Connect) -> None:
    failed = link(close_timeout=600)
    failed.peer.send_raw(b"\xff\xff")
    assert isinstance(failed.peer.recv_message(), Close)
    assert failed.peer.read_to_eof() == b""


def test_peer_that_does_not_answer_is_not_waited_for_when_the_process_ends(link: Connect) -> None:
    told = link(close_timeout=600)
    told.do("go_away", 1001)
    assert told.peer.recv_message() == Close(1001)
    told.until_disposed()


# Finish


def test_finish_returns_when_both_sides_have_ended(link: Connect) -> None:
    a = link()
    finishing = a.start("finish")
    assert a.peer.recv_message() == Close(1000)
    assert not finishing.done()
    a.peer.send_close()
    assert a.peer.read_to_eof() == b""
    assert not finishing.done()
    a.peer.abandon()
    finishing.result(PATIENCE_SECONDS)
    assert len(a.disposals) == 1


def test_finish_returns_after_close_timeout(link: Connect) -> None:
    a = link(close_timeout=0.3)
    a.do("finish")
    assert a.disposals
    assert a.peer.recv_message() == Close(1000)


def test_finish_answers_the_close_of_the_peer(link: Connect) -> None:
    a = link()
    a.peer.send_raw(text("unread") + frame(CLOSE, close_payload(1001)))
    finishing = a.start("finish")
    close = a.peer.recv_message()
    assert close in (Close(1001), Close(1000))  # whichever came first
    if close == Close(1000):
        a.peer.send_close()
    a.peer.abandon()
    finishing.result(PATIENCE_SECONDS)


def test_finish_after_the_end_returns_at_once(link: Connect) -> None:
    a = link()
    a.do("abort", "over")
    a.do("finish")
    assert len(a.disposals) == 1


def test_finish_waits_until_what_was_sent_has_left(link: Connect) -> None:
    a = link(tcp=True)
    sending = a.start("send", bytes(16 * MIB))
    until_blocked(sending)
    finishing = a.start("finish")
    assert a.peer.recv_message() == bytes(16 * MIB)
    assert_ends(a.peer, 1000)
    a.peer.abandon()
    finishing.result(PATIENCE_SECONDS)
    sending.result(PATIENCE_SECONDS)


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
    until(lambda: len(a.connection.endpoint._assembler._parts or b"") == MIB - 1)
    a.peer.reset()
    a.until_disposed()
    assert not a.connection.endpoint._assembler._parts
    assert not a.connection.endpoint.parser.buffered
    assert a.connection._link._served is None  # which would hold the connection, as that holds it


# Answers to what arrived together


class Sends(socket.socket):
    """A socket that tells how much each call of `send` was given."""

    sizes: list[int]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.sizes = []

    def send(self, data: Any, *flags: int) -> int:
        self.sizes.append(len(data))
        return super().send(data, *flags)


FIVE = [f"message {number}" for number in range(5)]


def echo(a: Link, count: int) -> None:
    for _ in range(count):
        a.connection.send(a.connection.receive())


def test_answers_to_messages_that_came_together_leave_together_where_the_reactor_can_see_to_it(link: Connect) -> None:
    a = link(kind=Sends)
    a.peer.send_raw(b"".join(map(text, FIVE)))
    until(lambda: a.do("waiting") == len(FIVE))
    sizes = cast(Sends, a.sock).sizes
    sizes.clear()
    a.home.do(echo, a, len(FIVE))
    assert [a.peer.recv_message() for _ in FIVE] == FIVE
    size = sum(len(message) + 2 for message in FIVE)
    assert sum(sizes) == size
    assert len(sizes) == 2 if isinstance(a.home, Hub) else len(FIVE)  # the first shows that the view is quick


def test_answer_does_not_wait_for_a_message_that_the_view_does_not_come_for(link: Connect) -> None:
    a = link()
    a.peer.send_raw(text("one") + text("two"))
    until(lambda: a.do("waiting") == 2)
    got_it = threading.Event()

    def view() -> None:
        echo(a, 1)
        while not got_it.is_set():
            a.home.pause(0.01)

    viewing = a.home.start(view)
    assert a.peer.recv_message() == "one"
    got_it.set()
    viewing.result(PATIENCE_SECONDS)


def test_answer_does_not_wait_longer_than_the_view_takes_for_one_message(link: Connect) -> None:
    """It stops the whole hub here: nobody but itself can let the answers go."""
    a = link()
    a.peer.send_raw(b"".join(map(text, FIVE)))
    until(lambda: a.do("waiting") == len(FIVE))
    gates = {message: threading.Event() for message in FIVE}
    gates[FIVE[0]].set()

    def view() -> None:
        for _ in FIVE:
            message = a.connection.receive()
            assert gates[message].wait(PATIENCE_SECONDS)
            a.connection.send(message)

    viewing = a.home.start(view)
    for earlier, later in itertools.pairwise(FIVE):
        time.sleep(0.002)  # longer than answers are held back while the view is quick
        gates[later].set()  # the view is stuck in the one after that, or has sent them all
        assert a.peer.recv_message() == earlier
    assert a.peer.recv_message() == FIVE[-1]
    viewing.result(PATIENCE_SECONDS)


def test_send_to_a_peer_that_is_known_to_be_gone_is_not_held_back(link: Connect) -> None:
    a = link(tcp=True)
    a.peer.send_raw(b"".join(map(text, FIVE)))
    until(lambda: a.do("waiting") == len(FIVE))
    a.peer.reset()
    errors: list[WebSocketClosed] = []

    def view() -> None:
        for _ in FIVE:
            try:
                echo(a, 1)
            except WebSocketClosed as error:
                errors.append(error)

    a.home.start(view).result(PATIENCE_SECONDS)
    assert len(errors) == len(FIVE)  # the first answer leaves alone, and finds out


class Tls:
    """A socket that is none, as TLS is; its first `send` is refused, and has to be made again as it was (SSL_write)."""

    def __init__(self, fileno: int) -> None:
        self._sock = socket.socket(fileno=fileno)
        self.offered: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def send(self, data: Any) -> int:
        self.offered.append(len(data))
        if len(self.offered) == 1:
            raise BlockingIOError
        assert len(data) >= self.offered[0] or len(self.offered) > 2
        return self._sock.send(data)


def test_large_message_is_offered_to_tls_again_as_it_was(link: Connect) -> None:
    a = link(kind=Tls)
    sending = a.start("send", b"x" * 100_000)
    assert a.peer.recv_message() == b"x" * 100_000
    sending.result(PATIENCE_SECONDS)
    offered = cast(Tls, a.sock).offered
    assert offered[0] == offered[1] == 100_000 + 10


@pytest.mark.parametrize("end", ["close", "finish", "closed by the peer"])
def test_answers_leave_before_the_close_frame(link: Connect, end: str) -> None:
    a = link()
    a.peer.send_raw(
        b"".join(map(text, FIVE)) + (frame(CLOSE, close_payload(1000)) if end == "closed by the peer" else b"")
    )
    until(lambda: a.do("waiting") == len(FIVE))

    def view() -> None:
        echo(a, 3)
        if end == "close":
            a.connection.close()
        a.connection.finish()

    viewing = a.home.start(view)
    assert [a.peer.recv_message() for _ in range(3)] == FIVE[:3]
    assert_ends(a.peer, 1000) if end != "closed by the peer" else a.peer.abandon()
    viewing.result(PATIENCE_SECONDS)


def test_answers_leave_in_the_order_of_sending_though_a_large_one_comes_between(link: Connect) -> None:
    a = link()
    a.peer.send_raw(b"".join(map(text, FIVE)))
    until(lambda: a.do("waiting") == len(FIVE))
    answers = ["small", "x" * 100_000, "small again", bytes(50_000), ""]

    def view() -> None:
        for answer in answers:
            a.connection.receive()
            a.connection.send(answer)

    viewing = a.home.start(view)
    assert [a.peer.recv_message() for _ in answers] == answers
    viewing.result(PATIENCE_SECONDS)


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


# Frames that are offered


def server_frame(payload: bytes) -> bytes:
    """A whole text frame, as a server sends it."""
    return frames.Frame(Opcode.TEXT, payload).serialize()


def block(a: Link) -> int:
    """Offer until the kernel takes no more; how many frames of 64 KiB were taken by the kernel or wait."""
    count = 0
    while not a.home.do(lambda: a.connection._outbox is not None):
        assert a.do("offer", server_frame(b"x" * 65_536))
        count += 1
    return count


def test_offered_frame_leaves_at_once(link: Connect) -> None:
    a = link()
    assert a.do("offer", server_frame(b"news"))
    assert a.peer.recv_message() == "news"
    assert (a.connection.messages_sent, a.connection.bytes_sent) == (1, 6)
    assert a.connection._outbox is None


def test_several_frames_are_offered_in_one_piece(link: Connect) -> None:
    a = link()
    assert a.home.do(lambda: a.connection.offer(b"".join(map(server_frame, [b"1", b"2", b"3"])), messages=3))
    assert [a.peer.recv_message() for _ in range(3)] == ["1", "2", "3"]
    assert a.connection.messages_sent == 3


def test_frame_is_offered_from_a_thread_that_has_no_hub(link: Connect) -> None:
    a = link()
    assert a.connection.offer(server_frame(b"from elsewhere"))
    assert a.peer.recv_message() == "from elsewhere"


def test_offers_to_a_peer_that_does_not_read_never_block_and_are_refused_beyond_the_bound(link: Connect) -> None:
    a = link(send_timeout=None)
    block(a)
    offered = 0
    while a.do("offer", server_frame(b"y" * 1000)):
        offered += 1
    waiting = a.connection._outbox.waiting
    assert waiting <= 1024 * 1024 < waiting + 1004
    assert offered > 900
    assert not a.home.do(lambda: a.connection.offer(server_frame(b"z"), max_waiting_bytes=1000))
    assert a.home.do(lambda: a.connection.offer(server_frame(b"z"), max_waiting_bytes=2 * MIB))


def test_what_waits_leaves_when_the_peer_reads_though_no_view_does_anything(link: Connect) -> None:
    a = link()
    count = block(a)
    for number in range(100):
        assert a.do("offer", server_frame(b"%d" % number))
    assert [a.peer.recv_message() for _ in range(count)] == ["x" * 65_536] * count
    assert [a.peer.recv_message() for _ in range(100)] == [str(number) for number in range(100)]
    until(lambda: a.connection._outbox is None)


def test_what_waits_leaves_while_a_view_waits_for_a_message(link: Connect) -> None:
    a = link()
    receiving = a.start("receive")
    count = block(a)
    assert a.do("offer", server_frame(b"the last"))
    assert [a.peer.recv_message() for _ in range(count + 1)][-1] == "the last"
    a.peer.send_message("enough")
    assert receiving.result(PATIENCE_SECONDS) == "enough"


def test_frame_of_any_size_is_taken_while_nothing_waits(link: Connect) -> None:
    a = link()
    assert a.do("offer", server_frame(b"x" * 3 * MIB))
    assert a.do("offer", server_frame(b"behind it")) is False
    assert a.peer.recv_message() == "x" * 3 * MIB
    assert until(lambda: a.do("offer", server_frame(b"later")))
    assert a.peer.recv_message() == "later"


def test_offered_frame_stands_behind_what_a_sender_is_waiting_for_and_before_what_comes_later(link: Connect) -> None:
    a = link()
    first = a.start("send", "a" * 4 * MIB)
    until(lambda: a.home.do(lambda: a.connection._outbox is not None))
    assert a.home.do(lambda: a.connection.offer(server_frame(b"offered"), max_waiting_bytes=16 * MIB))
    second = a.start("send", "b" * MIB)
    assert [a.peer.recv_message() for _ in range(3)] == ["a" * 4 * MIB, "offered", "b" * MIB]
    for sending in (first, second):
        sending.result(PATIENCE_SECONDS)


def test_frames_of_many_who_offer_and_send_are_whole_and_in_the_order_of_each(link: Connect) -> None:
    a = link()
    each = 100

    def offer_all(name: str) -> None:
        for number in range(each):
            payload = f"{name} {number} " + name * (number * 997 % 5_000)
            assert until(lambda payload=payload: a.connection.offer(server_frame(payload.encode())))

    def send_all(name: str) -> None:
        for number in range(each):
            a.connection.send(f"{name} {number} " + name * (number * 997 % 20_000))

    threads = [threading.Thread(target=offer_all, args=[name]) for name in "ab"]  # which have no hub
    for thread in threads:
        thread.start()
    sending = [a.home.start(send_all, name) for name in "cd"]
    received: dict[str, list[int]] = {}
    for _ in range(4 * each):
        message = a.peer.recv_message()
        assert isinstance(message, str)
        name, number, body = message.split(" ", 2)
        assert set(body) <= {name}
        received.setdefault(name, []).append(int(number))
    assert received == {name: list(range(each)) for name in "abcd"}
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    wait_for_all(sending, PATIENCE_SECONDS)


def test_offered_frames_wait_for_the_end_of_a_message_in_fragments(link: Connect) -> None:
    a = link()
    a.do("begin_message")
    a.do("send_fragment", "one ", True, False)
    assert a.do("offer", server_frame(b"offered"))
    assert a.peer.recv_frame() == Frame(TEXT, b"one ", fin=False)
    a.do("send_fragment", "message", False, True)
    assert a.peer.recv_frame() == Frame(CONTINUATION, b"message")
    with pytest.raises(PeerTimeout):
        a.peer.recv_frame(timeout=0.05)
    a.do("end_message")
    assert a.peer.recv_message() == "offered"
    a.do("send", "and on")
    assert a.peer.recv_message() == "and on"


def test_frames_that_wait_for_a_message_in_fragments_are_bounded(link: Connect) -> None:
    a = link()
    a.do("begin_message")
    assert a.do("offer", server_frame(b"x" * MIB))
    assert not a.do("offer", server_frame(b"one more"))
    a.do("send_fragment", "message", True, True)
    a.do("end_message")
    assert [a.peer.recv_message() for _ in range(2)] == ["message", "x" * MIB]


def test_frames_behind_a_message_that_is_not_finished_are_dropped(link: Connect) -> None:
    a = link()
    a.do("begin_message")
    a.do("send_fragment", "one ", True, False)
    assert a.do("offer", server_frame(b"offered"))
    a.do("fail", 1011)
    a.do("end_message")
    assert a.peer.recv_frame() == Frame(TEXT, b"one ", fin=False)
    assert a.peer.recv_frame() == Frame(CLOSE, close_payload(1011))
    assert a.peer.read_to_eof() == b""


@pytest.mark.parametrize("end", ["close", "abort", "closed by the peer", "the peer is gone"])
def test_offer_is_refused_by_a_connection_that_is_not_open(link: Connect, end: str) -> None:
    a = link(tcp=True)
    if end == "close":
        a.do("close")
    elif end == "abort":
        a.do("abort", "enough")
    elif end == "closed by the peer":
        a.peer.send_close()
        until(lambda: a.connection.endpoint.state is not State.OPEN)
    else:
        a.peer.reset()
    assert until(lambda: a.do("offer", server_frame(b"too late")) is False)
    assert a.do("offer", server_frame(b"too late")) is False


def test_peer_that_does_not_read_what_was_offered_is_dropped_after_send_timeout(link: Connect) -> None:
    a = link(send_timeout=0.3)
    block(a)
    a.until_disposed()
    assert a.connection.endpoint.close_reason == "the peer did not read for 0.3 seconds"


def test_offered_frame_leaves_behind_the_answers_that_were_held_back(link: Connect) -> None:
    a = link()
    a.peer.send_raw(b"".join(map(text, FIVE)))
    until(lambda: a.do("waiting") == len(FIVE))

    def view() -> None:
        echo(a, 4)
        assert a.connection.offer(server_frame(b"offered"))
        echo(a, 1)

    a.home.start(view).result(PATIENCE_SECONDS)
    assert [a.peer.recv_message() for _ in range(6)] == [*FIVE[:4], "offered", FIVE[4]]


# Who may still answer


def test_answer_of_one_view_still_leaves_when_another_comes_back_for_more(link: Connect) -> None:
    a = link()
    receiving = [a.start("receive", 5) for _ in range(2)]
    time.sleep(0.1)
    a.peer.send_raw(text("one") + text("two") + frame(CLOSE, close_payload(1001)))
    assert {one.result(PATIENCE_SECONDS) for one in receiving} == {"one", "two"}
    back = a.start("receive")
    assert back.result(PATIENCE_SECONDS) is None
    a.do("send", "the other's answer")
    assert a.peer.recv_message() == "the other's answer"
    assert a.do("receive") is None
    assert a.peer.recv_message() == Close(1001)
