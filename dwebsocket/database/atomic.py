"""ATOMIC_REQUESTS: plain HTTP in a transaction, a WebSocket in none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import connections, transaction
from django.http import HttpRequest


class Exempt(set[str]):
    """The databases on which Django takes a view for exempt from ATOMIC_REQUESTS: all of them.

    The elements are the databases for which the project has exempted it.
    """

    def __contains__(self, alias: object) -> bool:
        return True


def exempt(view: Any) -> Exempt:
    """Return the exemptions that replace those of the view."""
    return Exempt(tuple(getattr(view, "_non_atomic_requests", ())))


def atomic_request(view: Callable[..., Any], exempt: Exempt, request: HttpRequest) -> Callable[..., Any]:
    """Return the view as Django calls it for plain HTTP: in a transaction where ATOMIC_REQUESTS says so."""
    match = request.resolver_match  # a class is decorated at each request, and its view was exempted once
    own = {*exempt, *getattr(match and match.func, "_non_atomic_requests", ())}
    for alias, database in connections.settings.items():
        if database["ATOMIC_REQUESTS"] and alias not in own:
            view = transaction.atomic(using=alias)(view)
    return view
