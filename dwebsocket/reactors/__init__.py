"""Who calls a connection back when its socket is readable, writable, or a deadline passes.

base     what a reactor and its links offer, and what they ask of whom they serve
gevent   the hub's loop: everything is pushed
thread   threads: a thread that waits reads its own socket, one background thread serves those that are busy
"""

from __future__ import annotations

import socket

from .base import Reactor


def reactor_for(kind: type[socket.socket]) -> Reactor:
    """The reactor for sockets of this `kind`: gevent's hub for gevent's, else threads."""
    if kind.__module__.startswith("gevent."):
        from . import gevent

        return gevent.current()
    from . import thread

    return thread.current()
