"""A thread that is started at its first need."""

from __future__ import annotations

import os
import threading
from unittest import mock

import pytest

from dwebsocket.groups.loop import Loop
from tests.links import PATIENCE_SECONDS, until


class Counting(Loop):
    """Counts how often it was woken."""

    def __init__(self, **options: object) -> None:
        super().__init__("counts", without="no one counts", **options)
        self.rounds = 0
        self.is_asleep = threading.Event()

    def need(self) -> None:
        with self._changed:
            self._wake()

    def _run(self) -> None:
        with self._changed:
            while not self._is_over():
                self.rounds += 1
                self.is_asleep.set()
                self._changed.wait(PATIENCE_SECONDS)

    def join(self) -> None:
        assert self._thread is not None
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive()


@pytest.mark.parametrize("options", [{}, {"lock": threading.RLock()}], ids=["own lock", "the lock of its owner"])
def test_it_is_started_once_and_ends_at_close(options: dict[str, object]) -> None:
    loop = Counting(**options)
    assert loop._thread is None
    loop.need()
    assert loop.is_asleep.wait(PATIENCE_SECONDS)
    thread = loop._thread
    loop.need()
    until(lambda: loop.rounds == 2)
    assert loop._thread is thread
    loop.close()
    loop.join()
    loop.need()
    assert loop._thread is thread


def test_it_ends_in_another_process() -> None:
    loop = Counting()
    loop.need()
    assert loop.is_asleep.wait(PATIENCE_SECONDS)
    with mock.patch.object(loop, "_pid", os.getpid() + 1):
        loop.need()
        loop.join()


def test_next_need_tries_again_where_no_thread_could_be_started(caplog: pytest.LogCaptureFixture) -> None:
    loop = Counting()
    with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")):
        loop.need()
    assert "no one counts" in caplog.text
    loop.need()
    assert loop.is_asleep.wait(PATIENCE_SECONDS)
    loop.close()
    loop.join()
