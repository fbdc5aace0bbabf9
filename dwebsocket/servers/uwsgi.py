"""uWSGI, with threads or gevent."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Callable
from typing import Any

from ..reactors import reactor_for
from ..reactors.base import Reactor
from .base import Server, Taken, take_over

# With one of these options, a thread runs on when its request has ended; from this version on, without one, too.
_THREADS = ("gevent", "threads", "enable-threads")
_ALWAYS_THREADS = (2, 0, 27)


class UWSGI(Server):
    """uWSGI knows a connection by the number of its descriptor, and does not give out the bytes that it has read ahead.

    The socket here is a new one, on a second descriptor. The number that uWSGI knows then leads to `/dev/null`: its
    writes at the end of the request cause no error there, and a read finds the end of the stream.
    """

    reuses_environ = True

    def __init__(self, environ: dict[str, Any], sock: Any) -> None:
        super().__init__(environ, sock)
        self._descriptor: int = sock

    @staticmethod
    def find_socket(environ: dict[str, Any]) -> Any:
        return _uwsgi().connection_fd() if "uwsgi" in sys.modules and "uwsgi.version" in environ else None

    @property
    def can_detach(self) -> bool:
        """Whether a view can outlive its request: threads must run between two requests."""
        version = tuple(map(int, re.findall(rb"\d+", self.environ["uwsgi.version"])[:3]))
        return version >= _ALWAYS_THREADS or any(_has_option(name) for name in _THREADS)

    @property
    def reactor(self) -> Reactor:
        return reactor_for(_socket_class())

    def detach(self) -> Taken:
        live = socket.socket(fileno=os.dup(self._descriptor))
        self._lead_nowhere()
        return take_over(live, self.buffered())

    def attach(self) -> Taken:
        self.socket = _socket_class()(fileno=os.dup(self._descriptor))
        taken = super().attach()

        def dispose() -> None:
            taken.dispose()
            self.socket.close()
            self._lead_nowhere()

        return taken._replace(dispose=dispose)

    def buffered(self) -> bytes:
        return b""

    def at_exit(self, function: Callable[[], None]) -> None:
        """Have `function` called by uWSGI, which calls one function of its choice and no `atexit` of Python."""
        uwsgi = _uwsgi()
        earlier: Callable[[], None] | None = getattr(uwsgi, "atexit", None)

        def at_exit() -> None:
            function()
            if earlier is not None:
                earlier()

        uwsgi.atexit = at_exit

    def _lead_nowhere(self) -> None:
        with open(os.devnull, "rb+", buffering=0) as nowhere:  # os.close() would wait for gevent's loop
            os.dup2(nowhere.fileno(), self._descriptor, inheritable=False)


def _uwsgi() -> Any:
    return sys.modules["uwsgi"]  # uWSGI makes this module; outside of uWSGI it does not exist


def _has_option(name: str) -> bool:
    options = _uwsgi().opt
    return any(spelling in options for spelling in (name, name.replace("-", "_")))


def _socket_class() -> type[Any]:
    if not _has_option("gevent"):
        return socket.socket
    import gevent.socket

    kind: type[Any] = gevent.socket.socket
    return kind
