"""A page that applies what it is sent knows who is present, whatever comes in whichever order."""

from __future__ import annotations

import json
from collections.abc import Iterator
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwebsocket.groups import page
from dwebsocket.groups.backend import Present, Roster
from dwebsocket.groups.messages import Arrival
from dwebsocket.groups.presence.roster import MAX_WAITING, RosterView

GROUP = "room:7"


class Page:
    """What a page knows: the infos of all, or their number alone."""

    def __init__(self, snapshot: str) -> None:
        self.knows: dict[str, object] | int = {}
        self.apply([snapshot])

    def apply(self, texts: list[str]) -> None:
        for text in texts:
            told = json.loads(text)
            assert told.pop("g") == GROUP
            if "count" in told:
                assert told["count"] != self.knows, "a text that says nothing"
                self.knows = told["count"]
            elif "here" in told:
                self.knows = {member["id"]: member["info"] for member in told["here"]}
            else:
                self.change(told["came"], told["went"])

    def change(self, came: list[dict[str, object]], went: list[str]) -> None:
        assert isinstance(self.knows, dict)
        assert came or went
        for member in came:
            assert self.knows.get(str(member["id"]), "not there") != member["info"], "a text that says nothing"
            self.knows[str(member["id"])] = member["info"]
        for user in went:
            del self.knows[user]  # KeyError: it was never told


def knowledge(members: dict[str, str]) -> dict[str, object] | int:
    """What a page knows that was told of these members."""
    if len(members) > page.MAX_NAMED:
        return len(members)
    return {page._id(user): json.loads(info) for user, info in members.items()}


def roster(version: int, **infos: str) -> Roster:
    return Roster(version, [Present(user, info, 1) for user, info in infos.items()])


def came(version: int, user: str, info: str = "1") -> Arrival:
    return Arrival(version, True, user, info)


def went(version: int, user: str) -> Arrival:
    return Arrival(version, False, user, "1")


def view_of(version: int = 1, **infos: str) -> RosterView:
    """A view that knows this, and has told it."""
    view = RosterView(GROUP)
    view.read(roster(version, **infos))
    view.snapshot()
    return view


@pytest.fixture
def _few_are_named() -> Iterator[None]:
    with mock.patch.object(page, "MAX_NAMED", 2):
        yield


# Versions


def test_nothing_is_known_before_the_first_snapshot() -> None:
    view = RosterView(GROUP)

    assert view.needs_read
    assert view.tell() == []
    with pytest.raises(RuntimeError, match="the roster has not been read yet"):
        view.snapshot()


def test_arrival_before_the_first_snapshot_waits_for_it() -> None:
    view = RosterView(GROUP)
    view.arrive(came(4, "anne"))
    view.arrive(came(5, "bert"))
    view.read(roster(4, anne="1"))

    assert view.members == {"anne": "1", "bert": "1"}
    assert not view.needs_read


@pytest.mark.parametrize("version", [3, 4])
def test_arrival_that_the_snapshot_has_is_ignored(version: int) -> None:
    view = view_of(4, anne="1")
    view.arrive(went(version, "anne"))

    assert view.members == {"anne": "1"}
    assert not view.needs_read


def test_hole_needs_a_snapshot_that_reaches_over_it() -> None:
    view = view_of(4, anne="1")
    view.arrive(came(6, "carl"))
    assert view.needs_read
    assert view.members == {"anne": "1"}
    view.read(roster(4, anne="1"))  # was asked for before
    assert view.needs_read
    view.read(roster(5, anne="1", bert="1"))

    assert not view.needs_read
    assert view.members == {"anne": "1", "bert": "1", "carl": "1"}


def test_hole_is_closed_by_the_arrival_that_was_missing() -> None:
    view = view_of(4)
    view.arrive(came(6, "bert"))
    view.arrive(came(5, "anne"))

    assert not view.needs_read
    assert view.members == {"anne": "1", "bert": "1"}


def test_older_snapshot_is_ignored() -> None:
    view = view_of(4, anne="1")
    view.read(roster(3))

    assert view.members == {"anne": "1"}


def test_after_a_loss_a_snapshot_of_any_version_is_taken() -> None:
    view = view_of(40, anne="1", bert="1")
    view.arrive(came(42, "x"))
    view.lose()
    assert view.needs_read
    view.arrive(came(3, "carl"))
    view.read(roster(2, anne="1"))

    assert not view.needs_read
    assert view.members == {"anne": "1", "carl": "1"}


def test_arrivals_that_wait_are_bounded() -> None:
    view = RosterView(GROUP)
    for version in range(1, MAX_WAITING * 3):
        view.arrive(came(version, f"user {version}"))
    assert len(view._waiting) == MAX_WAITING
    view.read(roster(1, first="1"))
    assert view.needs_read
    view.read(roster(MAX_WAITING * 3 - 1, first="1"))

    assert not view.needs_read
    assert view.members == {"first": "1"}


# What is told


def test_changes_are_gathered_and_told_once() -> None:
    view = view_of(1, anne='"A"', bert='"B"')
    view.arrive(went(2, "anne"))
    view.arrive(came(3, "carl", '"C"'))
    view.arrive(came(4, "bert", '"b"'))
    (text,) = view.tell()

    assert view.tell() == []
    told = json.loads(text)
    assert told == {
        "g": GROUP,
        "came": [{"id": page._id("carl"), "info": "C"}, {"id": page._id("bert"), "info": "b"}],
        "went": [page._id("anne")],
    }


