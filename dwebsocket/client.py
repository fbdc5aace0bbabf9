"""A small blocking client (RFC 6455): what the management commands and the test client speak.

No public API. It has no extensions, no proxies, no redirects and no limits: it speaks to servers that one knows.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import NamedTuple, Protocol
from urllib.parse import quote, urlsplit

from .protocol.codes import CONTROL_BIT, OPCODES, CloseCode, Opcode
from .protocol.exceptions import ProtocolError, WebSocketClosed, WebSocketError
from .protocol.frames import FIN, MASK, MAX_CONTROL_PAYLOAD_BYTES, RSV1, RSV2, RSV3, Close, Frame
from .protocol.handshake import Headers, accept_token, is_token, pairs
from .protocol.messages import Assembler, Message

CLOSE_TIMEOUT_SECONDS = 10.0
_RECV_BYTES = 64 * 1024
_MAX_HEAD_BYTES = 64 * 1024
_MAX_BODY_BYTES = 64 * 1024  # of a refusal; nobody reads more
_SLICE_SECONDS = 0.5  # both directions share the timeout of the socket, so neither ever waits longer on it at once
_ANSWER_SECONDS = 5.0  # a peer that does not even take a pong or a Close frame in this time does not read
_LEAST_SECONDS = 0.000_001  # a timeout of 0 would be another mode of the socket
_KEY_BYTES = 16
_MASKING_KEY_BYTES = 4
_MAX_PINGS = 1000  # that wait for their pongs at once; only the latest must have one (5.5.3)
_PING_BYTES = 8  # which ping a pong answers
#: 5.2: how many bytes of extended length follow for a 7-bit length of 126 and 127, and the least that needs them.
_EXTENDED_LENGTH = {126: (2, 126), 127: (8, 1 << 16)}
_STATUS_LINE = re.compile(r"(HTTP/\d\.\d) (\d{3})(?: (.*))?\Z")  # RFC 9112, 4
_DEFAULT_PORTS = {"ws": 80, "wss": 443}
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r\n")  # RFC 9112, 7.1
_LENGTH = re.compile(r"[0-9]{1,18}\Z")  # RFC 9110, 8.6; Python refuses to read numbers that are much longer
_PATH_SAFE = "/%:@!$&'()*+,;=~?"  # what stays as it is in a URL; an escaped character stays escaped


class HandshakeFailed(ProtocolError):
    """What the server answered is no opening handshake, or no HTTP at all."""


class Refused(WebSocketError):
    """The server answered the opening handshake with HTTP: `response`, and the beginning of its `body` (bytes)."""

    def __init__(self, response: Response, body: bytes) -> None:
        super().__init__(response, body)
        self.response = response
        self.body = body

    def __str__(self) -> str:
        return f"the server answered {self.response.status} {self.response.reason}".rstrip()


class Response(NamedTuple):
    """The head of an HTTP answer; `headers` are pairs in the order of the answer, with lower-case names."""

    status: int
    reason: str
    headers: Sequence[tuple[str, str]]
    http_version: str = "HTTP/1.1"

    def get(self, name: str) -> str | None:
        """The value of the header `name`; those of several joined by a comma (RFC 9110, 5.3); None without one."""
        values = self.get_all(name)
        return ", ".join(values) if values else None

    def get_all(self, name: str) -> list[str]:
        """Every value of the header `name`, as Set-Cookie has them."""
        return [value for other, value in self.headers if other == name.lower()]

    @classmethod
    def parse(cls, head: bytes) -> Response:
        """The answer in `head`, which may end with the blank line. HandshakeFailed where it is not HTTP/1."""
        status_line, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        match = _STATUS_LINE.match(status_line)
        if match is None:
            raise HandshakeFailed(f"the answer is not HTTP/1: it begins with {status_line[:40]!r}")
        version, status, reason = match.groups(default="")
        return cls(int(status), reason, tuple(map(_parse_field, lines)), version)


def _parse_field(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not is_token(name):
        raise HandshakeFailed(f"the answer has a malformed header: {line[:40]!r}")
    return name.lower(), value.strip(" \t")


class ClientHandshake:
    """The opening handshake as a client says it (RFC 6455, 4.1), with a fresh key."""

    def __init__(self, *, subprotocols: Sequence[str] = (), origin: str | None = None) -> None:
        self.key = base64.b64encode(os.urandom(_KEY_BYTES)).decode()
        self._subprotocols = tuple(subprotocols)
        self._origin = origin

    def headers(self) -> dict[str, str]:
        """The headers of the request that belong to the handshake; Host comes from whoever knows the URL."""
        headers = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": self.key,
        }
        if self._subprotocols:
            headers["Sec-WebSocket-Protocol"] = ", ".join(self._subprotocols)
        if self._origin is not None:
            headers["Origin"] = self._origin
        return headers

    def read(self, head: bytes) -> Response:
        """The answer in `head`. HandshakeFailed where it is not HTTP, or a 101 that does not fit what was asked."""
        response = Response.parse(head)
        if response.status == 101:
            self._check(response)
        return response

    def _check(self, response: Response) -> None:
        """Section 4.1, what the client must verify."""
        if response.http_version != "HTTP/1.1":
            raise HandshakeFailed(f"the 101 is {response.http_version}, not HTTP/1.1")
        if (response.get("upgrade") or "").lower() != "websocket":
            raise HandshakeFailed("the Upgrade header of the 101 does not say websocket")
        if "upgrade" not in {token.strip().lower() for token in (response.get("connection") or "").split(",")}:
            raise HandshakeFailed("the Connection header of the 101 does not say Upgrade")
        if response.get_all("sec-websocket-accept") != [accept_token(self.key)]:
            raise HandshakeFailed("Sec-WebSocket-Accept does not answer the key that was sent")
        if response.get("sec-websocket-extensions"):
            raise HandshakeFailed("the server chose an extension, and none was offered")
        subprotocol = response.get("sec-websocket-protocol")
        if subprotocol is not None and subprotocol not in self._subprotocols:
            raise HandshakeFailed(f"the server chose the subprotocol {subprotocol!r}, which was not offered")


class Stream(Protocol):
    """What is asked of a socket; one of TLS has the same verbs."""

    def recv(self, size: int, /) -> bytes: ...
    def send(self, data: bytes | memoryview, /) -> int: ...
    def settimeout(self, seconds: float | None, /) -> None: ...
    def shutdown(self, how: int, /) -> None: ...
    def close(self) -> None: ...


class ClientConnection:
    """An open WebSocket as its client has it; it blocks.

    One thread may receive (`receive`, `ping`, `close`) while another one sends. `close_code` (None until the end) and
    `close_reason` are those of the Close frame that the peer sent, or 1006 where none came. Whether the peer is gone
    is noticed by receiving. After a `with` block it is closed.
    """

    def __init__(self, sock: Stream, early: bytes = b"", *, subprotocol: str | None = None) -> None:
        self.subprotocol = subprotocol
        self.closed = False
        self.close_code: int | None = None
        self.close_reason = ""
        self.pings_received = 0
        self._sock = sock
        self._sock.settimeout(_SLICE_SECONDS)
        self._reader = _Reader()
        self._reader.feed(early)
        self._assembler = Assembler()
        self._messages: deque[Message] = deque()
        self._pings: deque[bytes] = deque(maxlen=_MAX_PINGS)  # not answered yet
        self._pinged: bytes | None = None  # the payload of our ping that is not answered yet
        self._sending = threading.Lock()  # a pong does not come into the middle of a message
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
        self._write(frame, _deadline(timeout))

    def receive(self, timeout: float | None = None) -> Message:
        """The next message. TimeoutError when none is here after `timeout` seconds; what came of it is kept.

        WebSocketClosed, with the code and reason, when the connection is closed; ProtocolError when the peer breaks
        the rules, which fails the connection.
        """
        self._read_until(lambda: self._messages, _deadline(timeout))
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
        """The closing handshake: waits for the peer's Close frame, at most `timeout` seconds; once.

        Messages that have not been received by then are dropped. ValueError for a code or reason that cannot be sent.
        """
        payload = Close(code, reason).serialize()
        if self.closed:
            return
        deadline = time.monotonic() + timeout
        try:
            with contextlib.suppress(WebSocketClosed):  # the peer takes nothing any more, but may have said why
                self._send_close(payload, deadline)
            self._read_until(lambda: self.closed, deadline)
        except TimeoutError:
            self._end(CloseCode.ABNORMAL_CLOSURE, "no close frame came in time")
        except ProtocolError:
            pass  # it has failed the connection, which is closed now
        self._messages.clear()

    def _read_until(self, is_done: Callable[[], object], deadline: float | None) -> None:
        """Handle frames until `is_done()`. What has arrived when the deadline passes still counts, and no more.

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
            is_last = _is_over(deadline)
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
            data = _recv(self._sock, deadline)
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
                return  # the end of the stream is what is read next
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
        """Section 7.1.7."""
        self._answer_close(Close(error.close_code, str(error)).serialize())
        self._end(error.close_code, str(error))

    def _end(self, code: int, reason: str) -> None:
        if self.closed:
            return
        self.close_code, self.close_reason = code, reason
        self.closed = True
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)  # wakes whoever waits on the socket; `close()` does not
        self._sock.close()

    def _check_open(self) -> None:
        if self.closed or self._close_sent:
            raise self._closed_error()

    def _closed_error(self) -> WebSocketClosed:
        code = self.close_code if self.close_code is not None else CloseCode.ABNORMAL_CLOSURE
        return WebSocketClosed(code, self.close_reason)

    def _write(self, frame: Frame, deadline: float | None) -> None:
        """Send a frame when its turn comes. TimeoutError; WebSocketClosed where the peer takes nothing any more."""
        if not self._sending.acquire(timeout=-1 if deadline is None else max(_left(deadline), 0)):
            raise TimeoutError("another message is on its way out")
        try:
            self._put(frame, deadline)
        except TimeoutError:
            raise
        except OSError as error:  # `receive()` still has what the peer said before
            raise WebSocketClosed(CloseCode.ABNORMAL_CLOSURE, str(error)) from error
        finally:
            self._sending.release()
        self._answer_pings(deadline)

    def _put(self, frame: Frame, deadline: float | None) -> None:
        try:
            _send(self._sock, memoryview(frame.serialize(os.urandom(_MASKING_KEY_BYTES))), deadline)
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


