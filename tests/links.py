"""Connections over one end of a socket, a hand-written peer at the other: on either reactor, or by a clock of the test.

gevent has a hub per thread, so its side lives in a thread of its own: nothing is monkey-patched here. What a test
wants to happen where a view would run, it hands to ``Home.start`` (a greenlet or thread, as the reactor has it) or
to ``Home.do``, which waits for the result.

``Manual`` has neither hub nor thread: everything happens in the test's own, and time passes when the test says so.
"""

from __future__ import annotations

import contextlib
import gc
import heapq
import itertools
import math
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast
from unittest import mock

import gevent
import gevent.event
import pytest

from dwebsocket.connection import connection, lifetime, sending
from dwebsocket.connection.connection import Connection, Limits
from dwebsocket.protocol import COMPILED
from dwebsocket.protocol.extensions import Extension
from dwebsocket.reactors import base
from dwebsocket.reactors import gevent as gevent_reactor
from dwebsocket.reactors import thread as thread_reactor
from dwebsocket.reactors.base import Reactor
from tests.peer import Close, Peer

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_SECONDS = 10.0


def until(condition: Callable[[], T | None], wanted: str = "the condition") -> T:
    """What ``condition`` returns once that is true, for what comes about in its own time."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (result := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {wanted}"
        time.sleep(0.005)
    return result


def run(future: Future[T], function: Callable[..., T], *arguments: Any) -> None:
    """Let ``future`` hold the outcome of ``function``."""
    try:
        future.set_result(function(*arguments))
    except BaseException as error:
        future.set_exception(error)


class Threads:
    """Where the connections of threads live: everywhere."""

    name = "thread"

    @property
    def reactor(self) -> Reactor:
        return thread_reactor.current()

    def start(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Run ``function`` in a thread of its own."""
        future: Future[T] = Future()
        threading.Thread(target=run, args=(future, function, *arguments), daemon=True).start()
        return future

    def do(self, function: Callable[..., T], *arguments: Any) -> T:
        return self.start(function, *arguments).result(PATIENCE_SECONDS)

    def pause(self, seconds: float) -> None:
        """Sleep as a view of this kind sleeps."""
        time.sleep(seconds)


