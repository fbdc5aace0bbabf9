"""The limits of one connection."""

from __future__ import annotations

from dataclasses import dataclass


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
