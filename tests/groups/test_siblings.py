"""Groups within a process say so, once, where other processes serve the same site, or where this one serves none."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from django.core import mail
from django.core.signals import request_started

from dwebsocket import Groups, group, is_online
from dwebsocket.groups import siblings
from tests.links import run_program

SENTENCE = "WEBSOCKET_GROUPS['default'] is LocalGroups, but "
ADVICE = "Set WEBSOCKET_GROUPS = {"


@pytest.fixture
def _production(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that runs no tests, has warned of nothing, and has served no request."""
    monkeypatch.delattr(mail, "outbox")
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    monkeypatch.setattr(siblings, "_has_warned", False)
    monkeypatch.setattr(siblings, "_has_siblings", None)
    request_started.disconnect(siblings._served)
    request_started.connect(siblings._served)
    yield
    request_started.disconnect(siblings._served)


pytestmark = pytest.mark.usefixtures("_production")


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert all(message.startswith(SENTENCE) and ADVICE in message for message in found)
    return [message[len(SENTENCE) : message.index(ADVICE)].strip() for message in found]


def serve(is_multiprocess: bool) -> None:
    request_started.send(None, environ={"wsgi.multiprocess": is_multiprocess})


def test_server_with_several_processes_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    serve(is_multiprocess=True)
    for _ in range(3):
        group("room:7").send("a")
    assert warnings(caplog) == [
        "there are several workers: a message reaches only the WebSockets of the worker that sends it, and each knows"
        " only its own history and members."
    ]


@pytest.mark.parametrize("workers", ["2", "16"])
def test_environment_with_several_workers_warns(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", workers)
    serve(is_multiprocess=False)
    group("room:7").disconnect()
    assert [one[:26] for one in warnings(caplog)] == ["there are several workers:"]


def test_process_that_serves_nothing_warns(caplog: pytest.LogCaptureFixture) -> None:
    group("room:7").send("a")
    group("room:7").send("b")
    assert warnings(caplog) == [
        "this process has served no request: it is no web server, a message from it reaches no WebSocket, and it knows"
        " no history and no members of the others."
    ]


@pytest.mark.parametrize("question", ["history", "position", "clear", "members", "count"])
def test_process_that_asks_what_it_cannot_know_warns(caplog: pytest.LogCaptureFixture, question: str) -> None:
    getattr(Groups("asked", history=1, presence=True)[7], question)()
    assert "served no request" in warnings(caplog)[0]


def test_process_that_asks_for_a_user_warns(caplog: pytest.LogCaptureFixture) -> None:
    assert not is_online(7)
    assert "served no request" in warnings(caplog)[0]


@pytest.mark.parametrize("workers", [None, "1", "", "many"])
def test_only_process_of_a_server_says_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, workers: str | None
) -> None:
    if workers is not None:
        monkeypatch.setenv("WEB_CONCURRENCY", workers)
    serve(is_multiprocess=False)
    group("room:7").send("a")
    assert warnings(caplog) == []


def test_request_without_an_environ_says_nothing_of_the_server(caplog: pytest.LogCaptureFixture) -> None:
    request_started.send(None, scope={})  # of ASGI
    group("room:7").send("a")
    assert "served no request" in warnings(caplog)[0]


def test_first_request_counts_and_no_other_is_looked_at(caplog: pytest.LogCaptureFixture) -> None:
    serve(is_multiprocess=False)
    serve(is_multiprocess=True)
    group("room:7").send("a")
    assert warnings(caplog) == []


def test_tests_are_not_warned(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail, "outbox", [], raising=False)
    serve(is_multiprocess=True)
    group("room:7").send("a")
    assert warnings(caplog) == []


PROGRAM = """
import logging, sys
import django
from django.conf import settings
settings.configure(LOGGING_CONFIG=None)
logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s")
django.setup()
from dwebsocket import Groups, group, is_online
group("room:7").send("a")
group("room:7").send("b")
"""


def test_command_of_a_project_is_told() -> None:
    [line] = run_program(PROGRAM).splitlines()
    assert line.startswith(f"WARNING {SENTENCE}this process has served no request")
    assert 'RedisGroups", "LOCATION": "redis://' in line
