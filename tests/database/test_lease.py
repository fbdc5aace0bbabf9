"""The database connections of a view that waits: which are given back, which stay, and what nobody notices of it."""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
from django.contrib.auth.models import Group
from django.core import signals
from django.db import OperationalError, connection, connections, transaction
from django.http import HttpResponse
from django.utils.decorators import method_decorator
from django.views import View

from dwebsocket import accept_websocket, require_websocket
from dwebsocket.database import lease
from tests.helpers import database_in, levels
from tests.links import assert_ends, run_program, until
from tests.peer import Close
from tests.sites import Site

MOMENT_SECONDS = 0.02  # that a view waits in vain


@pytest.fixture(scope="module", autouse=True)
def _database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with database_in(tmp_path_factory.mktemp("database") / "db.sqlite3"):
        yield


@pytest.fixture(autouse=True)
def _empty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    lease._warned.clear()
    monkeypatch.setattr(lease, "KEPT_SECONDS", 0.0)  # what may be given back is given back at once
    yield
    Group.objects.all().delete()
    connection.close()


@pytest.fixture
def over(site: Site) -> Iterator[threading.Event]:
    """Set once the request is over that a view outlives: on a hub without patches both have the same connection."""
    event = threading.Event()
    if site.mode == "attached":
        event.set()

    def receive(**about: Any) -> None:
        event.set()

    signals.request_finished.connect(receive)
    yield event
    signals.request_finished.disconnect(receive)


def names() -> list[str]:
    """The groups that everybody sees."""
    return list(Group.objects.values_list("name", flat=True))


def waits_in_vain(request: Any) -> bool:
    """Wait for the peer, which says nothing and is there; what the view does not hold has been given back then."""
    return request.websocket.wait(MOMENT_SECONDS) is None and not request.websocket.closed


# What is given back


def test_cursor_that_is_closed_keeps_no_connection_though_the_view_has_it_still(
    site: Site, over: threading.Event
) -> None:
    @require_websocket
    def view(request):
        request.websocket.accept()
        site.wait_for(over)
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        before = connections["default"].connection
        assert waits_in_vain(request)
        site.tell([before is None, connections["default"].connection is None])

    assert_ends(site(view).connect(), 1000)
    assert site.hear() == [False, True]


def test_cursor_that_is_open_keeps_its_connection(site: Site, over: threading.Event) -> None:
    @require_websocket
    def view(request):
        request.websocket.accept()
        site.wait_for(over)
        cursor = connection.cursor()
        cursor.execute("SELECT 1 UNION SELECT 2")
        first = cursor.fetchone()
        assert waits_in_vain(request)
        site.tell([first, cursor.fetchone()])
        cursor.close()

    assert_ends(site(view).connect(), 1000)
    assert site.hear() == [(1,), (2,)]


def test_thread_of_the_view_that_waits_in_a_copy_of_its_context_leaves_the_connection_of_the_view_to_it(
    site: Site, over: threading.Event
) -> None:
    @require_websocket
    def view(request):
        def wait() -> None:
            site.tell(waits_in_vain(request))
            has_waited.set()

        has_waited = threading.Event()
        request.websocket.accept()
        site.wait_for(over)
        Group.objects.count()
        threading.Thread(target=contextvars.copy_context().run, args=[wait]).start()
        site.wait_for(has_waited)
        before = connections["default"].connection
        assert waits_in_vain(request)
        site.tell([before is None, connections["default"].connection is None])

    assert_ends(site(view).connect(), 1000)
    assert site.hear() is True
    assert site.hear() == [False, True]


def test_connection_that_stays_open_when_it_is_closed_is_asked_no_more_and_is_in_nobodys_way(
    site: Site, over: threading.Event
) -> None:
    asked: list[str] = []
    messages = [str(number) for number in range(10)]

    @require_websocket
    def view(request):
        connection.close = lambda: asked.append("to close")
        try:
            request.websocket.send(str(Group.objects.count()))
            for message in request.websocket:
                request.websocket.send(message)
        finally:
            del connection.close

    peer = site(view).connect()
    assert peer.recv_message() == "0"
    for message in messages:
        peer.send_message(message)
        assert peer.recv_message() == message
    assert 1 <= len(asked) < len(messages)  # when it accepts, and where all share one, by Django for the request
    assert peer.close() == Close(1000)


# Transactions that Django does not know of


def in_a_transaction_of_its_own(get_response: Any) -> Any:
    """A middleware that writes, and commits by hand once the view has answered."""

    def call(request: Any) -> Any:
        transaction.set_autocommit(False)
        try:
            Group.objects.create(name="of the middleware")
            response = get_response(request)
            transaction.commit()
        finally:
            transaction.set_autocommit(True)
        return response

    return call


