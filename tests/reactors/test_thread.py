"""Threads: who waits reads; the background thread serves who is busy."""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import os
import select
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest

from dwebsocket.connection.limits import Bound
from dwebsocket.protocol.deflate import Agreement, Compression, PerMessageDeflate, serialize_once
from dwebsocket.protocol.exceptions import WebSocketClosed
from dwebsocket.reactors import reactor_for, thread
from dwebsocket.reactors.base import LinkLock
from dwebsocket.reactors.thread import ThreadReactor
from tests.connection.helpers import server_frame
from tests.links import PATIENCE_SECONDS, Link, Threads, connect, linking, run_program, tcp_pair, until
from tests.peer import CONTINUATION, PING, PONG, TEXT, Close, Frame, frame, text

HOME = Threads()


@pytest.fixture
def link() -> Iterator[Callable[..., Link]]:
    """``connect`` for threads, on a reactor of its own or the one of the process."""
    with linking(HOME) as connect:
        yield connect


def background_threads() -> int:
    return sum(thread.name == "dwebsocket" for thread in threading.enumerate())


def test_process_has_one_reactor() -> None:
    assert thread.current() is thread.current()
    server, client = tcp_pair()
    with server, client:
        assert reactor_for(type(server)) is thread.current()


def test_background_thread_starts_with_the_first_connection_and_is_the_only_one(link: Callable[..., Link]) -> None:
    reactor, before = ThreadReactor(), background_threads()
    assert reactor._thread is None
    for _ in range(5):
        link(reactor=reactor)
    assert reactor._thread is not None
    assert reactor._thread.daemon
    assert background_threads() == before + 1


def test_background_thread_sleeps_when_there_is_nothing_to_serve() -> None:
    reactor = ThreadReactor()
    assert reactor._seconds_to_next_round() is None
    a = connect(HOME, reactor=reactor, ping_interval=None)
    assert reactor._seconds_to_next_round() == thread.SWEEP_SECONDS
    a.do("abort", "over")
    assert reactor._seconds_to_next_round() is None
    a.peer.abandon()


def test_every_thread_is_at_home() -> None:
    reactor = ThreadReactor()
    assert reactor.owner_thread is None
    assert reactor.call(threading.get_ident) == threading.get_ident()


def test_view_gets_a_daemon_thread_with_a_name() -> None:
    seen: list[threading.Thread] = []
    latch = ThreadReactor().latch()

    def view() -> None:
        seen.append(threading.current_thread())
        latch.set()

    ThreadReactor().spawn(view, "websocket /here/")
    latch.wait()
    assert seen[0].name == "websocket /here/"
    assert seen[0].daemon


def test_many_busy_connections_are_served_in_one_round(link: Callable[..., Link]) -> None:
    links = [link() for _ in range(20)]
    for number, a in enumerate(links):
        a.peer.send_frame(PING, str(number).encode())
    for number, a in enumerate(links):
        assert a.peer.recv_frame() == Frame(PONG, str(number).encode())


def test_connection_that_somebody_waits_on_is_not_swept(link: Callable[..., Link]) -> None:
    a = link()
    waiting = a.start("receive")
    until(lambda: a.connection._link.polling)
    for number in range(50):
        a.peer.send_frame(PING, b"%d" % number)
        assert a.peer.recv_frame(timeout=5) == Frame(PONG, b"%d" % number)
    a.peer.send_message("enough")
    assert waiting.result(PATIENCE_SECONDS) == "enough"


def test_sweep_that_comes_late_leaves_a_connection_alone_that_somebody_waits_on(link: Callable[..., Link]) -> None:
    a = link()
    waiting = a.start("receive")
    until(lambda: a.connection._link.polling)
    a.connection._link.serve(select.POLLIN)  # as if poll() had returned just before
    assert not waiting.done()
    a.peer.send_message("there")
    assert waiting.result(PATIENCE_SECONDS) == "there"