class Target(NamedTuple):
    """What a URL says of a WebSocket (RFC 6455, 3): `authority` is what Host says, `resource` what is asked for."""

    secure: bool
    host: str
    port: int
    authority: str
    resource: str

    @classmethod
    def parse(cls, url: str) -> Target:
        """What is in `url`; ValueError where it is not one of ws:// or wss://."""
        parts = urlsplit(url)
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
            raise ValueError(f"{url!r} is not the URL of a WebSocket: ws://host/path or wss://host/path")
        host, default_port = parts.hostname, _DEFAULT_PORTS[parts.scheme]
        port = parts.port or default_port
        authority = f"[{host}]" if ":" in host else host
        if port != default_port:
            authority += f":{port}"
        resource = quote(parts.path, safe=_PATH_SAFE) or "/"
        if parts.query:
            resource += "?" + quote(parts.query, safe=_PATH_SAFE)
        return cls(parts.scheme == "wss", host, port, authority, resource)

    @property
    def origin(self) -> str:
        """The origin of the pages of that site."""
        return f"{'https' if self.secure else 'http'}://{self.authority}"


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
        sock.settimeout(max(_left(deadline), _LEAST_SECONDS))
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
    _send(sock, memoryview(_request(target, handshake, headers)), deadline)
    head, early = read_head(sock, deadline)
    response = handshake.read(head)
    if response.status != 101:
        raise Refused(response, _read_body(sock, response, early, deadline))
    return ClientConnection(sock, early, subprotocol=response.get("sec-websocket-protocol"))


