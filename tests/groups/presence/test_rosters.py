"""The rosters that members of this process are told, with a backend as the test wants it."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from dwebsocket.exceptions import GroupsUnavailable
from dwebsocket.groups.audience import Entrance
from dwebsocket.groups.backend import Present, Roster
from dwebsocket.groups.lane import Lane
from dwebsocket.groups.messages import Arrival
from dwebsocket.groups.presence import rosters
from dwebsocket.groups.presence.rosters import Rosters
from tests.groups.lanes import Offered, StillReactor, WebSocketOf, kind
from tests.links import until

ANN, BOB = '{"name":"ann"}', '{"name":"bob"}'


class Place:
    """Rosters over a backend that answers as it is told."""

    def __init__(self) -> None:
        self.answers: list[Roster | Exception] = []
        self.reads = 0
        self.go_on = threading.Event()
        self.go_on.set()
        self.reactor = StillReactor()
        self.lane = Lane(self.reactor, lambda members: None)
        self.put: list[Any] = []
        self.lane.put = lambda audience, item: self.put.append((audience, item))  # type: ignore[method-assign]
        self.rosters = Rosters("default", self.read, lambda reactor: self.lane)

    def read(self, group: str) -> Roster:
        self.reads += 1
        assert self.go_on.wait(20)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def join(self) -> Any:
        return self.rosters.join(WebSocketOf(1, Offered(self.reactor)), "room", Offered(self.reactor), kind())

    def texts(self) -> list[dict[str, Any]]:
        return [
            json.loads(item.note if isinstance(item, Entrance) else item.payload)  # type: ignore[arg-type]
            for _, item in list(self.put)
        ]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rosters, "GATHER_SECONDS", 0.02)


@pytest.fixture
def place() -> Any:
    made = Place()
    made.reactor.latch = lambda: _Open()  # type: ignore[method-assign,return-value,assignment]
    yield made
    made.rosters.close()


class _Open:
    """A latch that no lane opens."""

    def set(self) -> None: ...

    def wait(self, timeout_seconds: float | None = None, /) -> None: ...


def infos(members: list[dict[str, Any]]) -> list[str]:
    return [member["info"]["name"] for member in members]


def test_many_that_come_in_at_once_read_once(place: Place) -> None:
    place.answers = [Roster(5, [Present("u1", ANN, 1)])]
    place.go_on.clear()
    threads = [threading.Thread(target=place.join) for _ in range(10)]
    for thread in threads:
        thread.start()
    until(lambda: place.reads == 1)
    place.go_on.set()
    for thread in threads:
        thread.join(20)
    assert place.reads == 1
    assert [infos(text["here"]) for text in place.texts()] == [["ann"]] * 10


def test_member_that_cannot_be_told_is_no_member(place: Place) -> None:
    place.answers = [GroupsUnavailable("down"), Roster(1, [])]
    with pytest.raises(GroupsUnavailable):
        place.join()
    assert not place.rosters._told
    place.join()
    assert place.texts() == [{"g": "room", "here": []}]


def test_changes_of_one_moment_are_one_text_and_a_hole_is_read_again(place: Place) -> None:
    place.answers = [Roster(5, [Present("u1", ANN, 1)])]
    place.join()
    place.rosters.arrive("room", Arrival(6, True, "u2", BOB))
    place.rosters.arrive("room", Arrival(7, False, "u1", ANN))
    until(lambda: len(place.put) == 2)
    (text,) = place.texts()[1:]
    assert (infos(text["came"]), len(text["went"]), place.reads) == (["bob"], 1, 1)

    place.answers = [Roster(9, [])]
    place.rosters.arrive("room", Arrival(9, False, "u2", BOB))
    until(lambda: len(place.put) == 3)
    assert (place.texts()[-1]["came"], len(place.texts()[-1]["went"]), place.reads) == ([], 1, 2)


def test_doubt_is_read_again_for_as_long_as_the_backend_does_not_answer(place: Place) -> None:
    place.answers = [Roster(5, [Present("u1", ANN, 1)]), GroupsUnavailable("down"), LookupError(), Roster(2, [])]
    place.join()
    place.rosters.doubt(["room", "another"])
    until(lambda: len(place.put) == 2)
    assert len(place.texts()[-1]["went"]) == 1
    assert place.reads == 4


def test_group_without_members_costs_nothing(place: Place) -> None:
    place.answers = [Roster(5, [])]
    member = place.join()
    place.rosters.leave(member)
    place.rosters.leave(member)
    assert not place.rosters._told
    place.rosters.arrive("room", Arrival(6, True, "u2", BOB))
    place.rosters.doubt(["room"])
    assert not place.rosters._due
    assert place.reads == 1


def test_backend_whose_version_stays_behind_what_it_has_announced_is_not_asked_for_ever(place: Place) -> None:
    """A former primary answers, while the next one announces."""
    place.answers = [Roster(5, [Present("u1", ANN, 1)])]
    place.join()
    place.rosters.arrive("room", Arrival(9, True, "u2", BOB))
    place.join()
    assert place.reads <= 6
    place.answers = [Roster(9, [Present("u1", ANN, 1), Present("u2", BOB, 1)])]
    until(lambda: [infos(text["came"]) for text in place.texts() if "came" in text] == [["bob"]])


def test_member_that_is_interrupted_while_its_snapshot_is_on_its_way_is_no_member(place: Place) -> None:
    class Interrupting(_Open):
        def wait(self, timeout_seconds: float | None = None, /) -> None:
            raise KeyboardInterrupt

    place.answers = [Roster(5, [])]
    place.reactor.latch = Interrupting  # type: ignore[method-assign,assignment]
    with pytest.raises(KeyboardInterrupt):
        place.join()
    assert not place.rosters._told


def test_roster_is_told_later_where_no_thread_can_be_started(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.answers = [Roster(5, [])]
    place.join()

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        place.rosters.arrive("room", Arrival(6, True, "u1", ANN))
    place.rosters.arrive("room", Arrival(7, True, "u2", BOB))
    until(lambda: len(place.put) == 2)
    assert infos(place.texts()[-1]["came"]) == ["ann", "bob"]
