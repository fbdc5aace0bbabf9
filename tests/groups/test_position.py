"""Positions, and the texts of them that come from pages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwebsocket.groups.position import START, Position

EPOCHS = st.text("abcdef0123456789", min_size=1, max_size=20)


@given(EPOCHS, st.integers(0, 2**64))
def test_position_is_read_as_it_was_written(epoch: str, offset: int) -> None:
    assert Position.parse(str(Position(epoch, offset))) == (epoch, offset)


def test_text_is_the_epoch_and_the_offset() -> None:
    assert str(Position("9f3c2a", 12)) == "9f3c2a-12"
    assert Position.parse("9f3c2a-0012") == Position("9f3c2a", 12)
    assert f"{'x' * 40}-{'9' * 19}" == str(Position.parse(f"{'x' * 40}-{'9' * 19}"))


@given(st.text())
def test_any_text_of_a_page_is_a_position_or_none(text: str) -> None:
    found = Position.parse(text)
    assert found is None or Position.parse(str(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "a",
        "a-",
        "-1",
        "a-x",
        "a--1",
        "a-1-2",
        "a-+1",
        "a- 1",
        " a-1",
        "a-1 ",
        "a-1\n",
        "a:b-1",
        "a*-1",
        "ä-1",
        "a-\u0661",  # a digit of another script
        "a-²",
        "a-1.5",
        "a-1_0",
        f"a-{'9' * 59}",
        f"{'a' * 59}-1",
        START,
        "a\0-1",
    ],
)
def test_what_is_no_position_is_none(text: str) -> None:
    assert Position.parse(text) is None
