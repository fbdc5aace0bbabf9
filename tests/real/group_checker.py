"""What every test of groups with faults asserts: nothing doubled, nothing missing unless it was told, one order.

A message is the text "group publisher n", where a publisher counts from 0 in each group. The log of a subscriber is
what its peer has received; its view adds "gap group" for a Gap.
"""

from __future__ import annotations

import graphlib
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple


class Message(NamedTuple):
    group: str
    publisher: str
    n: int

    def __str__(self) -> str:
        return f"{self.group} {self.publisher} {self.n}"


class GapIn(NamedTuple):
    group: str


class Stream(NamedTuple):
    """What one publisher sends to one group."""

    group: str
    publisher: str


def parse(text: str) -> Message | GapIn | None:
    """The entry of a log; None for what is no part of it, such as what a view answers to its peer."""
    words = text.split(" ", 3)
    if words[0] == "gap":
        return GapIn(words[1])
    if len(words) >= 3 and words[2].isdecimal():
        return Message(words[0], words[1], int(words[2]))
    return None


def parse_all(texts: Iterable[str]) -> list[Message | GapIn]:
    return [entry for text in texts if (entry := parse(text)) is not None]


def check(
    logs: Mapping[str, Sequence[Message | GapIn]],
    *,
    unsure: Collection[Message] = (),
    last: Mapping[Stream, int] | None = None,
    may_have_gaps: bool = True,
) -> None:
    """Check the logs of all subscribers, by name.

    `unsure` are messages whose `send()` has raised: each may be there or not. `last`: every log has these streams, up
    to these numbers, or a Gap at its end. A log begins wherever its subscriber has joined.
    """
    unsure = frozenset(unsure)
    mistakes = []
    for name, log in logs.items():
        mistakes += [f"{name}: {mistake}" for mistake in _mistakes(log, unsure, may_have_gaps)]
        for stream, number in (last or {}).items():
            if not has_end(log, stream, number):
                mistakes.append(f"{name}: {stream} ends before {number}")
    assert not mistakes, "\n".join([f"{len(mistakes)} mistakes", *mistakes[:20]])
    check_order(logs.values())


def check_order(logs: Iterable[Sequence[Message | GapIn]]) -> None:
    """Each group has one order, and every log agrees with it."""
    orders: dict[str, set[tuple[Message, ...]]] = {}
    for log in logs:
        by_group: dict[str, list[Message]] = {}
        for entry in log:
            if isinstance(entry, Message):
                by_group.setdefault(entry.group, []).append(entry)
        for group, messages in by_group.items():
            orders.setdefault(group, set()).add(tuple(messages))
    for group, found in orders.items():
        before: dict[Message, set[Message]] = {}
        for order in found:
            for earlier, later in itertools.pairwise(order):
                before.setdefault(later, set()).add(earlier)
        try:
            graphlib.TopologicalSorter(before).prepare()
        except graphlib.CycleError as error:
            circle = " < ".join(map(str, error.args[1]))
            raise AssertionError(f"the group {group} has several orders: {circle}") from None


def _mistakes(log: Sequence[Message | GapIn], unsure: frozenset[Message], may_have_gaps: bool) -> list[str]:
    mistakes = []
    ends: dict[Stream, int] = {}
    gaps: dict[str, int] = {}  # how many there were of a group
    seen_at: dict[Stream, int] = {}  # how many of them had come before the last message of a stream
    for at, entry in enumerate(log):
        if isinstance(entry, GapIn):
            gaps[entry.group] = gaps.get(entry.group, 0) + 1
            if not may_have_gaps:
                mistakes.append(f"a gap of {entry.group} at {at}")
            continue
        stream = Stream(entry.group, entry.publisher)
        told = gaps.get(entry.group, 0)
        if stream in ends:
            if entry.n <= ends[stream]:
                mistakes.append(f"{entry} at {at}, behind {ends[stream]}: doubled, or out of order")
            missing = [
                n for n in range(ends[stream] + 1, entry.n) if Message(entry.group, entry.publisher, n) not in unsure
            ]
            if missing and told == seen_at[stream]:
                mistakes.append(f"{entry} at {at}: {len(missing)} before it are missing, from {missing[0]}, and no gap")
        ends[stream] = max(entry.n, ends.get(stream, -1))
        seen_at[stream] = told
    return mistakes


def has_end(log: Sequence[Message | GapIn], stream: Stream, number: int) -> bool:
    """Whether the log has the stream up to `number`, or a Gap behind all that it has of it."""
    for entry in reversed(log):
        if entry.group == stream.group:
            if isinstance(entry, GapIn):
                return True
            if entry.publisher == stream.publisher:
                return entry.n >= number
    return False


def gaps(log: Sequence[Message | GapIn]) -> int:
    return sum(isinstance(entry, GapIn) for entry in log)
