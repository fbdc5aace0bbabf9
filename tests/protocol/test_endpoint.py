from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dwebsocket.protocol import endpoint as module
from dwebsocket.protocol.endpoint import TRANSITIONS, Endpoint, Event, Pong, State
from dwebsocket.protocol.exceptions import WebSocketClosed
from dwebsocket.protocol.messages import Message
from tests.peer import BINARY, CLOSE, CONTINUATION, MASK, PING, PONG, TEXT, close_payload, decode_all, frame, head
from tests.peer import Frame as Seen

from .wire import cuts, garbage, keys, mask, pieces_of

LEFT = "the peer left without a closing handshake"


class Outcome(NamedTuple):
    """What came of some input: events, bytes in answer to control frames, how it ended, bytes that answer the end."""

    events: list[Message | Pong]
    sent: str = ""
    state: State = State.OPEN
    close_code: int | None = None
    close_reason: str = ""
    answer: str = ""


def opened(*, max_message_size: int | None = None) -> Endpoint:
    endpoint = Endpoint(max_message_size=max_message_size)
    endpoint.accepted()
    return endpoint


def receive(pieces: Iterable[bytes], *, max_message_size: int | None = None) -> Outcome:
    """What a new endpoint makes of `pieces`."""
    endpoint = opened(max_message_size=max_message_size)
    events = [event for piece in pieces for event in endpoint.receive_data(piece)]
    sent = endpoint.data_to_send().hex()
    return Outcome(events, sent, endpoint.state, endpoint.close_code, endpoint.close_reason, endpoint.answer().hex())


def refused(close_code: int, reason: str, *events: Message | Pong, sent: str = "") -> Outcome:
    """`events`, and then an error."""
    answer = bytes([0x88, 2 + len(reason)]).hex() + f"{close_code:04x}" + reason.encode().hex()
    return Outcome([*events], sent, State.ENDING, close_code, reason, answer)


def ended(close_code: int, close_reason: str, answer: str, *events: Message | Pong, sent: str = "") -> Outcome:
    """`events`, and then the peer's Close frame."""
    return Outcome([*events], sent, State.ENDING, close_code, close_reason, answer)


# --- what arrives ----------------------------------------------------------------------------------------------------

HELLO, LATE = frame(TEXT, b"Hello"), frame(TEXT, b"late")
CLOSE_1000 = frame(CLOSE, b"\x03\xe8")
BYTES_256 = bytes(range(256))

