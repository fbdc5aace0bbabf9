"""System checks: each finds a misuse and says what to do about it.

`manage.py check`, runserver and migrate run them; a server in production runs none. So they know of a server only what
their process has loaded, and warn only of what is wrong under every server.
"""

from __future__ import annotations

import difflib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.middleware.security import SecurityMiddleware
from django.urls import get_resolver
from django.utils.module_loading import import_string

from . import conf
from .decorators import OPTIONS
from .groups import config, siblings
from .groups.backend import GroupsBackend
from .groups.group import Groups, declared
from .middleware import WebSocketMiddleware, middleware_passed_over
from .process.naming import dotted_name

_LOADED = {"CLASS": conf.websocket_class, "SERVER": conf.server_classes, "GUARD": conf.guards}


@register()
def check_settings(**kwargs: Any) -> Sequence[CheckMessage]:
    """Return an Error for each WEBSOCKET_* setting with an invalid value."""
    messages: list[CheckMessage] = []
    for name in conf.SETTINGS:
        try:
            conf.get(name)
            if name in _LOADED:
                _LOADED[name]()
        except ImproperlyConfigured as error:
            messages.append(Error(str(error), hint=_what_to_write(name), id="dwebsocket.E001"))
    return messages


def _what_to_write(name: str) -> str:
    setting = conf.SETTINGS[name]
    if setting.kind is conf.ORIGINS:
        return f"Write {conf.PREFIX}{name} = {_origins_in(getattr(settings, conf.PREFIX + name))}."
    return f"Write {setting.kind.words}; or remove {conf.PREFIX}{name}: then it is {setting.default!r}."


def _origins_in(value: Any) -> list[str]:
    """Return the origins that the author of `value` may have meant; the example where it holds none."""
    items = value if isinstance(value, Iterable) and not isinstance(value, str) else [value]
    meant = [_origin_in(item) for item in items if isinstance(item, str)]
    return [origin for origin in meant if conf.ORIGINS.accepts([origin])] or ["https://example.com"]


def _origin_in(item: str) -> str:
    if item == "*":
        return item
    scheme, _, address = item.partition("://") if "://" in item else ("https", "", item)
    host = address.partition("/")[0].partition("?")[0].partition("#")[0].rpartition("@")[2]
    return f"{_OF_THE_PAGE.get(scheme.lower(), scheme)}://{host}"


_OF_THE_PAGE = {"ws": "http", "wss": "https"}


@register()
def check_unknown_settings(**kwargs: Any) -> Sequence[CheckMessage]:
    """Return a Warning for each WEBSOCKET_* setting that does not exist."""
    known = {conf.PREFIX + name for name in conf.SETTINGS}
    return [
        Warning(
            f"there is no setting {name}: it does nothing",
            hint=_HINTS.get(name) or _similar(name, known),
            id="dwebsocket.W002",
        )
        for name in dir(settings)
        if (name.startswith(conf.PREFIX) or _has_wrong_prefix(name)) and name not in known
    ]


def _has_wrong_prefix(name: str) -> bool:
    """Whether the rest is a setting of this package: other packages have settings that begin like this, too."""
    return any(name.startswith(prefix) and name.removeprefix(prefix) in conf.SETTINGS for prefix in _WRONG_PREFIXES)


_WRONG_PREFIXES = ("WEBSOCKETS_", "WEB_SOCKET_", "DWEBSOCKET_")


def _similar(name: str, known: Iterable[str]) -> str:
    closest = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {closest[0]}?" if closest else "Remove it."


_HINTS = {"WEBSOCKET_FACTORY_CLASS": "Remove it: the server is recognised."}  # of dwebsocket 0.5


@register()
def check_middleware_order(**kwargs: Any) -> Sequence[CheckMessage]:
    """Return an Error where WEBSOCKET_ACCEPT_ALL would pass a middleware over."""
    if not _setting_or_default("ACCEPT_ALL"):
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
    """Return a Warning where WEBSOCKET_ACCEPT_ALL does nothing."""
    if not _setting_or_default("ACCEPT_ALL") or _is_installed(WebSocketMiddleware):
        return []
    return [
        Warning(
            "WEBSOCKET_ACCEPT_ALL does nothing without the middleware",
            hint='Add "dwebsocket.middleware.WebSocketMiddleware" to the end of MIDDLEWARE.',
            id="dwebsocket.W003",
        )
    ]


