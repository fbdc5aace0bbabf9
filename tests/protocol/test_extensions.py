"""Extensions as the endpoint drives them, with two toys: what a real one relies on."""

from __future__ import annotations

import pytest

from dwebsocket.protocol.codes import Opcode
from dwebsocket.protocol.endpoint import Endpoint, Pong, State
from dwebsocket.protocol.exceptions import MessageTooBig, ProtocolError
from dwebsocket.protocol.extensions import Extension
from dwebsocket.protocol.frames import Frame
from dwebsocket.protocol.messages import Message
from tests.peer import CLOSE, CONTINUATION, PING, PONG, TEXT, close_payload, decode_all, frame
from tests.peer import Frame as Seen

from .wire import cuts


class SwapCase:
    """Swaps upper and lower case, and says with rsv1 which messages it did that to."""

    uses_rsv1 = True

    def __init__(self) -> None:
        self.swapped = False

    def decode(self, frame: Frame) -> Frame:
        if frame.opcode is not Opcode.CONTINUATION:
            self.swapped = frame.rsv1
        return frame._replace(payload=frame.payload.swapcase(), rsv1=False) if self.swapped else frame

    def encode(self, frame: Frame) -> Frame:
        return frame._replace(payload=frame.payload.swapcase(), rsv1=True)


class Suffix:
    """Ends each message with a letter that the application does not see."""

    uses_rsv1 = False

    def decode(self, frame: Frame) -> Frame:
        return frame._replace(payload=frame.payload[:-1]) if frame.fin else frame

    def encode(self, frame: Frame) -> Frame:
        return frame._replace(payload=frame.payload + b"z")


class Refusing:
    """Takes nothing."""

    uses_rsv1 = False

    def __init__(self, error: ProtocolError) -> None:
        self.error = error

    def decode(self, frame: Frame) -> Frame:
        raise self.error

    def encode(self, frame: Frame) -> Frame:
        return frame


def opened(*extensions: Extension) -> Endpoint:
    endpoint = Endpoint(extensions=extensions)
    endpoint.accepted()
    return endpoint


def received(endpoint: Endpoint, pieces: list[bytes]) -> list[Message | Pong]:
    return [event for piece in pieces for event in endpoint.receive_data(piece)]


@pytest.mark.parametrize(
    ("wire", "message"),
    [
        pytest.param(frame(TEXT, b"Hello", rsv=4), "hELLO", id="9.1-rsv1"),
        pytest.param(frame(TEXT, b"Hello"), "Hello", id="9.1-no-rsv1"),
        pytest.param(
            frame(TEXT, b"He", rsv=4, fin=False) + frame(CONTINUATION, b"llo"), "hELLO", id="9.1-rsv1-in-fragments"
        ),
    ],
)
def test_extension_decodes_what_arrives_however_it_is_cut(wire: bytes, message: str) -> None:
    assert received(opened(SwapCase()), [wire]) == [message]
    for pieces in cuts(wire):
        assert received(opened(SwapCase()), pieces) == [message], pieces


@pytest.mark.parametrize(
    ("message", "seen"),
    [
        pytest.param("Hello", Seen(TEXT, b"hELLO", rsv=4), id="9.1-text"),
        pytest.param(b"Hello", Seen(2, b"hELLO", rsv=4), id="9.1-binary"),
    ],
)
def test_extension_encodes_what_is_sent(message: Message, seen: Seen) -> None:
    assert decode_all(opened(SwapCase()).send_message(message)) == [seen]


def test_extensions_encode_in_their_order() -> None:
    """9.1: each is applied to what the one before it gave."""
    assert decode_all(opened(SwapCase(), Suffix()).send_message("x")) == [Seen(TEXT, b"Xz", rsv=4)]
    assert decode_all(opened(Suffix(), SwapCase()).send_message("x")) == [Seen(TEXT, b"XZ", rsv=4)]


def test_extensions_decode_in_the_opposite_order() -> None:
    """The last one on the wire is the first to come off: "ab" and a suffix, swapped as a whole or not."""

    class CutFirst(Suffix):
        def decode(self, frame: Frame) -> Frame:
            return frame._replace(payload=frame.payload.removesuffix(b"z"))

    assert received(opened(CutFirst(), SwapCase()), [frame(TEXT, b"abZ", rsv=4)]) == ["AB"]
    assert received(opened(SwapCase(), CutFirst()), [frame(TEXT, b"abZ", rsv=4)]) == ["ABz"]


def test_text_is_judged_after_the_extension() -> None:
    class Text(Suffix):
        def decode(self, frame: Frame) -> Frame:
            return frame._replace(payload=b"text")

    assert received(opened(Text()), [frame(TEXT, b"\xff")]) == ["text"]


def test_control_frames_pass_the_extension_by() -> None:
    endpoint = opened(Refusing(ProtocolError("never called")))

    events = received(endpoint, [frame(PING, b"ping") + frame(PONG, b"pong") + frame(CLOSE, close_payload(1000))])

    assert events == [Pong(b"pong")]
    assert decode_all(endpoint.data_to_send()) == [Seen(PONG, b"ping")]
    assert decode_all(endpoint.answer()) == [Seen(CLOSE, close_payload(1000))]


def test_control_frames_we_send_pass_the_extension_by() -> None:
    endpoint = opened(SwapCase())

    assert decode_all(endpoint.send_ping(b"ping")) == [Seen(PING, b"ping")]
    assert decode_all(endpoint.close(1000, "bye")) == [Seen(CLOSE, close_payload(1000, "bye"))]


@pytest.mark.parametrize("extensions", [(), (Suffix(),)])
def test_rsv1_that_no_extension_uses_ends_in_1002(extensions: tuple[Extension, ...]) -> None:
    endpoint = opened(*extensions)

    assert received(endpoint, [frame(TEXT, b"Hello", rsv=4)]) == []
    assert decode_all(endpoint.answer()) == [Seen(CLOSE, close_payload(1002, "reserved bit set"))]


def test_rsv1_is_allowed_when_any_extension_uses_it() -> None:
    assert received(opened(Suffix(), SwapCase()), [frame(TEXT, b"HelloZ", rsv=4)]) == ["hELLO"]


@pytest.mark.parametrize(
    ("error", "close_code"),
    [(ProtocolError("not swapped"), 1002), (MessageTooBig("not swapped"), 1009)],
)
def test_error_of_an_extension_ends_in_its_close_code(error: ProtocolError, close_code: int) -> None:
    endpoint = opened(Refusing(error))

    assert received(endpoint, [frame(TEXT, b"Hello")]) == []
    assert endpoint.state is State.ENDING
    assert decode_all(endpoint.answer()) == [Seen(CLOSE, close_payload(close_code, "not swapped"))]
