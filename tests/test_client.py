"""The client, over one end of a socket whose other end is written by hand."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import pytest
import trustme

from dwebsocket.client import (
    ClientConnection,
    ClientHandshake,
    HandshakeFailed,
    Refused,
    Response,
    Target,
    TLSStream,
    connect,
    read_head,
)
from dwebsocket.protocol.exceptions import InvalidPayload, ProtocolError, WebSocketClosed
from tests.links import PATIENCE_SECONDS, run
from tests.peer import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    accept_value,
    close_payload,
    decode,
    frame,
    head,
)

MIB = 1 << 20


def said(opcode: int, payload: bytes = b"", **options) -> bytes:
    """A frame as a server sends it."""
    return frame(opcode, payload, **{"mask": None, **options})


class Far:
    """The server's end of a connection."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE_SECONDS)
        self.sock = sock
        self.buffer = b""

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def take(self) -> Frame:
        """The next frame of the client, which must be masked (5.1)."""
        while (found := decode(self.buffer)) is None:
            data = self.sock.recv(1 << 16)
            assert data, f"the stream ended after {self.buffer!r}"
            self.buffer += data
        self.buffer = self.buffer[found[1] :]
        assert found[0].mask is not None
        return found[0]

    def take_head(self) -> dict[str, str]:
        """The headers of the client's opening handshake, with its first line under ""."""
        while b"\r\n\r\n" not in self.buffer:
            data = self.sock.recv(1 << 16)
            assert data, f"the stream ended after {self.buffer!r}"
            self.buffer += data
        taken, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        first, *lines = taken.decode("latin-1").split("\r\n")
        return {"": first} | {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}

    def at_end(self) -> bool:
        return self.sock.recv(1) == b""


