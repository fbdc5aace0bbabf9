"""What the tests of a connection use: peers that fill it, views that echo, frames that are ready to be offered."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import gevent

from dwebsocket.protocol import frames
from dwebsocket.protocol.codes import Opcode
from tests.links import Link, until
from tests.peer import Peer

Connect = Callable[..., Link]

MIB = 1 << 20
FIVE = [f"message {number}" for number in range(5)]


def fill(peer: Peer, data: bytes, limit: int = 16 * MIB) -> int:
    """Send ``data`` again and again until the connection takes no more for a while; how many bytes it took."""
    peer.sock.settimeout(0.5)
    sent = 0
    while sent < limit:
        try:
            sent += peer.sock.send(data[sent % len(data) :])
        except TimeoutError:
            return sent
    raise AssertionError(f"the connection took {sent} bytes and would take more")


class Sleepers:
    """A hook that keeps nothing: it sees which greenlets and threads go to sleep in a verb."""

    def __init__(self) -> None:
        self.asleep: set[Any] = set()

    def keeps_for(self, now: float) -> float:
        self.asleep.add(gevent.getcurrent())  # the lock is held until the link sleeps
        return math.inf

    def release(self) -> None:
        raise AssertionError("there is nothing to release")

    def woken(self) -> None:
        pass


def parked(a: Link, verb: str, *arguments: Any) -> Future[Any]:
    """Start the connection's ``verb``; it sleeps when this returns, and goes on where something wakes it."""
    sleepers = a.connection.wait_hook = Sleepers()
    callers: list[Any] = []

    def call() -> Any:
        callers.append(gevent.getcurrent())
        return getattr(a.connection, verb)(*arguments)

    def pass_by() -> None:
        with a.connection.lock or contextlib.nullcontext():
            pass

    future = a.home.start(call)
    until(lambda: sleepers.asleep.intersection(callers), f"{verb}() to sleep")
    a.home.do(pass_by)
    a.connection.wait_hook = None
    return future


def echo(a: Link, count: int) -> None:
    for _ in range(count):
        a.connection.send(a.connection.receive())


def server_frame(payload: bytes) -> bytes:
    """A whole text frame, as a server sends it."""
    return frames.Frame(Opcode.TEXT, payload).serialize()
