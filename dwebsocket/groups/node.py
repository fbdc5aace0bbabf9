"""The name of this process among all, and of its WebSockets."""

from __future__ import annotations

import os
import secrets

_node = secrets.token_hex(8).encode()


def _after_fork() -> None:
    global _node
    _node = secrets.token_hex(8).encode()


os.register_at_fork(after_in_child=_after_fork)


def websocket_id(number: int) -> bytes:
    """The name of a WebSocket of this process among those of all; `number` counts those of this process from 1."""
    return b"%b:%d" % (_node, number)


def number_here(websocket_id: bytes) -> int:
    """The number of that WebSocket, if it is one of this process; else 0."""
    node, _, number = websocket_id.partition(b":")
    return int(number) if node == _node and number.isdigit() else 0
