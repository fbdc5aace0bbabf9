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
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PINS = Path(__file__).with_name("requirements.txt")  # the hashes are those of the files for CPython 2.7 on x86-64
VERSION = "0.8.2"

#: Groups 1 to 10: framing, pings, reserved bits, opcodes, fragmentation, UTF-8, closing, limits, large messages.
FRAMING = [f"{group}.*" for group in range(1, 11)]

#: Groups 12 and 13: compression, with three of the eighteen sizes of messages.
COMPRESSION_SAMPLE = [
    f"{group}.{kind}.{size}"
    for group, kinds in ((12, 5), (13, 7))
    for kind in range(1, kinds + 1)
    for size in (1, 4, 11)
]

#: How many cases the patterns stand for. The client ends with success also when its server has died half-way.
SAMPLE_CASES = 301 + len(COMPRESSION_SAMPLE)
ALL_CASES = 517

LIMIT_SECONDS = 3600


class NotInstalled(Exception):
    """Something that the fuzzing client needs is missing."""


def install(folder: Path) -> Path:
    """The fuzzing client in a virtual environment at `folder`, made if it is not there yet with these very pins."""
    digest = hashlib.sha256(PINS.read_bytes()).hexdigest()
    stamp, program = folder / "pins", folder / "bin" / "wstest"
    if program.exists() and stamp.exists() and stamp.read_text() == digest:
        return program
    python = shutil.which("python2.7")
    if python is None:
        raise NotInstalled("the Autobahn test suite needs python2.7 on the PATH")
    shutil.rmtree(folder, ignore_errors=True)
    for command in (
        [sys.executable, "-m", "virtualenv", "--quiet", "--python", python, str(folder)],
        [str(folder / "bin" / "pip"), "--quiet", "install", "--no-deps", "--require-hashes", "-r", str(PINS)],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise NotInstalled(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
    stamp.write_text(digest)
    return program


@dataclass(frozen=True)
class Case:
    """How one case went: what the server did, and how it closed."""

    number: str
    behaviour: str
    closing: str

    @property
    def group(self) -> int:
        return int(self.number.split(".")[0])

    @property
    def passed(self) -> bool:
        """Whether the server did the best that there is: NON-STRICT is not."""
        return self.behaviour in ("OK", "INFORMATIONAL") and self.closing in ("OK", "INFORMATIONAL")

    def __str__(self) -> str:
        return f"{self.number} ({self.behaviour}, closing {self.closing})"


def run(program: Path, url: str, agent: str, cases: Iterable[str], folder: Path) -> list[Case]:
    """What the fuzzing client says of the server at `url`."""
    folder.mkdir(parents=True, exist_ok=True)
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
    with (folder / "log").open("wb") as log:
        subprocess.run(
            [str(program), "-m", "fuzzingclient", "-s", str(specification)],
            cwd=folder,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            timeout=LIMIT_SECONDS,
            check=True,
        )
    report = json.loads((folder / "index.json").read_text())[agent]
    cases_of_report = [Case(number, case["behavior"], case["behaviorClose"]) for number, case in report.items()]
    return sorted(cases_of_report, key=lambda case: [int(part) for part in case.number.split(".")])


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
