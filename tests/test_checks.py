"""The system checks name every misuse and the fix."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.checks import ERROR, WARNING, run_checks
from django.core.management import call_command
from django.test import override_settings

OWN = "dwebsocket.middleware.WebSocketMiddleware"
CSRF = "django.middleware.csrf.CsrfViewMiddleware"


def messages() -> list[Any]:
    """What our checks say."""
    return [message for message in run_checks() if str(message.id).startswith("dwebsocket.")]


def test_default_settings_pass() -> None:
    assert messages() == []
    call_command("check")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"WEBSOCKET_PING_INTERVAL": 0}, ["WEBSOCKET_PING_INTERVAL is 0", "a number of seconds above 0, or None"]),
        ({"WEBSOCKET_RECEIVE_QUEUE": None}, ["WEBSOCKET_RECEIVE_QUEUE is None", "a whole number above 0"]),
        ({"WEBSOCKET_ACCEPT_ALL": 1}, ["WEBSOCKET_ACCEPT_ALL is 1", "True or False"]),
        ({"WEBSOCKET_SUBPROTOCOLS": "chat"}, ["WEBSOCKET_SUBPROTOCOLS is 'chat'", "a list of subprotocol names"]),
        ({"WEBSOCKET_ALLOWED_ORIGINS": "https://a.example"}, ["WEBSOCKET_ALLOWED_ORIGINS is", "a list of origins"]),
        ({"WEBSOCKET_ALLOWED_ORIGINS": ["a.example"]}, ["WEBSOCKET_ALLOWED_ORIGINS is", "https://"]),
        ({"WEBSOCKET_ALLOWED_ORIGINS": None}, ["WEBSOCKET_ALLOWED_ORIGINS is None", "a list of origins"]),
        ({"WEBSOCKET_ALLOWED_ORIGINS": "*"}, ["WEBSOCKET_ALLOWED_ORIGINS is '*'", "a list of origins"]),
        ({"WEBSOCKET_ALLOWED_ORIGINS": 5}, ["WEBSOCKET_ALLOWED_ORIGINS is 5", "a list of origins"]),
        ({"WEBSOCKET_CLASS": "WebSocket"}, ["WEBSOCKET_CLASS is 'WebSocket'", "a dotted path"]),
        ({"WEBSOCKET_CLASS": "nowhere.WebSocket"}, ["WEBSOCKET_CLASS", "No module named 'nowhere'"]),
    ],
    ids=str,
)
def test_setting_that_cannot_be_is_an_error_that_says_what_it_must_be(
    settings: dict[str, Any], words: list[str]
) -> None:
    with override_settings(**settings):
        found = [message for message in messages() if message.level == ERROR]
    assert [message.id for message in found] == ["dwebsocket.E001"]
    for word in words:
        assert word in found[0].msg


def test_every_wrong_setting_is_named() -> None:
    with override_settings(WEBSOCKET_PING_INTERVAL=0, WEBSOCKET_PING_TIMEOUT=0):
        assert len(messages()) == 2


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("WEBSOCKET_PING_INTERVALL", "Did you mean WEBSOCKET_PING_INTERVAL?"),
        ("WEBSOCKET_FACTORY_CLASS", "Remove it: the server is recognised."),
        ("WEBSOCKET_QQQQQQQQQQQQQQQQQQQQ", "Remove it."),
    ],
)
def test_setting_that_does_not_exist_is_a_warning_that_helps(name: str, hint: str) -> None:
    with override_settings(**{name: 5}):
        (found,) = messages()
    assert (found.id, found.level) == ("dwebsocket.W002", WARNING)
    assert name in found.msg
    assert found.hint == hint


def test_accept_all_before_a_middleware_that_must_see_the_view_is_an_error() -> None:
    with override_settings(WEBSOCKET_ACCEPT_ALL=True, MIDDLEWARE=[OWN, CSRF]):
        (found,) = messages()
    assert (found.id, found.level) == ("dwebsocket.E002", ERROR)
    assert CSRF in found.msg
    assert OWN in found.hint


def test_accept_all_that_cannot_be_says_nothing_about_the_order() -> None:
    with override_settings(WEBSOCKET_ACCEPT_ALL="yes", MIDDLEWARE=[OWN, CSRF]):
        assert [message.id for message in messages()] == ["dwebsocket.E001"]


def test_accept_all_behind_every_middleware_passes() -> None:
    with override_settings(WEBSOCKET_ACCEPT_ALL=True, MIDDLEWARE=[CSRF, OWN]):
        assert messages() == []


def test_order_of_the_middleware_is_free_without_accept_all() -> None:
    with override_settings(MIDDLEWARE=[OWN, CSRF]):
        assert messages() == []


def test_origin_check_that_is_switched_off_is_a_warning() -> None:
    with override_settings(WEBSOCKET_ALLOWED_ORIGINS=["https://a.example", "*"]):
        (found,) = messages()
    assert (found.id, found.level) == ("dwebsocket.W001", WARNING)
    assert '"*"' in found.msg
    assert "https://" in found.hint


def test_accept_all_without_the_middleware_is_a_warning() -> None:
    with override_settings(WEBSOCKET_ACCEPT_ALL=True, MIDDLEWARE=[CSRF]):
        (found,) = messages()
    assert (found.id, found.level) == ("dwebsocket.W003", WARNING)
    assert OWN in found.hint
