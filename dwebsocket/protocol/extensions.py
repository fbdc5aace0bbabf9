"""The interface of an extension (section 9): it sees every data frame on its way in and out."""

from __future__ import annotations

from typing import Protocol

from .frames import Frame


class Extension(Protocol):
    """One negotiated extension. The first one of a connection that claims rsv1 owns it."""

    #: Whether frames of this extension may have rsv1 set (5.2).
    uses_rsv1: bool

    def wire_size(self, message_size: int) -> int:
        """The most bytes that a message of `message_size` bytes takes on the wire."""
        ...  # pragma: no cover

    def decode(self, frame: Frame) -> Frame:
        """The data frame as the peer's application meant it; ProtocolError where the extension's rules are broken."""
        ...  # pragma: no cover

    def encode(self, frame: Frame) -> Frame:
        """The data frame as it goes out on the wire."""
        ...  # pragma: no cover
