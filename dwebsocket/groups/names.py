"""The names of groups."""

from __future__ import annotations

import uuid

_MAX_BYTES = 200  # a channel of the broker, and a key in each process
RESERVED = "dwebsocket."  # the names of this package's own groups begin so


def check(name: object, *, what: str = "the name of a group") -> str:
    """Return `name` if it can be one: 1 to 200 bytes of UTF-8 without control characters. TypeError, ValueError."""
    if not isinstance(name, str):
        raise TypeError(f"{what} is a str, not {type(name).__name__}")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{what} is no text: {name!r}") from None
    if not 0 < size <= _MAX_BYTES:
        raise ValueError(f"{what} has 1 to {_MAX_BYTES} bytes in UTF-8, not {size}: {name[:40]!r}")
    if any(character < " " or "\x7f" <= character < "\xa0" for character in name):
        raise ValueError(f"{what} has no control characters: {name!r}")
    return name


def check_prefix(name: object) -> str:
    """Return `name` if groups can be declared with it: letters, digits, "_", "-" and ".". TypeError, ValueError."""
    prefix = check(name, what="the name of Groups")
    if not all(character.isalnum() or character in "_-." for character in prefix):
        raise ValueError(f"the name of Groups has letters, digits, '_', '-' and '.', and nothing else: {prefix!r}")
    return refuse_reserved(prefix)


def refuse_reserved(name: str) -> str:
    """Return `name` unless it is one of this package's own. ValueError."""
    if name.startswith(RESERVED):
        raise ValueError(f"names that begin with {RESERVED!r} are dwebsocket's own: {name!r}")
    return name


def key_text(key: object) -> str:
    """The text of a key as in `rooms[7]`: an int, a str or a UUID. TypeError for anything else, ValueError for ""."""
    if key == "":
        raise ValueError("the key of a group is not empty")
    if isinstance(key, str):
        return "".join(key)  # not the str() of an enum: keys that are equal have one text
    if isinstance(key, int) and not isinstance(key, bool):
        return int.__repr__(key)
    if isinstance(key, uuid.UUID):
        return str(key)
    hint = ": take its .pk" if hasattr(key, "pk") else ""
    raise TypeError(f"the key of a group is an int, a str or a UUID, not {type(key).__name__}{hint}")
