"""The threads that run the turns of parked views: as few as are needed, and what goes on while all are busy."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any
from unittest import mock

import pytest

from dwebsocket.reactors import pool, thread
from dwebsocket.reactors.base import Runner
from dwebsocket.reactors.thread import ThreadReactor
from tests.links import PATIENCE_SECONDS, Link, Threads, linking, run_program, until
from tests.peer import PING, PONG, text
from tests.reactors.turns import park, runs_for_each_message, waits_in_its_turn

HOME = Threads()


@pytest.fixture
def link() -> Iterator[Callable[..., Link]]:
    """``connect`` for threads."""
    with linking(HOME) as connect, mock.patch.object(thread, "SWEEP_SECONDS", 0.02):
        yield connect


@pytest.fixture
def go() -> Iterator[threading.Event]:
    """What a turn that blocks waits for."""
    event = threading.Event()
    yield event
    event.set()


def reactor_with(threads: int) -> ThreadReactor:
    reactor = ThreadReactor()
    reactor.max_threads = threads
    return reactor


def test_turn_runs_at_once_for_what_was_there_before_and_then_for_each_message(link: Callable[..., Link]) -> None:
    runs_for_each_message(link(reactor=ThreadReactor()))


def test_turns_of_views_that_do_not_block_need_few_threads(link: Callable[..., Link]) -> None:
    """Two of them; where the machine stands still for a moment, others may come."""
    reactor = reactor_with(32)
    turns = [park(link(reactor=reactor)) for _ in range(8)]
    for number in range(30):
        turns[number % 8].link.peer.send_message("hello")
        assert turns[number % 8].hear() == "hello"
    assert reactor.pool is not None
    assert 1 <= reactor.pool.active <= 4


def test_turns_that_block_get_a_thread_each_up_to_the_most_and_the_others_wait_their_turn(
    link: Callable[..., Link], go: threading.Event
) -> None:
    reactor = reactor_with(3)

    def block(message: Any) -> None:
        go.wait(PATIENCE_SECONDS)

    turns = [park(link(reactor=reactor), block) for _ in range(6)]
    for one in turns:
        one.link.peer.send_message("hello")
    until(lambda: sum(one.running for one in turns) == 3, "three turns")
    time.sleep(0.05)
    assert sum(one.running for one in turns) == 3
    go.set()
    for one in turns:
        assert one.hear() == "hello"
    assert reactor.pool is not None
    until(lambda: reactor.pool.active == 2, "the third one to rest")


def test_short_turns_that_wait_for_something_get_more_threads(link: Callable[..., Link]) -> None:
    """As those that query a database: each is too short to be seen as one that blocks."""
    reactor = reactor_with(32)
    running: set[int] = set()
    most = [0]

    def query(message: Any) -> None:
        running.add(threading.get_ident())
        most[0] = max(most[0], len(running))
        time.sleep(0.004)
        running.discard(threading.get_ident())

    turns = [park(link(reactor=reactor), query) for _ in range(16)]
    deadline = time.monotonic() + PATIENCE_SECONDS
    while most[0] < 6 and time.monotonic() < deadline:
        for one in turns:
            one.link.peer.send_message("query")
        for one in turns:
            assert one.hear() == "query"
    assert most[0] >= 6
    assert reactor.pool is not None
    until(lambda: reactor.pool.active == 2, "the others to rest")


def test_pings_are_answered_and_ends_are_noticed_while_all_threads_are_in_turns(
    link: Callable[..., Link], go: threading.Event
) -> None:
    reactor = reactor_with(1)
    stuck = park(link(reactor=reactor), lambda message: go.wait(PATIENCE_SECONDS))
    waiting, leaving = park(link(reactor=reactor)), park(link(reactor=reactor))
    stuck.link.peer.send_message("block")
    assert stuck.hear() == "block"
    for one in (stuck, waiting):
        for _ in range(3):
            one.link.peer.send_frame(PING, b"there?")
            assert one.link.peer.recv_frame() == (PONG, b"there?", True, 0, None)
    leaving.link.peer.send_close(4001)
    assert leaving.link.peer.recv_frame().opcode == 8
    waiting.link.peer.send_message("later")
    assert waiting.told.empty()
    go.set()
    assert waiting.hear() == "later"


def test_threads_that_are_all_stuck_are_told_of_once(
    link: Callable[..., Link],
    go: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(pool, "_STUCK_SECONDS", 0.1)
    reactor = reactor_with(2)
    turns = [park(link(reactor=reactor), lambda message: go.wait(PATIENCE_SECONDS)) for _ in range(3)]
    turns[0].link.peer.send_message("block")
    assert turns[0].hear() == "block"
    time.sleep(0.3)
    assert not caplog.records
    turns[1].link.peer.send_message("block")
    until(lambda: caplog.records, "the warning")
    time.sleep(0.2)
    (record,) = caplog.records
    assert record.getMessage().startswith("all 2 threads for parked WebSocket views are in turns of more than 0.1 s")
    turns[2].link.peer.send_message("later")
    go.set()
    assert turns[2].hear() == "later"


def test_turn_that_is_due_again_leaves_room_for_others(link: Callable[..., Link]) -> None:
    reactor = reactor_with(1)
    stop: list[bool] = []
    count: list[int] = []
    busy = link(reactor=reactor)

    def turn(runner: Runner) -> bool:
        count.append(1)
        time.sleep(0.001)
        return not stop

    busy.do("employ", turn)
    other = park(link(reactor=reactor))
    for number in range(10):
        before = len(count)
        other.link.peer.send_message(str(number))
        assert other.hear() == str(number)
        assert len(count) - before < 200
    stop.append(True)
    until(lambda: not busy.connection._link.runs, "the turns to end")
    assert len(count) > 10


def test_link_that_is_woken_while_its_turn_runs_gets_another_one(link: Callable[..., Link]) -> None:
    a = link(reactor=ThreadReactor())
    begun, go_on, turns = threading.Event(), threading.Event(), SimpleQueue()

    def turn(runner: Runner) -> bool:
        begun.set()
        go_on.wait(PATIENCE_SECONDS)
        turns.put("turn")
        return False

    a.do("employ", turn)
    assert begun.wait(PATIENCE_SECONDS)
    for _ in range(5):
        a.connection.notify()
    go_on.set()
    assert [turns.get(timeout=PATIENCE_SECONDS) for _ in range(2)] == ["turn", "turn"]
    until(lambda: not a.connection._link.runs, "the turns to end")
    assert turns.empty()


def test_link_that_is_dismissed_has_no_turn_any_more(link: Callable[..., Link]) -> None:
    reactor = ThreadReactor()
    a, b = link(reactor=reactor), link(reactor=reactor)
    turns, others = park(a), park(b)
    a.do("dismiss")
    a.peer.send_message("to no view")
    b.peer.send_message("hello")
    assert others.hear() == "hello"
    assert turns.told.empty()
    assert a.do("receive", PATIENCE_SECONDS) == "to no view"


@pytest.mark.parametrize("has_pool", [False, True])
def test_link_that_is_over_has_a_turn_all_the_same(link: Callable[..., Link], has_pool: bool) -> None:
    reactor, ran = ThreadReactor(), threading.Event()
    if has_pool:
        park(link(reactor=reactor))
    a = link(reactor=reactor)
    a.do("abort", "over before it is parked")

    def turn(runner: Runner) -> bool:
        ran.set()
        return False

    a.do("employ", turn)
    assert ran.wait(PATIENCE_SECONDS)


def test_end_of_the_connection_is_a_reason_for_a_turn(link: Callable[..., Link]) -> None:
    a, ends = link(reactor=ThreadReactor()), SimpleQueue()

    def turn(runner: Runner) -> bool:
        ends.put((a.connection.is_over, a.connection.is_disposed))
        return False

    a.do("employ", turn)
    assert ends.get(timeout=PATIENCE_SECONDS) == (False, False)
    a.do("abort", "over")
    until(lambda: not ends.empty() and ends.get() == (True, True), "the turn of the end")


def test_socket_that_a_thread_still_polls_when_it_ends_is_a_reason_for_a_turn_once_it_is_disposed_of(
    link: Callable[..., Link],
) -> None:
    a = link(reactor=ThreadReactor())
    told: SimpleQueue[bool] = SimpleQueue()

    def turn(runner: Runner) -> bool:
        if a.connection.is_over:
            told.put(a.connection.is_disposed)
        return False

    seen: list[bool] = []

    def end(*_: Any) -> None:
        """End the connection, and let its turn run, before the thread that polls can come back."""
        a.connection.abort("tried out")
        seen.append(told.get(timeout=PATIENCE_SECONDS))

    def interrupt() -> None:
        until(lambda: a.connection._link.polling, "the main thread to poll")
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    a.do("employ", turn)
    earlier = signal.signal(signal.SIGUSR1, end)
    try:
        threading.Thread(target=interrupt).start()
        assert a.connection.receive() is None
    finally:
        signal.signal(signal.SIGUSR1, earlier)
    assert seen == [False]
    assert told.get(timeout=PATIENCE_SECONDS)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, RuntimeError])
def test_thread_survives_a_turn_that_raises(link: Callable[..., Link], error: type[BaseException]) -> None:
    reactor = reactor_with(1)

    def fail(message: Any) -> None:
        if message == "fail":
            raise error

    bad, good = park(link(reactor=reactor), fail), park(link(reactor=reactor))
    for _ in range(3):
        bad.link.peer.send_message("fail")
        assert bad.hear() == "fail"
        good.link.peer.send_message("hello")
        assert good.hear() == "hello"
    bad.link.peer.send_message("fine")
    assert bad.hear() == "fine"
    assert set(bad.threads) == set(good.threads)


def test_socket_that_can_be_watched_no_more_leaves_the_lock_free(
    link: Callable[..., Link], caplog: pytest.LogCaptureFixture
) -> None:
    reactor = reactor_with(1)
    bad, good = link(reactor=reactor), park(link(reactor=reactor))
    turns = park(bad, lambda message: reactor.pool.remove(bad.connection._link))  # it cannot be armed behind that
    bad.peer.send_message("hello")
    assert turns.hear() == "hello"
    until(lambda: caplog.records, "the log")
    bad.do("abort", "works")
    good.link.peer.send_message("hello")
    assert good.hear() == "hello"
    caplog.clear()


def test_thread_that_cannot_be_started_is_an_error_where_there_is_none(link: Callable[..., Link]) -> None:
    reactor = ThreadReactor()
    a = link(reactor=reactor)
    with (
        mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")),
        pytest.raises(RuntimeError, match="can't start new thread"),
    ):
        a.connection.employ(lambda runner: False)
    turns = park(a)
    a.peer.send_message("hello")
    assert turns.hear() == "hello"


def test_turns_go_on_with_the_threads_that_there_are_where_no_other_can_be_started(
    link: Callable[..., Link], go: threading.Event
) -> None:
    reactor = reactor_with(10)
    first = park(link(reactor=reactor))
    first.link.peer.send_message("hello")
    assert first.hear() == "hello"
    until(lambda: reactor.pool is not None and not reactor.pool.busy_links())
    others = [park(link(reactor=reactor)) for _ in range(5)]
    with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")):
        for one in others:
            one.link.peer.send_message("hello")
        for one in others:
            assert one.hear() == "hello"


def test_parked_views_come_and_go_by_the_hundred_with_the_same_descriptors(link: Callable[..., Link]) -> None:
    reactor = ThreadReactor()
    for number in range(100):
        a = link(reactor=reactor)
        turns = park(a)
        a.peer.send_message(str(number))
        assert turns.hear() == str(number)
        a.do("abort", "over")
    assert reactor.pool is not None
    assert len(reactor.pool) == 0


class Keeper:
    """Keeps something until the test says that its time is over."""

    def __init__(self) -> None:
        self.asked = 0
        self.is_over = False

    def rest(self, now: float) -> float | None:
        self.asked += 1
        return None if self.is_over else 0.005

    def close(self) -> None:
        raise AssertionError("the thread goes on")


def test_what_a_turn_keeps_is_asked_until_its_time_is_over(link: Callable[..., Link]) -> None:
    a, keeper, runners = link(reactor=reactor_with(1)), Keeper(), []

    def turn(runner: Runner) -> bool:
        runners.append(runner)
        if len(runners) == 1:
            runner.keeper = keeper
        return False

    a.do("employ", turn)
    until(lambda: keeper.asked > 3, "the keeper to be asked")
    keeper.is_over = True
    until(lambda: runners[0].keeper is None, "it to be dropped")
    asked = keeper.asked
    a.connection.notify()
    until(lambda: len(runners) == 2)
    assert runners[0] is runners[1]
    assert keeper.asked == asked


def test_view_waits_in_its_turn_for_the_next_message(link: Callable[..., Link]) -> None:
    waits_in_its_turn(link(reactor=reactor_with(1)))


def test_full_inbox_pauses_reading_until_the_turns_have_taken_it(
    link: Callable[..., Link], go: threading.Event
) -> None:
    a = link(reactor=reactor_with(1), receive_queue=4)
    turns = park(a, lambda message: go.wait(PATIENCE_SECONDS))
    a.peer.send_raw(b"".join(text(str(number)) for number in range(100)))
    assert turns.hear() == "0"
    go.set()
    assert [turns.hear() for _ in range(99)] == [str(number) for number in range(1, 100)]


def test_bytes_that_the_peer_does_not_take_at_once_leave_without_the_view(link: Callable[..., Link]) -> None:
    a = link(reactor=reactor_with(1))
    turns = park(a)
    a.peer.send_message("hello")
    assert turns.hear() == "hello"
    until(lambda: not a.connection._link.runs)
    big = b"x" * 2_000_000
    sent = a.start("send", big)
    assert a.peer.recv_message() == big
    sent.result(PATIENCE_SECONDS)


FORK = """
import os, signal, sys, threading, time
from dwebsocket.reactors import thread
from tests.links import Threads, connect, until