def test_sweep_that_comes_late_leaves_a_connection_alone_that_is_closed(link: Callable[..., Link]) -> None:
    a = link()
    a.do("abort", "over")
    a.connection._link.serve(select.POLLIN | select.POLLOUT)
    a.connection._link.on_deadline(time.monotonic() + 1e6)
    a.connection._link.schedule(time.monotonic())
    assert a.connection.endpoint.close_reason == "over"


def test_descriptor_that_a_thread_polls_is_closed_by_that_thread_once_it_has_come_back(
    link: Callable[..., Link],
) -> None:
    a = link()
    waiting = HOME.start(lambda: (a.connection.receive(), threading.get_ident()))
    until(lambda: a.connection._link.polling)
    a.do("abort", "over")
    received, poller = waiting.result(PATIENCE_SECONDS)
    assert received is None
    assert a.disposers == [poller]


def test_parking_on_a_closed_link_returns_at_once(link: Callable[..., Link]) -> None:
    a = link()
    a.do("abort", "over")
    with a.connection._link.lock:
        a.connection._link.sleep(None)


def test_thread_that_stops_reading_while_another_polls_makes_it_poll_anew(link: Callable[..., Link]) -> None:
    """The poller waits for writing only, the inbox is full; taking a message must make it wait for reading too."""
    a = link(receive_queue=1)
    sending = a.start("send", bytes(4 << 20))
    until(lambda: a.connection._link.polling)
    a.peer.send_raw(text("one"))
    until(lambda: a.connection._inbox)
    until(lambda: not a.connection._link.mask & select.POLLIN)
    a.peer.send_raw(text("two"))
    assert a.do("receive", 5) == "one"
    assert a.do("receive", 5) == "two"
    a.peer.recv_message()
    sending.result(PATIENCE_SECONDS)


def test_parking_while_nothing_is_watched_notices_nothing_but_the_end_of_its_time(link: Callable[..., Link]) -> None:
    a = link()
    under_test = a.connection._link
    with under_test.lock:
        under_test.sleep(0.001)  # the descriptor is registered with poll() now
        under_test.watch(read=False, write=False)
        a.peer.send_message("unseen")
        under_test.sleep(0.05)
        assert not a.connection._inbox
        under_test.watch(read=True, write=False)
        under_test.sleep(5)
        assert a.connection._inbox


# The lock


def test_thread_that_gives_way_lets_all_that_wait_have_the_lock_first() -> None:
    lock = LinkLock()
    begun, had = threading.Semaphore(0), []

    def use(number: int) -> None:
        begun.release()
        with lock:
            had.append(number)

    with lock:
        users = [HOME.start(use, number) for number in range(3)]
        for _ in users:
            begun.acquire()
        turns = 0
        while len(had) < len(users):
            lock.give_way()
            turns += 1
    assert turns < 100  # the lock is free for half a millisecond each time
    assert sorted(had) == [0, 1, 2]


def test_lock_does_what_was_posted_as_soon_as_it_is_given_back_and_at_once_where_it_is_free() -> None:
    lock, done = LinkLock(), []
    lock.post(lambda: done.append(threading.get_ident()))
    assert done == [threading.get_ident()]
    with lock:
        HOME.do(lock.post, lambda: done.append(threading.get_ident()))
        assert lock.has_posted()
        assert len(done) == 1
    assert done == [threading.get_ident()] * 2
    assert not lock.has_posted()


def test_thread_that_holds_the_lock_can_post_to_itself() -> None:
    lock, done = LinkLock(), []
    with lock:
        lock.post(lambda: done.append("posted"))
        assert done == []
    assert done == ["posted"]


