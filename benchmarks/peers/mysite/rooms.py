"""Members of rooms. What is published to a room reaches them without these views."""

from __future__ import annotations

import itertools

from django.http import HttpRequest
from django.urls import path

from dwebsocket import group, require_websocket

NUMBER = itertools.count()
NEW_ROOM = itertools.count()


@require_websocket
def member(request: HttpRequest, room: int) -> None:
    request.websocket.join(group(f"room:{room}"))
    request.websocket.send("joined")
    for _ in request.websocket:
        pass


@require_websocket
def echo_in(request: HttpRequest, size: int) -> None:
    """An echo in a room of so many members; 0: in none."""
    if size:
        request.websocket.join(group(f"room:{next(NUMBER) // size}"))
    for message in request.websocket:
        request.websocket.send(message)


@require_websocket
def joiner(request: HttpRequest) -> None:
    """An echo that has left its room, and joined one that is new to this process, before it answers."""
    room = None
    for message in request.websocket:
        if room is not None:
            request.websocket.leave(room)
        room = group(f"join:{next(NEW_ROOM)}")
        request.websocket.join(room)
        request.websocket.send(message)


urlpatterns = [
    path("rooms/<int:room>/", member),
    path("echo-in/<int:size>/", echo_in),
    path("joins/", joiner),
]
