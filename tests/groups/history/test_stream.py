"""The position of a process in a history: nothing is missing, doubled or out of order, unless the members are told."""

from __future__ import annotations

import os
from unittest import mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from dwebsocket.groups.backend import Kept, Read, Want
from dwebsocket.groups.history import stream
from dwebsocket.groups.history.stream import Budget, Found, Mended, Ring, Stream
from dwebsocket.groups.position import START, Position
from tests.groups.streams import Broker, Process

#: So many runs of the model; an environment variable makes it thousands.
_EXAMPLES = int(os.environ.get("STREAM_EXAMPLES", "60"))

_at = st.integers(0, 1000)


class Fleet(RuleBasedStateMachine):
    """A broker and its processes, under all that can happen to them."""

    @initialize(
        history=st.sampled_from([1, 3, 10]),
        processes=st.integers(1, 3),
        ahead=st.sampled_from([2, 200]),
        is_tight=st.booleans(),
    )
    def begin(self, history: int, processes: int, ahead: int, is_tight: bool) -> None:
        self.patch = mock.patch.object(stream, "READ_AHEAD", ahead)
        self.patch.start()
        self.broker = Broker(history)
        for _ in range(processes):
            Process(self.broker, is_tight=is_tight)

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
            try:
                self.rest()
            finally:
                self.patch.stop()


TestFleet = Fleet.TestCase
TestFleet.settings = settings(max_examples=_EXAMPLES, stateful_step_count=40, deadline=None)


# One rule after the other


def stream_at(position: Position, *messages: str, history: int = 10, ttl: float = 60, budget: int = 10**9) -> Stream:
    """A whole stream that has had those messages, up to `position`."""
    made = Stream(history, ttl, 1000, Budget(budget))
    before = position.offset - len(messages)
    made.mend(Read(Position(position.epoch, before)), made.ask()._replace(want=Want()), 0)
    for offset, message in enumerate(messages, before + 1):
        assert made.arrive(Position(position.epoch, offset), message.encode(), 0)
    assert made.is_whole
    return made


def kept(first: int, *messages: str) -> list[Kept]:
    return [Kept(offset, message.encode()) for offset, message in enumerate(messages, first)]


def test_message_that_has_come_before_is_dropped_and_the_next_one_passed_on() -> None:
    made = stream_at(Position("a", 5))
    assert not made.arrive(Position("a", 5), b"5", 0)
    assert made.arrive(Position("a", 6), b"6", 0)
    assert made.is_whole
    assert made.known == ("a", 6)


def test_message_behind_a_hole_waits_for_the_read_that_mends_it() -> None:
    made = stream_at(Position("a", 5))
    assert not made.arrive(Position("a", 7), b"7", 0)
    assert not made.is_whole
    asked = made.ask()
    assert asked.want == Want(Position("a", 5), 10)
    made.arrive(Position("a", 8), b"8", 0)
    assert made.mend(Read(Position("a", 7), kept(6, "6", "7")), asked, 0) == Mended(
        None, [(Position("a", 6), b"6"), (Position("a", 7), b"7"), (Position("a", 8), b"8")]
    )
    assert made.is_whole


def test_what_the_history_does_not_have_any_more_is_a_gap_before_the_rest() -> None:
    made = stream_at(Position("a", 5))
    made.arrive(Position("a", 9), b"9", 0)
    assert made.mend(Read(Position("a", 9), kept(8, "8", "9")), made.ask(), 0) == Mended(
        Position("a", 7), [(Position("a", 8), b"8"), (Position("a", 9), b"9")]
    )


def test_check_that_finds_a_hole_asks_once_more_before_it_is_a_gap() -> None:
    """The messages may be on their way: an answer may overtake them."""
    made = stream_at(Position("a", 5))
    assert made.mend(Read(Position("a", 9), kept(8, "8", "9")), made.ask(), 0) == Mended()
    assert not made.is_whole
    asked = made.ask()
    for offset in (6, 7):
        made.arrive(Position("a", offset), b"x", 0)
    gap, messages = made.mend(Read(Position("a", 9), kept(8, "8", "9")), asked, 0)
    assert gap is None
    assert [position.offset for position, _ in messages] == [6, 7, 8, 9]


