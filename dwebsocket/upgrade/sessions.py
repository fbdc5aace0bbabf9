"""The session of a view that outlives its request: saved when the connection is accepted, and then only on demand.

What the session middleware would save when the request unwinds is, with an attached view, hours old; with a detached
one the view may be changing it at that moment. So it is asked once, before the 101, and what it wants to save later is
not saved.
"""

from __future__ import annotations

import contextvars
import functools
import weakref
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.signals import setting_changed
from django.http import HttpRequest, HttpResponse
from django.utils.module_loading import import_string

#: The token of the session of the request that is unwinding in this context.
_unwinding: contextvars.ContextVar[object] = contextvars.ContextVar("dwebsocket_unwinding", default=None)


def save(request: HttpRequest) -> list[tuple[str, str]]:
    """Do now what the session middleware does at the end of a request; the headers with the cookies it wants to set.

    What it raises is raised: SessionInterrupted (400) where the session was deleted meanwhile.
    """
    session: Any = getattr(request, "session", None)
    if session is None or (middleware := _middleware()) is None:
        return []
    response = middleware.process_response(request, HttpResponse())
    session.modified = False
    if not isinstance(session.save, _Save):  # accept() may have failed before
        session.save = _Save(session)
    return [("Set-Cookie", morsel.OutputString()) for morsel in response.cookies.values()]


def unwind(request: HttpRequest) -> None:
    """From now on this context only gives the request back to the server: it saves no session."""
    save = getattr(getattr(request, "session", None), "save", None)
    _unwinding.set(save.token if isinstance(save, _Save) else None)


class _Save:
    """The `save` of a session that the unwinding request does not save."""

    __slots__ = ("_own", "_session", "token")

    def __init__(self, session: Any) -> None:
        self._session = weakref.ref(session)  # which holds this: a loop would wait for the garbage collector
        save = session.save  # vars(session) would make it a dict, for as long as the view runs
        is_inherited = getattr(save, "__func__", None) is getattr(type(session), "save", None)
        self._own: Callable[..., None] | None = None if is_inherited else save  # what a project has put there
        self.token = object()  # and not the session: what a server's thread was last in lives on

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        session = self._session()
        if session is None:
            raise ReferenceError("the session is gone: keep request.session, and not its save alone")
        if _unwinding.get() is not self.token:
            save = self._own or functools.partial(type(session).save, session)
            save(*args, **kwargs)


_cache: list[SessionMiddleware | None] = []


def _middleware() -> SessionMiddleware | None:
    """The project's session middleware."""
    if not _cache:
        kinds = (import_string(path) for path in settings.MIDDLEWARE)
        found = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, SessionMiddleware)), None)
        _cache.append(None if found is None else found(_no_response))
    return _cache[0]


def _no_response(request: HttpRequest) -> HttpResponse:
    raise NotImplementedError


def _forget(*, setting: str, **about: Any) -> None:
    if setting in ("MIDDLEWARE", "SESSION_ENGINE"):
        _cache.clear()


setting_changed.connect(_forget)
