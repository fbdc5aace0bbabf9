"""ATOMIC_REQUESTS: plain HTTP in a transaction, as the project says."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
from django.db import connection, connections, transaction
from django.http import HttpResponse
from django.utils.decorators import method_decorator
from django.views import View

from dwebsocket import accept_websocket
from tests.sites import Site


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
