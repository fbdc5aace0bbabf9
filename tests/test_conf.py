"""The settings: defaults, what they may be, and what a view may have for itself."""

from __future__ import annotations

import dataclasses
import functools
import math
import subprocess
import sys
from typing import Any

import pytest
from django.contrib.admin.views.decorators import staff_member_required
from django.contrib.auth.decorators import login_required, permission_required, user_passes_test
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from django.views.decorators.cache import never_cache

from dwebsocket import conf, legacy, require_websocket
from dwebsocket.connection.connection import Limits
from dwebsocket.guards.base import Guard
from dwebsocket.guards.builtin import has_perm, session_alive
from dwebsocket.protocol.deflate import Compression
from dwebsocket.servers.gevent import PyWSGI
from dwebsocket.websocket import WebSocket

LIST = [["a"], ("a", "b"), []]
NO_LIST = ["a", None, 1, [1], [""], {"a"}]
SECONDS = [1, 0.5, 86400]
NO_SECONDS = [0, -1, "1", True, math.nan, math.inf, [1]]

VALUES: dict[str, tuple[list[Any], list[Any]]] = {
    "ACCEPT_ALL": ([True, False], [None, 1, "yes"]),
    "CLASS": (["dwebsocket.legacy.WebSocket", WebSocket, legacy.WebSocket], [None, "WebSocket", object, 5]),
    "SERVER": ([None, "dwebsocket.servers.gevent.PyWSGI"], [PyWSGI, "PyWSGI", 1]),
    "MAX_CONNECTIONS": ([1, 10_000, None], [0, -1, 1.5, True, "1"]),
    "THREADS": ([1, 1000], [0, -1, 1.5, True, "1", None]),
    "DRAIN_SECONDS": (SECONDS, [*NO_SECONDS, None]),
    "GROUPS": (
        [{"default": {}}, {"default": {"TIMEOUT": 1}, "other": {}}],
        [None, {}, {"other": {}}, ["default"], "x"],
    ),
    "CLOSE_ON_LOGOUT": ([True, False, None], [0, 1, "yes"]),
    "SHUTDOWN_CODE": ([1000, 1001, 1012, 3000, 4999], [1005, 1006, 999, 5000, "1001", None, True]),
    "ALLOWED_ORIGINS": (
        [["https://example.com"], ("https://*.example.com:8443", "*"), [], ["chrome-extension://abcdef"]],
        [
            "https://example.com",
            None,
            1,
            [1],
            [""],
            {"https://example.com"},
            ["example.com"],
            ["*.example.com"],
            ["https://example.com/"],
            ["wss://example.com"],
            ["https://*"],
        ],
    ),
    "REQUIRE_ORIGIN": ([True, False], [None, 1]),
    "SUBPROTOCOLS": ([*LIST, ["chat.v1"]], [*NO_LIST, ["two words"], ["a,b"]]),
    "DETACH": ([True, False], [None, 0]),
    "RELEASE_DB": ([True, False], [None, 0]),
    "GUARD": (
        ["dwebsocket.guards.session_alive", session_alive, [], [session_alive, has_perm("a.b")]],
        [None, 1, "x", [1]],
    ),
    "GUARD_INTERVAL": (SECONDS, [*NO_SECONDS, None]),
    "MAX_MESSAGE_SIZE": ([1, 1 << 40, None], [0, -1, 1.5, True, "1"]),
    "STREAMING": ([True, False], [None, 1]),
    "COMPRESSION": (
        [True, False, {}, {"level": 1, "server_max_window_bits": 9}],
        [None, 1, {"level": 10}, {"server_max_window_bits": 8}, {"mem_level": 0}, {"mem_level": 1.5}, {"windows": 9}],
    ),
    "COMPRESSION_MIN_SIZE": ([0, 1, 1000], [-1, 1.5, None, "1"]),
    "RECEIVE_QUEUE": ([1, 1000], [0, -1, 1.5, True, None]),
    "SEND_TIMEOUT": ([*SECONDS, None], NO_SECONDS),
    "PING_INTERVAL": ([*SECONDS, None], NO_SECONDS),
    "PING_TIMEOUT": ([*SECONDS, None], NO_SECONDS),
    "CLOSE_TIMEOUT": (SECONDS, [*NO_SECONDS, None]),
    "IDLE_TIMEOUT": ([*SECONDS, None], NO_SECONDS),
    "MAX_GROUPS": ([1, 10_000], [0, -1, 1.5, True, None]),
}

