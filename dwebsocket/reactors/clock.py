"""The clock of all deadlines; without a call of Python where this is compiled."""

from __future__ import annotations

import time

try:
    import cython
except ImportError:
    from .. import _compiled as cython

if cython.compiled:

    def monotonic() -> float:
        """Return the same seconds as time.monotonic()."""
        now: float = read_clock()  # type: ignore # noqa: F821
        return now if now >= 0 else time.monotonic()

else:
    monotonic = time.monotonic
