"""Opcodes and close codes, by the names of the IANA registries."""

from __future__ import annotations

import enum


class Opcode(enum.IntEnum):
    """The opcodes of section 5.2 (RFC 6455, 11.8)."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


#: The opcodes that a frame's first byte may name; all others are reserved. Control frames have the high bit set (5.5).
OPCODES = {opcode.value: opcode for opcode in Opcode}
CONTROL_BIT = 0x8


class CloseCode(enum.IntEnum):
    """The close codes of section 7.4.1 and of the IANA registry that continues it."""

    NORMAL_CLOSURE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS_RCVD = 1005
    ABNORMAL_CLOSURE = 1006
    INVALID_FRAME_PAYLOAD_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014
    TLS_HANDSHAKE = 1015


#: These are only ever reported to the application; no Close frame may carry them (7.4.1).
NEVER_SENT = frozenset({CloseCode.NO_STATUS_RCVD, CloseCode.ABNORMAL_CLOSURE, CloseCode.TLS_HANDSHAKE})

_REGISTERED = frozenset(CloseCode) - NEVER_SENT
_LIBRARIES_AND_APPLICATIONS = range(3000, 5000)  # 7.4.2


_OWN_CODES = 4000  # 7.4.2: from here on a code is the application's to define; the status of HTTP comes on top


def close_code_for(status_code: int) -> int:
    """The close code that says what an HTTP status says: 4403 for 403, 1011 for every status from 500 on."""
    return CloseCode.INTERNAL_ERROR if status_code >= 500 else _OWN_CODES + status_code


def may_be_sent(code: int) -> bool:
    """Whether a Close frame may carry `code` (7.4)."""
    return code in _REGISTERED or code in _LIBRARIES_AND_APPLICATIONS
