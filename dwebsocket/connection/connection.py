"""One live connection: the way of a message from the socket to the view, and the calls that concern all of it.

The classes of a connection, each made on the one below it:

connection  receives: reads, parses, keeps the inbox
sending     sends: messages, fragments, frames that are offered
lifetime    waits, keeps the deadlines, and ends

Beside them, without a socket or a clock, and made when they are first needed:

ending      the phases of the end, and the steps between them
keepalive   pings, latency, idleness
outbox      bytes that the kernel has not taken
batch       answers that leave together
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

try:
    import cython
except ImportError:
    from .. import _compiled as cython

from ..protocol.codes import CloseCode
from ..protocol.endpoint import Endpoint, Pong, State
from ..protocol.exceptions import WebSocketClosed
from ..protocol.extensions import Extension
from ..protocol.messages import Message, Part
from ..protocol.parser import at_most
from ..reactors.base import Reactor, Turn
from ..reactors.clock import monotonic
from .batch import Batch
from .lifetime import on_reactor_thread
from .limits import Limits
from .sending import Sending
from .sockets import READ_BYTES, receive

_MESSAGES_PER_TURN = 64  # handed on to a parked view before others have their turn
_FRAMES_PER_TURN = 256  # parsed per callback, so that one flooding peer cannot starve the others
_DECODED_BYTES_PER_TURN = 1024 * 1024  # inflated per callback: a megabyte takes one to three milliseconds
_STREAM_BYTES = 4 * READ_BYTES  # reading pauses when so much waits of a message that is read in parts

_OPEN, _ENDING = State.OPEN, State.ENDING


def memory_size(message: Message) -> int:
    """Return how many bytes `message` takes in memory: one 🎉 makes four of each character of its text."""
    if isinstance(message, bytes):
        return len(message)
    if cython.compiled:
        return text_size(message)  # type: ignore # noqa: F821
    return len(message) if message.isascii() else sys.getsizeof(message)


class Connection(Sending):
    """An open WebSocket on a socket, served by a reactor.

    Reading is pushed: bytes are parsed as they arrive, control frames are answered, messages go to the inbox. When the
    inbox is full (`receive_queue` messages, or `max_message_size` bytes), reading stops until a view takes one.

    The end of the peer's side is answered when the messages before it have been taken and answered. A taker that comes
    back for more has answered: one call of `receive()` counts for one message. Others get `close_timeout` seconds.

    `sock` is used non-blocking. `descriptor` is its number if no other code can close it, else -1. `dispose` is called
    once, when the socket is not needed any more.
    """

    __slots__ = (
        "_gathered",
        "_gathers_text",
        "_inbox_max_bytes",
        "_receive_queue",
        "bytes_received",
        "messages_received",
    )

    def __init__(
        self,
        sock: Any,
        reactor: Reactor,
        *,
        limits: Limits,
        dispose: Callable[[], None],
        extensions: Sequence[Extension] = (),
        descriptor: int = -1,
    ) -> None:
        endpoint = Endpoint(max_message_size=limits.max_message_size, extensions=extensions, streaming=limits.streaming)
        super().__init__(sock, reactor, endpoint, limits, dispose, descriptor)
        self.messages_received = self.bytes_received = 0
        self._receive_queue = at_most(limits.receive_queue)
        self._inbox_max_bytes = _STREAM_BYTES if limits.streaming else at_most(limits.max_message_size)
        self._gathered: bytearray | None = None  # the parts that `receive_whole()` has taken of its message
        self._gathers_text = False

    # The verbs

    @on_reactor_thread
    def open(self, response: bytes, early: bytes) -> None:
        """Send `response` (the 101), then read: first `early`, the bytes that the server had read already."""
        self.endpoint.accepted()
        self._written -= len(response)  # from here on it counts frames
        self._write(response)
        if early:
            self.bytes_received += len(early)
            self.endpoint.feed(early)
            self._parse()
        self._settle()
        self._schedule()

    def receive(
        self, timeout_seconds: float | None = None, unless: Callable[[], bool] | None = None
    ) -> Message | Part | None:
        """Return the next message; None when none comes within the time, or the connection has ended.

        Also None when no message is here and `unless()` is true: it is asked at once, and again after `notify()`. It
        must neither wait nor use the connection. With `streaming` the message may be a Part.
        """
        if self.is_foreign_thread():
            return self.call_on_reactor(self._receive_next, (timeout_seconds, unless), self._put_back)
        self._enter()
        try:
            return self._receive_next(timeout_seconds, unless)
        finally:
            self._leave()

    @on_reactor_thread
    def receive_whole(
        self, timeout_seconds: float | None = None, unless: Callable[[], bool] | None = None
    ) -> Message | None:
        """Return the next message, put together from its parts, where `streaming` gives them; None as for `receive()`.

        Where it returns before the message is whole, the parts so far are kept. They are taken and put together under
        the lock: callers in several threads go on with one message. A message of more than `max_message_size` bytes
        closes with 1009.
        """
        deadline = None if timeout_seconds is None else monotonic() + timeout_seconds
        while True:
            part = self._receive_next(None if deadline is None else deadline - monotonic(), unless)
            if not isinstance(part, Part):
                return part
            if self._gather(part.data) and part.fin:
                return self._take_gathered()

    def hand_on(self, received: Callable[[Any], object], late_at: float) -> bool | None:
        """Call `received` with each message that has arrived. Neither waits nor looks at the socket.

        False when all are handed on, True when there may be more: it stops at `late_at` (time.monotonic()), or after
        64 messages. None when the connection is over.
        """
        for _ in range(_MESSAGES_PER_TURN):
            message = self.take()
            if message is None:
                return None if self._is_over() else False
            received(message)
            if monotonic() >= late_at:
                break
        return True

    def take(self) -> Message | Part | None:
        """Return the next message that has arrived; None when none has. Neither waits nor looks at the socket."""
        if self.is_foreign_thread():
            return self.call_on_reactor(self._take_next, ())
        self._enter()
        try:
            return self._take_next()
        finally:
            self._leave()

    def _take_next(self) -> Message | Part | None:
        self._come_back()
        if self._inbox:
            return self._take()
        if self._batch is not None:
            self._send_batch()
        return None

    @on_reactor_thread
    def employ(self, turn: Turn) -> None:
        """Have `turn` run whenever something has happened that a view waits for: see `Link.employ()`."""
        self._link.employ(turn)

    @on_reactor_thread
    def dismiss(self) -> None:
        """Run no turn any more."""
        self._link.dismiss()

    @property
    def is_employed(self) -> bool:
        """Whether there is a turn to run; not in the child of a fork."""
        return self._link.turn is not None

    @property
    def is_disposed(self) -> bool:
        """Whether the socket is not needed any more."""
        return self._dispose is None

    def notify(self) -> None:
        """Let those that wait in `receive()` ask `unless` again. For any thread or greenlet; never waits."""
        if self.is_foreign_thread():
            self.reactor.post(self._wake)
        elif self.lock is None:
            self._wake()
        else:
            self.lock.post(self._wake)

    def _wake(self) -> None:
        self._link.wake()

    @on_reactor_thread
    def receive_begun(self) -> Message:
        """Take the parts that `receive_whole()` has of an incomplete message, for a caller that reads on in parts."""
        return self._take_gathered()

    @on_reactor_thread
    def waiting(self) -> int:
        """Return how many messages are waiting to be taken."""
        if not self._inbox:
            self._send_batch()
            self._link.look(pause=True)
        return sum(not isinstance(message, Part) or message.fin for message in self._inbox)

    @on_reactor_thread
    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Begin the closing handshake, or answer the peer's; messages not yet taken are dropped. Does not block."""
        self._end(self.endpoint.close(code, reason))

    def close_soon(self, code: int, reason: str = "") -> None:
        """Close as `close()` does, but never wait for a thread inside another call here: that thread closes then."""
        self._post(functools.partial(self._close_now, code, reason))

    def go_away(self, code: int) -> None:
        """Close as `close_soon()` does, for a process that ends: a peer gets two seconds of silence to answer."""
        self._post(functools.partial(self._go_away_now, code))

    @on_reactor_thread
    def fail(self, code: int, reason: str = "") -> None:
        """Close with `code` and drop everything that still arrives (7.1.7). Does not block."""
        self._end(self.endpoint.fail(code, reason))

    @on_reactor_thread
    def abort(self, reason: str) -> None:
        """Give the connection up at once, without a closing handshake."""
        self._abort(reason)

    @on_reactor_thread
    def finish(self) -> None:
        """Close if that has not been done, and return when the socket is not needed any more.

        It waits at most `close_timeout` seconds for the peer's Close frame, and as many for the end of its stream. Two
        seconds without a byte from the peer end that second wait, too.
        """
        try:
            self._end(self.endpoint.close())
            while self._dispose is not None:
                self._sleep(None)
        finally:  # this greenlet or thread may be stopped while it waits
            self._abort("the server did not wait for the closing handshake")

    @property
    def closed(self) -> bool:
        """Whether the end has come: ours, or the peer's with nothing before it left to be taken."""
        self.look()
        return self.is_over

    @property
    def is_over(self) -> bool:
        """Whether the end has come, as far as it has been noticed."""
        return self._is_over()

    def _is_over(self) -> bool:
        state = self.endpoint.state
        return state is not _OPEN and (state is not _ENDING or not self._inbox)

    @on_reactor_thread
    def look(self) -> None:
        """Notice what has already happened to the socket; lets others run when a loop calls it again and again."""
        self._send_batch()
        self._link.look(pause=False)
        now = monotonic()
        self._notice_hangup_while_paused(now)
        self._link.breathe(now)

    # Called by the reactor

    def on_fork(self) -> None:
        """End here, in the child of a fork, without a byte sent: the connection is the parent's."""
        self._owner_thread = 0  # the hub's thread is the parent's, too
        # No shutdown(): the stream is the parent's.
        self._give_up("this process is the child of a fork", WebSocketClosed)
        self._dispose = None
        self._sending_parts = False
        self._drop_inbox()
        self._batch = None
        if self._descriptor >= 0:
            self._socket.close()  # our copy of it: else the peer would hear of the parent's end only at ours

    def on_readable(self) -> None:
        """Read once, or go on with what was read, and act on its frames."""
        try:
            if self.endpoint.has_more:
                self._parse()
            else:
                data = receive(self._socket, self._descriptor)
                if data is None:
                    return
                if data:
                    self.last_read_at = monotonic()
                    self.bytes_received += len(data)
                    self.endpoint.feed(data)
                    self._parse()
                else:
                    self._read_ended = True
                    self.endpoint.receive_eof()
            self._settle()
        except Exception:
            self._break_off()

    # Reading

    def _receive_next(
        self, timeout_seconds: float | None, unless: Callable[[], bool] | None = None
    ) -> Message | Part | None:
        if self.endpoint.has_more:  # breathe before a message is taken, so that a view stopped meanwhile loses none
            self._link.breathe(monotonic())
        self._come_back()
        if not self._inbox:
            if self._batch is not None:
                self._send_batch()
            if unless is not None:
                self._wait_unless(timeout_seconds, unless)
            elif timeout_seconds is not None:
                self._wait_for_message(timeout_seconds)
            else:
                while not self._inbox and self.endpoint.state is _OPEN:
                    if self.wait_hook is None:
                        self._link.sleep(None)
                    else:
                        self._sleep(None)
            if not self._inbox:
                if self.endpoint.state is not _OPEN:
                    self._link.breathe(monotonic())  # lets others run when a loop takes the end for silence
                return None
        return self._take()

    def _come_back(self) -> None:
        """The view comes for more: it has answered what it took."""
        if self._answers_owed:
            self._answers_owed -= 1
        if self.endpoint.state is _ENDING:  # the end may have its turn
            self._settle()

    def _gather(self, data: Message) -> bool:
        """Append `data` to the parts taken of its message; False, and the connection ends, when that is too much."""
        # A bytearray, for the same reason as in Assembler: a list of pieces costs fifty times their bytes.
        if self._gathered is None:
            self._gathered = bytearray()
        self._gathers_text = isinstance(data, str)
        self._gathered += data.encode() if isinstance(data, str) else data
        limit = self.limits.max_message_size
        if limit is None or len(self._gathered) <= limit:
            return True
        self._gathered = None
        self._end(self.endpoint.fail(CloseCode.MESSAGE_TOO_BIG, f"message of more than {limit} bytes"))
        return False

    def _take_gathered(self) -> Message:
        gathered, self._gathered = self._gathered or b"", None
        return gathered.decode() if self._gathers_text else bytes(gathered)

    def _wait_for_message(self, timeout_seconds: float) -> None:
        deadline = monotonic() + timeout_seconds
        if timeout_seconds <= 0:
            self._link.look(pause=True)
        while not self._inbox and self.endpoint.state is _OPEN and self._sleep(deadline):
            pass

    def _wait_unless(self, timeout_seconds: float | None, unless: Callable[[], bool]) -> None:
        now = monotonic()
        deadline = None if timeout_seconds is None else now + timeout_seconds
        if unless() or (timeout_seconds is not None and timeout_seconds <= 0):
            # A view that always has something else to do must not pass over its messages, nor keep others from running.
            self._link.look(pause=False)
            self._link.breathe(now)
        while not self._inbox and self.endpoint.state is _OPEN and not unless() and self._sleep(deadline):
            pass

    def _parse(self) -> None:
        """Parse what was read, until the inbox is full or others should have their turn."""
        endpoint = self.endpoint
        frames_left = _FRAMES_PER_TURN
        endpoint.decoded_bytes = 0
        while endpoint.has_more and self._wants_to_read():
            if not frames_left or endpoint.decoded_bytes >= _DECODED_BYTES_PER_TURN:
                self._link.resume()
                break
            frames_left -= 1
            event = endpoint.advance()
            if isinstance(event, (str, bytes, Part)):
                self.last_message_at = self.last_read_at
                self._inbox.append(event)
                if isinstance(event, (str, bytes)):
                    self._inbox_bytes += memory_size(event)
                    self.messages_received += 1
                else:
                    self._inbox_bytes += memory_size(event.data)
                    self.messages_received += event.fin
            elif isinstance(event, Pong):
                self._receive_pong(event)
        if endpoint.output:
            self._answer_pings(endpoint.data_to_send())
        if endpoint.empty_frames:
            endpoint.limit_empty_frames(self.last_read_at)

    def _receive_pong(self, pong: Pong) -> None:
        if self._keep_alive is not None and self._keep_alive.pong(pong.payload, self.last_read_at):
            self._schedule()

    def _take(self) -> Message | Part:
        message = self._inbox.pop(0)
        self._inbox_bytes -= memory_size(message if isinstance(message, (str, bytes)) else message.data)
        self._answers_owed += 1
        if self._ending is not None:
            self._ending.taken(monotonic())
        link = self._link
        if self._inbox and link.holds:
            if self._batch is None:
                self._batch = Batch()
            self._batch.took(monotonic())
        if not link.reads and not self._read_ended:  # the inbox was full
            if self.endpoint.has_more:
                self._parse()
            self._settle()
        return message

    def _put_back(self, message: Message | Part | None) -> None:
        """Let `message` be the next one again: its taker was stopped before it had it."""
        if message is not None and self._may_send():
            self._inbox.insert(0, message)
            self._inbox_bytes += memory_size(message if isinstance(message, (str, bytes)) else message.data)
            self._answers_owed -= self._answers_owed > 0
            self._settle()

    def _wants_to_read(self) -> bool:
        if self._read_ended:
            return False
        if self.endpoint.state is not _OPEN or not self._inbox:
            return True  # after the end, to drop what still arrives until the stream ends
        return len(self._inbox) < self._receive_queue and self._inbox_bytes < self._inbox_max_bytes