def test_check_finds_the_last_message() -> None:
    made = stream_at(Position("a", 5))
    asked = made.ask()
    assert asked.want == Want(), "the last position is enough, where nothing is missing"
    assert made.mend(Read(Position("a", 6)), asked, 0) == Mended()
    asked = made.ask()
    assert asked.want == Want(Position("a", 5), 10), "else it is a doubt"
    gap, messages = made.mend(Read(Position("a", 6), kept(6, "6")), asked, 0)
    assert (gap, messages) == (None, [(Position("a", 6), b"6")])


def test_answer_to_a_question_of_before_the_latest_doubt_is_none() -> None:
    made = stream_at(Position("a", 5))
    asked = made.ask()
    made.doubt()
    assert made.mend(Read(Position("a", 6), kept(6, "6")), asked, 0) == Mended()
    assert not made.is_whole
    assert not made.is_current(asked)


def test_answer_for_a_stream_that_was_closed_is_none_for_the_next_one() -> None:
    """The last member of a group has left, and another one has come, while the question was on its way."""
    asked = Stream(10, 60, 1000, Budget()).ask()
    made = Stream(10, 60, 1000, Budget())
    made.mend(Read(Position("a", 5)), asked, 0)
    assert not made.is_whole


def test_other_epoch_is_a_gap_and_the_one_before_is_gone() -> None:
    made = stream_at(Position("a", 5))
    made.arrive(Position("b", 1), b"1", 0)
    assert made.mend(Read(Position("b", 1), kept(1, "1")), made.ask(), 0) == Mended(
        Position("b", 0), [(Position("b", 1), b"1")]
    )
    assert made.find(Position("a", 5), 0) == Found(Position("b", 1), Position("b", 1), False)


def test_cleared_history_goes_on_without_a_gap() -> None:
    made = stream_at(Position("a", 2), "1", "2")
    made.reset(Position("b", 0), Position("a", 2))
    assert made.arrive(Position("b", 1), b"1", 0)
    assert made.find(Position("a", 1), 0) == Found(Position("b", 1), Position("b", 1), False)
    found = made.find(START, 0)
    assert found is not None
    assert found.missed == kept(1, "1")


def test_history_that_is_cleared_while_messages_may_be_missing_is_no_gap_where_none_is() -> None:
    """A check sees the new epoch before the RESET comes."""
    made = stream_at(Position("a", 5))
    assert made.mend(Read(Position("b", 0)), made.ask(), 0) == Mended()
    asked = made.ask()
    made.reset(Position("b", 0), Position("a", 5))
    assert made.mend(Read(Position("b", 0)), asked, 0) == Mended()
    assert not made.is_whole
    assert made.mend(Read(Position("b", 0)), made.ask(), 0) == Mended(None, [])
    assert made.is_whole
    assert made.known == ("b", 0)


@pytest.mark.parametrize("previous", [None, Position("a", 4), Position("c", 5)])
def test_history_that_was_cleared_behind_another_position_must_be_read(previous: Position | None) -> None:
    made = stream_at(Position("a", 5))
    made.reset(Position("b", 0), previous)
    assert not made.is_whole


def test_too_much_that_waits_is_read_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_EARLY_MESSAGES", 3)
    made = stream_at(Position("a", 0), history=20)
    asked = made.ask()
    for offset in range(2, 9):
        made.arrive(Position("a", offset), b"x", 0)
    assert len(made._early) <= 3
    assert not made.is_current(asked)
    gap, messages = made.mend(Read(Position("a", 8), kept(1, *"12345678")), made.ask(), 0)
    assert gap is None
    assert [position.offset for position, _ in messages] == [*range(1, 9)]


# Those that come back


def test_member_that_comes_back_finds_what_it_missed_without_a_question() -> None:
    made = stream_at(Position("a", 5), *"345")
    for since, missed in ((5, []), (4, kept(5, "5")), (2, kept(3, *"345"))):
        assert made.find(Position("a", since), 0) == Found(Position("a", since), Position("a", 5), True, missed)
    assert made.find(Position("a", 1), 0) is None
    assert made.find(Position("a", 6), 0) is None, "another process may be ahead of this one"
    assert made.find(Position("b", 5), 0) is None


