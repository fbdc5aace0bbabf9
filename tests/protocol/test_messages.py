from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwebsocket.protocol.codes import Opcode
from dwebsocket.protocol.exceptions import InvalidPayload
from dwebsocket.protocol.frames import Frame
from dwebsocket.protocol.messages import Assembler, Message

from .wire import cuts, pieces_of


def fragments(opcode: Opcode, payloads: list[bytes], *, fin: bool = True) -> list[Frame]:
    """The frames of one message; without `fin` more is to come."""
    opcodes = [opcode] + [Opcode.CONTINUATION] * (len(payloads) - 1)
    frames = [Frame(each, payload, fin=False) for each, payload in zip(opcodes, payloads, strict=True)]
    return [*frames[:-1], frames[-1]._replace(fin=fin)]


def assemble(frames: list[Frame]) -> list[Message | None]:
    """What each of `frames` completes."""
    assembler = Assembler()
    return [assembler.add(frame) for frame in frames]


@pytest.mark.parametrize(
    ("opcode", "payload", "message"),
    [
        pytest.param(Opcode.TEXT, b"Hello", "Hello", id="5.6-text"),
        pytest.param(Opcode.BINARY, b"Hello", b"Hello", id="5.6-binary"),
        pytest.param(Opcode.TEXT, b"", "", id="5.6-empty-text"),
        pytest.param(Opcode.BINARY, b"", b"", id="5.6-empty-binary"),
        pytest.param(Opcode.BINARY, b"\xff\xfe", b"\xff\xfe", id="5.6-binary-is-not-judged"),
        pytest.param(Opcode.TEXT, b"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "é€😀", id="8.1-two-three-four-bytes"),
        pytest.param(Opcode.TEXT, b"\0", "\0", id="8.1-nul"),
        pytest.param(Opcode.TEXT, b"\xef\xbb\xbfa", "\ufeffa", id="8.1-byte-order-mark-stays"),
        pytest.param(Opcode.TEXT, b"\x7f\xc2\x80", "\x7f\x80", id="8.1-first-of-two-bytes"),
        pytest.param(Opcode.TEXT, b"\xdf\xbf\xe0\xa0\x80", "\u07ff\u0800", id="8.1-first-of-three-bytes"),
        pytest.param(Opcode.TEXT, b"\xed\x9f\xbf\xee\x80\x80", "\ud7ff\ue000", id="8.1-beside-the-surrogates"),
        pytest.param(Opcode.TEXT, b"\xef\xbf\xbf\xf0\x90\x80\x80", "\uffff\U00010000", id="8.1-first-of-four-bytes"),
        pytest.param(Opcode.TEXT, b"\xf4\x8f\xbf\xbf", "\U0010ffff", id="8.1-last"),
    ],
)
def test_message_in_one_frame_or_any_fragments_is_the_same(opcode: Opcode, payload: bytes, message: Message) -> None:
    assert assemble([Frame(opcode, payload)]) == [message]
    for payloads in cuts(payload):
        *pending, complete = assemble(fragments(opcode, payloads))
        assert pending == [None] * len(pending), payloads
        assert complete == message, payloads
        assert type(complete) is type(message)


def test_fragmented_text_comes_out_whole() -> None:
    """5.7."""
    frames = [Frame(Opcode.TEXT, b"Hel", fin=False), Frame(Opcode.CONTINUATION, b"lo")]

    assert assemble(frames) == [None, "Hello"]


def test_empty_fragments_add_nothing() -> None:
    assert assemble(fragments(Opcode.TEXT, [b"", b"a", b"", b"b", b""])) == [None, None, None, None, "ab"]


def test_messages_do_not_know_each_other() -> None:
    text = fragments(Opcode.TEXT, [b"a", b"b"])
    binary = fragments(Opcode.BINARY, [b"\xff", b"\xfe"])

    assert assemble([*text, *binary, Frame(Opcode.TEXT, b"c"), *text, Frame(Opcode.BINARY, b"\xff")]) == [
        None,
        "ab",
        None,
        b"\xff\xfe",
        "c",
        None,
        "ab",
        b"\xff",
    ]


# --- text that is not UTF-8 ------------------------------------------------------------------------------------------

# Each of these ends with the first byte that cannot be UTF-8.
NOT_UTF8 = [
    pytest.param("80", id="8.1-continuation-first"),
    pytest.param("c0", id="8.1-overlong-2-bytes"),
    pytest.param("c1", id="8.1-overlong-2-bytes-last"),
    pytest.param("e0 9f", id="8.1-overlong-3-bytes"),
    pytest.param("f0 8f", id="8.1-overlong-4-bytes"),
    pytest.param("ed a0", id="8.1-high-surrogate"),
    pytest.param("ed bf", id="8.1-low-surrogate"),
    pytest.param("f4 90", id="8.1-beyond-10ffff"),
    pytest.param("f5", id="8.1-lead-f5"),
    pytest.param("fe", id="8.1-lead-fe"),
    pytest.param("ff", id="8.1-lead-ff"),
    pytest.param("c3 41", id="8.1-second-of-2-is-a-letter"),
    pytest.param("e2 82 41", id="8.1-third-of-3-is-a-letter"),
    pytest.param("f0 9f 98 41", id="8.1-fourth-of-4-is-a-letter"),
    pytest.param("f0 9f c3", id="8.1-third-of-4-is-a-lead"),
    pytest.param("48 c3 a9 80", id="8.1-continuation-too-many"),
    pytest.param("ce ba e1 bd b9 cf 83 ce bc ce b5 f4 90", id="autobahn-6.4.1"),
]


@pytest.mark.parametrize("wire", NOT_UTF8)
def test_text_is_refused_at_the_first_byte_that_cannot_be_utf8(wire: str) -> None:
    data = bytes.fromhex(wire)

    for payloads in cuts(data[:-1]):
        assembler = Assembler()
        for part in fragments(Opcode.TEXT, [*payloads, b""], fin=False):
            assert assembler.add(part) is None
        with pytest.raises(InvalidPayload, match=r"^text is not UTF-8$"):
            assembler.add(Frame(Opcode.CONTINUATION, data[-1:], fin=False))


@pytest.mark.parametrize("wire", NOT_UTF8)
def test_text_with_a_byte_that_cannot_be_utf8_is_refused_however_it_is_cut(wire: str) -> None:
    for payloads in [[bytes.fromhex(wire)], *cuts(bytes.fromhex(wire))]:
        with pytest.raises(InvalidPayload, match=r"^text is not UTF-8$"):
            assemble(fragments(Opcode.TEXT, payloads))


@pytest.mark.parametrize("wire", ["c3", "e2", "e2 82", "f0", "f0 9f", "f0 9f 98", "48 c3"])
def test_text_that_ends_inside_a_letter_is_refused_at_its_end(wire: str) -> None:
    data = bytes.fromhex(wire)
    assert assemble([Frame(Opcode.TEXT, data, fin=False)]) == [None]

    for payloads in [[data], [data, b""], *cuts(data)]:
        with pytest.raises(InvalidPayload, match=r"^text is not UTF-8$"):
            assemble(fragments(Opcode.TEXT, payloads))


# RFC 3629, section 4, and what may become one of its sequences.
_SEQUENCE = (
    rb"[\x00-\x7f]|[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|\xed[\x80-\x9f][\x80-\xbf]"
    rb"|[\xe1-\xec\xee\xef][\x80-\xbf]{2}|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}"
    rb"|\xf4[\x80-\x8f][\x80-\xbf]{2}"
)
_BEGUN = (
    rb"[\xc2-\xdf]|\xe0[\xa0-\xbf]?|\xed[\x80-\x9f]?|[\xe1-\xec\xee\xef][\x80-\xbf]?"
    rb"|\xf0(?:[\x90-\xbf][\x80-\xbf]?)?|[\xf1-\xf3][\x80-\xbf]{0,2}|\xf4(?:[\x80-\x8f][\x80-\xbf]?)?"
)
UTF8 = re.compile(rb"(?:%s)*\Z" % _SEQUENCE)
UTF8_SO_FAR = re.compile(rb"(?:%s)*(?:%s)?\Z" % (_SEQUENCE, _BEGUN))


def is_accepted(frames: list[Frame]) -> bool:
    try:
        assemble(frames)
    except InvalidPayload:
        return False
    return True


def test_every_pair_of_bytes_is_judged_as_rfc_3629_says() -> None:
    for first in range(256):
        for second in range(256):
            pair = bytes([first, second])
            assert is_accepted([Frame(Opcode.TEXT, pair, fin=False)]) == bool(UTF8_SO_FAR.match(pair)), pair
            assert is_accepted([Frame(Opcode.TEXT, pair)]) == bool(UTF8.match(pair)), pair


_TELLING_BYTES = b"Az\x7f\x80\x8f\x90\x9f\xa0\xbf\xc0\xc2\xdf\xe0\xe1\xec\xed\xee\xef\xf0\xf1\xf3\xf4\xf5\xff"


@given(st.data(), st.lists(st.sampled_from(_TELLING_BYTES), min_size=1, max_size=8).map(bytes), st.booleans())
def test_any_bytes_as_text_are_judged_as_rfc_3629_says(data: st.DataObject, payload: bytes, fin: bool) -> None:
    frames = fragments(Opcode.TEXT, data.draw(pieces_of(payload)), fin=fin)

    assert is_accepted(frames) == bool((UTF8 if fin else UTF8_SO_FAR).match(payload))


@given(st.data(), st.lists(st.one_of(st.text(), st.binary()), max_size=6))
def test_any_messages_in_any_fragments_come_out_as_they_went_in(data: st.DataObject, messages: list[Message]) -> None:
    frames = []
    for message in messages:
        opcode, payload = (Opcode.TEXT, message.encode()) if isinstance(message, str) else (Opcode.BINARY, message)
        frames += fragments(opcode, data.draw(pieces_of(payload)))

    assert [message for message in assemble(frames) if message is not None] == messages
