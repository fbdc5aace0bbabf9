"""What the tests of database connections use: a view that waits in vain, and what everybody sees."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import Group

MOMENT_SECONDS = 0.02  # that a view waits in vain


def names() -> list[str]:
    """The groups that everybody sees."""
    return list(Group.objects.values_list("name", flat=True))


def waits_in_vain(request: Any) -> bool:
    """Wait for the peer, which says nothing and is there; what the view does not hold has been given back then."""
    return request.websocket.wait(MOMENT_SECONDS) is None and not request.websocket.closed
