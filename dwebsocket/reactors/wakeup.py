"""A descriptor that ends the wait of a thread."""

from __future__ import annotations

import contextlib
import os


class Wakeup:
    """A descriptor that becomes readable on request, so that a thread in poll() can be woken."""

    def __init__(self) -> None:
        if hasattr(os, "eventfd"):
            self.descriptor = self._write_end = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:  # pragma: no cover (macOS)
            self.descriptor, self._write_end = os.pipe()
            os.set_blocking(self.descriptor, False)
            os.set_blocking(self._write_end, False)

    def set(self) -> None:
        """Make it readable."""
        with contextlib.suppress(BlockingIOError):  # it is so already
            os.write(self._write_end, (1).to_bytes(8, "little"))

    def clear(self) -> None:
        """Make it unreadable again."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.descriptor, 4096)

    def close(self) -> None:
        """Give the descriptors back."""
        for descriptor in {self.descriptor, self._write_end}:
            os.close(descriptor)
