"""What is told about WebSockets: signals, connections and errors; and their end."""

import signal
from typing import Any

from django.dispatch import Signal, receiver
from django.http import HttpRequest
from typing_extensions import assert_type

from dwebsocket import (
    COMPILED,
    CloseCode,
    ConnectionInfo,
    SendTimeout,
    State,
    WebSocket,
    WebSocketClosed,
    WebSocketError,
    connections,
    shutdown,
    shutdown_on_signal,
    websocket_closed,
    websocket_opened,
)


@receiver(websocket_opened)
def note_opened(sender: type[WebSocket], request: HttpRequest, websocket: WebSocket, **kwargs: Any) -> None:
    assert_type(websocket.state is State.OPEN, bool)


@receiver([websocket_opened, websocket_closed])
def note_either(sender: type[WebSocket], *, websocket: WebSocket, **kwargs: Any) -> None: ...


def note_closed(*, websocket: WebSocket, code: int, reason: str, seconds: float, **kwargs: Any) -> None: ...


websocket_closed.connect(note_closed, sender=WebSocket)
assert_type(websocket_closed, Signal)
assert_type(websocket_opened, Signal)


def look() -> None:
    assert_type(connections(), list[ConnectionInfo])
    for info in connections():
        assert_type(info.websocket, WebSocket)
        assert_type(info.request, HttpRequest)
        assert_type(info.path, str)
        assert_type(info.user, str)
        assert_type(info.address, str)
        assert_type(info.seconds, float)
        assert_type(info.messages_received, int)
        assert_type(info.messages_sent, int)
        assert_type(info.bytes_received, int)
        assert_type(info.bytes_sent, int)
        assert_type(info.traffic, dict[str, Any])
        info.websocket.close(CloseCode.GOING_AWAY)


def push(websocket: WebSocket) -> str:
    try:
        websocket.send("news")
    except SendTimeout as error:
        assert_type(error.close_code, int)
        return "slow"
    except WebSocketClosed as error:
        assert_type(error.close_code, int)
        assert_type(error.close_reason, str)
        assert_type(error.websocket is websocket, bool)
        return error.close_reason
    except WebSocketError as error:
        return str(error)
    raise WebSocketClosed(CloseCode.NORMAL_CLOSURE, "done")


def end() -> None:
    shutdown()
    shutdown(code=CloseCode.SERVICE_RESTART, seconds=0.5)
    shutdown_on_signal()
    shutdown_on_signal(signal.SIGINT)


assert_type(COMPILED, bool)
