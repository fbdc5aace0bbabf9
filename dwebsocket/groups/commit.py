"""Waiting for the commit: a message that is sent inside a transaction leaves after it, or never."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from django.db import connections, transaction


def after_commit(function: Callable[[bool], None], using: str | None) -> bool:
    """Call `function` after the commit of every open transaction, or at once where there is none; whether at once.

    It is told whether it waited for a commit. There what it raises is logged by Django, and the other callbacks are
    called; without a transaction it is raised here. `using`: only the transaction of this database counts.

    Blocks of a TestCase are no transactions: they never commit. Where autocommit is off, Django's
    TransactionManagementError is raised.
    """
    alias = _open_transaction(using)
    if alias is None:
        function(False)
        return True
    _at_commit(alias, function, using)
    return False


def _at_commit(alias: str, function: Callable[[bool], None], using: str | None) -> None:
    def committed() -> None:  # no partial: Django's log wants the __qualname__ of one that fails
        other = _open_transaction(using)  # of another database, which was opened around this one or inside it
        if other is None:
            function(True)
        else:
            _at_commit(other, function, using)

    transaction.on_commit(committed, using=alias, robust=True)


def _open_transaction(using: str | None) -> str | None:
    """The alias of a database of the calling thread whose transaction is open; None where there is none."""
    return next((connection.alias for connection in _connections(using) if _is_in_transaction(connection)), None)


def _connections(using: str | None) -> Iterator[Any]:
    if using is None:
        yield from connections.all(initialized_only=True)
    else:
        yield connections[using]


def _is_in_transaction(connection: Any) -> bool:
    if connection.in_atomic_block:
        return not all(block._from_testcase for block in connection.atomic_blocks)
    # Without autocommit there is always a transaction, and no block that could call back: on_commit() says so.
    return connection.connection is not None and not connection.autocommit