DEFAULTS = {
    "ACCEPT_ALL": False,
    "CLASS": "dwebsocket.websocket.WebSocket",
    "SERVER": None,
    "MAX_CONNECTIONS": None,
    "THREADS": 32,
    "DRAIN_SECONDS": 10,
    "GROUPS": {"default": {}},
    "CLOSE_ON_LOGOUT": None,
    "SHUTDOWN_CODE": 1012,
    "ALLOWED_ORIGINS": [],
    "REQUIRE_ORIGIN": False,
    "SUBPROTOCOLS": [],
    "DETACH": True,
    "RELEASE_DB": True,
    "GUARD": [],
    "GUARD_INTERVAL": 60,
    "MAX_MESSAGE_SIZE": 1024 * 1024,
    "STREAMING": False,
    "COMPRESSION": False,
    "COMPRESSION_MIN_SIZE": 64,
    "RECEIVE_QUEUE": 32,
    "SEND_TIMEOUT": 30,
    "PING_INTERVAL": 20,
    "PING_TIMEOUT": 20,
    "CLOSE_TIMEOUT": 10,
    "IDLE_TIMEOUT": None,
    "MAX_GROUPS": 128,
}


def cases(right: bool) -> list[Any]:
    return [
        pytest.param(name, value, id=f"{name}={value!r}")
        for name, values in VALUES.items()
        for value in values[0 if right else 1]
    ]


def test_every_setting_is_tested() -> None:
    assert set(conf.SETTINGS) == set(VALUES) == set(DEFAULTS)


@pytest.mark.parametrize("name", DEFAULTS)
def test_setting_has_its_default(name: str) -> None:
    assert conf.get(name) == DEFAULTS[name]


@pytest.mark.parametrize(("name", "value"), cases(right=True))
def test_setting_is_read_when_it_is_needed(name: str, value: Any) -> None:
    with override_settings(**{f"WEBSOCKET_{name}": value}):
        assert conf.get(name) == value


@pytest.mark.parametrize(("name", "value"), cases(right=False))
def test_setting_that_cannot_be_is_an_error_that_says_what_it_must_be(name: str, value: Any) -> None:
    with override_settings(**{f"WEBSOCKET_{name}": value}), pytest.raises(ImproperlyConfigured) as caught:
        conf.get(name)
    assert str(caught.value).startswith(f"WEBSOCKET_{name} is {value!r}; it must be ")


# For one view


@pytest.mark.parametrize(("name", "value"), cases(right=True))
def test_view_may_have_every_setting_of_a_connection_for_itself(name: str, value: Any) -> None:
    option = {"ALLOWED_ORIGINS": "origins", "CLASS": "websocket_class"}.get(name, name.lower())
    if not conf.SETTINGS[name].per_view:
        with pytest.raises(TypeError, match=f"unknown option '{option}'"):
            conf.check_view_options({option: value})
    else:
        conf.check_view_options({option: value})
        options = conf.options({option: value})
        if name.startswith("COMPRESSION") or name == "CLASS":  # two make one thing; a path becomes its class
            return
        if name == "GUARD":  # a name, one, or several: what comes of it is always a tuple of guards
            value = tuple(value) if isinstance(value, list) else (session_alive,)
        holder = options.limits if hasattr(Limits, name.lower()) else options
        assert getattr(holder, name.lower()) == value


