"""The exceptions that answer with HTTP: each has the status, and the headers, that its docstring and its RFC name."""

from __future__ import annotations

import re
from typing import Any

import pytest

from dwebsocket import exceptions

HEADERS: dict[str, dict[str, str]] = {
    "Unauthorized": {"WWW-Authenticate": "Session"},
    "TooManyConnections": {"Retry-After": "10"},
    "ShuttingDown": {"Retry-After": "1"},
}
DRAWN = re.findall(r"── (\w+)(?: +(\d{3,4}):)?", exceptions.__doc__ or "")
REFUSALS = [(name, int(number)) for name, number in DRAWN if len(number) == 3]


def kind(name: str) -> Any:
    return getattr(exceptions, name)


def test_drawing_has_every_exception_and_no_other() -> None:
    assert sorted(["WebSocketError", *(name for name, _ in DRAWN)]) == sorted(exceptions.__all__)


@pytest.mark.parametrize(("name", "status"), REFUSALS)
def test_refusal_has_the_status_of_its_drawing_and_is_a_handshake_error(name: str, status: int) -> None:
    assert issubclass(kind(name), exceptions.HandshakeError)
    assert kind(name)("why").status_code == status


@pytest.mark.parametrize(("name", "headers"), HEADERS.items())
def test_refusal_tells_the_client_what_to_do_next(name: str, headers: dict[str, str]) -> None:
    assert kind(name)("why").headers == headers


@pytest.mark.parametrize("name", ["OriginForbidden", "Forbidden", "ServerNotSupported"])
def test_refusal_after_which_nothing_helps_has_no_header(name: str) -> None:
    assert not kind(name)("why").headers
