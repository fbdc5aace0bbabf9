"""A database in a file for the tests of this folder."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.core import signals
from django.db import connection

from dwebsocket.database import lease
from tests.helpers import database_in
from tests.sites import Site


@pytest.fixture(scope="module", autouse=True)
def _database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with database_in(tmp_path_factory.mktemp("database") / "db.sqlite3"):
        yield


@pytest.fixture(autouse=True)
def _empty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    lease._warned.clear()
    monkeypatch.setattr(lease, "KEPT_SECONDS", 0.0)  # what may be given back is given back at once
    yield
    Group.objects.all().delete()
    connection.close()


@pytest.fixture
def over(site: Site) -> Iterator[threading.Event]:
    """Set once the request is over that a view outlives: on a hub without patches both have the same connection."""
    event = threading.Event()
    if site.mode == "attached":
        event.set()

    def receive(**about: Any) -> None:
        event.set()

    signals.request_finished.connect(receive)
    yield event
    signals.request_finished.disconnect(receive)
