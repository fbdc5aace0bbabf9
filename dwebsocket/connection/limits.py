"""The limits of one connection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ..protocol.codes import CloseCode
from ..protocol.frames import Close


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The bytes, messages and seconds that one connection may take. None means without limit."""

    max_message_size: int | None = 1024 * 1024
    streaming: bool = False
    receive_queue: int = 32
    send_timeout: float | None = 30
    ping_interval: float | None = 20
    ping_timeout: float | None = 20
    close_timeout: float = 10
    idle_timeout: float | None = None
    max_groups: int = 128


#: The end of a peer that does not read what was offered.
TOO_SLOW = Close(CloseCode.TRY_AGAIN_LATER, "too slow")

#: What `Connection.offer()` returns, where it is not a number of messages that were dropped.
TAKEN = 0  # and nothing was dropped
NOT_OPEN = -1  # nothing was done: the connection is not open, or not any more
CLOSED = -2  # just now, with 1013: the peer is too slow


class Bound(NamedTuple):
    """The share of what was offered that may wait for a slow peer, and what happens to more.

    `max_seconds`: how long the oldest of it may wait. `overflow`: "close" closes with 1013, "drop_new" drops what is
    offered, "drop_oldest" what waits longest, "latest" what waits with the same key, and then as "drop_oldest". The
    last two drop only what was itself offered with one of them.
    """

    max_bytes: int = 1024 * 1024
    max_seconds: float = 10
    overflow: str = "close"