RECEIVED = [
    pytest.param(bytes.fromhex("81 85 37fa213d 7f9f4d5158"), Outcome(["Hello"]), id="5.7-masked-text"),
    pytest.param(
        bytes.fromhex("01 83 37fa213d 7f9f4d  80 82 37fa213d 5b95"), Outcome(["Hello"]), id="5.7-fragmented-text"
    ),
    pytest.param(
        bytes.fromhex("89 85 37fa213d 7f9f4d5158"), Outcome([], sent="8a0548656c6c6f"), id="5.7-ping-gets-its-pong"
    ),
    pytest.param(bytes.fromhex("8a 85 37fa213d 7f9f4d5158"), Outcome([Pong(b"Hello")]), id="5.7-masked-pong"),
    pytest.param(bytes.fromhex("82 fe 0100 00000000") + BYTES_256, Outcome([BYTES_256]), id="5.7-256-bytes"),
    pytest.param(
        bytes.fromhex("82 ff 0000000000010000 00000000") + BYTES_256 * 256,
        Outcome([BYTES_256 * 256]),
        id="5.7-64-kib",
    ),
    pytest.param(bytes.fromhex("81 05 48656c6c6f"), refused(1002, "frame is not masked"), id="5.7-unmasked-text"),
    pytest.param(bytes.fromhex("89 05 48656c6c6f"), refused(1002, "frame is not masked"), id="5.7-unmasked-ping"),
    pytest.param(frame(TEXT) + frame(BINARY), Outcome(["", b""]), id="5.6-empty-messages"),
    pytest.param(
        frame(TEXT, b"a", fin=False)
        + frame(PING, b"1")
        + frame(CONTINUATION, b"b", fin=False)
        + frame(PONG, b"2")
        + frame(CONTINUATION, b"c")
        + frame(PING),
        Outcome([Pong(b"2"), "abc"], sent="8a01318a00"),
        id="5.4-control-frames-between-fragments",
    ),
    pytest.param(
        frame(PING, b"p" * 125), Outcome([], sent="8a7d" + "70" * 125), id="5.5.2-longest-ping-gets-its-payload-back"
    ),
    pytest.param(frame(PONG), Outcome([Pong(b"")]), id="5.5.3-unasked-pong"),
    # the closing handshake
    pytest.param(CLOSE_1000, ended(1000, "", "880203e8"), id="5.5.1-code"),
    pytest.param(frame(CLOSE), ended(1005, "", "8800"), id="5.5.1-no-code-gets-none"),
    pytest.param(
        frame(CLOSE, b"\x03\xe9tab closed"), ended(1001, "tab closed", "880203e9"), id="5.5.1-code-comes-back"
    ),
    pytest.param(
        frame(CLOSE, b"\x0f\xa0" + "é".encode() * 61), ended(4000, "é" * 61, "88020fa0"), id="5.5.1-longest-reason"
    ),
    pytest.param(
        frame(PING, b"p") + HELLO + CLOSE_1000,
        ended(1000, "", "880203e8", "Hello", sent="8a0170"),
        id="5.5.1-what-came-before-counts",
    ),
    pytest.param(
        CLOSE_1000 + LATE + frame(PING, b"late"), ended(1000, "", "880203e8"), id="5.5.1-nothing-counts-after-it"
    ),
    pytest.param(CLOSE_1000 + b"\xff\xff", ended(1000, "", "880203e8"), id="5.5.1-nor-does-garbage"),
    pytest.param(CLOSE_1000 + frame(CLOSE, b"\x03\xe9"), ended(1000, "", "880203e8"), id="5.5.1-nor-a-second-close"),
    pytest.param(
        frame(TEXT, b"half a mess", fin=False) + CLOSE_1000, ended(1000, "", "880203e8"), id="5.5.1-inside-a-message"
    ),
    pytest.param(frame(CLOSE, b"\x03"), refused(1002, "close frame with half a code"), id="5.5.1-half-a-code"),
    pytest.param(
        frame(CLOSE, b"\x03\xe8\xff"), refused(1007, "close reason is not UTF-8"), id="5.5.1-reason-is-not-utf-8"
    ),
    pytest.param(
        frame(CLOSE, b"\x03\xe8\xed\xa0\x80"), refused(1007, "close reason is not UTF-8"), id="5.5.1-reason-surrogate"
    ),
    *(
        pytest.param(frame(CLOSE, close_payload(code)), ended(code, "", f"8802{code:04x}"), id=f"7.4-code-{code}")
        for code in [*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999]
    ),
    *(
        pytest.param(
            frame(CLOSE, close_payload(code)),
            refused(1002, f"close code {code} may not be sent"),
            id=f"7.4-code-{code}-refused",
        )
        for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535]
    ),
    # errors take their place in the order of the stream
    pytest.param(HELLO + b"\x83" + LATE, refused(1002, "reserved opcode 0x3", "Hello"), id="7.1.7-error-after-message"),
    pytest.param(
        HELLO + frame(PING, b"p") + b"\x70", refused(1002, "reserved bit set", "Hello", sent="8a0170"), id="7.1.7-ping"
    ),
    pytest.param(frame(CONTINUATION, b"a"), refused(1002, "continuation of no message"), id="5.4-continuation"),
    pytest.param(
        frame(TEXT, b"a", fin=False) + HELLO, refused(1002, "new message inside a fragmented one"), id="5.4-new-message"
    ),
    # UTF-8 as it arrives
    pytest.param(frame(TEXT, b"\xce\xba\xff"), refused(1007, "text is not UTF-8"), id="8.1-one-frame"),
    pytest.param(frame(TEXT, b"\xce"), refused(1007, "text is not UTF-8"), id="8.1-ends-inside-a-letter"),
    pytest.param(
        frame(TEXT, b"\xce", fin=False) + frame(CONTINUATION, b"\xba"), Outcome(["κ"]), id="8.1-letter-over-fragments"
    ),
    pytest.param(
        frame(TEXT, b"\xce", fin=False) + frame(PING) + frame(CONTINUATION, b"\x41", fin=False),
        refused(1007, "text is not UTF-8", sent="8a00"),
        id="autobahn-6.4.1-second-fragment",
    ),
    pytest.param(frame(BINARY, b"\xff"), Outcome([b"\xff"]), id="5.6-binary-is-not-judged"),
]


@pytest.mark.parametrize(("wire", "outcome"), RECEIVED)
def test_bytes_that_arrive_have_their_outcome(wire: bytes, outcome: Outcome) -> None:
    assert receive([wire]) == outcome


@pytest.mark.parametrize(("wire", "outcome"), RECEIVED)
def test_bytes_that_arrive_cut_at_every_byte_have_the_same_outcome(wire: bytes, outcome: Outcome) -> None:
    for pieces in cuts(wire):
        assert receive(pieces) == outcome, pieces


