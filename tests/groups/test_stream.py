"""The position of a process in a history: nothing is missing, doubled or out of order, unless the members are told."""

from __future__ import annotations

import os

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from dwebsocket.groups.position import START, Position
from tests.groups.streams import Broker, Process

#: So many runs of the model; an environment variable makes it thousands.
_EXAMPLES = int(os.environ.get("STREAM_EXAMPLES", "60"))

_at = st.integers(0, 1000)


class Fleet(RuleBasedStateMachine):
    """A broker and its processes, under all that can happen to them."""

    @initialize(history=st.sampled_from([1, 3, 10]), processes=st.integers(1, 3))
    def begin(self, history: int, processes: int) -> None:
        self.broker = Broker(history)
        for _ in range(processes):
            Process(self.broker)

    def process(self, at: int) -> Process:
        return self.broker.processes[at % len(self.broker.processes)]

    @rule(count=st.integers(1, 5))
    def publish(self, count: int) -> None:
        for _ in range(count):
            self.broker.publish()

    @rule()
    def clear(self) -> None:
        self.broker.clear()

    @rule()
    def empty(self) -> None:
        self.broker.empty()

    @rule()
    def evict(self) -> None:
        self.broker.evict()

    @rule(lost=st.integers(0, 5), delivered=st.lists(st.integers(0, 3), min_size=3, max_size=3))
    def crash(self, lost: int, delivered: list[int]) -> None:
        for process, count in zip(self.broker.processes, delivered, strict=False):
            for _ in range(min(count, len(process.coming))):
                process.deliver()
            process.break_off()
        self.broker.crash(lost)

    @rule(at=_at, count=st.integers(1, 8))
    def deliver(self, at: int, count: int) -> None:
        process = self.process(at)
        for _ in range(min(count, len(process.coming))):
            process.deliver()

    @rule(at=_at, place=_at)
    def lose(self, at: int, place: int) -> None:
        process = self.process(at)
        if process.coming:
            process.lose(place % len(process.coming))

    @rule(at=_at)
    def break_off(self, at: int) -> None:
        self.process(at).break_off()

    @rule(at=_at)
    def restore(self, at: int) -> None:
        if self.process(at).is_out:
            self.process(at).restore()

    @rule(at=_at)
    def ask(self, at: int) -> None:
        if len(self.process(at).questions) < 3:
            self.process(at).ask()

    @rule(at=_at, place=_at)
    def execute(self, at: int, place: int) -> None:
        process = self.process(at)
        if process.questions:
            process.execute(place % len(process.questions))

    @rule(at=_at, place=_at)
    def answer(self, at: int, place: int) -> None:
        process = self.process(at)
        if process.questions:
            process.answer(place % len(process.questions))

    @rule(at=_at, since=st.sampled_from([None, START, "?", Position("bogus", 3)]))
    def join(self, at: int, since: Position | str | None) -> None:
        self.process(at).join(since)

    @rule(at=_at, epoch=_at, back=st.integers(-2, 12))
    def come_back(self, at: int, epoch: int, back: int) -> None:
        """With a position that this page, or another one, may have had; or one that is still to come."""
        broker = self.broker
        name = f"e{max(0, len(broker.logs) - 1 - epoch % 3)}"
        self.process(at).join(Position(name, max(0, len(broker.logs[name]) - back)))

    @rule(at=_at)
    def end(self, at: int) -> None:
        self.process(at).end()

    @rule()
    def rest(self) -> None:
        for process in self.broker.processes:
            process.settle()
            process.check()

    def teardown(self) -> None:
        if hasattr(self, "broker"):
            self.rest()


TestFleet = Fleet.TestCase
TestFleet.settings = settings(max_examples=_EXAMPLES, stateful_step_count=40, deadline=None)
