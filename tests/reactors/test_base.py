"""The deadlines of many links in one heap, and what must not overlap."""

from __future__ import annotations

import contextvars
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwebsocket.reactors.base import Deadlines, Locked
from tests.links import PATIENCE_SECONDS, Home, until


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


# Workers


def test_worker_runs_once_for_all_wake_ups_before_it_begins(home: Home) -> None:
    runs: list[int] = []

    def wake_ten_times() -> None:
        for _ in range(10):
            wake()

    inside, go_on = threading.Event(), threading.Event()

    def work() -> None:
        runs.append(len(runs))
        inside.set()
        while not go_on.is_set():
            home.pause(0.001)

    wake = home.do(home.reactor.worker, work, "at work")
    home.do(wake_ten_times)
    assert inside.wait(PATIENCE_SECONDS)
    before = len(runs)  # under threads, it may have begun before the tenth
    home.do(wake_ten_times)
    wake_ten_times()  # from a thread without a hub
    assert len(runs) == before
    go_on.set()
    until(lambda: len(runs) == before + 1)
    home.do(home.pause, 0.01)
    assert len(runs) == before + 1 <= 3


def test_no_wake_up_of_any_thread_is_lost_and_no_two_runs_overlap(home: Home) -> None:
    threads, each = 4, 500
    given: list[int] = []
    taken: list[int] = []
    inside: list[int] = []

    def work() -> None:
        inside.append(1)
        assert len(inside) == 1
        while given:
            taken.append(given.pop())
        home.pause(0)
        inside.pop()

    wake = home.do(home.reactor.worker, work, "at work")

    def give() -> None:
        for number in range(each):
            given.append(number)
            wake()

    givers = [threading.Thread(target=give) for _ in range(threads)]
    for giver in givers:
        giver.start()
    giving = home.start(give)
    for giver in givers:
        giver.join(PATIENCE_SECONDS)
    giving.result(PATIENCE_SECONDS)
    until(lambda: len(taken) == (threads + 1) * each)
    until(lambda: not inside)


def test_worker_that_fails_says_so_and_goes_on(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    runs: list[int] = []

    def work() -> None:
        runs.append(1)
        if len(runs) < 3:
            raise ValueError("not this time")

    wake = home.do(home.reactor.worker, work, "the dispatcher")
    for expected in (1, 2, 3):
        home.do(wake)
        until(lambda expected=expected: len(runs) == expected)
    until(lambda: len(caplog.messages) == 2)
    assert caplog.messages == ["the dispatcher has failed, and goes on with its next wake-up"] * 2


def test_worker_runs_in_the_context_of_none_of_those_who_wake_it(home: Home) -> None:
    language: contextvars.ContextVar[str] = contextvars.ContextVar("language", default="that of the project")
    seen: list[str] = []

    def view() -> None:
        language.set("that of the view")
        wake()

    wake = home.do(home.reactor.worker, lambda: seen.append(language.get()), "at work")
    home.do(view)
    until(lambda: seen)
    assert seen == ["that of the project"]


def test_what_is_posted_runs_on_the_thread_of_the_reactor(home: Home) -> None:
    seen: list[int] = []
    home.reactor.post(lambda: seen.append(threading.get_ident()))
    until(lambda: seen)
    assert seen == [home.reactor.owner_thread or threading.get_ident()]
