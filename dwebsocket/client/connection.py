"""The client's end of an open WebSocket, and the calls that open one."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType

from ..protocol.codes import CONTROL_BIT, OPCODES, CloseCode, Opcode
from ..protocol.exceptions import ProtocolError, WebSocketClosed
from ..protocol.frames import FIN, MASK, MAX_CONTROL_PAYLOAD_BYTES, RSV1, RSV2, RSV3, Close, Frame
from ..protocol.handshake import Headers
from ..protocol.messages import Assembler, Message
from .handshake import ClientHandshake, Refused, read_body, read_head, request_head
from .stream import LEAST_SECONDS, SLICE_SECONDS, Stream, deadline_after, is_over, left, recv, send
from .tls import TLSStream
from .url import Target

CLOSE_TIMEOUT_SECONDS = 10.0
_ANSWER_SECONDS = 5.0  # a peer that takes no pong or Close frame in this time does not read
_MASKING_KEY_BYTES = 4
_MAX_PINGS = 1000  # more are not kept for their pongs: only the latest must have one (5.5.3)
_PING_BYTES = 8  # a random payload tells which ping a pong answers
#: 5.2: how many bytes of extended length follow for a 7-bit length of 126 and 127, and the least that needs them.
_EXTENDED_LENGTH = {126: (2, 126), 127: (8, 1 << 16)}


class ClientConnection:
    """The client's end of an open WebSocket; its calls block.

    One thread may receive (`receive`, `ping`, `close`) while another one sends. `close_code` (None until the end) and
    `close_reason` are those of the Close frame that the peer sent, or 1006 where none came. Only receiving notices
    that the peer is gone. After a `with` block it is closed.
    """

    def __init__(self, sock: Stream, early: bytes = b"", *, subprotocol: str | None = None) -> None:
        self.subprotocol = subprotocol
        self.closed = False
        self.close_code: int | None = None
        self.close_reason = ""
        self.pings_received = 0
        self._sock = sock
        self._sock.settimeout(SLICE_SECONDS)
        self._reader = _Reader()
        self._reader.feed(early)
        self._assembler = Assembler()
        self._messages: deque[Message] = deque()
        self._pings: deque[bytes] = deque(maxlen=_MAX_PINGS)  # not answered yet
        self._pinged: bytes | None = None  # the payload of our ping that is not answered yet
        self._sending = threading.Lock()  # keeps a pong out of the middle of a message
        self._close_sent = False

    def __enter__(self) -> ClientConnection:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def send(self, message: Message, timeout: float | None = None) -> None:
        """Send a message: text for a `str`, binary for `bytes`. WebSocketClosed when the connection is closed.

        TimeoutError when the peer has not taken it after `timeout` seconds; that is the end of the connection.
        """
        if isinstance(message, str):
            frame = Frame(Opcode.TEXT, message.encode())
        elif isinstance(message, bytes):
            frame = Frame(Opcode.BINARY, message)
        else:
            raise TypeError(f"a message is str or bytes, not {type(message).__name__}")
        self._check_open()
        self._write(frame, deadline_after(timeout))

    def receive(self, timeout: float | None = None) -> Message:
        """The next message. TimeoutError when none is here after `timeout` seconds; a part that came is kept.

        WebSocketClosed, with the code and reason, when the connection is closed; ProtocolError when the peer breaks
        the rules, which fails the connection.
        """
        self._read_until(lambda: self._messages, deadline_after(timeout))
        return self._messages.popleft()

    def ping(self, timeout: float) -> float:
        """The seconds until the peer answered a ping; messages that arrive meanwhile are kept for `receive()`.

        TimeoutError and WebSocketClosed as `receive()` has them.
        """
        self._check_open()
        self._pinged = payload = os.urandom(_PING_BYTES)
        begin = time.monotonic()
        self._write(Frame(Opcode.PING, payload), begin + timeout)
        self._read_until(lambda: self._pinged is None, begin + timeout)
        return time.monotonic() - begin

    def close(
        self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "", timeout: float = CLOSE_TIMEOUT_SECONDS
    ) -> None:
        """Do the closing handshake, once: waits for the peer's Close frame, at most `timeout` seconds.

        Messages that have not been received by then are dropped. ValueError for a code or reason that cannot be sent.
        """
        payload = Close(code, reason).serialize()
        if self.closed:
            return
        deadline = time.monotonic() + timeout
        try:
            with contextlib.suppress(WebSocketClosed):  # the peer reads nothing any more, but may have sent the reason
                self._send_close(payload, deadline)
            self._read_until(lambda: self.closed, deadline)
        except TimeoutError:
            self._end(CloseCode.ABNORMAL_CLOSURE, "no close frame came in time")
        except ProtocolError:
            pass  # it has failed the connection, which is closed now
        self._messages.clear()

    def _read_until(self, is_done: Callable[[], object], deadline: float | None) -> None:
        """Handle frames until `is_done()`. Bytes that have arrived when the deadline passes still count, and no more.

        TimeoutError, ProtocolError; WebSocketClosed where the end comes first.
        """
        is_last = False  # bytes may never cease to flow: after the deadline they are looked for once
        while not is_done():
            if self.closed:
                raise self._closed_error()
            if self._handle_next(deadline):
                continue
            if is_last:
                raise TimeoutError("the time is over")
            is_last = is_over(deadline)
            self._fetch(deadline)

    def _handle_next(self, deadline: float | None) -> bool:
        """Handle the next frame, if it is here."""
        try:
            frame = self._reader.next_frame()
            if frame is not None:
                self._handle(frame, deadline)
        except ProtocolError as error:
            self._fail(error)
            raise
        return frame is not None

    def _fetch(self, deadline: float | None) -> None:
        """Wait for more bytes. TimeoutError."""
        try:
            data = recv(self._sock, deadline)
        except TimeoutError:
            raise
        except OSError as error:
            self._end(CloseCode.ABNORMAL_CLOSURE, str(error))
            return
        if data:
            self._reader.feed(data)
        else:
            self._end(CloseCode.ABNORMAL_CLOSURE, "the stream ended without a close frame")

    def _handle(self, frame: Frame, deadline: float | None) -> None:
        if frame.opcode is Opcode.CLOSE:
            close = Close.parse(frame.payload)
            self._answer_close(frame.payload[:2])
            self._end(close.code, close.reason)
        elif frame.opcode is Opcode.PING:
            self.pings_received += 1
            self._pings.append(frame.payload)
            self._answer_pings(deadline)
        elif frame.opcode is Opcode.PONG:
            if frame.payload == self._pinged:
                self._pinged = None
        else:
            message = self._assembler.add(frame)
            if message is not None and not self._close_sent:  # `close()` drops what crosses it
                self._messages.append(message)

    def _answer_pings(self, deadline: float | None) -> None:
        """Send the pongs that are due; where a message is on its way out, its sender does so afterwards.

        All of them together take no longer than `_ANSWER_SECONDS` beyond the deadline.
        """
        while self._pings and not self._close_sent and self._sending.acquire(blocking=False):
            try:
                if self._pings:
                    now = time.monotonic()
                    latest = (now if deadline is None else min(now, deadline)) + _ANSWER_SECONDS
                    self._put(Frame(Opcode.PONG, self._pings.popleft()), latest)
            except OSError:
                return  # the next read finds the end of the stream
            finally:
                self._sending.release()

    def _answer_close(self, payload: bytes) -> None:
        with contextlib.suppress(OSError, WebSocketClosed):
            self._send_close(payload, time.monotonic() + _ANSWER_SECONDS)

    def _send_close(self, payload: bytes, deadline: float) -> None:
        if not self._close_sent:
            self._close_sent = True
            self._write(Frame(Opcode.CLOSE, payload), deadline)

    def _fail(self, error: ProtocolError) -> None:
        """Fail the connection (7.1.7)."""
        self._answer_close(Close(error.close_code, str(error)).serialize())
        self._end(error.close_code, str(error))

    def _end(self, code: int, reason: str) -> None:
        if self.closed:
            return
        self.close_code, self.close_reason = code, reason
        self.closed = True
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits on the socket; `close()` does not
        self._sock.close()

    def _check_open(self) -> None:
        if self.closed or self._close_sent:
            raise self._closed_error()

    def _closed_error(self) -> WebSocketClosed:
        code = self.close_code if self.close_code is not None else CloseCode.ABNORMAL_CLOSURE
        return WebSocketClosed(code, self.close_reason)

    def _write(self, frame: Frame, deadline: float | None) -> None:
        """Send a frame when its turn comes. TimeoutError; WebSocketClosed where the peer takes nothing any more."""
        if not self._sending.acquire(timeout=-1 if deadline is None else max(left(deadline), 0)):
            raise TimeoutError("another message is on its way out")
        try:
            self._put(frame, deadline)
        except TimeoutError:
            raise
        except OSError as error:  # `receive()` still gives what the peer sent before
            raise WebSocketClosed(CloseCode.ABNORMAL_CLOSURE, str(error)) from error
        finally:
            self._sending.release()
        self._answer_pings(deadline)

    def _put(self, frame: Frame, deadline: float | None) -> None:
        try:
            send(self._sock, memoryview(frame.serialize(os.urandom(_MASKING_KEY_BYTES))), deadline)
        except TimeoutError:  # half a frame may be out: nothing can follow it
            self._end(CloseCode.ABNORMAL_CLOSURE, "the peer does not read")
            raise


class _Reader:
    """Gives the frames in the bytes fed to it, as a client reads them: whole, and never masked."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._in_message = False  # the last data frame had no fin: a continuation must follow (5.4)

    def feed(self, data: bytes) -> None:
        """Add bytes that have arrived."""
        self._buffer += data

    def next_frame(self) -> Frame | None:
        """The next frame; None when more bytes are needed. ProtocolError where its header breaks a rule."""
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        first, size = buffer[0], buffer[1]
        opcode = self._judge(first, size)
        begin = 2
        if size in _EXTENDED_LENGTH:
            length_bytes, least = _EXTENDED_LENGTH[size]
            begin += length_bytes
            if len(buffer) < begin:
                return None
            size = int.from_bytes(buffer[2:begin], "big")
            if size < least:
                raise ProtocolError("length is not in its shortest form")  # 5.2
            if size >> 63:
                raise ProtocolError("length has its highest bit set")  # 5.2
        if len(buffer) < begin + size:
            return None
        payload = bytes(buffer[begin : begin + size])
        del buffer[: begin + size]
        if not opcode & CONTROL_BIT:
            self._in_message = not first & FIN
        return Frame(opcode, payload, bool(first & FIN))

    def _judge(self, first: int, second: int) -> Opcode:
        if first & (RSV1 | RSV2 | RSV3):
            raise ProtocolError("reserved bit set")  # 5.2
        opcode = OPCODES.get(first & 0x0F)
        if opcode is None:
            raise ProtocolError(f"reserved opcode {first & 0x0F:#x}")  # 5.2
        if second & MASK:
            raise ProtocolError("frame of a server is masked")  # 5.1
        if opcode & CONTROL_BIT:
            if not first & FIN:
                raise ProtocolError("fragmented control frame")  # 5.5
            if second > MAX_CONTROL_PAYLOAD_BYTES:
                raise ProtocolError("control frame too long")  # 5.5
        elif opcode is Opcode.CONTINUATION:
            if not self._in_message:
                raise ProtocolError("continuation of no message")  # 5.4
        elif self._in_message:
            raise ProtocolError("new message inside a fragmented one")  # 5.4
        return opcode


