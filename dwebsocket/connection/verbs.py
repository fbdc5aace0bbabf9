"""The verbs a view calls."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from threading import get_ident
from typing import Any, Protocol, TypeVar, overload

from ..protocol.codes import CloseCode
from ..protocol.endpoint import State
from ..protocol.exceptions import WebSocketClosed
from ..protocol.frames import Close
from ..protocol.handshake import Headers
from ..protocol.messages import Message, Part, as_message
from .connection import Connection

T = TypeVar("T")


class Opening(Protocol):
    """The opening handshake, as far as the verbs know it."""

    #: The open connection; None until it was accepted.
    connection: Connection | None

    #: Why it was refused; None where it was not.
    refusal: Close | None

    #: The subprotocol that was agreed on.
    subprotocol: str | None

    def accept(self, subprotocol: str | None, headers: Headers | None) -> None:
        """Send the 101, unless that was done."""
        ...  # pragma: no cover

    def refuse(self, close: Close) -> None:
        """Let no `accept()` succeed any more, unless one has."""
        ...  # pragma: no cover


_REFUSED = "the opening handshake was refused"


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")  # RFC 8259, 6


def _finite(number: str) -> float:
    """`number` as a float. ValueError where it is too large for one: an echo of 1e999 would go out as Infinity."""
    value = float(number)
    if math.isinf(value):
        raise ValueError(f"{number} is too large for a float")
    return value


class Verbs:
    """The verbs of a WebSocket. `WebSocket` adds nothing, and is made of Python, so that methods can be replaced."""

    def __init__(self, opening: Opening, *, json_encoder: type[json.JSONEncoder] = json.JSONEncoder) -> None:
        self._opening = opening
        self._connection: Connection | None = None  # that of the opening, once a verb has needed it
        self._json_encoder = json_encoder
        self._told: set[object] | None = None  # the threads, or greenlets, that know that no message will come any more
        self._in_message = False  # a message is being taken in chunks

    def __iter__(self) -> Iterator[Message]:
        """Every message until the connection closes; then it simply ends."""
        if self._end_was_told:
            self._let_others_run()
        if type(self).wait is Verbs.wait:
            while (message := self._next(None)) is not None:
                yield message
        else:
            while not self._end_was_told and (message := self.wait()) is not None:
                yield message

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.state.name} at {id(self):#x}>"

    def accept(self, subprotocol: str | None = None, headers: Headers | None = None) -> None:
        """Complete the opening handshake now: the 101 is sent, and the connection is open (RFC 6455, 4.2.2).

        `subprotocol` must be one that the client offered; without it the first of the configured ones that the client
        offered is chosen. `headers` are added to the 101. Only the first call does something.

        ValueError for a subprotocol that was not offered or a header that cannot be set: nothing has been sent then.
        WebSocketClosed after `close()`.
        """
        try:
            self._opening.accept(subprotocol, headers)
        except WebSocketClosed as error:
            error.websocket = self
            raise

    def wait(self, timeout: float | None = None) -> Message | None:
        """The next message: str for text, bytes for binary.

        None when the connection is over, once for each thread: its next call raises WebSocketClosed. None, each time,
        when `timeout` seconds have passed. Without a timeout it blocks until there is a message, or the end.
        """
        if self._told is not None and self._end_was_told:
            self._refuse_to_wait()
        return self._next(timeout)

    def _next(self, timeout: float | None, unless: Callable[[], bool] | None = None) -> Message | None:
        connection = self._connection
        if connection is None:
            connection = self._open()
        if connection is None:
            self._tell_end()
            return None
        # Parts come with streaming only.
        streams = connection.endpoint.streaming
        message: Any = self._gather(connection, timeout, unless) if streams else connection.receive(timeout, unless)
        if message is None and connection.is_over:
            self._tell_end()
        return message  # type: ignore[no-any-return]

    # Called by `WebSocket`, which is made of Python

    def _next_unless(self, timeout: float | None, unless: Callable[[], bool]) -> Message | None:
        """The next message; None, too, as soon as `unless()` is true."""
        return self._next(timeout, unless)

    def _open_to_stay(self) -> None:
        """Open the connection, if it is not yet. WebSocketClosed where it was refused."""
        self._open_to_send()  # where this is compiled, a function of C, which only this module can call

    def _open_to_join(self) -> Connection:
        """The connection, opened if it is not yet. WebSocketClosed when it is over."""
        connection = self._open_to_send()
        if connection.is_over:
            raise self._end_error()
        return connection

    @property
    def _end_was_told(self) -> bool:
        """Whether the calling thread, or greenlet, was told that no message will come any more."""
        return self._told is not None and self._caller() in self._told

    def _tell_end(self) -> None:
        if self._told is None:
            self._told = set()
        self._told.add(self._caller())

    def _caller(self) -> object:
        connection = self._find()
        return get_ident() if connection is None else connection.reactor.caller()

    def _refuse_to_wait(self) -> None:
        """Raise what ends a loop that has been told of the end, and did not end by itself."""
        self._let_others_run()  # it may be caught
        raise self._end_error()

    def _let_others_run(self) -> None:
        if self._connection is not None:
            self._connection.look()

    def _end_error(self) -> WebSocketClosed:
        return self._closed_error(self.close_code or CloseCode.ABNORMAL_CLOSURE, self.close_reason)

    @overload
    def read(self) -> Message | None: ...
    @overload
    def read(self, fallback: T) -> Message | T: ...
    def read(self, fallback: T | None = None) -> Message | T | None:
        """The next message if one is here, else `fallback`. Never blocks. After the end as `wait()`."""
        message = self.wait(0)
        return fallback if message is None else message

    def has_messages(self) -> bool:
        """Whether a complete message is waiting. Never blocks."""
        return self.count_messages() > 0

    def count_messages(self) -> int:
        """Count the complete messages that are waiting. Never blocks."""
        connection = self._open()
        return 0 if connection is None else connection.waiting()

    def send(self, message: str | bytes | bytearray | memoryview) -> None:
        """Send `message`: str as text, bytes-like as binary. Messages of several senders never mix.

        Blocks while the peer is slow. TypeError for anything else; WebSocketClosed when the connection is closed;
        SendTimeout, which is one too, when the peer does not read for `send_timeout` seconds.
        """
        if not isinstance(message, str) and type(message) is not bytes:
            message = self._message(message)
        connection = self._connection
        if connection is None:
            connection = self._open_to_send()
        try:
            connection.send(message)
        except WebSocketClosed as error:
            error.websocket = self
            raise

    def receive_chunks(self) -> Iterator[Message]:
        """The next message in chunks, as they arrive: str or bytes. It may be larger than memory.

        For views with the option `streaming=True`; without it the message comes whole, as one chunk. Ends with the
        message, or at once when the connection closes before another one begins; after that, WebSocketClosed. Also
        when it closes in the middle of a message. What is not taken of a message is skipped.
        """
        if self._told is not None and self._end_was_told:
            self._refuse_to_wait()
        connection = self._open()
        if connection is None or not self._skip_rest(connection, None):
            self._tell_end()
            return
        if begun := connection.receive_begun():  # by a `wait()` whose time was over before the rest came
            self._in_message = True
            yield begun
        while (part := connection.receive()) is not None:
            if not isinstance(part, Part):
                yield part
                return
            self._in_message = not part.fin
            if part.data:
                yield part.data
            if part.fin:
                return
        self._tell_end()
        if self._in_message:
            raise self._end_error()

    def send_chunks(self, chunks: Iterable[str | bytes | bytearray | memoryview]) -> None:
        """Send one message, a fragment for each of `chunks`, as they come: all str (text) or all bytes-like (binary).

        It may be larger than memory. Other senders wait until it has been sent, so `chunks` itself must not send. No
        chunk at all is an empty text message. Errors as for `send()`; one that comes in the middle of the message
        closes with 1011, for the message has no end then.
        """
        connection = self._open_to_send()
        connection.begin_message()
        empty: Message | None = None  # of the type of the chunks, once there was one
        try:
            for chunk in chunks:
                data = self._message(chunk)
                if empty is not None and not isinstance(data, type(empty)):
                    raise TypeError(f"this message is {type(empty).__name__}, and so must all its chunks be")
                is_first, empty = empty is None, data[:0]  # before the call: half a message may leave, and a stop come
                connection.send_fragment(data, is_first, False)
            connection.send_fragment("" if empty is None else empty, empty is None, True)
        except BaseException as error:
            if isinstance(error, WebSocketClosed) and error.websocket is None:
                error.websocket = self
            if empty is not None:
                connection.fail(CloseCode.INTERNAL_ERROR, "the message was not finished")
            raise
        finally:
            connection.end_message()

    def wait_json(self, timeout: float | None = None) -> Any:
        """The next message, decoded from JSON; None as for `wait()`, and for `null`.

        A message that is no JSON, or has a number that is too large for a float, closes with 1007.
        """
        message = self.wait(timeout)
        connection = self._find()
        if message is None or connection is None:
            return None
        try:
            return json.loads(message, parse_constant=_refuse_constant, parse_float=_finite)
        except (ValueError, RecursionError):  # not JSON, or deeper than anybody means it
            connection.fail(CloseCode.INVALID_FRAME_PAYLOAD_DATA, "not JSON")
            self._tell_end()
            return None

    def send_json(self, obj: Any) -> None:
        """Send `obj` as JSON text, encoded as Django does it (dates, decimals, UUIDs). Errors as for `send()`.

        ValueError for NaN and Infinity, which JSON has not (RFC 8259, 6): a browser's `JSON.parse` throws at them.
        """
        self.send(json.dumps(obj, cls=self._json_encoder, allow_nan=False))

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Begin the closing handshake (RFC 6455, 7.1.2); before the 101, refuse it with 403. Does not block.

        ValueError for a code that may not be sent (1000 to 1003, 1007 to 1014 and 3000 to 4999 may), or a reason of
        more than 123 bytes in UTF-8; TypeError for a reason that is no str. Only the first call does something.
        """
        self._opening.refuse(Close.checked(code, reason))
        connection = self._find()
        if connection is not None:
            connection.close(code, reason)

    def is_closed(self) -> bool:
        """The same as `closed`."""
        return self.closed

    @property
    def closed(self) -> bool:
        """Whether the connection is over: the peer is gone, or we closed, and no message is left to be read."""
        connection = self._find()
        return connection.closed if connection is not None else self._opening.refusal is not None

    @property
    def state(self) -> State:
        """Where the connection stands; `State.CONNECTING` until the 101 has been sent."""
        connection = self._find()
        if connection is not None:
            return connection.endpoint.state
        return State.CONNECTING if self._opening.refusal is None else State.CLOSED

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that was chosen; None without one, and before the 101."""
        return self._opening.subprotocol

    @property
    def close_code(self) -> int | None:
        """The code of the Close frame that began the end; 1005 if it had none, 1006 if there was no such frame."""
        connection, refusal = self._find(), self._opening.refusal
        if connection is not None:
            return connection.endpoint.close_code
        return None if refusal is None else refusal.code

    @property
    def close_reason(self) -> str:
        """The reason that came with `close_code`, or a description of what ended the connection; "" before."""
        connection, refusal = self._find(), self._opening.refusal
        if connection is not None:
            return connection.endpoint.close_reason
        return "" if refusal is None else refusal.reason

    @property
    def latency(self) -> float | None:
        """Seconds between the last ping that was answered and its pong; None before the first."""
        connection = self._find()
        return None if connection is None else connection.latency

    def _find(self) -> Connection | None:
        """The connection, if it is open by now: another thread may have accepted."""
        if self._connection is None:
            self._connection = self._opening.connection
        return self._connection

    def _open(self) -> Connection | None:
        """The connection, opened if it is not yet; None when it was refused."""
        if self._find() is None:
            if self._opening.refusal is not None:
                return None
            self.accept()
        return self._find()

    def _gather(
        self, connection: Connection, timeout: float | None, unless: Callable[[], bool] | None
    ) -> Message | None:
        """The next message of a streaming connection as a whole; what has come of it is kept when the time is over."""
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self._skip_rest(connection, timeout):
            return None
        return connection.receive_whole(None if deadline is None else deadline - time.monotonic(), unless)

    def _skip_rest(self, connection: Connection, timeout: float | None) -> bool:
        """Drop what `receive_chunks()` left of a message; False when the time is over, or the connection closed."""
        while self._in_message:
            part = connection.receive(timeout)
            if not isinstance(part, Part):
                return False
            self._in_message = not part.fin
        return True

    def _message(self, message: object) -> Message:
        try:
            return as_message(message)
        except TypeError:
            if self.closed:  # `send(wait())` after the peer has left: that it left is what counts, not the None
                raise self._closed_error(self.close_code or CloseCode.NORMAL_CLOSURE, self.close_reason) from None
            raise

    def _open_to_send(self) -> Connection:
        connection = self._open()
        if connection is None:
            raise self._closed_error(self.close_code or CloseCode.NORMAL_CLOSURE, _REFUSED)
        return connection

    def _closed_error(self, code: int, reason: str) -> WebSocketClosed:
        error = WebSocketClosed(code, reason)
        error.websocket = self
        return error
