"""Frames → messages: fragments are put together, text is checked while it arrives (5.4, 8.1)."""

from __future__ import annotations

import codecs
from typing import NamedTuple

from .codes import Opcode
from .exceptions import InvalidPayload
from .frames import Frame

#: A message as a view gets it: text or binary.
Message = str | bytes

_NOT_UTF8 = "text is not UTF-8"


def as_message(message: object) -> Message:
    """Return str as it is, and bytes-like as bytes. TypeError for anything else."""
    if isinstance(message, str):
        return message
    try:
        return bytes(memoryview(message))  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(
            f"a message is str or bytes-like, not {type(message).__name__} (send_json() sends others)"
        ) from None


class Part(NamedTuple):
    """A part of a message: `data`, as it arrived; `fin` marks the last part."""

    data: Message
    fin: bool


class Cutter:
    """Turns the data frames of the parser into parts of messages, whatever their size."""

    __slots__ = ("_decoder", "_in_message")

    def __init__(self) -> None:
        self._in_message = False
        self._decoder: codecs.IncrementalDecoder | None = None

    def add(self, frame: Frame) -> Part | None:
        """Return the part of the message in `frame`; None for an empty frame in the middle of it.

        InvalidPayload (1007) at the first byte that cannot be UTF-8.
        """
        begins, self._in_message = not self._in_message, not frame.fin
        if begins:
            self._decoder = _decoder() if frame.opcode is Opcode.TEXT else None
        data: Message = frame.payload
        if self._decoder is not None:
            data = _decode(self._decoder, frame.payload, final=frame.fin)
        return Part(data, frame.fin) if data or begins or frame.fin else None

    def discard(self) -> None:
        """Drop the incomplete message."""
        self._decoder = None


class Assembler:
    """Puts the data frames of the parser together to messages."""

    __slots__ = ("_decoder", "_parts", "_text")

    def __init__(self) -> None:
        self._parts: bytearray | None = None  # the frames so far of an incomplete message
        self._text = False
        self._decoder: codecs.IncrementalDecoder | None = None

    def add(self, frame: Frame) -> Message | None:
        """The message that `frame` completes, or None. InvalidPayload (1007) at the first byte that cannot be UTF-8."""
        if self._parts is None:
            self._text = frame.opcode is Opcode.TEXT
            if frame.fin:
                return self._complete(frame.payload)
            self._parts = bytearray()
            if self._text:
                self._decoder = _decoder()
        if self._decoder is not None and not frame.fin:
            _decode(self._decoder, frame.payload)
        self._parts += frame.payload
        if not frame.fin:
            return None
        # The decoder only checks an incomplete message. A bytearray holds a byte of a slow peer in a byte, while
        # decoded pieces in a list would cost fifty times that.
        message = self._complete(self._parts)
        self._parts = self._decoder = None
        return message

    def discard(self) -> None:
        """Drop the incomplete message."""
        self._parts = self._decoder = None

    def _complete(self, payload: bytes | bytearray) -> Message:
        return decode(bytes(payload)) if self._text else bytes(payload)


def decode(payload: bytes) -> str:
    """The text in the whole `payload` of a message; InvalidPayload (1007) where it is not UTF-8."""
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise InvalidPayload(_NOT_UTF8) from None


def _decoder() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")()


def _decode(decoder: codecs.IncrementalDecoder, payload: bytes, *, final: bool = False) -> str:
    try:
        text = decoder.decode(payload, final)
    except UnicodeDecodeError:
        raise InvalidPayload(_NOT_UTF8) from None
    pending = decoder.getstate()[0]
    if pending[:1] == b"\xed" and pending[1:2] >= b"\xa0":  # a surrogate, which Python judges a byte later
        raise InvalidPayload(_NOT_UTF8)
    return text
