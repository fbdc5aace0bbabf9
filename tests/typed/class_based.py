"""Class-based views."""

from collections.abc import Callable

from django.contrib.auth.mixins import LoginRequiredMixin, PermissionRequiredMixin, UserPassesTestMixin
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import path
from typing_extensions import assert_type

from dwebsocket import Gap, GroupMessage, Joined, WebSocket, WebSocketRequest, WebSocketView, group, has_perm


class Chat(LoginRequiredMixin, WebSocketView):
    websocket_options = {"max_message_size": 1000, "guard": [has_perm("chat.view_room")]}

    room = ""

    def opened(self) -> None:
        assert_type(self.request, WebSocketRequest)
        assert_type(self.websocket, WebSocket)
        self.send(f"hello {self.request.user}")
        self.send_json({"room": self.room})

    def received(self, message: str | bytes) -> None:
        self.send(message)
        self.close()
        self.close(4000, reason="enough")

    def closed(self, code: int, reason: str) -> None:
        assert_type(f"{code} {reason}", str)


class Quiet(PermissionRequiredMixin, Chat):
    permission_required = "chat.view_room"
    websocket_options = {**Chat.websocket_options, "detach": False}


class InGroups(WebSocketView):
    parked = False

    def opened(self) -> None:
        assert_type(self.join(group("room:7")), Joined)
        self.join(group("room:8"), forward=True, overflow="drop_new", timeout=0.5)
        assert_type(self.groups, frozenset[str])

    def group_message(self, message: GroupMessage) -> None:
        self.send(message.data)
        self.leave(group(message.group))

    def group_gap(self, gap: Gap) -> None:
        for event in self.events(every=1):
            assert_type(isinstance(event, Gap), bool)


class ChatWithPage(UserPassesTestMixin, WebSocketView):
    def test_func(self) -> bool:
        return self.request.is_websocket() or self.request.user.is_authenticated

    def get(self, request: HttpRequest, room: str) -> HttpResponse:
        return HttpResponse(room)

    def dispatch(self, request: HttpRequest, *args: object, **kwargs: object) -> HttpResponseBase:
        return super().dispatch(request, *args, **kwargs)

    @classmethod
    def as_view(cls, **initkwargs: object) -> Callable[..., HttpResponseBase]:
        return super().as_view(**initkwargs)


urlpatterns = [
    path("chat/", Chat.as_view(room="lobby")),
    path("quiet/", Quiet.as_view()),
    path("chat/<room>/", ChatWithPage.as_view(), name="room"),
]
