"""The echo on Channels. The consumer is the whole application: no router, no middleware, no session, no user."""

from __future__ import annotations

import os

import django
from channels.generic.websocket import AsyncWebsocketConsumer

os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
django.setup()


class Echo(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data, bytes_data)


application = Echo.as_asgi()
