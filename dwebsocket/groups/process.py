"""The dispatchers of this process, one for each alias of WEBSOCKET_GROUPS, made at the first use."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections import deque
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

logger = logging.getLogger("dwebsocket")

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
    global _dispatchers, _lock, _slow_lock, _is_telling, _is_telling_changes, _drops_changes
    _dispatchers, _lock, _slow_lock = {}, threading.RLock(), threading.RLock()
    _is_telling = _is_telling_changes = _drops_changes = False
    _slow.clear()
    _changes.clear()


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


# Receivers of a signal may wait, for a database perhaps: so they are called in a separate greenlet or thread.

_slow: dict[tuple[WebSocket, str], None] = {}  # members that the signal tells of next
_slow_lock = threading.RLock()
_is_telling = False


def _tell_overflow(members: Sequence[Member]) -> None:
    """Send the signal for each of `members`: one after the other, however slow its receivers are."""
    global _is_telling
    if not group_overflow.has_listeners():
        return
    with _slow_lock:
        _slow.update(dict.fromkeys((member.owner.websocket, member.audience.group) for member in members))
        if _is_telling:
            return
        _is_telling = True
    members[0].connection.reactor.spawn(_tell_of_all_slow, "dwebsocket group_overflow")


def _tell_of_all_slow() -> None:
    global _is_telling
    try:
        while True:
            with _slow_lock:
                if not _slow:
                    _is_telling = False
                    return
                websocket, group = next(iter(_slow))
                del _slow[websocket, group]
            group_overflow.send_robust(type(websocket), websocket=websocket, group=group)
    except BaseException:  # of a receiver: SystemExit
        _is_telling = False
        raise
    finally:
        close_own_connections()


def _tell_interruption(alias: str, seconds: float) -> None:
    def send() -> None:
        groups_interrupted.send_robust(None, alias=alias, seconds=seconds)
        close_own_connections()

    if groups_interrupted.has_listeners():
        threading.Thread(target=send, name="dwebsocket groups_interrupted", daemon=True).start()


_changes: deque[tuple[str, str, list[Present], list[Present]]] = deque()  # of rosters, that the signal tells of next
_MAX_CHANGES = 50_000  # that wait: a receiver may be slower than guests that come and go, or hang
_is_telling_changes = _drops_changes = False


def _tell_presence(alias: str, group: str, joined: list[Present], left: list[Present]) -> None:
    """Send the signal for a change of a roster: one after the other, in their order."""
    global _is_telling_changes, _drops_changes
    if not group_presence_changed.has_listeners():
        return
    with _slow_lock:
        _changes.append((alias, group, joined, left))
        begins_to_drop = len(_changes) > _MAX_CHANGES and not _drops_changes
        if len(_changes) > _MAX_CHANGES:
            _changes.popleft()
            _drops_changes = True
        is_telling, _is_telling_changes = _is_telling_changes, True
    if begins_to_drop:
        logger.error("receivers of group_presence_changed are too slow: the oldest changes are not told")
    if is_telling:
        return
    thread = threading.Thread(target=_tell_of_all_changes, name="dwebsocket group_presence_changed", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no thread is left, perhaps: the next change tries again
        _is_telling_changes = False
        logger.exception("group_presence_changed is not sent")


def _tell_of_all_changes() -> None:
    global _is_telling_changes, _drops_changes
    try:
        while True:
            with _slow_lock:
                if not _changes:
                    _is_telling_changes = _drops_changes = False
                    return
                alias, group, joined, left = _changes.popleft()
            group_presence_changed.send_robust(
                None,
                group=group,
                alias=alias,
                joined=list(map(member_of, joined)),
                left=list(map(member_of, left)),
            )
    except BaseException:  # of a receiver: SystemExit
        _is_telling_changes = False
        raise
    finally:
        close_own_connections()


def _settings_changed(*, setting: str, **about: Any) -> None:
    if setting == f"{conf.PREFIX}GROUPS":
        close()


setting_changed.connect(_settings_changed)
os.register_at_fork(after_in_child=forget)
