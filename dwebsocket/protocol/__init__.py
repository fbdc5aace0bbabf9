"""RFC 6455 without input or output: bytes go in, bytes come out.

Nothing here knows a socket, a thread, a clock, a source of randomness or Django: time, random bytes and limits
come in as arguments. Imports point down this list only:

    endpoint    states, control frames, the closing handshake
    deflate     permessage-deflate (RFC 7692)
    extensions  the interface of an extension
    messages    frames → messages, UTF-8 checked as it arrives
    parser      bytes → frames
    frames      one frame, written
    masking     the XOR of section 5.3
    handshake   the opening handshake, server side
    exceptions  everything that can go wrong
    codes       opcodes and close codes
"""

from .masking import COMPILED

__all__ = ["COMPILED"]
