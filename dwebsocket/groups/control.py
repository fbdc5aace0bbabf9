"""WebSockets are closed in every process: all of a user, or of a session that has been logged out."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable
from typing import Any

from django.http import HttpRequest
from django.utils.crypto import salted_hmac

from ..database.own import close_own_connections
from ..process.naming import session_key, user_key_of
from ..process.registry import Entry, registry
from ..protocol.codes import may_be_sent
from ..protocol.frames import Close
from . import config, names, process, sending
from .group import FORBIDDEN, user_key
from .messages import TEXT, Envelope

logger = logging.getLogger("dwebsocket")

#: Every process that has had a WebSocket receives it.
GROUP = f"{names.RESERVED}control"
UNAUTHORIZED = 4401


def listen() -> None:
    """Obey the orders that reach this process; called when a WebSocket has been opened here."""
    try:
        process.dispatcher(config.DEFAULT_ALIAS).listen(GROUP, _obey)
    except Exception:  # ImproperlyConfigured: a view that uses groups gets it as well, and others work
        _complain_once()


@functools.cache
def _complain_once() -> None:
    logger.exception("no WebSocket of this process can be closed by another one")


def disconnect_user(
    user: Any, code: int = FORBIDDEN, reason: str = "", *, using: str | None = None, now: bool = False
) -> None:
    """Close every WebSocket of a user, in every process, whatever groups it is in. `user` is one, or its primary key.

    A WebSocket is a user's if its opening handshake was. It is done after the commit, and fails, as `Group.send()`.
    ValueError for a user that is not logged in, a code that may not be sent, or a reason of more than 123 bytes.
    TypeError for a reason that is no str.
    """
    Close.checked(code, reason)
    _order({"user": user_key(user), "code": code, "reason": str(reason)}, using=using, now=now)


def disconnect_session(key: str, code: int = UNAUTHORIZED, reason: str = "") -> None:
    """Close every WebSocket that was opened with the session of that `key`, in every process, after the commit."""
    _order({"session": _digest(key), "code": code, "reason": reason})


def _order(order: dict[str, Any], *, using: str | None = None, now: bool = False) -> None:
    sending.send(config.DEFAULT_ALIAS, GROUP, Envelope(TEXT, json.dumps(order).encode()), using=using, now=now)


def _obey(envelope: Envelope) -> None:
    """Close what the order says; in a new greenlet or thread, for it may have to ask the database."""
    entries = registry.members()
    order = json.loads(envelope.payload)
    if not _is_order(order):  # of a newer version, or of another program
        raise ValueError(f"no order to close WebSockets: {envelope.payload[:200]!r}")
    if entries:
        # A thread that sends is none of the hub's, and a greenlet that it spawned would wait there for ever.
        reactor = entries[0].reactor
        reactor.post(lambda: reactor.spawn(functools.partial(_close, entries, order), "dwebsocket disconnect"))


def _is_order(order: Any) -> bool:
    if not (isinstance(order, dict) and ("user" in order or "session" in order)):
        return False
    code, texts = order.get("code"), (order.get("user", ""), order.get("session", ""), order.get("reason"))
    return isinstance(code, int) and may_be_sent(code) and all(isinstance(text, str) for text in texts)


def _close(entries: list[Entry], order: dict[str, Any]) -> None:
    matches: Callable[[HttpRequest], bool]
    if "user" in order:
        matches = lambda request: user_key_of(request) == order["user"]  # noqa: E731
    else:
        matches = lambda request: _session_digest(request) == order["session"]  # noqa: E731
    try:
        for entry in entries:
            try:
                if matches(entry.request):
                    entry.close(order["code"], order["reason"])
            except Exception:  # of the database, or of a project's own class of users: the others must be closed
                logger.exception("whose WebSocket at %r is could not be found out", entry.request.path)
    finally:
        close_own_connections()


def _session_digest(request: HttpRequest) -> str | None:
    key = session_key(request)
    return None if key is None else _digest(key)


def _digest(key: str) -> str:
    """A name for the session that lets no reader of the broker use it."""
    return salted_hmac("dwebsocket.groups.control", key, algorithm="sha256").hexdigest()
