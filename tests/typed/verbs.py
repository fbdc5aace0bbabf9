"""The verbs of a WebSocket."""

from typing import Any

from typing_extensions import assert_type

from dwebsocket import CloseCode, State, WebSocket


def verbs(websocket: WebSocket) -> None:
    websocket.accept()
    websocket.accept("chat.v2", {"X-Room": "lobby"})
    websocket.accept(subprotocol=None, headers=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])

    assert_type(websocket.wait(), str | bytes | None)
    assert_type(websocket.wait(timeout=0.5), str | bytes | None)
    assert_type(websocket.read(), str | bytes | None)
    assert_type(websocket.read(fallback=""), str | bytes)
    assert_type(websocket.read(None), str | bytes | None)
    assert_type(websocket.read(0), str | bytes | int)
    assert_type(websocket.wait_json(timeout=5), Any)
    assert_type(websocket.has_messages(), bool)
    assert_type(websocket.count_messages(), int)
    for message in websocket:
        assert_type(message, str | bytes)
    for chunk in websocket.receive_chunks():
        assert_type(chunk, str | bytes)

    websocket.send("text")
    websocket.send(b"binary")
    websocket.send(bytearray(b"binary"))
    websocket.send(memoryview(b"binary"))
    websocket.send_json({"rooms": ["lobby"], "at": None})
    websocket.send_chunks(["some", "text"])
    websocket.send_chunks(chunk for chunk in (b"some", b"bytes"))

    websocket.close()
    websocket.close(CloseCode.TRY_AGAIN_LATER, reason="full")
    websocket.close(code=4000)
    assert_type(websocket.is_closed(), bool)
    assert_type(websocket.closed, bool)
    assert_type(websocket.close_code, int | None)
    assert_type(websocket.close_reason, str)
    assert_type(websocket.state, State)
    assert_type(websocket.state is State.OPEN, bool)
    assert_type(websocket.subprotocol, str | None)
    assert_type(websocket.latency, float | None)
