"""Threads: who waits reads; the background thread serves who is busy."""

from __future__ import annotations

import errno
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from unittest import mock

import pytest

from dwebsocket.reactors import reactor_for, thread
from dwebsocket.reactors.thread import ThreadReactor, Wakeup
from tests.links import PATIENCE_SECONDS, Link, Threads, connect, descriptors, linking, run_program, tcp_pair, until
from tests.peer import PING, PONG, Frame, text

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
    assert reactor.home is None
    assert reactor.run_home(threading.get_ident) == threading.get_ident()


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
        a.connection._link.park(None)


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
        under_test.park(0.001)  # the descriptor is registered with poll() now
        under_test.watch(read=False, write=False)
        a.peer.send_message("unseen")
        under_test.park(0.05)
        assert not a.connection._inbox
        under_test.watch(read=True, write=False)
        under_test.park(5)
        assert a.connection._inbox


def test_wakeup_makes_its_descriptor_readable_until_it_is_cleared() -> None:
    before = descriptors()
    wakeup = Wakeup()
    wakeup.clear()
    for _ in range(3):
        wakeup.set()
    assert os.read(wakeup.descriptor, 8)
    wakeup.set()
    wakeup.clear()
    with pytest.raises(BlockingIOError):
        os.read(wakeup.descriptor, 8)
    wakeup.close()
    assert descriptors() == before


def test_wakeup_that_cannot_get_any_more_ready_stays_so() -> None:
    wakeup = Wakeup()
    os.write(wakeup._write_end, (2**64 - 2).to_bytes(8, "little"))
    wakeup.set()
    wakeup.clear()
    wakeup.close()


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


def test_connection_without_a_descriptor_for_its_wakeup_is_read_by_the_sweep(link: Callable[..., Link]) -> None:
    with mock.patch.object(thread, "Wakeup", side_effect=OSError(errno.EMFILE, "Too many open files")):
        a = link()
        received = a.start("receive")
        a.peer.send_message("swept")
        assert received.result(PATIENCE_SECONDS) == "swept"


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
