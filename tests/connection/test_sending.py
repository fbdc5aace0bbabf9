"""What a connection sends, on either reactor: messages, frames that are offered, answers that leave together."""

from __future__ import annotations

import contextlib
import itertools
import math
import select
import socket
import threading
import time
import zlib
from concurrent.futures import wait as wait_for_all
from typing import Any, cast

import pytest
from websockets.sync.client import connect as client

from dwebsocket import require_websocket
from dwebsocket.connection.limits import CLOSED, NOT_OPEN, TAKEN, Bound
from dwebsocket.protocol.deflate import Agreement, Compression, PerMessageDeflate, serialize_once
from dwebsocket.protocol.endpoint import State
from dwebsocket.protocol.exceptions import SendTimeout, WebSocketClosed
from tests.connection.helpers import FIVE, MIB, Connect, echo, parked, server_frame
from tests.links import PATIENCE_SECONDS, Hub, Link, assert_ends, until
from tests.peer import CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, PeerTimeout, close_payload, frame, text
from tests.sites import Site

BOUNDLESS = Bound(max_seconds=math.inf)
PINGS = frame(PING, bytes(125)) * 100


# Sending


def test_send_blocks_while_the_peer_is_slow_and_returns_when_it_has_read(link: Connect) -> None:
    a = link()
    sending = parked(a, "send", bytes(8 * MIB))
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


def test_send_to_a_peer_that_reads_but_too_slowly_for_the_message_raises_send_timeout(manual: Connect) -> None:
    a = manual(send_timeout=30, ping_interval=None)
    for second in range(1, 100):
        a.home.plan(second, lambda: a.peer.sock.recv(16 * 1024))
    begun = a.home.now
    with pytest.raises(SendTimeout):
        a.do("send", bytes(32 * MIB))
    assert a.home.now - begun == 30
    assert a.disposals


def test_send_without_send_timeout_waits_as_long_as_it_takes(link: Connect) -> None:
    a = link(send_timeout=None)
    sending = parked(a, "send", bytes(8 * MIB))
    assert a.peer.recv_message() == bytes(8 * MIB)
    sending.result(PATIENCE_SECONDS)


def test_slow_but_steady_peer_is_no_stall(manual: Connect) -> None:
    a = manual(send_timeout=30, ping_interval=20)
    assert a.do("offer", server_frame(bytes(16 * MIB)), 1, BOUNDLESS) == TAKEN
    for _ in range(20):
        a.home.pause(29.9)
        assert not a.closed
        assert a.peer.sock.recv(MIB)  # all that the kernel holds
        a.home.pause(0)
    assert a.connection._outbox.waiting
    a.home.pause(29.9)
    assert not a.closed
    a.home.pause(0.1)
    assert a.closed
    assert a.connection.endpoint.close_reason == "the peer did not read for 30 seconds"


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
    sending = parked(a, "send", bytes(4 * MIB))
    received = a.start("receive", 5)
    a.peer.send_message("meanwhile")
    assert received.result(PATIENCE_SECONDS) == "meanwhile"
    assert a.peer.recv_message() == bytes(4 * MIB)
    sending.result(PATIENCE_SECONDS)


def test_sender_that_is_blocked_is_woken_by_the_reset_of_the_peer(link: Connect) -> None:
    a = link(tcp=True)
    sending = parked(a, "send", bytes(32 * MIB))
    a.peer.reset()
    with pytest.raises(WebSocketClosed) as caught:
        sending.result(PATIENCE_SECONDS)
    assert caught.value.close_code == 1006
    a.until_disposed()


def test_sender_that_is_blocked_is_woken_by_abort(link: Connect) -> None:
    a = link()
    sending = parked(a, "send", bytes(4 * MIB))
    a.do("abort", "enough")
    with pytest.raises(WebSocketClosed) as caught:
        sending.result(PATIENCE_SECONDS)
    assert (caught.value.close_code, caught.value.close_reason) == (1006, "enough")