@pytest.mark.parametrize(
    ("before", "header", "so_far"),
    [
        pytest.param(b"", head(TEXT, 21), "cebae1bdb9cf83cebcceb5 f4", id="autobahn-6.4.3"),
        pytest.param(
            frame(TEXT, bytes.fromhex("cebae1bdb9cf83cebcceb5"), fin=False),
            head(CONTINUATION, 4, fin=False),
            "f4",
            id="autobahn-6.4.4",
        ),
    ],
)
def test_text_fails_at_its_first_wrong_byte_inside_a_frame(before: bytes, header: bytes, so_far: str) -> None:
    """Nothing is wrong up to f4, but no letter begins with f4 90. The rest of the frame never arrives."""
    payload = bytes.fromhex(so_far)
    wire = before + header + mask(payload, MASK)
    wrong = mask(b"\x90", MASK, len(payload))

    assert receive([wire]) == Outcome([])
    for pieces in [[wire + wrong], *cuts(wire + wrong)]:
        assert receive(pieces) == refused(1007, "text is not UTF-8"), pieces


TOO_BIG = refused(1009, "message of more than 5 bytes")


@pytest.mark.parametrize(
    ("wire", "outcome"),
    [
        pytest.param(HELLO, Outcome(["Hello"]), id="limit-exactly"),
        pytest.param(head(TEXT, 6), TOO_BIG, id="7.4.1-1009-no-byte-of-payload-needed"),
        pytest.param(
            HELLO + frame(TEXT, b"Hel", fin=False) + head(CONTINUATION, 3),
            TOO_BIG._replace(events=["Hello"]),
            id="7.4.1-1009-over-fragments",
        ),
    ],
)
def test_size_limit_decides_at_the_header(wire: bytes, outcome: Outcome) -> None:
    for pieces in [[wire], *cuts(wire)]:
        assert receive(pieces, max_message_size=5) == outcome, pieces


def test_answers_to_control_frames_are_given_once() -> None:
    endpoint = opened()
    endpoint.receive_data(frame(PING, b"p"))

    assert endpoint.data_to_send() == bytes.fromhex("8a 01 70")
    assert endpoint.data_to_send() == b""


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_anything_bytes_like_may_arrive(kind: type) -> None:
    assert opened().receive_data(kind(HELLO)) == ["Hello"]


# --- the order of the stream -----------------------------------------------------------------------------------------


def end_with_close(endpoint: Endpoint) -> None:
    assert endpoint.receive_data(HELLO + frame(CLOSE, b"\x03\xe9bye")) == ["Hello"]


def end_with_error(endpoint: Endpoint) -> None:
    assert endpoint.receive_data(HELLO + b"\x83") == ["Hello"]


def end_with_eof(endpoint: Endpoint) -> None:
    assert endpoint.receive_data(HELLO) == ["Hello"]
    endpoint.receive_eof()


ENDS = [
    pytest.param(end_with_close, 1001, "bye", "88 02 03e9", id="5.5.1-close"),
    pytest.param(
        end_with_error,
        1002,
        "reserved opcode 0x3",
        "88 15 03ea 7265736572766564206f70636f646520307833",
        id="7.1.7-error",
    ),
    pytest.param(end_with_eof, 1006, LEFT, "", id="7.1.5-eof"),
]


@pytest.mark.parametrize(("end", "close_code", "close_reason", "answer"), ENDS)
def test_messages_before_the_end_may_be_answered_and_then_the_end_is(
    end: Callable[[Endpoint], None], close_code: int, close_reason: str, answer: str
) -> None:
    endpoint = opened()

    end(endpoint)
    assert endpoint.state is State.ENDING
    assert (endpoint.close_code, endpoint.close_reason) == (close_code, close_reason)
    assert endpoint.data_to_send() == b""
    assert endpoint.send_message("Hello") == bytes.fromhex("81 05 48656c6c6f")
    assert endpoint.send_message(b"Hello") == bytes.fromhex("82 05 48656c6c6f")

    assert endpoint.answer() == bytes.fromhex(answer)
    assert endpoint.state is State.CLOSED
    assert endpoint.answer() == b""
    with pytest.raises(WebSocketClosed) as caught:
        endpoint.send_message("too late")
    assert (caught.value.close_code, caught.value.close_reason) == (close_code, close_reason)


@pytest.mark.parametrize(("end", "close_code", "close_reason", "answer"), ENDS)
def test_nothing_counts_that_arrives_after_the_end(
    end: Callable[[Endpoint], None], close_code: int, close_reason: str, answer: str
) -> None:
    endpoint = opened()
    end(endpoint)

    assert endpoint.receive_data(LATE + frame(PING, b"late") + frame(CLOSE, b"\x03\xeb")) == []
    assert endpoint.data_to_send() == b""
    endpoint.receive_eof()
    assert (endpoint.close_code, endpoint.close_reason) == (close_code, close_reason)
    assert endpoint.answer() == bytes.fromhex(answer)
    assert endpoint.receive_data(LATE) == []


@pytest.mark.parametrize(("end", "close_code", "close_reason", "answer"), ENDS)
def test_closing_after_the_peer_ended_answers_its_end(
    end: Callable[[Endpoint], None], close_code: int, close_reason: str, answer: str
) -> None:
    endpoint = opened()
    end(endpoint)

    assert endpoint.close(4000, "our own words") == bytes.fromhex(answer)
    assert endpoint.state is State.CLOSED
    assert (endpoint.close_code, endpoint.close_reason) == (close_code, close_reason)


