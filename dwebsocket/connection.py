"""One live connection: protocol + socket + inbox + outbox + deadlines."""

from __future__ import annotations

import _socket
import contextlib
import functools
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from .protocol.codes import CloseCode
from .protocol.endpoint import Endpoint, Pong, State
from .protocol.exceptions import SendTimeout, WebSocketClosed
from .protocol.messages import Message, Part
from .reactors.base import Reactor

logger = logging.getLogger("dwebsocket")

_READ_BYTES = 64 * 1024
_FRAMES_PER_TURN = 256  # that are looked at before other connections have their turn
_PING_BYTES = 4
_STREAM_BYTES = 4 * _READ_BYTES  # what waits of a message that is read in parts
_SILENCE_SECONDS = 0.25  # of a peer that may still have been sending: a proxy cuts it off when we end our stream
_LINGER_SECONDS = 2  # for a peer that has nothing more to say, and does not hang up
_LONGEST_SLEEP_SECONDS = 24 * 60 * 60  # what every operating system can count

Method = TypeVar("Method", bound=Callable[..., Any])


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


def at_home(method: Method) -> Method:
    """The method, run where the connection lives, with its lock held, from whatever thread it is called."""

    @functools.wraps(method)
    def call(self: Connection, *arguments: Any) -> Any:
        if not self._reactor.is_home():
            return self._reactor.run_home(functools.partial(call, self, *arguments))
        with self._link.lock:
            return method(self, *arguments)

    return call  # type: ignore[return-value]


def from_reactor(method: Method) -> Method:
    """The method as the reactor calls it: a fault of ours ends this connection, and no other."""

    @functools.wraps(method)
    def call(self: Connection, *arguments: Any) -> Any:
        try:
            return method(self, *arguments)
        except Exception:
            logger.exception("internal error; the connection is dropped")
            self._abort("internal error")
            return None

    return call  # type: ignore[return-value]


