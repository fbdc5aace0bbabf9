"""The request with its present session and user."""

from __future__ import annotations

import copy
from typing import Any

from django.contrib import auth
from django.db.models import Model
from django.http import HttpRequest
from django.utils.functional import LazyObject, SimpleLazyObject


def as_of_now(request: HttpRequest) -> HttpRequest:
    """Copy the request; its session and user, where it has them, are loaded anew when they are needed."""
    now = copy.copy(request)
    session: Any = getattr(request, "session", None)
    if session is not None:
        now.session = type(session)(session.session_key)
    user: Any = vars(request).get("user")
    if session is not None and _is_of_the_session(user):
        now.user = SimpleLazyObject(lambda: auth.get_user(now))  # type: ignore[assignment]
    elif isinstance(user, (LazyObject, Model)):  # a middleware, or the view, has put it there
        now.user = SimpleLazyObject(lambda: _user_now(user))  # type: ignore[assignment]
    return now


def _is_of_the_session(user: object) -> bool:
    """Whether Django's middleware has put the user on the request, loaded or not."""
    setup = vars(user).get("_setupfunc") if isinstance(user, LazyObject) else None
    return getattr(setup, "__module__", None) == "django.contrib.auth.middleware"


def _user_now(user: Any) -> Any:
    from django.contrib.auth.models import AnonymousUser  # not above: the apps must have been loaded

    if not isinstance(user, Model) or user._state.adding:  # in no table, so there is nothing newer
        return user
    return user.__class__._default_manager.filter(pk=user.pk).first() or AnonymousUser()  # its type may be lazy
