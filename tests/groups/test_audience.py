"""What the members of one group get of a burst."""

from __future__ import annotations

import logging

import pytest

from dwebsocket import GroupMessage
from dwebsocket.connection.limits import Bound
from dwebsocket.groups.audience import Audience, Burst, Kind
from dwebsocket.groups.messages import TEXT, Envelope


def burst(*texts: str) -> Burst:
    made = Burst(Audience("room:7", object()))
    made.envelopes += [(number, Envelope(TEXT, text.encode())) for number, text in enumerate(texts)]
    return made


def test_message_that_a_function_cannot_translate_takes_no_other_with_it(caplog: pytest.LogCaptureFixture) -> None:
    def translate(message: GroupMessage) -> str:
        return f"<{int(message.data)}>"

    pieces = burst("1", "two", "3").pieces(Kind(True, translate, None, Bound()))

    assert [(piece.number, piece.message.data) for piece in pieces] == [(0, "1"), (2, "3")]
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("dwebsocket", logging.ERROR)
    assert record.getMessage() == "a message to the group 'room:7' could not be translated"


def test_messages_are_translated_once_for_all_members_that_are_alike() -> None:
    translated = []

    def translate(message: GroupMessage) -> str | None:
        translated.append(message.data)
        return None

    both = burst("1", "2")
    for overflow in ("close", "latest"):
        assert both.pieces(Kind(True, translate, None, Bound(overflow=overflow))) == []
    assert translated == ["1", "2"]