def test_what_was_posted_and_fails_is_logged_and_disturbs_no_other(caplog: pytest.LogCaptureFixture) -> None:
    lock, done = LinkLock(), []

    def fail() -> None:
        raise ValueError("on purpose")

    with lock:
        for function in (fail, lambda: done.append("the next")):
            lock.post(function)
    assert done == ["the next"]
    assert [record.getMessage() for record in caplog.records] == ["what was asked of a WebSocket has failed"]


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [("receive", (0,)), ("send", ("x",)), ("close", ()), ("waiting", ()), ("look", ()), ("abort", ("why",))],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_verb_of_a_thread_that_is_inside_another_one_raises_where_it_would_wait_for_itself(
    link: Callable[..., Link], verb: str, arguments: tuple[Any, ...]
) -> None:
    a = link()
    with a.connection.lock, pytest.raises(RuntimeError, match="signal handler or a __del__"):
        getattr(a.connection, verb)(*arguments)
    a.do("send", "still here")
    assert a.peer.recv_message() == "still here"


SIGNAL = """
import os, signal, threading, time
from dwebsocket.protocol import COMPILED
from tests.links import Threads, connect
from tests.peer import PING, Close, Frame

home = Threads()
a, other = connect(home), connect(home, ping_interval=0.1)
outcomes = []

def handle(*_):
    for verb, arguments in (("send", ("from the handler",)), ("receive", ()), ("close", (3000,))):
        try:
            getattr(a.connection, verb)(*arguments)
            outcomes.append("works")
        except RuntimeError as error:
            assert "signal handler" in str(error), error
            outcomes.append("raises")

def interrupt():
    while not a.connection._link.polling:
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGUSR1)
    while len(outcomes) < 3:
        time.sleep(0.001)
    a.peer.send_message("after it")

signal.signal(signal.SIGUSR1, handle)
threading.Thread(target=interrupt, daemon=True).start()
received = a.connection.receive(20)
if outcomes[2] == "raises":
    assert received == "after it", received
assert outcomes[1] == "raises"
if COMPILED:  # it comes while poll() waits, and the lock is free; Python may let it in a moment earlier
    assert outcomes == ["works", "raises", "works"], outcomes
assert other.peer.recv_frame().opcode == PING
for each in (a, other):
    each.peer.abandon()
    each.connection.abort("over")
"""


def test_verb_in_a_signal_handler_never_waits_for_the_thread_that_runs_it() -> None:
    run_program(SIGNAL)


def test_verb_in_a_del_never_waits_for_the_thread_that_runs_it(link: Callable[..., Link]) -> None:
    """The garbage collector may run it wherever Python makes an object: also where a frame is parsed."""
    a, count = link(), 1000

    class Farewell:
        def __init__(self) -> None:
            self.itself = self  # a cycle

        def __del__(self) -> None:
            with contextlib.suppress(RuntimeError, WebSocketClosed):  # inside another verb; after the end
                a.connection.send("bye")

    def view() -> None:
        for _ in range(count):
            Farewell()
            a.connection.send(a.connection.receive(PATIENCE_SECONDS))

    threshold = gc.get_threshold()
    gc.set_threshold(20, 3, 3)
    try:
        viewing = HOME.start(view)
        echoes = 0
        for _ in range(count):
            a.peer.send_raw(text("hello") + frame(PING) * 8)
            while a.peer.recv_message() != "hello":
                pass
            echoes += 1
        viewing.result(PATIENCE_SECONDS)
    finally:
        gc.set_threshold(*threshold)
    assert echoes == count


def test_connection_whose_lock_is_held_keeps_no_other_from_being_served(link: Callable[..., Link]) -> None:
    reactor = ThreadReactor()
    stuck, other = link(reactor=reactor, ping_interval=0.05), link(reactor=reactor, ping_interval=0.1)
    with stuck.connection.lock:
        stuck.peer.send_frame(PING, b"unanswered so far")
        for number in range(5):
            other.peer.send_frame(PING, b"%d" % number)
            while (received := other.peer.recv_frame()).opcode == PING:  # its own deadlines are kept, too
                other.peer.send_frame(PONG, received.payload)
            assert received == Frame(PONG, b"%d" % number)
    received = [stuck.peer.recv_frame(), stuck.peer.recv_frame()]
    assert sorted(each.opcode for each in received) == [PING, PONG]


