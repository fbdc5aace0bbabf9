"""One WebSocket, one page."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse

from dwebsocket import WebSocketView, require_websocket


@require_websocket(max_message_size=2 << 20)
def echo(request: HttpRequest) -> None:
    for message in request.websocket:
        request.websocket.send(message)


class Echo(WebSocketView):
    websocket_options = {"max_message_size": 2 << 20}  # noqa: RUF012

    def received(self, message: str | bytes) -> None:
        self.send(message)


@require_websocket
def stays(request: HttpRequest) -> HttpResponse:
    response: HttpResponse = request.websocket.stay_open(received=request.websocket.send)
    return response


def page(request: HttpRequest) -> HttpResponse:
    return HttpResponse("hello")