def flood(far: Far, data: bytes) -> None:
    """Send ``data`` again and again until the client ends the connection."""
    with contextlib.suppress(ConnectionError):
        while True:
            far.send(data * (1 + 65_536 // len(data)))


def drip(far: Far, data: bytes) -> None:
    """Send ``data`` byte by byte, a thousand a second at most, until the client ends the connection."""
    with contextlib.suppress(ConnectionError):
        for byte in data:
            far.send(bytes([byte]))
            time.sleep(0.001)


def drain(far: Far) -> None:
    """Read what the client sends until it ends the connection."""
    with contextlib.suppress(ConnectionError):
        while far.sock.recv(1 << 16):
            pass


@contextmanager
def soon() -> Iterator[None]:
    """What is inside ends long before the time that the peer would go on."""
    begin = time.monotonic()
    yield
    assert time.monotonic() - begin < PATIENCE_SECONDS / 2


@pytest.fixture
def ends() -> Iterator[tuple[ClientConnection, Far]]:
    near, far = socket.socketpair()
    with near, far:
        yield ClientConnection(near), Far(far)


def start(function: Callable, *arguments) -> Future:
    """The outcome of ``function``, which runs in a thread of its own."""
    future: Future = Future()
    threading.Thread(target=run, args=(future, function, *arguments), daemon=True).start()
    return future


# Messages


@pytest.mark.parametrize(
    ("message", "opcode", "payload"),
    [
        ("Grüße 🎉", TEXT, "Grüße 🎉".encode()),
        ("", TEXT, b""),
        (b"\x00\xff", BINARY, b"\x00\xff"),
        (b"x" * 125, BINARY, b"x" * 125),
        (b"x" * 126, BINARY, b"x" * 126),
        (b"x" * 65536, BINARY, b"x" * 65536),
    ],
    ids=["text", "empty", "binary", "125", "126", "65536"],
)
def test_message_is_sent_in_one_masked_frame(ends, message, opcode, payload) -> None:
    client, far = ends
    sent = start(client.send, message)
    taken = far.take()
    sent.result(PATIENCE_SECONDS)
    assert (taken.opcode, taken.payload, taken.fin, taken.rsv) == (opcode, payload, True, 0)


def test_masking_key_is_another_for_each_frame(ends) -> None:
    client, far = ends
    for _ in range(4):
        client.send("same")
    assert len({far.take().mask for _ in range(4)}) > 1


def test_message_that_is_neither_str_nor_bytes_is_a_type_error(ends) -> None:
    with pytest.raises(TypeError, match="a message is str or bytes, not int"):
        ends[0].send(7)


ARRIVALS = [
    pytest.param(said(TEXT, "ä€🎉".encode()), "ä€🎉", id="text"),
    pytest.param(said(BINARY, b"\xff" * 200), b"\xff" * 200, id="binary of 200"),
    pytest.param(said(BINARY), b"", id="empty"),
    pytest.param(said(TEXT, "ä".encode()[:1], fin=False) + said(CONTINUATION, "ä".encode()[1:]), "ä", id="fragments"),
    pytest.param(said(TEXT, b"a", fin=False) + said(PONG) + said(CONTINUATION, b"b"), "ab", id="pong in between"),
]


@pytest.mark.parametrize(("stream", "message"), ARRIVALS)
def test_message_arrives_wherever_the_stream_is_cut(ends, stream, message) -> None:
    client, far = ends
    for cut in range(1, len(stream)):
        far.send(stream[:cut])
        with pytest.raises(TimeoutError):
            client.receive(timeout=0)
        far.send(stream[cut:])
        assert client.receive(PATIENCE_SECONDS) == message


def test_large_message_arrives_whole(ends) -> None:
    client, far = ends
    sent = start(far.send, said(BINARY, b"x" * 4 * MIB))
    assert client.receive(PATIENCE_SECONDS) == b"x" * 4 * MIB
    sent.result(PATIENCE_SECONDS)


def test_bytes_that_came_with_the_handshake_come_first() -> None:
    near, far = socket.socketpair()
    with near, far:
        client = ClientConnection(near, said(TEXT, b"early") + said(TEXT, b"next")[:3])
        far.sendall(said(TEXT, b"next")[3:])
        assert [client.receive(PATIENCE_SECONDS), client.receive(PATIENCE_SECONDS)] == ["early", "next"]


def test_receive_without_a_message_times_out_and_the_connection_goes_on(ends) -> None:
    client, far = ends
    with pytest.raises(TimeoutError):
        client.receive(timeout=0.01)
    far.send(said(TEXT, b"late"))
    assert client.receive(PATIENCE_SECONDS) == "late"


def test_one_thread_sends_while_another_receives(ends) -> None:
    client, far = ends
    received = start(client.receive, PATIENCE_SECONDS)
    sent = start(client.send, b"x" * 4 * MIB)
    assert len(far.take().payload) == 4 * MIB
    sent.result(PATIENCE_SECONDS)
    assert not received.done()
    far.send(said(TEXT, b"now"))
    assert received.result(PATIENCE_SECONDS) == "now"


def test_message_that_nobody_reads_times_out_and_ends_the_connection(ends) -> None:
    client, _ = ends
    with pytest.raises(TimeoutError):
        client.send(b"x" * 16 * MIB, timeout=0.01)
    assert (client.closed, client.close_code, client.close_reason) == (True, 1006, "the peer does not read")


# Ping


def test_ping_of_the_peer_is_answered_while_waiting(ends) -> None:
    client, far = ends
    far.send(said(PING, b"are you there") + said(TEXT, b"go"))
    assert client.receive(PATIENCE_SECONDS) == "go"
    assert far.take()[:2] == (PONG, b"are you there")


def test_ping_of_the_peer_during_a_message_is_answered_after_it(ends) -> None:
    client, far = ends
    sent = start(client.send, b"x" * 4 * MIB)
    while not far.buffer:
        far.buffer = far.sock.recv(1)
    far.send(said(PING, b"p") + said(TEXT, b"go"))
    assert client.receive(PATIENCE_SECONDS) == "go"  # though half a message is out
    assert len(far.take().payload) == 4 * MIB
    assert far.take()[:2] == (PONG, b"p")
    sent.result(PATIENCE_SECONDS)


def test_ping_gives_the_seconds_until_its_pong_and_keeps_the_messages(ends) -> None:
    client, far = ends
    pinged = start(client.ping, PATIENCE_SECONDS)
    ping = far.take()
    assert ping.opcode == PING
    far.send(said(PONG, b"of nobody") + said(TEXT, b"meanwhile"))
    assert not pinged.done()
    far.send(said(PONG, ping.payload))
    assert 0 < pinged.result(PATIENCE_SECONDS) < PATIENCE_SECONDS
    assert client.receive(timeout=0) == "meanwhile"


def test_ping_without_an_answer_times_out_and_its_late_pong_answers_no_other(ends) -> None:
    client, far = ends
    with pytest.raises(TimeoutError):
        client.ping(timeout=0.01)
    far.send(said(PONG, far.take().payload))
    with pytest.raises(TimeoutError):
        client.ping(timeout=0.01)


def test_ping_that_is_answered_with_a_close_says_so(ends) -> None:
    client, far = ends
    far.send(said(CLOSE, close_payload(1001, "bye")))
    with pytest.raises(WebSocketClosed) as closed:
        client.ping(PATIENCE_SECONDS)
    assert (closed.value.close_code, closed.value.close_reason) == (1001, "bye")


# Close


@pytest.mark.parametrize(
    ("payload", "code", "reason", "answer"),
    [
        (close_payload(4000, "tschüß"), 4000, "tschüß", close_payload(4000)),
        (close_payload(1000), 1000, "", close_payload(1000)),
        (b"", 1005, "", b""),
    ],
)
def test_close_of_the_peer_is_answered_after_the_messages_before_it(ends, payload, code, reason, answer) -> None:
    client, far = ends
    far.send(said(TEXT, b"last") + said(CLOSE, payload))
    assert client.receive(PATIENCE_SECONDS) == "last"
    for _ in range(2):
        with pytest.raises(WebSocketClosed) as closed:
            client.receive(PATIENCE_SECONDS)
        assert (closed.value.close_code, closed.value.close_reason) == (code, reason)
    assert (client.closed, client.close_code, client.close_reason) == (True, code, reason)
    assert far.take()[:2] == (CLOSE, answer)
    assert far.at_end()
    with pytest.raises(WebSocketClosed):
        client.send("too late")


def test_close_waits_for_the_close_of_the_peer_and_drops_what_comes_before_it(ends) -> None:
    client, far = ends
    closing = start(client.close, 4001, "enough", PATIENCE_SECONDS)
    assert far.take()[:2] == (CLOSE, close_payload(4001, "enough"))
    far.send(said(TEXT, b"crossing") + said(PING))
    assert not closing.done()
    far.send(said(CLOSE, close_payload(4002, "right")))
    closing.result(PATIENCE_SECONDS)
    assert (client.closed, client.close_code, client.close_reason) == (True, 4002, "right")
    assert far.at_end()  # nothing follows a Close frame, no pong either (5.5.1)
    client.close()
    with pytest.raises(WebSocketClosed):
        client.receive()


def test_close_that_the_peer_does_not_answer_ends_in_time(ends) -> None:
    client, far = ends
    client.close(timeout=0.01)
    assert (client.closed, client.close_code) == (True, 1006)
    assert far.take()[:2] == (CLOSE, close_payload(1000))
    assert far.at_end()


def test_close_with_a_code_that_cannot_be_sent_is_a_value_error_and_sends_nothing(ends) -> None:
    client, far = ends
    with pytest.raises(ValueError, match="1006 is only ever reported"):
        client.close(1006)
    client.send("still open")
    assert far.take().payload == b"still open"


def test_end_of_the_stream_is_a_close_without_a_close_frame(ends) -> None:
    client, far = ends
    far.send(said(TEXT, b"last") + said(TEXT, b"half")[:-1])
    far.sock.close()
    assert client.receive(PATIENCE_SECONDS) == "last"
    with pytest.raises(WebSocketClosed) as closed:
        client.receive(PATIENCE_SECONDS)
    assert closed.value.close_code == 1006


def test_what_the_peer_said_before_it_left_is_received_after_a_send_that_fails(ends) -> None:
    client, far = ends
    far.send(said(CLOSE, close_payload(1009, "too big")))
    far.sock.close()
    with pytest.raises(WebSocketClosed):
        client.send("into the void")
    with pytest.raises(WebSocketClosed) as closed:
        client.receive(PATIENCE_SECONDS)
    assert (closed.value.close_code, closed.value.close_reason) == (1009, "too big")


def test_close_wakes_who_receives_in_another_thread(ends) -> None:
    client, _ = ends
    received = start(client.receive)
    with pytest.raises(TimeoutError):
        client.send(b"x" * 16 * MIB, timeout=0.01)
    with pytest.raises(WebSocketClosed):
        received.result(PATIENCE_SECONDS)


def test_connection_is_closed_after_a_with_block(ends) -> None:
    client, far = ends
    far.send(said(CLOSE, close_payload(1000)))
    with client as inside:
        assert inside is client
    assert client.closed
    assert far.take().opcode == CLOSE


# A peer whose bytes never cease to flow


@pytest.mark.parametrize(
    "sent", [said(PONG), said(PING, b"x" * 100), said(CONTINUATION, fin=False)], ids=["pong", "ping", "part"]
)
def test_receive_times_out_while_frames_flow_that_are_no_message(ends, sent) -> None:
    client, far = ends
    far.send(said(TEXT, fin=False))
    flooded, drained = start(flood, far, sent), start(drain, far)
    with soon(), pytest.raises(TimeoutError):
        client.receive(timeout=0.1)
    client.close(timeout=0.1)
    flooded.result(PATIENCE_SECONDS)
    drained.result(PATIENCE_SECONDS)


def test_ping_times_out_while_messages_flow(ends) -> None:
    client, far = ends
    flooded = start(flood, far, said(TEXT, b"x"))
    with soon(), pytest.raises(TimeoutError):
        client.ping(timeout=0.1)
    client.close(timeout=0.1)
    flooded.result(PATIENCE_SECONDS)


def test_close_ends_in_time_while_messages_flow(ends) -> None:
    client, far = ends
    flooded = start(flood, far, said(TEXT, b"x"))
    with soon():
        client.close(timeout=0.1)
    assert (client.closed, client.close_code) == (True, 1006)
    flooded.result(PATIENCE_SECONDS)


def test_pings_of_a_peer_that_does_not_read_end_the_connection(ends, monkeypatch) -> None:
    monkeypatch.setattr("dwebsocket.client._ANSWER_SECONDS", 0.1)
    client, far = ends
    flooded = start(flood, far, said(PING, b"x" * 125))
    with soon(), pytest.raises(WebSocketClosed, match="the peer does not read"):
        client.receive(timeout=PATIENCE_SECONDS)
    flooded.result(PATIENCE_SECONDS)


def test_message_that_is_read_drop_by_drop_times_out(ends) -> None:
    client, far = ends

    def sip() -> None:
        while far.sock.recv(1024):
            time.sleep(0.001)

    sipped = start(sip)
    with soon(), pytest.raises(TimeoutError):
        client.send(b"x" * 16 * MIB, timeout=0.1)
    far.sock.shutdown(socket.SHUT_RD)
    sipped.exception(PATIENCE_SECONDS)


# What breaks the rules


VIOLATIONS = [
    pytest.param(frame(TEXT, b"x"), 1002, "frame of a server is masked", id="5.1"),
    *(pytest.param(said(TEXT, b"x", rsv=rsv), 1002, "reserved bit set", id=f"5.2 rsv {rsv}") for rsv in (1, 2, 4)),
    pytest.param(said(0x3), 1002, "reserved opcode 0x3", id="5.2 opcode 3"),
    pytest.param(said(0xB), 1002, "reserved opcode 0xb", id="5.2 opcode 11"),
    pytest.param(head(TEXT, 5, length_bytes=2, mask=None), 1002, "length is not in its shortest form", id="5.2 short"),
    pytest.param(
        head(TEXT, 300, length_bytes=8, mask=None), 1002, "length is not in its shortest form", id="5.2 medium"
    ),
    pytest.param(head(TEXT, 1 << 63, mask=None), 1002, "length has its highest bit set", id="5.2 highest bit"),
    pytest.param(said(CONTINUATION), 1002, "continuation of no message", id="5.4 continuation"),
    pytest.param(said(TEXT, fin=False) + said(TEXT), 1002, "new message inside a fragmented one", id="5.4 new message"),
    pytest.param(said(PING, fin=False), 1002, "fragmented control frame", id="5.5 fragment"),
    pytest.param(head(PING, 126, mask=None), 1002, "control frame too long", id="5.5 length"),
    pytest.param(said(CLOSE, b"\x03"), 1002, "close frame with half a code", id="5.5.1 half a code"),
    pytest.param(said(CLOSE, close_payload(1006)), 1002, "close code 1006 may not be sent", id="7.4.1"),
    pytest.param(said(CLOSE, close_payload(1000) + b"\xff"), 1007, "close reason is not UTF-8", id="5.5.1 reason"),
    pytest.param(said(TEXT, b"\xff"), 1007, "text is not UTF-8", id="8.1"),
    pytest.param(said(TEXT, b"\xff", fin=False), 1007, "text is not UTF-8", id="8.1 fragment"),
]


@pytest.mark.parametrize(("stream", "code", "sentence"), VIOLATIONS)
def test_violation_fails_the_connection_after_the_messages_before_it(ends, stream, code, sentence) -> None:
    client, far = ends
    far.send(said(TEXT, b"before") + stream)
    assert client.receive(PATIENCE_SECONDS) == "before"
    with pytest.raises(ProtocolError) as violation:
        client.receive(PATIENCE_SECONDS)
    assert (str(violation.value), violation.value.close_code) == (sentence, code)
    assert isinstance(violation.value, InvalidPayload) == (code == 1007)
    assert far.take()[:2] == (CLOSE, close_payload(code, sentence))
    with pytest.raises(WebSocketClosed) as closed:
        client.receive()
    assert (closed.value.close_code, closed.value.close_reason) == (code, sentence)


def test_violation_while_closing_ends_the_connection_without_a_second_close_frame(ends) -> None:
    client, far = ends
    far.send(said(0x3))
    client.close(timeout=PATIENCE_SECONDS)
    assert (client.closed, client.close_code) == (True, 1002)
    assert far.take()[:2] == (CLOSE, close_payload(1000))
    assert far.at_end()


# The opening handshake


def answer(handshake: ClientHandshake, **other: str | None) -> bytes:
    """A 101 that fits, but for the headers in ``other``; None leaves one out."""
    fields = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec_WebSocket_Accept": accept_value(handshake.headers()["Sec-WebSocket-Key"]),
    } | other
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items() if value is not None]
    return "\r\n".join(["HTTP/1.1 101 Switching Protocols", *lines, "", ""]).encode()


