from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwebsocket.protocol.codes import Opcode
from dwebsocket.protocol.exceptions import InvalidPayload, ProtocolError
from dwebsocket.protocol.frames import Close, Frame
from tests.peer import Frame as Seen
from tests.peer import decode_all

from .wire import keys, mask

REPORTED = "is only ever reported, never sent: use 1000, another registered code, or 3000 to 4999"
UNKNOWN = "is not a close code: use 1000, another registered code, or 3000 to 4999"


@pytest.mark.parametrize(
    ("frame", "wire"),
    [
        pytest.param(Frame(Opcode.TEXT, b"Hello"), "81 05 48656c6c6f", id="5.7-unmasked-text"),
        pytest.param(Frame(Opcode.TEXT, b"Hel", fin=False), "01 03 48656c", id="5.7-first-fragment"),
        pytest.param(Frame(Opcode.CONTINUATION, b"lo"), "80 02 6c6f", id="5.7-last-fragment"),
        pytest.param(Frame(Opcode.PING, b"Hello"), "89 05 48656c6c6f", id="5.7-ping"),
        pytest.param(Frame(Opcode.PONG, b"Hello"), "8a 05 48656c6c6f", id="5.5.3-pong"),
        pytest.param(Frame(Opcode.CLOSE, b"\x03\xe8bye"), "88 05 03e8627965", id="5.5.1-close"),
        pytest.param(Frame(Opcode.BINARY, b""), "82 00", id="5.2-empty"),
        pytest.param(Frame(Opcode.TEXT, b"Hello", rsv1=True), "c1 05 48656c6c6f", id="5.2-rsv1"),
        pytest.param(Frame(Opcode.BINARY, b"a", fin=False, rsv1=True), "42 01 61", id="5.2-rsv1-no-fin"),
    ],
)
def test_frame_is_written_as_in_the_rfc(frame: Frame, wire: str) -> None:
    assert frame.serialize() == bytes.fromhex(wire)


@pytest.mark.parametrize(
    ("frame", "wire"),
    [
        pytest.param(Frame(Opcode.TEXT, b"Hello"), "81 85 37fa213d 7f9f4d5158", id="5.7-masked-text"),
        pytest.param(Frame(Opcode.PONG, b"Hello"), "8a 85 37fa213d 7f9f4d5158", id="5.7-masked-pong"),
        pytest.param(Frame(Opcode.PING, b""), "89 80 37fa213d", id="5.2-empty"),
    ],
)
def test_frame_with_a_key_is_written_masked_as_in_the_rfc(frame: Frame, wire: str) -> None:
    assert frame.serialize(bytes.fromhex("37fa213d")) == bytes.fromhex(wire)


@pytest.mark.parametrize(
    ("size", "header", "masked_header"),
    [
        pytest.param(125, "82 7d", "82 fd", id="5.2-7-bits-end"),
        pytest.param(126, "82 7e 007e", "82 fe 007e", id="5.2-16-bits-begin"),
        pytest.param(256, "82 7e 0100", "82 fe 0100", id="5.7-256-bytes"),
        pytest.param(65_535, "82 7e ffff", "82 fe ffff", id="5.2-16-bits-end"),
        pytest.param(65_536, "82 7f 0000000000010000", "82 ff 0000000000010000", id="5.7-64-kib"),
    ],
)
def test_length_is_written_in_its_shortest_form(size: int, header: str, masked_header: str) -> None:
    payload, key = bytes(size), b"\1\2\3\4"

    assert Frame(Opcode.BINARY, payload).serialize() == bytes.fromhex(header) + payload
    assert Frame(Opcode.BINARY, payload).serialize(key) == bytes.fromhex(masked_header) + key + mask(payload, key)


@given(st.sampled_from(Opcode), st.binary(max_size=70_000), st.booleans(), st.booleans())
def test_any_frame_is_read_by_a_client_as_it_was(opcode: Opcode, payload: bytes, fin: bool, rsv1: bool) -> None:
    written = Frame(opcode, payload, fin, rsv1).serialize()

    assert decode_all(written) == [Seen(opcode, payload, fin=fin, rsv=4 if rsv1 else 0, mask=None)]


@given(st.binary(max_size=300), keys)
def test_masked_frame_is_the_unmasked_one_with_bit_key_and_mask(payload: bytes, key: bytes) -> None:
    unmasked = Frame(Opcode.BINARY, payload).serialize()
    masked = Frame(Opcode.BINARY, payload).serialize(key)
    header = unmasked[: len(unmasked) - len(payload)]

    assert masked == header[:1] + bytes([header[1] + 128]) + header[2:] + key + mask(payload, key)


@pytest.mark.parametrize("value", [Frame(Opcode.TEXT, b"Hello"), Close(1000)])
def test_what_travels_cannot_be_changed(value: Frame | Close) -> None:
    with pytest.raises(AttributeError):
        setattr(value, value._fields[0], 1)


