"""Bytes → frames (section 5), as a server reads them."""

from __future__ import annotations

import sys

from .codes import CONTROL_BIT, OPCODES, Opcode
from .exceptions import MessageTooBig, ProtocolError
from .frames import FIN, MASK, MAX_CONTROL_PAYLOAD_BYTES, RSV1, RSV2, RSV3, Frame
from .masking import blank, unmask, unmask_into

_KEY_BYTES = 4
_MAX_GATHERED_BYTES = 16 * 1024 * 1024  # a payload up to this size gets its memory before it arrives
#: 5.2: how many bytes of extended length follow for a 7-bit length of 126 and 127, and the least that needs them.
_EXTENDED_LENGTH = {126: (2, 126), 127: (8, 1 << 16)}
_LENGTH_16 = 126
_LONGEST_SHORT = 125  # the longest length that the 7 bits can say themselves
_LEAST_BYTES = 2 + _KEY_BYTES  # no frame from a client is shorter
_TEXT, _BINARY = Opcode.TEXT.value, Opcode.BINARY.value
_FIN, _MASK = FIN, MASK


def at_most(limit: int | None) -> int:
    """Return the limit as a C integer (Py_ssize_t); the largest one for None."""
    return sys.maxsize if limit is None else min(limit, sys.maxsize)


