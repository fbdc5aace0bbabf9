"""``python -m fuzz.replay TARGET FILE …``: run a target on inputs once more; needs no fuzzer."""

from __future__ import annotations

import sys
from pathlib import Path

from fuzz.targets import TARGETS

if __name__ == "__main__":
    name, *files = sys.argv[1:]
    for file in files:
        TARGETS[name](Path(file).read_bytes())
        print(f"{file}: no fault")
