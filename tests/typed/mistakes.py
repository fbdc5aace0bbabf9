"""Mistakes: the type checkers report every line that is marked, and no other."""

from collections.abc import Sequence

from django.http import HttpRequest, HttpResponse
from django.urls import path

from dwebsocket import (
    Gap,
    Group,
    GroupMessage,
    Groups,
    Guard,
    Tick,
    WebSocket,
    WebSocketClosed,
    WebSocketRequest,
    WebSocketView,
    accept_websocket,
    connections,
    disconnect_user,
    everyone,
    group,
    groups_interrupted,
    has_perm,
    legacy,
    require_websocket,
    session_alive,
    shutdown,
    shutdown_on_signal,
    websocket_opened,
)
from dwebsocket.test import TestWebSocket, WebSocketClient, sent_to


def print_code(code: int) -> None: ...


@require_websocket
def returns_nothing(request: WebSocketRequest) -> None:
    return request.websocket.stay_open()  # error


def verbs(request: WebSocketRequest) -> None:
    websocket = request.websocket
    websocket.send(5)  # error
    websocket.send(None)  # error
    websocket.send({"a": "dict"})  # error
    websocket.send(websocket.wait())  # error
    websocket.wait("x")  # error
    websocket.wait().upper()  # error
    websocket.wait(timeout=1).decode()  # error
    websocket.read(1, 2)  # error
    websocket.read("nothing").append("x")  # error
    websocket.accept("chat", {"X-Number": 1})  # error
    websocket.accept(["chat"])  # error
    websocket.close("1000")  # error
    websocket.close(1000, 5)  # error
    websocket.send_chunks([1, 2])  # error
    websocket.wait_json("x")  # error
    websocket.closed()  # error
    websocket.close_code + 1  # error
    websocket.latency.real  # error
    websocket.state.OPENED  # error
    websocket.recv()  # error
    websocket.stay_open(5)  # error
    websocket.stay_open(closed=print_code)  # error
    websocket.stay_open(open=print)  # error
    websocket.closed = True  # error
    request.websockets  # error
    for message in websocket:
        message.upper().decode()  # error
    for chunk in websocket.receive_chunks():
        chunk.fin  # error


@accept_websocket
def answers_text(request: WebSocketRequest) -> HttpResponse | None: ...


answers_text(request=HttpRequest(), room="lobby")  # error
answers_text(5)  # error
accept_websocket(lambda request: "text")  # error
accept_websocket(5)  # error
require_websocket(WebSocket)  # error


async def asynchronous(request: WebSocketRequest) -> None: ...


def undecorated(request: WebSocketRequest) -> None: ...


require_websocket(asynchronous)  # error
require_websocket(detach=False)(asynchronous)  # error
path("chat/", undecorated)  # error
path("chat/", WebSocketView)  # error

accept_websocket(max_size=5)  # error
accept_websocket(max_message_size="5")  # error
accept_websocket(subprotocols="chat")  # error
accept_websocket(origins=[5])  # error
accept_websocket(require_origin=None)  # error
accept_websocket(websocket_class=5)  # error
accept_websocket(websocket_class=Guard)  # error
accept_websocket(detach="no")  # error
accept_websocket(guard=5)  # error
accept_websocket(guard=[session_alive, 5])  # error
accept_websocket(guard_interval=None)  # error
accept_websocket(compression={"levels": 1})  # error
accept_websocket(compression={"level": "1"})  # error
accept_websocket(streaming=[])  # error
accept_websocket(receive_queue=1.5)  # error
accept_websocket(idle_timeout="60")  # error
require_websocket(close_timeout=None)  # error
require_websocket(undecorated, detach=False)  # error


class Chat(WebSocketView):
    websocket_options = {"max_size": 5}  # error

    def opened(self) -> None:
        self.send(5)  # error
        self.close("1000")  # error
        self.websocket.recv()  # error

    def received(self, message: str) -> None: ...  # error

    def closed(self) -> None: ...  # error


class OnlyOne(Guard):
    def judge(self, requests: Sequence[HttpRequest]) -> bool: ...  # error


def others(websocket: TestWebSocket, error: WebSocketClosed, old: legacy.WebSocket) -> None:
    has_perm(5)  # error
    session_alive("request")  # error
    connections().path  # error
    connections()[0].paths  # error
    shutdown("1001")  # error
    shutdown(seconds=[])  # error
    shutdown_on_signal("SIGTERM")  # error
    websocket_opened.connect(5)  # error
    error.code  # error
    old.wait().upper()  # error
    old.close(1000, 5)  # error
    websocket.send(5)  # error
    websocket.receive(timeout="x")  # error
    websocket.receive().append(1)  # error
    websocket.response.status.upper()  # error
    websocket.close_code + 1  # error
    WebSocketClient().websocket()  # error
    WebSocketClient().websocket("/", origin=5)  # error
    WebSocketClient().websocket("/", timeout="5")  # error
    WebSocketClient().websocket("/", subprotocols=5)  # error


class Unknown(WebSocketRequest[int]): ...  # error


rooms = Groups("room", overflow="drop")  # error
Groups(5)  # error
Groups("room", "close")  # error


def joining(websocket: WebSocket, room: Group) -> None:
    websocket.join("room:7")  # error
    websocket.join(rooms)  # error
    websocket.join(websocket)  # error
    websocket.join(room, "0-0")  # error
    websocket.join(room, forward=None)  # error
    websocket.join(room, forward="html")  # error
    websocket.join(room, forward=gives_a_number)  # error
    websocket.join(room, forward=takes_text)  # error
    websocket.join(room, overflow="newest")  # error
    websocket.join(room, timeout="5")  # error
    websocket.join(room).position.upper()  # error
    websocket.leave("room:7")  # error
    websocket.groups = frozenset()  # error
    websocket.groups.add("room:7")  # error
    websocket.events("1")  # error
    for event in websocket.events():
        event.data  # error
        if isinstance(event, GroupMessage):
            event.data.encode()  # error
        elif isinstance(event, (Gap, Tick)):
            event.upper()  # error


def gives_a_number(message: GroupMessage) -> int:
    return len(message.data)


def takes_text(message: str) -> str:
    return message


def sending(websocket: WebSocket, room: Group) -> None:
    rooms[1.5]  # error
    rooms[room]  # error
    for _ in rooms:  # error
        pass
    room.send(5)  # error
    room.send({"a": "dict"})  # error
    room.send("text", websocket)  # error
    room.send("text", exclude="me")  # error
    room.send("text", once=7)  # error
    room.send("text", key=7)  # error
    room.send("text").position  # error
    room.send_json({}, now="yes")  # error
    room.disconnect("4403")  # error
    group(7)  # error
    everyone("text")  # error
    disconnect_user(7, "4403")  # error
    groups_interrupted.connect(5)  # error
    with sent_to("room:7"):  # error
        pass
    with sent_to(room) as sent:
        sent[0].upper()  # error


class InGroups(WebSocketView):
    def opened(self) -> None:
        self.join("room:7")  # error
        self.join(everyone, forward=5)  # error

    def group_message(self, message: str) -> None: ...  # error

    def group_gap(self) -> None: ...  # error
