"""One live connection: the way of a message, and the facts that its end, its pings and its outbox are judged by.

Beside it, without a socket or a clock, and made when they are first needed:

ending      the phases of the end, and the steps between them
keepalive   pings, latency, idleness
outbox      what the kernel has not taken
batch       answers that leave together
"""

from __future__ import annotations

import _socket
import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

try:
    import cython
except ImportError:
    from .protocol import uncompiled as cython

from .batch import Batch
from .clock import monotonic
from .lifetime import Keeper as Keeper
from .lifetime import Lifetime
from .limits import Limits as Limits
from .outbox import Outbox
from .protocol.codes import CloseCode
from .protocol.endpoint import Endpoint, Pong, State
from .protocol.exceptions import WebSocketClosed
from .protocol.extensions import Extension
from .protocol.messages import Message, Part
from .protocol.parser import at_most
from .reactors.base import Reactor
from .sockets import READ_BYTES, receive, send, send_both

_FRAMES_PER_TURN = 256  # that are looked at before other connections have their turn
_DECODED_BYTES_PER_TURN = 1024 * 1024  # of compressed frames: to inflate a megabyte takes one to three milliseconds
_LARGE_BYTES = 16 * 1024  # of a payload that is not worth copying behind its header
_STREAM_BYTES = 4 * READ_BYTES  # what waits of a message that is read in parts
_OFFERED_BYTES = 1024 * 1024  # that may wait for a slow peer before another frame is refused

_OPEN, _ENDING, _CLOSED = State.OPEN, State.ENDING, State.CLOSED

T = TypeVar("T")
Method = TypeVar("Method", bound=Callable[..., Any])


def memory_size(message: Message) -> int:
    """How many bytes `message` takes in memory: one 🎉 makes four of each character of its text."""
    if isinstance(message, bytes):
        return len(message)
    if cython.compiled:
        return text_size(message)  # type: ignore # noqa: F821
    return len(message) if message.isascii() else sys.getsizeof(message)


def at_home(method: Method) -> Method:
    """The method, run where the connection lives, with its lock held, from whatever thread it is called."""

    @functools.wraps(method)
    def call(self: Connection, *arguments: Any) -> Any:
        return self.call_at_home(method, self, *arguments)

    return call  # type: ignore[return-value]


