"""What the tests of the codec share: naive masking, bytes cut in every way, and strategies for hypothesis."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, pairwise

from hypothesis import strategies as st

from tests.peer import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame

#: Longer inputs are cut once only, not twice; and beyond the second, only near their two ends.
_CUT_TWICE_BYTES = 28
_CUT_EVERYWHERE_BYTES = 600
_CUT_AT_THE_ENDS_BYTES = 24


def mask(payload: bytes, key: bytes, offset: int = 0) -> bytes:
    """Section 5.3, word for word: octet i is XORed with octet i modulo 4 of the key."""
    return bytes(byte ^ key[(offset + i) % 4] for i, byte in enumerate(payload))


def split(data: bytes, positions: Iterable[int]) -> list[bytes]:
    """`data` cut at `positions`."""
    return [data[start:end] for start, end in pairwise([0, *sorted(positions), len(data)])]


def cuts(data: bytes) -> Iterator[list[bytes]]:
    """`data` byte by byte, cut at every byte, and cut at every pair of bytes where it is short enough for that."""
    positions: Sequence[int] = range(1, len(data))
    yield split(data, positions)
    if len(data) > _CUT_EVERYWHERE_BYTES:
        positions = [*positions[:_CUT_AT_THE_ENDS_BYTES], *positions[-_CUT_AT_THE_ENDS_BYTES:]]
    yield from (split(data, [position]) for position in positions)
    if len(data) <= _CUT_TWICE_BYTES:
        yield from (split(data, pair) for pair in combinations(positions, 2))


keys = st.binary(min_size=4, max_size=4)


@st.composite
def pieces_of(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """`data` cut anywhere."""
    return split(data, draw(st.lists(st.integers(0, len(data)), max_size=8)))


@st.composite
def any_frame(draw: st.DrawFn) -> bytes:
    """A frame that obeys the rules, or nearly, or not at all."""
    payload = draw(st.one_of(st.text(max_size=40).map(str.encode), st.binary(max_size=200)))
    opcode = draw(st.sampled_from([CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG] * 4 + [3, 7, 11, 15]))
    rsv = draw(st.sampled_from([0] * 12 + [1, 2, 4]))
    return frame(opcode, payload, fin=draw(st.booleans()), rsv=rsv, mask=draw(keys))


#: What a broken or hostile peer may send: frames that are right for a while, and noise.
garbage = st.lists(st.one_of(any_frame(), any_frame(), st.binary(max_size=20)), max_size=8).map(b"".join)
