"""Lua scripts: how they are called. What is in one happens as a whole, or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from .commands import command


class Script:
    """A script, and the digest by which the server knows it once it has seen it."""

    def __init__(self, text: str) -> None:
        self.text = text.encode()
        self.digest = hashlib.sha1(self.text, usedforsecurity=False).hexdigest().encode()

    def call(self, keys: Sequence[bytes], arguments: Sequence[bytes]) -> Call:
        return Call(self, keys, arguments)


class Call(NamedTuple):
    """A script with its keys and arguments. One that the server does not know has done nothing: it is sent whole."""

    script: Script
    keys: Sequence[bytes]
    arguments: Sequence[bytes]

    def short(self) -> bytes:
        return command(b"EVALSHA", self.script.digest, b"%d" % len(self.keys), *self.keys, *self.arguments)

    def whole(self) -> bytes:
        return command(b"EVAL", self.script.text, b"%d" % len(self.keys), *self.keys, *self.arguments)


#: How the answer begins of a server that does not know a script.
UNKNOWN = "NOSCRIPT"