def read_head(sock: Stream, deadline: float | None) -> tuple[bytes, bytes]:
    """The head of an answer, with its blank line, and what came behind it.

    TimeoutError after `deadline` (of `time.monotonic()`); HandshakeFailed where the stream ends, or is not HTTP.
    """
    received = bytearray()
    while b"\r\n\r\n" not in received:
        if received and _is_over(deadline):
            raise TimeoutError("the answer did not come in time")
        data = _recv(sock, deadline)
        if not data:
            so_far = f"within the answer, after {bytes(received[:40])!r}" if received else "without an answer"
            raise HandshakeFailed(f"the server closed the connection {so_far}")
        received += data
        if not received.startswith(b"HTTP/"[: len(received)]):
            raise HandshakeFailed(f"the answer is not HTTP/1: it begins with {bytes(received[:40])!r}")
        if len(received) > _MAX_HEAD_BYTES and b"\r\n\r\n" not in received[:_MAX_HEAD_BYTES]:
            raise HandshakeFailed(f"the answer has more than {_MAX_HEAD_BYTES} bytes of headers")
    end = received.index(b"\r\n\r\n") + 4
    return bytes(received[:end]), bytes(received[end:])


def _request(target: Target, handshake: ClientHandshake, headers: Headers) -> bytes:
    given = list(pairs(headers))
    fields = [*handshake.headers().items(), *given]
    if not any(name.lower() == "host" for name, _ in given):
        fields.insert(0, ("Host", target.authority))
    for name, value in fields:
        if not is_token(name) or "\r" in value or "\n" in value:
            raise ValueError(f"{name!r}: {value!r} is not a header")
    lines = [f"GET {target.resource} HTTP/1.1", *(f"{name}: {value}" for name, value in fields), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def _read_body(sock: Stream, response: Response, early: bytes, deadline: float) -> bytes:
    """The beginning of the body, as much of it as comes: a refusal is worth showing though its body is cut."""
    body = bytearray(early)
    chunked = (response.get("transfer-encoding") or "").lower().endswith("chunked")
    length = response.get("content-length") or ""
    size = min(int(length), _MAX_BODY_BYTES) if _LENGTH.match(length) and not chunked else _MAX_BODY_BYTES
    try:
        while len(body) < size and not (chunked and body.endswith(b"0\r\n\r\n")) and not _is_over(deadline):
            data = _recv(sock, deadline)
            if not data:
                break
            body += data
    except OSError:
        pass
    return _dechunk(bytes(body)) if chunked else bytes(body[:size])


def _dechunk(body: bytes) -> bytes:
    """What is in the chunks of `body` (RFC 9112, 7.1); the last may be cut."""
    parts = []
    begin = 0
    while (line := _CHUNK_SIZE.match(body, begin)) and (size := int(line[1], 16)):
        parts.append(body[line.end() : line.end() + size])
        begin = line.end() + size + 2
    return b"".join(parts)


class TLSStream:
    """TLS over a socket, as a socket: what CPython's own has not in every version, one thread may send while another
    one receives. OpenSSL only ever sees memory, so nobody waits inside of it."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, hostname: str, deadline: float) -> None:
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=hostname)
        self._using = threading.Lock()  # of OpenSSL's state
        self._flushing = threading.Lock()  # records go out in their order
        self._unsent = b""
        self._taken = 0  # bytes of the data offered last that are in records which are not sent
        self._shake_hands(deadline)

    def version(self) -> str | None:
        """Which TLS was agreed upon, as "TLSv1.3"."""
        return self._tls.version()

    def settimeout(self, seconds: float | None) -> None:
        self._sock.settimeout(seconds)

    def recv(self, size: int) -> bytes:
        """As a socket has it; TimeoutError also where what came is not yet the end of a record."""
        data = self._read(size)
        if data is not None:
            return data
        if not self._taken:  # else a sender is about to send all there is
            self._flush()
        self._fill()
        data = self._read(size)
        if data is None:
            raise TimeoutError("a record of TLS has not arrived as a whole")
        return data

    def send(self, data: bytes | memoryview) -> int:
        if not self._taken:
            with self._using:
                self._taken = self._tls.write(data[:_RECV_BYTES])
        self._flush()  # after a TimeoutError the same data is offered again
        taken, self._taken = self._taken, 0
        return taken

    def shutdown(self, how: int) -> None:
        self._sock.shutdown(how)

    def close(self) -> None:
        self._sock.close()

    def _read(self, size: int) -> bytes | None:
        """Bytes that are here already, none at the end of the stream; None when more has to come first."""
        with self._using:
            try:
                return self._tls.read(size)
            except ssl.SSLWantReadError:
                return None
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    def _shake_hands(self, deadline: float) -> None:
        while not _is_over(deadline):
            self._sock.settimeout(max(deadline - time.monotonic(), _LEAST_SECONDS))
            try:
                self._tls.do_handshake()
                self._flush()
                return
            except ssl.SSLWantReadError:
                self._flush()
                self._fill()
            except ssl.SSLError:
                self._flush()  # the alert that says why
                raise
        raise TimeoutError("the handshake of TLS was not over in time")

    def _fill(self) -> None:
        data = self._sock.recv(_RECV_BYTES)
        with self._using:
            if data:
                self._incoming.write(data)
            else:
                self._incoming.write_eof()

    def _flush(self) -> None:
        """Send what waits to be sent; TimeoutError where the socket has not taken all of it."""
        with self._flushing:
            with self._using:
                self._unsent += self._outgoing.read()
            if self._unsent:
                self._unsent = self._unsent[self._sock.send(self._unsent) :]
            if self._unsent:
                raise TimeoutError("not all of a record of TLS was taken")


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def _left(deadline: float | None) -> float:
    return _SLICE_SECONDS if deadline is None else deadline - time.monotonic()


def _is_over(deadline: float | None) -> bool:
    return _left(deadline) <= 0


def _recv(sock: Stream, deadline: float | None) -> bytes:
    """Bytes that have arrived, none at the end of the stream; TimeoutError when none are here and no time is left."""
    while True:
        sock.settimeout(min(max(_left(deadline), _LEAST_SECONDS), _SLICE_SECONDS))
        try:
            return sock.recv(_RECV_BYTES)
        except TimeoutError:
            if _is_over(deadline):
                raise


def _send(sock: Stream, data: memoryview, deadline: float | None) -> None:
    """Send all of `data`. The timeout of the socket is the receiver's: it only says how often to look at the clock."""
    while data:
        with contextlib.suppress(TimeoutError):
            data = data[sock.send(data) :]
        if data and _is_over(deadline):
            raise TimeoutError("it was not taken in time")
