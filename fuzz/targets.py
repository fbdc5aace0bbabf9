"""What the fuzzer runs: each target takes bytes, and fails an assertion where the protocol does what it must not."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from dwebsocket.protocol import deflate, handshake
from dwebsocket.protocol.codes import CloseCode, Opcode, may_be_sent
from dwebsocket.protocol.endpoint import Endpoint, Pong, State
from dwebsocket.protocol.exceptions import HandshakeError, InvalidPayload, MessageTooBig, PolicyViolation
from dwebsocket.protocol.frames import Frame
from dwebsocket.protocol.messages import Part

KEY = b"\x01\x80\xff\x42"
TAIL = b"\x00\x00\xff\xff"
OURS = {
    CloseCode.PROTOCOL_ERROR,
    CloseCode.INVALID_FRAME_PAYLOAD_DATA,
    CloseCode.POLICY_VIOLATION,
    CloseCode.MESSAGE_TOO_BIG,
}
LIMITS = [1, 64, 1000, 1 << 20]


class Source:
    """The fuzzer's bytes, taken from the front as numbers and pieces; zeros when they have run out."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def __bool__(self) -> bool:
        return self._position < len(self._data)

    def byte(self) -> int:
        taken = self.take(1)
        return taken[0] if taken else 0

    def choose(self, options: list[Any]) -> Any:
        return options[self.byte() % len(options)]

    def take(self, size: int) -> bytes:
        taken = self._data[self._position : self._position + size]
        self._position += size
        return taken

    def rest(self) -> bytes:
        return self.take(len(self._data))


# The endpoint: bytes from a peer


def endpoint(data: bytes) -> None:
    """A stream gives the same messages, answers and end however it is cut, and what a plain reading of it gives."""
    source = Source(data)
    limit = source.choose(LIMITS)
    streaming = bool(source.byte() & 1)
    compression = source.choose([None, None, *AGREEMENTS])
    pieces = [1 + source.byte() for _ in range(1 + source.byte() % 4)]
    stream = b"".join(frames(source)) if source.byte() & 1 else source.rest()

    def new() -> Endpoint:
        extensions = []
        if compression is not None and not streaming:
            extensions = [deflate.PerMessageDeflate(compression, deflate.Compression(), max_message_size=limit)]
        made = Endpoint(max_message_size=limit, extensions=extensions, streaming=streaming)
        made.accepted()
        return made

    whole = outcome(new(), [stream])
    for pieces_of_one in (pieces, [1]):
        assert told(outcome(new(), cut(stream, pieces_of_one)), compression) == told(whole, compression)
    check(whole, None if streaming else limit)
    if compression is None and not streaming:
        plain = reading(stream, limit)
        assert whole.messages == plain.messages
        assert whole.code == plain.code or (plain.code is None and whole.code in OURS), "the rest was no whole frame"


def frames(source: Source) -> Iterator[bytes]:
    """Frames that are mostly right, as the bytes say."""
    while source:
        kind, size = source.byte(), source.byte()
        opcode = source.choose([0, 1, 2, 0, 1, 2, 8, 9, 10, source.byte() & 15])
        payload = source.take(size) if kind & 1 else bytes([size]) * (size * 5)
        if opcode >= 8:
            payload = payload[: 125 if kind & 2 else 130]
        first = opcode | (0 if kind & 4 and opcode < 8 else 0x80) | (0x40 if kind & 24 == 24 else 0)
        length = len(payload) if kind & 224 else source.byte()
        wide = {0: 1, 1: 2, 2: 8}[source.byte() % 3] if kind & 224 == 32 else 1 if length < 126 else 2
        mask = 0 if kind & 224 == 64 and size == 77 else 0x80
        head = {1: bytes([mask | min(length, 125)]), 2: bytes([mask | 126]), 8: bytes([mask | 127])}[wide]
        yield bytes([first]) + head + (b"" if wide == 1 else length.to_bytes(wide, "big")) + KEY
        yield bytes(byte ^ KEY[index % 4] for index, byte in enumerate(payload))


