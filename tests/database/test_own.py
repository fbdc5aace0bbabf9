"""Which database connections of a view may be closed, and which may not."""

from __future__ import annotations

import threading
from typing import Any

from django.contrib.auth.models import Group
from django.db import connection, transaction

from dwebsocket import require_websocket
from tests.database.helpers import names, waits_in_vain
from tests.links import assert_ends, until
from tests.peer import Close
from tests.sites import Site

# What is given back


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
