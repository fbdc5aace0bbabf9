"""The opening handshake as a client says it, and the answers that a server may give."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from dwebsocket.client import ClientHandshake, HandshakeFailed, Response, read_head
from tests.client.far import Far, drip, soon, start
from tests.links import PATIENCE_SECONDS
from tests.peer import accept_value


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
