"""``websockets_sync.py FD``: an echo on websockets, its threaded server."""

from __future__ import annotations

import socket
import sys

from websockets.sync.server import ServerConnection, serve


def echo(websocket: ServerConnection) -> None:
    for message in websocket:
        websocket.send(message)


with serve(echo, sock=socket.socket(fileno=int(sys.argv[1])), compression=None, max_size=2 << 20) as server:
    server.serve_forever()
