"""A network of one's own, which can be cut: what is sent then arrives nowhere, and nobody is told."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

_CLONE_NEWNET = 0x40000000


class Network:
    """The loopback of this thread, and of the processes that it starts."""

    def up(self) -> None:
        self._set("up")

    def cut(self) -> None:
        self._set("down")

    def _set(self, state: str) -> None:
        subprocess.run(["ip", "link", "set", "lo", state], check=True)


@contextmanager
def own_network() -> Iterator[Network]:
    """A network namespace for the calling thread. PermissionError where this process may not make one."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as old:
        _checked(libc.unshare(_CLONE_NEWNET))
        try:
            network = Network()
            network.up()
            yield network
        finally:
            _checked(libc.setns(old.fileno(), _CLONE_NEWNET))


def _checked(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
