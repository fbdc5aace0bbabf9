"""The choice of the server that carries a group (sans-I/O)."""

from __future__ import annotations

import hashlib

_MULTIPLIER, _MASK = 2862933555777941757, (1 << 64) - 1


def server_of(group: str, servers: int) -> int:
    """The number of the server that carries `group`, from 0: the same in every process.

    Where a server is added at the end of the list, one of so many groups moves, and only to the new one.
    """
    if servers == 1:
        return 0
    return jump(int.from_bytes(hashlib.blake2b(group.encode(), digest_size=8).digest(), "big"), servers)


def jump(key: int, buckets: int) -> int:
    """The jump consistent hash of Lamping and Veach (arXiv:1406.2294)."""
    bucket, following = 0, 0
    while following < buckets:
        bucket = following
        key = (key * _MULTIPLIER + 1) & _MASK
        following = int((bucket + 1) * ((1 << 31) / ((key >> 33) + 1)))
    return bucket