def test_user_that_leaves_and_comes_back_in_between_has_not_been_away() -> None:
    view = view_of(1, anne="1")
    view.arrive(went(2, "anne"))
    view.arrive(came(3, "anne"))
    view.arrive(came(4, "bert"))
    view.arrive(went(5, "bert"))

    assert view.tell() == []


def test_user_that_comes_back_with_another_info_is_told() -> None:
    view = view_of(1, anne="1")
    view.arrive(went(2, "anne"))
    view.arrive(came(3, "anne", "2"))
    (text,) = view.tell()

    assert json.loads(text) == {"g": GROUP, "came": [{"id": page._id("anne"), "info": 2}], "went": []}


def test_snapshot_is_the_told_state_and_the_next_text_fits_it() -> None:
    view = view_of(1, anne="1")
    view.arrive(went(2, "anne"))
    view.arrive(came(3, "bert"))
    late = Page(view.snapshot())
    assert late.knows == knowledge({"anne": "1"})
    late.apply(view.tell())

    assert late.knows == knowledge({"bert": "1"})
    assert Page(view.snapshot()).knows == knowledge({"bert": "1"})


def test_state_is_not_told_before_there_is_a_member() -> None:
    view = RosterView(GROUP)
    view.read(roster(1))
    view.arrive(came(2, "anne"))
    assert view.tell() == []

    assert Page(view.snapshot()).knows == knowledge({"anne": "1"})
    assert view.tell() == []


def test_snapshot_is_made_once_for_all_who_join_in_between() -> None:
    view = view_of(1, anne="1")
    with mock.patch.object(page, "here", side_effect=AssertionError):
        assert Page(view.snapshot()).knows == Page(view.snapshot()).knows


@pytest.mark.usefixtures("_few_are_named")
def test_many_members_are_a_number_and_few_again_are_told_whole() -> None:
    view = view_of(1, anne="1", bert="1")
    told = []
    for arrival in (came(2, "carl"), came(3, "dora"), came(4, "dora", "2"), went(5, "anne"), went(6, "bert")):
        view.arrive(arrival)
        told.append([json.loads(text) for text in view.tell()])

    assert told[:4] == [[{"g": GROUP, "count": 3}], [{"g": GROUP, "count": 4}], [], [{"g": GROUP, "count": 3}]]
    here = [{"id": page._id("carl"), "info": 1}, {"id": page._id("dora"), "info": 2}]
    assert told[4] == [{"g": GROUP, "here": here}]


# All of it

USERS = st.sampled_from("abcde")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("change"), USERS, st.integers(0, 2)),  # at the broker
        st.tuples(st.just("deliver")),
        st.tuples(st.just("drop")),
        st.tuples(st.just("repeat"), st.integers(0, 20)),
        st.tuples(st.just("ask")),  # for a snapshot
        st.tuples(st.just("answer")),  # may be older than what has arrived
        st.tuples(st.just("lose")),
        st.tuples(st.just("join")),
        st.tuples(st.just("tell")),
    ),
    max_size=60,
)


class World:
    """A broker, the way from it, a view, and the pages that know what it tells."""

    def __init__(self) -> None:
        self.truth: dict[str, str] = {}
        self.version = 0
        self.sent: list[Arrival] = []
        self.delivered = 0
        self.asked: list[Roster] = []
        self.view = RosterView(GROUP)
        self.pages: list[Page] = []

    def change(self, user: str, info: int) -> None:
        """Let a user come with that info, or with another one; 0: go."""
        if not info and user not in self.truth:
            return
        self.version += 1
        if info:
            self.truth[user] = str(info)
        else:
            del self.truth[user]
        self.sent.append(Arrival(self.version, bool(info), user, str(info)))

    def deliver(self) -> None:
        if self.delivered < len(self.sent):
            self.view.arrive(self.sent[self.delivered])
            self.delivered += 1

    def drop(self) -> None:
        self.delivered = min(self.delivered + 1, len(self.sent))

    def repeat(self, back: int) -> None:
        if back < self.delivered:
            self.view.arrive(self.sent[self.delivered - 1 - back])

    def ask(self) -> None:
        self.asked.append(roster(self.version, **self.truth))

    def answer(self) -> None:
        if self.asked:
            self.view.read(self.asked.pop(0))

    def lose(self) -> None:
        self.asked.clear()  # what was asked for before does not count
        self.view.lose()

    def join(self) -> None:
        if self.view._version is not None:
            self.pages.append(Page(self.view.snapshot()))

    def tell(self) -> None:
        texts = self.view.tell()
        for listener in self.pages:
            listener.apply(texts)
            assert listener.knows == knowledge(dict(self.view.members))


@given(steps=STEPS)
@mock.patch.object(page, "MAX_NAMED", 2)
def test_pages_have_exactly_the_roster_after_each_text(steps: list[tuple[object, ...]]) -> None:
    world = World()
    for name, *arguments in steps:
        getattr(world, str(name))(*arguments)
        assert all(listener.knows == world.pages[0].knows for listener in world.pages)
    while world.delivered < len(world.sent):
        world.deliver()
    if world.view.needs_read or world.view._version != world.version:  # the last one was dropped: nothing tells it
        world.ask()
        while world.asked:
            world.answer()
    world.join()
    world.tell()

    assert not world.view.needs_read
    assert world.view.members == world.truth
