"""The WebSockets that are open in this process: how many there may be, and their end when the process ends."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Protocol

from django.http import HttpRequest

from . import conf
from .access import ConnectionInfo
from .protocol.exceptions import ShuttingDown, TooManyConnections
from .reactors import reactor_for
from .reactors.base import Latch, Reactor

logger = logging.getLogger("dwebsocket")

_STEP_SECONDS = 0.01  # between two of few; many are told faster, so that all are told in time


class Member(Protocol):
    """What is counted, and told to end."""

    request: HttpRequest
    reactor: Reactor

    def go_away(self, code: int) -> None:
        """End with `code`; returns at once."""
        ...  # pragma: no cover

    def info(self) -> ConnectionInfo | None:
        """What is known of its connection; None before there is one."""
        ...  # pragma: no cover


class Live:
    """The members of one process."""

    def __init__(self) -> None:
        self.is_ending = False
        self._members: set[Member] = set()
        self._gone: Latch | None = None  # opens when the last member has left
        self._lock = threading.Lock()
        self._exit_is_watched = False  # not forgotten by a fork: neither are the functions to be called at exit

    def forget(self) -> None:
        """A fork's child begins anew: what is open belongs to its parent."""
        self.is_ending = False
        self._members = set()
        self._gone = None
        self._lock = threading.Lock()

    def members(self) -> list[Member]:
        """All members."""
        with self._lock:
            return list(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def enter(self, member: Member, at_exit: Callable[[Callable[[], None]], None]) -> None:
        """Count `member`. TooManyConnections or ShuttingDown (503) when there is no place for it."""
        limit = conf.get("MAX_CONNECTIONS")
        if limit is None:
            limit = member.reactor.max_connections
        with self._lock:
            if self.is_ending:
                raise ShuttingDown("this server is about to end: try again")
            if limit is not None and len(self._members) >= limit:
                raise TooManyConnections(f"this server has {limit} WebSockets open, and takes no more")
            self._members.add(member)
            watch_exit, self._exit_is_watched = not self._exit_is_watched, True
        if watch_exit:
            at_exit(shutdown)

    def leave(self, member: Member) -> None:
        """Count `member` no more."""
        with self._lock:
            self._members.discard(member)
            if self._gone is not None and not self._members:
                self._gone.set()

    def end(self, code: int, seconds: float) -> int:
        """Let no member in any more, and tell all to go; how many are left after twice `seconds`.

        They are told one after the other, over at most `seconds`: clients that come back do not come all at once.
        """
        with self._lock:
            self.is_ending = True
            members = list(self._members)
            if not members:
                return 0
            self._gone = gone = members[0].reactor.latch()
        started = time.monotonic()
        step = min(_STEP_SECONDS, seconds / len(members))
        for number, member in enumerate(members):
            delay = started + number * step - time.monotonic()
            if delay > 0:  # a wait without one would be a turn of the hub for each member, and late already
                gone.wait(delay)
            member.go_away(code)
        gone.wait(max(0.0, started + 2 * seconds - time.monotonic()))
        return len(self._members)


live = Live()
os.register_at_fork(after_in_child=live.forget)


def connections() -> list[ConnectionInfo]:
    """What is open in this process: a ConnectionInfo for each WebSocket (path, user, address, seconds, traffic)."""
    return [info for member in live.members() if (info := member.info()) is not None]


def shutdown(code: int | None = None, seconds: float | None = None) -> None:
    """End every WebSocket of this process with a closing handshake, and refuse new ones with 503 from now on.

    It is called by itself when the process ends. Blocks until every view has come to its end, at most twice `seconds`
    (WEBSOCKET_DRAIN_SECONDS). `code` is that of the Close frame (WEBSOCKET_SHUTDOWN_CODE).
    """
    code = conf.get("SHUTDOWN_CODE") if code is None else code
    seconds = conf.get("DRAIN_SECONDS") if seconds is None else seconds
    left = live.end(code, seconds)
    if left:
        logger.warning("%d WebSocket views had not ended %s seconds after they were told to", left, 2 * seconds)


def shutdown_on_signal(signum: int = signal.SIGTERM) -> None:
    """End every WebSocket of this process as soon as it gets a signal; then happens what would have happened before.

    Needed where a server waits for attached views before it ends, or where the signal ends the process without its exit
    functions. Call it in the main thread of the process that serves (with gunicorn, from `post_worker_init`), once the
    server has set its own handler. RuntimeError where that one is not Python's to call.
    """
    earlier = signal.getsignal(signum)
    if earlier is None:
        raise RuntimeError(f"signal {signum} is handled outside of Python, and cannot be passed on")
    start = reactor_for(socket.socket).starter(lambda: _shutdown_for_signal(signum, earlier))
    started = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal started
        if earlier is signal.SIG_DFL and started:  # all have ended, or somebody asks for the second time
            signal.signal(number, earlier)
            os.kill(os.getpid(), number)
        if not started:
            started = True
            start()
        if callable(earlier):
            earlier(number, frame)

    signal.signal(signum, handle)


def _shutdown_for_signal(signum: int, earlier: object) -> None:
    shutdown()
    if earlier is signal.SIG_DFL:
        os.kill(os.getpid(), signum)
