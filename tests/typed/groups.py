"""Groups: what a project declares, and sends to."""

import uuid
from typing import Any

from django.contrib.auth.models import User
from django.dispatch import Signal, receiver
from typing_extensions import assert_type

from dwebsocket import (
    START,
    Group,
    GroupMessage,
    Groups,
    GroupsUnavailable,
    HistoryDisabled,
    Member,
    PositionGone,
    PresenceDisabled,
    TooManyGroups,
    WebSocket,
    disconnect_user,
    envelope,
    everyone,
    group,
    group_overflow,
    group_presence_changed,
    groups_interrupted,
    is_online,
    user_group,
)

rooms = Groups("room", history=100, ttl=300, presence=True, overflow="drop_oldest", alias="default")

assert_type(rooms[7], Group)
assert_type(rooms["lobby"], Group)
assert_type(rooms[uuid.uuid4()], Group)
assert_type(group("room:7"), Group)
assert_type(everyone, Group)
assert_type(rooms[7].name, str)
assert_type(rooms[7].alias, str)


def tell(websocket: WebSocket, user: User) -> None:
    try:
        rooms[7].send("text", exclude=websocket, once="1", key="a", using="default", now=True)
        rooms[7].send(b"binary")
        rooms[7].send_json({"room": 7}, exclude=websocket)
        rooms[7].disconnect(4000, "closed")
        user_group(user).send(bytearray(b"binary"))
        user_group(user.pk).send(memoryview(b"binary"))
        disconnect_user(user, 4403, "gone", using="default", now=True)
    except GroupsUnavailable as error:
        assert_type(error.status_code, int)
    except TooManyGroups as error:
        assert_type(str(error), str)


def ask(websocket: WebSocket, user: User) -> None:
    try:
        websocket.join(rooms[7], since=START, presence={"name": user.username}, forward=envelope)
        assert_type(rooms[7].history(10), list[GroupMessage])
        assert_type(rooms[7].position(), str)
        rooms[7].clear()
        assert_type(rooms[7].members(), list[Member])
        assert_type(rooms[7].members()[0].user, str | None)
        assert_type(rooms[7].count(users=True), int)
        assert_type(is_online(user), bool)
    except (HistoryDisabled, PositionGone, PresenceDisabled) as error:
        assert_type(str(error), str)


@receiver(group_overflow)
def note_overflow(sender: type[WebSocket], websocket: WebSocket, group: str, **kwargs: Any) -> None: ...


@receiver(groups_interrupted)
def note_interruption(alias: str, seconds: float, **kwargs: Any) -> None: ...


@receiver(group_presence_changed)
def note_presence(group: str, alias: str, joined: list[Member], left: list[Member], **kwargs: Any) -> None: ...


assert_type(group_overflow, Signal)
assert_type(group_presence_changed, Signal)
assert_type(groups_interrupted, Signal)
