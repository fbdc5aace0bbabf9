from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwebsocket.protocol.masking import apply_mask

from .wire import keys, mask


def test_masking_of_the_example_gives_its_bytes() -> None:
    """RFC 6455, 5.7: a single-frame masked text message."""
    assert apply_mask(b"Hello", bytes.fromhex("37fa213d")) == bytes.fromhex("7f9f4d5158")


@pytest.mark.parametrize(
    ("offset", "masked"),
    [(0, "01020304 0102"), (1, "02030401 0203"), (2, "03040102 0304"), (3, "04010203 0401"), (4, "01020304 0102")],
)
def test_masking_from_an_offset_goes_on_with_the_key(offset: int, masked: str) -> None:
    assert apply_mask(bytes(6), b"\1\2\3\4", offset) == bytes.fromhex(masked)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 7, 8, 9, 125, 126, 65_535, 65_536, 65_537])
def test_masking_of_any_size_is_the_loop_of_the_rfc(size: int) -> None:
    payload = (bytes(range(251)) * (size // 251 + 1))[:size]

    assert apply_mask(payload, b"\xff\0\x80\1") == mask(payload, b"\xff\0\x80\1")


@pytest.mark.parametrize("key", [b"", b"\1\2\3", b"\1\2\3\4\5"])
def test_key_of_another_length_is_refused(key: bytes) -> None:
    with pytest.raises(ValueError, match=f"4 bytes, not {len(key)}"):
        apply_mask(b"Hello", key)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_masking_of_anything_bytes_like_gives_bytes(kind: type) -> None:
    masked = apply_mask(kind(b"Hello"), bytes.fromhex("37fa213d"))

    assert type(masked) is bytes
    assert masked == bytes.fromhex("7f9f4d5158")


@given(st.binary(max_size=600), keys, st.integers(0, 1 << 40))
def test_masking_is_the_loop_of_the_rfc(payload: bytes, key: bytes, offset: int) -> None:
    assert apply_mask(payload, key, offset) == mask(payload, key, offset)


@given(st.binary(max_size=600), keys, st.integers(0, 9))
def test_masking_twice_gives_the_payload_back(payload: bytes, key: bytes, offset: int) -> None:
    assert apply_mask(apply_mask(payload, key, offset), key, offset) == payload


@given(st.binary(max_size=60), st.binary(max_size=60), keys)
def test_masking_in_parts_is_masking_of_the_whole(head: bytes, tail: bytes, key: bytes) -> None:
    assert apply_mask(head, key) + apply_mask(tail, key, len(head)) == mask(head + tail, key)
