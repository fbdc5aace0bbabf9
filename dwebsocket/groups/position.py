"""Positions in the history of a group."""

from __future__ import annotations

from typing import NamedTuple

#: `join(since=START)`: all that the history has.
START = "start"

_MAX_CHARACTERS = 60


class Position(NamedTuple):
    """A place in the history of one group: behind the message with this offset; 0 is before the first one.

    `epoch` names the life of that history. Another epoch is another history: offsets of two cannot be compared.
    Projects and pages see the text, `epoch-offset`.
    """

    epoch: str
    offset: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Position | None:
        """The position that `text` names; None where it is none, for it comes from a page."""
        epoch, _, offset = text.partition("-")
        if len(text) > _MAX_CHARACTERS or not (epoch.isascii() and epoch.isalnum()):
            return None
        if not (offset.isascii() and offset.isdecimal()):
            return None
        return cls(epoch, int(offset))
