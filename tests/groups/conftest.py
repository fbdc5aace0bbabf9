"""Each test declares its own Groups, and sends with `once` as if it were the first."""

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

import pytest

from dwebsocket.groups import group, testing


@pytest.fixture(autouse=True)
def _nothing_is_left_of_other_tests() -> Iterator[None]:
    with mock.patch.dict(group._declared, clear=True):
        yield
    testing.begin_anew()
