"""Questions to the server that a deployment should ask once: `manage.py check --deploy`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from ..backend import Finding
from . import commands, faults
from .location import Location

_MIB = 1024 * 1024
#: Redis' default for pubsub: at once, and for so many seconds.
_HARD_BYTES, _SOFT_BYTES, _SOFT_SECONDS = 32 * _MIB, 8 * _MIB, 60
_DEFAULT = "32mb 8mb 60"
#: With these a server loses nothing that it has confirmed.
_DURABLE = {"appendonly": "yes", "appendfsync": "always"}


def examine(location: Location, timeout_seconds: float, is_durable: bool) -> Iterator[Finding]:
    """Tell what is wrong with the server of `location`; nothing where it does not tell. `is_durable`: by DURABLE."""
    try:
        settings = _ask(location, timeout_seconds)
    except Exception as error:
        reason = "it did not answer" if isinstance(error, TimeoutError) else faults.as_fault(error)
        yield Finding(
            "unreachable",
            f"{location} cannot be used now: {reason}",
            "Start it, or correct LOCATION; where it cannot be reached from here, silence this check.",
        )
        return
    yield from judge(str(location), settings, is_durable)


def judge(where: str, settings: dict[str, str], is_durable: bool = False) -> Iterator[Finding]:
    """Tell what is wrong with these settings of the server at `where`. Those that it did not tell are not judged."""
    hard, soft, seconds = pubsub_limits(settings.get("client-output-buffer-limit", ""))
    if 0 < hard < _HARD_BYTES or 0 < soft < _SOFT_BYTES or (soft and seconds < _SOFT_SECONDS):
        yield Finding(
            "buffer",
            f"client-output-buffer-limit of {where} is pubsub {hard} {soft} {seconds}, less than Redis' default: a"
            " burst of messages cuts the connection of a process, and what it has not read is lost",
            f"Write client-output-buffer-limit pubsub {_DEFAULT}, or more, into redis.conf.",
        )
    policy = settings.get("maxmemory-policy", "")
    if policy.startswith("allkeys-") and settings.get("maxmemory", "0") != "0":
        yield Finding(
            "eviction",
            f"maxmemory-policy of {where} is {policy}: it may drop the histories of groups, the members that are"
            " present, and the keys by which a message that is sent again with the same once is recognised",
            "Write maxmemory-policy noeviction (or volatile-ttl) into redis.conf, or give the groups a Redis that is no"
            " cache.",
        )
    loses = [f"{name} {told}" for name, value in _DURABLE.items() if (told := settings.get(name, value)) != value]
    if is_durable and loses:
        yield Finding(
            "durable",
            f"DURABLE is True, and {where} has {' and '.join(loses)}: it may lose messages when it is restarted, and a"
            " page that comes back may then miss others without being told",
            "Write appendonly yes and appendfsync always into redis.conf, or remove DURABLE.",
        )


def pubsub_limits(setting: str) -> tuple[int, int, int]:
    """The bytes, soft bytes and seconds for pubsub; 0 is no limit, as where they are not there."""
    words = setting.split()
    if "pubsub" not in words:
        return 0, 0, 0
    at = words.index("pubsub")
    hard, soft, seconds = (int(word) for word in words[at + 1 : at + 4])
    return hard, soft, seconds


def _ask(location: Location, timeout_seconds: float) -> dict[str, str]:
    """The settings that matter. One that the user may not see, or that the server does not have, is left out."""
    names = (b"client-output-buffer-limit", b"maxmemory", b"maxmemory-policy", *(name.encode() for name in _DURABLE))
    wire = location.connect("dwebsocket-check")
    try:
        asked = b"".join(commands.command(b"CONFIG", b"GET", name) for name in names)
        replies = wire.exchange(asked, len(names), time.monotonic() + timeout_seconds)
    finally:
        wire.close()
    return dict(_pairs(replies))


def _pairs(replies: list[Any]) -> Iterator[tuple[str, str]]:
    for reply in replies:
        if isinstance(reply, list) and len(reply) == 2:
            name, value = reply
            yield name.decode(), value.decode()