@register()
def check_middleware_is_there_once(**kwargs: Any) -> Sequence[CheckMessage]:
    """Return a Warning where the middleware, or a subclass, stands in the list again."""
    own = [path for path, found in _middleware() if isinstance(found, type) and issubclass(found, WebSocketMiddleware)]
    return [
        Warning(
            f"{path} does nothing: {own[0]} stands before it in MIDDLEWARE, and is enough",
            hint="Keep the last of them." if _setting_or_default("ACCEPT_ALL") else "Remove one of them.",
            id="dwebsocket.W011",
        )
        for path in own[1:]
    ]


@register()
def check_middleware_classes(**kwargs: Any) -> Sequence[CheckMessage]:
    """Return a Warning where the middleware stands in the setting that Django 2.0 has removed."""
    # A tuple of one that lacks its comma is a string. Other middleware that is left over there is no concern of ours.
    if "dwebsocket.middleware." not in str(getattr(settings, "MIDDLEWARE_CLASSES", "")):
        return []
    return [
        Warning(
            "MIDDLEWARE_CLASSES does nothing: Django has not read it since version 2.0",
            hint='Remove it, and add "dwebsocket.middleware.WebSocketMiddleware" to MIDDLEWARE if it is not there.',
            id="dwebsocket.W008",
        )
    ]


@register(Tags.security, deploy=False)
def check_origins(**kwargs: Any) -> Sequence[CheckMessage]:
    """Return a Warning where every site may open a WebSocket."""
    if "*" not in _setting_or_default("ALLOWED_ORIGINS"):
        return []
    return [
        Warning(
            'WEBSOCKET_ALLOWED_ORIGINS contains "*": any page may open a WebSocket with the cookies of your users',
            hint='List the origins instead, for example ["https://app.example.com"].',
            id="dwebsocket.W001",
        )
    ]


@register()
def check_gevent_has_patched(**kwargs: Any) -> Sequence[CheckMessage]:
    """Return a Warning where gevent's WSGI server (also gunicorn's gevent worker) is loaded, and Python not patched."""
    if "gevent.pywsgi" not in sys.modules:
        return []
    return [
        Warning(
            f"gevent.pywsgi is loaded, but gevent has not patched {name}: under this server {outcome}",
            hint=_PATCH,
            id="dwebsocket.W004",
        )
        for name, outcome in _UNPATCHED.items()
        if not _has_patched(name)
    ]


_UNPATCHED = {
    "socket": "a view that waits for the network stops all others",
    "threading": "all views share one database connection",
}
_PATCH = (
    'Make "from gevent import monkey; monkey.patch_all()" the first line of the program that starts the server'
    " (manage.py, or with gunicorn gunicorn.conf.py)."
)


@register()
def check_gevent_has_patched_first(**kwargs: Any) -> Sequence[CheckMessage]:
    """Return a Warning where Django was imported before gevent has patched threads."""
    # Patching replaces the class; an object made of it before keeps the old one.
    of_threads = getattr(getattr(connections, "_connections", None), "_storage", None)
    if of_threads is None or isinstance(of_threads, threading.local) or not _has_patched("threading"):
        return []
    return [
        Warning(
            "Django was imported before gevent has patched threading: all greenlets get the same database connection,"
            " and Django lets only the one that made it use it",
            hint=_PATCH,
            id="dwebsocket.W005",
        )
    ]


@register()
def check_gevent_has_patched_before_drivers(**kwargs: Any) -> Sequence[CheckMessage]:
    """Return a Warning for each driver that was imported before gevent has patched what it waits with."""
    return [
        Warning(
            f"{driver} was imported before gevent has patched {early.patched}: {early.outcome}",
            hint=_PATCH,
            id="dwebsocket.W014",
        )
        for driver, early in _DRIVERS.items()
        if _has_patched(early.patched) and early.module in sys.modules and early.is_early(sys.modules[early.module])
    ]


class _Early(NamedTuple):
    """The sign of a driver that was imported too early, and what follows from it."""

    module: str
    patched: str
    is_early: Callable[[Any], bool]
    outcome: str


_DRIVERS: Mapping[str, _Early] = {
    "psycopg": _Early(
        "psycopg.waiting",
        "select",
        lambda waiting: getattr(waiting, "wait", None) is getattr(waiting, "wait_c", waiting),  # chosen at the import
        "it waits for the database in C, and every query stops all greenlets",
    ),
    "redis": _Early(
        "redis.retry",
        "time",
        lambda retry: getattr(retry, "sleep", time.sleep) is not time.sleep,
        "while it waits for its next attempt, all greenlets stop",
    ),
}