@pytest.mark.parametrize("since", [Position("a", 1), Position("a", 6), Position("b", 5)])
def test_member_whose_position_was_asked_for_in_vain_is_not_recovered(since: Position) -> None:
    made = stream_at(Position("a", 5), *"345")
    assert made.find(since, 0, was_read=True) == Found(Position("a", 5), Position("a", 5), False)


def test_member_that_is_behind_the_whole_history_needs_no_question() -> None:
    made = stream_at(Position("a", 50), *"345")
    assert made.find(Position("a", 39), 0) == Found(Position("a", 50), Position("a", 50), False)
    assert made.find(Position("a", 40), 0) is None


def test_epoch_that_the_broker_did_not_have_is_asked_for_once() -> None:
    made = stream_at(Position("a", 5))
    assert made.find(Position("b", 5), 0) is None
    made.find(Position("b", 5), 0, was_read=True)
    assert made.find(Position("b", 1), 0) == Found(Position("a", 5), Position("a", 5), False)


def test_one_question_serves_the_member_that_is_farthest_behind() -> None:
    made = stream_at(Position("a", 50), history=1000)
    assert made.ask([Position("a", 40), None, Position("a", 20), "?"]).want == Want(Position("a", 20), 200)
    assert made.ask([START]).want == Want(Position("a", 50), 1000)
    assert made.ask([Position("a", 40), Position("b", 20)]).want == Want(Position("a", 40), 200)
    made.doubt()
    assert made.ask([Position("a", 40), Position("b", 20)]).want == Want(Position("a", 40), 1000), "or is it the other?"


@pytest.mark.parametrize("since", [Position("b", 20), Position("a", 51), Position("a", 10**40)])
def test_position_that_a_page_has_made_up_is_asked_for_without_messages(since: Position) -> None:
    """Each page may send another one, and each would make the broker read the whole history."""
    made = stream_at(Position("a", 50), history=1000)
    asked = made.ask([since])
    assert asked.want == Want()
    assert made.mend(Read(Position("a", 50)), asked, 0) == Mended()
    assert made.find(since, 0, was_read=True) == Found(Position("a", 50), Position("a", 50), False)


def test_position_of_another_process_that_is_ahead_is_found_with_what_comes_behind_ours() -> None:
    made = stream_at(Position("a", 5), *"345")
    asked = made.ask([Position("a", 6)])
    made.mend(Read(Position("a", 7), kept(6, *"67")), asked, 0)
    assert made.find(Position("a", 6), 0) == Found(Position("a", 6), Position("a", 7), True, kept(7, "7"))


def test_epoch_that_this_process_does_not_know_yet_is_asked_for_once_more() -> None:
    made = stream_at(Position("a", 50), history=1000)
    since = Position("b", 1)
    assert made.mend(Read(Position("b", 2)), made.ask([since]), 0) == Mended()
    assert made.find(since, 0, was_read=True) is None
    asked = made.ask([since])
    assert asked.want == Want(Position("a", 50), 1000)
    made.mend(Read(Position("b", 2), kept(1, *"12")), asked, 0)
    assert made.find(since, 0, was_read=True) == Found(since, Position("b", 2), True, kept(2, "2"))


def test_more_than_a_member_may_be_given_is_not_read_again() -> None:
    """Each page that is so far behind would make the broker read all of it, in vain."""
    budget = Budget(0)  # nothing stays in this process
    made = Stream(1000, 60, 10, budget)
    made.mend(Read(Position("a", 100), kept(91, *["12345"] * 10)), made.ask([Position("a", 90)]), 0)
    top = Position("a", 100)
    assert made.find(Position("a", 90), 0, was_read=True) == Found(top, top, False)
    made.settle()
    assert made.find(Position("a", 90), 0) == Found(top, top, False)
    assert made.find(Position("a", 97), 0) == Found(top, top, False)
    assert made.find(Position("a", 98), 0) is None, "that is little enough"
    assert made.ask([Position("a", 98)]).want == Want(Position("a", 98), 3)
    assert made.find(START, 0) is None
    asked = made.ask([START])
    assert asked.want == Want(Position("a", 97), 3)
    made.mend(Read(top, kept(98, *["12345"] * 3)), asked, 0)
    assert made.find(START, 0) == Found(Position("a", 98), top, None, kept(99, *["12345"] * 2)), "all that goes"
    made.doubt()
    assert made.ask([START]).want == Want(top, 1000), "the broker may have another epoch by now"


