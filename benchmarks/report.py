"""What was measured, as medians, ratios, Markdown and JSON."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from .processes import Cores
from .rows import ALL_ROWS, SERVERS, Goal, Row, Value

BUSY_CLIENT = 0.9
DISTURBANCE = 0.15
REQUIREMENTS = Path(__file__).with_name("requirements.txt")


class Measurement(NamedTuple):
    """What one contender reached in one round; without values, why it failed."""

    row: str
    round: int
    contender: str
    server: str
    load: tuple[str, ...]
    idle: int
    values: dict[str, Any]
    failed: str = ""

    @property
    def remarks(self) -> list[str]:
        """What makes it doubtful."""
        busy, server = self.values.get("client_busy", 0), self.values.get("server_busy", 0)
        found = {
            f"the load client's core was busy {busy:.0%} of the time": busy > BUSY_CLIENT,
            "the server had not its whole core": server - self.values.get("server_share", server) > DISTURBANCE,
        }
        return [words for words, is_true in found.items() if is_true]


class Measurements(list[Measurement]):
    """All of them, in the order in which they were made."""

    def by_round(self, row: str, contender: str, key: str) -> dict[int, float]:
        return {
            each.round: each.values[key]
            for each in self
            if (each.row, each.contender) == (row, contender) and key in each.values
        }

    def median(self, row: str, contender: str, key: str) -> float | None:
        values = self.by_round(row, contender, key).values()
        return median(values) if values else None

    def ratios(self, row: str, ours: str, peer: str, key: str) -> list[float]:
        """Of each round: what is compared was measured side by side."""
        numerators, denominators = self.by_round(row, ours, key), self.by_round(row, peer, key)
        return [numerators[round_] / denominators[round_] for round_ in numerators if round_ in denominators]

    def failed(self) -> list[Measurement]:
        return [each for each in self if each.failed]


class Verdict(NamedTuple):
    """A goal, and how far it was reached. Without a number, it was not measured."""

    work: str
    goal: Goal
    value: Value
    ours: str
    peer: str
    ours_median: float | None
    peer_median: float | None
    number: float | None  # the median of the ratios; without a peer, our median
    lowest: float | None
    highest: float | None
    is_met: bool


def verdicts(measurements: Measurements, rows: Iterable[str]) -> list[Verdict]:
    """One for each goal of these rows."""
    return [_verdict(measurements, name, ALL_ROWS[name], goal) for name in rows for goal in ALL_ROWS[name].goals]


def _verdict(measurements: Measurements, name: str, row: Row, goal: Goal) -> Verdict:
    value = goal.value or row.value
    if goal.peer is None:
        numbers = list(measurements.by_round(name, goal.ours, value.key).values())
    else:
        numbers = measurements.ratios(name, goal.ours, goal.peer, value.key)
    number = median(numbers) if numbers else None
    return Verdict(
        work=row.work,
        goal=goal,
        value=value,
        ours=label(row, goal.ours),
        peer=label(row, goal.peer) if goal.peer else "",
        ours_median=measurements.median(name, goal.ours, value.key),
        peer_median=measurements.median(name, goal.peer, value.key) if goal.peer else None,
        number=number,
        lowest=min(numbers, default=None),
        highest=max(numbers, default=None),
        is_met=number is not None and goal.is_met(number),
    )


def label(row: Row, contender: str) -> str:
    """The server of a contender, and what else sets it apart."""
    server = next(each.server for each in row.contenders if each.name == contender)
    return SERVERS[server].label if server == contender else f"{SERVERS[server].label}, {contender}"


def markdown(measurements: Measurements, rows: list[str], environment: dict[str, Any]) -> str:
    """The table of the goals, the table of everything, and what they were measured with."""
    parts = [_goals(verdicts(measurements, rows)), _everything(measurements, rows), _client(measurements)]
    parts.append("Measured with " + ", ".join(f"{name} {value}" for name, value in environment.items()) + ".")
    return "\n\n".join(filter(None, parts)) + "\n"


def _table(header: tuple[str, ...], lines: list[tuple[str, ...]]) -> str:
    rows = [header, ("---",) * len(header), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) if lines else ""


def _goals(found: list[Verdict]) -> str:
    header = ("work", "measured", "compared with", "ratio (of rounds)", "goal", "met")
    return _table(header, [_goal_line(verdict) for verdict in found])


def _goal_line(verdict: Verdict) -> tuple[str, ...]:
    words = verdict.value.words
    ours = "failed" if verdict.ours_median is None else words(verdict.ours_median)
    peer = "" if not verdict.peer else "failed" if verdict.peer_median is None else words(verdict.peer_median)
    is_ratio = verdict.peer and verdict.number is not None
    ratio = f"{verdict.number:.2f} ({verdict.lowest:.2f} to {verdict.highest:.2f})" if is_ratio else ""
    return (
        verdict.work,
        f"{verdict.ours}: {ours}",
        f"{verdict.peer}: {peer}" if peer else "",
        ratio,
        verdict.goal.words(verdict.value),
        "yes" if verdict.is_met else "**no**",
    )


def _everything(measurements: Measurements, rows: list[str]) -> str:
    header = ("work", "server", "median", "server CPU each", "server busy", "client busy")
    lines = [
        _line(measurements, name, ALL_ROWS[name], contender.name)
        for name in rows
        for contender in ALL_ROWS[name].contenders
    ]
    return _table(header, lines)


def _line(measurements: Measurements, name: str, row: Row, contender: str) -> tuple[str, ...]:
    number, cpu, server, client = (
        measurements.median(name, contender, key)
        for key in (row.value.key, "server_cpu_us", "server_busy", "client_busy")
    )
    p50 = measurements.median(name, contender, "p50_us")
    half = "" if p50 is None else f" (50th: {p50:,.0f} µs)"
    others = ((value, measurements.median(name, contender, value.key)) for value in row.also)
    also = "".join(f"; {value.words(found)}" for value, found in others if found is not None)
    return (
        row.work,
        label(row, contender),
        "failed" if number is None else row.value.words(number) + half + also,
        "" if cpu is None else f"{cpu:.1f} µs",
        "" if server is None else f"{server:.0%}",
        "" if client is None else f"{client:.0%}{' (!)' if client > BUSY_CLIENT else ''}",
    )


def _client(measurements: Measurements) -> str:
    """Whether it was the load client that was measured."""
    sentences = []
    for row, more, of in (("client", "0.5 µs", "replies"), ("fan-client", "0.2 µs", "deliveries")):
        if slower := measurements.ratios(row, "slower client", "as it is", "per_second"):
            sentences.append(f"A load client that takes {more} more for each gets {median(slower):.2f} of the {of}.")
    for row, server, what in (("echo", "floor", "message"), ("fan", "fan-floor", "delivery")):
        floor = [each.values for each in measurements if (each.row, each.server) == (row, server) and each.values]
        if floor:
            each_us = median(values["client_cpu_seconds"] / values["done"] for values in floor) * 1e6
            sentences.append(f"With a server that has no codec, it uses {each_us:.1f} µs of CPU for a {what}.")
    busy = [each for each in measurements if each.values.get("client_busy", 0) > BUSY_CLIENT]
    if busy:
        names = ", ".join(sorted({f"{each.row}/{each.contender}" for each in busy}))
        server = min(each.values["server_busy"] for each in busy)
        sentences.append(
            f"(!) The core of the load client was busy for more than {BUSY_CLIENT:.0%} of the time in {len(busy)} of "
            f"{len(measurements)} measurements ({names}); in these, that of the server was for at least {server:.0%}. "
            "A server whose core never rests does not wait for the client."
        )
    else:
        sentences.append(
            f"In no measurement was the core of the load client busy for more than {BUSY_CLIENT:.0%} of the time."
        )
    return " ".join(sentences)


def environment(cores: Cores) -> dict[str, str]:
    """The versions of everything, and the machine."""
    packages = re.findall(r"^[A-Za-z][\w-]*", REQUIREMENTS.read_text(), re.MULTILINE)
    compiler = subprocess.run(["cc", "--version"], capture_output=True, text=True, check=True)  # noqa: S607
    return {
        "Python": platform.python_version(),
        **{name: version(name) for name in packages},
        "cc": compiler.stdout.splitlines()[0],
        "Linux": platform.release(),
        "CPU": _cpu_model(),
        "cores": f"{os.cpu_count()} ({cores.remark})",
        "date": date.today().isoformat(),
    }


def _cpu_model() -> str:
    names = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return names[0] if names else platform.machine()


def as_json(measurements: Measurements, rows: list[str], environment: dict[str, Any]) -> dict[str, Any]:
    """Every single measurement, and what follows from them."""
    return {
        "environment": environment,
        "goals": [
            {
                "work": verdict.work,
                "ours": verdict.ours,
                "peer": verdict.peer,
                "value": verdict.value.key,
                "unit": verdict.value.unit,
                "ours_median": verdict.ours_median,
                "peer_median": verdict.peer_median,
                "number": verdict.number,
                "lowest": verdict.lowest,
                "highest": verdict.highest,
                "goal": verdict.goal.words(verdict.value),
                "is_met": verdict.is_met,
            }
            for verdict in verdicts(measurements, rows)
        ],
        "measurements": [measurement._asdict() | {"remarks": measurement.remarks} for measurement in measurements],
    }
