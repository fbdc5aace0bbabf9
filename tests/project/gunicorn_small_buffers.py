"""gunicorn whose connections have small buffers in the kernel, so that a peer that does not read is soon noticed."""

import socket

from tests.project.gunicorn_conf import *  # noqa: F403


def when_ready(server):
    for listener in server.LISTENERS:
        listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
