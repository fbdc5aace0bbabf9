"""Guards are asked again about every open WebSocket: when, where, and what one that blocks or fails does to others."""

from __future__ import annotations

import contextvars
import functools
import gc
import itertools
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import gevent
import pytest
from django.db import connection
from django.test import RequestFactory, override_settings

from dwebsocket import guards, require_websocket
from dwebsocket.exceptions import Forbidden
from dwebsocket.guards import schedule
from dwebsocket.guards.base import Guard
from dwebsocket.guards.builtin import session_alive
from dwebsocket.guards.schedule import watch
from dwebsocket.protocol.exceptions import HandshakeError
from dwebsocket.reactors.thread import ThreadReactor
from tests.guards.helpers import (
    NEVER_SECONDS,
    SOON_SECONDS,
    Heard,
    Ward,
    denied,
    guarded,
    leave,
    making_schedules,
    requests_of,
    unauthorized,
    user_named,
    yes,
)
from tests.helpers import DB
from tests.links import Home, Hub, Threads, assert_ends, run_program, until
from tests.sites import Site

logger = logging.getLogger("dwebsocket")


# Open WebSockets


@pytest.mark.parametrize(
    ("refuse", "code", "reason"),
    [
        (lambda request: False, 4403, "permission denied"),
        (denied, 4403, "permission denied"),
        (unauthorized, 4401, "who are you?"),
    ],
    ids=["false", "denied", "unauthorized"],
)
def test_open_websocket_is_closed_and_its_view_ends(site: Site, refuse: Any, code: int, reason: str) -> None:
    guards = [yes]
    peer = guarded(site, lambda request: guards[0](request)).connect()
    guards[0] = refuse
    assert_ends(peer, code, reason)
    assert site.hear() == [code, True]


def test_guard_of_the_settings_is_asked_again_too(site: Site) -> None:
    asked = iter([True])

    @require_websocket
    def view(request):
        request.websocket.wait()

    site(view, WEBSOCKET_GUARD=lambda request: next(asked, False), WEBSOCKET_GUARD_INTERVAL=SOON_SECONDS)
    assert_ends(site.connect(), 4403, "permission denied")


def test_each_of_several_guards_can_close(site: Site) -> None:
    for last in range(3):
        lets = [True, True, True]
        guards = [lambda request, i=i, lets=lets: lets[i] for i in range(3)]
        peer = guarded(site, *guards).connect()
        lets[last] = False
        assert_ends(peer, 4403, "permission denied")
        assert site.hear() == [4403, True]


def test_view_that_computes_finds_its_websocket_closed(site: Site) -> None:
    lets = [True]
    woken = threading.Event()

    @require_websocket(guard=lambda request: lets[0], guard_interval=SOON_SECONDS)
    def view(request):
        request.websocket.accept()
        site.wait_for(woken)
        site.tell(request.websocket.closed)

    peer = site(view).connect()
    lets[0] = False
    assert_ends(peer, 4403, "permission denied")
    woken.set()
    assert site.hear() is True


# The rounds


def rounds_of(home: Home) -> Any:
    return schedule._schedules[home.reactor]


def test_guard_that_calls_exit_has_failed_and_ends_neither_the_schedule_nor_the_process(
    wards: Any, caplog: pytest.LogCaptureFixture
) -> None:
    leaves = [True]

    def guard(request: Any) -> bool:
        if leaves:
            raise SystemExit(3)
        return False

    (ward,) = wards(1, guard)
    until(lambda: "could not be asked" in caplog.text, "the log")
    assert not ward.revoked
    leaves.clear()
    until(lambda: ward.revoked, "the next round")


