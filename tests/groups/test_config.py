"""WEBSOCKET_GROUPS: each mistake has its sentence."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from dwebsocket.groups import config
from dwebsocket.groups.backend import GroupsBackend
from dwebsocket.groups.local import LocalGroups
from tests.groups.backends import PATH, ObedientGroups


class NoBackend:
    """A class that is none."""


def no_class() -> None:
    """A function that is none either."""


def backend(alias: str = "default", **settings: Any) -> GroupsBackend:
    with override_settings(WEBSOCKET_GROUPS={"default": {}, alias: settings}):
        return config.backend(alias)


def test_default_is_local_and_complete() -> None:
    found = config.backend("default")
    assert type(found) is LocalGroups
    assert found.alias == "default"
    assert found.settings == {
        "BACKEND": "dwebsocket.groups.local.LocalGroups",
        "LOCATION": "",
        "KEY_PREFIX": "dws",
        "TIMEOUT": 2,
        "JOIN_TIMEOUT": 5,
        "PROBE": 10,
        "CHECK": 30,
        "LEASE": 15,
        "GRACE": 5,
        "META_TTL": 30 * 24 * 60 * 60,
        "DURABLE": False,
        "ON_GAP": "close",
        "MAX_MESSAGE_SIZE": 1024 * 1024,
        "OUTBOX_BYTES": 1024 * 1024,
        "OUTBOX_SECONDS": 10,
        "OVERFLOW": "close",
        "OPTIONS": {},
    }


def test_what_is_given_replaces_the_defaults() -> None:
    found = backend("other", BACKEND=PATH, TIMEOUT=0.5, OVERFLOW="latest", LOCATION=["redis://a", "redis://b"])
    assert type(found) is ObedientGroups
    assert found.alias == "other"
    assert (found.settings["TIMEOUT"], found.settings["OVERFLOW"], found.settings["JOIN_TIMEOUT"]) == (0.5, "latest", 5)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"BACKENDS": PATH}, r"\['default'\] has an unknown key 'BACKENDS'; it knows BACKEND, LOCATION, KEY_PREFIX, "),
        ({"TIMEOUT": 0}, r"\['default'\]\['TIMEOUT'\] is 0; it must be a number of seconds above 0"),
        ({"JOIN_TIMEOUT": None}, r"\['JOIN_TIMEOUT'\] is None; it must be a number of seconds above 0"),
        ({"PROBE": "10"}, r"\['PROBE'\] is '10'; it must be a number of seconds"),
        ({"OUTBOX_SECONDS": True}, r"\['OUTBOX_SECONDS'\] is True; it must be a number of seconds"),
        ({"OUTBOX_BYTES": 1.5}, r"\['OUTBOX_BYTES'\] is 1.5; it must be a whole number above 0"),
        ({"MAX_MESSAGE_SIZE": -1}, r"\['MAX_MESSAGE_SIZE'\] is -1; it must be a whole number above 0"),
        ({"OVERFLOW": "newest"}, r"is 'newest'; it must be one of 'close', 'drop_new', 'drop_oldest', 'latest'"),
        ({"CHECK": 0}, r"\['CHECK'\] is 0; it must be a number of seconds above 0"),
        ({"LEASE": 0}, r"\['LEASE'\] is 0; it must be a number of seconds above 0"),
        ({"LEASE": None}, r"\['LEASE'\] is None; it must be a number of seconds above 0"),
        ({"GRACE": -1}, r"\['GRACE'\] is -1; it must be a number of seconds, 0 or above"),
        ({"GRACE": None}, r"\['GRACE'\] is None; it must be a number of seconds, 0 or above"),
        ({"GRACE": False}, r"\['GRACE'\] is False; it must be a number of seconds, 0 or above"),
        ({"META_TTL": 0}, r"\['META_TTL'\] is 0; it must be a number of seconds above 0"),
        ({"META_TTL": "30 days"}, r"\['META_TTL'\] is '30 days'; it must be a number of seconds above 0"),
        ({"DURABLE": 1}, r"\['DURABLE'\] is 1; it must be True or False"),
        ({"ON_GAP": "reload"}, r"\['ON_GAP'\] is 'reload'; it must be 'close' or 'ignore'"),
        ({"ON_GAP": None}, r"\['ON_GAP'\] is None; it must be 'close' or 'ignore'"),
        ({"LOCATION": 7}, r"\['LOCATION'\] is 7; it must be a URL, or a list of them"),
        ({"LOCATION": [7]}, r"\['LOCATION'\] is \[7\]; it must be a URL, or a list of them"),
        ({"KEY_PREFIX": "two words"}, r"\['KEY_PREFIX'\] is 'two words'; it must be a short word"),
        ({"OPTIONS": []}, r"\['OPTIONS'\] is \[\]; it must be a dict"),
        ({"BACKEND": 7}, r"\['BACKEND'\] is 7; it must be a dotted path like 'dwebsocket.groups.local.LocalGroups'"),
        ({"BACKEND": LocalGroups}, r"\['BACKEND'\] is <class .*; it must be a dotted path like "),
        ({"BACKEND": "LocalGroups"}, r"\['BACKEND'\] is 'LocalGroups': .*module path"),
        ({"BACKEND": "nowhere.Groups"}, r"\['BACKEND'\] is 'nowhere.Groups': No module named 'nowhere'"),
        ({"BACKEND": f"{__name__}.NoBackend"}, r"NoBackend', which is no subclass of dwebsocket.groups.backend.Group"),
        ({"BACKEND": f"{__name__}.no_class"}, r"no_class', which is no subclass of dwebsocket.groups.backend.Group"),
        ({"LOCATION": "redis://a"}, r"\['default'\] has a LOCATION, which LocalGroups does not use: BACKEND is dweb"),
    ],
)
def test_mistake_has_its_sentence(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"^WEBSOCKET_GROUPS.*{sentence}"):
        backend(**settings)


@pytest.mark.parametrize("settings", ["redis://a", None, ["redis://a"]])
def test_alias_is_a_dict(settings: Any) -> None:
    with (
        override_settings(WEBSOCKET_GROUPS={"default": settings}),
        pytest.raises(ImproperlyConfigured, match=r"^WEBSOCKET_GROUPS\['default'\] is .*; it must be a dict with BACK"),
    ):
        config.backend("default")


@pytest.mark.parametrize(
    "settings", [{"GRACE": 0}, {"GRACE": 0.5}, {"LEASE": 0.5}, {"CHECK": 1.5}, {"ON_GAP": "ignore"}, {"DURABLE": True}]
)
def test_value_at_the_edge_is_accepted(settings: dict[str, Any]) -> None:
    found = backend(**settings).settings
    assert {name: found[name] for name in settings} == settings


def test_unknown_alias_is_named_with_the_known() -> None:
    with (
        override_settings(WEBSOCKET_GROUPS={"default": {}, "big": {}}),
        pytest.raises(ImproperlyConfigured, match=r"^WEBSOCKET_GROUPS has no alias 'small'; it has 'big', 'default'$"),
    ):
        config.backend("small")


@pytest.mark.parametrize("value", [{}, {"other": {}}, "redis://a"])
def test_setting_has_a_default(value: Any) -> None:
    with (
        override_settings(WEBSOCKET_GROUPS=value),
        pytest.raises(ImproperlyConfigured, match=r"^WEBSOCKET_GROUPS is .*; it must be a dict of aliases like "),
    ):
        config.backend("default")


@pytest.mark.parametrize(
    "value",
    [
        {"BACKEND": "dwebsocket.groups.redis.RedisGroups", "LOCATION": "redis://:topsecret@127.0.0.1"},
        "redis://user:topsecret@127.0.0.1:6379/0",
        {"default": {"LOCATION": ["redis://:topsecret@a", 5]}},
        {"default": "redis://:topsecret@127.0.0.1"},
        {"default": {"BACKEND": "dwebsocket.groups.redis.RedisGroups", "LOCATION": "topsecret@127.0.0.1"}},
        {"default": {"BACKEND": "dwebsocket.groups.redis.RedisGroups", "LOCATION": "user:topsecret@127.0.0.1"}},
    ],
)
def test_error_holds_no_password(value: Any) -> None:
    with override_settings(WEBSOCKET_GROUPS=value), pytest.raises(ImproperlyConfigured) as caught:
        config.backend("default")
    assert "topsecret" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value) or "***@a" in str(caught.value) or "begins with" in str(caught.value)
