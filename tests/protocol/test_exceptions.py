from __future__ import annotations

import pickle

import pytest

from dwebsocket.exceptions import OriginForbidden, ServerNotSupported
from dwebsocket.protocol.exceptions import (
    HandshakeError,
    InvalidPayload,
    MessageTooBig,
    PolicyViolation,
    ProtocolError,
    SendTimeout,
    UpgradeRequired,
    WebSocketClosed,
    WebSocketError,
)


@pytest.mark.parametrize(
    ("error", "parent"),
    [
        (WebSocketError, Exception),
        (HandshakeError, WebSocketError),
        (UpgradeRequired, HandshakeError),
        (OriginForbidden, HandshakeError),
        (ServerNotSupported, HandshakeError),
        (ProtocolError, WebSocketError),
        (InvalidPayload, ProtocolError),
        (MessageTooBig, ProtocolError),
        (PolicyViolation, ProtocolError),
        (WebSocketClosed, WebSocketError),
        (SendTimeout, WebSocketClosed),
    ],
)
def test_error_stands_in_its_place_in_the_tree(error: type[Exception], parent: type[Exception]) -> None:
    assert error.__base__ is parent


@pytest.mark.parametrize(
    ("error", "status_code", "headers"),
    [
        pytest.param(HandshakeError, 400, {}, id="4.2.2"),
        pytest.param(UpgradeRequired, 426, {"Sec-WebSocket-Version": "13"}, id="4.4"),
        pytest.param(OriginForbidden, 403, {}, id="10.2"),
        pytest.param(ServerNotSupported, 501, {}, id="server"),
    ],
)
def test_handshake_error_knows_its_http_answer(
    error: type[HandshakeError], status_code: int, headers: dict[str, str]
) -> None:
    refusal = error("what was wrong")

    assert (refusal.status_code, refusal.headers, str(refusal)) == (status_code, headers, "what was wrong")


@pytest.mark.parametrize(
    ("error", "close_code"),
    [
        pytest.param(ProtocolError, 1002, id="7.4.1-1002"),
        pytest.param(InvalidPayload, 1007, id="7.4.1-1007"),
        pytest.param(MessageTooBig, 1009, id="7.4.1-1009"),
        pytest.param(PolicyViolation, 1008, id="7.4.1-1008"),
    ],
)
def test_protocol_error_knows_its_close_code(error: type[ProtocolError], close_code: int) -> None:
    assert error("what was wrong").close_code == close_code


@pytest.mark.parametrize("error", [WebSocketClosed, SendTimeout])
def test_closed_knows_close_code_and_reason(error: type[WebSocketClosed]) -> None:
    closed = error(1001, "tab closed")

    assert (closed.close_code, closed.close_reason) == (1001, "tab closed")
    assert str(closed) == "the WebSocket is closed (1001): tab closed"


def test_closed_without_reason_says_the_code_alone() -> None:
    closed = WebSocketClosed(1005)

    assert closed.close_reason == ""
    assert str(closed) == "the WebSocket is closed (1005)"


def test_closed_survives_a_pickle() -> None:
    """Task queues and process pools send exceptions from process to process."""
    closed = pickle.loads(pickle.dumps(WebSocketClosed(1001, "tab closed")))

    assert (closed.close_code, closed.close_reason) == (1001, "tab closed")
