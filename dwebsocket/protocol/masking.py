"""The masking of section 5.3."""

from __future__ import annotations


def apply_mask(payload: bytes | bytearray | memoryview, masking_key: bytes, offset: int = 0) -> bytes:
    """`payload` with `masking_key` (4 bytes) applied to it, or taken off again: it is its own inverse.

    `offset` is how many bytes of the same frame came before `payload`.
    """
    size = len(payload)
    phase = offset & 3
    key = masking_key[phase:] + masking_key[:phase] if phase else masking_key
    # One XOR of two large integers is the fastest that Python offers for any size.
    mask = int.from_bytes((key * (size // 4 + 1))[:size], "little")
    return (int.from_bytes(payload, "little") ^ mask).to_bytes(size, "little")