def test_transaction_of_a_middleware_outlasts_the_opening_handshake(detached_site: Site) -> None:
    @require_websocket
    def view(request):
        request.websocket.wait()

    peer = detached_site(view, MIDDLEWARE=[f"{__name__}.in_a_transaction_of_its_own"]).connect()
    until(lambda: names() == ["of the middleware"], "the commit")
    assert peer.close() == Close(1000)


def test_transaction_that_was_begun_in_sql_outlasts_the_wait(site: Site, over: threading.Event) -> None:
    @require_websocket
    def view(request):
        def execute(sql: str) -> None:
            with connection.cursor() as cursor:
                cursor.execute(sql)

        request.websocket.accept()
        site.wait_for(over)
        execute("BEGIN")
        execute("INSERT INTO auth_group (name) VALUES ('of the view')")
        assert waits_in_vain(request)
        execute("COMMIT")

    assert_ends(site(view).connect(), 1000)
    assert names() == ["of the view"]


# What is warned of


@contextmanager
def handling(emit: Callable[[logging.LogRecord], None]) -> Iterator[None]:
    """Let a log handler of the project have what the package logs."""
    handler = logging.Handler()
    handler.emit = emit  # type: ignore[method-assign]
    logger = logging.getLogger("dwebsocket")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def test_warning_of_a_wait_in_a_transaction_may_be_sent_on_the_same_websocket(site: Site) -> None:
    told: list[Any] = []

    @require_websocket
    def view(request):
        told.append(request.websocket)
        with transaction.atomic():
            Group.objects.count()
            request.websocket.wait()
        request.websocket.send("bye")

    with handling(lambda record: told[0].send(record.getMessage())):
        peer = site(view).connect()
        assert str(peer.recv_message()).startswith("the view tests.database.test_lease.")
        peer.send_message("go on")
        assert peer.recv_message() == "bye"
        assert_ends(peer, 1000)


def test_accept_in_a_transaction_that_ends_before_the_view_waits_is_nothing_to_warn_of(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    @require_websocket
    def view(request):
        with transaction.atomic():
            Group.objects.create(name="of the view")
            request.websocket.accept()
        assert waits_in_vain(request)

    assert_ends(site(view).connect(), 1000)
    site.until_idle()
    assert names() == ["of the view"]
    assert levels(caplog) == []


# What cannot be given back


@pytest.mark.parametrize(
    ("error", "status"), [(OperationalError("gone away"), 101), (RuntimeError("of the driver"), 500)], ids=repr
)
def test_connection_of_the_request_that_cannot_be_given_back_takes_no_place_for_ever(
    detached_site: Site, error: Exception, status: int
) -> None:
    site, errors = detached_site, [error]

    def guard(request: Any) -> bool:
        def close() -> None:
            del connection._close
            connection._close()
            raise errors.pop()

        Group.objects.count()
        if errors:
            connection._close = close
        return True

    @require_websocket(guard=guard)
    def view(request):
        request.websocket.wait()

    site(view, WEBSOCKET_MAX_CONNECTIONS=1)
    with site.peer() as peer:
        assert peer.handshake().status == status
        assert errors == []
    site.until_idle()
    assert site.handshake().status == 101


# ATOMIC_REQUESTS


def plain() -> type[View]:
    """A class that says whether it is in a transaction."""

    @method_decorator(accept_websocket, name="dispatch")
    class Plain(View):
        def get(self, request: Any) -> HttpResponse:
            return HttpResponse(str(connection.in_atomic_block))

    return Plain


@pytest.mark.parametrize(
    ("view", "is_atomic"),
    [
        (plain().as_view(), True),
        (method_decorator(transaction.non_atomic_requests, name="dispatch")(plain()).as_view(), False),
        (transaction.non_atomic_requests(plain().as_view()), False),
    ],
    ids=["not", "class", "view"],
)
def test_class_that_is_exempt_from_atomic_requests_above_its_decorator_is_exempt_over_http(
    site: Site, view: Any, is_atomic: bool
) -> None:
    with mock.patch.dict(connections.settings["default"], ATOMIC_REQUESTS=True):
        assert site(view).get().body == str(is_atomic).encode()


# A fork


FORK = """
import os, signal
from django.conf import settings
settings.configure()
from dwebsocket.database import lease

leases = [lease.Lease(None, None) for _ in range(lease.MAX_KEPT_LEASES + 1)]
assert [lease._takes_a_place() for lease in leases] == [True] * lease.MAX_KEPT_LEASES + [False]
with lease._kept_lock:  # as another thread may, just then
    child = os.fork()
if child == 0:
    signal.alarm(10)
    os._exit(7 if lease.Lease(None, None)._takes_a_place() else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), leases[-1]._takes_a_place())
"""


def test_child_of_a_fork_has_room_for_its_own_connections_whatever_its_parent_was_doing() -> None:
    assert run_program(FORK).split() == ["7", "False"]
