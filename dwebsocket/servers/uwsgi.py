"""uWSGI, with threads or gevent."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from typing import Any

from ..reactors import reactor_for
from ..reactors.base import Reactor
from .base import Server, Taken


class UWSGI(Server):
    """uWSGI knows a connection by the number of its descriptor, and keeps what it has read ahead for itself.

    Attached: its event loop has that number registered. The socket object is one of our own, on a second descriptor.
    """

    lets_go = False

    @staticmethod
    def find_socket(environ: dict[str, Any]) -> Any:
        uwsgi: Any = sys.modules.get("uwsgi")  # uWSGI makes it; there is none to import elsewhere
        return uwsgi.connection_fd() if uwsgi is not None and "uwsgi.version" in environ else None

    @property
    def reactor(self) -> Reactor:
        return reactor_for(self._socket_class())

    def attach(self) -> Taken:
        self.socket = self._socket_class()(fileno=os.dup(self.socket))
        taken = super().attach()

        def dispose() -> None:
            taken.dispose()
            self.socket.close()

        return taken._replace(dispose=dispose)

    def buffered(self) -> bytes:
        return b""

    def at_exit(self, function: Callable[[], None]) -> None:
        sys.modules["uwsgi"].atexit = function  # type: ignore[attr-defined]  # it does not call Python's own

    @staticmethod
    def _socket_class() -> type[Any]:
        if "gevent" not in sys.modules["uwsgi"].opt:
            return socket.socket
        import gevent.socket

        kind: type[Any] = gevent.socket.socket
        return kind
