"""Members of rooms. What is published to a room reaches them without these views."""

from __future__ import annotations

import itertools

from django.http import HttpRequest
from django.urls import path

from dwebsocket import Groups, WebSocketView, group, require_websocket

NUMBER = itertools.count()
NEW_ROOM = itertools.count()
GROUPS_OF_EACH = 5  # that a WebSocket attends

KEPT = Groups("kept", history=100, ttl=3600)
ATTENDED = {"plain": Groups("plain", presence=True), "kept": Groups("attended", presence=True, history=100, ttl=3600)}


@require_websocket
def member(request: HttpRequest, room: int) -> None:
    request.websocket.join(group(f"room:{room}"))
    request.websocket.send("joined")
    for _ in request.websocket:
        pass


class ParkedMember(WebSocketView):
    def opened(self) -> None:
        self.join(group(f"room:{self.kwargs['room']}"))
        self.send("joined")


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


@require_websocket
def present_joiner(request: HttpRequest) -> None:
    """The same, and it is present in each room."""
    room = None
    for message in request.websocket:
        if room is not None:
            request.websocket.leave(room)
        room = ATTENDED["plain"][f"join-{next(NEW_ROOM)}"]
        request.websocket.join(room, presence=True)
        request.websocket.send(message)


@require_websocket
def comes(request: HttpRequest, message: str) -> None:
    """It misses nothing, for its group has no history, and gets one message."""
    request.websocket.join(group("comes"))
    request.websocket.send(message)
    for _ in request.websocket:
        pass


@require_websocket
def comes_back(request: HttpRequest, rooms: str) -> None:
    """It gets what it has missed in each of these rooms; the URL has the positions, as those of a page."""
    for room in rooms.split("-"):
        request.websocket.join(KEPT[int(room)])
    for _ in request.websocket:
        pass


@require_websocket
def attends(request: HttpRequest, rooms: str, size: int, is_present: int) -> None:
    """An echo in five groups of so many members, in which it is present, or only a member."""
    number = next(NUMBER) // size * GROUPS_OF_EACH
    for at in range(number, number + GROUPS_OF_EACH):
        request.websocket.join(ATTENDED[rooms][at], presence=True if is_present else None)
    for message in request.websocket:
        request.websocket.send(message)


urlpatterns = [
    path("rooms/<int:room>/", member),
    path("parked-rooms/<int:room>/", ParkedMember.as_view()),
    path("echo-in/<int:size>/", echo_in),
    path("joins/", joiner),
    path("present-joins/", present_joiner),
    path("comes/<str:message>/", comes),
    path("comes-back/<str:rooms>/", comes_back),
    path("attends/<str:rooms>/<int:size>/<int:is_present>/", attends),
]
