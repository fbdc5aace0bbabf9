"""The masking of section 5.3."""

from __future__ import annotations

try:
    import cython
except ImportError:
    from .. import _compiled as cython

#: Whether the hot modules of this build are compiled to C.
COMPILED: bool = cython.compiled

_KEY_BYTES = 4
_from_bytes = int.from_bytes
#: Times a key as an integer, that key again and again: the masks of short payloads, by their number of keys.
_REPEATS = [sum(1 << (8 * _KEY_BYTES * index) for index in range(count)) for count in range(65)]


def apply_mask(payload: bytes | bytearray | memoryview, masking_key: bytes, offset: int = 0) -> bytes:
    """`payload` with `masking_key` (4 bytes) applied to it, or taken off again: it is its own inverse.

    `offset` is how many bytes of the same frame came before `payload`.
    """
    if len(masking_key) != _KEY_BYTES:
        raise ValueError(f"a masking key has {_KEY_BYTES} bytes, not {len(masking_key)}")
    return unmask(bytes(payload), 0, len(payload), masking_key, 0, offset)


def unmask(octets: bytes, start: int, size: int, key_octets: bytes, key_start: int, offset: int) -> bytes:
    """`size` bytes of `octets`, from `start` on, masked with the key at `key_start` as `apply_mask()` does it."""
    if cython.compiled:
        return with_mask(octets + start, size, key_octets + key_start, offset)  # type: ignore # noqa: F821
    key = key_octets[key_start : key_start + _KEY_BYTES]
    if offset & 3:
        key = key[offset & 3 :] + key[: offset & 3]
    # One XOR of two large integers is the fastest that Python offers for any size.
    keys = (size + 3) // _KEY_BYTES
    mask = _from_bytes(key, "little") * _REPEATS[keys] if keys < len(_REPEATS) else _from_bytes(key * keys, "little")
    masked = _from_bytes(octets[start : start + size], "little") ^ mask
    return masked.to_bytes(keys * _KEY_BYTES, "little")[:size]


def blank(size: int) -> bytes | bytearray:
    """Make a target for `unmask_into()`: bytes that no other code has seen yet; uncompiled, an empty bytearray."""
    if cython.compiled:
        return unwritten(size)  # type: ignore # noqa: F821  # uses no pages of memory before they are filled
    return bytearray()


def unmask_into(
    target: bytes | bytearray, offset: int, octets: bytes, start: int, size: int, masking_key: bytes
) -> None:
    """Put `size` bytes of `octets`, from `start` on, behind the first `offset` of `target`, the payload of a frame."""
    if cython.compiled:
        write_masked(target, offset, octets + start, size, masking_key)  # type: ignore # noqa: F821
    else:
        target += unmask(octets, start, size, masking_key, 0, offset)
