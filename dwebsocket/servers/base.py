"""The base of all servers: a socket, bytes already read from it, and two ways to take it over."""

from __future__ import annotations

import _socket
import atexit
import contextlib
import io
import socket
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import MethodType
from typing import Any, NamedTuple

from ..protocol.handshake import Request
from ..reactors import reactor_for
from ..reactors.base import Reactor
from .tls import TLSSocket

_READ_BYTES = 64 * 1024
_HEADER_PREFIX = "HTTP_"
_OTHER_HEADERS = {"CONTENT_LENGTH": "content-length", "CONTENT_TYPE": "content-type"}

# What differs from one client to the next, as a rule: to remember it would be in vain.
_UNLIKE = frozenset(
    {
        *("HTTP_AUTHORIZATION", "HTTP_COOKIE", "HTTP_SEC_WEBSOCKET_KEY", "HTTP_X_FORWARDED_FOR", "HTTP_X_REQUEST_ID"),
        *("QUERY_STRING", "REMOTE_PORT"),
    }
)
_ALIKE_STRINGS = 4096  # are remembered at most
_ALIKE_LENGTH = 256  # of the longest
_alike: dict[str, str] = {}


def handshake_request(environ: dict[str, Any]) -> Request:
    """Return the opening handshake in `environ`."""
    headers = {
        name[len(_HEADER_PREFIX) :].replace("_", "-").lower(): value
        for name, value in environ.items()
        if name.startswith(_HEADER_PREFIX)
    }
    headers.update({header: environ[name] for name, header in _OTHER_HEADERS.items() if environ.get(name)})
    return Request(environ.get("REQUEST_METHOD", ""), environ.get("SERVER_PROTOCOL", ""), headers)


def alike(text: str) -> str:
    """Return the equal string of an earlier request, if there was one lately: of many equal ones, one is kept.

    Not `sys.intern()`: without the GIL, Python never frees what was interned, and clients may send what they like.
    """
    if type(text) is not str or len(text) > _ALIKE_LENGTH:
        return text
    _limit_alike()
    return _alike.setdefault(text, text)


def _limit_alike() -> None:
    if len(_alike) >= _ALIKE_STRINGS:
        _alike.clear()


class _EmptyBody(io.BytesIO):
    """The body of an opening handshake, one for all: no view can close it or write into it."""

    def close(self) -> None:
        pass

    def write(self, data: object) -> int:
        raise io.UnsupportedOperation("not writable")

    def writelines(self, lines: object) -> None:
        raise io.UnsupportedOperation("not writable")

    def writable(self) -> bool:
        return False


EMPTY_BODY = _EmptyBody()


class Taken(NamedTuple):
    """A connection taken from its server.

    `sock`: non-blocking. `early`: bytes that the server had read already. `dispose`: call it once, at the end.
    `descriptor`: the number of a socket that no other code can close; else -1.
    """

    sock: Any
    early: bytes
    dispose: Callable[[], None]
    descriptor: int = -1


