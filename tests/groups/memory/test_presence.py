"""Who is present, in memory."""

from __future__ import annotations

from dwebsocket.groups.backend import Count, Presence, Present, Roster
from dwebsocket.groups.memory.presence import Attendees
from dwebsocket.groups.messages import Arrival


def tab(socket: str, user: str = "anna", info: str = "{}", group: str = "a") -> Presence:
    return Presence(group, socket, user, info)


def test_first_and_last_websocket_of_a_user_are_changes() -> None:
    rosters = Attendees()
    assert rosters.enter(tab("1")) == (True, Arrival(1, True, "anna", "{}"))
    assert rosters.enter(tab("2")) == (False, None)
    assert rosters.roster("a") == Roster(1, [Present("anna", "{}", 2)])
    assert rosters.leave(tab("1")) == (False, None)
    assert rosters.leave(tab("2", info="is not looked at")) == (True, Arrival(2, False, "anna", "{}"))
    assert rosters.roster("a") == Roster(2, ())


def test_info_is_the_one_that_was_entered_last_and_the_group_is_told() -> None:
    rosters = Attendees()
    notes = [rosters.enter(tab(socket, info=info)) for socket, info in [("1", "one"), ("2", "two"), ("1", "two")]]
    assert notes == [(True, Arrival(1, True, "anna", "one")), (False, Arrival(2, True, "anna", "two")), (False, None)]
    rosters.leave(tab("2"))
    assert rosters.roster("a") == Roster(2, [Present("anna", "two", 1)])


def test_who_is_not_there_cannot_leave() -> None:
    rosters = Attendees()
    assert rosters.leave(tab("1")) == (False, None)
    rosters.enter(tab("1"))
    for other in (tab("2"), tab("1", "bert"), tab("1", group="b")):
        assert rosters.leave(other) == (False, None)
    assert rosters.count("a") == Count(1, 1)


def test_others_stay_when_a_user_leaves() -> None:
    rosters = Attendees()
    rosters.enter(tab("1"))
    rosters.enter(tab("2", "bert"))
    assert rosters.leave(tab("1")) == (True, Arrival(3, False, "anna", "{}"))
    assert rosters.roster("a") == Roster(3, [Present("bert", "{}", 1)])
    assert rosters.groups() == ["a"]


def test_all_that_are_present_are_known() -> None:
    rosters = Attendees()
    entered = [tab("1"), tab("2", "bert", "2"), tab("1", group="b"), tab("3", group="b")]
    for each in entered:
        rosters.enter(each)
    assert sorted(rosters.present()) == sorted(entered)


def test_nothing_is_kept_of_a_group_without_members() -> None:
    rosters = Attendees()
    for number in range(100):
        rosters.enter(tab("1", group=f"room:{number}"))
    assert len(rosters) == 100
    for number in range(100):
        rosters.leave(tab("1", group=f"room:{number}"))
    assert len(rosters) == 0
    assert rosters.groups() == []


def test_version_of_a_group_that_comes_back_is_above_the_one_that_it_had() -> None:
    rosters = Attendees()
    versions = []
    for group in ("a", "b", "b", "b", "a", "a"):
        for noted in (rosters.enter(tab("1", group=group)), rosters.leave(tab("1", group=group))):
            assert noted.arrival is not None
            if group == "a":
                versions.append(noted.arrival.version)
    assert versions == sorted(set(versions))
    assert rosters.roster("a").version >= versions[-1]


def test_members_that_were_forgotten_show_in_the_next_version() -> None:
    """A process that knows the roster before it misses a version, and asks."""
    rosters = Attendees()
    rosters.enter(tab("1"))
    known = rosters.roster("a").version
    rosters.forget("a")
    assert rosters.roster("a").members == ()
    noted = rosters.enter(tab("1"))
    assert noted.arrival is not None
    assert noted.arrival.version > known + 1
