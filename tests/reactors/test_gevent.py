"""gevent's hub: everything is pushed, from one watcher per socket."""

from __future__ import annotations

import contextlib
import contextvars
import threading
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import gevent
import gevent.socket
import pytest

from dwebsocket.reactors import gevent as gevent_reactor
from dwebsocket.reactors import reactor_for
from tests.links import PATIENCE_SECONDS, Hub, Link, run_program, until
from tests.peer import PING, PONG, Frame, text


def test_hub_has_one_reactor_and_another_hub_another(hub: Hub) -> None:
    assert hub.do(gevent_reactor.current) is hub.reactor
    other = Hub()
    assert other.reactor is not hub.reactor
    other.stop()


def test_socket_of_gevent_gets_the_reactor_of_its_hub(hub: Hub) -> None:
    def make_socket() -> Any:
        with gevent.socket.socket() as sock:
            return reactor_for(type(sock))

    assert hub.do(make_socket) is hub.reactor


def test_hub_that_was_destroyed_is_followed_by_a_new_reactor() -> None:
    reactors: list[Any] = []

    def two_hubs() -> None:
        for _ in range(2):
            reactors.append(gevent_reactor.current())
            gevent.get_hub().destroy(destroy_loop=True)

    thread = threading.Thread(target=two_hubs)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    assert reactors[0] is not reactors[1]


def test_only_the_thread_of_the_hub_owns_the_connections(hub: Hub) -> None:
    assert hub.do(hub.reactor.thread_ident) == hub.reactor.owner_thread
    assert hub.reactor.thread_ident() != hub.reactor.owner_thread


def test_call_gives_the_result_of_what_ran_in_a_greenlet_of_the_hub(hub: Hub) -> None:
    def who() -> tuple[int, bool]:
        gevent.sleep(0)
        return threading.get_ident(), isinstance(gevent.getcurrent(), gevent.Greenlet)

    assert hub.reactor.call(who) == (hub.do(threading.get_ident), True)


@pytest.mark.parametrize("kind", [ValueError, SystemExit, gevent.GreenletExit])
def test_call_raises_what_was_raised_there(hub: Hub, kind: type[BaseException]) -> None:
    def fail() -> None:
        raise kind("there")

    with pytest.raises(kind, match="there"):
        hub.reactor.call(fail)
    assert hub.errors == []


def test_wait_of_another_hub_that_is_timed_out_takes_no_message(hub: Hub, link: Callable[..., Link]) -> None:
    a = link()
    other = Hub()

    def wait() -> Any:
        with gevent.Timeout(0.05, False):
            return a.connection.receive()
        return "timed out"

    assert [other.do(wait) for _ in range(3)] == ["timed out"] * 3
    for message in ("one", "two", "three"):
        a.peer.send_message(message)
    assert [a.do("receive", 5) for _ in range(3)] == ["one", "two", "three"]
    other.stop()
    assert hub.errors == []


def test_message_that_was_taken_for_a_caller_who_has_gone_is_the_next_one_again(
    hub: Hub, link: Callable[..., Link]
) -> None:
    a = link()
    ended: list[bool] = []

    def take_in_vain() -> None:
        for message in ("one", "two"):
            a.peer.send_message(message)
        errand = gevent_reactor._Errand(
            lambda: a.connection.receive(5), a.connection._put_back, lambda: ended.append(True)
        )
        errand.start()
        while not ended:
            gevent.sleep(0.001)
        errand.stop()

    hub.do(take_in_vain)
    assert [a.do("receive", 5) for _ in range(2)] == ["one", "two"]


def test_turn_that_was_given_to_a_caller_who_has_gone_is_given_back(hub: Hub, link: Callable[..., Link]) -> None:
    """Else no other sender would ever have its turn."""
    a = link()
    undone = []
    call = hub.reactor.call

    def call_and_go(function: Any, undo: Any = None) -> Any:
        result = call(function)
        call(lambda: undone.append(undo(result)))  # as for a caller that a timeout has stopped just then
        return result

    with mock.patch.object(hub.reactor, "call", call_and_go):
        a.connection.begin_message()  # from this thread, which is not the hub's
    assert undone == [None]
    a.do("send", "next")
    assert a.peer.recv_message() == "next"