def _has_patched(name: str) -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched(name))


class _Kept(NamedTuple):
    """The state that a middleware keeps.

    `unless`: the setting, if there is one, that moves it into the context, which a view inherits. `third_way`: the line
    with which a detached view gets it all the same.
    """

    what: str
    unless: str = ""
    third_way: str = ""


_TENANT = _Kept(
    "the tenant on the database connection of the request", third_way="with tenant_context(request.tenant):"
)

#: Middleware whose state ends with the request, by the beginning of its name. Left out: those that keep it in the
#: context (django-simple-history, django-easy-audit, django-structlog), and django-reversion's, for a GET opens no
#: revision.
_STATEFUL_MIDDLEWARE: Mapping[str, _Kept] = {
    "django_tenants.middleware.": _TENANT,
    "tenant_schemas.middleware.": _TENANT,
    "db_multitenant.middleware.": _Kept("the tenant in a thread-local"),
    "django_multitenant.middlewares.": _Kept("the tenant in a thread-local", unless="TENANT_USE_ASGIREF"),
    "django_currentuser.middleware.": _Kept("the user in a thread-local"),
    "crum.CurrentRequestUserMiddleware": _Kept("the request and its user in a thread-local"),
    "threadlocals.middleware.": _Kept("the request in a thread-local"),
    "django_middleware_global_request.middleware.": _Kept("the request in a thread-local"),
    "pghistory.middleware.": _Kept("the context of the history in a thread-local"),
    "multidb.middleware.": _Kept("whether queries go to the primary database in a thread-local"),
    "django_replicated.middleware.": _Kept("which database queries go to in a thread-local"),
    "auditlog.middleware.": _Kept("the actor of the log entries until the request has ended"),
}


@register()
def check_middleware_that_keeps_state(**kwargs: Any) -> Sequence[CheckMessage]:
    """Return a Warning for each middleware that is known to keep state which a detached view does not see."""
    if not _setting_or_default("DETACH"):
        return []
    return [
        Warning(
            f"{path} keeps {kept.what}: a WebSocket view, detached, has its own thread and outlives the request",
            hint="Write WEBSOCKET_DETACH = False; or decorate the views that need it with"
            " @accept_websocket(detach=False)"
            + (f', or write "{kept.third_way}" around their queries' if kept.third_way else "")
            + ', and write SILENCED_SYSTEM_CHECKS = ["dwebsocket.W006"].',
            id="dwebsocket.W006",
        )
        for path, found in _middleware()
        for beginning, kept in _STATEFUL_MIDDLEWARE.items()
        if any(name.startswith(beginning) for name in _names(found))
        and not (kept.unless and getattr(settings, kept.unless, False))
    ]


def _names(found: Any) -> Iterator[str]:
    """Give the name of a middleware, and of each class that it inherits from."""
    for kind in found.__mro__ if isinstance(found, type) else [found]:
        yield f"{getattr(kind, '__module__', '')}.{getattr(kind, '__qualname__', '')}"


@register()
def check_async_only_middleware(**kwargs: Any) -> Sequence[CheckMessage]:
    """Return a Warning for each async-only middleware, where views are attached or gevent has patched threads."""
    if _setting_or_default("DETACH") and not _has_patched("threading"):
        return []
    return [
        Warning(
            f"{path} is asynchronous only: an attached WebSocket holds an event loop and its threads until it ends,"
            " and under gevent every other request fails as long as one such loop runs",
            hint="Decorate it with django.utils.decorators.sync_and_async_middleware (a class: write sync_capable ="
            " True) and give it a synchronous side; or remove it from MIDDLEWARE.",
            id="dwebsocket.W007",
        )
        for path, found in _middleware()
        if getattr(found, "async_capable", False) and not getattr(found, "sync_capable", True)
    ]


