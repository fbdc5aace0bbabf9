"""``websockets_asyncio.py FD``: an echo on websockets, its asyncio server on uvloop."""

from __future__ import annotations

import socket
import sys

import uvloop
from websockets.asyncio.server import ServerConnection, serve


async def echo(websocket: ServerConnection) -> None:
    async for message in websocket:
        await websocket.send(message)


async def main(fd: int) -> None:
    options = {"compression": None, "max_size": 2 << 20, "backlog": 4096}
    async with serve(echo, sock=socket.socket(fileno=fd), **options) as server:
        await server.serve_forever()


uvloop.run(main(int(sys.argv[1])))
