"""The deadlines of many links in one heap, and what must not overlap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwebsocket.reactors.base import Deadlines, Locked


def test_function_that_must_not_overlap_with_itself_is_told_so_where_it_would_wait_for_itself() -> None:
    exclusively, done = Locked(), []
    with pytest.raises(RuntimeError, match="inside another call"):
        exclusively(lambda: exclusively(lambda: done.append("inside")))
    exclusively(lambda: done.append("afterwards"))
    assert done == ["afterwards"]


def test_empty_heap_has_no_earliest_and_nothing_due() -> None:
    deadlines = Deadlines()
    assert deadlines.earliest() is None
    assert deadlines.pop_due(1e9) == []


def test_add_tells_whether_this_is_now_the_earliest_of_all() -> None:
    deadlines = Deadlines()
    assert deadlines.add("a", 5.0)
    assert not deadlines.add("b", 6.0)
    assert deadlines.add("c", 4.0)
    assert deadlines.earliest() == 4.0


def test_later_deadline_of_a_link_is_ignored_and_an_earlier_one_replaces() -> None:
    deadlines = Deadlines()
    deadlines.add("a", 5.0)
    assert not deadlines.add("a", 7.0)
    assert not deadlines.add("a", 5.0)
    assert deadlines.earliest() == 5.0
    assert deadlines.add("a", 3.0)
    assert deadlines.pop_due(3.0) == ["a"]
    assert deadlines.pop_due(10.0) == []


def test_due_links_come_in_the_order_of_their_time_and_once() -> None:
    deadlines = Deadlines()
    for link, when in [("late", 9.0), ("b", 2.0), ("a", 1.0), ("c", 2.0)]:
        deadlines.add(link, when)
    assert deadlines.pop_due(0.5) == []
    assert deadlines.pop_due(2.0) == ["a", "b", "c"]
    assert deadlines.pop_due(2.0) == []
    assert deadlines.earliest() == 9.0


def test_link_that_was_due_can_be_added_again() -> None:
    deadlines = Deadlines()
    deadlines.add("a", 1.0)
    deadlines.pop_due(1.0)
    assert deadlines.add("a", 2.0)
    assert deadlines.pop_due(2.0) == ["a"]


def test_discarded_link_is_never_due_until_it_is_added_again() -> None:
    deadlines = Deadlines()
    deadlines.add("a", 1.0)
    deadlines.add("b", 2.0)
    deadlines.discard("a")
    deadlines.discard("a")
    deadlines.discard("unheard of")
    assert deadlines.earliest() == 2.0
    deadlines.add("a", 1.0)
    assert deadlines.pop_due(5.0) == ["a", "b"]


def test_discarded_links_do_not_pile_up() -> None:
    deadlines = Deadlines()
    for number in range(10_000):
        deadlines.add(number, 1e9 + number)
        deadlines.discard(number)
    assert len(deadlines._heap) < 200


Steps = st.lists(
    st.tuples(st.sampled_from(["add", "discard", "pop"]), st.integers(0, 5), st.integers(0, 20)), max_size=60
)


@given(Steps)
def test_heap_agrees_with_a_plain_dictionary(steps: list[tuple[str, int, int]]) -> None:
    deadlines, model = Deadlines(), dict[int, float]()
    for step, link, when in steps:
        if step == "add":
            deadlines.add(link, when)
            model[link] = min(when, model.get(link, when))
        elif step == "discard":
            deadlines.discard(link)
            model.pop(link, None)
        else:
            due = {link for link, at in model.items() if at <= when}
            assert set(deadlines.pop_due(when)) == due
            model = {link: at for link, at in model.items() if link not in due}
        assert deadlines.earliest() == min(model.values(), default=None)