def test_handshake_says_what_the_rfc_asks_for_and_no_more() -> None:
    headers = ClientHandshake().headers()
    key = headers.pop("Sec-WebSocket-Key")
    assert len(key) == 24
    assert headers == {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    assert ClientHandshake().headers()["Sec-WebSocket-Key"] != key


def test_handshake_offers_subprotocols_in_their_order_and_says_the_origin() -> None:
    headers = ClientHandshake(subprotocols=["b", "a"], origin="https://site.example").headers()
    assert headers["Sec-WebSocket-Protocol"] == "b, a"
    assert headers["Origin"] == "https://site.example"


@pytest.mark.parametrize(
    "other",
    [{}, {"Upgrade": "WebSocket", "Connection": "keep-alive, upgrade"}, {"Sec_WebSocket_Protocol": "b"}],
)
def test_answer_that_fits_is_read(other) -> None:
    handshake = ClientHandshake(subprotocols=["a", "b"])
    response = handshake.read(answer(handshake, **other))
    assert (response.status, response.reason, response.http_version) == (101, "Switching Protocols", "HTTP/1.1")
    assert response.get("Sec-WebSocket-Protocol") == other.get("Sec_WebSocket_Protocol")


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"Upgrade": None}, "the Upgrade header of the 101 does not say websocket"),
        ({"Upgrade": "h2c"}, "the Upgrade header of the 101 does not say websocket"),
        ({"Connection": None}, "the Connection header of the 101 does not say Upgrade"),
        ({"Connection": "close"}, "the Connection header of the 101 does not say Upgrade"),
        ({"Sec_WebSocket_Accept": None}, "Sec-WebSocket-Accept does not answer the key that was sent"),
        ({"Sec_WebSocket_Accept": accept_value("other")}, "Sec-WebSocket-Accept does not answer the key that was sent"),
        ({"Sec_WebSocket_Extensions": "permessage-deflate"}, "the server chose an extension, and none was offered"),
        ({"Sec_WebSocket_Protocol": "c"}, "the server chose the subprotocol 'c', which was not offered"),
        ({"Sec_WebSocket_Protocol": "a, b"}, "the server chose the subprotocol 'a, b', which was not offered"),
    ],
)
def test_101_that_does_not_fit_is_no_handshake(other, sentence) -> None:
    handshake = ClientHandshake(subprotocols=["a", "b"])
    with pytest.raises(HandshakeFailed) as failed:
        handshake.read(answer(handshake, **other))
    assert str(failed.value) == sentence


