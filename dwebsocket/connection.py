"""One live connection: protocol + socket + inbox + outbox + deadlines."""

from __future__ import annotations

import _socket
import contextlib
import functools
import logging
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

try:
    import cython
except ImportError:
    from .protocol import uncompiled as cython

from .clock import monotonic
from .protocol.codes import CloseCode
from .protocol.endpoint import Endpoint, Pong, State
from .protocol.exceptions import SendTimeout, WebSocketClosed
from .protocol.messages import Message, Part
from .protocol.parser import at_most
from .reactors.base import Link, Reactor, Served
from .sockets import READ_BYTES, receive, send, send_both

logger = logging.getLogger("dwebsocket")

_FRAMES_PER_TURN = 256  # that are looked at before other connections have their turn
_DECODED_BYTES_PER_TURN = 1024 * 1024  # of compressed frames: to inflate a megabyte takes one to three milliseconds
_PING_BYTES = 4
_LARGE_BYTES = 16 * 1024  # of a payload that is not worth copying behind its header
_HELD_BYTES = 16 * 1024  # of answers that leave together
_QUICK_SECONDS = 0.00025  # for one of them, and for all together
_STREAM_BYTES = 4 * READ_BYTES  # what waits of a message that is read in parts
_SILENCE_SECONDS = 0.25  # of a peer that may still have been sending: a proxy cuts it off when we end our stream
_LINGER_SECONDS = 2  # for a peer that has nothing more to say, and does not hang up
_LONGEST_SLEEP_SECONDS = 24 * 60 * 60  # what every operating system can count

_OPEN, _ENDING, _CLOSED = State.OPEN, State.ENDING, State.CLOSED