# --- the payload of a Close frame ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "close"),
    [
        pytest.param(b"\x03\xe8", Close(1000, ""), id="5.5.1-code"),
        pytest.param(b"\x03\xe9tab closed", Close(1001, "tab closed"), id="5.5.1-code-and-reason"),
        pytest.param(b"\x0f\xa0 \xc3\xa9\xe2\x82\xac", Close(4000, " é€"), id="5.5.1-reason-is-utf-8"),
        pytest.param(b"\x13\x87" + b"r" * 123, Close(4999, "r" * 123), id="5.5.1-longest"),
    ],
)
def test_payload_of_a_close_frame_gives_and_is_given_by_its_close(payload: bytes, close: Close) -> None:
    assert Close.parse(payload) == close
    assert close.serialize() == payload


def test_empty_payload_of_a_close_frame_is_reported_as_1005() -> None:
    """7.1.5."""
    assert Close.parse(b"") == Close(1005, "")


@pytest.mark.parametrize(
    ("payload", "error", "message"),
    [
        pytest.param(b"\x03", ProtocolError, "close frame with half a code", id="5.5.1-half-a-code"),
        pytest.param(b"\0\0", ProtocolError, "close code 0 may not be sent", id="7.4.2-0"),
        pytest.param(b"\x03\xe7", ProtocolError, "close code 999 may not be sent", id="7.4.2-999"),
        pytest.param(b"\x03\xec", ProtocolError, "close code 1004 may not be sent", id="7.4.1-1004"),
        pytest.param(b"\x03\xed", ProtocolError, "close code 1005 may not be sent", id="7.4.1-1005"),
        pytest.param(b"\x03\xee", ProtocolError, "close code 1006 may not be sent", id="7.4.1-1006"),
        pytest.param(b"\x03\xf7", ProtocolError, "close code 1015 may not be sent", id="7.4.1-1015"),
        pytest.param(b"\x0b\xb7", ProtocolError, "close code 2999 may not be sent", id="7.4.2-2999"),
        pytest.param(b"\x13\x88", ProtocolError, "close code 5000 may not be sent", id="7.4.2-5000"),
        pytest.param(b"\xff\xff", ProtocolError, "close code 65535 may not be sent", id="7.4.2-65535"),
        pytest.param(b"\x03\xed\xff", ProtocolError, "close code 1005 may not be sent", id="7.4.1-code-before-reason"),
        pytest.param(b"\x03\xe8\xff", InvalidPayload, "close reason is not UTF-8", id="8.1-reason"),
        pytest.param(b"\x03\xe8\xe2\x82", InvalidPayload, "close reason is not UTF-8", id="8.1-reason-cut-off"),
        pytest.param(b"\x03\xe8\xed\xa0\x80", InvalidPayload, "close reason is not UTF-8", id="8.1-surrogate"),
    ],
)
def test_payload_that_no_close_frame_may_carry_is_refused(
    payload: bytes, error: type[ProtocolError], message: str
) -> None:
    with pytest.raises(ProtocolError) as caught:
        Close.parse(payload)

    assert (type(caught.value), str(caught.value)) == (error, message)


@pytest.mark.parametrize(
    ("close", "message"),
    [
        pytest.param(Close(1005), f"1005 {REPORTED}", id="7.4.1-1005"),
        pytest.param(Close(1006), f"1006 {REPORTED}", id="7.4.1-1006"),
        pytest.param(Close(1015), f"1015 {REPORTED}", id="7.4.1-1015"),
        pytest.param(Close(1004), f"1004 {UNKNOWN}", id="7.4.1-1004"),
        pytest.param(Close(999), f"999 {UNKNOWN}", id="7.4.2-999"),
        pytest.param(Close(1016), f"1016 {UNKNOWN}", id="7.4.2-1016"),
        pytest.param(Close(5000), f"5000 {UNKNOWN}", id="7.4.2-5000"),
        pytest.param(Close(-1), f"-1 {UNKNOWN}", id="7.4.2-negative"),
        pytest.param(Close(66_536), f"66536 {UNKNOWN}", id="7.4.2-more-than-two-bytes"),
        pytest.param(Close(1000, "r" * 124), "close reason of 124 bytes: at most 123 fit", id="5.5-too-long"),
        pytest.param(Close(1000, "é" * 62), "close reason of 124 bytes: at most 123 fit", id="5.5-bytes-not-letters"),
    ],
)
def test_close_that_may_not_be_sent_is_refused(close: Close, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        close.serialize()


sendable_codes = st.one_of(st.sampled_from([*range(1000, 1004), *range(1007, 1015)]), st.integers(3000, 4999))


@given(sendable_codes, st.text(max_size=41).filter(lambda reason: len(reason.encode()) <= 123))
def test_any_close_that_may_be_sent_comes_back_as_it_was(code: int, reason: str) -> None:
    payload = Close(code, reason).serialize()

    assert payload == bytes([code // 256, code % 256]) + reason.encode()
    assert Close.parse(payload) == (code, reason)