def test_send_that_has_left_whole_raises_nothing_though_the_connection_ends_behind_it(link: Connect) -> None:
    a = link()
    sending = parked(a, "send", bytes(4 * MIB))
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
    sending = parked(a, "send", bytes(MIB))
    a.peer.send_raw(frame(PING, b"too late") + text("go on"))
    assert received.result(PATIENCE_SECONDS) == "go on"
    a.do("close")
    assert a.peer.recv_message() == bytes(MIB)
    assert a.peer.recv_frame() == Frame(CLOSE, close_payload(1000))
    assert a.peer.recv_frame() == Frame(PONG, b"too late")
    a.peer.send_frame(CLOSE, close_payload(1000))
    assert a.peer.read_to_eof() == b""
    sending.result(PATIENCE_SECONDS)


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


# Frames that are offered


def block(a: Link, bound: Bound = Bound()) -> int:  # noqa: B008  # immutable
    """Offer until the kernel takes no more; how many frames of 64 KiB were taken by the kernel or wait."""
    count = 0
    while not a.home.do(lambda: a.connection._outbox is not None):
        assert a.do("offer", server_frame(b"x" * 65_536), 1, bound) == TAKEN
        count += 1
    return count


def test_offered_frame_leaves_at_once(link: Connect) -> None:
    a = link()
    assert a.do("offer", server_frame(b"news")) == TAKEN
    assert a.peer.recv_message() == "news"
    assert (a.connection.messages_sent, a.connection.bytes_sent) == (1, 6)
    assert a.connection._outbox is None


def test_several_frames_are_offered_in_one_piece(link: Connect) -> None:
    a = link()
    three = b"".join(map(server_frame, [b"1", b"2", b"3"]))
    assert a.home.do(lambda: a.connection.offer(three, messages=3)) == TAKEN
    assert [a.peer.recv_message() for _ in range(3)] == ["1", "2", "3"]
    assert a.connection.messages_sent == 3


def test_frame_is_offered_from_a_thread_that_has_no_hub(link: Connect) -> None:
    a = link()
    assert a.connection.offer(server_frame(b"from elsewhere")) == TAKEN
    assert a.peer.recv_message() == "from elsewhere"


def offer_until_dropped(a: Link, bound: Bound, key: str = "") -> int:
    """How many frames of 1,000 bytes are offered, with their numbers, until the first is dropped."""
    for number in itertools.count():
        if dropped := a.do("offer", server_frame(b"%5d" % number * 200), 1, bound, key):
            assert dropped == 1
            return number
    raise AssertionError


def test_offers_to_a_peer_that_does_not_read_never_block_and_are_dropped_beyond_the_bound(link: Connect) -> None:
    a = link(send_timeout=None)
    bound = Bound(overflow="drop_new")
    count = block(a, bound)
    offered = offer_until_dropped(a, bound)
    waiting = a.connection._outbox.waiting
    assert waiting <= 1024 * 1024 < waiting + 1004
    assert offered > 900
    assert a.connection.messages_sent == count + offered
    small, large = (Bound(size, overflow="drop_new") for size in (1000, 2 * MIB))
    assert a.do("offer", server_frame(b"three"), 3, small) == 3
    assert a.do("offer", server_frame(b"three"), 3, large) == TAKEN
    assert a.connection.messages_sent == count + offered + 3


def test_oldest_frames_that_have_not_begun_to_leave_are_dropped_for_new_ones(link: Connect) -> None:
    a = link(send_timeout=None)
    bound = Bound(overflow="drop_oldest")
    count = block(a, bound)
    offered = offer_until_dropped(a, bound)
    for number in range(500):
        assert a.do("offer", server_frame(b"%5d" % (offered + 1 + number) * 200), 1, bound) == 1
    assert [a.peer.recv_message() for _ in range(count)] == ["x" * 65_536] * count
    for number in range(501, offered + 501):
        assert a.peer.recv_message() == f"{number:5}" * 200
    assert a.connection._outbox is None