home = Threads()
a, b = connect(home), connect(home)
told = []

def turn(runner):
    while (message := a.connection.take()) is not None:
        if message == "fork":
            pid = os.fork()
            if not pid:
                signal.alarm(10)
                if sys.argv[1] == "exit":
                    a.connection.take()
                    os._exit(7)
                return True
            told.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        else:
            a.connection.send(message)
    return False

def other(runner):
    while (message := b.connection.take()) is not None:
        b.connection.send(message)
    return False

a.do("employ", turn)
b.do("employ", other)
for _ in range(2):
    a.peer.send_message("fork")
    until(lambda: told)
    print(told.pop())
    for link in (a, b):
        link.peer.send_message("hello")
        print(link.peer.recv_message())
for link in (a, b):
    link.peer.abandon()
    link.do("abort", "over")
"""


@pytest.mark.parametrize("how", ["exit", "return"])
def test_child_that_a_turn_has_forked_leaves_the_connections_of_its_parent_alone(how: str) -> None:
    code = "7" if how == "exit" else "0"
    assert run_program(FORK, how).split() == [code, "hello", "hello"] * 2


CHILD = """
import os, signal
from dwebsocket.reactors import thread
from tests.links import Threads, connect, until

home = Threads()
a = connect(home)
told = []
a.do("employ", lambda runner: told.append(a.connection.take()) or False)
a.peer.send_message("to the parent")
until(lambda: "to the parent" in told)
pid = os.fork()
if not pid:
    signal.alarm(10)
    b = connect(home)
    heard = []
    b.do("employ", lambda runner: heard.append(b.connection.take()) or False)
    b.peer.send_message("to the child")
    until(lambda: "to the child" in heard)
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
a.peer.send_message("again")
until(lambda: "again" in told)
a.peer.abandon()
a.do("abort", "over")
"""


def test_child_of_a_fork_has_a_pool_of_its_own() -> None:
    assert run_program(CHILD).split() == ["7"]
