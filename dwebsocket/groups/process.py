"""The dispatchers of this process, one for each alias of WEBSOCKET_GROUPS, made at the first use."""

from __future__ import annotations

import atexit
import math
import os
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

from django.core.signals import setting_changed

from .. import conf
from ..database.own import close_own_connections
from ..signals import group_overflow, group_presence_changed, groups_interrupted
from ..websocket import WebSocket
from . import config
from .audience import Member
from .backend import Present
from .dispatcher import Dispatcher
from .presence.members import member_of
from .telling import Teller, in_thread

_dispatchers: dict[str, Dispatcher] = {}
_lock = threading.RLock()


def dispatcher(alias: str) -> Dispatcher:
    """The dispatcher of `alias`. ImproperlyConfigured where WEBSOCKET_GROUPS has no such, or a wrong one."""
    found = _dispatchers.get(alias)
    if found is None:
        with _lock:
            found = _dispatchers.get(alias)
            if found is None:
                found = _dispatchers[alias] = _make(alias)
    return found


def dispatchers() -> list[Dispatcher]:
    """Those that there are by now."""
    return list(_dispatchers.values())


def forget() -> None:
    """Begin anew, in the child of a fork: the members, and the connections to a broker, are the parent's."""
    global _dispatchers, _lock, _slow, _changes
    _dispatchers, _lock = {}, threading.RLock()
    _slow, _changes = _tellers()


def close() -> None:
    """Close the backends; the members that there are get nothing any more."""
    with _lock:
        while _dispatchers:
            _dispatchers.popitem()[1].close()


def _end() -> None:
    """Let the members of this process be present no longer: it ends."""
    for dispatcher in dispatchers():
        dispatcher.resign()


atexit.register(_end)


def _make(alias: str) -> Dispatcher:
    return Dispatcher(
        config.backend(alias),
        overflowed=_tell_overflow,
        interrupted=partial(_tell_interruption, alias),
        changed=partial(_tell_presence, alias),
    )


_MAX_CHANGES = 50_000  # of rosters that wait: a receiver may be slower than guests that come and go, or hang


def _tell_overflow(members: Sequence[Member]) -> None:
    """Send the signal for each of `members`, once for those that it is about to be sent for."""
    if group_overflow.has_listeners():
        slow = dict.fromkeys((member.owner.websocket, member.audience.group) for member in members)
        _slow.tell({key: partial(_send_overflow, *key) for key in slow}, members[0].connection.reactor.spawn)


def _send_overflow(websocket: WebSocket, group: str) -> None:
    group_overflow.send_robust(type(websocket), websocket=websocket, group=group)


def _tell_interruption(alias: str, seconds: float) -> None:
    def send() -> None:
        groups_interrupted.send_robust(None, alias=alias, seconds=seconds)
        close_own_connections()

    if groups_interrupted.has_listeners():
        in_thread(send, "dwebsocket groups_interrupted")


def _tell_presence(alias: str, group: str, joined: list[Present], left: list[Present]) -> None:
    """Send the signal for a change of a roster."""

    def send() -> None:
        members = {"joined": list(map(member_of, joined)), "left": list(map(member_of, left))}
        group_presence_changed.send_robust(None, group=group, alias=alias, **members)

    if group_presence_changed.has_listeners():
        _changes.tell({object(): send})


def _tellers() -> tuple[Teller, Teller]:
    return Teller("group_overflow", math.inf), Teller("group_presence_changed", _MAX_CHANGES)


_slow, _changes = _tellers()


def _settings_changed(*, setting: str, **about: Any) -> None:
    if setting == f"{conf.PREFIX}GROUPS":
        close()


setting_changed.connect(_settings_changed)
os.register_at_fork(after_in_child=forget)
