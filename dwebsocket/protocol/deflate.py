"""permessage-deflate (RFC 7692): the agreement, and the extension that carries it out."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .codes import Opcode
from .exceptions import InvalidPayload, MessageTooBig, PolicyViolation
from .frames import Frame
from .handshake import Offer
from .messages import Message

NAME = "permessage-deflate"
_MAX_WINDOW_BITS = 15
_MIN_WINDOW_BITS = 9  # zlib compresses with no smaller window, though the RFC knows 8
_RANGES = {
    "server_max_window_bits": (_MIN_WINDOW_BITS, _MAX_WINDOW_BITS),
    "client_max_window_bits": (8, _MAX_WINDOW_BITS),
    "level": (-1, 9),
    "mem_level": (1, 9),
    "min_size": (0, sys.maxsize),
}
_TAIL = b"\x00\x00\xff\xff"  # 7.2.1: it ends every message and is not sent
_EMPTY = b"\x00"  # 7.2.3.6: an empty block without its tail
_PIECE_BYTES = 4 * 1024  # one call inflates no more: at the end of a stream, zlib copies the rest of its input
#: 7.2.3.5: a peer may end its stream inside a message, and begin another. Each costs some 2 µs, and an empty one is two
#: bytes on the wire: a flood. So a message may have 64, and one more for each kilobyte that it inflates to.
_FREE_STREAMS = 64
_BYTES_PER_STREAM = 1024


@dataclass(frozen=True, kw_only=True)
class Compression:
    """The wishes of this side. Less context and smaller windows cost less memory and compress worse."""

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int = _MAX_WINDOW_BITS
    client_max_window_bits: int = _MAX_WINDOW_BITS
    level: int = zlib.Z_DEFAULT_COMPRESSION
    mem_level: int = zlib.DEF_MEM_LEVEL
    min_size: int = 0

    def __post_init__(self) -> None:
        for name in ("server_no_context_takeover", "client_no_context_takeover"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be True or False")
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise ValueError(f"{name} is {value!r}; it must be a whole number from {low} to {high}")


class Agreement(NamedTuple):
    """The parameters that both sides are bound to."""

    server_no_context_takeover: bool
    client_no_context_takeover: bool
    server_max_window_bits: int
    client_max_window_bits: int
    says_client_bits: bool

    def header(self) -> str:
        """The element of Sec-WebSocket-Extensions that accepts the offer (5.1)."""
        said = [NAME]
        said += ["server_no_context_takeover"] * self.server_no_context_takeover
        said += ["client_no_context_takeover"] * self.client_no_context_takeover
        if self.server_max_window_bits < _MAX_WINDOW_BITS:
            said.append(f"server_max_window_bits={self.server_max_window_bits}")
        if self.says_client_bits:
            said.append(f"client_max_window_bits={self.client_max_window_bits}")
        return "; ".join(said)


class SharedCompression(NamedTuple):
    """The parameters by which one message is deflated once for many connections; the same for all of them."""

    server_max_window_bits: int
    level: int
    mem_level: int
    min_size: int


def serialize_once(message: Message, shared: SharedCompression | None) -> bytes:
    """The unmasked frame that carries `message` whole, for every connection that shares this compression.

    It is deflated without the context of earlier messages: 7.2.1 leaves that to the sender, whatever was agreed. Not
    deflated where it has fewer than `min_size` bytes, or `shared` is None.
    """
    frame = Frame(Opcode.TEXT, message.encode()) if isinstance(message, str) else Frame(Opcode.BINARY, message)
    if shared is not None and not _is_too_small(frame.payload, shared.min_size):
        deflater = _deflater(shared.level, shared.server_max_window_bits, shared.mem_level)
        frame = frame._replace(payload=_finish(deflater, deflater.compress(frame.payload)), rsv1=True)
    return frame.serialize()


def agree(offers: Sequence[Offer], wanted: Compression) -> Agreement | None:
    """Accept the first offer that can be accepted (7.1); None when there is none."""
    for offer in offers:
        if offer.name == NAME and (agreement := _accept(offer, wanted)) is not None:
            return agreement
    return None


class PerMessageDeflate:
    """Compresses and decompresses the data frames of one connection, as a server (7.2).

    No more than `max_message_size` bytes are ever inflated for one message: a bomb goes off at that size, not after.
    A message of many finished streams with nearly no content is cut off, too.
    """

    uses_rsv1 = True

    def __init__(self, agreement: Agreement, compression: Compression, *, max_message_size: int | None = None) -> None:
        self._agreement = agreement
        self._compression = compression
        self._max_message_size = max_message_size
        self._deflater: zlib._Compress | None = None
        self._inflater: zlib._Decompress | None = None
        self._inflating = self._deflating = False  # the present incoming, and outgoing, message is compressed
        self._inflated = 0  # bytes so far of the incoming message
        self._streams = 0  # streams that have ended inside it
        self._sending = False  # an outgoing message has begun and not ended
        self._is_shared = False  # frames from elsewhere go out between our messages

    def share(self) -> SharedCompression:
        """Let frames of `serialize_once()` go out between messages. Return the parameters for them.

        From now on each message begins without the context of those before it. The peer's window has what it inflated
        last, and that may have been such a frame. A message that has begun may go on, for they do not come inside it.
        """
        self._is_shared = True
        return SharedCompression(
            self._agreement.server_max_window_bits,
            self._compression.level,
            self._compression.mem_level,
            self._compression.min_size,
        )

    def wire_size(self, message_size: int) -> int:
        """Return the size, and an eighth more: incompressible data grows, but by less than that in any deflate."""
        return message_size + message_size // 8 + 64

    def decode(self, frame: Frame) -> Frame:
        """Inflate the frame.

        InvalidPayload (1007) for data that is no deflate stream, MessageTooBig (1009) for a bomb, PolicyViolation
        (1008) for far more streams than content.
        """
        if frame.rsv1:
            self._inflating = True
            self._inflated = self._streams = 0
        if not self._inflating:
            return frame
        payload = self._inflate(frame.payload + _TAIL if frame.fin else frame.payload)
        if frame.fin:
            self._inflating = False
            if self._agreement.client_no_context_takeover:
                self._inflater = None
        return frame._replace(payload=payload, rsv1=False)

    def encode(self, frame: Frame) -> Frame:
        """Deflate the frame, unless it is a whole message of fewer than `min_size` bytes."""
        begins = not self._sending
        if begins:
            self._deflating = not (frame.fin and _is_too_small(frame.payload, self._compression.min_size))
            if self._is_shared:
                self._deflater = None
        self._sending = not frame.fin
        if not self._deflating:
            return frame
        return frame._replace(payload=self._deflate(frame.payload, fin=frame.fin), rsv1=begins)

    def _inflate(self, data: bytes) -> bytes:
        parts = []
        rest: bytes | memoryview = data if len(data) <= _PIECE_BYTES else memoryview(data)
        while rest:
            if self._inflater is None:
                if rest == _TAIL:  # we have added it, and the peer sent no block before it
                    break
                self._inflater = zlib.decompressobj(-self._agreement.client_max_window_bits)
            limit = 0  # means no limit
            if self._max_message_size is not None:
                limit = self._max_message_size - self._inflated + 1
            piece = rest[:_PIECE_BYTES]
            try:
                part = self._inflater.decompress(piece, limit)
            except zlib.error:
                raise InvalidPayload("compressed data is corrupt") from None
            self._inflated += len(part)
            if limit and len(part) == limit:
                raise MessageTooBig(f"message of more than {self._max_message_size} bytes")
            parts.append(part)
            taken = len(piece)
            if self._inflater.eof:
                taken -= len(self._inflater.unused_data)
                self._end_stream()
            rest = rest[taken:]
        return b"".join(parts)

    def _end_stream(self) -> None:
        self._inflater = None
        self._streams += 1
        if self._streams > _FREE_STREAMS + self._inflated // _BYTES_PER_STREAM:
            raise PolicyViolation("too many deflate streams in one message")

    def _deflate(self, data: bytes, *, fin: bool) -> bytes:
        if self._deflater is None:
            self._deflater = _deflater(
                self._compression.level, self._agreement.server_max_window_bits, self._compression.mem_level
            )
        deflated = self._deflater.compress(data)
        if not fin:
            return deflated
        deflated = _finish(self._deflater, deflated)
        if self._agreement.server_no_context_takeover or self._is_shared:
            self._deflater = None
        return deflated


def _is_too_small(payload: bytes, min_size: int) -> bool:
    return len(payload) < max(1, min_size)


def _deflater(level: int, window_bits: int, mem_level: int) -> zlib._Compress:
    return zlib.compressobj(level, zlib.DEFLATED, -window_bits, mem_level)


def _finish(deflater: zlib._Compress, deflated: bytes) -> bytes:
    """The rest of a message whose last bytes `deflater` has got (7.2.1)."""
    deflated += deflater.flush(zlib.Z_SYNC_FLUSH)
    # zlib flushes nothing twice: where the last fragment was empty, there may be no tail to take off
    return deflated.removesuffix(_TAIL) or _EMPTY


_FLAGS = ("server_no_context_takeover", "client_no_context_takeover")
_WINDOW_BITS = {str(bits): bits for bits in range(8, _MAX_WINDOW_BITS + 1)}  # 7.1.2: decimal, without leading zeroes


def _accept(offer: Offer, wanted: Compression) -> Agreement | None:
    parameters = dict(offer.parameters)
    if len(parameters) != len(offer.parameters):  # 7.1: one comes twice
        return None
    if not all(_is_valid(name, value) for name, value in offer.parameters):
        return None
    server_bits = _WINDOW_BITS[parameters.get("server_max_window_bits") or str(_MAX_WINDOW_BITS)]
    client_bits = _WINDOW_BITS[parameters.get("client_max_window_bits") or str(_MAX_WINDOW_BITS)]
    if server_bits < _MIN_WINDOW_BITS:
        return None
    # 7.1.2.2: the client's window may only be limited where the client's offer allows it
    says_client_bits = "client_max_window_bits" in parameters
    return Agreement(
        server_no_context_takeover="server_no_context_takeover" in parameters or wanted.server_no_context_takeover,
        client_no_context_takeover="client_no_context_takeover" in parameters or wanted.client_no_context_takeover,
        server_max_window_bits=min(server_bits, wanted.server_max_window_bits),
        client_max_window_bits=min(client_bits, wanted.client_max_window_bits) if says_client_bits else client_bits,
        says_client_bits=says_client_bits,
    )


def _is_valid(name: str, value: str | None) -> bool:
    """Whether the parameter exists and its value is allowed (7.1.1, 7.1.2)."""
    if name in _FLAGS:
        return value is None
    if name == "client_max_window_bits" and value is None:
        return True
    return name in ("server_max_window_bits", "client_max_window_bits") and value in _WINDOW_BITS
