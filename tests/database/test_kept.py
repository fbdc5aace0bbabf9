"""The database connections of parked views: given back behind each turn, kept for a moment, in few places."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import connection, connections, transaction

from dwebsocket import WebSocketView
from dwebsocket.database import kept, lease
from dwebsocket.reactors import thread as thread_reactor
from dwebsocket.signals import websocket_closed
from tests.database.helpers import names, waits_in_vain
from tests.helpers import exchange, levels
from tests.links import until
from tests.peer import Close
from tests.sites import RunServer, Site, serving


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    kept._warned.clear()
    yield
    until(lambda: not kept._keepers, "all places to be given up")


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A site under threads, with one thread for all turns."""
    monkeypatch.setattr(thread_reactor, "_reactor", None)
    server = RunServer()
    with serving(server, "detached") as site:
        yield lambda *views, **settings: site(*views, WEBSOCKET_THREADS=1, **settings)  # type: ignore[misc]
    server.stop()


class Querying(WebSocketView):
    """Says whether its connection was open when the turn began, and uses it."""

    used: list[Any] = []  # noqa: RUF012

    def received(self, message: str | bytes) -> None:
        was_open = connection.connection is not None
        Group.objects.count()
        self.used.append((connections["default"], connection.connection))
        self.send(str(was_open))


@pytest.fixture(autouse=True)
def _unused() -> None:
    Querying.used.clear()


def test_connection_is_given_back_soon_after_the_turn(detached_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "KEPT_SECONDS", 0.05)
    peer = detached_site(Querying.as_view()).connect()
    exchange(peer, "query")
    ((wrapper, _),) = Querying.used
    until(lambda: wrapper.connection is None, "the connection to be closed")
    assert peer.close() == Close(1000)


def test_connection_is_kept_for_the_next_turn_and_the_next_view(one_thread: Any) -> None:
    site = one_thread(Querying.as_view())
    first, second = site.connect(), site.connect()
    assert [exchange(peer, "query") for peer in (first, second, first)] == ["False", "True", "True"]
    assert len({raw for _, raw in Querying.used}) == 1
    for peer in (first, second):
        assert peer.close() == Close(1000)


def test_connection_that_the_database_has_ended_is_not_used_again(
    one_thread: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "descriptor_of", lambda connection: -1)
    peer = one_thread(Querying.as_view()).connect()
    assert [exchange(peer, "query") for _ in range(2)] == ["False", "False"]