def test_end_of_the_process_and_guards_do_not_wait_for_a_lock_that_is_held(link: Callable[..., Link]) -> None:
    a, b = link(), link()
    for each in (a, b):
        each.connection.lock.acquire()
    HOME.do(a.connection.go_away, 1001)
    HOME.do(b.connection.close_soon, 4403, "no longer")
    for each in (a, b):
        assert each.connection.endpoint.close_code is None
        each.connection.lock.release()
    assert a.peer.recv_message() == Close(1001)
    assert b.peer.recv_message() == Close(4403, "no longer")


def test_flood_of_frames_that_complete_no_message_holds_up_no_sender(link: Callable[..., Link]) -> None:
    a = link(max_message_size=None)
    over = threading.Event()
    flood = frame(CONTINUATION, b"x", fin=False) * 20_000  # of frames without content there is a limit

    def send_flood() -> None:
        a.peer.send_frame(TEXT, fin=False)
        while not over.is_set():
            a.peer.send_raw(flood)

    receiving = a.start("receive")
    flooding = HOME.start(send_flood)
    until(lambda: a.connection._link.resuming)
    slowest = 0.0
    for _ in range(20):
        started = time.monotonic()
        a.do("send", "hello all")
        slowest = max(slowest, time.monotonic() - started)
    over.set()
    flooding.result(PATIENCE_SECONDS)
    assert slowest < 1
    a.do("abort", "over")
    assert receiving.result(PATIENCE_SECONDS) is None


# Bytes that no thread waits to send


@pytest.fixture
def no_sweep() -> Iterator[ThreadReactor]:
    """A reactor whose sweep does not come within a test."""
    with mock.patch.object(thread, "SWEEP_SECONDS", 600):
        yield ThreadReactor()


@pytest.mark.parametrize("first", ["an offer", "a message"])
def test_what_is_offered_leaves_as_fast_as_the_peer_reads_while_the_view_computes(
    link: Callable[..., Link], no_sweep: ThreadReactor, first: str
) -> None:
    a = link(reactor=no_sweep)
    if first == "a message":  # a thread has waited on the link before
        a.peer.send_message("hello")
        assert a.do("receive", 5) == "hello"
    for _ in range(8):
        assert a.do("offer", server_frame(b"x" * 500_000), 1, Bound(16 << 20)) == 0
    for _ in range(8):
        assert a.peer.recv_message() == "x" * 500_000
    until(lambda: not no_sweep._writers)
    assert a.do("offer", server_frame(b"y" * 4_000_000)) == 0
    assert a.peer.recv_message() == "y" * 4_000_000


def test_background_thread_does_nothing_while_the_peer_does_not_read(
    link: Callable[..., Link], no_sweep: ThreadReactor
) -> None:
    a, other = link(reactor=no_sweep), link(reactor=no_sweep)
    assert no_sweep._wakeup is None
    with mock.patch.object(no_sweep, "_serve_writers", wraps=no_sweep._serve_writers) as rounds:
        assert a.do("offer", server_frame(b"x" * 2_000_000)) == 0
        until(lambda: no_sweep._polls)
        before = rounds.call_count
        other.peer.send_message("hello")  # as long as other connections need it not, either
        assert other.do("receive", 5) == "hello"
        time.sleep(0.05)
        assert rounds.call_count == before
        a.peer.recv_message()
        until(lambda: not no_sweep._writers)
        until(lambda: not no_sweep._polls)


def test_sweep_goes_on_while_the_background_thread_waits_for_sockets(link: Callable[..., Link]) -> None:
    reactor = ThreadReactor()
    a, other = link(reactor=reactor), link(reactor=reactor)
    assert a.do("offer", server_frame(b"x" * 2_000_000)) == 0
    for number in range(3):
        other.peer.send_frame(PING, b"%d" % number)
        assert other.peer.recv_frame() == Frame(PONG, b"%d" % number)
    assert reactor._writers


