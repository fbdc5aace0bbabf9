"""The greenlets that run the turns of parked views: one for all that are due, more where turns wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import gevent
import pytest

from dwebsocket.reactors.base import Runner
from tests.links import PATIENCE_SECONDS, Hub, Link, run_program, until
from tests.reactors.turns import Turns, park, runs_for_each_message, waits_in_its_turn


def test_turn_runs_at_once_for_what_was_there_before_and_then_for_each_message(link: Callable[..., Link]) -> None:
    runs_for_each_message(link())


def test_all_turns_that_are_due_at_once_share_a_greenlet(link: Callable[..., Link], hub: Hub) -> None:
    turns = [park(link()) for _ in range(20)]
    until(lambda: all(one.greenlets for one in turns))
    for one in turns:
        one.greenlets.clear()
    hub.do(lambda: [one.link.connection._link.wake() for one in turns] and None)
    until(lambda: all(one.greenlets for one in turns))
    assert len({id(one.greenlets[0]) for one in turns}) <= 5  # one, where the machine is fast enough


def alive(*turns: Turns) -> set[Any]:
    return {greenlet for one in turns for greenlet in one.greenlets if not greenlet.dead}


def test_one_greenlet_stays_for_the_next_turns_and_others_end(link: Callable[..., Link], hub: Hub) -> None:
    event = hub.do(gevent.event.Event)
    turns = [park(link(), lambda message: event.wait(PATIENCE_SECONDS)) for _ in range(3)]
    for one in turns:
        one.link.peer.send_message("wait")
        assert one.hear() == "wait"
    assert len(alive(*turns)) >= 3
    hub.do(event.set)
    until(lambda: len(alive(*turns)) == 1, "the others to end")
    stays = alive(*turns)
    for one in turns:
        one.link.peer.send_message("hello")
        assert one.hear() == "hello"
        assert {one.greenlets[-1]} == stays


def test_turn_that_waits_holds_its_greenlet_and_the_others_get_another(link: Callable[..., Link], hub: Hub) -> None:
    event = hub.do(gevent.event.Event)
    waiting, other = park(link(), lambda message: event.wait(PATIENCE_SECONDS)), park(link())
    waiting.link.peer.send_message("wait")
    assert waiting.hear() == "wait"
    for number in range(10):
        other.link.peer.send_message(str(number))
        assert other.hear() == str(number)
    waiting.link.peer.send_message("behind it")
    assert waiting.told.empty()
    hub.do(event.set)
    assert waiting.hear() == "behind it"


def test_turns_that_do_not_wait_let_the_hub_run_all_the_same(link: Callable[..., Link], hub: Hub) -> None:
    links = [link() for _ in range(5)]
    counts = [0] * 5
    stop: list[bool] = []

    def busy(number: int) -> Callable[[Runner], bool]:
        def turn(runner: Runner) -> bool:
            counts[number] += 1
            time.sleep(0.002)  # the thread's, as a computation
            return not stop

        return turn

    for number, a in enumerate(links):
        a.do("employ", busy(number))
    other = park(link())
    for number in range(5):
        other.link.peer.send_message(str(number))
        assert other.hear() == str(number)
    before = time.monotonic()
    hub.do(gevent.sleep, 0.01)
    assert time.monotonic() - before < 5
    stop.append(True)
    until(lambda: not any(a.connection._link.is_due for a in links), "the turns to end")
    assert min(counts) > 0
    assert max(counts) - min(counts) < max(counts)


def test_link_that_is_woken_while_its_turn_runs_gets_another_one(link: Callable[..., Link], hub: Hub) -> None:
    a, turns = link(), []
    event = hub.do(gevent.event.Event)

    def turn(runner: Runner) -> bool:
        turns.append("turn")
        event.wait(PATIENCE_SECONDS)
        return False

    a.do("employ", turn)
    until(lambda: turns)
    for _ in range(5):
        a.connection.notify()
    hub.do(event.set)
    until(lambda: len(turns) == 2)
    hub.do(gevent.sleep, 0.01)
    assert len(turns) == 2


def test_link_that_is_dismissed_has_no_turn_any_more(link: Callable[..., Link]) -> None:
    a, b = link(), link()
    turns, others = park(a), park(b)
    a.do("dismiss")
    a.peer.send_message("to no view")
    b.peer.send_message("hello")
    assert others.hear() == "hello"
    assert a.do("receive", PATIENCE_SECONDS) == "to no view"
    assert turns.told.empty()


def test_link_that_is_over_has_a_turn_all_the_same(link: Callable[..., Link]) -> None:
    a, ran = link(), SimpleQueue()
    a.do("abort", "over before it is parked")
    a.do("employ", lambda runner: ran.put("ran") or False)
    assert ran.get(timeout=PATIENCE_SECONDS) == "ran"


@pytest.mark.parametrize("error", [gevent.GreenletExit, SystemExit, KeyboardInterrupt, RuntimeError, gevent.Timeout])
def test_turn_that_raises_ends_its_greenlet_and_keeps_no_other_from_running(
    link: Callable[..., Link], error: type[BaseException]
) -> None:
    def fail(message: Any) -> None:
        if message == "fail":
            raise error

    bad, good = park(link(), fail), park(link())
    for _ in range(3):
        for one in (bad, good):
            one.link.peer.send_message("fail")
        assert [bad.hear(), good.hear()] == ["fail", "fail"]
    bad.link.peer.send_message("fine")
    assert bad.hear() == "fine"


def test_greenlet_that_is_killed_while_its_turn_waits_leaves_the_link_to_another(
    link: Callable[..., Link], hub: Hub
) -> None:
    a = link()
    turns = park(a, lambda message: gevent.sleep(PATIENCE_SECONDS) if message == "wait" else None)
    a.peer.send_message("wait")
    assert turns.hear() == "wait"
    hub.do(turns.greenlets[-1].kill)
    a.peer.send_message("hello")
    assert turns.hear() == "hello"


class Keeper:
    """Keeps something until the test says that its time is over."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.closed: list[Any] = []
        self.is_over = False

    def rest(self, now: float) -> float | None:
        self.asked.append(gevent.getcurrent())
        return None if self.is_over else 0.01

    def close(self) -> None:
        self.closed.append(gevent.getcurrent())


