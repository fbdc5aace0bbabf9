"""The Autobahn test suite: how its fuzzing client is installed and run, and what its report says.

It is a program of Python 2.7 that plays the client of one server and judges what it gets, case by case.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PINS = Path(__file__).with_name("requirements.txt")  # the hashes are those of the files for CPython 2.7 on x86-64
VERSION = "0.8.2"

#: Groups 1 to 10: framing, pings, reserved bits, opcodes, fragmentation, UTF-8, closing, limits, large messages.
FRAMING = [f"{group}.*" for group in range(1, 11)]

#: Groups 12 and 13: compression, with three of the eighteen sizes of messages. One by one: "12.*.1" is 12.1.10 too.
COMPRESSION_SAMPLE = [
    f"{group}.{kind}.{size}"
    for group, kinds in ((12, 5), (13, 7))
    for kind in range(1, kinds + 1)
    for size in (1, 4, 11)
]

#: How many cases the patterns stand for. The client ends with success also when its server has died half-way.
SAMPLE_CASES = 301 + len(COMPRESSION_SAMPLE)
ALL_CASES = 517


class NoPython27(Exception):
    """There is no Python 2.7, without which the fuzzing client cannot be installed."""


def install(folder: Path) -> Path:
    """The fuzzing client in a virtual environment at `folder`, made if it is not there yet with these very pins."""
    digest = hashlib.sha256(PINS.read_bytes()).hexdigest()
    stamp, program = folder / "pins", folder / "bin" / "wstest"
    if stamp.exists() and stamp.read_text() == digest:
        return program
    python = find_python27()
    shutil.rmtree(folder, ignore_errors=True)
    _run(sys.executable, "-m", "virtualenv", "--quiet", "--no-periodic-update", "--python", python, folder)
    _run(folder / "bin" / "pip", "--quiet", "install", "--no-deps", "--require-hashes", "--requirement", PINS)
    stamp.write_text(digest)
    return program


def find_python27() -> str:
    """The first Python 2.7 that starts, on the PATH or among those of pyenv."""
    for folder in _folders():
        program = shutil.which("python2.7", path=folder)
        # pyenv puts a script of this name on the PATH which may only say which of its versions have the program.
        if program and subprocess.run([program, "--version"], capture_output=True).returncode == 0:
            return program
    raise NoPython27("the Autobahn test suite needs python2.7, on the PATH or from pyenv")


def _folders() -> Iterator[str]:
    yield from os.get_exec_path()
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from map(str, pyenv.glob("versions/2.7*/bin"))


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} failed:\n{done.stdout}\n{done.stderr}")


@dataclass(frozen=True)
class Case:
    """How one case went: what the server did, how it closed, and where the client has written down the rest."""

    number: str
    behaviour: str
    closing: str
    report: Path

    @property
    def group(self) -> int:
        return int(self.number.split(".")[0])

    def __str__(self) -> str:
        """What happened, as far as it fits into the message of a failed test."""
        told = json.loads(self.report.read_text())
        expected, received = (json.dumps(told[name])[:1000] for name in ("expected", "received"))
        return (
            f"{self.number}: {self.behaviour}, closing {self.closing}, after {told['duration']} ms\n"
            f"    {' '.join(told['description'].split())}\n"
            f"    {told['result']}\n"
            f"    {told['resultClose']} (code {told['remoteCloseCode']})\n"
            f"    expected {expected}\n"
            f"    received {received}"
        )


def run(program: Path, url: str, agent: str, cases: Iterable[str], folder: Path, *, limit_seconds: float) -> list[Case]:
    """What the fuzzing client says of the server at `url`: as many cases as it came to."""
    folder.mkdir(parents=True)
    specification = folder / "fuzzingclient.json"
    specification.write_text(
        json.dumps(
            {
                "outdir": str(folder),
                "servers": [{"agent": agent, "url": url}],
                "cases": list(cases),
                "exclude-cases": [],
                "exclude-agent-cases": {},
            }
        )
    )
    log_file = folder / "log"
    with log_file.open("wb") as log:
        done = subprocess.run(
            [str(program), "-m", "fuzzingclient", "-s", str(specification)],
            cwd=folder,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            timeout=limit_seconds,
        )
    index = folder / "index.json"
    if done.returncode or not index.exists():
        raise RuntimeError(f"{program} ended with {done.returncode}:\n{log_file.read_text()[-3000:]}")
    report = json.loads(index.read_text()).get(agent, {})
    return [
        Case(number, case["behavior"], case["behaviorClose"], folder / case["reportfile"])
        for number, case in sorted(report.items(), key=lambda item: [int(part) for part in item[0].split(".")])
    ]


GROUPS = {
    1: "framing",
    2: "pings and pongs",
    3: "reserved bits",
    4: "opcodes",
    5: "fragmentation",
    6: "UTF-8",
    7: "closing handshake",
    9: "limits and performance",
    10: "auto-fragmentation",
    12: "compression, messages",
    13: "compression, parameters",
}
COLUMNS = ["OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED", "FAILED"]


def table(cases: list[Case]) -> str:
    """The counts of a report, group by group, in Markdown."""
    rows = [("group", "cases", *COLUMNS, "closed cleanly")]
    groups = [(f"{group} {name}", [case for case in cases if case.group == group]) for group, name in GROUPS.items()]
    for name, members in [*groups, ("all", cases)]:
        if members:
            counts = Counter(case.behaviour for case in members)
            clean = sum(case.closing == "OK" for case in members)
            rows.append((name, str(len(members)), *(str(counts[column]) for column in COLUMNS), str(clean)))
    rows.insert(1, ("---", *["---:"] * (len(rows[0]) - 1)))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