def cut(stream: bytes, pieces: list[int]) -> Iterator[bytes]:
    position, turn = 0, 0
    while position < len(stream):
        yield stream[position : position + pieces[turn % len(pieces)]]
        position += pieces[turn % len(pieces)]
        turn += 1


class Outcome(NamedTuple):
    """What came of a stream."""

    messages: list[tuple[str | bytes, bool]]  # all complete: True
    pongs: list[bytes]
    sent: bytes
    code: int | None
    reason: str
    answer: bytes


def outcome(endpoint: Endpoint, pieces: Iterable[bytes]) -> Outcome:
    messages: list[tuple[Any, bool]] = []
    pongs: list[bytes] = []
    sent = b""
    for piece in pieces:
        for event in endpoint.receive_data(piece):
            if isinstance(event, Pong):
                pongs.append(event.payload)
            elif not isinstance(event, Part):
                messages.append((event, True))
            elif messages and not messages[-1][1]:
                messages[-1] = (messages[-1][0] + event.data, event.fin)
            else:
                messages.append((event.data, event.fin))
        sent += endpoint.data_to_send()
    assert endpoint.state in (State.OPEN, State.ENDING)
    code, reason = endpoint.close_code, endpoint.close_reason
    assert (code is not None) == (endpoint.state is State.ENDING)
    assert endpoint.receive_data(b"\x81\x80abcd" if code is not None else b"") == [], "something came after the end"
    if messages and not messages[-1][1]:
        messages.pop()  # how much of it was given before the end depends on the pieces
    return Outcome(messages, pongs, sent, code, reason, endpoint.answer())


def told(result: Outcome, compression: object) -> object:
    """What must not depend on the pieces: of two faults in one compressed fragment either may be told."""
    either = compression is not None and result.code in OURS
    return result._replace(code=0, reason="", answer=b"") if either else result


def check(result: Outcome, limit: int | None) -> None:
    for message, complete in result.messages:
        size = len(message.encode()) if isinstance(message, str) else len(message)
        assert limit is None or (complete and size <= limit)
    if result.code is not None:
        assert may_be_sent(result.code) or result.code == CloseCode.NO_STATUS_RCVD
        assert result.answer[0] == 0x88
        assert result.answer[1] == len(result.answer) - 2 <= 125
        if len(result.answer) > 2:
            assert may_be_sent(int.from_bytes(result.answer[2:4], "big"))
            result.answer[4:].decode()
    else:
        assert result.answer == b""


class Reading(NamedTuple):
    messages: list[tuple[str | bytes, bool]]
    code: int | None


def reading(stream: bytes, limit: int) -> Reading:
    """What RFC 6455 says of the whole frames in `stream`, read in the simplest way."""
    messages: list[tuple[str | bytes, bool]] = []
    opcode, gathered = None, b""
    while len(stream) >= 2:
        fin, rsv, op = stream[0] >> 7, stream[0] >> 4 & 7, stream[0] & 15
        size, at = stream[1] & 127, 2
        if rsv or op not in (0, 1, 2, 8, 9, 10) or not stream[1] >> 7:
            return Reading(messages, 1002)
        if op >= 8 and (not fin or size > 125):
            return Reading(messages, 1002)
        if op < 8 and (op == 0) != (opcode is not None):
            return Reading(messages, 1002)
        if size > 125:
            at = 4 if size == 126 else 10
            if len(stream) < at:
                break
            least, size = (126 if size == 126 else 1 << 16), int.from_bytes(stream[2:at], "big")
            if size < least or size >> 63:
                return Reading(messages, 1002)
        if op < 8 and len(gathered) + size > limit:
            return Reading(messages, 1009)
        if len(stream) < at + 4 + size:
            break
        key, payload = stream[at : at + 4], stream[at + 4 : at + 4 + size]
        payload = bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))
        stream = stream[at + 4 + size :]
        if op == 8:
            return Reading(messages, close_code(payload))
        if op > 8:
            continue
        opcode = op or opcode
        gathered += payload
        if opcode == 1 and not is_text(gathered, bool(fin)):
            return Reading(messages, 1007)
        if fin:
            messages.append((gathered.decode() if opcode == 1 else gathered, True))
            opcode, gathered = None, b""
    return Reading(messages, None)