@pytest.mark.parametrize("hurries", ["an early deadline", "hurry()"])
def test_background_thread_that_waits_for_sockets_can_be_hurried(
    link: Callable[..., Link], no_sweep: ThreadReactor, hurries: str
) -> None:
    a = link(reactor=no_sweep)
    assert a.do("offer", server_frame(b"x" * 2_000_000)) == 0
    until(lambda: no_sweep._polls)
    if hurries == "hurry()":
        with mock.patch.object(no_sweep, "_sweep") as sweep:
            no_sweep.hurry()
            until(lambda: sweep.called)
    else:
        due = mock.Mock()
        no_sweep.schedule(due, time.monotonic() + 0.01)
        until(lambda: due.on_deadline.called)


@pytest.mark.parametrize("end", ["reset", "close", "abort"])
def test_socket_that_the_background_thread_waits_for_ends_at_once(
    link: Callable[..., Link], no_sweep: ThreadReactor, end: str
) -> None:
    a = link(reactor=no_sweep, tcp=True)
    assert a.do("offer", server_frame(b"x" * 8_000_000)) == 0
    until(lambda: no_sweep._polls)
    if end == "reset":
        a.peer.reset()
        until(lambda: a.connection._outbox.error)
    elif end == "abort":
        a.do("abort", "over")
        with contextlib.suppress(ConnectionError):
            a.peer.read_to_eof()
    else:
        a.do("close")
        a.peer.send_close()
        assert a.peer.recv_message() == "x" * 8_000_000
        assert a.peer.recv_message() == Close(1000)
    until(lambda: not no_sweep._writers)


def test_what_is_offered_leaves_with_the_sweep_where_there_is_no_descriptor_to_wake_by(
    link: Callable[..., Link],
) -> None:
    a = link(reactor=ThreadReactor())
    with mock.patch.object(thread, "Wakeup", side_effect=OSError):
        assert a.do("offer", server_frame(b"x" * 500_000)) == 0
        assert a.peer.recv_message() == "x" * 500_000


def test_view_that_waits_sends_what_is_offered_itself(link: Callable[..., Link], no_sweep: ThreadReactor) -> None:
    a = link(reactor=no_sweep)
    waiting = a.start("receive")
    until(lambda: a.connection._link.polling)
    assert a.do("offer", server_frame(b"x" * 2_000_000)) == 0
    assert not no_sweep._writers
    assert a.peer.recv_message() == "x" * 2_000_000
    a.peer.send_message("enough")
    assert waiting.result(PATIENCE_SECONDS) == "enough"


# A long compression


class Slow:
    """An extension that takes as long as the test wants it to."""

    uses_rsv1 = False

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()

    def wire_size(self, message_size: int) -> int:
        return message_size

    def decode(self, received: Any) -> Any:
        return received

    def encode(self, sent: Any) -> Any:
        if len(sent.payload) >= 16 * 1024:
            self.begun.set()
            assert self.go_on.wait(PATIENCE_SECONDS)
        return sent


def test_connection_is_served_while_a_large_message_is_compressed(link: Callable[..., Link]) -> None:
    slow = Slow()
    a = link(extensions=[slow])
    large = a.start("send", "x" * 20_000)
    slow.begun.wait(PATIENCE_SECONDS)
    a.peer.send_frame(PING, b"meanwhile")
    assert a.peer.recv_frame() == Frame(PONG, b"meanwhile")
    a.peer.send_message("meanwhile, too")
    assert a.do("receive", 5) == "meanwhile, too"
    slow.go_on.set()
    large.result(PATIENCE_SECONDS)
    assert a.peer.recv_message() == "x" * 20_000


