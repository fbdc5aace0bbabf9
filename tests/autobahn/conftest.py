"""The tables of the Autobahn test suite are the last thing that a run prints."""

from __future__ import annotations

import pytest

from tests.autobahn import suite

TABLES = pytest.StashKey[dict[str, str]]()  # by server


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for name, table in sorted(config.stash.get(TABLES, {}).items()):
        terminalreporter.section(f"Autobahn {suite.VERSION}, {name}", sep="-")
        terminalreporter.line(table)