@pytest.mark.parametrize(
    ("given", "compression"),
    [
        ({}, None),
        ({"compression": False, "compression_min_size": 5}, None),
        ({"compression": True}, Compression(min_size=64)),
        ({"compression": True, "compression_min_size": 0}, Compression()),
        ({"compression": {"level": 1}, "compression_min_size": 9}, Compression(level=1, min_size=9)),
        ({"compression": {"min_size": 3}}, Compression(min_size=3)),
    ],
    ids=str,
)
def test_compression_is_what_both_its_settings_say(given: dict[str, Any], compression: Compression | None) -> None:
    assert conf.options(given).compression == compression


@pytest.mark.parametrize(("name", "value"), cases(right=False))
def test_view_option_that_cannot_be_is_a_value_error(name: str, value: Any) -> None:
    option = {"ALLOWED_ORIGINS": "origins", "CLASS": "websocket_class"}.get(name, name.lower())
    if option in conf.VIEW_OPTIONS:
        with pytest.raises(ValueError) as caught:
            conf.check_view_options({option: value})
        assert str(caught.value).startswith(f"the option {option} is {value!r}; it must be ")


def test_options_are_what_the_view_was_given_else_the_settings() -> None:
    with override_settings(WEBSOCKET_PING_INTERVAL=7, WEBSOCKET_PING_TIMEOUT=8, WEBSOCKET_SUBPROTOCOLS=["a"]):
        options = conf.options({"ping_interval": None, "subprotocols": ["b"]})
    assert (options.limits.ping_interval, options.limits.ping_timeout) == (None, 8)
    assert options.subprotocols == ["b"]


def test_options_with_a_setting_that_cannot_be_are_an_error_when_they_are_needed() -> None:
    with override_settings(WEBSOCKET_PING_INTERVAL="often"):
        with pytest.raises(ImproperlyConfigured, match="WEBSOCKET_PING_INTERVAL is 'often'"):
            conf.options({})
        assert conf.options({"ping_interval": 1}).limits.ping_interval == 1


# What would let everybody in


async def asynchronous(request: Any) -> bool:
    return False


class AsynchronousCall:
    """A guard that is called, and returns a coroutine."""

    async def __call__(self, request: Any) -> bool:
        return False


only_staff = user_passes_test(lambda user: user.is_staff)
may_view = permission_required("auth.view_user")
asynchronous_call = AsynchronousCall()
asynchronous_part = functools.partial(asynchronous)
NO_GUARDS = {
    "asynchronous": asynchronous,
    "asynchronous_call": asynchronous_call,
    "asynchronous_part": asynchronous_part,
    "AsynchronousCall": AsynchronousCall,
    "Guard": Guard,
    "login_required": login_required,
    "only_staff": only_staff,
    "may_view": may_view,
    "staff_member_required": staff_member_required,
    "never_cache": never_cache,
    "has_perm": has_perm,
}


@pytest.mark.parametrize("name", NO_GUARDS)
def test_what_is_no_guard_is_refused_when_the_view_is_decorated_and_in_the_settings(
    name: str,
) -> None:
    guard = NO_GUARDS[name]
    for value in (guard, [session_alive, guard]):
        with pytest.raises(ValueError, match=r"the option guard is .* it must be a guard"):
            require_websocket(guard=value)
        with (
            override_settings(WEBSOCKET_GUARD=value),
            pytest.raises(ImproperlyConfigured, match=r"WEBSOCKET_GUARD is .* it must be a guard"),
        ):
            conf.options({})


@pytest.mark.parametrize("name", NO_GUARDS)
def test_path_to_what_is_no_guard_is_an_error_when_it_is_needed(name: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"'{__name__}.{name}' is no guard; it must be a guard"):
        conf.options({"guard": f"{__name__}.{name}"})


# WEBSOCKET_CLASS


class Shouting(WebSocket):
    """A project's own."""


class NoWebSocket:
    """Something else."""


