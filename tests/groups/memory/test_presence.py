"""Who is present, in memory."""

from __future__ import annotations

from dwebsocket.groups.backend import Count, Presence, Present, Roster
from dwebsocket.groups.memory.presence import Rosters
from dwebsocket.groups.messages import Arrival


def tab(socket: str, user: str = "anna", info: str = "{}", group: str = "a") -> Presence:
    return Presence(group, socket, user, info)


def test_first_and_last_websocket_of_a_user_are_changes() -> None:
    rosters = Rosters()
    assert rosters.enter(tab("1", info="1")) == Arrival(1, True, "anna", "1")
    assert rosters.enter(tab("2", info="2")) is None
    assert rosters.roster("a") == Roster(1, [Present("anna", "2", 2)])
    assert rosters.leave(tab("1")) is None
    assert rosters.leave(tab("2", info="is not looked at")) == Arrival(2, False, "anna", "2")
    assert rosters.roster("a") == Roster(2, ())


def test_info_is_that_of_the_websocket_that_has_entered_last() -> None:
    rosters = Rosters()
    for socket, info in [("1", "one"), ("2", "two"), ("1", "one again")]:
        rosters.enter(tab(socket, info=info))
    assert rosters.roster("a").members == [Present("anna", "one again", 2)]
    rosters.leave(tab("1"))
    assert rosters.roster("a").members == [Present("anna", "two", 1)]


def test_who_is_not_there_cannot_leave() -> None:
    rosters = Rosters()
    assert rosters.leave(tab("1")) is None
    rosters.enter(tab("1"))
    assert [rosters.leave(one) for one in (tab("2"), tab("1", "bert"), tab("1", group="b"))] == [None, None, None]
    assert rosters.count("a") == Count(1, 1)


def test_nothing_is_kept_of_a_group_without_members() -> None:
    rosters = Rosters()
    for number in range(100):
        rosters.enter(tab("1", group=f"room:{number}"))
    assert len(rosters) == 100
    for number in range(100):
        rosters.leave(tab("1", group=f"room:{number}"))
    assert len(rosters) == 0
    assert rosters.groups() == []


def test_version_of_a_group_that_comes_back_is_above_the_one_that_it_had() -> None:
    rosters = Rosters()
    versions = []
    for group in ("a", "b", "b", "b", "a", "a"):
        for change in (rosters.enter(tab("1", group=group)), rosters.leave(tab("1", group=group))):
            assert change is not None
            if group == "a":
                versions.append(change.version)
    assert versions == sorted(set(versions))
    assert rosters.roster("a").version >= versions[-1]


def test_members_that_were_forgotten_show_in_the_next_version() -> None:
    """A process that knows the roster before it misses a version, and asks."""
    rosters = Rosters()
    rosters.enter(tab("1"))
    known = rosters.roster("a").version
    rosters.forget("a")
    assert rosters.roster("a").members == ()
    change = rosters.enter(tab("1"))
    assert change is not None
    assert change.version > known + 1