def test_latest_frame_of_each_key_is_kept(link: Connect) -> None:
    a = link(send_timeout=None)
    bound = Bound(overflow="latest")
    count = block(a, bound)
    for number in range(3):
        for key in "abc":
            assert a.do("offer", server_frame(b"%d of %s" % (number, key.encode())), 1, bound, key) == (number > 0)
    assert [a.peer.recv_message() for _ in range(count + 3)][count:] == ["2 of a", "2 of b", "2 of c"]


def test_sender_behind_frames_that_are_dropped_returns_when_its_message_has_left(link: Connect) -> None:
    a = link(send_timeout=None)
    bound = Bound(overflow="drop_oldest")
    count = block(a, bound)
    for _ in range(5):
        assert a.do("offer", server_frame(b"y" * 100_000), 1, bound) == TAKEN
    sending = parked(a, "send", "own")
    assert a.do("offer", server_frame(b"z" * 900_000), 1, bound) == 5
    assert not sending.done()
    messages = [a.peer.recv_message() for _ in range(count + 2)]
    assert messages[count:] == ["own", "z" * 900_000]
    sending.result(PATIENCE_SECONDS)


def test_peer_that_is_too_slow_for_what_is_offered_is_closed_with_1013(link: Connect) -> None:
    a = link(send_timeout=None)
    receiving = a.start("receive")
    count = block(a)
    while not (result := a.do("offer", server_frame(b"y" * 100_000))):
        pass
    assert result == CLOSED
    assert a.do("offer", server_frame(b"too late")) == NOT_OPEN
    assert receiving.result(PATIENCE_SECONDS) is None
    assert [a.peer.recv_message() for _ in range(count)] == ["x" * 65_536] * count
    assert_ends(a.peer, 1013, "too slow")  # without what had not begun to leave: so that it leaves soon
    assert a.connection.endpoint.close_code == 1013


@pytest.mark.parametrize("is_waited_on", [False, True])
def test_peer_that_takes_too_long_for_what_is_offered_is_closed_without_a_further_offer(
    link: Connect, is_waited_on: bool
) -> None:
    a = link(send_timeout=None)
    if is_waited_on:
        receiving = a.start("receive")
    block(a, Bound(max_seconds=0.2))
    until(lambda: a.connection.endpoint.close_code == 1013)
    if is_waited_on:
        assert receiving.result(PATIENCE_SECONDS) is None


def test_peer_that_takes_a_byte_now_and_then_is_too_slow(manual: Connect) -> None:
    a = manual(send_timeout=30, ping_interval=None)
    for second in range(100):
        a.home.plan(second, lambda: a.peer.sock.recv(MIB))  # all that the kernel holds: it never stalls
    assert a.do("offer", server_frame(bytes(32 * MIB))) == TAKEN
    a.home.pause(9.9)
    assert a.connection.endpoint.state is State.OPEN
    a.home.pause(0.1)
    assert a.connection.endpoint.close_code == 1013


@pytest.mark.parametrize("overflow", ["drop_new", "drop_oldest", "latest"])
def test_slow_peer_is_not_closed_where_frames_may_be_dropped(manual: Connect, overflow: str) -> None:
    a = manual(send_timeout=None, ping_interval=None)
    assert a.do("offer", server_frame(bytes(MIB)), 1, Bound(overflow=overflow)) == TAKEN
    a.home.pause(1000)
    assert a.connection.endpoint.state is State.OPEN
    assert a.do("offer", server_frame(b"y"), 1, Bound(overflow=overflow)) == (overflow == "drop_new")


@pytest.mark.parametrize("asks", ["an offer", "the deadline"])
def test_peer_is_not_too_slow_where_this_process_stood_still(manual: Connect, asks: str) -> None:
    a = manual(send_timeout=None, ping_interval=None)
    block(a)
    while select.select([a.peer.sock], [], [], 0)[0]:
        a.peer.sock.recv(MIB)
    a.home.now += 60
    if asks == "an offer":
        assert a.do("offer", server_frame(b"news")) == TAKEN
    else:
        a.connection.on_deadline(a.home.now)
    assert a.connection.endpoint.state is State.OPEN
    assert a.connection._outbox is None


