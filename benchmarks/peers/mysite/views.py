"""One WebSocket, one page."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse

from dwebsocket import require_websocket


@require_websocket(max_message_size=2 << 20)
def echo(request: HttpRequest) -> None:
    for message in request.websocket:
        request.websocket.send(message)


def page(request: HttpRequest) -> HttpResponse:
    return HttpResponse("hello")