@pytest.mark.parametrize(("end", "close_code", "close_reason", "answer"), ENDS)
def test_failing_after_the_peer_ended_sends_our_code_and_keeps_the_peers(
    end: Callable[[Endpoint], None], close_code: int, close_reason: str, answer: str
) -> None:
    endpoint = opened()
    end(endpoint)

    assert endpoint.fail(1011, "sorry") == bytes.fromhex("88 07 03f3 736f727279")
    assert endpoint.state is State.CLOSED
    assert (endpoint.close_code, endpoint.close_reason) == (close_code, close_reason)


def test_message_that_the_end_of_the_stream_cuts_off_is_dropped() -> None:
    endpoint = opened()
    assert endpoint.receive_data(HELLO + frame(TEXT, b"cut off")[:-1]) == ["Hello"]

    endpoint.receive_eof()

    assert endpoint.state is State.ENDING
    assert endpoint.close_code == 1006


# --- what we send ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        pytest.param("Hello", "81 05 48656c6c6f", id="5.7-text"),
        pytest.param("é€😀", "81 09 c3a9 e282ac f09f9880", id="5.6-utf-8"),
        pytest.param(b"\xff\0", "82 02 ff00", id="5.6-binary"),
        pytest.param("", "81 00", id="5.6-empty-text"),
        pytest.param(b"", "82 00", id="5.6-empty-binary"),
        pytest.param(BYTES_256, "82 7e 0100" + BYTES_256.hex(), id="5.7-256-bytes"),
        pytest.param(BYTES_256 * 256, "82 7f 0000000000010000" + BYTES_256.hex() * 256, id="5.7-64-kib"),
    ],
)
def test_message_is_sent_as_one_frame(message: Message, wire: str) -> None:
    assert opened().send_message(message) == bytes.fromhex(wire)


def test_text_that_has_no_utf8_is_refused_and_nothing_else_happens() -> None:
    endpoint = opened()

    with pytest.raises(UnicodeEncodeError):
        endpoint.send_message("\ud800")

    assert endpoint.state is State.OPEN


def test_ping_carries_its_payload() -> None:
    assert opened().send_ping(b"Hello") == bytes.fromhex("89 05 48656c6c6f")


def test_message_before_the_opening_handshake_is_refused() -> None:
    with pytest.raises(WebSocketClosed) as caught:
        Endpoint().send_message("too early")

    assert (caught.value.close_code, caught.value.close_reason) == (1006, "")


@given(st.one_of(st.text(), st.binary(max_size=70_000)))
def test_any_message_is_read_by_a_client_as_it_was(message: Message) -> None:
    opcode, payload = (TEXT, message.encode()) if isinstance(message, str) else (BINARY, message)

    assert decode_all(opened().send_message(message)) == [Seen(opcode, payload)]


# --- our own end -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "reason", "wire"),
    [
        pytest.param(1000, "", "88 02 03e8", id="7.4.1-1000"),
        pytest.param(1001, "bye", "88 05 03e9 627965", id="7.4.1-1001-and-reason"),
        pytest.param(4999, "é", "88 04 1387 c3a9", id="7.4.2-4999"),
        pytest.param(1000, "r" * 123, "88 7d 03e8" + "72" * 123, id="5.5-longest-reason"),
    ],
)
def test_closing_sends_a_close_frame_and_waits_for_the_peers(code: int, reason: str, wire: str) -> None:
    endpoint = opened()

    assert endpoint.close(code, reason) == bytes.fromhex(wire)
    assert endpoint.state is State.CLOSING
    assert (endpoint.close_code, endpoint.close_reason) == (code, reason)
    assert endpoint.close() == b""
    assert endpoint.receive_data(frame(CLOSE, b"\x03\xeb")) == []
    assert endpoint.state is State.CLOSED
    assert (endpoint.close_code, endpoint.close_reason) == (code, reason)
    assert endpoint.answer() == endpoint.close() == b""


def test_closing_without_words_says_1000() -> None:
    assert opened().close() == bytes.fromhex("88 02 03e8")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        pytest.param(0, "", id="7.4.2-0"),
        pytest.param(999, "", id="7.4.2-999"),
        pytest.param(1004, "", id="7.4.1-1004"),
        pytest.param(1005, "", id="7.4.1-1005"),
        pytest.param(1006, "", id="7.4.1-1006"),
        pytest.param(1015, "", id="7.4.1-1015"),
        pytest.param(2999, "", id="7.4.2-2999"),
        pytest.param(5000, "", id="7.4.2-5000"),
        pytest.param(1000, "r" * 124, id="5.5-124-bytes"),
        pytest.param(1000, "é" * 62, id="5.5-124-bytes-in-62-letters"),
    ],
)
@pytest.mark.parametrize("verb", [Endpoint.close, Endpoint.fail])
def test_end_that_may_not_be_sent_is_refused_and_nothing_else_happens(
    verb: Callable[[Endpoint, int, str], bytes], code: int, reason: str
) -> None:
    endpoint = opened()

    with pytest.raises(ValueError, match=r"only ever reported|not a close code|at most 123 fit"):
        verb(endpoint, code, reason)

    assert (endpoint.state, endpoint.close_code, endpoint.close_reason) == (State.OPEN, None, "")


