"""Whether other processes serve the same site: what is sent within this one does not reach their WebSockets."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from typing import Any

from django.core import mail
from django.core.signals import request_started

logger = logging.getLogger("dwebsocket")

WHAT_TO_DO = (
    'Set WEBSOCKET_GROUPS = {"default": {"BACKEND": "dwebsocket.groups.redis.RedisGroups", "LOCATION": "redis://…"}}'
)

#: `wsgi.multiprocess` of the first request that this process has served; None: it has served none.
_has_siblings: bool | None = None
_has_warned = False


def _served(*, environ: Mapping[str, Any] | None = None, **about: Any) -> None:
    """Remember what the server says of itself: it does so in every request, and says the same each time."""
    global _has_siblings
    if environ is not None:
        _has_siblings = bool(environ.get("wsgi.multiprocess"))
        request_started.disconnect(_served)


request_started.connect(_served)


def known_workers() -> int:
    """The number of workers, as far as the environment, or uWSGI, tells; 1 where neither does."""
    asked_for = os.environ.get("WEB_CONCURRENCY", "")  # of gunicorn and others
    by_uwsgi = getattr(sys.modules.get("uwsgi"), "numproc", 1)  # uWSGI makes this module; it exists nowhere else
    return max(int(asked_for) if asked_for.isdecimal() else 1, by_uwsgi)


def warn(alias: str) -> None:
    """Warn once if what is sent, joined or asked within this process alone is not what the project means."""
    global _has_warned
    if _has_warned or hasattr(mail, "outbox"):  # Django's test environment
        return
    if _has_siblings or known_workers() > 1:
        problem = (
            "there are several workers: a message reaches only the WebSockets of the worker that sends it, and each"
            " knows only its own history and members"
        )
    elif _has_siblings is None:
        problem = (
            "this process has served no request: it is no web server, a message from it reaches no WebSocket, and it"
            " knows no history and no members of the others"
        )
    else:
        return
    _has_warned = True
    logger.warning("WEBSOCKET_GROUPS[%r] is LocalGroups, but %s. %s", alias, problem, WHAT_TO_DO)
