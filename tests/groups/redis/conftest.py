"""Servers and backends for the tests of RedisGroups."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dwebsocket.groups.config import DEFAULTS
from dwebsocket.groups.redis import RedisGroups
from tests.groups.servers import PROGRAMS, REDIS, RedisServer, SentinelServer

_prefixes = (f"t{number}" for number in itertools.count())

needs_redis = pytest.mark.skipif(not REDIS, reason="there is no redis-server: apt install redis-server")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and {"server", "any_server", "new_server", "new_sentinel"} & set(
            item.fixturenames
        ):  # type: ignore[attr-defined]
            item.add_marker(needs_redis)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server for all tests that leave it as it is."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as started:
        yield started


@pytest.fixture(scope="session", params=sorted({"redis", *PROGRAMS}))
def any_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Each kind of server in turn, for all tests that leave it as it is."""
    with RedisServer(tmp_path_factory.mktemp(request.param), PROGRAMS[request.param]) as started:
        yield started


@pytest.fixture
def new_server(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Starts servers that the test may ill-treat."""
    servers = []

    def start(**options: Any) -> RedisServer:
        made = RedisServer(tmp_path, **options)
        servers.append(made)
        made.start()
        return made

    yield start
    for made in servers:
        made.stop()


@pytest.fixture
def new_sentinel(tmp_path: Path) -> Iterator[Callable[..., SentinelServer]]:
    """Starts sentinels that watch a server."""
    sentinels = []

    def start(primary: RedisServer, **options: Any) -> SentinelServer:
        made = SentinelServer(tmp_path, primary, **options)
        sentinels.append(made)
        made.start()
        return made

    yield start
    for made in sentinels:
        made.stop()


@pytest.fixture
def backend() -> Iterator[Callable[..., RedisGroups]]:
    """Makes backends, and closes them: `backend(server, TIMEOUT=1)`. Each test has another KEY_PREFIX."""
    made = []
    prefix = next(_prefixes)

    def make(server: RedisServer, **settings: Any) -> RedisGroups:
        given = {"LOCATION": server.url, "KEY_PREFIX": prefix, "OPTIONS": server.options, **settings}
        made.append(RedisGroups("default", {**DEFAULTS, **given}))
        return made[-1]

    yield make
    for one in made:
        one.close()
