"""Every case of the Autobahn test suite is OK, on both reactors, compression on.

AUTOBAHN_CASES=all runs all of them, which takes long; else compression is tried with three sizes of messages.
AUTOBAHN_HOME is where the suite is installed, once. AUTOBAHN_DOCS=1 writes the tables into docs/conformance.md.
"""

from __future__ import annotations

import os
import platform
import re
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest

from dwebsocket import __version__
from tests.autobahn import suite
from tests.autobahn.conftest import TABLES
from tests.real.servers import ROOT, assert_quiet, running

pytestmark = [pytest.mark.autobahn, pytest.mark.timeout(0)]

EVERYTHING = os.environ.get("AUTOBAHN_CASES") == "all"
CASES = ["*"] if EVERYTHING else suite.FRAMING + suite.COMPRESSION_SAMPLE
LIMIT_SECONDS = 5400 if EVERYTHING else 1200
SERVERS = ["pywsgi", "gunicorn-gthread"]
SETTINGS = {"WEBSOCKET_COMPRESSION": True, "WEBSOCKET_MAX_MESSAGE_SIZE": 16 * 1024 * 1024}
DOCS = ROOT / "docs" / "conformance.md"

#: These only ask what a server does: with a large message before a close, and with two close codes. They come out as
#: INFORMATIONAL whatever it does.
INFORMATIONAL = {"7.1.6", "7.13.1", "7.13.2"}


@dataclass(frozen=True)
class Judgement:
    """What the suite says of a server, and what the server said meanwhile."""

    server: str
    cases: list[suite.Case]
    log: str


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = os.environ.get("AUTOBAHN_HOME")
    try:
        return suite.install(Path(home) if home else tmp_path_factory.mktemp("wstest") / "venv")
    except suite.NoPython27 as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def judgements(
    program: Path, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[dict[str, Future[Judgement]]]:
    """Of each server; they are tried at the same time."""
    assert EVERYTHING or not os.environ.get("AUTOBAHN_DOCS"), "only a run of all cases goes into the documentation"
    tables = pytestconfig.stash.setdefault(TABLES, {})
    folders = {name: tmp_path_factory.mktemp(name) for name in SERVERS}  # here: two threads may make two base folders

    def judge(name: str) -> Judgement:
        with running(name, folders[name], **SETTINGS) as server:
            cases = suite.run(
                program, server.url("/echo/"), name, CASES, folders[name] / "report", limit_seconds=LIMIT_SECONDS
            )
            tables[name] = suite.table(cases)
            story = f"the last case was {cases[-1] if cases else None}\nthe log:\n{server.log()}"
            assert server.process.poll() is None, f"the server has ended; {story}"
            assert int(server.get("/pid/").body) == server.worker_pid, f"the worker has ended; {story}"
            return Judgement(name, cases, server.take_news())

    with ThreadPoolExecutor(len(SERVERS)) as threads:
        yield {name: threads.submit(judge, name) for name in SERVERS}
    if os.environ.get("AUTOBAHN_DOCS"):
        write_tables(tables)


@pytest.fixture(scope="session", params=SERVERS)
def judgement(request: pytest.FixtureRequest, judgements: dict[str, Future[Judgement]]) -> Judgement:
    return judgements[request.param].result()


def test_every_case_was_run(judgement: Judgement) -> None:
    assert len(judgement.cases) == (suite.ALL_CASES if EVERYTHING else suite.SAMPLE_CASES)


def test_every_case_is_ok(judgement: Judgement) -> None:
    assert_all_ok(judgement, lambda case: case.behaviour)
    assert {case.number for case in judgement.cases if case.behaviour != "OK"} == INFORMATIONAL


def test_every_connection_is_closed_cleanly(judgement: Judgement) -> None:
    assert_all_ok(judgement, lambda case: case.closing)


def test_the_server_logs_no_trouble(judgement: Judgement) -> None:
    assert "Listening at" in judgement.log
    assert_quiet(judgement.log)


def assert_all_ok(judgement: Judgement, verdict: Callable[[suite.Case], str]) -> None:
    others = [case for case in judgement.cases if verdict(case) != "OK" and case.number not in INFORMATIONAL]
    assert not others, "\n".join([f"{judgement.server}:", *map(str, others)])


def write_tables(tables: dict[str, str]) -> None:
    """Put the tables into the documentation, and what they are the tables of."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("Django", "gevent", "gunicorn"))
    python = f"{platform.python_implementation()} {platform.python_version()}"
    versions = f"Autobahn {suite.VERSION}, all {suite.ALL_CASES} cases; dwebsocket {__version__}, {python}, {packages}."
    page = DOCS.read_text()
    for name, text in {"versions": textwrap.fill(versions, 120), **tables}.items():
        block = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- end -->)", re.DOTALL)
        assert block.search(page), f"{DOCS.name} has no place for {name}"
        page = block.sub(lambda found, text=text: found[1] + text + found[2], page)
    DOCS.write_text(page)
