"""The verbs of a WebSocket."""

from typing import Any

from django.http import HttpResponse
from typing_extensions import assert_type

from dwebsocket import CloseCode, Gap, Group, GroupMessage, Joined, State, Tick, WebSocket


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


def groups(websocket: WebSocket, room: Group) -> None:
    assert_type(websocket.join(room), Joined)
    websocket.join(room, forward=False, overflow="latest", timeout=1)
    websocket.join(room, forward=lambda message: f"{message.group}: {message.data!r}")
    websocket.join(room, forward=only_text)
    assert_type(websocket.groups, frozenset[str])
    assert_type(websocket.member_id(), bytes)
    websocket.leave(room)
    for event in websocket.events(every=0.5):
        if isinstance(event, GroupMessage):
            assert_type(event.group, str)
            assert_type(event.data, str | bytes)
            assert_type(event.json(), Any)
        elif isinstance(event, Gap):
            assert_type(event.group, str)
        elif isinstance(event, Tick):
            assert_type(event.number, int)
        else:
            assert_type(event, str | bytes)


def stays_open(websocket: WebSocket, room: Group) -> HttpResponse:
    websocket.join(room, forward=False)
    assert_type(websocket.stay_open(), HttpResponse)
    websocket.stay_open(closed=lambda code, reason: print(code, reason))
    websocket.stay_open(received=room.send)
    websocket.stay_open(received=print_event, closed=None)
    return websocket.stay_open(print_message, print_end)


def print_message(message: str | bytes) -> None:
    print(message)


def print_event(event: str | bytes | GroupMessage | Gap) -> None:
    print(event)


def print_end(code: int, reason: str) -> None:
    print(code, reason)


def only_text(message: GroupMessage) -> str | None:
    return message.data if isinstance(message.data, str) else None