def test_messages_leave_in_the_order_in_which_they_were_compressed(link: Callable[..., Link]) -> None:
    slow = Slow()
    a = link(extensions=[slow])
    large = a.start("send", "x" * 20_000)
    slow.begun.wait(PATIENCE_SECONDS)
    small = a.start("send", "small")
    until(lambda: a.connection._link.polling)  # it waits for its turn, and reads meanwhile
    assert not small.done()
    slow.go_on.set()
    for sent in (large, small):
        sent.result(PATIENCE_SECONDS)
    assert [a.peer.recv_message(), a.peer.recv_message()] == ["x" * 20_000, "small"]


def test_message_whose_connection_is_closed_while_it_is_compressed_is_not_sent(link: Callable[..., Link]) -> None:
    slow = Slow()
    a = link(extensions=[slow])
    large = a.start("send", "x" * 20_000)
    slow.begun.wait(PATIENCE_SECONDS)
    a.do("close", 3000)
    slow.go_on.set()
    with pytest.raises(WebSocketClosed):
        large.result(PATIENCE_SECONDS)
    a.peer.send_close(3000)
    assert a.peer.recv_message() == Close(3000)
    assert a.peer.read_to_eof() == b""


class SlowDeflate(PerMessageDeflate):
    """Compresses at once, and gives the large result when the test wants it to."""

    def __init__(self) -> None:
        super().__init__(Agreement(False, False, 15, 15, says_client_bits=False), Compression())
        self.compressed, self.go_on = threading.Event(), threading.Event()

    def encode(self, sent: Any) -> Any:
        encoded = super().encode(sent)
        if len(sent.payload) >= 16 * 1024:
            self.compressed.set()
            assert self.go_on.wait(PATIENCE_SECONDS)
        return encoded


def test_frame_that_is_offered_while_a_message_is_compressed_leaves_behind_it(link: Callable[..., Link]) -> None:
    """The message refers back to what the peer inflated last: had the frame come before it, it would be corrupt."""
    slow = SlowDeflate()
    a = link(extensions=[slow])
    inflater = zlib.decompressobj(wbits=-15)
    words = os.urandom(15_000)
    a.do("send", words)
    large = a.start("send", words + words)
    assert slow.compressed.wait(PATIENCE_SECONDS)
    shared = a.do("share_compression")
    assert a.do("offer", serialize_once(bytes(50_000), shared)) == 0
    slow.go_on.set()
    large.result(PATIENCE_SECONDS)
    for expected in (words, words + words, bytes(50_000)):
        assert inflater.decompress(a.peer.recv_frame().payload + b"\x00\x00\xff\xff") == expected
    a.do("send", words)
    assert inflater.decompress(a.peer.recv_frame().payload + b"\x00\x00\xff\xff") == words


def test_fragment_is_compressed_with_the_lock_free_too(link: Callable[..., Link]) -> None:
    slow = Slow()
    a = link(extensions=[slow])

    def send() -> None:
        a.connection.begin_message()
        a.connection.send_fragment(bytes(20_000), True, True)
        a.connection.end_message()

    sending = HOME.start(send)
    slow.begun.wait(PATIENCE_SECONDS)
    a.peer.send_frame(PING, b"meanwhile")
    assert a.peer.recv_frame() == Frame(PONG, b"meanwhile")
    slow.go_on.set()
    sending.result(PATIENCE_SECONDS)
    assert a.peer.recv_message() == bytes(20_000)


def test_thread_that_sends_while_it_makes_the_chunks_of_a_message_does_not_wait_for_itself(
    link: Callable[..., Link],
) -> None:
    a = link()

    def send() -> None:
        a.connection.begin_message()
        try:
            a.connection.send("in between")
        finally:
            a.connection.end_message()

    with pytest.raises(RuntimeError, match="must not send"):
        HOME.do(send)
    a.do("send", "afterwards")
    assert a.peer.recv_message() == "afterwards"


# Troubles of the background thread


