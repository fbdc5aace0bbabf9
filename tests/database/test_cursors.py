"""A cursor that is in use keeps its database connection open."""

from __future__ import annotations

import threading

from django.db import connection, connections

from dwebsocket import require_websocket
from tests.database.helpers import waits_in_vain
from tests.links import assert_ends
from tests.sites import Site


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