def test_101_of_another_version_of_http_is_no_handshake() -> None:
    handshake = ClientHandshake()
    with pytest.raises(HandshakeFailed, match=r"the 101 is HTTP/1\.0, not HTTP/1\.1"):
        handshake.read(answer(handshake).replace(b"HTTP/1.1", b"HTTP/1.0"))


@pytest.mark.parametrize(
    ("received", "sentence"),
    [
        (b"SSH-2.0-OpenSSH\r\n\r\n", "the answer is not HTTP/1: it begins with 'SSH-2.0-OpenSSH'"),
        (b"HTTP/1.1 20\r\n\r\n", "the answer is not HTTP/1: it begins with 'HTTP/1.1 20'"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "the answer has a malformed header: 'no colon'"),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n", "the answer has a malformed header: ' folded'"),
    ],
)
def test_answer_that_is_no_http_is_no_handshake(received, sentence) -> None:
    with pytest.raises(HandshakeFailed) as failed:
        ClientHandshake().read(received)
    assert str(failed.value) == sentence


def test_refusal_is_read_with_every_header_it_repeats() -> None:
    response = ClientHandshake().read(
        b"HTTP/1.0 403 Not You\r\nSet-Cookie: a=1; Path=/\r\nset-cookie: b=2\r\nVary:  Origin \r\nEmpty:\r\n\r\n"
    )
    assert response[:2] == (403, "Not You")
    assert response.http_version == "HTTP/1.0"
    assert response.get_all("Set-Cookie") == ["a=1; Path=/", "b=2"]
    assert (response.get("vary"), response.get("empty"), response.get("absent")) == ("Origin", "", None)
    assert response.get("set-cookie") == "a=1; Path=/, b=2"