def test_no_more_are_kept_than_there_are_places(one_thread: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MAX_KEPT_LEASES", 0)
    peer = one_thread(Querying.as_view()).connect()
    assert [exchange(peer, "query") for _ in range(2)] == ["False", "False"]
    until(lambda: all(wrapper.connection is None for wrapper, _ in Querying.used), "the connection to be closed")


def test_connection_of_the_opening_is_given_back_before_the_first_turn(one_thread: Any) -> None:
    class View(Querying):
        def opened(self) -> None:
            Group.objects.count()
            self.used.append(connections["default"])

    peer = one_thread(View.as_view()).connect()
    assert exchange(peer, "query") == "False"
    assert View.used[0].connection is None


@pytest.mark.parametrize("turn", [1, 2])
def test_turn_that_waits_for_its_peer_holds_no_connection_meanwhile(one_thread: Any, turn: int) -> None:
    class View(Querying):
        def received(self, message: str | bytes) -> None:
            if message == "wait":
                Group.objects.count()
                assert waits_in_vain(self.request)
                self.send(str(connection.connection is None))
            else:
                super().received(message)

    peer = one_thread(View.as_view()).connect()
    if turn == 2:
        assert exchange(peer, "query") == "False"
    assert exchange(peer, "wait") == "True"


def test_turns_that_wait_take_no_place_for_ever(detached_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "KEPT_SECONDS", 1.0)
    monkeypatch.setattr(kept, "KEPT_SECONDS", 0.05)

    class View(WebSocketView):
        def opened(self) -> None:
            self.talk()

        def received(self, message: str | bytes) -> None:
            self.talk()

        def talk(self) -> None:
            for _ in range(3):
                Group.objects.count()
                self.send("ask")
                self.websocket.wait()
            self.send("done")

    site = detached_site(View.as_view())
    peers = [site.connect() for _ in range(3)]
    for peer in peers:
        for _ in range(2):
            while peer.recv_message() == "ask":
                peer.send_message("answer")
            peer.send_message("once more")
        assert peer.recv_message() == "ask"
        peer.send_message("answer")
        peer.reset()


@pytest.mark.parametrize("how", ["atomic", "autocommit"])
@pytest.mark.parametrize("release_db", [True, False])
def test_transaction_that_a_turn_leaves_open_is_rolled_back_and_told_once(
    one_thread: Any, how: str, release_db: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class View(WebSocketView):
        def received(self, message: str | bytes) -> None:
            if message == "begin":
                if how == "atomic":
                    transaction.atomic().__enter__()
                else:
                    transaction.set_autocommit(False)
                Group.objects.create(name="of the turn")
            self.send(f"{names()} {connection.in_atomic_block} {connection.autocommit}")

    site = one_thread(View.as_view(), WEBSOCKET_RELEASE_DB=release_db)
    first, second = site.connect(), site.connect()
    for _ in range(2):
        assert str(exchange(first, "begin")).startswith("['of the turn']")
        assert exchange(second, "query") == "[] False True"
        assert exchange(first, "query") == "[] False True"
    for peer in (first, second):
        assert peer.close() == Close(1000)
    assert levels(caplog) == [("dwebsocket", "WARNING")]
    assert "has left a transaction open: it is rolled back" in caplog.text


def test_turn_that_raises_in_a_transaction_leaves_none(one_thread: Any, caplog: pytest.LogCaptureFixture) -> None:
    class View(WebSocketView):
        def received(self, message: str | bytes) -> None:
            if message == "fail":
                with transaction.atomic():
                    Group.objects.create(name="of the turn")
                    raise RuntimeError
            self.send(f"{names()} {connection.in_atomic_block}")

    site = one_thread(View.as_view())
    bad, good = site.connect(), site.connect()
    bad.send_message("fail")
    assert bad.recv_message() == Close(1011)
    assert exchange(good, "query") == "[] False"


def test_connection_that_cannot_be_closed_is_a_fault_of_the_view_and_stops_no_other(
    one_thread: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        driver, connection.connection = connection.connection, None
        driver.close()
        raise RuntimeError("of the driver")

    class View(Querying):
        def received(self, message: str | bytes) -> None:
            super().received(message)
            if message == "break":
                transaction.set_autocommit(False)
                connection._close = fail

        def closed(self, code: int, reason: str) -> None:
            closed.append(code)

    closed: list[int] = []
    site = one_thread(View.as_view())
    bad, good = site.connect(), site.connect()
    assert exchange(bad, "break") == "False"
    assert bad.recv_message() == Close(1011)
    until(lambda: closed == [1011])
    Querying.used[0][0].__dict__.pop("_close")
    assert exchange(good, "query") == "False"
    assert [record[1] for record in levels(caplog)] == ["WARNING", "ERROR"]


def test_receiver_of_the_signal_of_the_end_may_query_and_its_connection_is_given_back(
    detached_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "KEPT_SECONDS", 0.05)
    site = detached_site
    used: list[Any] = []

    def receive(**about: Any) -> None:
        Group.objects.count()
        used.append(connections["default"])
        site.tell("queried")

    websocket_closed.connect(receive)
    try:
        for view in (Querying.as_view(), WebSocketView.as_view()):
            assert site(view).connect().close() == Close(1000)
            assert site.hear() == "queried"
            site.until_idle()
            until(lambda: used[-1].connection is None, "the connection to be closed")
    finally:
        websocket_closed.disconnect(receive)


def test_view_that_keeps_its_connections_while_it_waits_gives_them_back_too_where_it_is_parked(
    detached_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "KEPT_SECONDS", 0.05)
    peer = detached_site(Querying.as_view(), WEBSOCKET_RELEASE_DB=False).connect()
    exchange(peer, "query")
    ((wrapper, _),) = Querying.used
    until(lambda: wrapper.connection is None, "the connection to be closed")


def test_turns_without_a_query_cost_no_connection(one_thread: Any) -> None:
    class View(WebSocketView):
        def received(self, message: str | bytes) -> None:
            self.send(str(connection.connection is None))

    peer = one_thread(View.as_view()).connect()
    assert [exchange(peer, "look") for _ in range(3)] == ["True"] * 3


def test_kept_is_closed_when_its_time_is_over_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    monkeypatch.setattr(kept, "close_own_connections", lambda: closed.append("closed"))
    now, keeper = time.monotonic(), kept.Kept()
    assert kept.take_place(keeper)
    keeper.until = now + 1.0
    assert keeper.rest(now) == pytest.approx(1.0)
    assert keeper.rest(now + 0.75) == pytest.approx(0.25)
    assert (closed, kept.has_place(keeper)) == ([], True)
    assert keeper.rest(now + 1.0) is None
    assert (closed, kept.has_place(keeper)) == (["closed"], False)


def test_places_are_those_of_the_process() -> None:
    keepers = [object() for _ in range(kept.MAX_KEPT_LEASES + 1)]
    taken: list[bool] = []

    def take() -> None:
        taken.extend(map(kept.take_place, keepers))

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    assert taken == [True] * kept.MAX_KEPT_LEASES + [False]
    assert kept.take_place(keepers[0])  # it has one
    kept.give_up_place(keepers[0])
    assert kept.take_place(keepers[-1])
    for keeper in keepers:
        kept.give_up_place(keeper)
