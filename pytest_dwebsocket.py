"""The pytest fixture `websocket_client`, and a clean slate for each test.

A module of its own: pytest imports it before a project's conftest, and the package would import Django, too early for
gevent's monkey-patching and for coverage.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from dwebsocket.test import WebSocketClient


@pytest.fixture
def websocket_client() -> WebSocketClient:
    """Django's test client with `websocket(path)`. A view that queries needs a test with access to the database."""
    from dwebsocket.test import WebSocketClient

    return WebSocketClient()


@pytest.fixture(autouse=True)
def _groups_begin_anew() -> Iterator[None]:
    yield
    if "dwebsocket.groups.process" in sys.modules:
        from dwebsocket.groups.testing import begin_anew

        begin_anew()
