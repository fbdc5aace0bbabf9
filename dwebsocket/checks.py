"""System checks: each misuse with what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from . import conf
from .middleware import WebSocketMiddleware, middleware_passed_over

_LOADED = {"CLASS": conf.websocket_class, "SERVER": conf.server_classes}


@register()
def check_settings(**kwargs: Any) -> Sequence[CheckMessage]:
    """An Error for each WEBSOCKET_* setting whose value cannot be."""
    messages: list[CheckMessage] = []
    for name in conf.SETTINGS:
        try:
            conf.get(name)
            if name in _LOADED:
                _LOADED[name]()
        except ImproperlyConfigured as error:
            messages.append(Error(str(error), id="dwebsocket.E001"))
    return messages


@register()
def check_unknown_settings(**kwargs: Any) -> Sequence[CheckMessage]:
    """A Warning for each WEBSOCKET_* setting that is none."""
    known = {conf.PREFIX + name for name in conf.SETTINGS}
    return [
        Warning(
            f"there is no setting {name}: it does nothing",
            hint=_HINTS.get(name) or _similar(name, known),
            id="dwebsocket.W002",
        )
        for name in dir(settings)
        if name.startswith(conf.PREFIX) and name not in known
    ]


def _similar(name: str, known: Iterable[str]) -> str:
    closest = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {closest[0]}?" if closest else "Remove it."


_HINTS = {"WEBSOCKET_FACTORY_CLASS": "Remove it: the server is recognised."}  # of dwebsocket 0.5


@register()
def check_middleware_order(**kwargs: Any) -> Sequence[CheckMessage]:
    """An Error where WEBSOCKET_ACCEPT_ALL would pass a middleware over."""
    if not _valid("ACCEPT_ALL"):
        return []
    return [
        Error(
            f"WEBSOCKET_ACCEPT_ALL would call views without asking {path}",
            hint='Move "dwebsocket.middleware.WebSocketMiddleware" behind it in MIDDLEWARE.',
            id="dwebsocket.E002",
        )
        for path in middleware_passed_over()
    ]


@register()
def check_accept_all_has_its_middleware(**kwargs: Any) -> Sequence[CheckMessage]:
    """A Warning where WEBSOCKET_ACCEPT_ALL does nothing."""
    if not _valid("ACCEPT_ALL") or any(_is_ours(path) for path in settings.MIDDLEWARE):
        return []
    return [
        Warning(
            "WEBSOCKET_ACCEPT_ALL does nothing without the middleware",
            hint='Add "dwebsocket.middleware.WebSocketMiddleware" to the end of MIDDLEWARE.',
            id="dwebsocket.W003",
        )
    ]


def _is_ours(path: str) -> bool:
    found = import_string(path)
    return isinstance(found, type) and issubclass(found, WebSocketMiddleware)


@register(Tags.security, deploy=False)
def check_origins(**kwargs: Any) -> Sequence[CheckMessage]:
    """A Warning where every site may open a WebSocket."""
    if "*" not in _valid("ALLOWED_ORIGINS"):
        return []
    return [
        Warning(
            'WEBSOCKET_ALLOWED_ORIGINS contains "*": any page may open a WebSocket with the cookies of your users',
            hint='List the origins instead, for example ["https://app.example.com"].',
            id="dwebsocket.W001",
        )
    ]


def _valid(name: str) -> Any:
    """The setting, or its default where `check_settings` has something to say about it."""
    try:
        return conf.get(name)
    except ImproperlyConfigured:
        return conf.SETTINGS[name].default
