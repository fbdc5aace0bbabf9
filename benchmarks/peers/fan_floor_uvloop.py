"""``fan_floor_uvloop.py FD``: the least that a fan-out in Python can do: a uvloop protocol without a codec, which
writes one prebuilt frame to each transport. hiredis reads what Redis sends.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
import socket
import sys
from collections import defaultdict
from typing import cast
from urllib.parse import urlsplit

import hiredis
import uvloop

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
ANSWER = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n"
)
SUBSCRIBE = b"*2\r\n$10\r\nPSUBSCRIBE\r\n$6\r\nroom:*\r\n"

rooms: dict[bytes, set[asyncio.Transport]] = defaultdict(set)


def text_frame(payload: bytes) -> bytes:
    size = bytes([len(payload)]) if len(payload) < 126 else b"\x7e" + len(payload).to_bytes(2, "big")
    return b"\x81" + size + payload


class Member(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.head = b""
        self.room = b""

    def data_received(self, data: bytes) -> None:
        if self.room:
            return self.transport.close()  # members say nothing but that they close
        self.head += data
        key = re.search(rb"Sec-WebSocket-Key: (\S+)", self.head)
        number = re.match(rb"GET /rooms/(\d+)/ ", self.head)
        if key is None or number is None:
            return self.transport.close()
        accept = base64.b64encode(hashlib.sha1(key[1] + GUID).digest())  # noqa: S324 - RFC 6455 wants this one
        self.room = b"room:" + number[1]
        rooms[self.room].add(self.transport)
        self.transport.write(ANSWER % accept + text_frame(b"joined"))

    def connection_lost(self, error: Exception | None) -> None:
        rooms[self.room].discard(self.transport)


class Broker(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.reader = hiredis.Reader()
        cast(asyncio.Transport, transport).write(SUBSCRIBE)

    def data_received(self, data: bytes) -> None:
        self.reader.feed(data)
        while (reply := self.reader.gets()) is not False:
            if reply[0] == b"pmessage":
                frame = text_frame(reply[3])
                for transport in rooms[reply[2]]:
                    transport.write(frame)


async def main(fd: int) -> None:
    loop = asyncio.get_running_loop()
    redis = urlsplit(os.environ["BENCHMARKS_REDIS"])
    await loop.create_connection(Broker, redis.hostname, redis.port)
    server = await loop.create_server(Member, sock=socket.socket(fileno=fd), backlog=4096)
    await server.serve_forever()


uvloop.run(main(int(sys.argv[1])))