def test_answer_without_a_reason_is_read() -> None:
    assert Response.parse(b"HTTP/1.1 404 \r\n\r\n")[:2] == (404, "")
    assert Response.parse(b"HTTP/1.1 404\r\n\r\n")[:2] == (404, "")


# The head, as it comes from a socket


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        yield near, far


def test_head_is_read_up_to_its_blank_line_and_what_follows_is_kept(pair) -> None:
    near, far = pair
    far.sendall(b"HTTP/1.1 101 Switching Protocols\r\nA: b\r\n\r\nearly")
    received = read_head(near, time.monotonic() + PATIENCE_SECONDS)
    assert received == (b"HTTP/1.1 101 Switching Protocols\r\nA: b\r\n\r\n", b"early")


@pytest.mark.parametrize(
    ("received", "sentence"),
    [
        (b"", "the server closed the connection without an answer"),
        (b"HTTP/1.1 1", "the server closed the connection within the answer, after b'HTTP/1.1 1'"),
        (b"220 mail", "the answer is not HTTP/1: it begins with b'220 mail'"),
    ],
)
def test_head_that_does_not_come_is_no_handshake(pair, received, sentence) -> None:
    near, far = pair
    far.sendall(received)
    far.shutdown(socket.SHUT_WR)
    with pytest.raises(HandshakeFailed) as failed:
        read_head(near, time.monotonic() + PATIENCE_SECONDS)
    assert str(failed.value) == sentence


