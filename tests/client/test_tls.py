"""The client over TLS."""

from __future__ import annotations

import socket
import ssl
import threading
import time

import pytest
import trustme

from dwebsocket.client import ClientConnection, TLSStream, connect
from dwebsocket.protocol.exceptions import WebSocketClosed
from tests.client.far import MIB, Far, drip, echo, listening, said, shake_hands, soon, start
from tests.links import PATIENCE_SECONDS
from tests.peer import BINARY, TEXT


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
