"""Guards: those of the package, functions, methods, and a class that judges many requests at once."""

from collections.abc import Iterable, Iterator, Sequence

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from typing_extensions import assert_type

from dwebsocket import (
    Forbidden,
    Guard,
    HandshakeError,
    Unauthorized,
    WebSocketError,
    WebSocketRequest,
    accept_websocket,
    has_perm,
    session_alive,
    user_is_active,
)


class IsMember(Guard):
    def __init__(self, room: str) -> None:
        self.room = room

    def judge(self, requests: Sequence[HttpRequest]) -> Iterator[Forbidden | Unauthorized | None]:
        for request in requests:
            if not request.user.is_authenticated:
                yield Unauthorized("the user is not logged in")
            else:
                yield None if self.room in request.path else Forbidden("not a member")


class NobodyMay(Guard):
    def judge(self, requests: Sequence[HttpRequest]) -> list[HandshakeError | None]:
        return [Unauthorized("not now") for _ in requests]


def is_active(request: HttpRequest) -> bool:
    return request.user.is_active


def is_open(request: WebSocketRequest) -> bool | None:
    if not request.websocket.closed:
        raise PermissionDenied
    return None if request.session.is_empty() else True


class Lock:
    def lets_in(self, request: HttpRequest) -> bool:
        raise Forbidden("locked")


guards = [session_alive, user_is_active, has_perm("chat.view_room"), IsMember("lobby"), NobodyMay()]


@accept_websocket(guard=guards, guard_interval=30)
def with_guards(request: WebSocketRequest) -> None: ...


@accept_websocket(guard=(is_active, is_open, Lock().lets_in, IsMember("lobby"), lambda request: True))
def with_functions(request: WebSocketRequest) -> None: ...


@accept_websocket(guard="project.guards.is_member")
def with_path(request: WebSocketRequest) -> None: ...


@accept_websocket(guard=is_open)
def with_one(request: WebSocketRequest) -> None: ...


def ask(request: HttpRequest) -> None:
    assert_type(session_alive, Guard)
    assert_type(user_is_active, Guard)
    assert_type(has_perm("chat.view_room"), Guard)
    assert_type(session_alive(request), bool)
    for verdict in IsMember("lobby").judge([request]):
        assert_type(verdict, Forbidden | Unauthorized | None)
    errors: Iterable[WebSocketError | None] = NobodyMay().judge([request])
    for error in errors:
        if error is not None:
            raise error
    assert_type(Unauthorized("nobody").status_code, int)
    assert_type(Forbidden("not you").status_code, int)