def test_what_waits_leaves_when_the_peer_reads_though_no_view_does_anything(link: Connect) -> None:
    a = link()
    count = block(a)
    for number in range(100):
        assert a.do("offer", server_frame(b"%d" % number)) == TAKEN
    assert [a.peer.recv_message() for _ in range(count)] == ["x" * 65_536] * count
    assert [a.peer.recv_message() for _ in range(100)] == [str(number) for number in range(100)]
    until(lambda: a.connection._outbox is None)


def test_what_waits_leaves_while_a_view_waits_for_a_message(link: Connect) -> None:
    a = link()
    receiving = a.start("receive")
    count = block(a)
    assert a.do("offer", server_frame(b"the last")) == TAKEN
    assert [a.peer.recv_message() for _ in range(count + 1)][-1] == "the last"
    a.peer.send_message("enough")
    assert receiving.result(PATIENCE_SECONDS) == "enough"


def test_frame_of_any_size_is_taken_while_nothing_waits(link: Connect) -> None:
    a = link()
    bound = Bound(overflow="drop_new")
    assert a.do("offer", server_frame(b"x" * 3 * MIB), 1, bound) == TAKEN
    assert a.do("offer", server_frame(b"behind it"), 1, bound) == 1
    assert a.peer.recv_message() == "x" * 3 * MIB
    assert until(lambda: a.do("offer", server_frame(b"later"), 1, bound) == TAKEN)
    assert a.peer.recv_message() == "later"


def test_offered_frame_stands_behind_what_a_sender_is_waiting_for_and_before_what_comes_later(link: Connect) -> None:
    a = link()
    first = a.start("send", "a" * 4 * MIB)
    until(lambda: a.home.do(lambda: a.connection._outbox is not None))
    assert a.do("offer", server_frame(b"offered")) == TAKEN
    second = a.start("send", "b" * MIB)
    assert [a.peer.recv_message() for _ in range(3)] == ["a" * 4 * MIB, "offered", "b" * MIB]
    for sending in (first, second):
        sending.result(PATIENCE_SECONDS)


def test_frames_of_many_who_offer_and_send_are_whole_and_in_the_order_of_each(link: Connect) -> None:
    a = link()
    each, bound = 100, Bound(overflow="drop_new")

    def offer_all(name: str) -> None:
        for number in range(each):
            payload = f"{name} {number} " + name * (number * 997 % 5_000)
            assert until(lambda payload=payload: a.connection.offer(server_frame(payload.encode()), 1, bound) == TAKEN)

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
    assert a.do("offer", server_frame(b"offered")) == TAKEN
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
    assert a.do("offer", server_frame(b"x" * MIB)) == TAKEN
    assert a.do("offer", server_frame(b"one more"), 1, Bound(overflow="drop_new")) == 1
    a.do("send_fragment", "message", True, True)
    a.do("end_message")
    assert [a.peer.recv_message() for _ in range(2)] == ["message", "x" * MIB]


def test_frames_behind_a_message_that_is_not_finished_are_dropped(link: Connect) -> None:
    a = link()
    a.do("begin_message")
    a.do("send_fragment", "one ", True, False)
    assert a.do("offer", server_frame(b"offered")) == TAKEN
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
    assert until(lambda: a.do("offer", server_frame(b"too late")) == NOT_OPEN)
    assert a.do("offer", server_frame(b"too late")) == NOT_OPEN


@pytest.mark.parametrize("message", ["small", "x" * 100_000])
def test_message_that_comes_too_late_is_not_counted_as_sent(link: Connect, message: str) -> None:
    a = link(tcp=True)
    a.do("send", "in time")
    a.do("close")
    with pytest.raises(WebSocketClosed):
        a.do("send", message)
    with pytest.raises(WebSocketClosed):
        a.do("send_fragment", "late", True, True)
    assert a.connection.messages_sent == 1