class Hub:
    """Where the connections of one gevent hub live: the thread that runs it."""

    name = "gevent"

    def __init__(self) -> None:
        self.errors: list[Any] = []
        ready: Future[Reactor] = Future()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="hub", daemon=True)
        self._thread.start()
        self.reactor = ready.result(PATIENCE_SECONDS)

    def start(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Run ``function`` in a greenlet of its own."""
        future: Future[T] = Future()
        self._loop.run_callback_threadsafe(gevent.spawn, run, future, function, *arguments)
        return future

    def do(self, function: Callable[..., T], *arguments: Any) -> T:
        return self.start(function, *arguments).result(PATIENCE_SECONDS)

    def pause(self, seconds: float) -> None:
        """Sleep as a view of this kind sleeps."""
        gevent.sleep(seconds)

    def stop(self) -> None:
        self._loop.run_callback_threadsafe(self._stopped.set)
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive()

    def _run(self, ready: Future[Reactor]) -> None:
        hub = gevent.get_hub()
        hub.handle_error = lambda *error: self.errors.append(error)
        self._loop = hub.loop
        self._stopped = gevent.event.Event()
        ready.set_result(gevent_reactor.current())
        keep_alive = self._loop.timer(1, 1)  # a hub with nothing to wait for takes that for a deadlock
        keep_alive.start(lambda: None)
        self._stopped.wait()
        keep_alive.close()
        gc.collect()  # a socket in a cycle that is found after its loop was destroyed cannot be closed any more
        hub.destroy()


class ManualLink(base.Link):
    """The tie between one connection and a `Manual`."""

    def __init__(self, home: Manual, served: base.Served, descriptor: int) -> None:
        super().__init__(None, holds=False)
        self.home, self.served, self.descriptor = home, served, descriptor
        self.is_resumed = self.is_closed = False
        home.links.append(self)

    def watch(self, *, read: bool, write: bool) -> None:
        self.reads, self.writes = read, write

    def sleep(self, timeout_seconds: float | None) -> None:
        """Let something happen: the socket first, else the time passes until something is due."""
        until_then = math.inf if timeout_seconds is None else self.home.now + timeout_seconds
        if not self.home.serve():
            self.home.pass_time(until_then)

    def wake(self) -> None:
        pass  # a caller that sleeps looks again after each thing that happens

    def write_soon(self) -> None:
        pass

    def resume(self) -> None:
        self.is_resumed = True

    def call_soon(self) -> None:
        raise AssertionError("this link holds nothing")

    def breathe(self, now: float) -> None:
        pass

    def look(self, *, pause: bool) -> None:
        self.take_turn()

    def hung_up(self) -> bool:
        return base.hung_up(select.poll(), self.descriptor)

    def arrived(self) -> bool:
        return base.arrived(select.poll(), self.descriptor)

    def schedule(self, when: float) -> None:
        self.home.deadlines.add(self, when)

    def close(self, dispose: Callable[[], None]) -> None:
        self.reads = self.writes = False
        self.is_closed = True
        self.home.deadlines.discard(self)
        dispose()

    def take_turn(self) -> bool:
        """Call back once for whatever there is; whether there was anything."""
        if self.is_closed:
            return False
        poll = select.poll()
        poll.register(self.descriptor, self.reads * select.POLLIN | self.writes * select.POLLOUT)
        [(_, events)] = poll.poll(0) or [(0, 0)]
        readable, self.is_resumed = self.is_resumed or (self.reads and bool(events & ~select.POLLOUT)), False
        if readable:
            self.served.on_readable()
        if self.writes and events & select.POLLOUT and not self.is_closed:
            self.served.on_writable()
        return readable or bool(events & select.POLLOUT)

    def on_deadline(self, now: float) -> None:
        if (due := self.served.on_deadline(now)) is not None and not self.is_closed:
            self.schedule(due)


class Manual:
    """Where time passes when the test says so. A verb that would wait lets it pass until what it waits for is there."""

    name = "manual"
    stops: tuple[type[BaseException], ...] = ()
    owner_thread = None
    max_connections = None
    thread_ident = staticmethod(threading.get_ident)

    def __init__(self) -> None:
        self.now = 1000.0
        self.links: list[ManualLink] = []
        self.deadlines = base.Deadlines()
        self.plans: list[tuple[float, int, Callable[[], object]]] = []
        self.tie_breaker = itertools.count()

    @property
    def reactor(self) -> Reactor:
        return cast(Reactor, self)

    def monotonic(self) -> float:
        return self.now

    def link(self, served: base.Served, descriptor: int) -> ManualLink:
        return ManualLink(self, served, descriptor)

    def start(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        raise AssertionError("nothing runs beside the test here: plan() what happens meanwhile")

    def do(self, function: Callable[..., T], *arguments: Any) -> T:
        return function(*arguments)

    def plan(self, seconds: float, function: Callable[[], object]) -> None:
        """Have ``function`` called when that many seconds have passed."""
        heapq.heappush(self.plans, (self.now + seconds, next(self.tie_breaker), function))

    def pause(self, seconds: float) -> None:
        """Let that many seconds pass, with all that is due in them."""
        until_then = self.now + seconds
        while self.serve() or self.now < until_then:
            self.pass_time(until_then)

    def serve(self) -> bool:
        """Call back until no socket has anything to say any more; whether one had."""
        turns = 0
        while sum(link.take_turn() for link in self.links):
            turns += 1
            assert turns < 100_000, "a socket has something to say for ever"
        return turns > 0

    def pass_time(self, until_then: float) -> None:
        """Turn the clock to what is due next, and do it; no further than ``until_then``."""
        earliest = self.deadlines.earliest()
        planned = self.plans[0][0] if self.plans else math.inf
        self.now = min(until_then, planned, math.inf if earliest is None else max(earliest, self.now))
        assert self.now < math.inf, "it waits, and nothing will ever happen"
        while self.plans and self.plans[0][0] <= self.now:
            heapq.heappop(self.plans)[2]()
        for link in self.deadlines.pop_due(self.now):
            link.on_deadline(self.now)


Home = Threads | Hub | Manual


@dataclass
class Link:
    """A connection, its peer, and what became of its socket."""

    home: Home
    connection: Connection
    peer: Peer
    sock: socket.socket
    disposals: list[int] = field(default_factory=list)
    disposers: list[int] = field(default_factory=list)  # the threads that did it

    def do(self, verb: str, *arguments: Any) -> Any:
        """What the connection's ``verb`` returns, called where a view would call it."""
        return self.home.do(getattr(self.connection, verb), *arguments)

    def start(self, verb: str, *arguments: Any) -> Future[Any]:
        return self.home.start(getattr(self.connection, verb), *arguments)

    @property
    def closed(self) -> bool:
        return self.home.do(lambda: self.connection.closed)

    def until_closed(self) -> None:
        until(lambda: self.closed, "the end of the connection")

    def until_disposed(self) -> None:
        until(lambda: self.disposals, "the disposal of the socket")


def assert_ends(peer: Peer, code: int, reason: str = "") -> None:
    """The Close frame is next; it is answered, the stream ends without another byte, and the peer leaves."""
    assert peer.recv_message() == Close(code, reason)
    peer.send_close()
    assert peer.read_to_eof() == b""
    peer.abandon()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection, which can be reset."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    return server, client


def connect(
    home: Home,
    *,
    response: bytes = b"",
    early: bytes = b"",
    tcp: bool = False,
    reactor: Reactor | None = None,
    kind: type[socket.socket] = socket.socket,
    extensions: Sequence[Extension] = (),
    **limits: Any,
) -> Link:
    """A connection that is open, and its peer."""
    server, client = tcp_pair() if tcp else socket.socketpair()
    for end in (server, client):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
    server = kind(fileno=server.detach())
    server.setblocking(False)
    disposals: list[int] = []
    disposers: list[int] = []

    def dispose() -> None:
        disposals.append(server.fileno())
        disposers.append(threading.get_ident())
        server.close()

    def open_connection() -> Connection:
        connection = Connection(
            server, reactor or home.reactor, limits=Limits(**limits), extensions=extensions, dispose=dispose
        )  # fmt: skip
        connection.open(response, early)
        return connection

    return Link(home, home.do(open_connection), Peer.over(client), server, disposals, disposers)


def descriptors() -> int:
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


def run_program(program: str, *arguments: str) -> str:
    """What ``program`` prints when a Python of its own runs it; it must come to its end without a word of complaint."""
    warnings = ["-W", "error", "-W", "ignore:This process:DeprecationWarning"]  # … is multi-threaded, use of fork …
    command = [sys.executable, *warnings, "-c", program, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


@pytest.fixture(scope="session", params=[Threads, Hub], ids=lambda home: home.name)
def home(request: pytest.FixtureRequest) -> Iterator[Home]:
    """Both kinds of places where connections live. The background thread hurries, so that no test waits for it."""
    home = request.param()
    with mock.patch.object(thread_reactor, "SWEEP_SECONDS", 0.02):
        yield home
    if isinstance(home, Hub):
        home.stop()


@contextmanager
def linking(home: Home) -> Iterator[Callable[..., Link]]:
    """``connect``; in the end every socket must have been disposed of exactly once, and the hub have seen no error."""
    links: list[Link] = []

    def connect_and_remember(**options: Any) -> Link:
        links.append(connect(home, **options))
        return links[-1]

    yield connect_and_remember
    for link in links:
        link.peer.abandon()
        link.do("abort", "the test is over")
        link.until_disposed()
        assert len(link.disposals) == 1
    if isinstance(home, Hub):
        errors, home.errors = home.errors, []
        assert errors == []


@pytest.fixture
def link(home: Home) -> Iterator[Callable[..., Link]]:
    """``connect``, for both reactors."""
    with linking(home) as connect:
        yield connect


@pytest.fixture
def manual() -> Iterator[Callable[..., Link]]:
    """``connect``, by a clock of the test."""
    home = Manual()
    with contextlib.ExitStack() as stack:
        for module in (connection, lifetime, sending):
            stack.enter_context(mock.patch.object(module, "monotonic", home.monotonic))
        yield stack.enter_context(linking(home))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what turns the clock where that is compiled: there it is C. The uncompiled build proves the same."""
    needs_python = [item for item in items if COMPILED and "manual" in getattr(item, "fixturenames", ())]
    if needs_python:
        config.hook.pytest_deselected(items=needs_python)
        items[:] = [item for item in items if item not in needs_python]