def test_guard_that_fails_is_logged_once_a_round_closes_nothing_and_is_asked_again(
    wards: Any, caplog: pytest.LogCaptureFixture
) -> None:
    outage = [True]

    class Mark(Heard):
        def judge(self, requests: Sequence[Any]) -> list[HandshakeError | None]:
            if len(requests) == 50:
                logger.warning("a round")
            return super().judge(requests)

    def guard(request: Any) -> bool:
        if outage:
            raise ConnectionError("no route to the database")
        return False

    mark = Mark()
    made = wards(50, guard, mark)
    until(lambda: [record.getMessage() for record in caplog.records].count("a round") >= 4, "four rounds")
    assert not any(ward.revoked for ward in made)
    messages = [record.getMessage() for record in caplog.records]
    messages = messages[messages.index("a round") :]
    for message, after in itertools.pairwise(messages):
        assert (message == "a round") is (after != "a round")
    assert any("could not be asked; the WebSockets stay open" in message for message in messages)
    outage.clear()
    until(lambda: all(ward.revoked for ward in made), "the guard to be asked again")


@pytest.mark.parametrize("error", [RuntimeError("broken"), gevent.Timeout(1)], ids=["error", "timeout"])
def test_request_about_which_a_guard_fails_does_not_protect_the_others(wards: Any, error: BaseException) -> None:
    def guard(request: Any) -> bool:
        if request.path == "/broken/":
            raise error
        return False

    paths = ["/first/", "/broken/", "/last/"]
    first, failing, last = wards(3, guard, requests=[RequestFactory().get(path) for path in paths])
    until(lambda: first.revoked and last.revoked, "the others to be closed")
    assert not failing.revoked


@pytest.mark.parametrize("kind", [iter, list], ids=["one by one", "all at once"])
def test_websocket_that_cannot_be_judged_protects_no_other_of_its_batch(wards: Any, kind: Any) -> None:
    class Batch(Guard):
        def judge(self, requests: Sequence[Any]) -> Any:
            return kind(self.verdict(request) for request in requests)

        def verdict(self, request: Any) -> HandshakeError:
            if request.path == "/broken/":
                raise RuntimeError("broken")
            return Forbidden("gone")

    paths = ["/first/", "/broken/", "/last/"]
    first, failing, last = wards(3, Batch(), requests=[RequestFactory().get(path) for path in paths])
    until(lambda: first.revoked and last.revoked, "the others to be closed")
    assert not failing.revoked


def test_websocket_that_cannot_be_closed_protects_no_other_of_its_batch(wards: Any) -> None:
    class Batch(Guard):
        def judge(self, requests: Sequence[Any]) -> list[HandshakeError | None]:
            return [None if lets else Forbidden("gone") for _ in requests]

    def fail(error: HandshakeError) -> None:
        raise RuntimeError("of a project's own WebSocket")

    lets = [True]
    first, failing, last = wards(3, Batch())
    failing.revoke = fail
    lets.clear()
    until(lambda: first.revoked and last.revoked, "the others to be closed")


def test_guard_that_fails_does_not_silence_the_others(wards: Any) -> None:
    class Broken(Guard):
        def judge(self, requests: Sequence[Any]) -> list[HandshakeError | None]:
            raise RuntimeError("broken")

    (ward,) = wards(1, Broken(), denied)
    until(lambda: ward.revoked, "the other guard")
    assert set(ward.revoked) == {"permission denied"}