def test_head_without_an_end_is_no_handshake(pair) -> None:
    near, far = pair
    sent = start(far.sendall, b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 11_000)
    with pytest.raises(HandshakeFailed, match="more than 65536 bytes of headers"):
        read_head(near, time.monotonic() + PATIENCE_SECONDS)
    sent.result(PATIENCE_SECONDS)


def test_head_that_does_not_come_in_time_times_out(pair) -> None:
    near, far = pair
    far.sendall(b"HTTP/1.1 101 Switching")
    with pytest.raises(TimeoutError):
        read_head(near, time.monotonic() + 0.01)


def test_head_that_comes_drop_by_drop_times_out(pair) -> None:
    near, far = pair
    dripped = start(drip, Far(far), b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 2_000)
    with soon(), pytest.raises(TimeoutError):
        read_head(near, time.monotonic() + 0.05)
    near.close()
    dripped.result(PATIENCE_SECONDS)


# URLs


@pytest.mark.parametrize(
    ("url", "expected", "origin"),
    [
        ("ws://host", (False, "host", 80, "host", "/"), "http://host"),
        ("ws://host:80/a/?b=c#d", (False, "host", 80, "host", "/a/?b=c"), "http://host"),
        ("wss://Host:8443/ä b%20c?q=ü", (True, "host", 8443, "host:8443", "/%C3%A4%20b%20c?q=%C3%BC"), None),
        ("wss://[::1]:444/", (True, "::1", 444, "[::1]:444", "/"), "https://[::1]:444"),
        ("wss://[::1]/?x", (True, "::1", 443, "[::1]", "/?x"), "https://[::1]"),
    ],
)
def test_url_says_where_to_connect_and_what_to_ask_for(url, expected, origin) -> None:
    target = Target.parse(url)
    assert target == expected
    assert origin is None or target.origin == origin


@pytest.mark.parametrize("url", ["http://host/", "host", "ws://", "ws:///path", ""])
def test_url_of_no_websocket_is_a_value_error(url) -> None:
    with pytest.raises(ValueError, match="is not the URL of a WebSocket"):
        Target.parse(url)


# Connecting


@contextmanager
def listening(serve: Callable[[Far], None], tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """The port where ``serve`` has one connection; its error is the test's."""

    def accept() -> None:
        sock, _ = listener.accept()
        with sock, tls.wrap_socket(sock, server_side=True) if tls else sock as stream:
            serve(Far(stream))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_SECONDS)
        served = start(accept)
        yield listener.getsockname()[1]
        served.result(PATIENCE_SECONDS)


def shake_hands(far: Far, *, protocol: str = "", early: bytes = b"") -> dict[str, str]:
    headers = far.take_head()
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept_value(headers['sec-websocket-key'])}",
        *([f"Sec-WebSocket-Protocol: {protocol}"] if protocol else []),
    ]
    far.send("\r\n".join([*lines, "", ""]).encode() + early)
    return headers


def echo(far: Far) -> None:
    shake_hands(far)
    while True:
        taken = far.take()
        far.send(said(taken.opcode, taken.payload))
        if taken.opcode == CLOSE:
            return