def test_closing_with_a_wrong_code_is_refused_also_when_the_peer_has_ended() -> None:
    endpoint = opened()
    end_with_close(endpoint)

    with pytest.raises(ValueError, match=r"^1006 is only ever reported"):
        endpoint.close(1006)

    assert endpoint.state is State.ENDING


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(LATE + frame(BINARY, b"late"), id="5.5.1-messages"),
        pytest.param(frame(PONG, b"late"), id="5.5.1-pong"),
        pytest.param(frame(TEXT, b"la", fin=False) + frame(CONTINUATION, b"te"), id="5.5.1-fragments"),
        pytest.param(frame(TEXT, b"\xff"), id="8.1-not-utf-8"),
    ],
)
def test_what_arrives_after_our_close_frame_is_dropped_until_the_peers_comes(wire: bytes) -> None:
    for pieces in [[wire], *cuts(wire)]:
        endpoint = opened()
        endpoint.close()

        assert [event for piece in pieces for event in endpoint.receive_data(piece)] == []
        assert endpoint.data_to_send() == b""
        assert endpoint.state is State.CLOSING
        assert endpoint.receive_data(CLOSE_1000) == []
        assert endpoint.state is State.CLOSED


def test_ping_behind_our_close_frame_is_answered_until_the_peers_comes() -> None:
    """5.5.2: a ping is answered unless a Close frame has been received."""
    endpoint = opened()
    endpoint.close()

    assert endpoint.receive_data(frame(PING, b"late") + CLOSE_1000 + frame(PING, b"too late")) == []
    assert endpoint.data_to_send() == b"\x8a\x04late"


@pytest.mark.parametrize("length", [126, 1000])
def test_ping_longer_than_a_control_frame_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"125 bytes at most, not {length}"):
        opened().send_ping(bytes(length))


@pytest.mark.parametrize("state", list(State), ids=lambda state: state.name)
def test_failing_with_a_code_that_may_not_be_sent_is_refused_in_every_state(state: State) -> None:
    endpoint = in_state(state)

    with pytest.raises(ValueError, match=r"^1006 is only ever reported"):
        endpoint.fail(1006)

    assert endpoint.state is state


def test_message_that_began_before_our_close_frame_is_dropped() -> None:
    endpoint = opened()
    endpoint.receive_data(frame(TEXT, b"half", fin=False) + HELLO[:3])
    endpoint.close()

    assert endpoint.receive_data(HELLO[3:] + CLOSE_1000) == []
    assert endpoint.state is State.CLOSED


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(b"\x83", id="5.2-reserved-opcode"),
        pytest.param(frame(CONTINUATION, b"of nothing"), id="5.4-continuation-of-no-message"),
        pytest.param(frame(CLOSE, b"\x03"), id="5.5.1-half-a-code"),
    ],
)
def test_error_after_our_close_frame_closes_without_another(wire: bytes) -> None:
    endpoint = opened()
    endpoint.close(1001, "bye")

    assert endpoint.receive_data(wire + LATE) == []
    assert endpoint.state is State.CLOSED
    assert endpoint.data_to_send() == endpoint.answer() == b""
    assert (endpoint.close_code, endpoint.close_reason) == (1001, "bye")


FLOODS = {
    "pings": (b"", frame(PING, b"p")),
    "pongs": (b"", frame(PONG)),
    "fragments": (frame(TEXT, fin=False), frame(CONTINUATION, fin=False)),
}


def let_arrive(endpoint: Endpoint, pieces: Iterable[bytes], per_second: float) -> None:
    """Receive each of `pieces` in its time, as the driver of an endpoint does."""
    now = 1000.0
    for piece in pieces:
        now += 1 / per_second
        endpoint.receive_data(piece)
        endpoint.data_to_send()
        if endpoint.empty_frames:
            endpoint.limit_empty_frames(now)


@pytest.mark.parametrize("kind", FLOODS)
def test_peer_that_floods_frames_without_content_is_ended_with_1008(kind: str) -> None:
    endpoint = opened()
    begin, flood = FLOODS[kind]
    endpoint.receive_data(begin + HELLO if kind != "fragments" else begin)
    let_arrive(endpoint, [flood * 100] * 1000, per_second=500)  # of 100 frames each
    assert (endpoint.state, endpoint.close_code) == (State.ENDING, 1008)
    assert endpoint.close_reason == "too many frames without content"
    assert endpoint.answer() == b"\x88\x21\x03\xf0too many frames without content"


