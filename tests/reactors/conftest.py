"""A hub for the tests of a module, and connections on it. Tests of threads have a `link` of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.links import Hub, Link, linking


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    hub = Hub()
    yield hub
    hub.stop()


@pytest.fixture
def link(hub: Hub) -> Iterator[Callable[..., Link]]:
    """``connect`` on the hub."""
    with linking(hub) as connect:
        yield connect