def test_first_question_brings_what_each_epoch_may_have_missed() -> None:
    messages = kept(1, *["x"] * 900)
    for sinces in ([Position("a", 3), Position("b", 1)], [Position("b", 1), Position("a", 3)]):
        made = Stream(1000, 60, 1000, Budget())
        asked = made.ask(sinces)
        first = asked.expects(Position("b", 900))
        made.mend(Read(Position("b", 900), messages[first - 1 :]), asked, 0)
        found = made.find(Position("b", 1), 0, was_read=True)
        assert found is not None
        assert found.recovered


def test_more_than_a_member_may_be_given_at_once_is_not_recovered() -> None:
    made = Stream(10, 60, 10, Budget())
    made.mend(Read(Position("a", 3), kept(1, "12345", "67890", "!")), made.ask(), 0)
    top = Position("a", 3)
    assert made.find(Position("a", 1), 0) == Found(Position("a", 1), top, True, kept(2, "67890", "!"))
    assert made.find(Position("a", 0), 0) == Found(top, top, False)
    assert made.find(START, 0) == Found(Position("a", 1), top, None, kept(2, "67890", "!")), "as much as goes"


def test_from_the_start_is_all_that_is_kept() -> None:
    made = stream_at(Position("a", 20), *"234", history=3)
    assert made.find(START, 0) == Found(Position("a", 17), Position("a", 20), None, kept(18, *"234"))
    assert made.find(START, 61) == Found(Position("a", 20), Position("a", 20), None, []), "they have expired"
    assert stream_at(Position("a", 20), *"23", history=3).find(START, 0) is None, "there may be more"


def test_what_has_expired_at_the_broker_is_not_given_from_the_start() -> None:
    """The process has it still, and does not know when the message of before its time came."""
    made = Stream(10, 60, 1000, Budget())
    made.mend(Read(Position("a", 3), kept(1, *"123")), made.ask(), 0)
    made.mend(Read(Position("a", 3)), made.ask([START]), 1)
    assert made.find(START, 1) == Found(Position("a", 3), Position("a", 3), None, [])


# Memory


def test_ring_is_bounded_in_messages_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = Budget()
    ring = Ring(3, budget)
    for one in kept(1, *"12345"):
        ring.append(one)
    assert ring.after(0) == kept(3, *"345")
    assert ring.is_full()
    monkeypatch.setattr(stream, "RING_BYTES", budget.used)
    ring.append(Kept(6, b"6" * 100))
    assert ring.after(0) == [Kept(5, b"5"), Kept(6, b"6" * 100)]


def test_all_rings_together_are_bounded_and_what_is_closed_counts_no_more() -> None:
    budget = Budget(400)
    rings = [Ring(100, budget) for _ in range(2)]
    for one in kept(1, *"12345"):
        for ring in rings:
            ring.append(one)
    assert budget.used <= 400
    for ring in rings:
        ring.close()
    assert budget.used == 0


def test_message_that_comes_while_the_last_member_leaves_takes_no_memory() -> None:
    made = stream_at(Position("a", 2), *"12")
    budget = made._ring._budget
    assert budget.used
    made.close()
    made.arrive(Position("a", 3), b"3", 0)
    assert budget.used == 0


def test_check_of_what_is_as_it_was_makes_nothing_anew() -> None:
    made = stream_at(Position("a", 3), *"123")
    ring = made._ring._kept
    with mock.patch.object(Ring, "replace") as replace:
        assert made.mend(Read(Position("a", 3)), made.ask(), 0) == Mended()
    assert replace.mock_calls == []
    assert made._ring._kept is ring
