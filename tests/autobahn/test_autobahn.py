"""Every case of the Autobahn test suite is OK, on both reactors, compression on.

AUTOBAHN_CASES=all runs all of them, which takes long; else compression is tried with three sizes of messages.
AUTOBAHN_HOME is where the suite is installed, once. AUTOBAHN_DOCS=1 writes the tables into docs/conformance.md.
"""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.autobahn import suite
from tests.real.servers import ROOT, running

pytestmark = [pytest.mark.autobahn, pytest.mark.timeout(0)]

EVERYTHING = os.environ.get("AUTOBAHN_CASES") == "all"
CASES = ["*"] if EVERYTHING else suite.FRAMING + suite.COMPRESSION_SAMPLE
SERVERS = ["pywsgi", "gunicorn-gthread"]
DOCS = ROOT / "docs" / "conformance.md"

#: 7.1.6, 7.13.1 and 7.13.2 only ask what a server does: with a large message before a close, and with two close codes.
INFORMATIONAL = {"7.1.6", "7.13.1", "7.13.2"}


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = os.environ.get("AUTOBAHN_HOME")
    try:
        return suite.install(Path(home) if home else tmp_path_factory.mktemp("wstest") / "venv")
    except suite.NotInstalled as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def reports(program: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[suite.Case]]:
    """What the suite says of each server; they are tried at the same time."""
    folder = tmp_path_factory.mktemp("autobahn")

    def report_of(name: str) -> list[suite.Case]:
        place = folder / name
        place.mkdir()
        settings = {"WEBSOCKET_COMPRESSION": True, "WEBSOCKET_MAX_MESSAGE_SIZE": 16 * 1024 * 1024}
        with running(name, place, **settings) as server:
            return suite.run(program, server.url("/echo/"), name, CASES, place / "report")

    with ThreadPoolExecutor() as threads:
        reports = dict(zip(SERVERS, threads.map(report_of, SERVERS), strict=True))
    tables = {name: suite.table(cases) for name, cases in reports.items()}
    for name, table in tables.items():
        print(f"\nAutobahn {suite.VERSION}, {name}\n\n{table}")
    if os.environ.get("AUTOBAHN_DOCS"):
        write_tables(tables)
    return reports


def write_tables(tables: dict[str, str]) -> None:
    page = DOCS.read_text()
    for name, table in tables.items():
        block = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- end -->)", re.DOTALL)
        assert block.search(page), f"{DOCS.name} has no place for {name}"
        page = block.sub(lambda found, table=table: found[1] + table + found[2], page)
    DOCS.write_text(page)


@pytest.mark.parametrize("name", SERVERS)
def test_every_case_was_run(reports: dict[str, list[suite.Case]], name: str) -> None:
    assert len(reports[name]) == (suite.ALL_CASES if EVERYTHING else suite.SAMPLE_CASES)


@pytest.mark.parametrize("name", SERVERS)
def test_every_case_is_ok_and_closed_cleanly(reports: dict[str, list[suite.Case]], name: str) -> None:
    assert [str(case) for case in reports[name] if not case.passed] == []
    assert {case.number for case in reports[name] if case.behaviour == "INFORMATIONAL"} == INFORMATIONAL
