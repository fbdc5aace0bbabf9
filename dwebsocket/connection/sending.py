"""Sending: whole messages, fragments, frames that are offered, answers that leave together."""

from __future__ import annotations

import _socket
import functools
from collections.abc import Callable
from typing import Any, TypeVar

from ..protocol.codes import CloseCode
from ..protocol.deflate import SharedCompression
from ..protocol.endpoint import Endpoint, State
from ..protocol.exceptions import WebSocketClosed
from ..protocol.messages import Message
from ..reactors.base import Reactor
from ..reactors.clock import monotonic
from .batch import Batch
from .lifetime import Lifetime, on_reactor_thread
from .limits import CLOSED, NOT_OPEN, TAKEN, Bound, Limits
from .outbox import Outbox
from .sockets import send, send_both

_LARGE_BYTES = 16 * 1024  # from this size on, copying a payload behind its header costs more than a second buffer
_BOUND = Bound()

_OPEN, _ENDING, _CLOSED = State.OPEN, State.ENDING, State.CLOSED

T = TypeVar("T")


class Sending(Lifetime):
    """The way of a message from the view to the kernel, or into the outbox where the kernel does not take it.

    One message at a time: while one is sent in fragments, other senders wait, and offered frames stand behind it.

    Answers to messages that have arrived together may leave together, if the reactor can flush them before it waits.
    They leave when the view comes to the last message, or is slow with one.
    """

    __slots__ = (
        "_batch",
        "_compresses",
        "_descriptor",
        "_sender",
        "_sending_parts",
        "_written",
        "messages_sent",
    )

    def __init__(
        self,
        sock: Any,
        reactor: Reactor,
        endpoint: Endpoint,
        limits: Limits,
        dispose: Callable[[], None],
        descriptor: int,
    ) -> None:
        super().__init__(sock, reactor, endpoint, limits, dispose)
        self.messages_sent = 0
        self._written = 0  # bytes that have left
        self._descriptor = descriptor
        self._sending_parts = False  # a message is being sent in fragments, or compressed: no other may begin
        self._sender = 0  # the thread that sends it
        self._compresses = self.lock is not None and endpoint.has_extensions  # outside the lock, as it takes long
        self._batch: Batch | None = None

    @property
    def bytes_sent(self) -> int:
        """The bytes of frames that have left."""
        return max(0, self._written)

    def send(self, message: Message) -> None:
        """Hand `message` to the kernel as a whole; blocks while the peer is slow.

        WebSocketClosed when the connection has ended. SendTimeout when the peer does not read within `send_timeout`:
        the connection is dropped then, for half a frame may have left.
        """
        if self.is_foreign_thread():
            self.call_on_reactor(self._send_message, (message,))
            return
        self._enter()
        try:
            self._send_message(message)
        finally:
            self._leave()

    def offer(self, frames: bytes, messages: int = 1, bound: Bound = _BOUND, key: str = "") -> int:
        """Send ready-made `frames` (whole ones, which carry that many `messages`) without waiting for the peer.

        They leave at once if the kernel takes them and nothing waits. Else they queue, and leave when the peer has
        read enough; never between two fragments of one message. A caller in another thread than the hub's waits for
        the hub's turn. Frames of any size are taken while nothing waits that was offered.

        TAKEN (0), or how many messages were dropped: these, or older ones for them, as `bound` says. NOT_OPEN (-1):
        nothing was done. CLOSED (-2): the peer is too slow, and the connection was closed just now, with 1013.
        """
        if self.is_foreign_thread():
            return self.call_on_reactor(self._offer, (frames, messages, bound, key))
        self._enter()
        try:
            return self._offer(frames, messages, bound, key)
        finally:
            self._leave()

    @on_reactor_thread
    def share_compression(self) -> SharedCompression | None:
        """Let frames that were deflated once for many connections be offered: see `Endpoint.share_compression()`."""
        return self.endpoint.share_compression()

    def begin_message(self) -> None:
        """Wait until no other message is being sent; from now on none begins, until `end_message()`."""
        # A caller in another hub that is stopped just when it gets its turn gives it back.
        self.call_on_reactor(self._begin_message, (), lambda _: self._end_turn())

    def _begin_message(self) -> None:
        self._wait_for_turn()
        self._take_turn()

    @on_reactor_thread
    def send_fragment(self, data: Message, first: bool, fin: bool) -> None:
        """Send one fragment of the message that was begun. Errors as for `send()`."""
        self.last_message_at = now = monotonic()
        self._link.breathe(now)
        encoded = self._encode(functools.partial(self.endpoint.send_fragment, data, first=first, fin=fin))
        self.messages_sent += fin
        self._send(encoded)

    @on_reactor_thread
    def end_message(self) -> None:
        """Let others send again."""
        self._end_turn()

    def on_writable(self) -> None:
        """Send what waits in the outbox, as far as the kernel takes it."""
        try:
            self._flush()
            self._settle()
            self._link.wake()  # senders check how much has left
        except Exception:
            self._break_off()

    def on_turn(self) -> None:
        """Send the answers that wait for the next one: the view is not coming back soon."""
        try:
            self._send_batch()
        except Exception:
            self._break_off()

    def _send_message(self, message: Message) -> None:
        now = monotonic()
        self._link.breathe(now)
        if self._sending_parts:
            self._wait_for_turn()
        self.last_message_at = now
        if len(message) >= _LARGE_BYTES:
            self._send_large(message)
            return
        data = self.endpoint.send_message(message)
        self.messages_sent += 1
        batch = self._batch
        if batch is None or not (self._inbox and self._answers_owed and self._outbox is None and batch.may_hold(now)):
            self._send(data)
        elif batch.hold(data, now):
            self._link.call_soon()

    def _offer(self, frames: bytes, messages: int, bound: Bound, key: str) -> int:
        if self.endpoint.state is not _OPEN:
            return NOT_OPEN
        now = monotonic()
        dropped = TAKEN
        outbox = self._outbox
        if outbox is None and not self._sending_parts:
            self._write(frames)
            outbox = self._outbox
            if outbox is not None:
                outbox.has_begun(len(frames), messages, now, bound)
        else:
            if outbox is None:
                outbox = self._outbox = Outbox(now)
            dropped = self._queue(outbox, frames, messages, bound, key, now)
            if dropped < 0:
                return self._refuse_offer(messages, bound)
        if outbox is not None:
            self._settle()
            if outbox.error is not None:
                return NOT_OPEN
            self._link.write_soon()
        self.last_message_at = now
        self.messages_sent += messages
        return dropped

    def _queue(self, outbox: Outbox, frames: bytes, messages: int, bound: Bound, key: str, now: float) -> int:
        """Let `frames` leave behind what waits; return what `Outbox.make_room()` does."""
        self._send_batch()
        if not outbox.fits(len(frames), now, bound):
            self._flush()  # the kernel may take bytes by now, and the reactor has not told yet
        dropped: int = outbox.make_room(len(frames), now, bound, key)
        if dropped < 0:
            return dropped
        nothing_waits = not outbox.waiting
        outbox.offer(frames, messages, now, bound, key, self._sending_parts)
        if self._outbox is None:
            self._outbox = outbox  # the kernel had just taken all
        if nothing_waits:
            self._flush()
        return dropped

    def _refuse_offer(self, messages: int, bound: Bound) -> int:
        self._settle()  # some bytes may have left
        if bound.overflow != "close":
            return messages
        self._close_as_too_slow()
        return CLOSED

    def _send_large(self, message: Message) -> None:
        if not self._compresses:
            self._write_large(self.endpoint.send_large(message))
            mark = self._mark()
        else:
            # Messages leave in the order in which they were compressed, and before what is offered meanwhile: deflate
            # refers back to what the peer inflated last.
            self._take_turn()
            try:
                self._write_large(self._encode(functools.partial(self.endpoint.send_large, message)))
                mark = self._mark()
            finally:
                self._end_turn()
        if self._outbox is not None:
            self._wait_until_written(self._outbox, mark)

    def _write_large(self, encoded: tuple[bytes, bytes]) -> None:
        data, payload = encoded
        self.messages_sent += 1
        if isinstance(self._socket, _socket.socket):
            self._write(data, payload)
        else:  # TLS must be offered again, as they were, the bytes that it has not taken: not cut in two
            self._write(data + payload)

    def _mark(self) -> int:
        """The mark that the bytes written last have made; 0 when all have left."""
        return 0 if self._outbox is None else self._outbox.mark

    def _encode(self, encode: Callable[[], T]) -> T:
        """Return what `encode` makes of a message; the lock is free while a large one is compressed."""
        if not self._compresses:
            return encode()
        encoded: list[T] = []
        self._call_unlocked(lambda: encoded.append(encode()))
        self.endpoint.refuse_if_late()  # the connection may have been closed meanwhile
        return encoded[0]

    def _take_turn(self) -> None:
        self._sending_parts = True
        self._sender = 0 if self.lock is None else self.reactor.thread_ident()

    def _end_turn(self) -> None:
        self._sending_parts = False
        if self._outbox is not None:
            self._outbox.release(monotonic(), drop=not self._may_send())
            self._flush()
            self._settle()
        self._link.wake()

    def _wait_for_turn(self) -> None:
        if self.lock is not None and self._sending_parts and self._sender == self.reactor.thread_ident():
            raise RuntimeError("this thread is sending a message already: what makes its chunks must not send")
        while self._sending_parts and self._may_send():
            self._sleep(None)

    def _may_send(self) -> bool:
        return self.endpoint.state is _OPEN or self.endpoint.state is _ENDING

    def _send_batch(self) -> None:
        """Send the answers that wait for the next one."""
        if self._batch is not None and self._batch.size:
            self._write(b"")
            if self._outbox is not None:
                self._settle()

    def _send(self, data: bytes, payload: bytes = b"") -> None:
        self._write(data, payload)
        if self._outbox is not None:
            self._wait_until_written(self._outbox, self._outbox.mark)

    def _write(self, data: bytes, payload: bytes = b"") -> None:
        """Send what the kernel takes; the rest goes to the outbox. The caller then calls `_settle()`, or waits."""
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
        """Stop writing, for the peer is gone; what it sent before its end is still read."""
        self._stop_writing(WebSocketClosed)
        self._link.look(pause=False)

    def _wait_until_written(self, outbox: Outbox, mark: int) -> None:
        timeout = self.limits.send_timeout
        deadline = None if timeout is None else monotonic() + timeout
        self._settle()
        while outbox.left < mark and outbox.error is None:
            if not self._sleep(deadline):
                self._give_up_sending()
                break
        if outbox.left < mark and outbox.error is not None:
            raise outbox.error(self.endpoint.close_code or CloseCode.ABNORMAL_CLOSURE, self.endpoint.close_reason)

    def _answer_pings(self, pongs: bytes) -> None:
        if self._outbox is not None and self._outbox.waiting:
            self._outbox.pong_later(pongs)
        else:
            self._write(pongs)
