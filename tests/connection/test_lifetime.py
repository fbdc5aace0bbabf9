"""The deadlines of a connection and its end, on either reactor."""

from __future__ import annotations

import math
import select

import pytest

from dwebsocket.connection.ending import RULES, Phase
from dwebsocket.connection.limits import TAKEN, Bound
from dwebsocket.protocol.endpoint import State
from dwebsocket.protocol.exceptions import WebSocketClosed
from dwebsocket.reactors.base import arrived
from tests.connection.helpers import FIVE, MIB, Connect, echo, fill, parked, server_frame
from tests.links import PATIENCE_SECONDS, Link, assert_ends, until
from tests.peer import (
    CLOSE,
    NO_STATUS,
    PING,
    PONG,
    TEXT,
    Close,
    Frame,
    PeerClosed,
    PeerTimeout,
    close_payload,
    frame,
    text,
)

FOREVER = 3600.0  # seconds: not within this test


def read_all(a: Link, size: int) -> bytes:
    """That many bytes, read by a peer that lets a connection without a thread send on in between."""
    data = b""
    while len(data) < size:
        data += a.peer.sock.recv(size - len(data))
        a.home.do(a.home.pause, 0)
    return data


def is_silent(a: Link) -> bool:
    """Whether nothing has been sent that the peer has not read."""
    return not arrived(select.poll(), a.peer.sock.fileno())


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


def test_peer_whose_answer_waits_behind_a_full_inbox_is_not_dropped(manual: Connect) -> None:
    a = manual(ping_interval=20, ping_timeout=20, receive_queue=1)
    a.peer.send_message("taken late")
    a.home.pause(20)
    ping = a.peer.recv_frame()
    a.peer.send_frame(PONG, ping.payload)
    a.home.pause(1000)
    assert not a.closed
    assert a.do("receive", 5) == "taken late"
    a.home.pause(1)
    assert a.connection.latency is not None


def test_ping_is_left_out_while_the_peer_has_enough_to_read(manual: Connect) -> None:
    a = manual(ping_interval=20, ping_timeout=30, send_timeout=None)
    large = server_frame(b"x" * 4 * MIB)
    assert a.do("offer", large, 1, Bound(max_seconds=math.inf)) == TAKEN
    a.home.pause(1000)
    assert not a.closed
    assert read_all(a, len(large)) == large
    a.home.pause(20)
    assert a.peer.recv_frame().opcode == PING


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
        assert a.do("offer", server_frame(b"busy")) == TAKEN
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


def test_nothing_follows_the_close_of_an_idle_connection_whose_ping_is_due_at_the_same_time(manual: Connect) -> None:
    a = manual(idle_timeout=20, ping_interval=20)
    a.home.pause(20)
    assert a.peer.recv_frame() == Frame(CLOSE, close_payload(1000, "idle"))
    a.peer.send_close(1000)
    a.home.pause(0)
    assert a.peer.read_to_eof() == b""


def test_closing_handshake_of_an_idle_connection_is_not_cut_short_by_an_unanswered_ping(manual: Connect) -> None:
    a = manual(idle_timeout=40, ping_interval=20, ping_timeout=30, close_timeout=100)
    a.home.pause(20)
    assert a.peer.recv_frame().opcode == PING
    a.home.pause(20)
    assert a.peer.recv_frame() == Frame(CLOSE, close_payload(1000, "idle"))
    a.home.pause(60)  # its pong was due after ten of them
    assert not a.disposals
    a.peer.send_close(1000)
    a.home.pause(0)
    assert a.peer.read_to_eof() == b""


# Its seconds, counted by a clock of the test


def test_peer_that_does_not_answer_a_ping_is_dropped_after_ping_timeout_and_not_before(manual: Connect) -> None:
    a = manual(ping_interval=20, ping_timeout=30)
    a.home.pause(19.9)
    assert is_silent(a)
    a.home.pause(0.1)
    assert a.peer.recv_frame().opcode == PING
    a.home.pause(29.9)
    assert not a.closed
    a.home.pause(0.1)
    assert a.closed
    assert a.connection.endpoint.close_reason == "no answer to a ping within 30 seconds"
    assert a.disposals


def test_latency_is_the_time_between_a_ping_and_its_pong(manual: Connect) -> None:
    a = manual(ping_interval=20, ping_timeout=30)
    a.home.pause(20)
    ping = a.peer.recv_frame()
    a.home.plan(3, lambda: a.peer.send_frame(PONG, ping.payload))
    a.home.pause(5)
    assert a.connection.latency == 3


def test_idle_connection_is_closed_after_idle_timeout_since_its_last_message(manual: Connect) -> None:
    a = manual(idle_timeout=60, ping_interval=None)
    for _ in range(10):
        a.home.pause(59.9)
        a.do("send", "busy")
        assert a.peer.recv_message() == "busy"
    a.home.pause(59.9)
    assert not a.closed
    a.home.pause(0.1)
    assert a.peer.recv_message() == Close(1000, "idle")


def test_peer_that_does_not_answer_the_close_is_waited_for_close_timeout_and_no_longer(manual: Connect) -> None:
    a = manual(close_timeout=10)
    a.do("close")
    assert a.peer.recv_message() == Close(1000)
    a.home.pause(9.9)
    assert not a.disposals
    a.home.pause(0.1)
    assert a.disposals


def test_receive_with_a_timeout_waits_for_all_of_it(manual: Connect) -> None:
    a = manual(ping_interval=None)
    a.home.plan(9.9, lambda: a.peer.send_message("in time"))
    assert a.do("receive", 10) == "in time"
    begun = a.home.now
    assert a.do("receive", 10) is None
    assert a.home.now - begun == 10


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
    waiting = [parked(a, "receive") for _ in range(3)]
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
    waiting = parked(a, "receive")
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
    waiting = [parked(a, "receive") for _ in range(2)]
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
        before = a.connection.bytes_received
        a.peer.send_raw(text("x" * 1000))
        until(lambda before=before: a.connection.bytes_received > before)
    assert a.peer.recv_message() == Close(1011)
    assert a.peer.read_to_eof() == b""


def test_abort_ends_without_a_close_frame(link: Connect) -> None:
    a = link()
    waiting = parked(a, "receive")
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
    sending = parked(a, "send", bytes(16 * MIB))
    finishing = a.start("finish")
    assert a.peer.recv_message() == bytes(16 * MIB)
    assert_ends(a.peer, 1000)
    a.peer.abandon()
    finishing.result(PATIENCE_SECONDS)
    sending.result(PATIENCE_SECONDS)