def close_code(payload: bytes) -> int:
    if not payload:
        return 1005
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or not (code in (*range(1000, 1004), *range(1007, 1015)) or 3000 <= code <= 4999):
        return 1002
    return code if is_text(payload[2:], True) else 1007


def is_text(data: bytes, complete: bool) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return not complete and error.reason == "unexpected end of data"
    return True


# The opening handshake: a request from a client


HEADERS = [
    ("upgrade", ["websocket", "WebSocket, h2c", "", "websocke"]),
    ("connection", ["Upgrade", "keep-alive, upgrade", "close"]),
    ("sec-websocket-version", ["13", "8", "13, 8", ""]),
    ("sec-websocket-key", ["dGhlIHNhbXBsZSBub25jZQ==", "AAAA", "", "dGhlIHNhbXBsZSBub25jZR=="]),
    ("host", ["example.com", ""]),
    ("sec-websocket-protocol", ["chat", "chat, superchat", "a,,b", "a b"]),
    (
        "sec-websocket-extensions",
        [
            "permessage-deflate",
            "permessage-deflate; client_max_window_bits; server_max_window_bits=10",
            'permessage-deflate; client_max_window_bits="9", x; a=b',
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover=1",
            "permessage-deflate; server_max_window_bits=8, permessage-deflate",
        ],
    ),
    ("content-length", ["0", "5"]),
    ("transfer-encoding", ["chunked"]),
]
STATUSES = {400, 426}


