from __future__ import annotations

import pytest

from dwebsocket.protocol.codes import CONTROL_BIT, NEVER_SENT, OPCODES, CloseCode, Opcode, may_be_sent


def test_opcodes_are_those_of_the_registry() -> None:
    """RFC 6455, 11.8."""
    registry = {"CONTINUATION": 0, "TEXT": 1, "BINARY": 2, "CLOSE": 8, "PING": 9, "PONG": 10}

    assert {opcode.name: opcode.value for opcode in Opcode} == registry


def test_table_of_opcodes_names_the_opcode_of_each_value() -> None:
    assert OPCODES == {
        0: Opcode.CONTINUATION,
        1: Opcode.TEXT,
        2: Opcode.BINARY,
        8: Opcode.CLOSE,
        9: Opcode.PING,
        10: Opcode.PONG,
    }


def test_control_bit_is_set_in_control_opcodes_alone() -> None:
    assert [opcode for opcode in Opcode if opcode & CONTROL_BIT] == [Opcode.CLOSE, Opcode.PING, Opcode.PONG]


def test_close_codes_are_those_of_the_registry() -> None:
    """RFC 6455, 7.4.1 and 11.7; 1012 to 1014 were registered later, 1004 is reserved."""
    assert {code.name: code.value for code in CloseCode} == {
        "NORMAL_CLOSURE": 1000,
        "GOING_AWAY": 1001,
        "PROTOCOL_ERROR": 1002,
        "UNSUPPORTED_DATA": 1003,
        "NO_STATUS_RCVD": 1005,
        "ABNORMAL_CLOSURE": 1006,
        "INVALID_FRAME_PAYLOAD_DATA": 1007,
        "POLICY_VIOLATION": 1008,
        "MESSAGE_TOO_BIG": 1009,
        "MANDATORY_EXTENSION": 1010,
        "INTERNAL_ERROR": 1011,
        "SERVICE_RESTART": 1012,
        "TRY_AGAIN_LATER": 1013,
        "BAD_GATEWAY": 1014,
        "TLS_HANDSHAKE": 1015,
    }


@pytest.mark.parametrize("code", [1005, 1006, 1015])
def test_code_that_is_only_reported_may_not_be_sent(code: int) -> None:
    assert code in NEVER_SENT
    assert not may_be_sent(code)


def test_codes_that_may_be_sent_are_the_registered_ones_and_3000_to_4999() -> None:
    """Every number that two bytes can carry, and some that they cannot."""
    registered = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014]

    assert [code for code in range(-1, 70_000) if may_be_sent(code)] == [*registered, *range(3000, 5000)]
