"""The descriptor that ends the wait of a thread."""

from __future__ import annotations

import os

import pytest

from dwebsocket.reactors.wakeup import Wakeup
from tests.links import descriptors


def test_wakeup_makes_its_descriptor_readable_until_it_is_cleared() -> None:
    before = descriptors()
    wakeup = Wakeup()
    wakeup.clear()
    for _ in range(3):
        wakeup.set()
    assert os.read(wakeup.descriptor, 8)
    wakeup.set()
    wakeup.clear()
    with pytest.raises(BlockingIOError):
        os.read(wakeup.descriptor, 8)
    wakeup.close()
    assert descriptors() == before


def test_wakeup_that_cannot_get_any_more_ready_stays_so() -> None:
    wakeup = Wakeup()
    os.write(wakeup._write_end, (2**64 - 2).to_bytes(8, "little"))
    wakeup.set()
    wakeup.clear()
    wakeup.close()