@pytest.mark.parametrize("kind", FLOODS)
def test_flood_behind_our_close_frame_closes_without_another(kind: str) -> None:
    endpoint = opened()
    begin, flood = FLOODS[kind]
    endpoint.receive_data(begin)
    endpoint.close(1001)
    let_arrive(endpoint, [flood * 100] * 1000, per_second=500)
    assert (endpoint.state, endpoint.close_code) == (State.CLOSED, 1001)
    assert endpoint.answer() == b""


@pytest.mark.parametrize(
    ("pieces", "per_second"),
    [
        pytest.param([frame(PING)] * 100_000, 5000, id="a-ping-with-each-of-5000-messages-a-second"),
        pytest.param([frame(PING) * 30_000], 1, id="pings-that-waited-for-a-process-that-stood-still"),
        pytest.param([frame(PONG) * 25_000] * 5, 0.2, id="pongs-that-waited-again-and-again"),
        pytest.param([frame(TEXT) * 1000] * 100, 1e6, id="empty-messages"),
        pytest.param([(frame(TEXT, fin=False) + frame(CONTINUATION)) * 2000] * 20, 10, id="empty-ends"),
        pytest.param(
            [frame(BINARY, fin=False)]
            + [frame(CONTINUATION, fin=False) * 33_045 + frame(CONTINUATION, BYTES_256 * 200, fin=False)] * 4,
            1e6,
            id="what-zlib-held-back",
        ),
        pytest.param(
            [(frame(TEXT, b"a", fin=False) + frame(CONTINUATION, fin=False) + frame(CONTINUATION)) * 500] * 100,
            1e6,
            id="a-few-empty-fragments",
        ),
    ],
)
def test_ordinary_traffic_does_not_meet_the_limit_of_frames_without_content(
    pieces: list[bytes], per_second: float
) -> None:
    endpoint = opened()
    let_arrive(endpoint, pieces, per_second)
    assert endpoint.state is State.OPEN


def test_close_of_a_peer_that_floods_before_it_is_answered_as_it_was_meant() -> None:
    endpoint = opened()
    let_arrive(endpoint, [frame(PING) * 50_000 + frame(CLOSE, close_payload(4000, "bye"))], 1)
    assert (endpoint.state, endpoint.close_code, endpoint.close_reason) == (State.ENDING, 4000, "bye")
    assert endpoint.answer() == b"\x88\x02\x0f\xa0"


def test_end_of_stream_after_our_close_frame_closes() -> None:
    endpoint = opened()
    endpoint.close(1001, "bye")

    endpoint.receive_eof()

    assert endpoint.state is State.CLOSED
    assert (endpoint.close_code, endpoint.close_reason) == (1001, "bye")


def test_message_after_our_close_frame_is_refused() -> None:
    """5.5.1."""
    endpoint = opened()
    endpoint.close(1001, "bye")

    with pytest.raises(WebSocketClosed) as caught:
        endpoint.send_message("too late")

    assert (caught.value.close_code, caught.value.close_reason) == (1001, "bye")


def test_failing_sends_a_close_frame_and_looks_at_nothing_more() -> None:
    """7.1.7."""
    endpoint = opened()

    assert endpoint.fail(1011, "sorry") == bytes.fromhex("88 07 03f3 736f727279")
    assert endpoint.state is State.CLOSED
    assert (endpoint.close_code, endpoint.close_reason) == (1011, "sorry")
    assert endpoint.receive_data(LATE + CLOSE_1000) == []
    assert endpoint.fail(1011, "again") == endpoint.close() == endpoint.answer() == b""
    assert (endpoint.close_code, endpoint.close_reason) == (1011, "sorry")


def test_failing_after_our_close_frame_sends_no_other() -> None:
    endpoint = opened()
    endpoint.close(1001, "bye")

    assert endpoint.fail(1011) == b""
    assert endpoint.state is State.CLOSED
    assert (endpoint.close_code, endpoint.close_reason) == (1001, "bye")


def test_aborting_sends_nothing_and_reports_1006() -> None:
    endpoint = opened()

    endpoint.abort("the peer is gone")

    assert endpoint.state is State.CLOSED
    assert (endpoint.close_code, endpoint.close_reason) == (1006, "the peer is gone")
    assert endpoint.close() == endpoint.answer() == endpoint.data_to_send() == b""
    with pytest.raises(WebSocketClosed, match=r"^the WebSocket is closed \(1006\): the peer is gone$"):
        endpoint.send_message("too late")


def test_aborting_after_the_peer_ended_keeps_its_code() -> None:
    endpoint = opened()
    end_with_close(endpoint)

    endpoint.abort("the view never came back")

    assert endpoint.state is State.CLOSED
    assert (endpoint.close_code, endpoint.close_reason) == (1001, "bye")


# --- states ----------------------------------------------------------------------------------------------------------

