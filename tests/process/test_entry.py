"""An entry: one WebSocket of the process, and what is called at its end."""

from __future__ import annotations

import threading
from typing import Any
from unittest import mock

import pytest
from django.http import HttpRequest

from dwebsocket import State, connections, require_websocket
from dwebsocket.exceptions import Unauthorized
from dwebsocket.process.registry import Entry, registry
from tests.links import until
from tests.sites import Site


def entry() -> Entry:
    return Entry(HttpRequest(), mock.Mock())


def test_each_entry_has_an_id_of_its_own() -> None:
    assert len({entry().id for _ in range(100)}) == 100


def test_entry_without_a_connection_has_nothing_to_tell_and_nothing_to_close() -> None:
    one = entry()
    one.close(1000)
    one.go_away(1001)
    one.revoke(Unauthorized("no session"))
    assert one.info() is None


def test_connection_whose_101_is_just_leaving_is_left_to_its_opening() -> None:
    one, connection = entry(), mock.Mock()
    connection.endpoint.state = State.CONNECTING
    one.opened(connection)
    one.go_away(1012)
    one.close(1000)
    connection.go_away.assert_not_called()
    connection.close_soon.assert_not_called()
    connection.endpoint.state = State.OPEN
    one.go_away(1012)
    connection.go_away.assert_called_once_with(1012)


def test_guard_that_refuses_closes_with_its_code_and_as_much_of_its_reason_as_fits() -> None:
    one, connection = entry(), mock.Mock()
    one.opened(connection)
    one.revoke(Unauthorized("é" * 100))
    connection.close_soon.assert_called_once_with(4401, "é" * 61)


def test_what_is_added_is_called_once_at_the_end_and_at_once_behind_it() -> None:
    one, called = entry(), []
    for number in range(3):
        one.on_close(lambda number=number: called.append(number))
    assert called == []
    one.over()
    one.over()
    assert called == [0, 1, 2]
    one.on_close(lambda: called.append("late"))
    assert called == [0, 1, 2, "late"]


def test_function_that_fails_at_the_end_is_logged_and_keeps_no_other_from_being_called(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one, called = entry(), []

    def fail() -> None:
        raise ValueError("broken")

    one.on_close(fail)
    one.on_close(lambda: called.append("next"))
    one.over()
    assert called == ["next"]
    assert "broken" in caplog.text


def test_function_that_is_added_just_at_the_end_is_called_once() -> None:
    for _ in range(200):
        one, called = entry(), []
        start = threading.Barrier(2)

        def end(one: Entry = one, start: threading.Barrier = start) -> None:
            start.wait()
            one.over()

        thread = threading.Thread(target=end)
        thread.start()
        start.wait()
        one.on_close(lambda called=called: called.append(1))
        thread.join()
        assert called == [1]


def test_functions_are_called_when_the_connection_is_over_though_its_view_goes_on(site: Site) -> None:
    go_on = threading.Event()

    @require_websocket
    def view(request: Any) -> None:
        request.websocket.accept()
        (own,) = registry.members()
        own.on_close(lambda: site.tell("over"))
        site.tell("ready")
        while not go_on.is_set():
            site.pause(0.01)

    peer = site(view).connect()
    assert site.hear() == "ready"
    peer.reset()
    try:
        assert site.hear() == "over"
        assert len(connections()) == 1
    finally:
        go_on.set()
    until(lambda: not connections(), "the end of the view")