class Connection:
    """An open WebSocket on a socket, served by a reactor.

    Reading is pushed: what arrives is parsed at once, control frames are answered, messages go to the inbox. When the
    inbox is full (`receive_queue` messages, or `max_message_size` bytes), reading stops until somebody takes one. The
    end of the peer's side is answered when the messages before it have been taken and the taker has come back for
    more; a taker that does not is waited for `close_timeout` seconds.

    `sock` is used non-blocking. `dispose` is called once, when the socket is not needed any more.
    """

    def __init__(
        self,
        sock: _socket.socket,
        reactor: Reactor,
        *,
        endpoint: Endpoint,
        limits: Limits,
        dispose: Callable[[], None],
    ) -> None:
        self.endpoint = endpoint
        self.limits = limits
        self.latency: float | None = None
        self._socket = sock
        self._reactor = reactor
        self._link = reactor.link(self, sock.fileno())
        self._dispose = dispose
        self._inbox: deque[Message | Part] = deque()
        self._inbox_bytes = 0
        self._inbox_max_bytes = _STREAM_BYTES if limits.streaming else limits.max_message_size
        self._sending_parts = False  # a message is being sent in fragments: no other may begin
        self._unparsed = False  # what was read has not been looked at to its end
        self._taken = False  # a message is out with somebody who may still want to answer it
        self._outbox: deque[memoryview] = deque()
        self._outbox_bytes = 0
        self._late_pongs = b""  # the latest answers to pings that came while the outbox was not empty
        self._written = 0  # bytes that have left, of all that were ever put in the outbox
        self._read_ended = False
        self._write_ended = False
        self._disposed = False  # nothing more is done with the socket
        self._released = False  # nor does any thread still poll it: it has been disposed of
        self._timed_out = False
        self._in_a_hurry = False
        now = time.monotonic()
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
        self._write(response)
        if early:
            self._receive(early)
        self._settle()
        self._schedule()

    @at_home
    def receive(self, timeout_seconds: float | None = None) -> Message | Part | None:
        """The next message; None when there is none within the time, or will be none any more.

        With `streaming` it may be a Part.
        """
        self._come_back()
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        if not self._inbox and timeout_seconds is not None and timeout_seconds <= 0:
            self._link.look(pause=True)
        while not self._inbox:
            if self.endpoint.state is not State.OPEN:
                return None
            if not self._park(deadline):
                return None
        message = self._take()
        if self._unparsed:
            self._link.breathe()
        return message

    @at_home
    def waiting(self) -> int:
        """How many messages are waiting to be taken."""
        if not self._inbox:
            self._link.look(pause=True)
        return sum(not isinstance(message, Part) or message.fin for message in self._inbox)

    @at_home
    def send(self, message: Message) -> None:
        """Hand `message` to the kernel as a whole; blocks while the peer is slow.

        WebSocketClosed when it is too late; SendTimeout when the peer does not read within `send_timeout`: the
        connection is dropped then, for half a frame may have left.
        """
        self._wait_for_turn()
        self._send(self.endpoint.send_message(message))

    @at_home
    def begin_message(self) -> None:
        """Wait until no other message is under way; from now on none begins, until `end_message()`."""
        self._wait_for_turn()
        self._sending_parts = True

    @at_home
    def send_fragment(self, data: Message, first: bool, fin: bool) -> None:
        """Send one fragment of the message that was begun. Errors as for `send()`."""
        self._send(self.endpoint.send_fragment(data, first=first, fin=fin))

    @at_home
    def end_message(self) -> None:
        """Let others send again."""
        self._sending_parts = False
        self._link.wake()

    def _wait_for_turn(self) -> None:
        while self._sending_parts and self.endpoint.state in (State.OPEN, State.ENDING):
            self._park(None)

    def _send(self, data: bytes) -> None:
        mark = self._write(data)
        if self._written < mark:
            self._wait_until_written(mark)
        if self.limits.idle_timeout is not None:
            self._active = time.monotonic()
        self._link.breathe()

    @at_home
    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Begin the closing handshake, or answer the peer's; what has not been taken is dropped. Does not block."""
        self._end(self.endpoint.close(code, reason))

    @at_home
    def go_away(self, code: int) -> None:
        """Close as `close()` does, for a process that ends: a peer that does not answer soon is not waited for."""
        self._in_a_hurry = True
        self._end(self.endpoint.close(code))

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
    def closed(self) -> bool:
        """Whether the end has come: ours, or the peer's with nothing before it left to be taken."""
        self.look()
        state = self.endpoint.state
        return state is not State.OPEN and (state is not State.ENDING or not self._inbox)

    @at_home
    def look(self) -> None:
        """Notice what has already happened to the socket."""
        self._link.look(pause=False)
        self._look_behind_the_inbox(time.monotonic())

    # What the reactor calls

    @from_reactor
    def on_readable(self) -> None:
        """Read once, or look on at what was read, and do what it says."""
        if self._unparsed:
            self._parse()
            self._settle()
            return
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:  # reset by the peer, or timed out: the end of the stream all the same
            data = b""
        if data:
            self._receive(data)
        else:
            self._read_ended = True
            self.endpoint.receive_eof()
        self._settle()

    @from_reactor
    def on_writable(self) -> None:
        """Send what is waiting to leave, as far as the kernel takes it."""
        self._flush()
        if self._late_pongs and not self._outbox and self.endpoint.state is not State.CLOSED:
            pongs, self._late_pongs = self._late_pongs, b""
            self._write(pongs)
        self._settle()
        self._link.wake()  # whoever sends looks how far it is

    @from_reactor
    def on_deadline(self, now: float) -> float | None:
        """Do what is due, and say when to be called again."""
        self._look_behind_the_inbox(now)
        while acts := [act for due, act in self._deadlines() if due <= now]:
            acts[0](now)  # the others may not be due any more
            self._settle()
        return min((due for due, _ in self._deadlines()), default=None)

    # Reading

    def _receive(self, data: bytes) -> None:
        self._heard = time.monotonic()
        self.endpoint.feed(data)
        self._parse()

    def _parse(self) -> None:
        """Look at what was read, until the inbox is full or others should have their turn."""
        self._unparsed = True
        frames_left = _FRAMES_PER_TURN
        while self._wants_to_read():
            if not frames_left:
                self._link.resume()
                break
            events = self.endpoint.advance()
            if events is None:
                self._unparsed = False
                break
            frames_left -= 1
            for event in events:
                self._receive_event(event)
        pongs = self.endpoint.data_to_send()
        if pongs and self._outbox:
            self._late_pongs = pongs  # 5.5.3: the latest are enough; a peer that does not read costs no memory
        elif pongs:
            self._write(pongs)

    def _receive_event(self, event: Message | Part | Pong) -> None:
        if isinstance(event, Pong):
            self._receive_pong(event)
        else:
            self._active = self._heard
            self._inbox.append(event)
            self._inbox_bytes += _size(event)

    def _receive_pong(self, pong: Pong) -> None:
        if pong.payload == self._ping:
            self.latency = self._heard - self._pinged
            self._ping = None
            self._schedule()

    def _take(self) -> Message | Part:
        was_full = not self._wants_to_read()
        message = self._inbox.popleft()
        self._inbox_bytes -= _size(message)
        self._taken = True
        if was_full:
            if self._unparsed:
                self._parse()
            self._settle()
        return message

    def _come_back(self) -> None:
        """Whoever took the last message wants more: the end may have its turn."""
        self._taken = False
        if self.endpoint.state is State.ENDING:
            self._settle()

    def _wants_to_read(self) -> bool:
        if self._read_ended:
            return False
        if self.endpoint.state is not State.OPEN:
            return True  # what still arrives is dropped, and its end is waited for
        max_bytes = self._inbox_max_bytes
        return len(self._inbox) < self.limits.receive_queue and (max_bytes is None or self._inbox_bytes < max_bytes)

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

    def _write(self, data: bytes) -> int:
        """Send what the kernel takes and queue the rest; the mark that `_written` reaches when all of it has left."""
        mark = self._written + self._outbox_bytes + len(data)
        if self._write_ended or not data:
            return mark
        was_empty = not self._outbox
        self._outbox.append(memoryview(data))
        self._outbox_bytes += len(data)
        if was_empty:
            self._moved = time.monotonic()
            self._flush()
            if self._outbox:
                self._settle()
        return mark

    def _flush(self) -> None:
        try:
            while self._outbox:
                piece = self._outbox[0]
                sent = self._socket.send(piece)
                self._moved = time.monotonic()
                self._written += sent
                self._outbox_bytes -= sent
                if sent < len(piece):
                    self._outbox[0] = piece[sent:]
                else:
                    self._outbox.popleft()
        except BlockingIOError:
            pass
        except OSError:  # the peer is gone; what it sent before is still to be read, and then its end
            self._drop_outbox()
            self._link.look(pause=False)

    def _wait_until_written(self, mark: int) -> None:
        timeout = self.limits.send_timeout
        deadline = None if timeout is None else time.monotonic() + timeout
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
        remaining = None if deadline is None else deadline - time.monotonic()
        if remaining is not None and remaining <= 0:
            return False
        self._link.park(None if remaining is None else min(remaining, _LONGEST_SLEEP_SECONDS))
        return True

    # The end

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
        self._outbox_bytes = 0
        self._write_ended = True

    def _settle(self) -> None:
        """Do what follows from the state as it is now; everything that changes it ends here."""
        if self._disposed:
            return
        if self.endpoint.state is State.ENDING and not self._inbox and not self._taken:
            self._write(self.endpoint.answer())
        if self._has_said_all() and (self._read_ended or self.endpoint.close_received):
            self._end_writing()
        if self._read_ended and self._write_ended:
            self._dispose_of_socket()
            return
        self._link.watch(read=self._wants_to_read(), write=bool(self._outbox))
        is_open = self.endpoint.state is State.OPEN
        if not is_open and self._ending is None:
            self._ending = time.monotonic()
        if not is_open or self._outbox:  # the other deadlines move away, and are judged anew when they are due
            self._schedule()
        if not is_open or self._inbox:
            self._link.wake()

    def _has_said_all(self) -> bool:
        return self.endpoint.state is State.CLOSED and not self._outbox and not self._write_ended

    def _end_writing(self) -> None:
        self._write_ended = True
        self._ending = time.monotonic()
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
        earliest = min((due for due, _ in self._deadlines()), default=None)
        if earliest is not None:
            self._link.schedule(earliest)

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
        elif self.endpoint.state is State.OPEN:
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
        if self.endpoint.state is State.ENDING:  # nobody came back for the messages before the end
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


def _size(message: Message | Part) -> int:
    return len(message.data) if isinstance(message, Part) else len(message)
