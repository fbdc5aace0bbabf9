"""One end of an open connection: its state, control frames, the closing handshake (sections 5.5 and 7)."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final, NamedTuple

from .codes import CONTROL_BIT, CloseCode, Opcode
from .deflate import PerMessageDeflate, SharedCompression
from .exceptions import PolicyViolation, ProtocolError, WebSocketClosed
from .extensions import Extension
from .frames import FIN, MAX_CONTROL_PAYLOAD_BYTES, Close, Frame, cut_reason, serialize, serialize_text
from .messages import Assembler, Cutter, Message, Part, decode
from .parser import Parser


class State(enum.Enum):
    """The state of a connection. ENDING and CLOSING are the two halves of the RFC's CLOSING (7.1.3)."""

    CONNECTING = "the 101 has not been sent"
    OPEN = "messages travel both ways"
    ENDING = "the peer has ended its side; what it sent before may still be answered, then so is the end"
    CLOSING = "our Close frame is sent, the peer's has not come"
    CLOSED = "nothing more is sent or received"


class Event(enum.Enum):
    """The cause of a move from one state to another."""

    ACCEPTED = "the 101 is on its way"
    PEER_ENDED = "a Close frame, a frame that breaks the rules, or the end of the stream"
    CLOSE_SENT = "we sent a Close frame"
    FAILED = "we gave the connection up (7.1.7)"


TRANSITIONS = {
    (State.CONNECTING, Event.ACCEPTED): State.OPEN,
    (State.CONNECTING, Event.PEER_ENDED): State.CLOSED,
    (State.CONNECTING, Event.FAILED): State.CLOSED,
    (State.OPEN, Event.PEER_ENDED): State.ENDING,
    (State.OPEN, Event.CLOSE_SENT): State.CLOSING,
    (State.OPEN, Event.FAILED): State.CLOSED,
    (State.ENDING, Event.PEER_ENDED): State.ENDING,
    (State.ENDING, Event.CLOSE_SENT): State.CLOSED,
    (State.ENDING, Event.FAILED): State.CLOSED,
    (State.CLOSING, Event.PEER_ENDED): State.CLOSED,
    (State.CLOSING, Event.FAILED): State.CLOSED,
    (State.CLOSED, Event.PEER_ENDED): State.CLOSED,
    (State.CLOSED, Event.FAILED): State.CLOSED,
}


_OPEN, _ENDING, _CLOSING = State.OPEN, State.ENDING, State.CLOSING
_FIN_BINARY = FIN | Opcode.BINARY

#: A peer may send so many pings, pongs and empty fragments, beyond one for each byte of its fragments. zlib holds back
#: up to 33,045 bytes: a peer that compresses a long message byte for byte may send as many empty fragments in a row.
#: A frame costs some 5 µs, so these cost a fifth of a second, and 5,000 a second are 2.5 % of a core. A client that
#: pings with each of its messages sends less, a flood sends far more.
MAX_EMPTY_FRAMES = 40_000
EMPTY_FRAMES_PER_SECOND = 5000


class Pong(NamedTuple):
    """The peer answered a ping that carried `payload`."""

    payload: bytes


class Nothing(enum.Enum):
    """The result of `Endpoint.advance()` for a frame that completes no event."""

    NOTHING = "look at the next frame"


NOTHING: Final = Nothing.NOTHING


