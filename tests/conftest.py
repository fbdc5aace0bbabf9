"""Sets Django up once, shares the fixtures, and lets nothing be skipped in CI."""

import logging
import os

import django
import pytest
from django.test.utils import setup_test_environment
from hypothesis import settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.project.settings")
django.setup()  # here and in no hook: pytest imports the conftest of a folder, and with it models, before any hook runs
setup_test_environment()

pytest_plugins = ["tests.links", "tests.sites"]

settings.register_profile("dwebsocket", deadline=None)  # a busy machine is no bug
settings.load_profile("dwebsocket")

logging.getLogger("dwebsocket.access").setLevel(logging.WARNING)  # tests/process/test_observers.py reads its lines


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    return fail_if_skipped((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    return fail_if_skipped((yield))


def fail_if_skipped(report):
    """In CI everything is installed, so a skip there is a test that nobody runs."""
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        _path, _line, reason = report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{reason} (in CI a skip is a failure)"
    return report