def test_end_that_a_caller_who_has_gone_was_given_stays_the_end(hub: Hub, link: Callable[..., Link]) -> None:
    a = link()
    a.do("close", 3000)
    for nothing in (None, "too late"):
        hub.do(a.connection._put_back, nothing)
    assert a.do("receive", 5) is None


def test_turnstile_lets_one_in_at_a_time_from_whichever_thread(hub: Hub) -> None:
    turnstile = hub.reactor.turnstile()
    inside: list[int] = []
    most: list[int] = []

    def pass_through(sleep: Callable[[float], object]) -> None:
        with turnstile:
            inside.append(1)
            most.append(len(inside))
            sleep(0.01)
            inside.pop()

    greenlets = [hub.start(pass_through, gevent.sleep) for _ in range(3)]
    threads = [threading.Thread(target=pass_through, args=[time.sleep]) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(PATIENCE_SECONDS)
    for greenlet in greenlets:
        greenlet.result(PATIENCE_SECONDS)
    assert most == [1] * 6


def test_greenlet_inside_a_turnstile_does_not_wait_for_itself(hub: Hub) -> None:
    turnstile = hub.reactor.turnstile()

    def enter_twice() -> None:
        with turnstile, turnstile:
            pass

    with pytest.raises(RuntimeError, match="inside another call"):
        hub.do(enter_twice)
    hub.do(turnstile.__enter__)  # it is free again


def test_deadline_that_fails_is_tried_again_and_keeps_no_other_from_its_own(
    hub: Hub, link: Callable[..., Link], caplog: pytest.LogCaptureFixture
) -> None:
    called: list[float] = []

    def fail(now: float) -> float:
        called.append(now)
        raise MemoryError

    class Scheduled:  # has nothing but that, as what watches for views that outstay their connections
        def on_deadline(self, now: float) -> None:
            fail(now)

    other = Scheduled()
    with mock.patch.object(gevent_reactor, "_AGAIN_SECONDS", 0.01):
        hub.do(hub.reactor.schedule, other, time.monotonic())
        until(lambda: len(called) > 2, "the first deadline to be tried again")
        hub.do(hub.reactor._deadlines.discard, other)
        called.clear()
        broken = hub.do(hub.reactor.link, mock.Mock(on_deadline=fail), 0)
        hub.do(broken.schedule, time.monotonic())
        a = link(ping_interval=0.05)
        assert a.peer.recv_frame().opcode == PING
        until(lambda: len(called) > 2, "the deadline to be tried again")
        hub.do(broken.close, lambda: None)
    assert {record.getMessage() for record in caplog.records} == {"a deadline of a WebSocket was missed"}


def test_view_gets_a_greenlet_with_a_name(hub: Hub) -> None:
    seen: list[Any] = []

    def spawn_and_wait() -> None:
        latch = hub.reactor.latch()

        def view() -> None:
            gevent.sleep(0)
            seen.append(gevent.getcurrent())
            latch.set()

        hub.reactor.spawn(view, "websocket /here/")
        assert seen == []
        latch.wait()

    hub.do(spawn_and_wait)
    assert seen[0].name == "websocket /here/"


def test_deadline_does_not_keep_a_hub_alive_that_has_nothing_else_to_do() -> None:
    run_program(
        """
import gevent, time
from dwebsocket.reactors import gevent as reactor

reactor.current().schedule(object(), time.monotonic() + 1e6)
assert gevent.wait(timeout=30)
"""
    )


def test_deadline_far_away_does_not_disturb_the_near_ones(link: Callable[..., Link]) -> None:
    far = link(ping_interval=1e9, close_timeout=1e9)
    near = link(ping_interval=0.05)
    assert near.peer.recv_frame().opcode == PING
    far.peer.send_message("there")
    assert far.do("receive", 5) == "there"


def test_many_connections_are_served_while_no_greenlet_waits_for_them(link: Callable[..., Link]) -> None:
    links = [link() for _ in range(20)]
    for number, a in enumerate(links):
        a.peer.send_frame(PING, b"%d" % number)
    for number, a in enumerate(links):
        assert a.peer.recv_frame() == Frame(PONG, b"%d" % number)


def test_greenlet_that_is_killed_while_it_waits_leaves_nothing_behind(link: Callable[..., Link], hub: Hub) -> None:
    a = link()
    waiting = hub.do(gevent.spawn, a.connection.receive)
    until(lambda: a.connection._link._waiters)
    hub.do(waiting.kill)
    assert not a.connection._link._waiters
    a.peer.send_message("for the next")
    assert a.do("receive", 5) == "for the next"


def test_greenlet_that_is_killed_while_it_finishes_drops_the_connection(link: Callable[..., Link], hub: Hub) -> None:
    a = link()
    finishing = hub.do(gevent.spawn, a.connection.finish)
    until(lambda: a.connection._link._waiters)
    hub.do(finishing.kill)
    assert len(a.disposals) == 1


def test_gevent_timeout_around_a_wait_is_raised_and_the_connection_goes_on(link: Callable[..., Link], hub: Hub) -> None:
    a = link()

    def wait_a_moment() -> None:
        with gevent.Timeout(0.05):
            a.connection.receive()

    with pytest.raises(gevent.Timeout):
        hub.do(wait_a_moment)
    a.peer.send_message("still here")
    assert a.do("receive", 5) == "still here"


def test_message_and_timeout_at_the_same_time_lose_nothing(link: Callable[..., Link], hub: Hub) -> None:
    a = link(receive_queue=100)
    received: list[Any] = []

    def receive_all() -> None:
        while len(received) < 100:
            message = a.connection.receive(0.001)
            if message is not None:
                received.append(message)

    receiving = hub.start(receive_all)
    for number in range(100):
        a.peer.send_message(str(number))
        time.sleep(0.001)
    receiving.result(PATIENCE_SECONDS)
    assert received == [str(number) for number in range(100)]


def test_closed_link_watches_and_schedules_nothing_any_more(link: Callable[..., Link], hub: Hub) -> None:
    a = link()
    a.do("abort", "over")

    def touch() -> bool:
        a.connection._link.watch(read=True, write=True)
        a.connection._link.schedule(0.0)
        return hub.reactor._deadlines._live.get(a.connection._link)

    assert hub.do(touch) is None


def test_deadline_of_a_link_that_another_deadline_has_just_closed_is_ignored(
    link: Callable[..., Link], hub: Hub
) -> None:
    a = link()
    a.do("abort", "over")
    hub.do(a.connection._link.on_deadline, time.monotonic() + 1e6)
    assert a.connection.endpoint.close_reason == "over"


def test_callback_that_wakes_nobody_switches_to_nobody(link: Callable[..., Link]) -> None:
    a = link()
    a.peer.send_frame(PONG, b"unasked")
    a.peer.send_raw(text("one") + text("two"))
    assert [a.do("receive", 5), a.do("receive", 5)] == ["one", "two"]


# Patched, as Django runs under gevent: in a process of its own

PATCHED = """
from gevent import monkey
monkey.patch_all()
import os, signal, threading, time
import _thread
import gevent
from django.conf import settings
settings.configure(USE_TZ=True)
from dwebsocket.connection.connection import Connection
from dwebsocket.connection.limits import Limits
from dwebsocket.protocol.endpoint import Endpoint
from dwebsocket.reactors import gevent as reactor
from dwebsocket.websocket import WebSocket
import socket
from tests.peer import *

native_thread = monkey.get_original("_thread", "start_new_thread")
native_sleep = monkey.get_original("time", "sleep")
native_waitpid = monkey.get_original("os", "waitpid")  # gevent's misses a child that is over before it is watched

def connect(**limits):
    import _socket
    ours, theirs = socket.socketpair()
    sock = _socket.socket(ours.family, ours.type, ours.proto, fileno=ours.detach())
    sock.setblocking(False)
    connection = Connection(
        sock, reactor.current(), limits=Limits(**limits), dispose=sock.close
    )
    connection.open(b"", b"")
    return connection, Peer.over(theirs)
"""


def test_native_threads_of_a_patched_process_may_use_every_verb() -> None:
    run_program(
        PATCHED
        + """
connection, peer = connect()
heard = []

def use():
    heard.append(connection.receive(5))
    connection.send("back")
    heard.append(connection.closed)
    connection.close(3000)
    heard.append("done")

native_thread(use, ())
peer.send_message("there")
assert peer.recv_message() == "back"
assert peer.recv_message() == Close(3000)
while "done" not in heard:
    gevent.sleep(0.005)
assert heard == ["there", False, "done"]
peer.abandon()
connection.finish()
"""
    )


def test_accept_of_a_native_thread_and_one_of_the_hub_at_the_same_time_open_one_connection() -> None:
    run_program(
        PATCHED
        + """
peers, done = [], []

class Opening:  # lets one in at a time, as that of a request does
    connection = refusal = subprotocol = None

    def __init__(self):
        self.turnstile, self.exclusively = home.turnstile(), home.exclusively()

    def accept(self, *given):
        with self.turnstile:
            self.exclusively(self.open)

    def open(self):
        if self.connection is None:
            assert reactor.current().thread_ident() == reactor.current().owner_thread
            self.connection, peer = connect()
            peers.append(peer)

    def refuse(self, close):
        pass

home = reactor.current()
websocket = WebSocket(Opening())

def from_thread():
    websocket.accept()
    done.append("thread")

native_thread(from_thread, ())
native_sleep(0.1)  # the hub cannot run; the thread waits for it, holding what it holds
websocket.accept()
websocket.close(3000)
while not done:
    gevent.sleep(0.005)
assert len(peers) == 1
assert peers[0].recv_message() == Close(3000)
peers[0].abandon()
websocket._connection.finish()
"""
    )


def test_forked_child_has_a_reactor_of_its_own_and_the_parents_connections_stay_the_parents() -> None:
    run_program(
        PATCHED
        + """
a, a_peer = connect(ping_interval=0.05)
gevent.sleep(0)
parents = reactor.current()
pid = os.fork()
if pid == 0:
    assert reactor.current() is not parents
    b, b_peer = connect()
    b_peer.send_raw(text("hello") + frame(PING, b"served"))
    assert b_peer.recv_frame() == Frame(PONG, b"served")
    assert [b.receive(5), b.receive(0)] == ["hello", None]
    os._exit(42)
assert os.waitstatus_to_exitcode(native_waitpid(pid, 0)[1]) == 42

ping = a_peer.recv_frame()
assert ping.opcode == PING
a_peer.send_frame(PONG, ping.payload)
a_peer.send_message("still the parent's")
assert a.receive(5) == "still the parent's"
assert a.latency > 0
a_peer.abandon()
a.abort("over")
"""
    )


def test_child_of_a_fork_that_leaves_the_view_writes_nothing_into_its_parents_socket() -> None:
    run_program(
        PATCHED
        + """
from dwebsocket.protocol.exceptions import WebSocketClosed

a, a_peer = connect()
pid = os.fork()
if pid == 0:
    signal.alarm(30)  # a child that hangs ends too
    try:
        a.send("from the child")
    except WebSocketClosed as error:
        assert error.close_code == 1006
    else:
        os._exit(1)
    assert a.receive(20) is None
    assert a.closed
    a.close(3000)
    a.go_away(1001)
    a.finish()  # as the end of a view does
    os._exit(42)
assert os.waitstatus_to_exitcode(native_waitpid(pid, 0)[1]) == 42
a.send("from the parent")
assert a_peer.recv_message() == "from the parent"
a_peer.send_message("still there")
assert a.receive(5) == "still there"
a_peer.abandon()
a.abort("over")
"""
    )


def test_child_that_a_thread_without_a_hub_has_forked_does_not_ask_the_hub_of_its_parent() -> None:
    run_program(
        PATCHED
        + """
a, a_peer = connect()
exits = []

def fork():
    pid = monkey.get_original("os", "fork")()
    if pid == 0:
        signal.alarm(30)
        try:
            assert a.receive(20) is None
            a.finish()
        except BaseException:
            os._exit(1)
        os._exit(42)
    exits.append(os.waitstatus_to_exitcode(native_waitpid(pid, 0)[1]))

native_thread(fork, ())
while not exits:
    gevent.sleep(0.01)
assert exits == [42]
a_peer.abandon()
a.abort("over")
"""
    )


def test_forked_child_that_runs_its_hub_leaves_the_parents_connections_alone() -> None:
    """As a view does that forks a worker by multiprocessing: the child has all watchers of the parent."""
    run_program(
        PATCHED
        + """
a, a_peer = connect()
pid = os.fork()
if pid == 0:
    gevent.sleep(0.5)
    os._exit(42)
received = []
for number in range(20):
    a_peer.send_message(str(number))
    received.append(a.receive(0.5))
    gevent.sleep(0.005)
assert received == [str(number) for number in range(20)]
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 42
a_peer.abandon()
a.abort("over")
"""
    )


def test_forked_child_of_another_thread_has_a_reactor_of_its_own() -> None:
    printed = run_program(
        """
import os, threading
import gevent
from dwebsocket.reactors import gevent as reactor

def fork_in_thread():
    parents = reactor.current()
    pid = os.fork()
    if pid == 0:
        os._exit(42 if reactor.current() is not parents else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 42
    print("different")

thread = threading.Thread(target=fork_in_thread)
thread.start()
thread.join()
"""
    )
    assert printed == "different\n"


def test_hubs_that_call_each_other_at_once_do_not_wait_for_each_other(hub: Hub) -> None:
    other, rounds = Hub(), 200

    def call(reactor: Any) -> int:
        return sum(reactor.call(lambda: 1) for _ in range(rounds))

    there, back = hub.start(call, other.reactor), other.start(call, hub.reactor)
    assert there.result(PATIENCE_SECONDS) + back.result(PATIENCE_SECONDS) == 2 * rounds
    other.stop()


def test_greenlet_that_only_sends_lets_others_run(hub: Hub, link: Callable[..., Link]) -> None:
    a = link()
    over, drained = threading.Event(), threading.Event()
    a.peer.sock.settimeout(0.05)

    def drain() -> None:
        while not drained.is_set():
            with contextlib.suppress(TimeoutError):
                a.peer.sock.recv(1 << 20)

    def send_until_over() -> None:
        while not over.is_set():
            a.connection.send(b"x")

    reader = threading.Thread(target=drain, daemon=True)
    reader.start()
    sending = hub.start(send_until_over)
    try:
        for _ in range(5):
            assert hub.do(lambda: "here") == "here"
    finally:
        over.set()
        sending.result(PATIENCE_SECONDS)  # while somebody reads: the last message may wait for that
        drained.set()
        reader.join(PATIENCE_SECONDS)


def test_greenlets_that_never_wait_share_the_time_between_two_turns_of_the_hub(
    hub: Hub, link: Callable[..., Link]
) -> None:
    """With twenty of them it has about as many turns as with one, not a twentieth."""
    links = [link() for _ in range(20)]
    turns: list[float] = []

    def never_wait(link: Link, stop: float) -> None:
        while (now := time.monotonic()) < stop:
            link.connection._link.breathe(now)

    def all_at_once(count: int) -> int:
        turns.clear()
        timer = gevent.get_hub().loop.timer(0, 0.0001)
        timer.start(lambda: turns.append(time.monotonic()))
        stop = time.monotonic() + 0.3
        gevent.joinall([gevent.spawn(never_wait, link, stop) for link in links[:count]])
        timer.close()
        return len(turns)

    assert hub.do(all_at_once, len(links)) > hub.do(all_at_once, 1) / 4


def test_message_is_not_lost_when_its_taker_is_timed_out_while_others_have_their_turn(
    link: Callable[..., Link],
) -> None:
    a = link(receive_queue=1)
    messages = [f"message {number}" for number in range(300)]
    a.peer.send_raw(b"".join(map(text, messages)))
    taken: list[Any] = []

    def view() -> int:
        timeouts = 0
        while len(taken) < len(messages):
            with gevent.Timeout(0.01) as timeout:
                try:
                    while len(taken) < len(messages):
                        taken.append(a.connection.receive())
                        time.sleep(0.003)  # works, and does not wait
                except gevent.Timeout as error:
                    assert error is timeout
                    timeouts += 1
        return timeouts

    assert a.home.do(view) > 10
    assert taken == messages


def test_hub_itself_may_send(hub: Hub, link: Callable[..., Link]) -> None:
    a = link()
    errors: list[BaseException] = []

    def send_twice() -> None:
        try:
            a.connection.send("one")
            time.sleep(0.02)  # longer than greenlets may go on without a turn of the hub
            a.connection.send("two")
        except BaseException as error:
            errors.append(error)

    hub._loop.run_callback_threadsafe(send_twice)
    assert [a.peer.recv_message(), a.peer.recv_message()] == ["one", "two"]
    assert errors == []


def test_child_of_a_fork_neither_sends_what_its_parent_holds_back_nor_runs_its_greenlets() -> None:
    run_program(
        PATCHED
        + """
connection, peer = connect()
other, other_peer = connect()

def answer_other():
    other.send(f"{other.receive()} from {os.getpid()}")

def view():
    for _ in range(2):  # the second shows that the view is quick
        connection.send(connection.receive())
    connection.send(connection.receive())  # and this one is held back
    other_peer.send_raw(text("hello"))
    other.on_readable()  # so that its greenlet is ready, and has not run
    global child
    child = os.fork()
    if child == 0:
        gevent.sleep(0.2)
        os._exit(0)
    connection.send(connection.receive())

gevent.spawn(answer_other)
gevent.sleep(0)
viewing = gevent.spawn(view)
peer.send_raw(b"".join(text(f"{number}") for number in range(5)))
viewing.get(timeout=10)
os.waitpid(child, 0)
assert [peer.recv_message() for _ in range(4)] == ["0", "1", "2", "3"]
assert other_peer.recv_message() == f"hello from {os.getpid()}"
for each in (connection, other):
    each.abort("the test is over")
for each in (peer, other_peer):
    each.abandon()
"""
    )


def test_worker_is_woken_from_another_thread_without_a_wait_for_the_hub(hub: Hub) -> None:
    runs: list[int] = []
    wake = hub.do(hub.reactor.worker, lambda: runs.append(1), "at work")
    inside, go_on = threading.Event(), threading.Event()

    def hold_up() -> None:
        inside.set()
        assert go_on.wait(PATIENCE_SECONDS)

    holding = hub.start(hold_up)
    assert inside.wait(PATIENCE_SECONDS)
    wake()
    assert not holding.done()
    assert not runs
    go_on.set()
    holding.result(PATIENCE_SECONDS)
    until(lambda: runs)


def test_worker_whose_greenlet_is_killed_takes_up_what_it_was_woken_for(hub: Hub) -> None:
    runs: list[Any] = []

    def work() -> None:
        runs.append(gevent.getcurrent())
        if len(runs) == 1:
            wake()
            raise gevent.GreenletExit

    wake = hub.do(hub.reactor.worker, work, "at work")
    hub.do(wake)
    until(lambda: len(runs) == 2)
    hub.do(wake)
    until(lambda: len(runs) == 3)
    assert len(set(runs)) == 3
    assert {greenlet.name for greenlet in runs} == {"at work"}


def test_greenlet_that_breathes_lets_others_run(hub: Hub) -> None:
    over: list[bool] = []

    def never_wait() -> None:
        while not over:
            hub.reactor.breathe(time.monotonic())

    breathing = hub.start(never_wait)
    hub.do(lambda: over.append(True))
    breathing.result(PATIENCE_SECONDS)


def test_greenlet_that_enters_a_context_has_its_values_to_the_end_and_no_other_has(hub: Hub) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="of no context")
    context = contextvars.Context()
    context.run(variable.set, "of the view")
    seen: list[str] = []

    def view() -> None:
        assert hub.reactor.enter(context)
        gevent.sleep(0)
        seen.append(variable.get())
        variable.set("changed")
        gevent.sleep(0)
        seen.append(variable.get())

    def other() -> None:
        seen.append(variable.get())

    for function in (view, other):
        hub.do(hub.reactor.spawn, function, "a view")
    until(lambda: len(seen) == 3)
    assert sorted(seen) == ["changed", "of no context", "of the view"]
    assert context.run(variable.get) == "changed"