class Endpoint:
    """The server's end of one connection: bytes that arrived go in, events and bytes to send come out.

    The end of the peer's side (its Close frame, an error in its bytes, the end of the stream) takes its place in the
    order of the stream. It only moves the state to ENDING. The driver of the endpoint hands out the messages before it,
    may answer them, and calls `answer()` when the turn of the end has come.

    `close_code` and `close_reason` are those of the Close frame that began the end, of either side; 1006 and a
    description where there was none (7.1.5). They are None and "" until then. `close_received`: the peer's Close frame
    has come, so that it sends nothing more.

    `has_more`: there are bytes that have not been looked at, so `advance()` may give something.

    `streaming`: messages are given in parts, and none is too big: the taker of the parts sets the limit.

    `decoded_bytes` counts the bytes that extensions made of the frames. A driver sets it back to 0, and pauses where it
    becomes large: a few bytes can inflate to a megabyte. `empty_frames` counts frames that brought nothing and
    completed nothing: where it is not 0, a driver calls `limit_empty_frames()`.
    """

    __slots__ = (
        "_answer",
        "_assembler",
        "_extensions",
        "_judged_at",
        "_takes_whole",
        "close_code",
        "close_reason",
        "close_received",
        "decoded_bytes",
        "empty_frames",
        "has_more",
        "output",
        "parser",
        "state",
        "streaming",
    )

    def __init__(
        self,
        *,
        max_message_size: int | None = None,
        extensions: Sequence[Extension] = (),
        streaming: bool = False,
    ) -> None:
        self.state = State.CONNECTING
        self.close_code: int | None = None
        self.close_reason = ""
        self.close_received = False
        self.has_more = False
        self.streaming = streaming
        self.decoded_bytes = 0
        self.empty_frames = 0.0
        self._judged_at = 0.0
        self._extensions = extensions
        if streaming:
            max_message_size = None
        on_wire = max_message_size
        for extension in extensions:
            on_wire = None if on_wire is None else extension.wire_size(on_wire)
        self._takes_whole = not extensions and not streaming
        self.parser = Parser(
            max_message_size=max_message_size,
            rsv1_allowed=any(extension.uses_rsv1 for extension in extensions),
            max_extended_size=on_wire,
            gather_binary=self._takes_whole,
        )
        self._assembler: Assembler | Cutter | None = None  # made for the first message that is not whole in its frame
        self.output = b""  # `data_to_send()` gives these bytes
        self._answer = b""  # the Close frame that answers the end of the peer's side

    def accepted(self) -> None:
        """Move to OPEN: the opening handshake is complete."""
        self._move(Event.ACCEPTED)

    def receive_data(self, data: bytes | bytearray | memoryview) -> list[Message | Part | Pong]:
        """Return the messages and pongs that are complete with `data`; look at `state` afterwards.

        Bytes after the end of the peer's side are dropped. After our Close frame, only control frames are looked at.
        """
        self.feed(data)
        events: list[Message | Part | Pong] = []
        while self.has_more:
            event = self.advance()
            if event is not None and event is not NOTHING:
                events.append(event)
        return events

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Add bytes that have arrived; `advance()` then looks at them."""
        if self._listens():
            self.parser.feed(data)
            self.has_more = True

    def advance(self) -> Message | Part | Pong | Nothing | None:
        """Look at one frame. Return the message or pong that it completes, else NOTHING; None: more bytes are needed.

        So the driver of the endpoint can pause between two frames. Look at `state` after None.
        """
        try:
            event = self._advance_message() if self._takes_whole and self.state is _OPEN else self._advance_frame()
        except ProtocolError as error:
            self._refuse(error)
            event = None
        self.has_more = event is not None and len(self.parser.buffered) > 0
        return event

    def limit_empty_frames(self, now: float) -> None:
        """End the connection with 1008 where too many of the peer's frames brought nothing until `now`, in seconds.

        They cost this side as much as messages do, and never fill an inbox, so that reading would pause.
        """
        forgiven = (now - self._judged_at) * EMPTY_FRAMES_PER_SECOND
        self._judged_at = now
        self.empty_frames = max(0.0, self.empty_frames - forgiven)
        if self.empty_frames > MAX_EMPTY_FRAMES and self._listens():
            self._refuse(PolicyViolation("too many frames without content"))

    def receive_eof(self) -> None:
        """Take note of the end of the stream: nothing more will arrive."""
        self._peer_ended(Close(CloseCode.ABNORMAL_CLOSURE, "the peer left without a closing handshake"))

    def data_to_send(self) -> bytes:
        """Return the answers to control frames, to be sent; each byte is given once."""
        data = self.output
        self.output = b""
        return data

    def send_message(self, message: Message) -> bytes:
        """Return the bytes that carry `message`: str as text, bytes as binary. WebSocketClosed when it is too late."""
        if self._extensions:
            return self.send_fragment(message)
        if self.state is not _OPEN:
            self.refuse_if_late()
        if isinstance(message, str):
            return serialize_text(message)
        return serialize(_FIN_BINARY, message)

    def send_large(self, message: Message) -> tuple[bytes, bytes]:
        """Return header and payload, to be sent one behind the other: so a large payload is not copied."""
        frame = self._frame(message, first=True, fin=True)
        return frame.header(), frame.payload

    def send_fragment(self, data: Message, *, first: bool = True, fin: bool = True) -> bytes:
        """The bytes that carry `data` as one fragment of a message: the `first`, the last (`fin`), or one in between.

        WebSocketClosed when it is too late.
        """
        return self._frame(data, first=first, fin=fin).serialize()

    def _frame(self, data: Message, *, first: bool, fin: bool) -> Frame:
        self.refuse_if_late()
        if isinstance(data, str):
            opcode, payload = Opcode.TEXT, data.encode()
        else:
            opcode, payload = Opcode.BINARY, data
        frame = Frame(opcode if first else Opcode.CONTINUATION, payload, fin)
        for extension in self._extensions:
            frame = extension.encode(frame)
        return frame

    @property
    def has_extensions(self) -> bool:
        """Whether extensions change the frames: to send a large message then takes long."""
        return bool(self._extensions)

    def share_compression(self) -> SharedCompression | None:
        """Let frames of `deflate.serialize_once()` go out between messages. Return the parameters for them.

        None where no compression was agreed: then they are not deflated. permessage-deflate is the only extension whose
        frames can be shared.
        """
        for extension in self._extensions:
            if isinstance(extension, PerMessageDeflate):
                return extension.share()
        return None

    def refuse_if_late(self) -> None:
        """Raise WebSocketClosed where no more messages can be sent."""
        if self.state is not _OPEN and self.state is not _ENDING:
            raise WebSocketClosed(self.close_code or CloseCode.ABNORMAL_CLOSURE, self.close_reason)

    def send_ping(self, payload: bytes) -> bytes:
        """The bytes of a ping that carries `payload`; ValueError for more than 125 bytes of it."""
        if len(payload) > MAX_CONTROL_PAYLOAD_BYTES:
            raise ValueError(f"a ping carries {MAX_CONTROL_PAYLOAD_BYTES} bytes at most, not {len(payload)}")
        return Frame(Opcode.PING, payload).serialize()

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> bytes:
        """The bytes that begin the closing handshake (7.1.2), or finish it where the peer began; empty once done.

        ValueError for a code that may not be sent, or a reason of more than 123 bytes.
        """
        payload = Close(code, reason).serialize()
        if self.state is State.ENDING:
            return self.answer()
        if self.state is not State.OPEN:
            return b""
        self._ended_by(code, reason)
        self._move(Event.CLOSE_SENT)
        return Frame(Opcode.CLOSE, payload).serialize()

    def answer(self) -> bytes:
        """The bytes that answer the end of the peer's side, now that its turn has come; empty for an end of stream."""
        if self.state is not State.ENDING:
            return b""
        self._move(Event.CLOSE_SENT)
        return self._answer

    def fail(self, code: int, reason: str = "") -> bytes:
        """The bytes that fail the connection (7.1.7): all that still arrives is dropped. Empty once closed.

        ValueError as for `close()`.
        """
        frame = Frame(Opcode.CLOSE, Close(code, reason).serialize())
        may_send = self.state in (State.OPEN, State.ENDING)
        self._ended_by(code, reason)
        self._move(Event.FAILED)
        return frame.serialize() if may_send else b""

    def abort(self, reason: str) -> None:
        """Move to CLOSED: the connection below is lost or given up, and nothing more can be sent."""
        self._ended_by(CloseCode.ABNORMAL_CLOSURE, reason)
        self._move(Event.FAILED)

    def _listens(self) -> bool:
        return self.state is _OPEN or self.state is _CLOSING

    def _advance_message(self) -> Message | Part | Pong | Nothing | None:
        payload = self.parser.take_message()
        if payload is None:
            return self._advance_frame()
        return decode(payload) if self.parser.is_text else payload

    def _advance_frame(self) -> Message | Part | Pong | Nothing | None:
        if not self._listens():
            return None
        frame = self.parser.next_frame()
        if frame is None:
            return None
        event = self._receive_control(frame) if frame.opcode & CONTROL_BIT else self._receive_data_frame(frame)
        return NOTHING if event is None or self.state is not State.OPEN else event

    def _receive_control(self, frame: Frame) -> Pong | None:
        if frame.opcode is Opcode.CLOSE:
            close = Close.parse(frame.payload)
            self.close_received = True
            self._peer_ended(close, frame.payload[:2])  # 5.5.1: typically echoes the code
            return None
        self.empty_frames += 1
        if frame.opcode is Opcode.PONG:
            return Pong(frame.payload)
        self.output += Frame(Opcode.PONG, frame.payload).serialize()  # 5.5.2: also behind our Close frame
        return None

    def _receive_data_frame(self, frame: Frame) -> Message | Part | None:
        event = None
        if self.state is _OPEN:  # behind our Close frame it is dropped, and need not be inflated first
            for extension in reversed(self._extensions):
                frame = extension.decode(frame)
                self.decoded_bytes += len(frame.payload)
            if self._assembler is None:
                self._assembler = Cutter() if self.streaming else Assembler()
            event = self._assembler.add(frame)
        if frame.payload:
            self.empty_frames = max(0.0, self.empty_frames - len(frame.payload))
        elif not frame.fin:
            self.empty_frames += 1
        return event

    def _refuse(self, error: ProtocolError) -> None:
        close = Close(error.close_code, cut_reason(str(error)))
        self._peer_ended(close, close.serialize())

    def _peer_ended(self, close: Close, answer: bytes | None = None) -> None:
        self._ended_by(*close)
        if answer is not None:
            self._answer = Frame(Opcode.CLOSE, answer).serialize()
        self._move(Event.PEER_ENDED)

    def _ended_by(self, code: int, reason: str) -> None:
        if self.close_code is None:  # the first cause of the end stays
            self.close_code, self.close_reason = int(code), reason

    def _move(self, event: Event) -> None:
        self.state = TRANSITIONS[self.state, event]
        if self.state is not _OPEN and self._assembler is not None:
            self._assembler.discard()
        if not self._listens():
            self.has_more = False
            self.parser.discard()
