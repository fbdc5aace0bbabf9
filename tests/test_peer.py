"""The hand-written peer is right itself: against the examples of RFC 6455, and against somebody else's server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from websockets.sync.server import ServerConnection, serve

from tests.peer import (
    BINARY,
    CLOSE,
    CONTINUATION,
    MASK,
    PING,
    PONG,
    TEXT,
    Close,
    Frame,
    Peer,
    PeerClosed,
    PeerTimeout,
    accept_value,
    close_payload,
    decode,
    decode_all,
    frame,
    head,
    text,
)

# 5.7
EXAMPLES = {
    "unmasked text": (bytes.fromhex("810548656c6c6f"), [Frame(TEXT, b"Hello")]),
    "masked text": (bytes.fromhex("818537fa213d7f9f4d5158"), [Frame(TEXT, b"Hello", mask=MASK)]),
    "fragments": (
        bytes.fromhex("010348656c80026c6f"),
        [Frame(TEXT, b"Hel", fin=False), Frame(CONTINUATION, b"lo")],
    ),
    "ping": (bytes.fromhex("890548656c6c6f"), [Frame(PING, b"Hello")]),
    "masked pong": (bytes.fromhex("8a8537fa213d7f9f4d5158"), [Frame(PONG, b"Hello", mask=MASK)]),
    "256 bytes": (bytes.fromhex("827e0100") + bytes(256), [Frame(BINARY, bytes(256))]),
    "64 KiB": (bytes.fromhex("827f0000000000010000") + bytes(65536), [Frame(BINARY, bytes(65536))]),
}


@pytest.fixture
def peer() -> Iterator[Peer]:
    """A peer of a server by other people, which echoes, or closes if the path says so."""

    def view(connection: ServerConnection) -> None:
        if connection.request and connection.request.path == "/close":
            connection.close(4000, "bye")
        for message in connection:
            connection.send(message)

    with serve(view, "127.0.0.1", 0, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with Peer(*server.socket.getsockname()) as peer:
            yield peer
        server.shutdown()
        thread.join()


@pytest.fixture
def ends() -> Iterator[tuple[Peer, socket.socket]]:
    """A peer over one end of a socket pair, and the other end."""
    near, far = socket.socketpair()
    with far, Peer.over(near) as peer:
        yield peer, far


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_of_the_rfc_is_encoded_and_decoded(name: str) -> None:
    data, frames = EXAMPLES[name]
    encoded = [frame(f.opcode, f.payload, fin=f.fin, rsv=f.rsv, mask=f.mask) for f in frames]
    assert b"".join(encoded) == data
    assert decode_all(data) == frames
    assert all(decode(encoded[0][:cut]) is None for cut in range(len(encoded[0])))


def test_accept_value_is_that_of_the_rfc() -> None:
    assert accept_value("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # 1.3


@pytest.mark.parametrize(("length_bytes", "data"), [(2, "827e0001"), (8, "827f0000000000000001")])
def test_head_takes_longer_lengths_than_needed_which_decode_refuses(length_bytes: int, data: str) -> None:
    assert head(BINARY, 1, mask=None, length_bytes=length_bytes) == bytes.fromhex(data)
    with pytest.raises(AssertionError, match="length 1"):
        decode(bytes.fromhex(data) + b"x")


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536, 1 << 20])
def test_message_comes_back_from_a_server_by_other_people(peer: Peer, size: int) -> None:
    peer.connect(early=text("early"))
    assert peer.recv_message() == "early"
    for message in (bytes(size), "x" * size):
        peer.send_message(message)
        assert peer.recv_message() == message


def test_fragments_and_pings_are_understood_by_a_server_by_other_people(peer: Peer) -> None:
    peer.connect()
    peer.send_frame(TEXT, b"Hel", fin=False)
    peer.send_frame(PING, b"between")
    assert peer.recv_frame() == Frame(PONG, b"between")
    peer.send_frame(CONTINUATION, b"lo")
    assert peer.recv_message() == "Hello"


def test_closing_handshake_with_a_server_by_other_people_goes_both_ways(peer: Peer) -> None:
    assert peer.connect().close(3000, "over") == Close(3000, "over")
    assert peer.read_to_eof() == b""


def test_close_of_a_server_by_other_people_arrives(peer: Peer) -> None:
    assert peer.connect("/close").recv_message() == Close(4000, "bye")
    peer.send_close(4000)
    assert peer.read_to_eof() == b""


def test_refused_handshake_is_an_http_response(peer: Peer) -> None:
    response = peer.handshake(headers={"Sec-WebSocket-Key": None})
    assert response.status == 400
    assert b"Sec-WebSocket-Key" in response.body


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(frame(TEXT, b"x"), id="masked"),
        pytest.param(frame(0x3, b"x", mask=None), id="reserved opcode"),
        pytest.param(frame(PING, bytes(126), mask=None), id="long ping"),
        pytest.param(frame(PING, b"x", fin=False, mask=None), id="fragmented ping"),
        pytest.param(frame(CONTINUATION, b"x", mask=None), id="continuation of nothing"),
        pytest.param(frame(TEXT, b"x", rsv=4, mask=None), id="rsv1"),
        pytest.param(frame(CLOSE, b"x", mask=None), id="close of one byte"),
    ],
)
def test_server_that_breaks_the_protocol_fails_the_test(ends: tuple[Peer, socket.socket], data: bytes) -> None:
    peer, far = ends
    far.sendall(data)
    with pytest.raises(AssertionError):
        peer.recv_message()


def test_accept_value_of_another_key_fails_the_test(ends: tuple[Peer, socket.socket]) -> None:
    peer, far = ends
    far.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    )
    with pytest.raises(AssertionError):
        peer.handshake()


def test_silence_is_a_timeout_that_says_what_was_there(ends: tuple[Peer, socket.socket]) -> None:
    peer, far = ends
    far.sendall(b"\x81\x05Hel")
    with pytest.raises(PeerTimeout, match=r"waited for a frame.*Hel"):
        peer.recv_frame(timeout=0.05)
    far.sendall(b"lo")
    assert peer.recv_message() == "Hello"


def test_end_of_the_stream_says_what_was_there(ends: tuple[Peer, socket.socket]) -> None:
    peer, far = ends
    far.sendall(b"\x81\x05Hel")
    far.shutdown(socket.SHUT_WR)
    with pytest.raises(PeerClosed, match=r"ended before a frame.*Hel"):
        peer.recv_frame()


def test_half_closed_peer_still_reads(ends: tuple[Peer, socket.socket]) -> None:
    peer, far = ends
    peer.half_close()
    assert far.recv(1) == b""
    far.sendall(frame(CLOSE, close_payload(1000), mask=None))
    assert peer.recv_message() == Close(1000)


def test_reset_of_the_peer_is_one_to_the_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = Peer(*listener.getsockname())
        with listener.accept()[0] as far:
            peer.reset()
            with pytest.raises(ConnectionResetError):
                far.recv(1)
