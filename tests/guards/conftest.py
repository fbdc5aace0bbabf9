"""A database in a file for the tests of guards, and WebSockets that end with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.contrib.sessions.models import Session
from django.db import connection, connections
from django.test import RequestFactory, override_settings

from dwebsocket.guards.schedule import watch
from tests.guards.helpers import SOON_SECONDS, Ward, leave, making_schedules
from tests.helpers import database_in
from tests.links import Home, until


@pytest.fixture(scope="module", autouse=True)
def database_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    file = tmp_path_factory.mktemp("guards") / "db.sqlite3"
    with database_in(file):
        yield file


@pytest.fixture(autouse=True)
def _empty() -> Iterator[None]:
    with override_settings(PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"]):
        yield
    for model in (Session, User, Group):
        model.objects.all().delete()
    connection.close()


@pytest.fixture
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The sessions of one kind, as settings say it."""
    chosen = f"django.contrib.sessions.backends.{request.param}"
    with override_settings(SESSION_ENGINE=chosen, SESSION_FILE_PATH=str(tmp_path)):
        yield request.param


@pytest.fixture
def wards(home: Home) -> Iterator[Callable[..., list[Ward]]]:
    """Watch as many as are wanted, with these guards; in the end nobody is, and nothing runs any more."""
    watched: list[Ward] = []
    home.do(connections.close_all)

    def make(count: int, *guards: Any, interval: float = SOON_SECONDS, requests: Sequence[Any] = ()) -> list[Ward]:
        new = [Ward(home, request) for request in requests or [RequestFactory().get("/") for _ in range(count)]]
        watched.extend(new)
        for ward in new:
            home.do(watch, ward, guards, interval)
        return new

    yield make
    leave(home, watched)
    until(lambda: not making_schedules(), "the rounds to end")