def test_connect_asks_for_the_url_and_gives_an_open_websocket() -> None:
    asked = {}

    def serve(far: Far) -> None:
        asked.update(shake_hands(far, protocol="b", early=said(TEXT, b"early") + said(CLOSE, close_payload(1000))))
        assert far.take().opcode == CLOSE

    with listening(serve) as port:
        client = connect(
            f"ws://127.0.0.1:{port}/chat/?room=1",
            headers=[("Cookie", "a=1"), ("X-Name", "x")],
            subprotocols=["a", "b"],
            origin="http://site.example",
            timeout=PATIENCE_SECONDS,
        )
        assert (client.subprotocol, client.receive(PATIENCE_SECONDS)) == ("b", "early")
        client.close()
    assert asked[""] == "GET /chat/?room=1 HTTP/1.1"
    assert asked["host"] == f"127.0.0.1:{port}"
    assert (asked["cookie"], asked["x-name"], asked["origin"]) == ("a=1", "x", "http://site.example")


def test_connect_says_another_host_when_it_is_told_to() -> None:
    def serve(far: Far) -> None:
        assert shake_hands(far)["host"] == "site.example"
        far.send(said(CLOSE))

    with listening(serve) as port:
        connect(f"ws://127.0.0.1:{port}/", headers={"Host": "site.example"}, timeout=PATIENCE_SECONDS).close()


@pytest.mark.parametrize("headers", [{"X-A": "b\r\nX-C: d"}, {"X A": "b"}])
def test_connect_refuses_what_is_no_header(headers) -> None:
    with listening(lambda far: None) as port, pytest.raises(ValueError, match="is not a header"):
        connect(f"ws://127.0.0.1:{port}/", headers=headers, timeout=PATIENCE_SECONDS)


REFUSALS = [
    pytest.param("Content-Length: 3", b"no\nbeyond", b"no\n", id="length"),
    pytest.param("Transfer-Encoding: chunked", b"2\r\nno\r\n5;a=b\r\n, you\r\n0\r\n\r\n", b"no, you", id="chunked"),
    pytest.param("Transfer-Encoding: chunked", b"5\r\nno", b"no", id="chunk that is cut"),
    pytest.param("Transfer-Encoding: chunked", b"x\r\nno", b"", id="chunk without a size"),
    pytest.param("Transfer-Encoding: chunked", b"-2\r\n" * 1000, b"", id="chunks of a negative size"),
    *(
        pytest.param("Transfer-Encoding: chunked", size + b"\r\nno\r\n", b"", id=f"chunk of {size.decode()}")
        for size in (b"+2", b"0x2", b"0_2", b"2 2", b"")
    ),
    pytest.param("Transfer-Encoding: chunked", b"0\r\n\r\n2\r\nno\r\n", b"", id="chunk behind the last"),
    pytest.param(f"Content-Length: {'9' * 5000}", b"no\n", b"no\n", id="length of many digits"),
    pytest.param("Connection: close", b"no\n", b"no\n", id="end of the stream"),
    pytest.param("Content-Length: 300", b"no\n", b"no\n", id="body that is cut"),
]


@pytest.mark.parametrize(("field", "sent", "body"), REFUSALS)
def test_connect_gives_the_answer_that_is_no_101(field, sent, body) -> None:
    def serve(far: Far) -> None:
        far.take_head()
        far.send(f"HTTP/1.1 403 Forbidden\r\n{field}\r\n\r\n".encode() + sent)

    with listening(serve) as port, pytest.raises(Refused) as refused:
        connect(f"ws://127.0.0.1:{port}/", timeout=PATIENCE_SECONDS)
    assert refused.value.response.status == 403
    assert refused.value.body == body
    assert str(refused.value) == "the server answered 403 Forbidden"


def test_body_that_comes_drop_by_drop_is_cut() -> None:
    def serve(far: Far) -> None:
        far.take_head()
        far.send(b"HTTP/1.1 403 Forbidden\r\n\r\n")
        drip(far, b"x" * 20_000)

    with listening(serve) as port, soon(), pytest.raises(Refused) as refused:
        connect(f"ws://127.0.0.1:{port}/", timeout=0.2)
    assert set(refused.value.body) == set(b"x")


def test_connect_to_a_server_that_is_silent_times_out() -> None:
    def serve(far: Far) -> None:
        far.take_head()
        assert far.at_end()

    with listening(serve) as port, pytest.raises(TimeoutError):
        connect(f"ws://127.0.0.1:{port}/", timeout=0.05)


