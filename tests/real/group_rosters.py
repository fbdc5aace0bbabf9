"""What pages are told of who is present, and what the members of a group are."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlencode

from tests.real.group_histories import Visit
from tests.real.servers import Server

_SIGNAL = re.compile(r"presence of (\S+): came (\[.*\]), went (\[.*\])$", re.MULTILINE)


class Roster:
    """What one page knows after each text: `here` by id, and how often each name has come and gone since the first.

    AssertionError where a text does not fit: one goes that is not there, or comes once more.
    """

    def __init__(self, group: str, texts: Iterable[dict[str, Any]]) -> None:
        self.here: dict[str, str] = {}
        self.came: Counter[str] = Counter()
        self.went: Counter[str] = Counter()
        has_begun = False
        for text in texts:
            if text["g"] != group:
                continue
            if "here" in text:
                has_begun = True
                self.here = {member["id"]: member["info"]["name"] for member in text["here"]}
            elif "came" in text:
                assert has_begun, text
                for name in text["went"]:
                    assert name in self.here, f"{name} goes, and was not there: {text}"
                    self.went[self.here.pop(name)] += 1
                for member in text["came"]:
                    assert member["id"] not in self.here, f"{member} comes, and was there: {text}"
                    self.here[member["id"]] = member["info"]["name"]
                    self.came[member["info"]["name"]] += 1

    @property
    def names(self) -> set[str]:
        return set(self.here.values())


def roster(group: str, visit: Visit) -> Roster:
    """What the page of this visit knows."""
    return Roster(group, visit.texts)


def members(server: Server, group: str) -> dict[str, int] | None:
    """The users that are present, by what this server says, and how many WebSockets each has; None where it cannot."""
    response = server.get(f"/members/?{urlencode({'group': group})}")
    if response.status != 200:
        return None
    answer = json.loads(response.body)
    found: dict[str, int] = answer["members"]
    return found


def counts(server: Server, group: str) -> tuple[int, int]:
    """The number of WebSockets that are present, and of users."""
    answer = json.loads(server.get(f"/members/?{urlencode({'group': group})}").body)
    return answer["sockets"], answer["users"]


def signals(servers: Sequence[Server], group: str) -> tuple[Counter[str], Counter[str]]:
    """How often group_presence_changed has told, in all processes, that each user has come, and gone."""
    came: Counter[str] = Counter()
    went: Counter[str] = Counter()
    for server in servers:
        for name, joined, left in _SIGNAL.findall(server.log()):
            if name == group:
                came.update(json.loads(joined.replace("'", '"')))
                went.update(json.loads(left.replace("'", '"')))
    return came, went
