"""The client's connection, over one end of a socket whose other end is written by hand."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from dwebsocket.client import ClientConnection, Refused, connect
from dwebsocket.protocol.exceptions import InvalidPayload, ProtocolError, WebSocketClosed
from tests.client.far import MIB, Far, drain, drip, flood, listening, said, shake_hands, soon, start
from tests.links import PATIENCE_SECONDS
from tests.peer import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_payload, frame, head


@pytest.fixture
def ends() -> Iterator[tuple[ClientConnection, Far]]:
    near, far = socket.socketpair()
    with near, far:
        yield ClientConnection(near), Far(far)


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
    monkeypatch.setattr("dwebsocket.client.connection._ANSWER_SECONDS", 0.1)
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


# Connecting


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