def test_offer_inside_a_message_in_fragments_is_refused_when_the_peer_has_gone(link: Connect) -> None:
    a = link(tcp=True, receive_queue=1)
    a.peer.send_raw(text("one") + text("two"))  # a full inbox: reading has stopped, and the state stays open
    until(lambda: a.do("waiting"))
    a.do("begin_message")
    a.peer.reset()

    def send_until_it_fails() -> None:
        while True:
            a.connection.send_fragment("x" * 1000, False, False)

    with pytest.raises(WebSocketClosed):
        a.do("send_fragment", "x", True, False)
        a.home.do(send_until_it_fails)
    assert a.connection.endpoint.state is State.OPEN
    assert a.do("offer", server_frame(b"too late")) == NOT_OPEN


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
        assert a.connection.offer(server_frame(b"offered")) == TAKEN
        echo(a, 1)

    a.home.start(view).result(PATIENCE_SECONDS)
    assert [a.peer.recv_message() for _ in range(6)] == [*FIVE[:4], "offered", FIVE[4]]


# Frames that were deflated once for many connections


def deflate(context_takeover: bool = True, bits: int = 15, **options: int) -> PerMessageDeflate:
    agreement = Agreement(not context_takeover, False, bits, 15, says_client_bits=False)
    return PerMessageDeflate(agreement, Compression(**options))


def test_there_is_nothing_to_share_where_no_compression_was_agreed(link: Connect) -> None:
    assert link().do("share_compression") is None


@pytest.mark.parametrize("bits", [9, 15])
@pytest.mark.parametrize("size", [3, 100, 20_000, 200_000])
def test_own_messages_and_shared_frames_come_in_any_order(link: Connect, bits: int, size: int) -> None:
    a = link(extensions=[deflate(bits=bits, min_size=20)])
    inflater = zlib.decompressobj(wbits=-bits)

    def received() -> bytes:
        raw = a.peer.recv_frame()
        return inflater.decompress(raw.payload + b"\x00\x00\xff\xff") if raw.rsv else raw.payload

    words = (b"the same words again and again " * (size // 31 + 1))[:size]
    a.do("send", words)
    assert received() == words
    shared = a.do("share_compression")
    for number in range(3):
        other = b"%d" % number + words[1:]
        sending = a.start("send", words)
        assert received() == words
        sending.result(PATIENCE_SECONDS)
        assert a.do("offer", serialize_once(other, shared)) == TAKEN
        assert received() == other


@pytest.mark.parametrize("option", [{}, {"server_max_window_bits": 9}], ids=["15 bits", "9 bits"])
def test_client_that_agreed_on_context_takeover_inflates_shared_frames_and_own_messages(
    site: Site, option: dict[str, int]
) -> None:
    messages = ["short", "the same words again and again " * 40, "another large one, " * 20_000, "{}" * 100]

    @require_websocket(compression={"min_size": 50, **option})
    def view(request: Any) -> None:
        ws = request.websocket
        ws.accept()
        ws.send(messages[1])
        connection = ws._connection
        shared = connection.share_compression()
        for own, other in itertools.product(messages, repeat=2):
            ws.send(own)
            assert connection.offer(serialize_once(other, shared)) == TAKEN
        ws.send_chunks([messages[1], messages[1]])
        assert connection.offer(serialize_once(messages[1], shared)) == TAKEN
        ws.send(messages[1])
        ws.wait()

    with client(f"ws://{site(view).host}/", proxy=None, max_size=None) as peer:
        [extension] = peer.protocol.extensions
        assert "permessage-deflate" in extension.name
        assert not extension.remote_no_context_takeover
        expected = [messages[1], *itertools.chain(*itertools.product(messages, repeat=2))]
        assert [peer.recv(timeout=10) for _ in expected] == expected
        assert peer.recv(timeout=10) == messages[1] * 2
        assert [peer.recv(timeout=10) for _ in range(2)] == [messages[1]] * 2