def test_background_thread_goes_on_after_any_exception(
    link: Callable[..., Link], caplog: pytest.LogCaptureFixture
) -> None:
    reactor = ThreadReactor()
    sweep = reactor._sweep
    with mock.patch.object(
        reactor, "_sweep", side_effect=[MemoryError, SystemExit, *[mock.DEFAULT] * 10_000]
    ) as broken:
        broken.return_value = None
        a = link(reactor=reactor, ping_interval=0.1)
        until(lambda: broken.call_count > 2, "the background thread to go on")
        assert a.peer.recv_frame().opcode == PING
    assert reactor._sweep == sweep
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    a.peer.send_frame(PING, b"swept")
    while (received := a.peer.recv_frame()).opcode == PING:
        a.peer.send_frame(PONG, received.payload)
    assert received == Frame(PONG, b"swept")


def test_connection_that_cannot_be_served_keeps_no_other_from_being_served(
    link: Callable[..., Link], caplog: pytest.LogCaptureFixture
) -> None:
    reactor = ThreadReactor()
    called = threading.Semaphore(0)

    def fail(now: float) -> float:
        called.release()
        raise MemoryError

    served = mock.Mock(on_deadline=fail)
    with mock.patch.object(thread, "_AGAIN_SECONDS", 0.01):
        broken = reactor.link(served, 0)
        broken.schedule(time.monotonic())
        a = link(reactor=reactor, ping_interval=0.05)
        assert a.peer.recv_frame().opcode == PING
        for _ in range(3):  # and is called again
            assert called.acquire(timeout=PATIENCE_SECONDS)
        broken.close(lambda: None)
        broken.lock.acquire()  # the background thread may be inside just now, and would write into the next test's log
        broken.lock.release()
    assert {record.getMessage() for record in caplog.records} == {"what was asked of a WebSocket has failed"}


def test_link_for_which_there_is_no_memory_is_looked_at_again(caplog: pytest.LogCaptureFixture) -> None:
    reactor, link, now = ThreadReactor(), mock.Mock(), time.monotonic()
    link.serve.side_effect = link.on_deadline.side_effect = MemoryError
    reactor._serve(link, select.POLLIN)
    reactor._attend(link, now)
    assert reactor._deadlines.earliest() == now + thread._AGAIN_SECONDS
    assert [record.getMessage() for record in caplog.records] == [
        "a WebSocket could not be served",
        "a deadline of a WebSocket was missed",
    ]


MANY_DESCRIPTORS = """
import os, resource, threading
from dwebsocket.reactors import thread

soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
taken = [os.dup(0) for _ in range(1100)]
started = threading.Event()
start = thread.ThreadReactor().starter(started.set)
start()
assert started.wait(10)
"""


def test_what_a_signal_starts_is_started_where_more_than_1024_descriptors_are_open() -> None:
    run_program(MANY_DESCRIPTORS)


# fork

FORK = """
import os
from dwebsocket.reactors import thread
from tests.links import Threads, connect
from tests.peer import PING, PONG, Close, Frame, frame, text

home = Threads()
a = connect(home, ping_interval=0.05)
parents = thread.current()
pid = os.fork()
if pid == 0:
    assert thread.current() is not parents
    b = connect(home, ping_interval=None)
    b.peer.send_raw(text("hello") + frame(PING, b"served"))
    assert b.peer.recv_frame() == Frame(PONG, b"served")  # by the background thread of the child
    assert [b.connection.receive(5), b.connection.receive(0)] == ["hello", None]
    b.peer.send_close()
    assert b.peer.recv_message() == Close(1000)
    os._exit(42)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 42

ping = a.peer.recv_frame()
assert ping.opcode == PING
a.peer.send_frame(PONG, ping.payload)
a.peer.send_message("still the parent's")
assert a.connection.receive(5) == "still the parent's"
assert a.connection.latency > 0
a.peer.abandon()
a.connection.abort("over")
"""


def test_forked_child_has_a_reactor_of_its_own_and_the_parents_connections_stay_the_parents() -> None:
    run_program(FORK)