@register(Tags.security, deploy=True)  # it is about the proxy, which a developer's machine does not have
def check_ssl_redirect(**kwargs: Any) -> Sequence[CheckMessage]:
    """Return a Warning where every opening handshake may be redirected, which no browser follows."""
    redirects = settings.SECURE_SSL_REDIRECT and _is_installed(SecurityMiddleware)
    if not redirects or settings.SECURE_PROXY_SSL_HEADER or settings.SECURE_REDIRECT_EXEMPT:
        return []
    return [
        Warning(
            "SECURE_SSL_REDIRECT is True and SECURE_PROXY_SSL_HEADER is not set: behind a proxy that ends TLS every"
            " WebSocket may be redirected, and browsers do not follow",
            hint='Let the proxy set X-Forwarded-Proto, and write SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO",'
            ' "https") (Traefik says wss for a WebSocket: let it say https); where the server itself ends TLS, write'
            ' SILENCED_SYSTEM_CHECKS = ["dwebsocket.W009"].',
            id="dwebsocket.W009",
        )
    ]


_PROXIES_WAIT_SECONDS = 60  # nginx's proxy_read_timeout, and the idle timeout of most load balancers


@register(deploy=True)  # it is about the proxy, too
def check_ping_interval(**kwargs: Any) -> Sequence[CheckMessage]:
    """Return a Warning where pings are too seldom to keep a proxy from giving up."""
    interval = _setting_or_default("PING_INTERVAL")
    if interval is not None and interval < _PROXIES_WAIT_SECONDS:
        return []
    return [
        Warning(
            f"WEBSOCKET_PING_INTERVAL is {interval}: most proxies end a connection that was silent for 60 seconds",
            hint="Write a number below 60; or, where every proxy waits longer, write SILENCED_SYSTEM_CHECKS ="
            ' ["dwebsocket.W012"].',
            id="dwebsocket.W012",
        )
    ]


@register(Tags.urls)
def check_guards_of_views(**kwargs: Any) -> Sequence[CheckMessage]:
    """Return an Error for each view in the URLconf with a guard at a wrong path, which no earlier check can import."""
    messages: dict[tuple[str, str], CheckMessage] = {}
    for view in _views(get_resolver().url_patterns) if getattr(settings, "ROOT_URLCONF", None) else ():
        try:
            conf.check_guards(getattr(view, OPTIONS, {}))
        except ImproperlyConfigured as error:
            name = dotted_name(view)
            messages[name, str(error)] = Error(
                f"the view {name}: {error}", hint="Correct the path in its option guard.", id="dwebsocket.E003"
            )
    return list(messages.values())


def _views(patterns: Iterable[Any]) -> Iterator[Any]:
    for pattern in patterns:
        if hasattr(pattern, "url_patterns"):
            yield from _views(pattern.url_patterns)
        else:
            yield pattern.callback


@register()
def check_asgi(**kwargs: Any) -> Sequence[CheckMessage]:
    """Return a Warning where the project looks like one that an ASGI server serves."""
    installed = " and ".join(app for app in ("daphne", "channels") if apps.is_installed(app))
    if not getattr(settings, "ASGI_APPLICATION", None) or not installed:
        return []
    return [
        Warning(
            f"ASGI_APPLICATION is set and {installed} installed: dwebsocket works on WSGI servers only",
            hint=f"Remove ASGI_APPLICATION, and {installed} from INSTALLED_APPS, and serve with gunicorn (workers sync,"
            " gthread or gevent), gevent's pywsgi or uWSGI; or, if ASGI is what you want, use Channels instead."
            ' Where servers of both kinds run, write SILENCED_SYSTEM_CHECKS = ["dwebsocket.W010"].',
            id="dwebsocket.W010",
        )
    ]


@register()
def check_groups(**kwargs: Any) -> Sequence[CheckMessage]:
    """Return an Error for each alias of WEBSOCKET_GROUPS that cannot be used, and for each that is not there."""
    aliases = _setting_or_default("GROUPS")
    wrong = [str(found) for found in _backends() if isinstance(found, ImproperlyConfigured)]
    missing = [
        f"{groups!r} names an alias that WEBSOCKET_GROUPS does not have"
        for groups in declared()
        if groups.alias not in aliases
    ]
    hint = f"{siblings.WHAT_TO_DO}, or remove it: then messages stay within one process."
    return [Error(message, hint=hint, id="dwebsocket.E004") for message in (*wrong, *missing)]


