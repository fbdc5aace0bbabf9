"""The form in which a page gets what happens in its groups, where it has asked for it: one JSON object for each text.

`g` is the name of the group, and `p` the position after this text: a page that comes back sends it. One more key says
what it is: `d` a message that is text, `b` one of bytes (base64); `joined` whether the page has all that it missed;
`gap` that messages are missing here; `here`, `came`, `went` and `count` who is present.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.utils.crypto import salted_hmac

from ..websocket import GroupMessage
from .backend import Present

#: Above so many members a page gets their number alone: a room of n would cost n² messages.
MAX_NAMED = 200

#: A page sends it in the URL for each group, `since=<position>:<group>`, when it comes back.
PARAMETER = "since"


def envelope(message: GroupMessage) -> str:
    """Use it as `join(group, forward=envelope)`: the page gets each message with its group and its position.

    JSON like {"g": "room:7", "p": "9f3c2a-12", "d": "the message"}; bytes are in "b", in base64.
    """
    if isinstance(message.data, str):
        return _text(g=message.group, p=message.position, d=message.data)
    return _text(g=message.group, p=message.position, b=base64.b64encode(message.data).decode())


def joined(group: str, position: str | None, recovered: bool | None) -> str:
    """The page is a member: messages after `position` follow. `recovered` as in Joined."""
    return _text(g=group, p=position, joined=recovered)


def gap(group: str, position: str) -> str:
    """Messages are missing here; those after `position` follow."""
    return _text(g=group, p=position, gap=True)


def here(group: str, members: Sequence[Present]) -> str:
    """All who are present, or how many where they are many."""
    if len(members) > MAX_NAMED:
        return _text(g=group, count=len(members))
    return _text(g=group, here=list(map(_member, members)))


def changes(group: str, came: Iterable[Present], went: Iterable[str]) -> str:
    """Members that have come, or have another info now, and those that have gone, since the last such text."""
    return _text(g=group, came=list(map(_member, came)), went=[_id(user) for user in went])


def _member(member: Present) -> Mapping[str, Any]:
    return {"id": _id(member.user), "info": json.loads(member.info)}


def _id(user: str) -> str:
    """A name for the member that tells a page nothing of the primary key."""
    return salted_hmac("dwebsocket.groups.page", user, algorithm="sha256").hexdigest()[:16]


def _text(**values: Any) -> str:
    return json.dumps(values, separators=(",", ":"))