def test_class_is_the_default_or_the_one_that_is_named() -> None:
    assert conf.websocket_class() is WebSocket
    for path, found in [("dwebsocket.legacy.WebSocket", legacy.WebSocket), (f"{__name__}.Shouting", Shouting)]:
        with override_settings(WEBSOCKET_CLASS=path):
            assert conf.websocket_class() is found


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nowhere.WebSocket", "No module named 'nowhere'"),
        ("dwebsocket.websocket.Nothing", 'does not define a "Nothing"'),
        (f"{__name__}.NoWebSocket", "no subclass of dwebsocket.websocket.WebSocket"),
        ("dwebsocket.connection.verbs.json", "no subclass of dwebsocket.websocket.WebSocket"),
    ],
)
def test_class_that_cannot_be_is_an_error_that_says_why(path: str, words: str) -> None:
    with override_settings(WEBSOCKET_CLASS=path), pytest.raises(ImproperlyConfigured) as caught:
        conf.websocket_class()
    assert str(caught.value).startswith("WEBSOCKET_CLASS")
    assert words in str(caught.value)


def test_class_of_a_view_is_its_own_or_that_of_the_setting() -> None:
    for value in (Shouting, f"{__name__}.Shouting"):
        conf.check_view_options({"websocket_class": value})
        with override_settings(WEBSOCKET_CLASS="dwebsocket.legacy.WebSocket"):
            assert conf.options({"websocket_class": value}).websocket_class is Shouting
            assert conf.options({"max_message_size": 7}).websocket_class is legacy.WebSocket
            assert conf.options({}).websocket_class is legacy.WebSocket


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (5, "it must be a dotted path to a subclass of dwebsocket.websocket.WebSocket, or the class itself"),
        (NoWebSocket, "it must be a dotted path to a subclass of dwebsocket.websocket.WebSocket, or the class itself"),
        ("WebSocket", "it must be a dotted path to a subclass of dwebsocket.websocket.WebSocket, or the class itself"),
        ("nowhere.WebSocket", "No module named 'nowhere'"),
        ("dwebsocket.websocket.Nothing", 'does not define a "Nothing"'),
        (f"{__name__}.NoWebSocket", "no subclass of dwebsocket.websocket.WebSocket"),
    ],
    ids=str,
)
def test_class_of_a_view_that_cannot_be_is_an_error_when_the_view_is_decorated(value: Any, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        require_websocket(websocket_class=value)
    assert str(caught.value).startswith("the option websocket_class")
    assert words in str(caught.value)


# Importing


def test_importing_the_package_and_decorating_a_view_touches_no_settings() -> None:
    program = """
import dwebsocket, dwebsocket.middleware, dwebsocket.legacy, dwebsocket.apps, dwebsocket.checks, dwebsocket.upgrade
view = dwebsocket.accept_websocket(subprotocols=["chat"])(lambda request: None)
from django.conf import settings
assert not settings.configured
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=30)


def test_options_of_views_that_are_given_none_are_made_once_for_each_change_of_the_settings() -> None:
    """method_decorator applies a bare decorator at each request: what it is given is another dict each time."""
    before = conf.options({})
    assert conf.options({}) is before
    with override_settings(WEBSOCKET_MAX_MESSAGE_SIZE=7):
        assert conf.options({}).limits.max_message_size == 7
        assert conf.options({"max_message_size": 8}).limits.max_message_size == 8
        assert conf.options({}).limits.max_message_size == 7
    assert conf.options({}) == before


def test_options_of_a_view_are_made_once_for_each_change_of_the_settings() -> None:
    given: dict[str, Any] = {"max_message_size": 7}
    first = conf.options(given)
    assert conf.options(given) is first
    other: dict[str, Any] = {"max_message_size": 8}
    assert conf.options(other).limits.max_message_size == 8
    with override_settings(WEBSOCKET_SEND_TIMEOUT=1):
        assert conf.options(given).limits == dataclasses.replace(first.limits, send_timeout=1)
    assert conf.options(given) == first


def test_options_of_views_that_are_made_anew_for_each_request_are_not_kept_for_ever() -> None:
    for size in range(1, 5000):
        assert conf.options({"max_message_size": size}).limits.max_message_size == size
        assert len(conf._chosen) <= 1024
