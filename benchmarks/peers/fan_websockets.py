"""``fan_websockets.py FD``: members on websockets and uvloop; what redis-py's subscriber gets, `broadcast()` sends."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections import defaultdict

import redis.asyncio
import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

rooms: dict[str, set[ServerConnection]] = defaultdict(set)


async def member(websocket: ServerConnection) -> None:
    path = websocket.request.path if websocket.request else ""
    room = rooms["room:" + path.split("/")[2]]
    room.add(websocket)
    try:
        await websocket.send("joined")
        await websocket.wait_closed()
    finally:
        room.discard(websocket)


async def listen() -> None:
    async with redis.asyncio.from_url(os.environ["BENCHMARKS_REDIS"], decode_responses=True).pubsub() as pubsub:
        await pubsub.psubscribe("room:*")
        async for message in pubsub.listen():
            if message["type"] == "pmessage":
                broadcast(rooms[message["channel"]], message["data"])


async def main(fd: int) -> None:
    listener = asyncio.create_task(listen())
    async with serve(member, sock=socket.socket(fileno=fd), compression=None, backlog=4096):
        await listener


uvloop.run(main(int(sys.argv[1])))