@register(Tags.urls)
def check_groups_reach_all_workers(**kwargs: Any) -> Sequence[CheckMessage]:
    """Return a Warning for each alias whose groups reach one process, where several serve the site."""
    workers = siblings.known_workers()
    if workers < 2:
        return []
    names = {groups.alias: groups.name for groups in _declared()}
    return [
        Warning(
            f"there are {workers} workers, and what is sent to Groups({names[backend.alias]!r}) reaches the WebSockets"
            f" of one of them: WEBSOCKET_GROUPS[{backend.alias!r}] is {type(backend).__name__}",
            hint=f"{siblings.WHAT_TO_DO}.",
            id="dwebsocket.W013",
        )
        for backend in _usable_backends()
        if not backend.reaches_all_processes and backend.alias in names
    ]


@register(Tags.urls)
def check_histories_are_remembered(**kwargs: Any) -> Sequence[CheckMessage]:
    """Return a Warning for each alias that drops the positions of a history before its messages."""
    longest: dict[str, Groups] = {}
    for each in sorted(_declared(), key=lambda each: each.policy.ttl):
        longest[each.alias] = each
    return [
        Warning(
            f"WEBSOCKET_GROUPS[{backend.alias!r}]['META_TTL'] is {backend.settings['META_TTL']:g} seconds, and"
            f" Groups({groups.name!r}) keep their messages for {groups.policy.ttl:g}: a quiet group loses them earlier,"
            " and pages that come back cannot recover",
            hint="Remove META_TTL: then it is 30 days. Or write one that is much larger than each ttl.",
            id="dwebsocket.W018",
        )
        for backend in _usable_backends()
        if (groups := longest.get(backend.alias)) and backend.settings["META_TTL"] <= groups.policy.ttl
    ]


_LEASE_TIMEOUTS = 2  # it is renewed when two thirds of it are left: one answer that is late must not end it


@register()
def check_leases_outlast_answers(**kwargs: Any) -> Sequence[CheckMessage]:
    """Return a Warning for each alias whose members are told as gone where the server takes its time."""
    return [
        Warning(
            f"WEBSOCKET_GROUPS[{backend.alias!r}]['LEASE'] is {lease:g} seconds, less than {_LEASE_TIMEOUTS} times its"
            f" TIMEOUT ({timeout:g}): members that are here are told as gone whenever the server answers late",
            hint=f"Write a LEASE of {_LEASE_TIMEOUTS * timeout:g} or more, or a smaller TIMEOUT.",
            id="dwebsocket.W019",
        )
        for backend in _usable_backends()
        if backend.reaches_all_processes
        and (lease := backend.settings["LEASE"]) < _LEASE_TIMEOUTS * (timeout := backend.settings["TIMEOUT"])
    ]


def _declared() -> list[Groups]:
    """All Groups of the project: views import the modules in which they are declared."""
    if getattr(settings, "ROOT_URLCONF", None):
        list(_views(get_resolver().url_patterns))
    return declared()


_FINDINGS: Mapping[str, Callable[..., CheckMessage]] = {
    "unreachable": partial(Warning, id="dwebsocket.W015"),
    "buffer": partial(Warning, id="dwebsocket.W016"),
    "eviction": partial(Warning, id="dwebsocket.W017"),
    "durable": partial(Warning, id="dwebsocket.W020"),
}


@register(deploy=True)  # it asks the broker, over the network
def check_brokers_of_groups(**kwargs: Any) -> Sequence[CheckMessage]:
    """Return a Warning for each broker of WEBSOCKET_GROUPS that cannot be reached, or has a setting that hurts."""
    return [
        _FINDINGS[finding.kind](f"WEBSOCKET_GROUPS[{backend.alias!r}]: {finding.what}", hint=finding.advice)
        for backend in _usable_backends()
        for finding in backend.examine()
    ]


def _backends() -> list[GroupsBackend | ImproperlyConfigured]:
    try:
        return list(config.backends())
    except ImproperlyConfigured:  # the setting as a whole: `check_settings` reports it
        return []


def _usable_backends() -> list[GroupsBackend]:
    return [found for found in _backends() if isinstance(found, GroupsBackend)]


def _middleware() -> Iterator[tuple[str, Any]]:
    """Give the path and the object of each middleware; a missing one is left out, for Django does not start with it."""
    for path in settings.MIDDLEWARE:
        with suppress(ImportError):
            yield path, import_string(path)


def _is_installed(kind: type) -> bool:
    return any(isinstance(found, type) and issubclass(found, kind) for _path, found in _middleware())


def _setting_or_default(name: str) -> Any:
    """Return the setting, or its default where `check_settings` reports the value as invalid."""
    try:
        return conf.get(name)
    except ImproperlyConfigured:
        return conf.SETTINGS[name].default