FORK_OF_A_VIEW = """
import os, signal, sys, threading
from dwebsocket.protocol.exceptions import WebSocketClosed
from tests.links import Threads, connect, until

home = Threads()
a = connect(home)
held, release = threading.Event(), threading.Event()

def hold():
    with a.connection.lock:
        held.set()
        release.wait(20)

def poll():
    until(lambda: a.connection._link.polling and held.set() is None)

receiving = None
if sys.argv[1] == "held":
    threading.Thread(target=hold).start()
else:
    receiving = a.start("receive")
    poll()
held.wait(20)
pid = os.fork()
if pid == 0:
    signal.alarm(30)  # a child that hangs ends too
    try:
        a.connection.send("from the child")
    except WebSocketClosed as error:
        assert error.close_code == 1006
    else:
        os._exit(1)
    assert a.connection.receive(20) is None
    assert a.connection.closed
    a.connection.close(3000)
    a.connection.go_away(1001)
    a.connection.finish()  # as the end of a view does
    os._exit(42)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 42
release.set()
a.connection.send("from the parent")
assert a.peer.recv_message() == "from the parent"
a.peer.send_message("still there")
assert (a.connection.receive(20) if receiving is None else receiving.result(20)) == "still there"
a.peer.abandon()
a.connection.abort("over")
"""


@pytest.mark.parametrize("lock", ["held", "free"])
def test_child_of_a_fork_that_leaves_the_view_writes_nothing_into_its_parents_socket(lock: str) -> None:
    run_program(FORK_OF_A_VIEW, lock)


def test_connection_without_a_descriptor_for_its_wakeup_is_read_by_the_sweep(link: Callable[..., Link]) -> None:
    with mock.patch.object(thread, "Wakeup", side_effect=OSError(errno.EMFILE, "Too many open files")):
        a = link()
        received = a.start("receive")
        a.peer.send_message("swept")
        assert received.result(PATIENCE_SECONDS) == "swept"


def test_worker_has_a_daemon_thread_from_its_first_wake_up_on() -> None:
    seen: list[threading.Thread] = []
    wake = ThreadReactor().worker(lambda: seen.append(threading.current_thread()), "a worker of this test")
    assert not [thread for thread in threading.enumerate() if thread.name == "a worker of this test"]
    for runs in (1, 2):
        wake()
        until(lambda runs=runs: len(seen) == runs)
    assert seen[0] is seen[1]
    assert seen[0].daemon
    assert seen[0].name == "a worker of this test"


def test_worker_for_which_there_is_no_thread_starts_with_its_next_wake_up(caplog: pytest.LogCaptureFixture) -> None:
    runs: list[int] = []
    wake = ThreadReactor().worker(lambda: runs.append(1), "the dispatcher")
    with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")):
        wake()
    assert caplog.messages == ["the dispatcher could not be started"]
    wake()
    until(lambda: runs)
    assert runs == [1]


def test_threads_need_not_breathe() -> None:
    assert ThreadReactor().breathe(time.monotonic()) is None  # type: ignore[func-returns-value]


def test_background_thread_that_could_not_be_started_is_started_with_the_next_connection() -> None:
    reactor = ThreadReactor()
    served = mock.Mock()
    with (
        mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")),
        pytest.raises(RuntimeError),
    ):
        reactor.link(served, 0)
    assert not reactor._links
    link = reactor.link(served, 0)
    assert reactor._thread is not None
    assert reactor._thread.is_alive()
    link.close(lambda: None)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_worker_that_wants_to_end_the_process_starts_anew_with_its_next_wake_up() -> None:
    runs: list[int] = []

    def work() -> None:
        runs.append(len(runs))
        if len(runs) == 1:
            raise SystemExit

    wake = ThreadReactor().worker(work, "a worker that exits")
    wake()
    until(lambda: runs == [0] and not any(thread.name == "a worker that exits" for thread in threading.enumerate()))
    wake()
    until(lambda: runs == [0, 1])
