"""Members that are present, as a project sees them: the user, and what the others see of it."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from django.core.serializers.json import DjangoJSONEncoder

from ..backend import Present

MAX_INFO_BYTES = 1024  # it travels with each change, and to each page

_USER, _GUEST = "u", "s"  # the first letter of a key: a user is one member, and each WebSocket of a guest is another


class Member(NamedTuple):
    """One member of a group that is present: all tabs of a user are one.

    `user` is the primary key as text, None for a guest. `info` is what the latest `join(presence=…)` said of it, None
    where that was True. `sockets`: how many WebSockets it has in the group.
    """

    user: str | None
    info: Any
    sockets: int


def key_of(user: str | None, socket: str) -> str:
    """The key of the member that has this WebSocket: `user` is the primary key of its user, None for a guest."""
    return f"{_GUEST}{socket}" if user is None else f"{_USER}{user}"


def is_guest(key: str) -> bool:
    """Whether the member with this key is not logged in."""
    return key.startswith(_GUEST)


def member_of(present: Present) -> Member:
    """The member as a project sees it."""
    user = None if is_guest(present.user) else present.user[len(_USER) :]
    return Member(user, json.loads(present.info), present.sockets)


def order_of(present: Present) -> tuple[bool, int, str]:
    """The place of a member in a list: users first, and numbers as one counts."""
    return is_guest(present.user), len(present.user), present.user


def checked_info(presence: object) -> str:
    """The info as JSON text, of what `join(presence=…)` was given. True: there is none.

    TypeError for False, None, and what JSON cannot hold. ValueError for NaN, and for more than 1024 bytes.
    """
    if presence is True:
        return "null"
    if presence is None or presence is False:
        raise TypeError(f"presence is what the others see of this member, or True, not {presence!r}")
    try:
        text = json.dumps(presence, cls=DjangoJSONEncoder, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, RecursionError) as error:
        raise TypeError(f"presence is something that JSON can hold: {error}") from None
    except ValueError as error:
        raise ValueError(f"presence is something that JSON can hold: {error}") from None
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError(f"presence has a character that is no text: {text[:40]!r}") from None
    if size > MAX_INFO_BYTES:
        raise ValueError(f"presence has at most {MAX_INFO_BYTES} bytes as JSON, not {size}: a name, and no picture")
    return text
