"""The settings: WEBSOCKET_* in the project's settings, and by the same names in lower case for a single view.

They are read when they are needed, so `override_settings` works and importing the package touches no settings.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, TypedDict, TypeVar

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from .connection.limits import Limits
from .protocol.codes import CloseCode, may_be_sent
from .protocol.deflate import Compression
from .protocol.handshake import is_token
from .servers import Server
from .websocket import WebSocket

PREFIX = "WEBSOCKET_"

T = TypeVar("T")

#: A function that judges a request: see `guards`.
AnyGuard = Callable[[Any], bool | None]


class Kind(NamedTuple):
    """The values that a setting may have: a test, and the words for it."""

    accepts: Callable[[Any], bool]
    words: str

    def or_none(self) -> Kind:
        """Return the kind that also allows None."""
        return Kind(lambda value: value is None or self.accepts(value), f"{self.words}, or None")


def _is_list_of(value: Any, accepts: Callable[[str], bool]) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(item, str) and accepts(item) for item in value)


def _is_positive(value: Any, *types: type) -> bool:
    return isinstance(value, types) and not isinstance(value, bool) and 0 < value < math.inf  # type: ignore[operator]


def _is_compression(value: Any) -> bool:
    if not isinstance(value, (bool, dict)):
        return False
    try:
        Compression(**(value if isinstance(value, dict) else {}))
    except (TypeError, ValueError):
        return False
    return True


def _guards(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


#: Their functions decorate a view, or make such a decorator; has_perm takes a permission. None judges a request.
_NO_GUARDS = (
    "django.contrib.admin.views.decorators", "django.contrib.auth.decorators", "django.views.decorators.",
    "dwebsocket.guards",
)  # fmt: skip


def _is_guard(value: Any) -> bool:
    """Whether `value` can judge: a class, an asynchronous function or a decorator never returns a verdict."""
    kinds = (value, getattr(value, "__call__", None))  # noqa: B004
    if not callable(value) or inspect.isclass(value) or any(map(inspect.iscoroutinefunction, kinds)):
        return False
    return not (inspect.isfunction(value) and str(value.__module__).startswith(_NO_GUARDS))


BOOLEAN = Kind(lambda value: isinstance(value, bool), "True or False")
COUNT = Kind(lambda value: _is_positive(value, int), "a whole number above 0")
SIZE = Kind(lambda value: value == 0 or COUNT.accepts(value), "a whole number, 0 or above")
COMPRESSION = Kind(
    _is_compression, f"True, False, or a dict of {', '.join(field.name for field in fields(Compression))}"
)
SECONDS = Kind(lambda value: _is_positive(value, int, float), "a number of seconds above 0")
CLOSE_CODE = Kind(
    lambda value: isinstance(value, int) and may_be_sent(value), "a close code that may be sent, like 1001 or 4000"
)
DOTTED_PATH = Kind(lambda value: isinstance(value, str) and "." in value, "a dotted path")
WEBSOCKET_CLASS = Kind(
    lambda value: DOTTED_PATH.accepts(value) or (isinstance(value, type) and issubclass(value, WebSocket)),
    f"a dotted path to a subclass of {WebSocket.__module__}.{WebSocket.__qualname__}, or the class itself",
)
# RFC 6454, 6.2, with "*." for every subdomain. The scheme is that of the page, and never ws or wss.
_ORIGIN = re.compile(
    r"(?!wss?:)[a-z][a-z\d+.-]*://(\*\.)?((?=[.-]*\w)[\w.-]+|\[[\da-f:.]+\])(:\d+)?", re.ASCII | re.IGNORECASE
)
ORIGINS = Kind(
    lambda value: _is_list_of(value, lambda origin: origin == "*" or _ORIGIN.fullmatch(origin) is not None),
    'a list of origins like "https://example.com", without a path',
)
GUARD = Kind(
    lambda value: all(_is_guard(guard) or DOTTED_PATH.accepts(guard) for guard in _guards(value)),
    "a guard (a function of the request that returns True or False, an instance of a Guard, or a dotted path to either;"
    ' no decorator: for login_required write user_is_active, for permission_required has_perm("app.codename")),'
    " or a list of them",
)
GROUPS = Kind(
    lambda value: isinstance(value, Mapping) and "default" in value,
    'a dict of aliases like {"default": {"BACKEND": "dwebsocket.groups.redis.RedisGroups", "LOCATION": "redis://…"}}',
)
TOKENS = Kind(lambda value: _is_list_of(value, is_token), "a list of subprotocol names")


class Setting(NamedTuple):
    """The default of a setting, its kind, and whether a view may override it."""

    default: Any
    kind: Kind
    per_view: bool = True


_LIMITS = {field.name.upper(): field.default for field in fields(Limits)}

#: Every setting without its prefix. The limits are described where they are used.
SETTINGS: Mapping[str, Setting] = {
    "ACCEPT_ALL": Setting(False, BOOLEAN, per_view=False),
    "CLASS": Setting("dwebsocket.websocket.WebSocket", WEBSOCKET_CLASS),
    "SERVER": Setting(None, DOTTED_PATH.or_none(), per_view=False),
    "MAX_CONNECTIONS": Setting(None, COUNT.or_none(), per_view=False),
    "THREADS": Setting(32, COUNT, per_view=False),
    "DRAIN_SECONDS": Setting(10, SECONDS, per_view=False),
    "GROUPS": Setting({"default": {}}, GROUPS, per_view=False),
    "CLOSE_ON_LOGOUT": Setting(None, BOOLEAN.or_none(), per_view=False),
    "SHUTDOWN_CODE": Setting(CloseCode.SERVICE_RESTART.value, CLOSE_CODE, per_view=False),
    "ALLOWED_ORIGINS": Setting([], ORIGINS),
    "REQUIRE_ORIGIN": Setting(False, BOOLEAN),
    "SUBPROTOCOLS": Setting([], TOKENS),
    "DETACH": Setting(True, BOOLEAN),
    "RELEASE_DB": Setting(True, BOOLEAN),
    "GUARD": Setting([], GUARD),
    "GUARD_INTERVAL": Setting(60, SECONDS),
    "COMPRESSION": Setting(False, COMPRESSION),
    "COMPRESSION_MIN_SIZE": Setting(64, SIZE),
    "MAX_MESSAGE_SIZE": Setting(_LIMITS["MAX_MESSAGE_SIZE"], COUNT.or_none()),
    "STREAMING": Setting(_LIMITS["STREAMING"], BOOLEAN),
    "RECEIVE_QUEUE": Setting(_LIMITS["RECEIVE_QUEUE"], COUNT),
    "SEND_TIMEOUT": Setting(_LIMITS["SEND_TIMEOUT"], SECONDS.or_none()),
    "PING_INTERVAL": Setting(_LIMITS["PING_INTERVAL"], SECONDS.or_none()),
    "PING_TIMEOUT": Setting(_LIMITS["PING_TIMEOUT"], SECONDS.or_none()),
    "CLOSE_TIMEOUT": Setting(_LIMITS["CLOSE_TIMEOUT"], SECONDS),
    "IDLE_TIMEOUT": Setting(_LIMITS["IDLE_TIMEOUT"], SECONDS.or_none()),
    "MAX_GROUPS": Setting(_LIMITS["MAX_GROUPS"], COUNT),
}

#: The options of a view's decorator, and the setting that each overrides.
VIEW_OPTIONS = {name.lower(): name for name, setting in SETTINGS.items() if setting.per_view}
VIEW_OPTIONS["origins"] = VIEW_OPTIONS.pop("allowed_origins")
VIEW_OPTIONS["websocket_class"] = VIEW_OPTIONS.pop("class")


class CompressionOptions(TypedDict, total=False):
    """The dict that `compression` may be instead of true or false."""

    server_no_context_takeover: bool
    client_no_context_takeover: bool
    server_max_window_bits: int
    client_max_window_bits: int
    level: int
    mem_level: int
    min_size: int


class ViewOptions(TypedDict, total=False):
    """The types of VIEW_OPTIONS."""

    websocket_class: type[WebSocket] | str
    origins: list[str] | tuple[str, ...]
    require_origin: bool
    subprotocols: list[str] | tuple[str, ...]
    detach: bool
    release_db: bool
    guard: AnyGuard | Sequence[AnyGuard | str]
    guard_interval: float
    compression: bool | CompressionOptions
    compression_min_size: int
    max_message_size: int | None
    streaming: bool
    receive_queue: int
    send_timeout: float | None
    ping_interval: float | None
    ping_timeout: float | None
    close_timeout: float
    idle_timeout: float | None
    max_groups: int


@dataclass(frozen=True, kw_only=True)
class Options:
    """All options of one connection."""

    websocket_class: type[WebSocket]
    allowed_origins: list[str]
    require_origin: bool
    subprotocols: list[str]
    detach: bool
    release_db: bool
    guard: tuple[AnyGuard, ...]
    guard_interval: float
    compression: Compression | None
    limits: Limits


# Django looks a setting up in three places, and slowly where it is not set; a connection needs twenty of them.
_values: dict[str, Any] = {}
_defaults: list[Options] = []  # one item, made at the first use: the options of views that are given none
# The options of the other views, by the id of the mapping that they are given: it is kept, so that no other has its id.
# A view that is made anew for each request is given a new one each time, so their number is limited.
_chosen: dict[int, tuple[Mapping[str, Any], Options]] = {}
_MOST_CHOSEN = 1024


def clear_cache(*, setting: str, **about: Any) -> None:
    """Drop the cached settings: `override_settings` has changed one."""
    if setting.startswith(PREFIX):
        _values.clear()
        _defaults.clear()
        _chosen.clear()


setting_changed.connect(clear_cache)


def get(name: str) -> Any:
    """Return the value of WEBSOCKET_`name`. ImproperlyConfigured, which says what is expected, when it is invalid."""
    if name in _values:
        return _values[name]
    setting = SETTINGS[name]
    value = getattr(settings, PREFIX + name, setting.default)
    if not setting.kind.accepts(value):
        raise ImproperlyConfigured(f"{PREFIX}{name} is {shown(value)}; it must be {setting.kind.words}")
    _values[name] = value
    return value


def shown(value: object) -> str:
    """The `repr()` of a value for an error that is logged, perhaps: without the passwords of URLs."""
    return _PASSWORD.sub("***@", repr(value))


# What stands between a scheme, or the beginning, and the last "@" of a URL.
_PASSWORD = re.compile(r"""(?<![^/'"])[^/\s'"]*@""")


def websocket_class() -> type[WebSocket]:
    """Return the class of `request.websocket`."""
    return load_class(f"{PREFIX}CLASS", get("CLASS"), WebSocket)


def server_classes() -> list[type[Server]]:
    """Return the project's server class, if it has one; it is asked before those of this package."""
    path = get("SERVER")
    return [] if path is None else [load_class(f"{PREFIX}SERVER", path, Server)]  # type: ignore[type-abstract]


def load_class(name: str, path: str | type[T], base: type[T]) -> type[T]:
    """Load the class at `path`, or return a class as it is; ImproperlyConfigured, with `name`, where there is none."""
    if not isinstance(path, str):
        return path
    try:
        found = import_string(path)
    except ImportError as error:
        raise ImproperlyConfigured(f"{name} is {path!r}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ImproperlyConfigured(f"{name} is {path!r}, which is no subclass of {base.__module__}.{base.__qualname__}")
    return found


def guards() -> tuple[AnyGuard, ...]:
    """Return the guards of WEBSOCKET_GUARD, for each view without the option `guard`."""
    return _resolved(get("GUARD"))


def _resolved(value: Any) -> tuple[AnyGuard, ...]:
    return tuple(map(_guard, _guards(value)))


def _guard(guard: Any) -> AnyGuard:
    if not isinstance(guard, str):
        return guard  # type: ignore[no-any-return]
    try:
        found = import_string(guard)
    except ImportError as error:
        raise ImproperlyConfigured(f"there is no guard {guard!r}: {error}") from error
    if not _is_guard(found):
        raise ImproperlyConfigured(f"{guard!r} is no guard; it must be {GUARD.words}")
    return found  # type: ignore[no-any-return]


_WEBSOCKET_CLASS = "the option websocket_class"


def check_view_options(given: Mapping[str, Any]) -> None:
    """Raise TypeError for an unknown option, ValueError for an invalid value. Reads no settings."""
    for option, value in given.items():
        if option not in VIEW_OPTIONS:
            raise TypeError(f"unknown option {option!r}; a view knows {', '.join(sorted(VIEW_OPTIONS))}")
        kind = SETTINGS[VIEW_OPTIONS[option]].kind
        if not kind.accepts(value):
            raise ValueError(f"the option {option} is {value!r}; it must be {kind.words}")
    if "websocket_class" in given:
        try:
            load_class(_WEBSOCKET_CLASS, given["websocket_class"], WebSocket)
        except ImproperlyConfigured as error:
            raise ValueError(str(error)) from error


def check_guards(given: Mapping[str, Any]) -> None:
    """Raise ImproperlyConfigured where a guard among the options of a view is a path to nothing, or to no guard."""
    _resolved(given.get("guard", ()))


def options(given: Mapping[str, Any]) -> Options:
    """Return the options of one connection: those `given` to its view, which do not change, else the settings."""
    if given:
        return _options_of_a_view(given)
    if not _defaults:
        _defaults.append(_choose(given))
    return _defaults[0]


def _options_of_a_view(given: Mapping[str, Any]) -> Options:
    found = _chosen.get(id(given))
    if found is None:
        if len(_chosen) >= _MOST_CHOSEN:
            _chosen.clear()
        found = _chosen[id(given)] = given, _choose(given)
    return found[1]


def _choose(given: Mapping[str, Any]) -> Options:
    chosen = {name.lower(): given[option] if option in given else get(name) for option, name in VIEW_OPTIONS.items()}
    compression, min_size = chosen.pop("compression"), chosen.pop("compression_min_size")
    if compression is not False:
        parameters = {} if compression is True else compression
        chosen["compression"] = Compression(**{"min_size": min_size, **parameters})
    else:
        chosen["compression"] = None
    chosen["guard"] = _resolved(chosen["guard"])
    name = _WEBSOCKET_CLASS if "websocket_class" in given else f"{PREFIX}CLASS"
    chosen["websocket_class"] = load_class(name, chosen.pop("class"), WebSocket)
    limits = Limits(**{field.name: chosen.pop(field.name) for field in fields(Limits)})
    return Options(limits=limits, **chosen)
