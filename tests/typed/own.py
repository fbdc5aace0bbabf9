"""A project's own WebSocket, view and middleware, and the WebSocket of dwebsocket 0.5."""

from django.http import HttpRequest, HttpResponseBase
from typing_extensions import assert_type

from dwebsocket import WebSocket, WebSocketRequest, WebSocketView, legacy, require_websocket
from dwebsocket.middleware import WebSocketMiddleware


class ChatWebSocket(WebSocket):
    def send(self, message: str | bytes | bytearray | memoryview) -> None:
        super().send(message)

    def wait(self, timeout: float | None = None) -> str | bytes | None:
        return super().wait(timeout)

    def say(self, text: str) -> None:
        self.send_json({"text": text})


class ChatRequest(WebSocketRequest[ChatWebSocket]):
    room: str


@require_websocket
def chat(request: ChatRequest) -> None:
    assert_type(request.websocket, ChatWebSocket)
    request.websocket.say(f"welcome to {request.room}")


@require_websocket
def chat_in_short(request: WebSocketRequest[ChatWebSocket]) -> None:
    request.websocket.say("welcome")


@require_websocket
def old(request: WebSocketRequest[legacy.WebSocket]) -> None:
    assert_type(request.websocket, legacy.WebSocket)
    assert_type(request.websocket.wait(), bytes | None)
    request.websocket.send(5)
    for message in request.websocket:
        if not message:
            break


class Chat(WebSocketView):
    @property
    def websocket(self) -> ChatWebSocket:
        websocket = super().websocket
        assert isinstance(websocket, ChatWebSocket)
        return websocket

    def opened(self) -> None:
        self.websocket.say("welcome")


class ChatMiddleware(WebSocketMiddleware):
    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = super().__call__(request)
        assert_type(response, HttpResponseBase)
        return response


def serve(request: HttpRequest) -> HttpResponseBase:
    middleware = WebSocketMiddleware(serve)
    assert_type(middleware.process_view(request, chat, (), {}), HttpResponseBase | None)
    return middleware(request)
