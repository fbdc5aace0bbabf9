"""What tests of several modules use: headers, settings, signals, logs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, connections

from tests.peer import Close, Peer

#: An opening handshake, as a WSGI environ has it.
HANDSHAKE = {
    "HTTP_UPGRADE": "websocket",
    "HTTP_CONNECTION": "Upgrade",
    "HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ==",
    "HTTP_SEC_WEBSOCKET_VERSION": "13",
    "HTTP_HOST": "testserver",
    "SERVER_PROTOCOL": "HTTP/1.1",
}

DB = "django.contrib.sessions.backends.db"
SESSIONS = "django.contrib.sessions.middleware.SessionMiddleware"
AUTH = "django.contrib.auth.middleware.AuthenticationMiddleware"


@contextmanager
def recorded(signal: Any) -> Iterator[list[dict[str, Any]]]:
    """What the signal sends meanwhile."""
    received: list[dict[str, Any]] = []

    def receive(**kwargs: Any) -> None:
        received.append(kwargs)

    signal.connect(receive)
    try:
        yield received
    finally:
        signal.disconnect(receive)


def levels(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Who logged what; the access lines of the server do not count."""
    return [(record.name, record.levelname) for record in caplog.records if record.name != "django.server"]


@contextmanager
def database_in(path: Path) -> Iterator[None]:
    """Let the database be a file, its tables made: every thread of this process sees the same one."""
    database = connections.settings["default"]
    before, database["NAME"] = database["NAME"], str(path)
    connection.close()
    try:
        call_command("migrate", verbosity=0)
        yield
    finally:
        connection.close()
        database["NAME"] = before


def exchange(peer: Peer, message: str | bytes) -> str | bytes | Close:
    """Send a message; what the peer gets next."""
    peer.send_message(message)
    return peer.recv_message()
