"""What the tests of a connection use: peers that fill it, views that echo, frames that are ready to be offered."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from dwebsocket.protocol import frames
from dwebsocket.protocol.codes import Opcode
from tests.links import Link
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


def until_blocked(sending: Any) -> None:
    """Return when a send that has no room is under way."""
    time.sleep(0.05)
    assert not sending.done()


def echo(a: Link, count: int) -> None:
    for _ in range(count):
        a.connection.send(a.connection.receive())


def server_frame(payload: bytes) -> bytes:
    """A whole text frame, as a server sends it."""
    return frames.Frame(Opcode.TEXT, payload).serialize()
