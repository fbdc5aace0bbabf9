"""What one connection may take, where nothing else is said."""

from __future__ import annotations

import dataclasses

import pytest

from dwebsocket import conf
from dwebsocket.connection.limits import Limits


@pytest.mark.parametrize(
    "name", sorted(field.name for field in dataclasses.fields(Limits) if field.name != "streaming")
)
def test_limit_is_that_of_its_setting_where_nothing_else_is_said(name: str) -> None:
    assert getattr(Limits(), name) == conf.get(name.upper())


def test_limits_are_named_and_do_not_change() -> None:
    limits = Limits(send_timeout=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        limits.send_timeout = 2  # type: ignore[misc]
    with pytest.raises(TypeError):
        Limits(1024)  # type: ignore[misc]
