"""A test shares its database connection with the threads that work for it, and gets it back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection, connections

from dwebsocket.database.sharing import with_connections, with_shared_connections


def in_a_thread(function: Callable[[], None]) -> None:
    """Run `function` in a thread of its own, as a reactor spawns it; a fault of it is a fault of the test."""
    faults: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as fault:
            faults.append(fault)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert faults == []


@pytest.fixture
def shared() -> Iterator[Any]:
    """The connection of this thread, shared as LiveServerTestCase shares it."""
    connection.ensure_connection()
    connection.inc_thread_sharing()
    yield connections["default"]
    connection.dec_thread_sharing()


def test_thread_uses_the_connection_that_the_test_shares(shared: Any) -> None:
    seen: list[Any] = []

    def look() -> None:
        seen.append(connections["default"])
        with connections["default"].cursor() as cursor:
            cursor.execute("SELECT 1")
            seen.append(cursor.fetchone())

    in_a_thread(with_shared_connections(look))
    assert seen == [shared, (1,)]


def test_thread_that_has_ended_shares_nothing_any_more(shared: Any) -> None:
    found: list[Any] = []

    def run() -> None:
        with_shared_again()
        found.append(connections["default"])

    with_shared_again = with_shared_connections(lambda: None)
    in_a_thread(run)
    assert found[0] is not shared
    shared.dec_thread_sharing()
    assert not shared.allow_thread_sharing  # once more than it was shared by the thread would leave it shared
    shared.inc_thread_sharing()


def test_thread_that_fails_gives_the_connection_back(shared: Any) -> None:
    def fail() -> None:
        raise RuntimeError("of the view")

    def run() -> None:
        with pytest.raises(RuntimeError, match="of the view"):
            with_connections({"default": shared}, fail)()
        assert connections["default"] is not shared

    in_a_thread(run)


def test_function_is_left_alone_where_nothing_is_shared() -> None:
    connection.ensure_connection()

    def function() -> None:
        raise AssertionError("it was called")

    assert with_shared_connections(function) is function


def test_connection_that_is_shared_for_a_while_is_refused_to_other_threads_afterwards() -> None:
    connection.ensure_connection()
    own = connections["default"]
    in_a_thread(with_connections({"default": own}, lambda: own.validate_thread_sharing()))
    assert not own.allow_thread_sharing
