"""``floor_uvloop.py FD``: the least that a server in Python can do: a uvloop protocol without a codec. It takes every
message for the same as the first of its connection, and only counts bytes.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import socket
import sys
from typing import cast

import uvloop

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
ANSWER = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n"
)
SHORT_HEADER = 6  # with its masking key


class Floor(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.head = b""
        self.reply = b""
        self.frame_length = 0
        self.counted = 0

    def data_received(self, data: bytes) -> None:
        if not self.head.endswith(b"\r\n\r\n"):
            return self.handshake(data)
        if not self.reply:
            self.learn(data)
        if data[0] == 0x88:
            return self.transport.close()
        messages, self.counted = divmod(self.counted + len(data), self.frame_length)
        if messages:
            self.transport.write(self.reply * messages)

    def handshake(self, data: bytes) -> None:
        self.head += data
        key = re.search(rb"Sec-WebSocket-Key: (\S+)", self.head)
        if key is None:
            return self.transport.close()
        accept = base64.b64encode(hashlib.sha1(key[1] + GUID).digest())  # noqa: S324 - RFC 6455 wants this one
        self.transport.write(ANSWER % accept)

    def learn(self, data: bytes) -> None:
        length = data[1] & 0x7F
        masking_key, payload = data[2:SHORT_HEADER], data[SHORT_HEADER : SHORT_HEADER + length]
        self.frame_length = SHORT_HEADER + length
        self.reply = bytes([data[0], length]) + bytes(byte ^ masking_key[i % 4] for i, byte in enumerate(payload))


async def main(fd: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Floor, sock=socket.socket(fileno=fd), backlog=4096)
    await server.serve_forever()


uvloop.run(main(int(sys.argv[1])))
