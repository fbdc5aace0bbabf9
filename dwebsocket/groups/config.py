"""WEBSOCKET_GROUPS: the aliases, and what each may say. Its shape is that of Django's CACHES."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from django.core.exceptions import ImproperlyConfigured

from .. import conf
from ..connection.outbox import OVERFLOWS
from .backend import GroupsBackend

DEFAULT_ALIAS = "default"
LOCAL = "dwebsocket.groups.local.LocalGroups"


class Key(NamedTuple):
    """A key of one alias: its default, and what it must be."""

    default: Any
    kind: conf.Kind


_LOCATION = conf.Kind(
    lambda value: (
        isinstance(value, str) or (isinstance(value, (list, tuple)) and all(isinstance(u, str) for u in value))
    ),
    "a URL, or a list of them",
)
_PREFIX = conf.Kind(lambda value: isinstance(value, str) and value.isprintable() and " " not in value, "a short word")
_OVERFLOW = conf.Kind(lambda value: value in OVERFLOWS, f"one of {', '.join(map(repr, OVERFLOWS))}")
_ON_GAP = conf.Kind(lambda value: value in ("close", "ignore"), "'close' or 'ignore'")
_SECONDS_OR_NONE = conf.Kind(
    lambda value: (value == 0 and value is not False) or conf.SECONDS.accepts(value), "a number of seconds, 0 or above"
)
_OPTIONS = conf.Kind(lambda value: isinstance(value, Mapping), "a dict")

#: Every key but BACKEND; seconds and bytes are in the name where it does not say them.
KEYS: Mapping[str, Key] = {
    "LOCATION": Key("", _LOCATION),
    "KEY_PREFIX": Key("dws", _PREFIX),
    "TIMEOUT": Key(2, conf.SECONDS),  # to publish
    "JOIN_TIMEOUT": Key(5, conf.SECONDS),
    "PROBE": Key(10, conf.SECONDS),  # of silence, until the way of a message is tried
    "CHECK": Key(30, conf.SECONDS),  # between two looks whether the last message of a quiet history was missed
    "LEASE": Key(15, conf.SECONDS),  # after which a process that has died is present no more
    "GRACE": Key(5, _SECONDS_OR_NONE),  # in which a page that is loaded again has not been away
    "META_TTL": Key(30 * 24 * 3600, conf.SECONDS),  # that a quiet history is remembered
    "DURABLE": Key(False, conf.BOOLEAN),  # the broker never loses what it has confirmed
    "ON_GAP": Key("close", _ON_GAP),
    "MAX_MESSAGE_SIZE": Key(1024 * 1024, conf.COUNT),
    "OUTBOX_BYTES": Key(1024 * 1024, conf.COUNT),
    "OUTBOX_SECONDS": Key(10, conf.SECONDS),
    "OVERFLOW": Key("close", _OVERFLOW),
    "OPTIONS": Key({}, _OPTIONS),
}
DEFAULTS: Mapping[str, Any] = {name: key.default for name, key in KEYS.items()}


def settings_of(alias: str) -> dict[str, Any]:
    """The settings of `alias`, complete with defaults and BACKEND. ImproperlyConfigured where something is wrong."""
    aliases = conf.get("GROUPS")
    if alias not in aliases:
        raise ImproperlyConfigured(
            f"WEBSOCKET_GROUPS has no alias {alias!r}; it has {', '.join(sorted(map(repr, aliases)))}"
        )
    where = f"WEBSOCKET_GROUPS[{alias!r}]"
    given = aliases[alias]
    if not isinstance(given, Mapping):
        raise ImproperlyConfigured(
            f"{where} is {conf.shown(given)}; it must be a dict with BACKEND, and perhaps LOCATION"
        )
    for name, value in given.items():
        if name == "BACKEND":
            continue
        if name not in KEYS:
            raise ImproperlyConfigured(f"{where} has an unknown key {name!r}; it knows BACKEND, {', '.join(KEYS)}")
        if not KEYS[name].kind.accepts(value):
            raise ImproperlyConfigured(f"{where}[{name!r}] is {conf.shown(value)}; it must be {KEYS[name].kind.words}")
    return {**DEFAULTS, "BACKEND": LOCAL, **given}


def backend(alias: str) -> GroupsBackend:
    """A new backend for `alias`. ImproperlyConfigured where it cannot be made."""
    settings = settings_of(alias)
    path = settings["BACKEND"]
    where = f"WEBSOCKET_GROUPS[{alias!r}]['BACKEND']"
    if not isinstance(path, str):
        raise ImproperlyConfigured(f"{where} is {path!r}; it must be a dotted path like {LOCAL!r}")
    return conf.load_class(where, path, GroupsBackend)(alias, settings)


def backends() -> Iterator[GroupsBackend | ImproperlyConfigured]:
    """A new backend for each alias, or the reason why there can be none."""
    for alias in conf.get("GROUPS"):
        try:
            yield backend(alias)
        except ImproperlyConfigured as error:
            yield error
