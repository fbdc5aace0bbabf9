"""A process that begins anew after each test, and threads for peers that wait."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from dwebsocket.process.registry import registry
from tests.process.helpers import MANY


@pytest.fixture(autouse=True)
def _reopened() -> Iterator[None]:
    """A process ends once; here it begins anew."""
    yield
    registry.forget()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(MANY) as pool:
        yield pool
