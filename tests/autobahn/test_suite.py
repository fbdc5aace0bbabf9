"""The Autobahn test suite is found, installed once, and believed no more than it deserves."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.autobahn import suite


def script(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for all programs there are."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    return tmp_path


def test_python27_is_found_on_the_path(nowhere: Path) -> None:
    python = script(nowhere / "bin" / "python2.7")
    assert suite.find_python27() == str(python)


def test_python27_is_found_behind_the_script_of_pyenv_that_refuses(nowhere: Path) -> None:
    script(nowhere / "bin" / "python2.7", "exit 127")
    python = script(nowhere / "pyenv" / "versions" / "2.7.18" / "bin" / "python2.7")
    assert suite.find_python27() == str(python)


def test_no_python27_is_said(nowhere: Path) -> None:
    script(nowhere / "bin" / "python2.7", "exit 127")
    with pytest.raises(suite.NoPython27, match=r"needs python2\.7"):
        suite.find_python27()


def test_what_is_installed_stays_until_the_pins_change(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, pins = nowhere / "venv", nowhere / "pins.txt"
    script(nowhere / "bin" / "python2.7")
    ran: list[tuple[object, ...]] = []

    def run(*command: object) -> None:
        ran.append(command)
        folder.mkdir(exist_ok=True)

    monkeypatch.setattr(suite, "_run", run)
    monkeypatch.setattr(suite, "PINS", pins)
    counts = []
    for text in ("one", "one", "two"):
        pins.write_text(text)
        assert suite.install(folder) == folder / "bin" / "wstest"
        counts.append(len(ran))
    assert counts == [2, 2, 4]


def test_installation_that_failed_is_no_installation(nowhere: Path) -> None:
    script(nowhere / "bin" / "python2.7")  # virtualenv learns nothing from it
    for _ in range(2):
        with pytest.raises(RuntimeError, match="virtualenv"):
            suite.install(nowhere / "venv")


def client(folder: Path, *lines: str) -> Path:
    return script(folder / "wstest", *lines)


def test_client_that_writes_no_report_is_an_error(tmp_path: Path) -> None:
    for end in ("exit 0", "exit 1"):
        program = client(tmp_path, "echo what it said", end)
        with pytest.raises(RuntimeError, match="what it said"):
            suite.run(program, "ws://x/", "x", ["*"], tmp_path / end, limit_seconds=60)


def test_client_that_does_not_end_is_ended(tmp_path: Path) -> None:
    program = client(tmp_path, "exec sleep 60")
    with pytest.raises(subprocess.TimeoutExpired):
        suite.run(program, "ws://x/", "x", ["*"], tmp_path / "report", limit_seconds=0.1)


@pytest.mark.parametrize("index", ["{}", '{"x": {}}'])
def test_report_without_cases_has_none(tmp_path: Path, index: str) -> None:
    program = client(tmp_path, f"echo '{index}' >index.json")
    assert suite.run(program, "ws://x/", "x", ["*"], tmp_path / "report", limit_seconds=60) == []


CASES = {
    "12.1.1": ("UNIMPLEMENTED", "OK"),
    "3.10": ("NON-STRICT", "OK"),
    "3.2": ("OK", "UNCLEAN"),
    "7.1.6": ("INFORMATIONAL", "INFORMATIONAL"),
}
TABLE = """
| group | cases | OK | NON-STRICT | INFORMATIONAL | UNIMPLEMENTED | FAILED | closed cleanly |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| 3 reserved bits | 2 | 1 | 1 | 0 | 0 | 0 | 1 |
| 7 closing handshake | 1 | 0 | 0 | 1 | 0 | 0 | 0 |
| 12 compression, messages | 1 | 0 | 0 | 0 | 1 | 0 | 1 |
| all | 4 | 1 | 1 | 1 | 1 | 0 | 2 |
"""


def test_report_is_read_in_the_order_of_the_cases_and_counted(tmp_path: Path) -> None:
    index = {
        number: {"behavior": behaviour, "behaviorClose": closing, "reportfile": f"{number}.json"}
        for number, (behaviour, closing) in CASES.items()
    }
    told = {
        "description": "<b>Send</b>\n  this",
        "duration": 5,
        "expected": {},
        "received": [["message", "x" * 5000, False]],
        "remoteCloseCode": 1002,
        "result": "so it was",
        "resultClose": "so it ended",
    }
    for name, content in {"index": {"x": index}, "3.10": told}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    program = client(tmp_path, f"cp {tmp_path}/*.json .")
    cases = suite.run(program, "ws://x/", "x", ["*"], tmp_path / "report", limit_seconds=60)
    assert [(case.number, case.group, case.behaviour, case.closing) for case in cases] == [
        ("3.2", 3, "OK", "UNCLEAN"),
        ("3.10", 3, "NON-STRICT", "OK"),
        ("7.1.6", 7, "INFORMATIONAL", "INFORMATIONAL"),
        ("12.1.1", 12, "UNIMPLEMENTED", "OK"),
    ]
    assert suite.table(cases) == TABLE.strip()
    account = str(cases[1])
    assert len(account) < 2000
    for words in ("3.10: NON-STRICT, closing OK, after 5 ms", "Send</b> this", "so it was", "so it ended (code 1002)"):
        assert words in account
