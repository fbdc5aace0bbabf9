"""Members of rooms. What is published to a room reaches them without these views."""

from __future__ import annotations

import itertools

from django.http import HttpRequest
from django.urls import path

from dwebsocket import group, require_websocket
from dwebsocket.groups import process

JOINS_AT = 3
NUMBER = itertools.count()
NEW_ROOM = itertools.count()


@require_websocket
def member(request: HttpRequest, room: int) -> None:
    request.websocket.join(group(f"room:{room}"))
    request.websocket.send("joined")
    for _ in request.websocket:
        pass


@require_websocket
def late(request: HttpRequest, size: int) -> None:
    """An echo that is a member since its third message: of one room, or of a room of `size` members."""
    for number, message in enumerate(request.websocket, start=1):
        if number == 1:  # received already, so that thousands do not wait for that at the same time
            process.dispatcher("default").listen("late:0", lambda envelope: None)
        if number == JOINS_AT:
            request.websocket.join(group(f"late:{next(NUMBER) // size if size else 0}"))
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
    path("late/<int:size>/", late),
    path("joins/", joiner),
]
