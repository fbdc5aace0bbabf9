"""``picows_uvloop.py FD``: an echo on picows, with the event loop that it is fastest on."""

from __future__ import annotations

import socket
import sys

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server


class Echo(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        else:
            transport.send(frame.msg_type, frame.get_payload_as_memoryview())


def echo(request: WSUpgradeRequest) -> Echo:
    return Echo()


async def main(fd: int) -> None:
    server = await ws_create_server(echo, sock=socket.socket(fileno=fd), backlog=4096)
    await server.serve_forever()


uvloop.run(main(int(sys.argv[1])))
