"""The echo on Channels: `bare`, the consumer as the whole application, and `documented`, behind what its tutorial puts
in front of it: the check of the origin, the session, the user, and a router. dwebsocket has all of that, always.

And members of rooms, as bare as that, by way of either layer of channels_redis.
"""

from __future__ import annotations

import itertools
import os

import django
from channels.auth import AuthMiddlewareStack
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.urls import path

os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
django.setup()


class Echo(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data, bytes_data)


bare = Echo.as_asgi()
routes = URLRouter([path("", Echo.as_asgi())])
documented = ProtocolTypeRouter({"websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(routes))})


class Member(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        self.group = f"room.{self.scope['path'].split('/')[2]}"
        await self.channel_layer.group_add(self.group, self.channel_name)
        await self.accept()
        await self.send("joined")

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard(self.group, self.channel_name)

    async def room_message(self, event: dict[str, str]) -> None:
        await self.send(event["text"])


class Joiner(AsyncWebsocketConsumer):
    """An echo that has left its group, and joined a new one, before it answers."""

    numbers = itertools.count()
    group = ""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if self.group:
            await self.channel_layer.group_discard(self.group, self.channel_name)
        self.group = f"join.{next(self.numbers)}"
        await self.channel_layer.group_add(self.group, self.channel_name)
        await self.send(text_data, bytes_data)

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard(self.group, self.channel_name)


def on(layer: str, consumer: type[AsyncWebsocketConsumer]) -> object:
    return type(consumer.__name__, (consumer,), {"channel_layer_alias": layer}).as_asgi()


core_members, pubsub_members = on("core", Member), on("pubsub", Member)
core_joiners, pubsub_joiners = on("core", Joiner), on("pubsub", Joiner)
