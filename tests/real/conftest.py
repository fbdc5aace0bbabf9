"""Each real server once per session, detached and attached; after every test its log must be quiet."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.real.postgresql import Database, PostgreSQL, postgresql
from tests.real.servers import KINDS, Server, assert_quiet, combinations, running


@pytest.fixture(scope="session", params=combinations(), ids="-".join)
def running_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    name, mode = request.param
    detach = mode in KINDS[name].modes[:1]  # where there is no choice, the default
    with running(name, tmp_path_factory.mktemp(f"{name}-{mode}"), WEBSOCKET_DETACH=detach) as server:
        yield server
        if request.session.shouldfail:  # pytest -x: an error in the last teardown would cost us its summary
            server.take_news()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out a client that deadlocks over TLS, on any server: it reads and writes one SSL socket in two threads."""

    def deadlocks(item: pytest.Item) -> bool:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        name, _ = params.get("running_server", ("pywsgi", ""))
        return params.get("connect") == "websockets-sync" and name in KINDS and KINDS[name].tls

    left_out = [item for item in items if deadlocks(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture
def server(running_server: Server) -> Iterator[Server]:
    """A running server. Whatever it logs that the test did not ask for with ``expect_log`` must be harmless."""
    yield running_server
    assert_quiet(running_server.take_news())


@pytest.fixture
def note() -> str:
    """A name for a note that no other test uses."""
    return uuid4().hex


@pytest.fixture(scope="session")
def cluster() -> Iterator[PostgreSQL]:
    with postgresql() as cluster:
        yield cluster


@pytest.fixture
def database(cluster: PostgreSQL) -> Database:
    """A new database of the project's, for the server that the test starts."""
    return cluster.create_database()