Method = TypeVar("Method", bound=Callable[..., Any])
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one connection may take: bytes, messages and seconds. None means without limit."""

    max_message_size: int | None = 1024 * 1024
    streaming: bool = False
    receive_queue: int = 32
    send_timeout: float | None = 30
    ping_interval: float | None = 20
    ping_timeout: float | None = 20
    close_timeout: float = 10
    idle_timeout: float | None = None


class Keeper(Protocol):
    """Who keeps something for whoever waits, and lets go of it when the wait becomes long."""

    def keeps_for(self, now: float) -> float:
        """For how many seconds from `now` (time.monotonic()) nothing is to be let go of. Must not wait."""
        ...  # pragma: no cover

    def let_go(self) -> None:
        """Let go of it; called where somebody begins to wait, and may wait itself."""
        ...  # pragma: no cover

    def woken(self) -> None:
        """Called after a wait in which nothing was let go of. Must not wait."""
        ...  # pragma: no cover


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
        if self.is_elsewhere():
            return self.reactor.run_home(functools.partial(call, self, *arguments))
        if self.lock is None:
            return method(self, *arguments)
        self.lock.acquire()
        try:
            return method(self, *arguments)
        finally:
            self.lock.release()

    return call  # type: ignore[return-value]


class Connection(Served):
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
        "_active",
        "_compresses",
        "_descriptor",
        "_dispose",
        "_disposed",
        "_ending",
        "_gathered",
        "_gathers_text",
        "_heard",
        "_held",
        "_held_bytes",
        "_held_since",
        "_home",
        "_hung_up",
        "_in_a_hurry",
        "_inbox",
        "_inbox_bytes",
        "_inbox_max_bytes",
        "_late_pongs",
        "_link",
        "_moved",
        "_outbox",
        "_outbox_bytes",
        "_ping",
        "_pinged",
        "_quick",
        "_read_ended",
        "_reads",
        "_receive_queue",
        "_released",
        "_sender",
        "_sending_parts",
        "_sends_both",
        "_socket",
        "_taken",
        "_thread_ident",
        "_timed_out",
        "_took",
        "_unparsed",
        "_write_ended",
        "_writes",
        "_written",
        "bytes_received",
        "endpoint",
        "keeper",
        "latency",
        "limits",
        "lock",
        "messages_received",
        "messages_sent",
        "reactor",
        "streaming",
    )

    def __init__(
        self,
        sock: Any,
        reactor: Reactor,
        *,
        endpoint: Endpoint,
        limits: Limits,
        dispose: Callable[[], None],
        descriptor: int = -1,
    ) -> None:
        self.endpoint = endpoint
        self.limits = limits
        self.latency: float | None = None
        self.keeper: Keeper | None = None
        self.messages_received = self.messages_sent = 0
        self.bytes_received = 0
        self.reactor = reactor
        self._socket = sock
        self._descriptor = descriptor
        # TLS wants what it has not taken to be offered again as it was, not cut in two.
        self._sends_both = isinstance(sock, _socket.socket)
        self._link: Link = reactor.link(self, sock.fileno())
        self.lock = self._link.lock
        self._home = reactor.home or 0  # 0: everywhere
        self._thread_ident = reactor.thread_ident
        self._dispose = dispose
        self._inbox: list[Message | Part] = []
        self._inbox_bytes = 0
        self._receive_queue = at_most(limits.receive_queue)
        self.streaming = limits.streaming
        self._gathered = bytearray()  # what has been taken of a message that is to be taken whole
        self._gathers_text = False
        self._inbox_max_bytes = _STREAM_BYTES if limits.streaming else at_most(limits.max_message_size)
        self._sending_parts = False  # a message is being sent in fragments, or compressed: no other may begin
        self._sender = 0  # the thread that does so
        self._compresses = self.lock is not None and endpoint.has_extensions  # with the lock free meanwhile
        self._unparsed = False  # what was read has not been looked at to its end
        self._taken = False  # a message is out with somebody who may still want to answer it
        self._reads = self._writes = False  # what the link watches for
        self._held: list[bytes] = []  # answers that leave together
        self._held_bytes = 0
        self._held_since = 0.0
        self._took = 0.0  # when a message was taken last that had others behind it
        self._quick = False  # it was taken soon after the one before it
        self._outbox: list[memoryview] = []  # what the kernel has not taken
        self._outbox_bytes = 0
        self._late_pongs = b""  # the latest answers to pings that came while the outbox was not empty
        self._written = 0  # bytes that have left, of all that were ever put in the outbox
        self._read_ended = False
        self._write_ended = False
        self._disposed = False  # nothing more is done with the socket
        self._released = False  # nor does any thread still poll it: it has been disposed of
        self._timed_out = False
        self._in_a_hurry = False
        now = monotonic()
        self._heard = self._active = self._moved = now  # last byte in; last message; last byte out
        self._pinged = now
        self._ping: bytes | None = None  # the payload of the ping that has not been answered
        self._ending: float | None = None  # since when the end is under way
        self._hung_up: float | None = None  # since when we know that the end waits behind a full inbox
        self._limit_silence()

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
        if self.is_elsewhere():
            return self.reactor.run_home(functools.partial(self.receive, timeout_seconds), self._put_back)
        if self.lock is None:
            return self._receive_next(timeout_seconds)
        self.lock.acquire()
        try:
            return self._receive_next(timeout_seconds)
        finally:
            self.lock.release()

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
        if self.is_elsewhere():
            self.reactor.run_home(functools.partial(self.send, message))
        elif self.lock is None:
            self._send_message(message)
        else:
            self.lock.acquire()
            try:
                self._send_message(message)
            finally:
                self.lock.release()

    @at_home
    def begin_message(self) -> None:
        """Wait until no other message is under way; from now on none begins, until `end_message()`."""
        self._wait_for_turn()
        self._take_turn()

    @at_home
    def send_fragment(self, data: Message, first: bool, fin: bool) -> None:
        """Send one fragment of the message that was begun. Errors as for `send()`."""
        self._active = now = monotonic()
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
        self._in_a_hurry = True
        self.close_soon(code)

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
            while not self._released:
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
        self._look_behind_the_inbox(now)
        self._link.breathe(now)

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
        self._disposed = self._released = True  # never by shutdown(), which would end the parent's stream
        self._unparsed = self._sending_parts = False
        self.endpoint.abort("this process is the child of a fork")
        self._drop_inbox()
        self._drop_outbox()
        self._late_pongs = b""
        if self._descriptor >= 0:
            self._socket.close()  # our copy of it: else the peer would hear of the parent's end only at ours

    def is_elsewhere(self) -> bool:
        """Whether the calling thread must not touch the connection, but ask the reactor to."""
        if cython.compiled:
            return self._home != 0 and PyThread_get_thread_ident() != self._home  # type: ignore # noqa: F821
        return self._home != 0 and self._thread_ident() != self._home

    def on_readable(self) -> None:
        """Read once, or look on at what was read, and do what it says."""
        try:
            if self._unparsed:
                self._parse()
            else:
                data = receive(self._socket, self._descriptor)
                if data is None:
                    return
                if data:
                    self._heard = monotonic()
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
            if self._late_pongs and not self._outbox and self.endpoint.state is not _CLOSED:
                pongs, self._late_pongs = self._late_pongs, b""
                self._write(pongs)
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

    def on_deadline(self, now: float) -> float | None:
        """Do what is due, and say when to be called again."""
        try:
            self._look_behind_the_inbox(now)
            while acts := [act for due, act in self._deadlines() if due <= now]:
                acts[0](now)  # the others may not be due any more
                self._settle()
            return self._earliest()
        except Exception:
            self._break_off()
            return None

    def _break_off(self) -> None:
        """A fault of ours ends this connection, and no other."""
        logger.exception("internal error; the connection is dropped")
        self._abort("internal error")

    # Reading

    def _receive_next(self, timeout_seconds: float | None) -> Message | Part | None:
        if self._unparsed:  # before a message is taken: whoever is stopped while others run has lost none
            self._link.breathe(monotonic())
        self._taken = False
        if self.endpoint.state is _ENDING:  # whoever took the last message wants more: the end may have its turn
            self._settle()
        if not self._inbox:
            if self._held:
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
        self._gathers_text = isinstance(data, str)
        self._gathered += data.encode() if isinstance(data, str) else data
        limit = self.limits.max_message_size
        if limit is None or len(self._gathered) <= limit:
            return True
        self._gathered.clear()
        self._end(self.endpoint.fail(CloseCode.MESSAGE_TOO_BIG, f"message of more than {limit} bytes"))
        return False

    def _take_gathered(self) -> Message:
        gathered, self._gathered = self._gathered, bytearray()
        return gathered.decode() if self._gathers_text else bytes(gathered)

    def _wait_for_message(self, timeout_seconds: float) -> None:
        deadline = monotonic() + timeout_seconds
        if timeout_seconds <= 0:
            self._link.look(pause=True)
        while not self._inbox and self.endpoint.state is _OPEN and self._park(deadline):
            pass

    def _parse(self) -> None:
        """Look at what was read, until the inbox is full or others should have their turn."""
        self._unparsed = True
        endpoint = self.endpoint
        frames_left = _FRAMES_PER_TURN
        endpoint.decoded_bytes = 0
        while self._wants_to_read():
            if not endpoint.parser.buffered:
                self._unparsed = False
                break
            if not frames_left or endpoint.decoded_bytes >= _DECODED_BYTES_PER_TURN:
                self._link.resume()
                break
            frames_left -= 1
            event = endpoint.advance()
            if isinstance(event, (str, bytes, Part)):
                self._active = self._heard
                self._inbox.append(event)
                if isinstance(event, (str, bytes)):
                    self._inbox_bytes += memory_size(event)
                    self.messages_received += 1
                else:
                    self._inbox_bytes += memory_size(event.data)
                    self.messages_received += event.fin
            elif isinstance(event, Pong):
                self._receive_pong(event)
            elif event is None:
                self._unparsed = False
                break
        if endpoint.output:
            self._answer_pings(endpoint.data_to_send())
        if endpoint.empty_frames:
            endpoint.limit_empty_frames(self._heard)

    def _answer_pings(self, pongs: bytes) -> None:
        if self._outbox:
            self._late_pongs = pongs  # 5.5.3: the latest are enough; a peer that does not read costs no memory
        else:
            self._write(pongs)

    def _receive_pong(self, pong: Pong) -> None:
        if pong.payload == self._ping:
            self.latency = self._heard - self._pinged
            self._ping = None
            self._schedule()

    def _take(self) -> Message | Part:
        message = self._inbox.pop(0)
        self._inbox_bytes -= memory_size(message if isinstance(message, (str, bytes)) else message.data)
        self._taken = True
        if self._inbox:
            now = monotonic()
            self._quick = now - self._took < _QUICK_SECONDS
            self._took = now
        if not self._reads and not self._read_ended:  # the inbox was full
            if self._unparsed:
                self._parse()
            self._settle()
        return message

    def _put_back(self, message: Message | Part | None) -> None:
        """Let `message` be the next one again: its taker was stopped before it had it."""
        if message is not None and self.endpoint.state in (_OPEN, _ENDING):
            self._inbox.insert(0, message)
            self._inbox_bytes += len(message) if isinstance(message, (str, bytes)) else len(message.data)
            self._settle()

    def _wants_to_read(self) -> bool:
        if self._read_ended:
            return False
        if self.endpoint.state is not _OPEN or not self._inbox:
            return True  # after the end, what still arrives is dropped, and the end of the stream is waited for
        return len(self._inbox) < self._receive_queue and self._inbox_bytes < self._inbox_max_bytes

    def _look_behind_the_inbox(self, now: float) -> None:
        """A peer that has left is noticed even while nothing is read: else its connection would never end."""
        if self._hung_up is None and not self._disposed and not self._wants_to_read() and self._link.hung_up():
            self._hung_up = now
            self._schedule()

    def _limit_silence(self) -> None:
        """Let the kernel notice a peer that has vanished, whether or not we read (TCP_USER_TIMEOUT, Linux)."""
        seconds = (self.limits.ping_timeout, self.limits.send_timeout)
        if None not in seconds and hasattr(socket, "TCP_USER_TIMEOUT"):
            milliseconds = min(int(max(filter(None, seconds)) * 1000), _LONGEST_SLEEP_SECONDS * 1000)
            with contextlib.suppress(OSError):  # a UNIX socket knows no such option
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)

    # Writing

    def _send_message(self, message: Message) -> None:
        now = monotonic()
        self._link.breathe(now)  # before anything leaves: whoever is stopped while others run has sent nothing
        if self._sending_parts:
            self._wait_for_turn()
        self._active = now
        self.messages_sent += 1
        if len(message) >= _LARGE_BYTES:
            self._send_large(message)
            return
        data = self.endpoint.send_message(message)
        if self._inbox and self._may_be_held(now):
            self._hold(data, now)
        else:
            self._send(data)

    def _send_large(self, message: Message) -> None:
        if not self._compresses:
            data, payload = self.endpoint.send_large(message)
        else:
            self._take_turn()  # messages leave in the order in which they were compressed
            try:
                data, payload = self._encode(functools.partial(self.endpoint.send_large, message))
            finally:
                self._end_turn()
        if self._sends_both:
            self._send(data, payload)
        else:
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
        self._sender = 0 if self.lock is None else self._thread_ident()

    def _end_turn(self) -> None:
        self._sending_parts = False
        self._link.wake()

    def _wait_for_turn(self) -> None:
        if self.lock is not None and self._sending_parts and self._sender == self._thread_ident():
            raise RuntimeError("this thread is sending a message already: what makes its chunks must not send")
        while self._sending_parts and (self.endpoint.state is _OPEN or self.endpoint.state is _ENDING):
            self._park(None)

    def _may_be_held(self, now: float) -> bool:
        """Whether an answer may wait for the one to the next message, which is here and will be taken at once.

        That is what a view does which has just done it: the first answer of those that could leave together leaves
        alone, and one that took its time does.
        """
        return (
            self._quick
            and self._taken
            and self._link.holds
            and now - (self._held_since if self._held else self._took) < _QUICK_SECONDS
            and self._held_bytes < _HELD_BYTES
            and not self._outbox
            and not self._write_ended
        )

    def _hold(self, data: bytes, now: float) -> None:
        if not self._held:
            self._held_since = now
            self._link.call_soon()
        self._held.append(data)
        self._held_bytes += len(data)

    def _let_go(self) -> None:
        if self._held:
            self._write(b"")

    def _send(self, data: bytes, payload: bytes = b"") -> None:
        mark = self._write(data, payload)
        if self._written < mark:
            self._wait_until_written(mark)

    def _write(self, data: bytes, payload: bytes = b"") -> int:
        """Send what the kernel takes and queue the rest; the mark that `_written` reaches when all of it has left."""
        if self._held:
            data = b"".join((*self._held, data))
            self._held.clear()
            self._held_bytes = 0
        size = len(data) + len(payload)
        mark = self._written + self._outbox_bytes + size
        if self._write_ended or not size:
            return mark
        if self._outbox:
            self._queue(data, payload, 0)
            return mark
        if payload:
            sent = send_both(self._socket, self._descriptor, data, payload)
        else:
            sent = send(self._socket, self._descriptor, data)
        if sent < 0:
            self._lose_peer()
            return mark
        self._written += sent
        if sent < size or self.endpoint.state is not _OPEN:
            self._moved = monotonic()
        if sent < size:
            self._queue(data, payload, sent)
            self._settle()
        return mark

    def _queue(self, data: bytes, payload: bytes, sent: int) -> None:
        """Let `data` and `payload`, but for the first `sent` bytes, leave as soon as the kernel takes them."""
        for piece in (data, payload):
            rest = memoryview(piece)[sent:]
            sent = max(0, sent - len(piece))
            if rest:
                self._outbox.append(rest)
                self._outbox_bytes += len(rest)

    def _flush(self) -> None:
        while self._outbox:
            piece = self._outbox[0]
            sent = send(self._socket, self._descriptor, piece)
            if sent < 0:
                self._lose_peer()
                return
            if not sent:
                return
            self._moved = monotonic()
            self._written += sent
            self._outbox_bytes -= sent
            if sent < len(piece):
                self._outbox[0] = piece[sent:]
            else:
                self._outbox.pop(0)

    def _lose_peer(self) -> None:
        """The peer is gone; what it sent before is still to be read, and then its end."""
        self._drop_outbox()
        self._link.look(pause=False)

    def _wait_until_written(self, mark: int) -> None:
        timeout = self.limits.send_timeout
        deadline = None if timeout is None else monotonic() + timeout
        while self._written < mark and not self._write_ended:
            if not self._park(deadline):
                self._give_up_sending()
                break
        if self._written < mark:
            error = SendTimeout if self._timed_out else WebSocketClosed
            raise error(self.endpoint.close_code or CloseCode.ABNORMAL_CLOSURE, self.endpoint.close_reason)

    def _give_up_sending(self) -> None:
        self._timed_out = True
        self._abort(f"the peer did not read for {self.limits.send_timeout} seconds")

    def _park(self, deadline: float | None) -> bool:
        """Sleep until something may have happened; False, at once, when the deadline has passed."""
        now = monotonic()
        remaining = _LONGEST_SLEEP_SECONDS if deadline is None else deadline - now
        if remaining <= 0:
            return False
        keeper = self.keeper
        if keeper is None:
            self._link.park(None if deadline is None else min(remaining, _LONGEST_SLEEP_SECONDS))
            return True
        keeps = keeper.keeps_for(now)
        if keeps <= 0:  # others may run meanwhile: whoever waits looks again
            self._let_others_in(keeper.let_go)
        else:
            self._link.park(min(remaining, keeps, _LONGEST_SLEEP_SECONDS))
            keeper.woken()
        return True

    def _let_others_in(self, function: Callable[[], None]) -> None:
        """Call `function`, which may wait, without the lock."""
        if self.lock is None:
            function()
            return
        self.lock.release()
        try:
            function()
        finally:
            self.lock.acquire()

    # The end

    def _close_now(self, code: int, reason: str) -> None:
        self._end(self.endpoint.close(code, reason))

    def _end(self, close_frame: bytes) -> None:
        self._drop_inbox()
        self._write(close_frame)
        self._settle()

    def _abort(self, reason: str) -> None:
        if self._disposed:
            return
        self.endpoint.abort(reason)
        self._drop_outbox()
        self._dispose_of_socket()

    def _drop_inbox(self) -> None:
        self._inbox.clear()
        self._inbox_bytes = 0
        if self._unparsed:  # the end may be in it
            self._link.resume()

    def _drop_outbox(self) -> None:
        self._outbox.clear()
        self._held.clear()
        self._outbox_bytes = self._held_bytes = 0
        self._write_ended = True

    def _settle(self) -> None:
        """Do what follows from the state as it is now; everything that changes it ends here."""
        if self._disposed:
            return
        is_open = self.endpoint.state is _OPEN
        if not is_open and self._move_to_the_end():
            return
        reads, writes = self._wants_to_read(), bool(self._outbox)
        if reads != self._reads or writes != self._writes:
            self._reads, self._writes = reads, writes
            self._link.watch(read=reads, write=writes)
        if not is_open or writes:  # the other deadlines move away, and are judged anew when they are due
            self._schedule()
        if not is_open or self._inbox:
            self._link.wake()

    def _move_to_the_end(self) -> bool:
        """Take the steps of the end that can be taken now; whether it has come."""
        if self.endpoint.state is _ENDING and not self._inbox and not self._taken:
            self._write(self.endpoint.answer())
        if self._has_said_all() and (self._read_ended or self.endpoint.close_received):
            self._end_writing()
        if self._read_ended and self._write_ended:
            self._dispose_of_socket()
            return True
        if self._ending is None:
            self._ending = monotonic()
        return False

    def _has_said_all(self) -> bool:
        return self.endpoint.state is _CLOSED and not self._outbox and not self._write_ended

    def _end_writing(self) -> None:
        self._write_ended = True
        self._ending = monotonic()
        if not self._read_ended:
            # Unread bytes would turn our FIN into a RST, which can overtake the Close frame: so we say that we are
            # done, and read until the peer says the same.
            self._shutdown(socket.SHUT_WR)

    def _shutdown(self, how: int) -> None:
        try:
            self._socket.shutdown(how)
        except OSError:
            self._read_ended = True

    def _dispose_of_socket(self) -> None:
        if not self._disposed:
            self._disposed = True
            self._link.close(self._release)

    def _release(self) -> None:
        try:
            self._dispose()
        finally:
            self._released = True

    # Deadlines

    def _schedule(self) -> None:
        earliest = self._earliest()
        if earliest is not None:
            self._link.schedule(earliest)

    def _earliest(self) -> float | None:
        return min([due for due, _ in self._deadlines()], default=None)

    def _deadlines(self) -> list[tuple[float, Callable[[float], None]]]:
        """What has to be done, and when."""
        limits = self.limits
        deadlines: list[tuple[float, Callable[[float], None]]] = []
        if self._disposed:
            return deadlines
        if self._outbox and limits.send_timeout is not None:
            deadlines.append((self._moved + limits.send_timeout, self._on_stalled))
        if self._ending is not None:
            # What is still leaving gets its time, as long as it moves.
            due = (max(self._ending, self._moved) if self._outbox else self._ending) + limits.close_timeout
            if self._write_ended or (self._in_a_hurry and not self._outbox):
                due = min(due, max(self._ending, self._heard) + _LINGER_SECONDS)
            deadlines.append((due, self._on_close_timeout))
            if self._has_said_all():
                deadlines.append((max(self._moved, self._heard) + _SILENCE_SECONDS, self._on_silence))
        elif self.endpoint.state is _OPEN:
            if self._hung_up is not None:
                deadlines.append((self._hung_up + limits.close_timeout, self._on_hung_up))
            if limits.idle_timeout is not None:
                deadlines.append((self._active + limits.idle_timeout, self._on_idle))
            if self._ping is None and limits.ping_interval is not None:
                deadlines.append((self._pinged + limits.ping_interval, self._on_ping_interval))
            if self._ping is not None and limits.ping_timeout is not None:
                deadlines.append((max(self._pinged, self._heard) + limits.ping_timeout, self._on_ping_timeout))
        return deadlines

    def _on_stalled(self, now: float) -> None:
        self._give_up_sending()

    def _on_close_timeout(self, now: float) -> None:
        if self.endpoint.state is _ENDING:  # nobody came back for the messages before the end
            self._ending = now
            self._drop_inbox()
            self._taken = False
        else:
            self._abort("the peer did not finish the closing handshake")

    def _on_silence(self, now: float) -> None:
        self._end_writing()

    def _on_hung_up(self, now: float) -> None:
        self._hung_up = None
        if not self._wants_to_read():  # nobody came for the messages before the end
            self._drop_inbox()
            self._abort("the peer has left, and nobody took what it had sent")

    def _on_idle(self, now: float) -> None:
        active = self._active
        self._link.look(pause=False)  # a message may have come while this process stood still
        if self._active == active:
            self._end(self.endpoint.close(CloseCode.NORMAL_CLOSURE, "idle"))

    def _on_ping_interval(self, now: float) -> None:
        self._pinged = now
        if not self._outbox:  # else the peer has enough to read, and the stalled outbox has its own deadline
            self._ping = os.urandom(_PING_BYTES)
            self._write(self.endpoint.send_ping(self._ping))

    def _on_ping_timeout(self, now: float) -> None:
        # Its answer may wait behind messages that nobody takes, or this process stood still: not the peer's silence.
        if self._wants_to_read() and not self._link.arrived():
            self._abort(f"no answer to a ping within {self.limits.ping_timeout} seconds")
        else:
            self._heard = now
