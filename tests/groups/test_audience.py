"""The members of one group: which of them get the same bytes, and how often those are made."""

from __future__ import annotations

import zlib
from typing import Any, cast
from unittest import mock

import pytest

from dwebsocket.groups import audience as audiences
from dwebsocket.groups.audience import Audience, Burst, Host
from dwebsocket.groups.messages import BINARY, TEXT, Envelope
from dwebsocket.protocol.deflate import SharedCompression, serialize_once
from dwebsocket.websocket import GroupMessage
from tests.groups.lanes import Fleet, frame, kind, received, text
from tests.peer import decode_all

WIDE = SharedCompression(server_max_window_bits=15, level=6, mem_level=8, min_size=0)
NARROW = WIDE._replace(server_max_window_bits=9)
LONG = "the same words, and " * 50


def inflated(data: bytes) -> list[str]:
    return [
        (zlib.decompressobj(-15).decompress(one.payload + b"\0\0\xff\xff") if one.rsv else one.payload).decode()
        for one in decode_all(data)
    ]


def burst(*envelopes: Envelope) -> Burst:
    made = Burst(Audience("a", cast(Host, None)))
    made.envelopes.extend(enumerate(envelopes))
    return made


# Members


def test_members_are_told_apart_by_what_they_have_in_common() -> None:
    fleet = Fleet()
    plain = [fleet.join("a") for _ in range(2)]
    packed = fleet.join("a", kind=kind(shared=WIDE))
    view = fleet.join("a", kind=kind(forward=False))
    assert [members for _, members in fleet.audiences["a"].kinds()] == [tuple(plain), (packed,), (view,)]
    assert fleet.audiences["a"]


def test_those_that_go_through_the_members_see_no_change() -> None:
    fleet = Fleet()
    members = [fleet.join("a") for _ in range(3)]
    audience = fleet.audiences["a"]
    [(_, seen)] = audience.kinds()
    assert audience.kinds() is audience.kinds(), "made once as long as nothing changes"
    fleet.lane.leave(members[0])
    late = fleet.join("a")
    assert seen == tuple(members)
    assert [list(found) for _, found in audience.kinds()] == [[*members[1:], late]]


def test_audience_without_members_is_false() -> None:
    fleet = Fleet()
    members = [fleet.join("a"), fleet.join("a", kind=kind(forward=False))]
    for member in members:
        assert fleet.audiences["a"]
        fleet.lane.leave(member)
    assert not fleet.audiences["a"]
    assert fleet.audiences["a"].kinds() == []


# Encoded once


def test_message_is_encoded_once_for_all_members_that_get_the_same() -> None:
    fleet = Fleet()
    plain = [fleet.join("a") for _ in range(100)]
    slow = [fleet.join("a", kind=kind(overflow="drop_new")) for _ in range(100)]  # the same bytes, another bound
    with mock.patch.object(audiences, "serialize_once", wraps=serialize_once) as serialize:
        fleet.send("a", "1", "2")
        fleet.run()
    assert [call.args for call in serialize.mock_calls] == [("1", None), ("2", None)]
    assert {received(member) for member in plain + slow} == {frame("1") + frame("2")}


def test_message_is_deflated_once_for_each_kind_of_compression() -> None:
    fleet = Fleet()
    plain = [fleet.join("a") for _ in range(10)]
    wide = [fleet.join("a", kind=kind(shared=WIDE)) for _ in range(10)]
    narrow = [fleet.join("a", kind=kind(shared=NARROW)) for _ in range(10)]
    with mock.patch.object(audiences, "serialize_once", wraps=serialize_once) as serialize:
        fleet.send("a", LONG)
        fleet.run()
    assert sorted(call.args[1] is not None for call in serialize.mock_calls) == [False, True, True]
    assert {received(member) for member in plain} == {frame(LONG)}
    for members in (wide, narrow):
        [data] = {received(member) for member in members}
        assert len(data) < len(LONG) / 5
        assert inflated(data) == [LONG]


def test_message_for_views_is_not_encoded() -> None:
    fleet = Fleet()
    fleet.join("a", kind=kind(forward=False))
    with mock.patch.object(audiences, "serialize_once", wraps=serialize_once) as serialize:
        fleet.send("a", "1")
        fleet.run()
    assert serialize.mock_calls == []


# Translated once


