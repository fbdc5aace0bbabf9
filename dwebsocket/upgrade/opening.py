"""The opening handshake of one request, until the view has accepted it or refused."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

from django.http import HttpResponse

from .. import conf, guards
from ..connection.connection import Connection
from ..groups.membership import Memberships, exclusively
from ..process.registry import Entry, registry
from ..protocol import deflate, handshake
from ..protocol.exceptions import WebSocketClosed
from ..protocol.extensions import Extension
from ..protocol.frames import Close
from ..protocol.handshake import Handshake, Headers
from ..reactors.base import Exclusively, Latch
from ..servers import Server
from ..websocket import Functions, Handlers
from . import sessions
from .slim import slim

#: The error of a view whose connection would stay open, if it had returned what `stay_open()` gave.
NOT_RETURNED = "the view has called stay_open(), and not returned it: write `return request.websocket.stay_open(…)`"

#: The same error of a class, whose own `dispatch()` has called it.
DISPATCH_NOT_RETURNED = (
    "dispatch() has returned nothing where the view stays open: write `return super().dispatch(request, *args,"
    " **kwargs)`, and let a decorator return what it gets"
)

#: The error of a view that has returned the method itself.
NOT_CALLED = "the view has returned stay_open, and not called it: write `return request.websocket.stay_open()`"

#: `Opening.handlers` once they were taken: `stay_open()` is too late, and nothing more is called because of it.
BEGUN = Functions(None, None, None)

_NO_TURNSTILE = nullcontext()
_LOST = Close(1006, "the socket was taken from the server, and could not be used")


class Outcome(enum.Enum):
    """The state of an opening handshake."""

    PENDING = "the view can still accept, or answer with HTTP"
    ACCEPTED = "the 101 has left, or is just leaving"
    REFUSED = "the view can accept no more: HTTP answers"


class _Pending(NamedTuple):
    """Everything that an opening needs until it is decided: else it would live as long as the view."""

    entry: Entry
    server: Server
    options: conf.Options
    shook: Handshake | None
    opened: Callable[[Connection], None]


class Opening:
    """The opening handshake of one request: pending, accepted or refused, once and for all.

    `shook` is what the client has sent; None where the server has sent the 101 and the handshake is refused all the
    same. `opened` is called with the open connection, once; it may wait.
    """

    __slots__ = (
        "_cookies",
        "_decided",
        "_entry",
        "_exclusively",
        "_members",
        "_pending",
        "_turnstile",
        "connection",
        "detaches",
        "handlers",
        "outcome",
        "refusal",
        "server_sent_101",
        "subprotocol",
    )

    def __init__(
        self,
        entry: Entry,
        server: Server,
        options: conf.Options,
        shook: Handshake | None,
        opened: Callable[[Connection], None],
    ) -> None:
        self.outcome = Outcome.PENDING
        self.connection: Connection | None = None
        self.refusal: Close | None = None
        self.subprotocol: str | None = None
        self.server_sent_101 = server.has_answered
        self.detaches = options.detach and server.can_detach
        self.handlers: Handlers | None = None  # of a view that has called `stay_open()`
        self._entry: Entry | None = entry  # for its groups, until its view ends
        self._members: Memberships | None = None
        self._pending: _Pending | None = _Pending(entry, server, options, shook, opened)
        self._turnstile: AbstractContextManager[object] = entry.reactor.turnstile()
        self._exclusively: Exclusively = entry.reactor.exclusively()
        self._decided: Latch | None = entry.reactor.latch()  # None once it is open
        self._cookies: Sequence[tuple[str, str]] = ()  # of the session, as headers of the 101

    def wait(self) -> None:
        """Return when the view has accepted, or has ended."""
        decided = self._decided
        if decided is not None:
            decided.wait()

    def end_wait(self) -> None:
        """Let `wait()` return: the view has accepted, or has ended."""
        decided, self._decided = self._decided, None
        if decided is not None:
            decided.set()

    def accept(self, subprotocol: str | None, headers: Headers | None) -> None:
        """Send the 101 and open the connection, unless that was done. Several threads may call it at the same time.

        WebSocketClosed where it was refused; ValueError for a subprotocol or header that cannot be sent. What the
        session's middleware raises is raised. In all these cases nothing has been sent.
        """
        pending: _Pending | None = None
        try:
            with self._turnstile:
                pending = self._pending
                if pending is not None:
                    self._cookies = sessions.save(pending.entry.request) or self._cookies  # one may have failed before
                self._exclusively(lambda: self._accept(pending, subprotocol, headers))
                # Nothing changes any more: the next one finds it accepted.
                self._turnstile, self._exclusively, self._cookies = _NO_TURNSTILE, _at_once, ()
        finally:  # also where something has failed behind the 101: the end will be told, so the opening must be
            if pending is not None and self.connection is not None:
                pending.opened(self.connection)

    def refuse(self, close: Close) -> None:
        """Let no `accept()` succeed any more, unless one has. `close` says why; the first refusal counts."""
        self._exclusively(lambda: self._refuse(close))

    def members(self) -> Memberships | None:
        """The groups of this WebSocket; None once its view has ended."""
        if self._members is None:
            exclusively(self._make_members)  # that of the opening ends with the 101
        return self._members

    def stay_open(self, handlers: Handlers) -> HttpResponse:
        """The response of a view whose connection stays open. Decorators and mixins may look at it; it is never sent.

        RuntimeError for a second call, and once the view has ended.
        """
        if self.handlers is not None or self._entry is None:
            raise RuntimeError(
                "stay_open() was called before, or the view has ended: call it once, and return what it gives; a"
                " WebSocketView does not call it"
            )
        self.handlers = handlers
        return HttpResponse()

    def begin_stay(self) -> Handlers | None:
        """Take the functions that are called from now on; None where the view has not called `stay_open()`."""
        handlers = self.handlers
        if handlers is not None:
            self.handlers = BEGUN
        return handlers

    @property
    def joined(self) -> Memberships | None:
        """The groups of this WebSocket, if it has asked for some."""
        return self._members

    @property
    def parks(self) -> bool:
        """Whether the view needs no greenlet or thread while it stays open."""
        return self.detaches and self._entry is not None and self._entry.reactor.parks

    def _make_members(self) -> None:
        if self._members is None and self._entry is not None:
            self._members = Memberships(self._entry)

    def over(self) -> None:
        """The view has ended, and so has the connection: without a cycle, all memory is freed at once."""
        if self._entry is not None and self.connection is None:  # there was none whose end could tell
            self._entry.over()
        self._entry = self._members = None

    def _refuse(self, close: Close) -> None:
        pending = self._pending
        if pending is None:
            return
        self.outcome, self.refusal, self._pending = Outcome.REFUSED, close, None
        if self._cookies:  # accept() has failed: the answer carries the cookie of the session that was saved
            pending.entry.request.session.modified = True

    def _accept(self, pending: _Pending | None, subprotocol: str | None, headers: Headers | None) -> None:
        if self.refusal is not None:
            raise WebSocketClosed(*self.refusal)
        if pending is None:
            return
        entry, _server, options, shook, _opened = pending
        response = b""
        extensions: Sequence[Extension] = ()
        if shook is not None and not self.server_sent_101:
            if subprotocol is None:
                subprotocol = handshake.choose_subprotocol(shook.subprotocols, options.subprotocols)
            extensions, agreed = _agree_on_extensions(shook, options)
            response = shook.response(subprotocol, [*handshake.pairs(headers), *self._cookies], extensions=agreed)
        connection, early = self._take_over(pending, extensions)
        self._pending = None
        entry.opened(connection)  # before the 101: a client that has it finds itself in `connections()`
        try:
            connection.open(response, early)
        finally:  # and behind it: another thread that finds the connection here may use it
            self.outcome, self.connection, self.subprotocol = Outcome.ACCEPTED, connection, subprotocol
        try:
            if options.guard:
                guards.watch(entry, options.guard, options.guard_interval)
            if registry.is_ending:  # `go_away()` may have come too early
                connection.go_away(conf.get("SHUTDOWN_CODE"))
        finally:  # the client has its 101, whatever failed
            if self.detaches:
                slim(entry.request, pending.server)
            self.end_wait()

    def _take_over(self, pending: _Pending, extensions: Sequence[Extension]) -> tuple[Connection, bytes]:
        """A connection on the socket of the server, and what the server has read of it already.

        Where that fails the socket is closed: HTTP cannot answer on it any more.
        """
        entry, server, options, _shook, _opened = pending
        request = entry.request
        if self.detaches and server.reuses_environ:
            request.environ = request.META = dict(request.META)  # type: ignore[attr-defined]
        taken = server.detach() if self.detaches else server.attach()

        try:
            connection = Connection(
                taken.sock, entry.reactor, limits=options.limits, extensions=extensions,
                dispose=_Disposal(taken.dispose, entry), descriptor=taken.descriptor,
            )  # fmt: skip
        except BaseException:  # no thread can be started, or no memory is left
            self._refuse(_LOST)
            taken.dispose()
            raise
        return connection, taken.early


class _Disposal:
    """The end of a taken socket: it is given back, and its entry is told. 48 bytes; a closure would hold 290."""

    __slots__ = ("_dispose", "_entry")

    def __init__(self, dispose: Callable[[], None], entry: Entry) -> None:
        self._dispose = dispose
        self._entry = entry

    def __call__(self) -> None:
        try:
            self._dispose()
        finally:
            self._entry.over()


def _at_once(function: Callable[[], None]) -> None:
    function()


def _agree_on_extensions(shook: Handshake, options: conf.Options) -> tuple[Sequence[Extension], list[str]]:
    """The extensions of a connection, and how the 101 names them."""
    # A few bytes inflate to a thousand times as many: nothing to give on piece by piece in bounded memory.
    compression = None if options.limits.streaming else options.compression
    agreement = None if compression is None else deflate.agree(shook.extensions, compression)
    if compression is None or agreement is None:
        return (), []
    extension = deflate.PerMessageDeflate(agreement, compression, max_message_size=options.limits.max_message_size)
    return [extension], [agreement.header()]
