"""The Django app."""

from __future__ import annotations

import subprocess
import sys

from django.apps import apps
from django.core.checks.registry import registry

from dwebsocket import checks
from dwebsocket.apps import DwebsocketConfig

PROGRAM = """
import django
from django.conf import settings
settings.configure(INSTALLED_APPS={apps}, WEBSOCKET_PING_INTERVAL=0, USE_TZ=True)
django.setup()
from django.core.checks import run_checks
print([message.id for message in run_checks()])
"""


def run(*apps: str) -> str:
    """What ``manage.py check`` finds in a project with these apps and a setting that cannot be."""
    command = [sys.executable, "-W", "error", "-c", PROGRAM.format(apps=list(apps))]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()


def test_app_is_called_dwebsocket() -> None:
    config = apps.get_app_config("dwebsocket")
    assert isinstance(config, DwebsocketConfig)
    assert config.verbose_name == "WebSocket"


def test_app_registers_the_checks_once() -> None:
    DwebsocketConfig("dwebsocket", sys.modules["dwebsocket"]).ready()
    registered = [check for check in registry.get_checks() if check.__module__ == "dwebsocket.checks"]
    assert len(registered) == 18
    assert {check.__name__ for check in registered} == {
        "check_settings",
        "check_unknown_settings",
        "check_middleware_is_there_once",
        "check_guards_of_views",
        "check_middleware_order",
        "check_origins",
        "check_accept_all_has_its_middleware",
        "check_middleware_classes",
        "check_gevent_has_patched",
        "check_gevent_has_patched_first",
        "check_middleware_that_keeps_state",
        "check_async_only_middleware",
        "check_gevent_has_patched_before_drivers",
        "check_groups",
        "check_groups_reach_all_workers",
        "check_histories_are_remembered",
        "check_leases_outlast_answers",
        "check_asgi",
    }
    assert all(hasattr(checks, check.__name__) for check in registered)


def test_project_with_the_app_is_checked() -> None:
    assert run("dwebsocket") == "['dwebsocket.E001']"


def test_project_without_the_app_is_not() -> None:
    assert run() == "[]"