def test_function_is_called_once_for_each_message_whatever_else_its_members_differ_in() -> None:
    fleet, calls = Fleet(), list[GroupMessage]()

    def translate(message: GroupMessage) -> str:
        calls.append(message)
        return f"<{message.data!s}>"

    plain = fleet.join("a", kind=kind(translate=translate))
    packed = fleet.join("a", kind=kind(translate=translate, shared=WIDE))
    slow = fleet.join("a", kind=kind(translate=translate, overflow="latest"))
    fleet.send("a", "1", "2")
    fleet.run()
    assert calls == [GroupMessage("a", "1"), GroupMessage("a", "2")]
    for member in (plain, packed, slow):
        assert inflated(received(member)) == ["<1>", "<2>"]


def test_two_functions_are_called_each() -> None:
    fleet = Fleet()
    one = fleet.join("a", kind=kind(translate=lambda message: f"1{message.data!s}"))
    two = fleet.join("a", kind=kind(translate=lambda message: f"2{message.data!s}"))
    fleet.send("a", "x")
    fleet.run()
    assert (received(one), received(two)) == (frame("1x"), frame("2x"))


def test_message_of_which_a_function_makes_nothing_is_not_sent() -> None:
    fleet = Fleet()
    member = fleet.join("a", kind=kind(translate=lambda message: None if message.data == "1" else message.data))
    fleet.send("a", "1", "2", "1")
    fleet.run()
    assert received(member) == frame("2")


@pytest.mark.parametrize("result", [7, {"a": 1}, bytearray(b"a"), ["a"]])
def test_function_that_returns_no_message_is_logged(result: Any, caplog: pytest.LogCaptureFixture) -> None:
    pieces = burst(text("1")).pieces(kind(translate=lambda message: result))
    assert pieces == []
    assert f"returns str, bytes or None, not {type(result).__name__}" in caplog.text


def test_function_that_fails_is_logged_once_and_loses_its_message_alone(caplog: pytest.LogCaptureFixture) -> None:
    def translate(message: GroupMessage) -> str:
        return {"1": "one", "3": "three"}[str(message.data)]

    fleet = Fleet()
    members = [fleet.join("a", kind=kind(translate=translate, shared=shared)) for shared in (None, WIDE, NARROW)]
    other = fleet.join("a")
    fleet.send("a", "1", "2", "3")
    fleet.run()
    for member in members:
        assert inflated(received(member)) == ["one", "three"]
    assert received(other) == frame("1") + frame("2") + frame("3")
    assert [record.getMessage() for record in caplog.records] == ["a message to the group 'a' could not be translated"]


def test_text_that_is_none_is_logged_and_loses_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """Another program may write to the broker, too."""
    pieces = burst(text("1"), Envelope(TEXT, b"\xff"), Envelope(BINARY, b"\xff")).pieces(kind())
    assert [piece.message.data for piece in pieces] == ["1", b"\xff"]
    assert "could not be translated" in caplog.text


def test_text_that_cannot_be_encoded_and_key_that_is_none_lose_no_other(caplog: pytest.LogCaptureFixture) -> None:
    made = burst(text("1"), text("2"), text("3", key=b"\xff"), text("4"))
    pieces = made.pieces(kind(translate=lambda message: "\ud800" if message.data == "2" else message.data))
    assert [piece.frame for piece in pieces] == [frame("1"), frame("4")]
    assert caplog.text.count("could not be translated") == 2


def test_key_of_one_group_is_none_of_another() -> None:
    [piece] = burst(text("1", key="größe".encode())).pieces(kind(overflow="latest"))
    assert piece.key == "a\0größe"


@pytest.mark.parametrize(
    "bad", [Envelope(TEXT, b"x", b"node:" + b"9" * 5000), Envelope(TEXT, b"x", b"", b"\xff"), Envelope(TEXT, b"\xff")]
)
def test_envelope_of_another_program_takes_no_other_of_its_burst(
    bad: Envelope, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dwebsocket.groups.node._node", b"node")
    pieces = burst(text("1"), bad, text("2")).pieces(kind())
    assert [piece.message.data for piece in pieces] == ["1", "2"]
    assert "could not be translated" in caplog.text


def test_function_that_wants_to_end_the_process_ends_no_lane(caplog: pytest.LogCaptureFixture) -> None:
    def leave(message: GroupMessage) -> str:
        raise SystemExit

    assert burst(text("1")).pieces(kind(translate=leave)) == []
    assert "could not be translated" in caplog.text
