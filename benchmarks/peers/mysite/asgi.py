"""The echo on Channels: `bare`, the consumer as the whole application, and `documented`, behind what its tutorial puts
in front of it: the check of the origin, the session, the user, and a router. dwebsocket has all of that, always.
"""

from __future__ import annotations

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