class Server(ABC):
    """One request's server, and the socket of its connection."""

    #: Whether the server cleans up quietly when its socket object goes dead. Without that, views run attached.
    lets_go = True

    #: Whether the server has sent the 101 already.
    has_answered = False

    #: Whether the server empties the environ of a request that has ended, for the next one.
    reuses_environ = False

    #: Keys of the environ that hold much memory, and are of no use to a view that has outlived its request.
    dead_keys: frozenset[str] = frozenset()

    def __init__(self, environ: dict[str, Any], sock: Any) -> None:
        self.environ = environ
        self.socket = sock
        self._is_tls = hasattr(sock, "unwrap")  # an SSL socket, of the standard library or of gevent

    @classmethod
    def find(cls, environ: dict[str, Any]) -> Server | None:
        """Return an instance for `environ` if the request comes from this server, else None."""
        sock = cls.find_socket(environ)
        return None if sock is None else cls(environ, sock)

    @staticmethod
    @abstractmethod
    def find_socket(environ: dict[str, Any]) -> Any:
        """Return the server's socket object for the connection; None when `environ` comes from another server."""

    @abstractmethod
    def buffered(self) -> bytes:
        """Return the bytes behind the opening handshake that the server has already read; called once, never blocks."""

    @property
    def can_detach(self) -> bool:
        """Whether `detach()` is sound. A TLS session is tied to the server's socket object."""
        return self.lets_go and not self._is_tls

    def at_exit(self, function: Callable[[], None]) -> None:
        """Have `function` called when this process ends."""
        atexit.register(function)

    @property
    def reactor(self) -> Reactor:
        """The reactor for the connections of this server."""
        return reactor_for(type(self.socket))

    def spawn(self, function: Callable[[], None], name: str) -> None:
        """Run `function`, a view that outlives its request, in a new greenlet or thread."""
        self.reactor.spawn(function, name)

    def detach(self) -> Taken:
        """Take the live descriptor; the server's own socket object is left holding a dead end.

        Every reference that the server holds then reads an end of stream and writes into a broken pipe, so the server
        drops the connection. The number of the live descriptor does not change: event loops know it by that.
        """
        inner = self._inner()
        family, kind, protocol = inner.family, inner.type, inner.proto
        timeout = inner.gettimeout()
        dead, other_side = _socket.socketpair()  # before all else: where no descriptor is left, nothing has changed
        other_side.close()
        live = _socket.socket(family, kind, protocol, fileno=_socket.socket.detach(inner))
        _socket.socket.__init__(inner, family, kind, protocol, fileno=dead.detach())
        inner.settimeout(timeout)
        # A read now finds the server's buffer, then the dead end.
        early = self.buffered()
        self.environ["wsgi.input"] = EMPTY_BODY  # the reader's buffer would live as long as the request
        return take_over(live, early)

    def kept(self, environ: dict[str, Any]) -> dict[str, Any]:
        """Return what a view that outlives its request keeps of `environ`: all that it may ask for, in little memory.

        The server itself may need all the rest until its request has ended.
        """
        _limit_alike()
        share, dead = _alike.setdefault, self.dead_keys
        kept: dict[str, Any] = {}
        for name, value in environ.items():  # `alike()` for each, but for the calls: every opening comes here
            if name in dead:
                continue
            if type(value) is str and name not in _UNLIKE and len(value) <= _ALIKE_LENGTH:
                value = share(value, value)
            kept[share(name, name) if len(name) <= _ALIKE_LENGTH else name] = value
        kept["wsgi.input"] = EMPTY_BODY
        return kept

    def attach(self) -> Taken:
        """Use the server's own socket, which stays its property: at the end it is shut down, never closed."""
        inner = self._inner()
        timeout = self.socket.gettimeout()
        self.socket.settimeout(0)
        _send_at_once(inner)
        early = self.buffered()
        sock = inner
        if self._is_tls:
            sock = TLSSocket(self.socket)
            early += sock.pending()

        def dispose() -> None:
            _shut_down(self.socket)
            _drop_unread(inner)
            self.socket.settimeout(timeout)

        return Taken(sock, early, dispose)

    def _inner(self) -> Any:
        """The object that owns the descriptor, without TLS: gevent wraps it, and TLS is a layer above it."""
        return getattr(self.socket, "_sock", self.socket)


class BufferedServer(Server):
    """A server that reads requests through a buffered reader around a SocketIO."""

    @staticmethod
    @abstractmethod
    def find_reader(environ: dict[str, Any]) -> Any:
        """Return the server's buffered reader; any other object when `environ` comes from another server."""

    @classmethod
    def find_socket(cls, environ: dict[str, Any]) -> Any:
        raw = getattr(cls.find_reader(environ), "raw", None)
        return getattr(raw, "_sock", None) if isinstance(raw, socket.SocketIO) else None

    def buffered(self) -> bytes:
        return read_ahead(self.find_reader(self.environ))


def read_ahead(reader: Any) -> bytes:
    """Return the buffer of `reader`. Reads its socket at most once, which is non-blocking or a dead end by now."""
    try:
        return bytes(reader.read(len(reader.peek())))
    except (ConnectionError, ssl.SSLWantReadError):  # a peer that has left already: the connection will see that too
        return b""


def take_over(live: Any, early: bytes) -> Taken:
    """Return the connection on a socket that belongs to no other code any more."""
    live.setblocking(False)
    _send_at_once(live)

    dispose = MethodType(_shut_down_and_close, live)  # 64 bytes for each connection: of a partial it would be 190
    return Taken(live, early, dispose, live.fileno())


def _shut_down_and_close(sock: Any) -> None:
    _shut_down(sock)  # while a forked process holds the descriptor too, close() alone would not reach the peer
    sock.close()


def _shut_down(sock: Any) -> None:
    with contextlib.suppress(OSError):  # the peer may be gone
        sock.shutdown(socket.SHUT_RDWR)


def _drop_unread(sock: Any) -> None:
    """Drain a socket that has been shut down: the server would take the bytes for its next request."""
    errors = 0  # a reset is reported once, and may have bytes behind it
    while errors < 3:
        try:
            if not sock.recv(_READ_BYTES):
                return
        except BlockingIOError:
            return
        except OSError:
            errors += 1


def _send_at_once(sock: Any) -> None:
    with contextlib.suppress(OSError):  # a UNIX socket knows no such option
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