class Connection(Lifetime):
    """An open WebSocket on a socket, served by a reactor.

    Reading is pushed: what arrives is parsed at once, control frames are answered, messages go to the inbox. When the
    inbox is full (`receive_queue` messages, or `max_message_size` bytes), reading stops until somebody takes one. The
    end of the peer's side is answered when the messages before it have been taken and the taker has come back for
    more; a taker that does not is waited for `close_timeout` seconds.

    Answers to messages that have arrived together may leave together, where the reactor sees to it that they leave
    before anybody waits: when the one who sends them comes to the last message, or takes his time for one.

    A `keeper` is asked by whoever waits here, before and after.

    `sock` is used non-blocking. `descriptor` is its number if nobody else can close it, else -1. `dispose` is called
    once, when the socket is not needed any more.
    """

    __slots__ = (
        "_batch",
        "_compresses",
        "_descriptor",
        "_gathered",
        "_gathers_text",
        "_home",
        "_inbox_max_bytes",
        "_receive_queue",
        "_sender",
        "_sending_parts",
        "_written",
        "bytes_received",
        "messages_received",
        "messages_sent",
        "reactor",
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
        super().__init__(sock, reactor.link(self, sock.fileno()), endpoint, limits, dispose)
        self.messages_received = self.messages_sent = 0
        self.bytes_received = 0
        self.reactor = reactor
        self._written = 0  # bytes that have left
        self._descriptor = descriptor
        self._home = reactor.home or 0  # 0: everywhere
        self._receive_queue = at_most(limits.receive_queue)
        self._inbox_max_bytes = _STREAM_BYTES if limits.streaming else at_most(limits.max_message_size)
        self._sending_parts = False  # a message is being sent in fragments, or compressed: no other may begin
        self._sender = 0  # the thread that does so
        self._compresses = self.lock is not None and endpoint.has_extensions  # with the lock free meanwhile
        self._batch: Batch | None = None
        self._gathered: bytearray | None = None  # what has been taken of a message that is to be taken whole
        self._gathers_text = False

    # The verbs

    @at_home
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

    def receive(self, timeout_seconds: float | None = None) -> Message | Part | None:
        """The next message; None when there is none within the time, or will be none any more.

        With `streaming` it may be a Part.
        """
        if self.lock is None and not self.is_elsewhere():
            return self._receive_next(timeout_seconds)
        return self.call_at_home(self._receive_next, timeout_seconds, undo=self._put_back)

    @at_home
    def receive_whole(self, timeout_seconds: float | None = None) -> Message | None:
        """The next message, put together from its parts, where `streaming` gives them; None as for `receive()`.

        What has come of it is kept when the time is over. Parts are taken and put together under the lock: callers in
        several threads go on with one message. A message of more than `max_message_size` bytes closes with 1009.
        """
        deadline = None if timeout_seconds is None else monotonic() + timeout_seconds
        while True:
            part = self._receive_next(None if deadline is None else deadline - monotonic())
            if not isinstance(part, Part):
                return part
            if self._gather(part.data) and part.fin:
                return self._take_gathered()

    @at_home
    def receive_begun(self) -> Message:
        """What `receive_whole()` has of a message that is not complete: for a caller who takes the rest in parts."""
        return self._take_gathered()

    @at_home
    def waiting(self) -> int:
        """How many messages are waiting to be taken."""
        if not self._inbox:
            self._let_go()
            self._link.look(pause=True)
        return sum(not isinstance(message, Part) or message.fin for message in self._inbox)

    def send(self, message: Message) -> None:
        """Hand `message` to the kernel as a whole; blocks while the peer is slow.

        WebSocketClosed when it is too late; SendTimeout when the peer does not read within `send_timeout`: the
        connection is dropped then, for half a frame may have left.
        """
        if self.lock is None and not self.is_elsewhere():
            self._send_message(message)
        else:
            self.call_at_home(self._send_message, message)

    def offer(self, frames: bytes, messages: int = 1, max_waiting_bytes: int = _OFFERED_BYTES) -> bool:
        """Send ready-made `frames` (whole ones, which carry that many `messages`) without waiting for the peer.

        They leave at once if the kernel takes them and nothing waits, else behind what waits, as soon as the peer has
        read enough; never between two fragments of one message. From another thread than that of the hub, the caller
        waits for the hub's turn.

        False, and nothing is sent of it: the connection is not open any more, or more than `max_waiting_bytes` would
        wait. Frames of any size are taken while nothing waits.
        """
        if self.lock is None and not self.is_elsewhere():
            return self._offer(frames, messages, max_waiting_bytes)
        return self.call_at_home(self._offer, frames, messages, max_waiting_bytes)

    @at_home
    def begin_message(self) -> None:
        """Wait until no other message is under way; from now on none begins, until `end_message()`."""
        self._wait_for_turn()
        self._take_turn()

    @at_home
    def send_fragment(self, data: Message, first: bool, fin: bool) -> None:
        """Send one fragment of the message that was begun. Errors as for `send()`."""
        self.last_message_at = now = monotonic()
        self._link.breathe(now)
        self.messages_sent += fin
        self._send(self._encode(functools.partial(self.endpoint.send_fragment, data, first=first, fin=fin)))

    @at_home
    def end_message(self) -> None:
        """Let others send again."""
        self._end_turn()

    @at_home
    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Begin the closing handshake, or answer the peer's; what has not been taken is dropped. Does not block."""
        self._end(self.endpoint.close(code, reason))

    def close_soon(self, code: int, reason: str = "") -> None:
        """Close as `close()` does, but never wait for a thread that is in another call here: that one closes then."""
        self._post(functools.partial(self._close_now, code, reason))

    def go_away(self, code: int) -> None:
        """Close as `close_soon()` does, for a process that ends: a peer that does not answer soon is not waited for."""
        self._post(functools.partial(self._go_away_now, code))

    @at_home
    def fail(self, code: int, reason: str = "") -> None:
        """Close with `code` and look at nothing that still arrives (7.1.7). Does not block."""
        self._end(self.endpoint.fail(code, reason))

    @at_home
    def abort(self, reason: str) -> None:
        """Give the connection up at once, without a closing handshake."""
        self._abort(reason)

    @at_home
    def finish(self) -> None:
        """Close if that has not been done, and return when the socket is not needed any more.

        At most `close_timeout` seconds for the peer's Close frame, and as many for the end of its stream, but only
        two once nothing more comes from it.
        """
        try:
            self._end(self.endpoint.close())
            while self._dispose is not None:
                self._park(None)
        finally:  # whoever stops this greenlet or thread does not wait either
            self._abort("the server did not wait for the closing handshake")

    @property
    def bytes_sent(self) -> int:
        """How many bytes of frames have left."""
        return max(0, self._written)

    @property
    def closed(self) -> bool:
        """Whether the end has come: ours, or the peer's with nothing before it left to be taken."""
        self.look()
        return self.is_over

    @property
    def is_over(self) -> bool:
        """The same, as far as it has been noticed."""
        state = self.endpoint.state
        return state is not _OPEN and (state is not _ENDING or not self._inbox)

    @at_home
    def look(self) -> None:
        """Notice what has already happened to the socket; a loop that asks again and again lets others run."""
        self._let_go()
        self._link.look(pause=False)
        now = monotonic()
        self._notice_hangup_while_paused(now)
        self._link.breathe(now)

    def call_at_home(self, function: Callable[..., T], *arguments: Any, undo: Callable[[T], None] | None = None) -> T:
        """The result of `function`, run where the connection lives, with its lock held, whichever thread calls.

        A result that a caller in another thread does not get any more is given to `undo`.
        """
        if self.is_elsewhere():
            return self.reactor.run_home(functools.partial(self.call_at_home, function, *arguments), undo)
        if self.lock is None:
            return function(*arguments)
        self.lock.acquire()
        try:
            return function(*arguments)
        finally:
            self.lock.release()

    def _post(self, function: Callable[[], None]) -> None:
        if self.is_elsewhere():
            self.reactor.run_home(function)
        elif self.lock is None:
            function()
        else:
            self.lock.post(function)

    # What the reactor calls

    def on_fork(self) -> None:
        """This is the child of a fork, and the connection its parent's: here it has ended, and not a byte is sent."""
        self._home = 0  # the hub's thread is one of the parent, too
        self._give_up(
            "this process is the child of a fork", WebSocketClosed
        )  # no shutdown(): it is the parent's stream
        self._dispose = None
        self._sending_parts = False
        self._drop_inbox()
        self._batch = None
        if self._descriptor >= 0:
            self._socket.close()  # our copy of it: else the peer would hear of the parent's end only at ours

    def is_elsewhere(self) -> bool:
        """Whether the calling thread must not touch the connection, but ask the reactor to."""
        if cython.compiled:
            return self._home != 0 and PyThread_get_thread_ident() != self._home  # type: ignore # noqa: F821
        return self._home != 0 and self.reactor.thread_ident() != self._home

    def on_readable(self) -> None:
        """Read once, or look on at what was read, and do what it says."""
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

    def on_writable(self) -> None:
        """Send what is waiting to leave, as far as the kernel takes it."""
        try:
            self._flush()
            self._settle()
            self._link.wake()  # whoever sends looks how far it is
        except Exception:
            self._break_off()

    def on_turn(self) -> None:
        """Let answers go that were held back: whoever wrote them is not coming back soon."""
        try:
            self._let_go()
        except Exception:
            self._break_off()

    # Reading

    def _receive_next(self, timeout_seconds: float | None) -> Message | Part | None:
        if self.endpoint.has_more:  # before a message is taken: whoever is stopped while others run has lost none
            self._link.breathe(monotonic())
        if self._answers_owed:  # whoever comes for more has answered what he took
            self._answers_owed -= 1
        if self.endpoint.state is _ENDING:  # the end may have its turn
            self._settle()
        if not self._inbox:
            if self._batch is not None:
                self._let_go()
            if timeout_seconds is not None:
                self._wait_for_message(timeout_seconds)
            else:
                while not self._inbox and self.endpoint.state is _OPEN:
                    if self.keeper is None:
                        self._link.park(None)
                    else:
                        self._park(None)
            if not self._inbox:
                if self.endpoint.state is not _OPEN:
                    self._link.breathe(monotonic())  # a loop that takes the end for silence lets others run
                return None
        return self._take()

    def _gather(self, data: Message) -> bool:
        """Put `data` behind what has been taken of its message; False, and the end, where that is too much."""
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
        while not self._inbox and self.endpoint.state is _OPEN and self._park(deadline):
            pass

    def _parse(self) -> None:
        """Look at what was read, until the inbox is full or others should have their turn."""
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

    def _answer_pings(self, pongs: bytes) -> None:
        if self._outbox is not None and self._outbox.waiting:
            self._outbox.pong_later(pongs)
        else:
            self._write(pongs)

    def _receive_pong(self, pong: Pong) -> None:
        if self._keep_alive is not None and self._keep_alive.pong(pong.payload, self.last_read_at):
            self._schedule()

    def _take(self) -> Message | Part:
        message = self._inbox.pop(0)
        self._inbox_bytes -= memory_size(message if isinstance(message, (str, bytes)) else message.data)
        self._answers_owed += 1
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
            return True  # after the end, what still arrives is dropped, and the end of the stream is waited for
        return len(self._inbox) < self._receive_queue and self._inbox_bytes < self._inbox_max_bytes

    # Writing

    def _send_message(self, message: Message) -> None:
        now = monotonic()
        self._link.breathe(now)
        if self._sending_parts:
            self._wait_for_turn()
        self.last_message_at = now
        self.messages_sent += 1
        if len(message) >= _LARGE_BYTES:
            self._send_large(message)
            return
        data = self.endpoint.send_message(message)
        batch = self._batch
        if batch is None or not (self._inbox and self._answers_owed and self._outbox is None and batch.may_hold(now)):
            self._send(data)
        elif batch.hold(data, now):
            self._link.call_soon()

    def _offer(self, frames: bytes, messages: int, max_waiting_bytes: int) -> bool:
        outbox = self._outbox
        if self.endpoint.state is not _OPEN or (outbox is not None and not outbox.fits(len(frames), max_waiting_bytes)):
            return False
        now = monotonic()
        if self._sending_parts:
            if outbox is None:
                outbox = self._outbox = Outbox(now)
            outbox.put_behind(frames)
        else:
            self._write(frames)
            if self._outbox is not None:
                self._settle()
                if self._outbox is not None and self._outbox.error is not None:
                    return False
        self.last_message_at = now
        self.messages_sent += messages
        return True

    def _send_large(self, message: Message) -> None:
        if not self._compresses:
            data, payload = self.endpoint.send_large(message)
        else:
            self._take_turn()  # messages leave in the order in which they were compressed
            try:
                data, payload = self._encode(functools.partial(self.endpoint.send_large, message))
            finally:
                self._end_turn()
        if isinstance(self._socket, _socket.socket):
            self._send(data, payload)
        else:  # TLS wants what it has not taken to be offered again as it was, not cut in two
            self._send(data + payload)

    def _encode(self, encode: Callable[[], T]) -> T:
        """What `encode` makes of a message; others may look at the connection while a large one is compressed."""
        if not self._compresses:
            return encode()
        encoded: list[T] = []
        self._let_others_in(lambda: encoded.append(encode()))
        self.endpoint.refuse_if_late()  # it may have been closed meanwhile
        return encoded[0]

    def _take_turn(self) -> None:
        self._sending_parts = True
        self._sender = 0 if self.lock is None else self.reactor.thread_ident()

    def _end_turn(self) -> None:
        self._sending_parts = False
        if self._outbox is not None:
            self._outbox.release(drop=not self._may_send())
            self._flush()
            self._settle()
        self._link.wake()

    def _wait_for_turn(self) -> None:
        if self.lock is not None and self._sending_parts and self._sender == self.reactor.thread_ident():
            raise RuntimeError("this thread is sending a message already: what makes its chunks must not send")
        while self._sending_parts and self._may_send():
            self._park(None)

    def _may_send(self) -> bool:
        return self.endpoint.state is _OPEN or self.endpoint.state is _ENDING

    def _let_go(self) -> None:
        """Let the answers leave that wait for the next one."""
        if self._batch is not None and self._batch.size:
            self._write(b"")
            if self._outbox is not None:
                self._settle()

    def _send(self, data: bytes, payload: bytes = b"") -> None:
        self._write(data, payload)
        if self._outbox is not None:
            self._wait_until_written(self._outbox)

    def _write(self, data: bytes, payload: bytes = b"") -> None:
        """Send what the kernel takes; the rest goes to the outbox, and `_settle()` sees to it that it leaves."""
        if self._batch is not None and self._batch.size:
            data = self._batch.release(data)
        size = len(data) + len(payload)
        if not size:
            return
        if self._outbox is not None:
            self._write_behind(self._outbox, data, payload)
            return
        if payload:
            sent = send_both(self._socket, self._descriptor, data, payload)
        else:
            sent = send(self._socket, self._descriptor, data)
        if sent < 0:
            self._lose_peer()
            sent = 0
        self._written += sent
        if sent < size:
            if self._outbox is None:
                self._outbox = Outbox(monotonic())
            self._outbox.put(data, payload, sent)

    def _write_behind(self, outbox: Outbox, data: bytes, payload: bytes) -> None:
        nothing_waits = not outbox.waiting
        outbox.put(data, payload)
        if nothing_waits:
            self._flush()

    def _flush(self) -> None:
        """Send what waits, as far as the kernel takes it."""
        outbox = self._outbox
        if outbox is None:
            return
        while outbox.waiting:
            sent = send(self._socket, self._descriptor, outbox.first())
            if sent < 0:
                self._lose_peer()
                return
            if not sent:
                return
            outbox.sent(sent, monotonic())
            self._written += sent
            if not outbox.waiting and self.endpoint.state is not _CLOSED:
                outbox.put(outbox.take_late_pongs())
        if outbox.is_done:
            self._outbox = None

    def _lose_peer(self) -> None:
        """The peer is gone; what it sent before is still to be read, and then its end."""
        self._stop_writing(WebSocketClosed)
        self._link.look(pause=False)

    def _wait_until_written(self, outbox: Outbox) -> None:
        mark = outbox.mark
        timeout = self.limits.send_timeout
        deadline = None if timeout is None else monotonic() + timeout
        self._settle()
        while outbox.left < mark and outbox.error is None:
            if not self._park(deadline):
                self._give_up_sending()
                break
        if outbox.left < mark and outbox.error is not None:
            raise outbox.error(self.endpoint.close_code or CloseCode.ABNORMAL_CLOSURE, self.endpoint.close_reason)
