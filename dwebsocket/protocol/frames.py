"""One frame of section 5.2, written; the payload of a Close frame, read and written."""

from __future__ import annotations

import struct
from typing import NamedTuple

try:
    import cython
except ImportError:
    from .. import _compiled as cython

from .codes import NEVER_SENT, CloseCode, Opcode, may_be_sent
from .exceptions import InvalidPayload, ProtocolError
from .masking import apply_mask

FIN, RSV1, RSV2, RSV3 = 0x80, 0x40, 0x20, 0x10
MASK = 0x80
MAX_CONTROL_PAYLOAD_BYTES = 125  # 5.5
MAX_CLOSE_REASON_BYTES = MAX_CONTROL_PAYLOAD_BYTES - 2

_FIN_TEXT = FIN | Opcode.TEXT
_LENGTH_16, _LENGTH_64 = 126, 127  # 5.2: the 7 bits have this value when 16 or 64 bits of length follow


def serialize(first: int, payload: bytes) -> bytes:
    """The unmasked frame that begins with the byte `first`, which tells fin, the reserved bits and the opcode."""
    if cython.compiled:
        return framed(first, payload, len(payload))  # type: ignore # noqa: F821
    return _header(first, 0, len(payload)) + payload


def serialize_text(text: str) -> bytes:
    """The unmasked frame that carries `text` as a whole message."""
    if cython.compiled:
        return framed_text(_FIN_TEXT, text)  # type: ignore # noqa: F821
    payload = text.encode()
    return _header(_FIN_TEXT, 0, len(payload)) + payload


class Frame(NamedTuple):
    """One frame: `opcode`, `payload` (unmasked bytes), `fin`, `rsv1`."""

    opcode: Opcode
    payload: bytes
    fin: bool = True
    rsv1: bool = False

    def serialize(self, masking_key: bytes | None = None) -> bytes:
        """The frame as bytes, its length in the shortest form; masked when `masking_key` (4 bytes) is given."""
        if masking_key is None:
            return serialize(self._first(), bytes(self.payload))
        return _header(self._first(), MASK, len(self.payload)) + masking_key + apply_mask(self.payload, masking_key)

    def header(self) -> bytes:
        """The bytes before an unmasked payload."""
        return _header(self._first(), 0, len(self.payload))

    def _first(self) -> int:
        return self.opcode | (FIN if self.fin else 0) | (RSV1 if self.rsv1 else 0)


def _header(first: int, mask_bit: int, size: int) -> bytes:
    if size < _LENGTH_16:
        return bytes((first, mask_bit | size))
    if size < 1 << 16:
        return struct.pack("!BBH", first, mask_bit | _LENGTH_16, size)
    return struct.pack("!BBQ", first, mask_bit | _LENGTH_64, size)


def cut_reason(text: str) -> str:
    """As much of `text` as fits into a Close frame."""
    return text.encode(errors="replace")[:MAX_CLOSE_REASON_BYTES].decode(errors="ignore")


class Close(NamedTuple):
    """The content of a Close frame (5.5.1): `code`, and `reason` as text."""

    code: int
    reason: str = ""

    @classmethod
    def checked(cls, code: int, reason: str) -> Close:
        """A Close that may be sent. TypeError for a reason that is no str, ValueError as for `serialize()`."""
        if not hasattr(reason, "encode"):  # a lazy translation has it
            raise TypeError(f"a close reason is str, not {type(reason).__name__}")
        close = cls(code, reason)
        close.serialize()
        return close

    @classmethod
    def parse(cls, payload: bytes) -> Close:
        """The code and reason in `payload`; 1005 when it is empty.

        ProtocolError (1002) for one byte, or a code that may not be sent; InvalidPayload (1007) for a reason that is
        not UTF-8.
        """
        if not payload:
            return cls(CloseCode.NO_STATUS_RCVD)
        if len(payload) == 1:
            raise ProtocolError("close frame with half a code")
        code = int.from_bytes(payload[:2], "big")
        if not may_be_sent(code):
            raise ProtocolError(f"close code {code} may not be sent")
        try:
            return cls(code, payload[2:].decode())
        except UnicodeDecodeError:
            raise InvalidPayload("close reason is not UTF-8") from None

    def serialize(self) -> bytes:
        """The payload of the Close frame that says this.

        ValueError for a code that may not be sent, or a reason of more than 123 bytes.
        """
        if not may_be_sent(self.code):
            why = "is only ever reported, never sent" if self.code in NEVER_SENT else "is not a close code"
            raise ValueError(f"{self.code} {why}: use 1000, another registered code, or 3000 to 4999")
        reason = self.reason.encode()
        if len(reason) > MAX_CLOSE_REASON_BYTES:
            raise ValueError(f"close reason of {len(reason)} bytes: at most {MAX_CLOSE_REASON_BYTES} fit")
        return self.code.to_bytes(2, "big") + reason
