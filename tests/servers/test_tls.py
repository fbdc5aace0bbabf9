"""TLS that a server has set up, with the methods and the errors of a plain non-blocking socket."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator

import pytest
import trustme

from dwebsocket.servers.tls import TLSSocket
from tests.links import PATIENCE_SECONDS, tcp_pair, until

Ends = tuple[TLSSocket, ssl.SSLSocket, ssl.SSLSocket]

LARGE = bytes(32 << 20)  # more than a kernel takes
RECORD_BYTES = 16 * 1024  # at most, in one record of TLS


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's, and that of a client which trusts it."""
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    return server, client


@pytest.fixture
def ends(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> Iterator[Ends]:
    """Ours, the server's socket below it, and the peer's, which blocks."""
    plain, far = tcp_pair()
    for end in (plain, far):
        end.settimeout(PATIENCE_SECONDS)
    peers: list[ssl.SSLSocket] = []
    connecting = threading.Thread(
        target=lambda: peers.append(contexts[1].wrap_socket(far, server_hostname="127.0.0.1"))
    )
    connecting.start()
    sock = contexts[0].wrap_socket(plain, server_side=True)
    connecting.join(PATIENCE_SECONDS)
    (peer,) = peers
    sock.settimeout(0)
    with sock, peer:
        yield TLSSocket(sock), sock, peer


def received(ours: TLSSocket) -> bytes:
    """What `recv()` returns first; it says as a plain socket does that nothing is here yet."""

    def attempt() -> list[bytes]:
        try:
            return [ours.recv(10)]
        except BlockingIOError:
            return []

    return until(attempt, "bytes")[0]


def test_nothing_that_has_arrived_is_a_blocking_io_error(ends: Ends) -> None:
    with pytest.raises(BlockingIOError):
        ends[0].recv(100)


def test_whole_record_is_received_though_less_was_asked_for(ends: Ends) -> None:
    ours, _sock, peer = ends
    message = bytes(range(250)) * 60
    assert 10 < len(message) < RECORD_BYTES
    peer.sendall(message)
    assert received(ours) == message  # nobody would be told of what the TLS layer holds
    assert ours.pending() == b""


def test_what_the_tls_layer_holds_is_pending(ends: Ends) -> None:
    ours, sock, peer = ends
    peer.sendall(b"headearly")
    sock.settimeout(PATIENCE_SECONDS)
    assert sock.recv(4) == b"head"
    sock.settimeout(0)
    assert ours.pending() == b"early"
    assert ours.pending() == b""


def test_what_is_sent_arrives(ends: Ends) -> None:
    ours, _sock, peer = ends
    assert ours.send(b"hello") == 5
    assert peer.recv(100) == b"hello"


def test_kernel_that_takes_no_more_is_a_blocking_io_error(ends: Ends) -> None:
    ours = ends[0]
    view, sent = memoryview(LARGE), 0
    with pytest.raises(BlockingIOError):
        while sent < len(LARGE):
            sent += ours.send(view[sent : sent + RECORD_BYTES])
    assert 0 < sent < len(LARGE)


def test_peer_is_told_of_the_end_by_tls_and_by_the_stream_below_it(ends: Ends) -> None:
    ours, _sock, peer = ends
    ours.send(b"last")
    ours.shutdown(socket.SHUT_WR)
    assert peer.recv(100) == b"last"
    assert peer.recv(100) == b""  # without its close_notify this would be an error


def test_number_of_the_socket_is_that_of_the_server(ends: Ends) -> None:
    ours, sock, _peer = ends
    assert ours.fileno() == sock.fileno()
