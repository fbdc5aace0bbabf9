"""Names of views and users for logs, in one line each."""

from __future__ import annotations

import sys
from typing import Any

from django.contrib.auth import SESSION_KEY
from django.http import HttpRequest
from django.utils.functional import LazyObject, empty


def visible(text: str) -> str:
    """The text in one line: what a peer says does not forge lines of a log."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def user_name(request: HttpRequest) -> str:
    """The name of the request's user; "" without one, and where nothing has asked for the user: that would be a query.

    A guard that has looked the user up says the name by `know_user()`.
    """
    user = user_of(request)
    if user is NOT_LOADED:
        return str(vars(_django_request(request)).get(_KNOWN, ""))
    return _name(user) if getattr(user, "is_authenticated", False) else ""


#: The user of a request whose session has one, perhaps, that no code has asked for.
NOT_LOADED = object()


def user_of(request: HttpRequest) -> Any:
    """The request's user; None without one, and NOT_LOADED where it would take a query."""
    user: Any = vars(_django_request(request)).get("user")
    is_loaded = not isinstance(user, LazyObject) or vars(user).get("_wrapped", empty) is not empty
    return user if is_loaded else NOT_LOADED


def user_key_of(request: HttpRequest) -> str | None:
    """The primary key of the request's user, as text; None for a user that is not logged in."""
    user = user_of(request)
    if user is NOT_LOADED:
        session: Any = getattr(request, "session", None)  # no code has asked for the user: its key is enough
        return None if session is None else session.get(SESSION_KEY)
    pk = getattr(user, "pk", None)
    return None if pk is None else str(pk)


def _django_request(request: HttpRequest) -> HttpRequest:
    return getattr(request, "_request", request)  # REST framework's has it, and keeps its user there


def session_key(request: HttpRequest | None) -> str | None:
    """The key of the request's session; None without one."""
    return getattr(getattr(request, "session", None), "session_key", None)


def know_user(request: HttpRequest, user: Any) -> None:
    """Keep the name of the user to whom the session of the request belongs; None: to no user."""
    setattr(request, _KNOWN, "" if user is None else _name(user))


_KNOWN = "_dwebsocket_user_name"


def _name(user: Any) -> str:
    try:
        return str(user.get_username() if hasattr(user, "get_username") else user)
    except Exception:  # of a project's own class: a name is not worth the rest of the line
        return ""


def view_name(request: HttpRequest) -> str:
    """The dotted name of the request's view; never its path, which the peer writes, and which may hold a secret."""
    match = request.resolver_match
    return "of no URL" if match is None else sys.intern(visible(dotted_name(match.func)))  # one for all that wait


def dotted_name(view: Any) -> str:
    """The name of a view: of the class, where `as_view()` has made it."""
    view = getattr(view, "view_class", None) or getattr(view, "cls", None) or view
    return f"{view.__module__}.{getattr(view, '__qualname__', type(view).__qualname__)}"
