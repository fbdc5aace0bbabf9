"""Reactors: they call a connection back when its socket is readable or writable, or a deadline passes.

base     the interface of reactors and links, and of the connections that they serve
gevent   the hub's loop: everything is pushed
runners  the greenlets that run the turns of parked views
thread   threads: a thread that waits reads its own socket, one background thread serves the busy connections
pool     the threads that run the turns of parked views, and wait for their sockets
wakeup   a descriptor that ends the wait of a thread
clock    the time
"""

from __future__ import annotations

import socket

from .base import Reactor


def reactor_for(kind: type[socket.socket]) -> Reactor:
    """Return the reactor for sockets of this `kind`: gevent's hub for gevent's, else threads."""
    if kind.__module__.startswith("gevent."):
        from . import gevent

        return gevent.current()
    from . import thread

    return thread.current()
