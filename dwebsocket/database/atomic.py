"""ATOMIC_REQUESTS: plain HTTP in a transaction, a WebSocket in none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import connections, transaction
from django.http import HttpRequest

# ATOMIC_REQUESTS


class Exempt(set[str]):
    """What Django looks up to see which databases a view is exempt on from ATOMIC_REQUESTS: all.

    Its elements are those for which the project has said so itself.
    """

    def __contains__(self, alias: object) -> bool:
        return True


def exempt(view: Any) -> Exempt:
    """What takes the place of the view's own exemptions."""
    return Exempt(tuple(getattr(view, "_non_atomic_requests", ())))


def atomic_request(view: Callable[..., Any], exempt: Exempt, request: HttpRequest) -> Callable[..., Any]:
    """The view as Django calls it for plain HTTP: in a transaction where ATOMIC_REQUESTS says so."""
    match = request.resolver_match  # a class is decorated at each request, and its view was exempted once
    own = {*exempt, *getattr(match and match.func, "_non_atomic_requests", ())}
    for alias, database in connections.settings.items():
        if database["ATOMIC_REQUESTS"] and alias not in own:
            view = transaction.atomic(using=alias)(view)
    return view
