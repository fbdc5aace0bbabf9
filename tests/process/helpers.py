"""What the tests of a process use: a view that echoes, and its peers."""

from __future__ import annotations

import time

from django.http import HttpRequest

from dwebsocket import require_websocket
from tests.peer import Close, Peer

MANY = 30


@require_websocket
def echo(request: HttpRequest) -> None:
    for message in request.websocket:
        request.websocket.send(message)


def leave_when_told(peer: Peer) -> tuple[str | bytes | Close, float]:
    """Answer the Close frame that comes; what it was, and when it came."""
    close = peer.recv_message()
    came = time.monotonic()
    peer.send_close()
    assert peer.read_to_eof() == b""
    peer.abandon()
    return close, came


def answered(peer: Peer) -> Peer:
    peer.send_message("hello")
    assert peer.recv_message() == "hello"
    return peer
