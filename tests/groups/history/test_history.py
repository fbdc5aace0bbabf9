"""What a history passes to the lanes, and where members come in: in one order."""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest

from dwebsocket.groups import page
from dwebsocket.groups.audience import Entrance, Member
from dwebsocket.groups.backend import Kept, Read
from dwebsocket.groups.history.history import Admission, History
from dwebsocket.groups.history.stream import Budget, Stream
from dwebsocket.groups.messages import GAP, RESET, Envelope
from dwebsocket.groups.position import START, Position
from tests.groups.lanes import FORWARDED, kind
from tests.groups.streams import payload


class Desk:
    """A history, and in `log` what it has put to the lanes."""

    def __init__(self, *, is_whole: bool = True) -> None:
        self.log: list[Envelope | Entrance] = []
        self.history = History(
            "room",
            Stream(100, 60, 10_000, Budget()),
            self.log.append,
            lambda member, entrance: self.log.append(entrance),
        )
        if is_whole:
            self.history.answer(Read(Position("e", 0)), self.history.ask([]), [])

    def arrive(self, *offsets: int) -> list[bool]:
        return [self.history.arrive(Position("e", offset), payload(str(offset))) for offset in offsets]

    @property
    def told(self) -> list[str]:
        """The messages and gaps, by their positions, and "in" for a member."""
        return [
            "in" if isinstance(one, Entrance) else f"gap {one.position}" if one.kind == GAP else str(one.position)
            for one in self.log
        ]


def admission(since: Position | str | None = None, **options: Any) -> Admission:
    chosen = kind(**options) if options else FORWARDED
    return Admission(cast(Member, object()), chosen, since, cast(Any, threading.Event()))


def kept(*offsets: int) -> list[Kept]:
    return [Kept(offset, payload(str(offset))) for offset in offsets]


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_messages_are_passed_on_with_their_positions(desk: Desk) -> None:
    assert desk.arrive(1, 2) == [False, False]
    assert desk.log == [Envelope.parse(payload(str(n)), Position("e", n)) for n in (1, 2)]


def test_message_behind_a_hole_asks_for_a_read_and_waits(desk: Desk) -> None:
    assert desk.arrive(1, 3) == [False, True]
    assert desk.told == ["e-1"]
    assert desk.history.answer(Read(Position("e", 3), kept(2, 3)), desk.history.ask([]), []) == (False, False, [])
    assert desk.told == ["e-1", "e-2", "e-3"]


def test_member_comes_in_between_two_messages(desk: Desk) -> None:
    desk.arrive(1)
    one = admission(Position("e", 0))
    assert desk.history.admit(one)
    desk.arrive(2)
    assert desk.told == ["e-1", "in", "e-2"]
    entrance = cast(Entrance, desk.log[1])
    assert entrance == Entrance(one.member, one.kind, None, "e", kept(1), one.come_in)
    assert not one.is_in
    entrance.done()
    assert one.is_in
    assert cast(Any, one.latch).is_set()


def test_member_that_understands_it_is_told_where_it_comes_in(desk: Desk) -> None:
    desk.arrive(1, 2)
    notes = []
    for since in (Position("e", 1), Position("e", 2), START, "?", None):
        assert desk.history.admit(admission(since, translate=page.envelope))
        notes.append(cast(Entrance, desk.log[-1]).note)
    assert notes == [
        page.joined("room", "e-1", True),
        page.joined("room", "e-2", True),
        page.joined("room", "e-0", None),
        page.joined("room", "e-2", False),
        page.joined("room", "e-2", None),
    ]


def test_members_of_a_history_that_is_not_known_yet_wait_for_the_answer() -> None:
    desk = Desk(is_whole=False)
    admissions = [admission(since) for since in (None, Position("e", 1), Position("f", 1))]
    assert not any(map(desk.history.admit, admissions))
    asked = desk.history.ask(admissions)
    desk.arrive(4)
    assert desk.history.answer(Read(Position("e", 3), kept(1, 2, 3)), asked, admissions) == (False, False, [])
    assert desk.told == ["e-4", "in", "in", "in"]
    found = [one.found for one in admissions]
    assert [one and one.recovered for one in found] == [None, True, False]
    assert found[1] is not None
    assert found[1].missed == kept(2, 3, 4)


def test_member_whose_time_is_over_does_not_come_in() -> None:
    desk = Desk(is_whole=False)
    late, other = admission(), admission()
    late.is_over = True
    assert desk.history.answer(Read(Position("e", 3)), desk.history.ask([late, other]), [late, other]) == (
        False,
        False,
        [],
    )
    assert desk.told == ["in"]
    assert late.found is None


def test_answer_that_comes_after_another_doubt_serves_no_member() -> None:
    """It may have been given before the member was where it says."""
    desk = Desk(is_whole=False)
    one = admission(Position("f", 3))
    asked = desk.history.ask([one])
    desk.history.doubt()
    assert desk.history.answer(Read(Position("e", 1)), asked, [one]) == (False, True, [one])
    assert desk.log == []
    later = desk.history.ask([])
    desk.history.answer(Read(Position("e", 30), kept(30)), later, [])
    assert desk.history.answer(Read(Position("e", 1)), asked, [one]) == (False, False, [one]), "it is asked for again"
    assert desk.log == []


def test_gap_is_told_to_all(desk: Desk) -> None:
    desk.arrive(5)
    answered = desk.history.answer(Read(Position("e", 5), kept(4, 5)), desk.history.ask([]), [])
    assert answered == (True, False, [])
    assert desk.told == ["gap e-3", "e-4", "e-5"]


def test_what_is_no_message_is_logged_and_loses_no_other(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.arrive(1)
    desk.history.arrive(Position("e", 2), b"of another program")
    desk.arrive(3)
    assert desk.told == ["e-1", "e-3"]
    assert "a message to the group 'room' is no message of this version" in caplog.text


def test_history_that_is_cleared_tells_members_nothing(desk: Desk) -> None:
    desk.arrive(1)
    assert not desk.history.arrive(Position("f", 0), Envelope(RESET, b"e-1").serialize())
    assert not desk.history.arrive(Position("f", 1), payload("1"))
    assert desk.told == ["e-1", "f-1"]
    assert desk.history.arrive(Position("g", 0), Envelope(RESET, b"").serialize()), "what was before is not known"


def test_members_share_what_is_kept(desk: Desk) -> None:
    desk.arrive(*range(1, 50))
    for _ in range(2):
        desk.history.admit(admission(START))
    one, two = (cast(Entrance, entrance) for entrance in desk.log[-2:])
    assert len(one.missed) == 49
    assert all(mine is other for mine, other in zip(one.missed, two.missed, strict=True))