WAYS_TO: dict[State, Callable[[Endpoint], object]] = {
    State.CONNECTING: lambda endpoint: None,
    State.OPEN: lambda endpoint: endpoint.accepted(),
    State.ENDING: lambda endpoint: (endpoint.accepted(), endpoint.receive_data(CLOSE_1000)),
    State.CLOSING: lambda endpoint: (endpoint.accepted(), endpoint.close()),
    State.CLOSED: lambda endpoint: (endpoint.accepted(), endpoint.abort("lost")),
}

VERBS: dict[str, Callable[[Endpoint], object]] = {
    "message": lambda endpoint: endpoint.receive_data(HELLO),
    "close frame": lambda endpoint: endpoint.receive_data(CLOSE_1000),
    "error": lambda endpoint: endpoint.receive_data(b"\x83"),
    "eof": lambda endpoint: endpoint.receive_eof(),
    "answer": lambda endpoint: endpoint.answer(),
    "close": lambda endpoint: endpoint.close(),
    "fail": lambda endpoint: endpoint.fail(1011),
    "abort": lambda endpoint: endpoint.abort("lost"),
}

# fmt: off
CONNECTING, OPEN, ENDING, CLOSING, CLOSED = State
STATES_AFTER = {  # from:  CONNECTING  OPEN     ENDING  CLOSING  CLOSED
    "message":           (CONNECTING, OPEN,    ENDING, CLOSING, CLOSED),
    "close frame":       (CONNECTING, ENDING,  ENDING, CLOSED,  CLOSED),
    "error":             (CONNECTING, ENDING,  ENDING, CLOSED,  CLOSED),
    "eof":               (CLOSED,     ENDING,  ENDING, CLOSED,  CLOSED),
    "answer":            (CONNECTING, OPEN,    CLOSED, CLOSING, CLOSED),
    "close":             (CONNECTING, CLOSING, CLOSED, CLOSING, CLOSED),
    "fail":              (CLOSED,     CLOSED,  CLOSED, CLOSED,  CLOSED),
    "abort":             (CLOSED,     CLOSED,  CLOSED, CLOSED,  CLOSED),
}
# fmt: on


def in_state(state: State) -> Endpoint:
    endpoint = Endpoint()
    WAYS_TO[state](endpoint)
    assert endpoint.state is state
    return endpoint


@pytest.mark.parametrize(
    ("verb", "before", "after"),
    [
        pytest.param(verb, before, after, id=f"{verb}-when-{before.name}")
        for verb, row in STATES_AFTER.items()
        for before, after in zip(State, row, strict=True)
    ],
)
def test_every_verb_in_every_state_leads_to_a_state(verb: str, before: State, after: State) -> None:
    endpoint = in_state(before)

    VERBS[verb](endpoint)

    assert endpoint.state is after


def test_table_of_transitions_has_what_can_happen_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    class Recording(dict[tuple[State, Event], State]):
        def __getitem__(self, key: tuple[State, Event]) -> State:
            used.add(key)
            return super().__getitem__(key)

    used: set[tuple[State, Event]] = set()
    monkeypatch.setattr(module, "TRANSITIONS", Recording(TRANSITIONS))

    for verb in VERBS.values():
        for state in State:
            verb(in_state(state))

    assert used == set(TRANSITIONS)


# --- properties ------------------------------------------------------------------------------------------------------


@st.composite
def conversations(draw: st.DrawFn) -> tuple[bytes, list[Message | Pong], list[Seen]]:
    """Messages in any fragments with control frames in between: the wire, the events, the pongs that answer it."""
    wire = b""
    events: list[Message | Pong] = []
    answers = []
    for message in draw(st.lists(st.one_of(st.text(), st.binary(max_size=300)), max_size=5)):
        opcode, payload = (TEXT, message.encode()) if isinstance(message, str) else (BINARY, message)
        fragments = draw(pieces_of(payload))
        for i, fragment in enumerate(fragments):
            fin = i == len(fragments) - 1
            wire += frame(CONTINUATION if i else opcode, fragment, fin=fin, mask=draw(keys))
            if fin:
                events.append(message)
            control = draw(st.sampled_from([None, PING, PONG]))
            if control:
                payload = draw(st.binary(max_size=125))
                wire += frame(control, payload, mask=draw(keys))
                if control == PING:
                    answers.append(Seen(PONG, payload))
                else:
                    events.append(Pong(payload))
    return wire, events, answers


@given(st.data(), conversations())
def test_any_messages_fragmented_and_cut_anywhere_come_out_as_they_went_in(
    data: st.DataObject, conversation: tuple[bytes, list[Message | Pong], list[Seen]]
) -> None:
    wire, events, answers = conversation

    outcome = receive(data.draw(pieces_of(wire)))

    assert outcome == Outcome(events, outcome.sent)
    assert decode_all(bytes.fromhex(outcome.sent)) == answers


DOCUMENTED = {1002, 1007, 1009}


