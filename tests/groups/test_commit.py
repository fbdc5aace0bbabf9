"""A message leaves after the commit, and only then."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.db import connections, transaction
from django.test import TestCase

from dwebsocket.groups.commit import after_commit

Send = Callable[..., bool]


@pytest.fixture
def left() -> list[tuple[str, bool]]:
    """What has left, and whether it waited for a commit."""
    return []


@pytest.fixture
def send(left: list[tuple[str, bool]]) -> Send:
    def send(what: str, using: str | None = None) -> bool:
        return after_commit(lambda waited: left.append((what, waited)), using)

    return send


@pytest.fixture
def _databases(tmp_path: Path) -> Iterator[None]:
    """A second database: in a file, for Django closes none in memory."""
    connections.settings["other"] = {**connections.settings["default"], "NAME": tmp_path / "other.sqlite3"}
    try:
        yield
    finally:
        connections["other"].close()
        del connections["other"]
        del connections.settings["other"]


pytestmark = pytest.mark.usefixtures("_databases")


def test_without_a_transaction_it_leaves_at_once(send: Send, left: list[tuple[str, bool]]) -> None:
    assert send("a")
    assert left == [("a", False)]


def test_inside_a_transaction_it_leaves_after_the_commit_in_the_order_of_the_calls(
    send: Send, left: list[tuple[str, bool]]
) -> None:
    with transaction.atomic():
        assert not send("a")
        with transaction.atomic():
            send("b")
        send("c")
        assert left == []
    assert left == [("a", True), ("b", True), ("c", True)]


def test_what_is_rolled_back_never_leaves(send: Send, left: list[tuple[str, bool]]) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        send("a")
        1 / 0  # noqa: B018
    assert left == []
    with transaction.atomic():
        send("kept")
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            send("of a savepoint")
            1 / 0  # noqa: B018
    assert left == [("kept", True)]


def test_transaction_of_another_database_counts_too(send: Send, left: list[tuple[str, bool]]) -> None:
    with transaction.atomic("other"):
        assert not send("a")
        assert left == []
    assert left == [("a", True)]


@pytest.mark.parametrize(("outer", "inner"), [("default", "other"), ("other", "default")])
def test_it_waits_for_the_last_of_two_databases(
    send: Send, left: list[tuple[str, bool]], outer: str, inner: str
) -> None:
    with transaction.atomic(outer):
        with transaction.atomic(inner):
            send("a")
        assert left == []
    assert left == [("a", True)]


def test_using_regards_one_database(send: Send, left: list[tuple[str, bool]]) -> None:
    with transaction.atomic("other"):
        send("a", "default")
        assert left == [("a", False)]
        send("b", "other")
        assert left == [("a", False)]
    assert left == [("a", False), ("b", True)]


def test_unknown_database_is_an_error(send: Send) -> None:
    with pytest.raises(Exception, match="nowhere"):
        send("a", "nowhere")


def test_without_autocommit_django_says_so(send: Send, left: list[tuple[str, bool]]) -> None:
    transaction.set_autocommit(False)
    try:
        with pytest.raises(transaction.TransactionManagementError):
            send("a")
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)
    assert left == []


def test_failure_after_the_commit_hurts_no_other_callback(
    send: Send, left: list[tuple[str, bool]], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(waited: bool) -> None:
        raise RuntimeError("no broker")

    with caplog.at_level(logging.ERROR, "django"), transaction.atomic():
        after_commit(fail, None)
        send("a")
    assert left == [("a", True)]
    assert "no broker" in caplog.text


class InATestCase(TestCase):
    """Its blocks are no transactions: they never commit."""

    def test_message_leaves_at_once_outside_of_a_block(self) -> None:
        left: list[bool] = []
        assert after_commit(left.append, None)
        assert left == [False]

    def test_block_of_the_code_under_test_counts_and_its_callbacks_can_be_captured(self) -> None:
        left: list[bool] = []
        with self.captureOnCommitCallbacks(execute=True) as callbacks:
            with transaction.atomic():
                after_commit(left.append, None)
            assert left == []
        assert (len(callbacks), left) == (1, [True])
