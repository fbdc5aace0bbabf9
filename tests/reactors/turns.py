"""Turns of a link, as a test sees them: the same for greenlets and for threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import gevent

from dwebsocket.reactors.base import Runner
from tests.links import PATIENCE_SECONDS, Link


class Turns:
    """The turns of one link: each tells the messages that it has taken, and notes what runs it."""

    def __init__(self, a: Link, during: Callable[[Any], object] = lambda message: None) -> None:
        self.link = a
        self.told: SimpleQueue[Any] = SimpleQueue()
        self.threads: list[int] = []
        self.greenlets: list[Any] = []
        self.runners: list[Runner] = []
        self.during = during  # called with each message
        self.running = 0

    def __call__(self, runner: Runner) -> bool:
        self.running += 1
        assert self.running == 1, "two at the same time"
        self.threads.append(threading.get_ident())
        self.greenlets.append(gevent.getcurrent())
        self.runners.append(runner)
        try:
            while (message := self.link.connection.take()) is not None:
                self.told.put(message)
                self.during(message)
        finally:
            self.running -= 1
        return False

    def hear(self) -> Any:
        return self.told.get(timeout=PATIENCE_SECONDS)


def park(a: Link, *during: Callable[[Any], object]) -> Turns:
    turns = Turns(a, *during)
    a.do("employ", turns)
    return turns


def runs_for_each_message(a: Link) -> None:
    """Check that a turn runs at once for what was there before, and then for each message."""
    a.peer.send_message("before")
    turns = park(a)
    assert turns.hear() == "before"
    for number in range(50):
        a.peer.send_message(str(number))
        assert turns.hear() == str(number)


def waits_in_its_turn(a: Link) -> None:
    """Check that a turn can wait for the next message."""
    told: SimpleQueue[Any] = SimpleQueue()

    def turn(runner: Runner) -> bool:
        if a.connection.take() is not None:
            told.put(a.connection.receive(PATIENCE_SECONDS))
        return False

    a.do("employ", turn)
    for number in range(20):
        a.peer.send_message("first")
        if number % 2:
            time.sleep(0.002)
        a.peer.send_message(str(number))
        assert told.get(timeout=PATIENCE_SECONDS) == str(number)
