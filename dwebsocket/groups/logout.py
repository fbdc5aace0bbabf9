"""A logout closes the WebSockets of its session."""

from __future__ import annotations

import logging
from typing import Any

from django.contrib.auth.signals import user_logged_out
from django.http import HttpRequest

from .. import conf
from ..exceptions import GroupsUnavailable
from ..process.naming import session_key
from . import config, process
from .control import disconnect_session

logger = logging.getLogger("dwebsocket")


def connect() -> None:
    """From now on a logout does so, where WEBSOCKET_CLOSE_ON_LOGOUT says it."""
    user_logged_out.connect(_logged_out, dispatch_uid="dwebsocket.groups.logout")


def _logged_out(*, request: HttpRequest | None = None, **about: Any) -> None:
    # The session is flushed after the signal, and a page that comes back before the commit would find it alive: so the
    # order leaves after the commit.
    key = session_key(request)
    if key is None or not _wanted():
        return
    try:
        disconnect_session(key, reason="logged out")
    except GroupsUnavailable:
        logger.exception("the WebSockets of a session that has logged out stay open: session_alive would close them")


def _wanted() -> bool:
    chosen = conf.get("CLOSE_ON_LOGOUT")
    if chosen is None:
        return process.dispatcher(config.DEFAULT_ALIAS).backend.reaches_all_processes
    return bool(chosen)