def opening(data: bytes) -> None:
    """A handshake is refused with a status and a sentence, or answered with what the RFC and the offer allow."""
    source = Source(data)
    method = source.choose(["GET", "GET", "GET", "POST", ""])
    version = source.choose(["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", ""])
    headers = {}
    for name, values in HEADERS[: None if source.byte() & 1 else 7]:
        kind = source.byte()
        if kind & 7 == 7:
            headers[name] = source.take(source.byte()).decode("latin-1")
        elif kind & 7 != 6:
            headers[name] = values[0 if kind & 7 < 4 else (kind >> 3) % len(values)]
    supported = source.choose([[], ["chat"], ["superchat", "chat"]])
    try:
        found = handshake.read(handshake.Request(method, version, headers))
    except HandshakeError as error:
        assert error.status_code in STATUSES
        assert str(error)
        assert all(value.isprintable() for value in error.headers.values())
        return
    assert method == "GET"
    assert version == "HTTP/1.1"
    assert len(base64.b64decode(found.key)) == 16
    chosen = handshake.choose_subprotocol(found.subprotocols, supported)
    assert chosen is None or (chosen in supported and chosen in found.subprotocols)
    wanted = deflate.Compression(
        server_no_context_takeover=bool(source.byte() & 1),
        client_no_context_takeover=bool(source.byte() & 1),
        server_max_window_bits=9 + source.byte() % 7,
        client_max_window_bits=8 + source.byte() % 8,
    )
    agreement = deflate.agree(found.extensions, wanted)
    agreed = [] if agreement is None else [agreement.header()]
    lines = found.response(chosen, extensions=agreed).decode("latin-1").split("\r\n")
    assert lines[-2:] == ["", ""]
    assert all(line.isascii() and line.isprintable() for line in lines)
    token = hashlib.sha1((found.key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
    assert f"Sec-WebSocket-Accept: {base64.b64encode(token).decode()}" in lines
    if agreement is not None:
        assert any(is_legal(agreement, dict(offer.parameters)) for offer in found.extensions)


def is_legal(agreement: deflate.Agreement, offered: dict[str, str | None]) -> bool:
    """Whether RFC 7692, 7.1 lets a server answer the offer so."""
    if "server_no_context_takeover" in offered and not agreement.server_no_context_takeover:
        return False
    if agreement.server_max_window_bits > int(offered.get("server_max_window_bits") or 15):
        return False
    if agreement.says_client_bits and "client_max_window_bits" not in offered:
        return False
    return agreement.client_max_window_bits <= int(offered.get("client_max_window_bits") or 15)


# Compression: deflated messages from a peer, and back


AGREEMENTS = [
    deflate.Agreement(False, False, 15, 15, False),
    deflate.Agreement(True, True, 15, 15, False),
    deflate.Agreement(False, False, 9, 9, True),
    deflate.Agreement(True, False, 12, 15, True),
    deflate.Agreement(False, True, 15, 10, True),
]


def inflate(data: bytes) -> None:
    """Nothing is inflated beyond the limit, nothing but two errors comes of it, and what goes out comes back."""
    source = Source(data)
    agreement = source.choose(AGREEMENTS)
    limit = source.choose(LIMITS)
    level = source.byte() % 10
    if source.byte() & 1:
        round_trip(source, agreement, deflate.Compression(level=level, min_size=source.byte()))
    else:
        hostile(source, agreement, limit)


def hostile(source: Source, agreement: deflate.Agreement, limit: int) -> None:
    extension = deflate.PerMessageDeflate(agreement, deflate.Compression(), max_message_size=limit)
    size, starts, compressed = 0, True, False
    while source:
        kind, length = source.byte(), source.byte()
        payload = source.take(length)
        fin = bool(kind & 1)
        if kind & 6 == 6:  # as a peer deflates it
            deflater = zlib.compressobj(wbits=-max(agreement.client_max_window_bits, 9))
            ended = zlib.Z_FINISH if kind & 8 else zlib.Z_SYNC_FLUSH
            payload = (deflater.compress(payload * (1 + kind * 8)) + deflater.flush(ended)).removesuffix(TAIL)
        if starts:
            size, compressed = 0, not kind & 16
        opcode = Opcode.BINARY if starts else Opcode.CONTINUATION
        try:
            frame = extension.decode(Frame(opcode, payload, fin, starts and compressed))
        except (InvalidPayload, MessageTooBig, PolicyViolation):
            return
        size += len(frame.payload)
        if compressed:
            assert size <= limit
        else:
            assert frame.payload == payload
        starts = fin


def round_trip(source: Source, agreement: deflate.Agreement, compression: deflate.Compression) -> None:
    ours = deflate.PerMessageDeflate(agreement, compression)
    mirrored = agreement._replace(
        client_no_context_takeover=agreement.server_no_context_takeover,
        client_max_window_bits=agreement.server_max_window_bits,
    )
    theirs = deflate.PerMessageDeflate(mirrored, compression)
    plain = zlib.decompressobj(-agreement.server_max_window_bits)
    sent = received = inflated = b""
    compressed, starts = False, True
    while source:
        kind, length = source.byte(), source.byte()
        payload, fin = source.take(length) * (1 + kind % 50), bool(kind & 1)
        out = ours.encode(Frame(Opcode.BINARY if starts else Opcode.CONTINUATION, payload, fin))
        assert starts or not out.rsv1
        compressed = out.rsv1 if starts else compressed
        sent += payload
        received += theirs.decode(out).payload
        inflated += plain.decompress(out.payload + (TAIL if fin else b"")) if compressed else out.payload
        if fin and agreement.server_no_context_takeover:
            plain = zlib.decompressobj(-agreement.server_max_window_bits)
        starts = fin
        if fin:
            assert sent == received == inflated


TARGETS: dict[str, Callable[[bytes], None]] = {"endpoint": endpoint, "handshake": opening, "inflate": inflate}
