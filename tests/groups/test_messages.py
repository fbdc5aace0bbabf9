"""The envelope in which a message travels."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwebsocket.groups.messages import BINARY, CLOSE, PRESENCE, RESET, TEXT, Arrival, Envelope
from dwebsocket.groups.position import Position

WORDS = st.binary(max_size=20).filter(lambda word: b" " not in word)


@given(st.sampled_from([TEXT, BINARY]), st.binary(max_size=200), WORDS, st.binary(max_size=50))
def test_envelope_is_read_as_it_was_written(kind: bytes, payload: bytes, exclude: bytes, key: bytes) -> None:
    envelope = Envelope(kind, payload, exclude, key)
    assert Envelope.parse(envelope.serialize()) == envelope


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"t",
        b"t  0",
        b"x  0 hello",
        b"t  many hello",
        b"c  0 ",
        b"c  0 soon",
        b"c  0 1005 ",
        b"c  0 1000 \xff",
        b"r  0 \xff",
        b"p  0 7 + u1",
    ],
)
def test_what_is_no_envelope_is_told(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Envelope.parse(data)


def test_text_arrives_as_str_and_binary_as_bytes() -> None:
    assert Envelope(TEXT, "grüße".encode()).data == "grüße"
    assert Envelope(BINARY, b"\xff").data == b"\xff"


def test_close_is_read_as_it_was_written() -> None:
    envelope = Envelope(CLOSE, "4403 geh weg, ä".encode(), b"a:7")
    assert Envelope.parse(envelope.serialize()) == envelope


def test_close_carries_a_code_and_a_reason() -> None:
    assert Envelope(CLOSE, b"4403 geh weg").close() == (4403, "geh weg")
    assert Envelope(CLOSE, b"1000 ").close() == (1000, "")


@pytest.mark.parametrize("position", [Position("9f3c2a", 12), None])
def test_reset_carries_the_last_position_of_the_epoch_before(position: Position | None) -> None:
    envelope = Envelope(RESET, str(position or "").encode())
    assert Envelope.parse(envelope.serialize()).previous() == position


@given(st.integers(0, 2**64), st.booleans(), st.text(), st.text())
def test_change_of_a_roster_is_read_as_it_was_written(version: int, has_come: bool, user: str, info: str) -> None:
    change = Arrival(version, has_come, user.replace("\0", ""), info)
    envelope = Envelope(PRESENCE, change.serialize())
    assert Envelope.parse(envelope.serialize()).arrival() == change


def test_change_of_a_roster_is_one_line() -> None:
    assert Arrival(7, True, "a b", '{"x": 1}').serialize() == b'7 + a b\0{"x": 1}'
    assert Arrival(8, False, "ä", "null").serialize() == "8 - ä\0null".encode()
