"""Histories are read in a separate thread: each once, in batches, and again until there is an answer."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import pytest

from dwebsocket.exceptions import GroupsUnavailable
from dwebsocket.groups.audience import Member
from dwebsocket.groups.backend import Read, Want
from dwebsocket.groups.history import reader as readers
from dwebsocket.groups.history.history import Admission
from dwebsocket.groups.history.reader import Reader
from dwebsocket.groups.history.stream import Asked
from dwebsocket.groups.position import Position
from tests.groups.lanes import FORWARDED
from tests.links import until


class Library:
    """A backend that answers when it may, and what was asked and answered."""

    def __init__(self, **options: Any) -> None:
        self.questions: list[list[str]] = []
        self.answers: list[tuple[str, Sequence[Admission]]] = []
        self.with_gap: set[str] = set()
        self.threads: set[threading.Thread] = set()
        self.open = threading.Event()
        self.open.set()
        self.errors: list[Exception] = []
        self.left: set[str] = set()
        self.groups: list[str] = []
        self.reader = Reader(
            self.read,
            self.ask,
            self.answer,
            lambda: self.groups,
            **{"check_seconds": 1000, "is_at_once": False, **options},
        )

    def read(self, wants: Mapping[str, Want]) -> Mapping[str, Read]:
        self.questions.append(list(wants))
        self.threads.add(threading.current_thread())
        self.open.wait(10)
        if self.errors:
            raise self.errors.pop(0)
        return {group: Read(Position("e", 1)) for group in wants}

    def ask(self, group: str, admissions: Sequence[Admission]) -> Asked | None:
        if group == "faulty":
            raise LookupError("of a question")
        return None if group in self.left else Asked(1, 0, Want())

    def answer(self, group: str, read: Read, asked: Asked, admissions: Sequence[Admission]) -> bool:
        if group == "wrong":
            raise LookupError("of an answer")
        self.answers.append((group, list(admissions)))
        return group in self.with_gap

    def wait_for(self, *groups: str) -> None:
        until(lambda: {group for group, _ in self.answers} >= set(groups) or None, f"answers for {groups}")


def admission() -> Admission:
    return Admission(cast(Member, object()), FORWARDED, None, cast(Any, threading.Event()))


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[Library]:
    monkeypatch.setattr(readers, "_FIRST_SECONDS", 0.01)
    monkeypatch.setattr(readers, "_LONGEST_SECONDS", 0.02)
    made = Library()
    yield made
    made.open.set()
    made.reader.close()
    if made.reader._thread is not None:
        made.reader._thread.join(10)
        assert not made.reader._thread.is_alive()


def test_no_thread_before_something_is_wanted(library: Library) -> None:
    assert library.reader._thread is None
    library.reader.want("a")
    library.wait_for("a")
    library.reader.want("b")
    library.wait_for("b")
    assert library.threads == {library.reader._thread}


def test_hundred_members_that_come_back_at_once_are_two_questions_at_most(library: Library) -> None:
    library.open.clear()
    admissions = [admission() for _ in range(100)]
    for one in admissions:
        library.reader.want("a", [one])
    until(lambda: library.questions, "the first question")
    library.open.set()
    until(lambda: sum(len(found) for _, found in library.answers) == 100 or None, "all answers")
    assert library.questions in ([["a"]], [["a"], ["a"]])
    assert [one for _, found in library.answers for one in found] == admissions


def test_many_groups_are_asked_for_in_batches_and_those_first_for_which_a_view_waits(library: Library) -> None:
    library.open.clear()
    library.reader.want("first")
    until(lambda: library.questions, "the first question")
    for number in range(250):
        library.reader.want(f"group {number}", [admission()] if number % 10 == 9 else [])
    library.open.set()
    library.wait_for(*(f"group {number}" for number in range(250)))
    assert [len(question) for question in library.questions] == [1, 100, 100, 50]
    assert library.questions[1][:25] == [f"group {number}" for number in range(9, 250, 10)]


@pytest.mark.parametrize("error", [GroupsUnavailable("gone"), LookupError("a bug")])
def test_question_that_was_not_answered_is_asked_again(library: Library, error: Exception) -> None:
    library.errors = [error] * 3
    one, late = admission(), admission()
    late.is_over = True
    library.reader.want("a", [one, late])
    library.wait_for("a")
    assert library.answers == [("a", [one])], "the time of the other one is over"
    assert library.questions == [["a"]] * 4


def test_pause_grows_and_is_short_again_after_an_answer(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(readers, "time", SimpleNamespace(sleep=pauses.append, monotonic=time.monotonic))
    monkeypatch.setattr(readers, "chance", SimpleNamespace(uniform=max))
    library.errors = [GroupsUnavailable("gone")] * 3
    library.reader.want("a")
    library.wait_for("a")
    library.errors = [GroupsUnavailable("gone")]
    library.reader.want("b")
    library.wait_for("b")
    assert pauses == [0.01, 0.02, 0.02, 0.01]


def test_group_that_was_left_is_not_asked_for(library: Library) -> None:
    library.left = {"a"}
    library.reader.want("a", [admission()])
    library.reader.want("b")
    library.wait_for("b")
    assert "a" not in {group for question in library.questions for group in question}


def test_answer_that_fails_harms_no_other(library: Library, caplog: pytest.LogCaptureFixture) -> None:
    library.open.clear()
    library.reader.want("first")
    until(lambda: library.questions, "the first question")
    for group in ("wrong", "a"):
        library.reader.want(group)
    library.open.set()
    library.wait_for("a")
    assert "of an answer" in caplog.text


def test_question_that_fails_ends_no_reader(library: Library, caplog: pytest.LogCaptureFixture) -> None:
    library.reader.want("faulty")
    until(lambda: "of a question" in caplog.text or None, "the log")
    assert library.reader._thread is not None
    assert library.reader._thread.is_alive()


def test_check_looks_at_all_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library(check_seconds=0.01)
    library.reader.want("a")
    library.groups = ["b", "c"]
    library.wait_for("b", "c")
    count = len(library.answers)
    until(lambda: len(library.answers) >= count + 4 or None, "further checks")
    library.reader.close()
    assert library.reader._thread is not None
    library.reader._thread.join(10)
    assert not library.reader._thread.is_alive()


def test_groups_are_looked_for_without_the_lock() -> None:
    """Another thread may hold that of the dispatcher, and want a group."""
    library = Library(check_seconds=0.01)
    free: list[bool] = []

    class Groups(list[str]):
        def __iter__(self) -> Iterator[str]:
            free.append(not library.reader._changed._lock.locked())  # type: ignore[attr-defined]
            return super().__iter__()

    library.groups = Groups(["b"])
    library.reader.want("a")
    library.wait_for("b")
    library.reader.close()
    assert all(free)


def test_closed_reader_asks_for_nothing(library: Library) -> None:
    library.open.clear()
    library.reader.want("a")
    until(lambda: library.questions, "the first question")
    library.reader.want("b")
    library.reader.close()
    library.open.set()
    thread = library.reader._thread
    assert thread is not None
    thread.join(10)
    assert not thread.is_alive()
    library.reader.want("c")
    assert library.questions == [["a"]]
    assert library.reader._thread is thread


def test_reader_of_another_process_has_no_thread(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    library.reader.want("a")
    library.wait_for("a")
    monkeypatch.setattr(library.reader, "_pid", os.getpid() + 1)
    library.reader.want("b")
    assert library.reader._thread is not None
    library.reader._thread.join(10)
    assert not library.reader._thread.is_alive()
    assert library.questions == [["a"]]


def test_thread_that_cannot_be_started_is_started_the_next_time(
    library: Library, caplog: pytest.LogCaptureFixture
) -> None:
    with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")):
        library.reader.want("a", [admission()])
    assert "histories are not read" in caplog.text
    library.reader.want("b")
    library.wait_for("a", "b")


def test_backend_that_answers_at_once_is_asked_where_the_question_arises() -> None:
    library = Library(is_at_once=True)
    one = admission()
    library.reader.want("a", [one])
    assert library.answers == [("a", [one])]
    assert library.threads == {threading.current_thread()}
    assert library.reader._thread is None


def test_idle_reader_sleeps(library: Library) -> None:
    library.reader.want("a")
    library.wait_for("a")
    with mock.patch.object(library.reader, "_take", wraps=library.reader._take) as take:
        time.sleep(0.05)
    assert take.call_count <= 1


def test_groups_with_a_gap_are_one_line_of_the_log(library: Library, caplog: pytest.LogCaptureFixture) -> None:
    library.with_gap = {"a", "b"}
    library.open.clear()
    for group in ("a", "b", "c"):
        library.reader.want(group)
    library.open.set()
    library.wait_for("a", "b", "c")
    until(lambda: "messages are lost" in caplog.text or None)
    assert sum("messages are lost that no history has any more" in line for line in caplog.messages) <= 2
    assert "'a'" in caplog.text
    assert "'c'" not in caplog.text
