"""``python -m fuzz.one TARGET [libFuzzer's options] [folders of inputs]``: fuzz one target, guided by coverage."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["dwebsocket"]):
    from fuzz import targets

if __name__ == "__main__":
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, targets.TARGETS[name])
    atheris.Fuzz()