class Parser:
    """Gives the frames that are in the bytes fed to it.

    A header is judged as soon as it is here. A frame that breaks a rule, or announces more than `max_message_size`
    bytes for its message, is refused before its payload arrives.

    A data frame with an incomplete payload is given in parts, as an intermediary may cut it (5.4). So text can be
    checked, and a large message passed on, before it is complete. Control frames come whole. With `gather_binary`,
    binary frames do, too: no code looks at them before they are complete.

    `rsv1_allowed`: an extension was negotiated that gives rsv1 a meaning (5.2, 9.1). Messages that begin with it may
    take `max_extended_size` bytes on the wire.
    """

    __slots__ = (
        "_fin",
        "_gathered",
        "_in_frame",
        "_key",
        "_limit",
        "_message_bytes",
        "_message_open",
        "_opcode",
        "_passed",
        "_position",
        "_remaining",
        "_rsv1",
        "buffered",
        "gather_binary",
        "is_text",
        "max_extended_size",
        "max_message_size",
        "rsv1_allowed",
    )

    def __init__(
        self,
        *,
        max_message_size: int | None = None,
        rsv1_allowed: bool = False,
        max_extended_size: int | None = None,
        gather_binary: bool = False,
    ) -> None:
        self.max_message_size = at_most(max_message_size)
        self.rsv1_allowed = rsv1_allowed
        self.max_extended_size = max_extended_size
        self.gather_binary = gather_binary
        self.is_text = False  # the kind of the message that `take_message()` gave last
        self.buffered = b""  # empty when everything has been parsed
        self._position = 0  # the bytes before it have been parsed
        self._message_open = False  # the last data frame had no fin: a continuation must follow (5.4)
        self._message_bytes = 0
        self._limit: int | None = self.max_message_size
        self._in_frame = False  # the header of the next frame is parsed already; it is in the fields below
        self._opcode = Opcode.CONTINUATION
        self._fin = self._rsv1 = False
        self._key = b""
        self._remaining = 0  # bytes of its payload still to be given
        self._passed = 0  # bytes of its payload given, or gathered
        self._gathered: bytes | bytearray | None = None

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Add bytes that have arrived."""
        if self._position < len(self.buffered):
            self.buffered = self.buffered[self._position :] + data
        else:
            self.buffered = data if type(data) is bytes else bytes(data)
        self._position = 0

    def take_message(self) -> bytes | None:
        """The payload of the next message if all of it is here, in one frame; `is_text` tells its kind.

        None when there is no such frame, or it needs a closer look, which `next_frame()` takes.
        """
        octets = self.buffered
        start = self._position
        stop = len(self.buffered)
        begin = start + _LEAST_BYTES
        if begin > stop or self._in_frame or self._message_open:
            return None
        opcode = octets[start] ^ _FIN
        if opcode != _TEXT and opcode != _BINARY:
            return None
        size = octets[start + 1] ^ _MASK
        if size > _LONGEST_SHORT:
            begin += 2
            if size != _LENGTH_16 or begin > stop:
                return None
            size = octets[start + 2] << 8 | octets[start + 3]
            if size <= _LONGEST_SHORT:
                return None
        end = begin + size
        if end > stop or size > self.max_message_size:
            return None
        self.is_text = opcode == _TEXT
        payload = unmask(octets, begin, size, octets, begin - _KEY_BYTES, 0)
        self._drop_parsed(end)  # this may free the buffer that `octets` points to
        return payload

    def next_frame(self) -> Frame | None:
        """The next frame, or part of a data frame; None when more bytes are needed.

        ProtocolError (1002) or MessageTooBig (1009) for a header that breaks a rule; nothing can be parsed after that.
        """
        if not self._in_frame and not self._parse_header():
            self._keep_rest()
            return None
        available = len(self.buffered) - self._position
        if available < self._remaining:
            if self._opcode & CONTROL_BIT:
                self._keep_rest()
                return None
            if self._gathered is not None:
                self._gather(available)
                return None
            if not available:
                return None
            return self._take(available, False)
        frame = self._take(self._remaining, self._fin)
        self._in_frame = False
        return frame

    def discard(self) -> None:
        """Drop what has been fed: no more frames are wanted."""
        self.buffered = b""
        self._position = 0
        self._gathered = None

    def _keep_rest(self) -> None:
        """Copy the few bytes that wait for more: else they would keep the memory of the whole read."""
        if self._position:
            self.buffered = self.buffered[self._position :]
            self._position = 0

    def _drop_parsed(self, position: int) -> None:
        """Move on to `position`; at its end the buffer is freed, so that an idle connection holds no memory for it."""
        if position == len(self.buffered):
            self.buffered = b""
            position = 0
        self._position = position

    def _gather(self, size: int) -> None:
        unmask_into(self._gathered, self._passed, self.buffered, self._position, size, self._key)  # type: ignore[arg-type]
        self._pass_on(size)

    def _pass_on(self, size: int) -> None:
        self._remaining -= size
        self._passed += size
        self._drop_parsed(self._position + size)

    def _take(self, size: int, fin: bool) -> Frame:
        if self._gathered is not None:
            self._gather(size)
            payload, self._gathered = bytes(self._gathered), None
        else:
            payload = unmask(self.buffered, self._position, size, self._key, 0, self._passed)
            self._pass_on(size)
        frame = Frame(self._opcode, payload, fin, self._rsv1)
        if not self._opcode & CONTROL_BIT:  # the next part of this frame continues this one
            self._opcode = Opcode.CONTINUATION
            self._rsv1 = False
        return frame

    def _parse_header(self) -> bool:
        buffer = self.buffered
        start = self._position
        available = len(buffer) - start
        if not available:
            return False
        first = buffer[start]
        opcode = self._check_first_byte(first)
        if available < 2:
            return False
        second = buffer[start + 1]
        size = second & ~MASK
        if not second & MASK:
            raise ProtocolError("frame is not masked")  # 5.1
        if opcode & CONTROL_BIT and size > MAX_CONTROL_PAYLOAD_BYTES:
            raise ProtocolError("control frame too long")  # 5.5
        header_end = start + 2
        if size in _EXTENDED_LENGTH:
            length_bytes, least = _EXTENDED_LENGTH[size]
            header_end += length_bytes
            if len(buffer) < header_end:
                return False
            size = int.from_bytes(buffer[start + 2 : header_end], "big")
            if size < least:
                raise ProtocolError("length is not in its shortest form")  # 5.2
            if size >> 63:
                raise ProtocolError("length has its highest bit set")  # 5.2
        self._check_size(opcode, size, rsv1=bool(first & RSV1))
        if len(buffer) < header_end + _KEY_BYTES:
            return False
        self._key = bytes(buffer[header_end : header_end + _KEY_BYTES])
        self._drop_parsed(header_end + _KEY_BYTES)
        self._begin(opcode, size, fin=bool(first & FIN), rsv1=bool(first & RSV1))
        return True

    def _check_first_byte(self, first: int) -> Opcode:
        if first & (RSV2 | RSV3) or (first & RSV1 and not self.rsv1_allowed):
            raise ProtocolError("reserved bit set")  # 5.2
        opcode = OPCODES.get(first & 0x0F)
        if opcode is None:
            raise ProtocolError(f"reserved opcode {first & 0x0F:#x}")  # 5.2
        if opcode & CONTROL_BIT:
            if not first & FIN:
                raise ProtocolError("fragmented control frame")  # 5.5
            if first & RSV1:
                raise ProtocolError("reserved bit set on a control frame")  # RFC 7692, 6
        elif opcode is Opcode.CONTINUATION:
            if not self._message_open:
                raise ProtocolError("continuation of no message")  # 5.4
            if first & RSV1:
                raise ProtocolError("reserved bit set on a continuation")  # RFC 7692, 6.1
        elif self._message_open:
            raise ProtocolError("new message inside a fragmented one")  # 5.4
        return opcode

    def _check_size(self, opcode: Opcode, size: int, *, rsv1: bool) -> None:
        if opcode & CONTROL_BIT:
            return
        if opcode is not Opcode.CONTINUATION:
            self._limit = self.max_extended_size if rsv1 else self.max_message_size
        if self._limit is not None and self._message_bytes + size > self._limit:
            raise MessageTooBig(f"message of more than {self.max_message_size} bytes")

    def _begin(self, opcode: Opcode, size: int, *, fin: bool, rsv1: bool) -> None:
        if not opcode & CONTROL_BIT:
            self._message_open = not fin
            self._message_bytes = 0 if fin else self._message_bytes + size
        self._in_frame = True
        self._opcode, self._fin, self._rsv1 = opcode, fin, rsv1
        self._remaining, self._passed = size, 0
        if self.gather_binary and opcode is Opcode.BINARY and self._is_still_arriving(size):
            self._gathered = blank(size)

    def _is_still_arriving(self, size: int) -> bool:
        return len(self.buffered) - self._position < size <= _MAX_GATHERED_BYTES