def test_guard_that_has_not_judged_all_of_them_is_an_error(wards: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Short(Guard):
        def judge(self, requests: Sequence[Any]) -> list[HandshakeError | None]:
            return [Forbidden("the first")] if len(requests) > 1 else [None]

    wards(2, Short())
    until(lambda: "could not be asked" in caplog.text, "the log")


def test_guard_need_not_be_hashable(wards: Any) -> None:
    @dataclass
    class MayStay:
        lets: bool = True

        def __call__(self, request: Any) -> bool:
            return self.lets

    guard = MayStay()
    (ward,) = wards(1, guard)
    guard.lets = False
    until(lambda: ward.revoked, "the guard to be asked")


def test_rounds_end_with_the_last_websocket_and_begin_again_with_the_next(home: Home, wards: Any) -> None:
    for _ in range(3):
        heard = Heard()
        made = wards(2, heard, interval=NEVER_SECONDS) + wards(2, heard)
        heard.until_asked_again()
        assert making_schedules() == 1
        leave(home, made)
        until(lambda: not making_schedules(), "the rounds to end")
        asked = heard.rounds
    assert heard.rounds == asked


def test_rounds_do_not_sit_out_their_interval_when_nobody_is_left(home: Home, wards: Any) -> None:
    heard = Heard()
    short = wards(1, heard, interval=SOON_SECONDS)
    long = wards(1, heard, interval=NEVER_SECONDS)
    heard.until_asked_again()
    leave(home, short)
    until(lambda: rounds_of(home)._due.keys() == {NEVER_SECONDS}, "the rounds to wait for ever")
    leave(home, long)
    until(lambda: not making_schedules(), "the rounds to end")


def test_websocket_that_has_ended_is_asked_about_no_more(home: Home, wards: Any) -> None:
    seen: list[str] = []
    heard = Heard()

    def guard(request: Any) -> bool:
        seen.append(request.path)
        return True

    gone, _stays = wards(2, guard, heard, requests=[RequestFactory().get("/gone/"), RequestFactory().get("/stays/")])
    heard.until_asked_again()
    leave(home, [gone])
    heard.until_asked_again()
    seen.clear()
    heard.until_asked_again()
    assert set(seen) == {"/stays/"}


def test_rounds_hold_no_websocket_while_they_wait_for_their_next_turn(home: Home, wards: Any) -> None:
    heard = Heard()
    wards(1, heard, interval=NEVER_SECONDS)
    ward = Ward(home, RequestFactory().get("/"))
    home.do(watch, ward, (heard,), NEVER_SECONDS)
    rounds = rounds_of(home)
    rounds._due[NEVER_SECONDS] = 0.0  # the hour is over
    home.do(lambda: rounds._changed.set())
    until(lambda: heard.rounds, "the guard to be asked")
    leave(home, [ward])
    alive = weakref.ref(ward)
    del ward
    until(lambda: [gc.collect(), alive() is None][1], "the WebSocket to go")
    assert heard.rounds == 1


class Kept:
    """A value of a context."""


def test_rounds_do_not_run_in_the_context_in_which_they_began(home: Home, wards: Any) -> None:
    variable: contextvars.ContextVar[Kept] = contextvars.ContextVar("variable")
    ward, heard = Ward(home, RequestFactory().get("/")), Heard()
    spawn = type(home.reactor).spawn

    def inherit(reactor: Any, function: Callable[[], None], name: str) -> None:  # as threads of Python 3.14 may
        spawn(reactor, functools.partial(contextvars.copy_context().run, function), name)

    def begin() -> weakref.ref[Kept]:
        variable.set(kept := Kept())
        watch(ward, (heard,), SOON_SECONDS)
        return weakref.ref(kept)

    with mock.patch.object(type(home.reactor), "spawn", inherit):
        kept = home.do(begin)
    try:
        heard.until_asked_again()
        until(lambda: [gc.collect(), kept() is None][1], "the context to go")
    finally:
        leave(home, [ward])


@pytest.fixture
def blocking(home: Home) -> Iterator[Callable[[], Any]]:
    """Makes guards that block as a lock of the database does, until the test is over; each counts its calls."""
    over = threading.Event()

    def make() -> Any:
        def guard(request: Any) -> bool:
            guard.calls += 1  # type: ignore[attr-defined]
            while not over.is_set():
                home.pause(0.005)
            return True

        guard.calls = 0  # type: ignore[attr-defined]
        return guard

    with mock.patch.object(schedule, "_PATIENCE_SECONDS", 0.05):
        yield make
        over.set()
        until(lambda: not askers(), "the guards to answer")


def askers() -> int:
    return making_schedules("dwebsocket guard")


@pytest.mark.parametrize("interval", [SOON_SECONDS, 0.2], ids=["the same interval", "another one"])
def test_guard_that_blocks_delays_no_other_guard(home: Home, blocking: Any, wards: Any, interval: float) -> None:
    stuck, lets, heard = blocking(), [True], Heard()
    (waits,) = wards(1, stuck)
    until(lambda: stuck.calls, "the guard to block")
    (other,) = wards(1, lambda request: lets[0], heard, interval=interval)
    heard.until_asked_again()
    lets[0] = False
    until(lambda: other.revoked, "the other guard to be asked")
    assert stuck.calls == 1
    assert not waits.revoked


def test_guards_that_block_hold_a_bounded_number_of_threads(home: Home, blocking: Any, wards: Any) -> None:
    many = [blocking() for _ in range(5)]
    heard = Heard()
    with mock.patch.object(schedule, "MAX_ASKERS", 3):
        wards(1, *many[:2], heard)
        heard.until_asked_again()
        wards(1, *many)
        until(lambda: sum(guard.calls for guard in many) == 3, "three to be asked")
        heard_so_far = heard.rounds
        home.do(home.pause, 0.2)
        assert askers() == 3
        assert sum(guard.calls for guard in many) == 3
        assert heard.rounds <= heard_so_far + 1


def test_log_says_once_that_too_many_guards_block_for_any_to_be_asked(
    home: Home, blocking: Any, wards: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with mock.patch.object(schedule, "MAX_ASKERS", 2):
        wards(1, blocking())
        home.do(home.pause, 0.2)
        assert not caplog.records  # the others are asked all the same
        wards(1, blocking())
        until(lambda: caplog.records, "the log")
        home.do(home.pause, 0.2)
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert "2 guards do not answer" in record.getMessage()


def test_guard_that_blocked_is_asked_again_when_it_has_answered(home: Home, wards: Any) -> None:
    blocks, calls = [True], []

    def guard(request: Any) -> bool:
        calls.append(request)
        while blocks:
            home.pause(0.005)
        return len(calls) < 3

    with mock.patch.object(schedule, "_PATIENCE_SECONDS", 0.05):
        (ward,) = wards(1, guard)
        until(lambda: calls, "the guard to block")
        blocks.clear()
        until(lambda: ward.revoked, "the guard to be asked again")


def test_settling_waits_for_a_guard_that_is_being_asked(home: Home, blocking: Any, wards: Any) -> None:
    stuck = blocking()
    made = wards(1, stuck)
    until(lambda: stuck.calls, "the guard to block")
    leave(home, made)
    began = time.monotonic()
    guards.settle(0.05)
    assert time.monotonic() - began >= 0.05


def test_guards_are_asked_where_no_thread_can_be_started_for_them(home: Home, wards: Any) -> None:
    heard, spawn = Heard(), type(home.reactor).spawn

    def fail(reactor: Any, function: Callable[[], None], name: str) -> None:
        if name == "dwebsocket guard":
            raise RuntimeError("can't start new thread")
        spawn(reactor, function, name)

    with mock.patch.object(type(home.reactor), "spawn", fail):
        wards(1, heard)
        heard.until_asked_again()


def test_interval_is_not_disturbed_by_another_one(home: Home, wards: Any) -> None:
    often, seldom = Heard(), Heard()
    wards(1, seldom, interval=NEVER_SECONDS)
    short = wards(1, often)
    often.until_asked_again()
    often.until_asked_again()
    assert not seldom.rounds
    leave(home, short)
    again = Heard()
    wards(1, again)
    again.until_asked_again()
    assert not seldom.rounds


def test_no_database_connection_stays_open_between_the_schedules(home: Home, wards: Any, database_file: Path) -> None:
    def held() -> int:
        links = []
        for descriptor in os.listdir("/proc/self/fd"):
            try:
                links.append(os.readlink(f"/proc/self/fd/{descriptor}"))
            except OSError:  # closed meanwhile
                continue
        return links.count(str(database_file))

    heard = Heard()
    with override_settings(SESSION_ENGINE=DB):
        requests = requests_of([user_named("ann")], 2)
        connection.close()
        wards(2, session_alive, heard, requests=requests, interval=0.2)
        for _ in range(2):
            heard.until_asked_again()
            until(lambda: not held(), "the connection to be closed")


@pytest.fixture
def _hasty_threads() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_hasty_threads")
def test_websockets_that_are_opened_at_the_same_time_share_one_thread() -> None:
    for _ in range(20):
        home, heard = Threads(), Heard()
        reactor = ThreadReactor()
        with mock.patch.object(Threads, "reactor", reactor):
            made = [Ward(home, RequestFactory().get("/")) for _ in range(8)]
            together = threading.Barrier(len(made))

            def start(ward: Ward, together: Any = together, heard: Any = heard) -> None:
                together.wait()
                watch(ward, (heard,), SOON_SECONDS)

            for future in [home.start(start, ward) for ward in made]:
                future.result(10)
            heard.until_asked_again()
            assert making_schedules() == 1
            leave(home, made)
            until(lambda: not making_schedules(), "the rounds to end")


def test_reactor_is_not_held_by_rounds_that_have_ended() -> None:
    home, heard = Threads(), Heard()
    reactor = ThreadReactor()
    alive = weakref.ref(reactor)
    with mock.patch.object(Threads, "reactor", reactor):
        made = [Ward(home, RequestFactory().get("/"))]
        home.do(watch, made[0], (heard,), SOON_SECONDS)
        heard.until_asked_again()
        leave(home, made)
    del reactor
    until(lambda: [gc.collect(), alive() is None][1], "the reactor to go")


def test_thread_that_cannot_be_started_is_an_error_and_is_tried_again(wards: Any, home: Home) -> None:
    heard = Heard()
    no_thread = RuntimeError("can't start new thread")
    with mock.patch.object(type(home.reactor), "spawn", side_effect=no_thread), pytest.raises(RuntimeError):
        wards(1, heard)
    assert not heard.rounds
    wards(1, heard)
    heard.until_asked_again()


@pytest.mark.parametrize("home", [Hub], indirect=True)
@pytest.mark.parametrize("kind", ["each", "all"])
def test_hub_has_its_turn_while_many_websockets_are_asked_about(home: Hub, wards: Any, kind: str) -> None:
    events: list[str] = []

    def compute(request: Any = None) -> bool:
        until_then = time.perf_counter() + 0.001
        while time.perf_counter() < until_then:
            pass
        events.append("asked")
        return True

    class All(Guard):
        def judge(self, requests: Sequence[Any]) -> Iterator[HandshakeError | None]:
            for _ in requests:
                compute()
                yield None

    def tick() -> None:
        while not done:
            events.append("tick")
            gevent.sleep(0.0005)

    done: list[bool] = []
    requests = [RequestFactory().get("/") for _ in range(1000)]
    ticking = home.start(tick)
    wards(1000, compute if kind == "each" else All(), requests=requests, interval=0.5)
    until(lambda: events.count("asked") >= 1000, "a whole round")
    done.append(True)
    ticking.result(10)
    longest = max(len(run) for run in "".join("a" if event == "asked" else " " for event in events).split())
    assert longest <= (20 if kind == "each" else 200)


FORK = """
import os, sys, time
from dataclasses import dataclass
if sys.argv[1] == "gevent":
    from gevent import monkey
    monkey.patch_all()
import django
from django.conf import settings
settings.configure()
django.setup()
from dwebsocket import guards
if sys.argv[1] == "gevent":
    from dwebsocket.reactors import gevent as reactors
else:
    from dwebsocket.reactors import thread as reactors
from django.test import RequestFactory

asked = []

def guard(request):
    asked.append(request.path)
    return True

class Ward:
    def __init__(self, path):
        self.request, self.reactor = RequestFactory().get(path), reactors.current()
    def around(self, function):
        return function

def until(condition):
    while not condition():
        time.sleep(0.005)

parents = Ward("/parent/")
guards.watch(parents, (guard,), 0.01)
until(lambda: len(asked) >= 2)
child = os.fork()
asked.clear()
if child == 0:
    own = Ward("/child/")
    guards.watch(own, (guard,), 0.01)
    until(lambda: asked.count("/child/") >= 5)
    assert set(asked) == {"/child/"}, asked
    guards.watch_no_longer(parents)
    os._exit(7)
_, status = os.waitpid(child, 0)
until(lambda: len(asked) >= 2)
print(os.waitstatus_to_exitcode(status), *set(asked))
"""


@pytest.mark.parametrize("kind", ["thread", "gevent"])
def test_child_of_a_fork_asks_about_its_own_websockets_only(kind: str) -> None:
    assert run_program(FORK, kind).split() == ["7", "/parent/"]
