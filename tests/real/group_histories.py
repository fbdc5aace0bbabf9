"""What every test of histories with faults asserts of pages that keep their positions, and come back with them.

The log of a page is complete and in order, over all its visits, but where it was told that it is not: by a gap, or by
`"joined": false`. A position is one message, in all logs and in what `send()` has returned.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dwebsocket.groups.position import Position
from tests.real.group_checker import GapIn, Message, check, parse


@dataclass
class Visit:
    """One connection of a page: the positions that it has sent, by group, and what it has received, parsed."""

    sent: Mapping[str, str]
    texts: list[dict[str, Any]] = field(default_factory=list)


class Place(NamedTuple):
    group: str
    position: Position


def place(group: str, position: str) -> Place:
    found = Position.parse(position)
    assert found is not None, position
    return Place(group, found)


def positions(visits: Iterable[Visit]) -> dict[str, str]:
    """Where the page is in each of its groups: what it sends when it comes back."""
    return {text["g"]: text["p"] for visit in visits for text in visit.texts if "p" in text}


def data(texts: Iterable[str]) -> list[dict[str, Any]]:
    """The JSON objects among the texts that a page has received; of long messages that which says which one it is."""
    found = [json.loads(text) for text in texts if text.startswith("{")]
    for one in found:
        if "d" in one:
            one["d"] = " ".join(one["d"].split(" ", 3)[:3])
    return found


def told(visits: Iterable[Visit]) -> Counter[str]:
    """How often the page was told what: "joined null", "joined true", "joined false", "gap"."""
    found: Counter[str] = Counter()
    for visit in visits:
        for text in visit.texts:
            if "joined" in text:
                found[f"joined {json.dumps(text['joined'])}"] += 1
            elif "gap" in text:
                found["gap"] += 1
    return found


def told_of_loss(visits: Iterable[Visit]) -> int:
    found = told(visits)
    return found["gap"] + found["joined false"]


def log(visits: Iterable[Visit]) -> list[Message | GapIn]:
    """The same for `group_checker.check()`, which looks at the numbers of the publishers."""
    found: list[Message | GapIn] = []
    for visit in visits:
        for text in visit.texts:
            if "gap" in text or text.get("joined") is False:
                found.append(GapIn(text["g"]))
            elif "d" in text and (entry := parse(text["d"])) is not None:
                found.append(entry)
    return found


def check_histories(
    pages: Mapping[str, Sequence[Visit]],
    returned: Mapping[Place, str],
    *,
    unsure: Collection[Message] = (),
    may_lose: bool = True,
) -> None:
    """Check all pages, by name. `returned`: the positions that `send()` has returned, and the messages.

    `unsure` as for `check()`. `may_lose` false: no page was told that it has missed something.
    """
    truth = dict(returned)
    mistakes = []
    for name, visits in pages.items():
        mistakes += [f"{name}: {mistake}" for mistake in _mistakes(visits, truth)]
        if not may_lose and (lost := told_of_loss(visits)):
            mistakes.append(f"{name} was told {lost} times that it has missed something: {dict(told(visits))}")
    places: dict[tuple[str, str], Place] = {}
    for at, text in truth.items():
        other = places.setdefault((at.group, text), at)
        if other != at:
            mistakes.append(f"{text!r} is at {other.position} and at {at.position}")
    assert not mistakes, "\n".join([f"{len(mistakes)} mistakes", *mistakes[:20]])
    check({name: log(visits) for name, visits in pages.items()}, unsure=unsure)


def _mistakes(visits: Sequence[Visit], truth: dict[Place, str]) -> list[str]:
    mistakes = []
    at: dict[str, Position] = {}  # in each group
    for number, visit in enumerate(visits):
        has_joined: set[str] = set()
        for text in visit.texts:
            if "p" not in text:
                continue  # of a roster
            group, position = place(text["g"], text["p"])
            where = f"{group} in visit {number}: {text}"
            if "joined" in text:
                if group in has_joined:
                    mistakes.append(f"{where} once more")
                has_joined.add(group)
                mistakes += [f"{where} {mistake}" for mistake in _mistakes_of_joined(text, visit.sent.get(group), at)]
            elif group not in has_joined:
                mistakes.append(f"{where} before it has joined")
            elif "gap" not in text:
                if position != Position(at[group].epoch, at[group].offset + 1):
                    mistakes.append(f"{where} behind {at[group]}")
                if truth.setdefault(Place(group, position), text["d"]) != text["d"]:
                    mistakes.append(f"{where}, where others have {truth[Place(group, position)]!r}")
            at[group] = position
    return mistakes


def _mistakes_of_joined(text: Mapping[str, Any], sent: str | None, at: Mapping[str, Position]) -> list[str]:
    if sent is None:
        return [] if text["joined"] is None else ["although it has sent no position"]
    if text["joined"] is None:
        return [f"although it has sent {sent}"]
    if text["joined"] and text["p"] != sent:
        return [f"although it was at {sent}"]
    if sent != str(at.get(text["g"])):
        return [f"and it has sent {sent}, but was at {at.get(text['g'])}: a mistake of the test"]
    return []
