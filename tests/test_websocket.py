"""The class of `request.websocket`: what a project may subclass."""

from __future__ import annotations

from typing import Any

from dwebsocket import WebSocket, require_websocket
from dwebsocket.connection.verbs import Verbs
from tests.sites import Site


class Shouting(WebSocket):
    """What a project makes of it."""

    def send(self, message: Any) -> None:
        super().send(message.upper())


def test_view_gets_a_websocket_with_every_verb(site: Site) -> None:
    @require_websocket
    def view(request):
        request.websocket.send(f"{type(request.websocket) is WebSocket} {isinstance(request.websocket, Verbs)}")

    assert site(view).connect().recv_message() == "True True"


def test_view_gets_the_class_of_the_project(site: Site) -> None:
    @require_websocket
    def view(request):
        request.websocket.send("hello")

    assert site(view, WEBSOCKET_CLASS=f"{__name__}.Shouting").connect().recv_message() == "HELLO"