@given(st.data(), garbage, st.sampled_from([None, 0, 100]))
def test_any_garbage_cut_anywhere_needs_more_or_ends_in_a_documented_close(
    data: st.DataObject, wire: bytes, limit: int | None
) -> None:
    outcome = receive([wire], max_message_size=limit)

    assert receive(data.draw(pieces_of(wire)), max_message_size=limit) == outcome
    assert all(seen.opcode == PONG for seen in decode_all(bytes.fromhex(outcome.sent)))
    if outcome.state is State.OPEN:
        assert outcome.answer == ""
        return
    assert outcome.state is State.ENDING
    [answer] = decode_all(bytes.fromhex(outcome.answer))
    assert answer.opcode == CLOSE
    if outcome.close_code not in DOCUMENTED:  # the peer closed, and gets its code back
        assert answer.payload == (b"" if outcome.close_code == 1005 else close_payload(outcome.close_code or 0))
    else:
        assert int.from_bytes(answer.payload[:2], "big") == outcome.close_code


def drive(endpoint: Endpoint, verb: str, wire: bytes) -> bytes:
    """What the endpoint sends in answer to a verb; messages that come too late send nothing."""
    if verb == "message":
        endpoint.receive_data(wire)
        return endpoint.data_to_send()
    if verb == "send":
        try:
            return endpoint.send_message("Hello")
        except WebSocketClosed:
            assert endpoint.state in (State.CLOSING, State.CLOSED)
            return b""
    answer = VERBS[verb](endpoint)
    return answer if isinstance(answer, bytes) else b""


@given(st.lists(st.tuples(st.sampled_from([*VERBS, "send"]), garbage), max_size=12))
@example([("close", b""), ("message", frame(PING))])
def test_any_verbs_in_any_order_send_at_most_one_close_frame_and_only_pongs_after_it(
    steps: list[tuple[str, bytes]],
) -> None:
    endpoint = opened()
    wire = b""
    for verb, data in steps:
        was_closed = endpoint.state is State.CLOSED
        sent = drive(endpoint, verb, data)
        assert not (was_closed and (sent or endpoint.state is not State.CLOSED))
        assert (endpoint.close_code is None) == (endpoint.state is State.OPEN)
        wire += sent

    opcodes = [seen.opcode for seen in decode_all(wire)]
    behind = opcodes[opcodes.index(CLOSE) + 1 :] if CLOSE in opcodes else []
    assert set(behind) <= {PONG}  # 5.5.2: a ping is answered until the peer's Close frame comes


# --- how it is driven: feed(), then advance() while has_more ----------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "has_more"),
    [
        (HELLO, [False]),
        (HELLO * 3, [True, True, False]),
        (HELLO + HELLO[:3], [True, False]),
        (HELLO[:3], [False]),
        (frame(PING) + HELLO, [True, False]),
        (frame(TEXT, b"Hel", fin=False) + frame(CONTINUATION, b"lo"), [True, False]),
        (frame(BINARY, bytes(70_000)), [False]),
        (HELLO + CLOSE_1000 + LATE, [True, False]),
        (HELLO + b"\xff" + LATE, [True, False]),
        (HELLO + frame(PING)[:1], [True, False]),
    ],
    ids=str,
)
def test_endpoint_says_whether_there_is_more_to_look_at(wire: bytes, has_more: list[bool]) -> None:
    endpoint = opened()
    assert not endpoint.has_more
    endpoint.feed(wire)
    assert endpoint.has_more
    seen = []
    while endpoint.has_more:
        endpoint.advance()
        seen.append(endpoint.has_more)

    assert seen == has_more
    assert endpoint.advance() is None


@pytest.mark.parametrize("end", ["fail", "abort", "eof"])
def test_endpoint_that_looks_at_nothing_any_more_has_no_more(end: str) -> None:
    endpoint = opened()
    endpoint.feed(HELLO * 2)
    endpoint.advance()
    assert endpoint.has_more
    if end == "fail":
        endpoint.fail(1011)
    elif end == "abort":
        endpoint.abort("gone")
    else:
        endpoint.receive_eof()
    assert not endpoint.has_more
    endpoint.feed(HELLO)
    assert not endpoint.has_more


def test_pause_between_two_frames_loses_nothing() -> None:
    endpoint = opened()
    endpoint.feed(HELLO + HELLO[:4])
    assert endpoint.advance() == "Hello"
    endpoint.feed(HELLO[4:] + LATE)
    events = []
    while endpoint.has_more:
        events.append(endpoint.advance())

    assert events == ["Hello", "late"]


def test_endpoint_behind_our_close_frame_still_looks_for_the_peers() -> None:
    endpoint = opened()
    endpoint.feed(HELLO + CLOSE_1000)
    endpoint.close(1000)
    assert endpoint.has_more
    while endpoint.has_more:
        endpoint.advance()

    assert endpoint.close_received