def keeping(a: Link) -> tuple[Turns, Keeper]:
    """A parked link whose first turn has left something to keep."""
    keeper = Keeper()
    turns = Turns(a)
    a.do("employ", lambda runner: [setattr(runner, "keeper", keeper), turns(runner)][1])
    until(lambda: keeper.asked, "the keeper to be asked")
    return turns, keeper


def test_greenlet_that_keeps_something_runs_the_next_turns_until_its_time_is_over(link: Callable[..., Link]) -> None:
    turns, keeper = keeping(link())
    for number in range(3):
        turns.link.peer.send_message(str(number))
        assert turns.hear() == str(number)
    assert len(set(turns.greenlets)) == 1
    assert turns.runners[0].keeper is keeper
    keeper.is_over = True
    until(lambda: turns.runners[0].keeper is None, "nothing to be kept any more")


@pytest.mark.parametrize("when", ["rests", "turn"])
def test_greenlet_that_is_killed_keeps_nothing(link: Callable[..., Link], hub: Hub, when: str) -> None:
    turns, keeper = keeping(link())
    if when == "rests":
        hub.do(turns.greenlets[0].kill)
    else:
        turns.during = lambda message: gevent.sleep(PATIENCE_SECONDS) if message == "wait" else None
        turns.link.peer.send_message("wait")
        assert turns.hear() == "wait"
        hub.do(turns.greenlets[-1].kill)
    until(lambda: keeper.closed, "what it keeps to be closed")
    assert keeper.closed == [turns.greenlets[-1 if when == "turn" else 0]]
    keeper.is_over = True
    turns.link.peer.send_message("hello")
    assert turns.hear() == "hello"


def test_view_waits_in_its_turn_for_the_next_message(link: Callable[..., Link]) -> None:
    waits_in_its_turn(link())


def test_thread_of_the_project_wakes_a_parked_link(link: Callable[..., Link]) -> None:
    a = link()
    turns = park(a)
    until(lambda: turns.greenlets)
    before = len(turns.greenlets)
    a.connection.notify()
    until(lambda: len(turns.greenlets) > before)


FORK = """
import gevent.monkey
gevent.monkey.patch_all()
import os, signal, socket, sys
import gevent
from dwebsocket.connection.connection import Connection
from dwebsocket.connection.limits import Limits
from dwebsocket.reactors import reactor_for
from tests.peer import Peer

def connect():
    server, client = socket.socketpair()
    server.setblocking(False)
    connection = Connection(server, reactor_for(type(server)), limits=Limits(), dispose=server.close)
    connection.open(b"", b"")
    return connection, Peer.over(client)

a, a_peer = connect()
b, b_peer = connect()
told = []

def turn(runner):
    while (message := a.take()) is not None:
        if message == "fork":
            pid = os.fork()
            if not pid:
                signal.alarm(10)
                if sys.argv[1] == "wait":
                    gevent.spawn_later(0.1, os._exit, 7)
                    return True
                os._exit(7)
            told.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        else:
            a.send(message)
    return False

def other(runner):
    while (message := b.take()) is not None:
        b.send(message)
    return False

a.employ(turn)
b.employ(other)
for _ in range(2):
    a_peer.send_message("fork")
    b_peer.send_message("meanwhile")
    while not told:
        gevent.sleep(0.005)
    print(told.pop())
    print(b_peer.recv_message())
    a_peer.send_message("hello")
    print(a_peer.recv_message())
for connection, peer in ((a, a_peer), (b, b_peer)):
    peer.abandon()
    connection.abort("over")
"""


@pytest.mark.parametrize("how", ["exit", "wait"])
def test_child_that_a_turn_has_forked_leaves_the_connections_of_its_parent_alone(how: str) -> None:
    assert run_program(FORK, how).split() == ["7", "meanwhile", "hello"] * 2