def connect(
    url: str,
    *,
    headers: Headers = (),
    subprotocols: Sequence[str] = (),
    origin: str | None = None,
    timeout: float,
    ssl_context: ssl.SSLContext | None = None,
) -> ClientConnection:
    """An open WebSocket to `url` (ws:// or wss://) after at most `timeout` seconds.

    Refused when the answer is not 101, HandshakeFailed when it is no proper answer; OSError, TimeoutError and the
    errors of TLS as they come.
    """
    target = Target.parse(url)
    deadline = time.monotonic() + timeout
    sock = dial(target, deadline, ssl_context)
    try:
        return open_websocket(sock, target, deadline, headers=headers, subprotocols=subprotocols, origin=origin)
    except BaseException:
        sock.close()
        raise


def dial(target: Target, deadline: float, ssl_context: ssl.SSLContext | None = None) -> Stream:
    """A connection to the server of `target`, with TLS where its URL says so."""
    sock = _connected(target, deadline)
    if not target.secure:
        return sock
    try:
        return TLSStream(sock, ssl_context or ssl.create_default_context(), target.host, deadline)
    except BaseException:
        sock.close()
        raise


def _connected(target: Target, deadline: float) -> socket.socket:
    """A connection to one of the addresses of the host, for all of which there is time until the deadline."""
    failed = OSError(f"{target.host} has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        sock.settimeout(max(left(deadline), LEAST_SECONDS))
        try:
            sock.connect(address)
        except OSError as error:
            sock.close()
            failed = error
        else:
            return sock
    raise failed


def open_websocket(
    sock: Stream,
    target: Target,
    deadline: float,
    *,
    headers: Headers = (),
    subprotocols: Sequence[str] = (),
    origin: str | None = None,
) -> ClientConnection:
    """The WebSocket that the opening handshake makes of `sock`; the errors of `connect()`. It does not close `sock`."""
    handshake = ClientHandshake(subprotocols=subprotocols, origin=origin)
    send(sock, memoryview(request_head(target, handshake, headers)), deadline)
    head, early = read_head(sock, deadline)
    response = handshake.read(head)
    if response.status != 101:
        raise Refused(response, read_body(sock, response, early, deadline))
    return ClientConnection(sock, early, subprotocol=response.get("sec-websocket-protocol"))