def test_connect_where_nobody_listens_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        connect(f"ws://127.0.0.1:{port}/", timeout=PATIENCE_SECONDS)


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def trust(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["TLS 1.2", "TLS 1.3"])
def certificate(request: pytest.FixtureRequest, authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.maximum_version = request.param
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


def test_messages_come_back_over_tls(trust, certificate) -> None:
    with listening(echo, certificate) as port:
        client = connect(f"wss://127.0.0.1:{port}/", timeout=PATIENCE_SECONDS, ssl_context=trust)
        for message in ("hello", b"x" * 4 * MIB, ""):
            sent = start(client.send, message)
            assert client.receive(PATIENCE_SECONDS) == message
            sent.result(PATIENCE_SECONDS)
        client.close(4000, timeout=PATIENCE_SECONDS)
        assert client.close_code == 4000


def test_timeout_over_tls_loses_nothing(trust, certificate) -> None:
    going = threading.Event()

    def serve(far: Far) -> None:
        shake_hands(far, early=said(TEXT, b"whole")[:4])
        assert going.wait(PATIENCE_SECONDS)
        far.send(said(TEXT, b"whole")[4:])

    with listening(serve, certificate) as port:
        client = connect(f"wss://127.0.0.1:{port}/", timeout=PATIENCE_SECONDS, ssl_context=trust)
        with pytest.raises(TimeoutError):
            client.receive(timeout=0.01)
        going.set()
        assert client.receive(PATIENCE_SECONDS) == "whole"
        with pytest.raises(WebSocketClosed) as closed:
            client.receive(PATIENCE_SECONDS)
        assert closed.value.close_code == 1006


def test_messages_that_cross_over_tls_do_not_wait_for_each_other(trust, certificate) -> None:
    def serve(far: Far) -> None:
        shake_hands(far)
        far.send(said(BINARY, b"y" * 8 * MIB))  # which comes back to a socket only when it is read
        assert len(far.take().payload) == 8 * MIB

    with listening(serve, certificate) as port:
        client = connect(f"wss://127.0.0.1:{port}/", timeout=PATIENCE_SECONDS, ssl_context=trust)
        sent = start(client.send, b"x" * 8 * MIB, PATIENCE_SECONDS)
        assert client.receive(PATIENCE_SECONDS) == b"y" * 8 * MIB
        sent.result(PATIENCE_SECONDS)
        client.close(timeout=PATIENCE_SECONDS)


def test_record_that_comes_drop_by_drop_times_out(trust, certificate) -> None:
    def serve(sock: socket.socket) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = certificate.wrap_bio(incoming, outgoing, server_side=True)
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                sock.sendall(outgoing.read())
                incoming.write(sock.recv(1 << 16))
        sock.sendall(outgoing.read())
        tls.write(b"x" * 16_000)
        drip(Far(sock), outgoing.read())

    near, far = socket.socketpair()
    with near, far:
        served = start(serve, far)
        stream = TLSStream(near, trust, "127.0.0.1", time.monotonic() + PATIENCE_SECONDS)
        with soon(), pytest.raises(TimeoutError):
            ClientConnection(stream).receive(timeout=0.1)
        stream.close()
        served.result(PATIENCE_SECONDS)


def test_message_that_nobody_reads_over_tls_times_out(trust, certificate) -> None:
    tried = threading.Event()

    def serve(far: Far) -> None:
        shake_hands(far)
        assert tried.wait(PATIENCE_SECONDS)

    with listening(serve, certificate) as port:
        client = connect(f"wss://127.0.0.1:{port}/", timeout=PATIENCE_SECONDS, ssl_context=trust)
        with pytest.raises(TimeoutError):
            client.send(b"x" * 16 * MIB, timeout=0.01)
        tried.set()
    assert client.closed


def test_certificate_of_nobody_known_is_an_error_of_tls(certificate) -> None:
    def serve(far: Far) -> None:
        raise AssertionError("the handshake of TLS went through")

    alert = pytest.raises(ssl.SSLError, match=r"(?i)alert.unknown.ca")  # what the server gets to know
    with alert, listening(serve, certificate) as port, pytest.raises(ssl.SSLCertVerificationError):
        connect(f"wss://127.0.0.1:{port}/", timeout=PATIENCE_SECONDS)


def test_server_that_does_not_speak_tls_is_an_error_of_tls(trust) -> None:
    with listening(lambda far: far.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port, pytest.raises(ssl.SSLError):
        connect(f"wss://127.0.0.1:{port}/", timeout=PATIENCE_SECONDS, ssl_context=trust)


def test_server_that_is_silent_before_tls_times_out(trust) -> None:
    def serve(far: Far) -> None:
        while far.sock.recv(1 << 16):
            pass

    with listening(serve) as port, pytest.raises(TimeoutError):
        connect(f"wss://127.0.0.1:{port}/", timeout=0.05, ssl_context=trust)
