"""The lease on the database connections of a view that waits: what is given back, what is warned of."""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import OperationalError, connection, connections, transaction

from dwebsocket import require_websocket
from tests.database.helpers import names, waits_in_vain
from tests.helpers import levels
from tests.links import assert_ends, run_program
from tests.sites import Site

# What is given back


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


# A fork


FORK = """
import os, signal
from django.conf import settings
settings.configure()
from dwebsocket.database import kept

keepers = [object() for _ in range(kept.MAX_KEPT_LEASES + 1)]
assert [kept.take_place(keeper) for keeper in keepers] == [True] * kept.MAX_KEPT_LEASES + [False]
with kept._lock:  # as another thread may, just then
    child = os.fork()
if child == 0:
    signal.alarm(10)
    os._exit(7 if kept.take_place(object()) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), kept.take_place(keepers[-1]))
"""


def test_child_of_a_fork_has_room_for_its_own_connections_whatever_its_parent_was_doing() -> None:
    assert run_program(FORK).split() == ["7", "False"]
