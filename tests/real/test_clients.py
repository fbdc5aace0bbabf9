"""Clients that other people wrote, against every server."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple, Protocol

import pytest
import websocket as websocket_client
import websockets.asyncio.client
import websockets.exceptions
import websockets.sync.client

from tests.project.views import MIB
from tests.real.helpers import only_refusing
from tests.real.servers import Server

pytestmark = pytest.mark.timeout(60)

TIMEOUT_SECONDS = 10


class End(NamedTuple):
    code: int
    reason: str


class Client(Protocol):
    """What the tests ask of a client, whoever wrote it."""

    subprotocol: str | None

    def send(self, message: str | bytes) -> None: ...
    def send_fragments(self, fragments: Sequence[str]) -> None: ...
    def receive(self) -> str | bytes: ...
    def ping(self, payload: bytes) -> None:
        """Return once the pong with the same payload is here."""

    def close(self, code: int, reason: str) -> End:
        """Close; what the server's close frame said comes back."""

    def wait_for_end(self) -> End:
        """What the server's close frame said, when the server closes first."""

    def leave(self) -> None:
        """Let go of every resource, however the test went."""


class WebsocketsSync:
    """websockets, the client for threads."""

    def __init__(self, url: str, tls: ssl.SSLContext | None, **options: Any) -> None:
        self.context = websockets.sync.client.connect(
            url,
            ssl=tls,
            proxy=None,
            open_timeout=TIMEOUT_SECONDS,
            close_timeout=TIMEOUT_SECONDS,
            max_size=16 * MIB,
            **options,
        )
        self.connection = self.context.__enter__()
        self.subprotocol = self.connection.subprotocol

    def send(self, message: str | bytes) -> None:
        self.connection.send(message)

    def send_fragments(self, fragments: Sequence[str]) -> None:
        self.connection.send(fragments)

    def receive(self) -> str | bytes:
        return self.connection.recv(TIMEOUT_SECONDS)

    def ping(self, payload: bytes) -> None:
        assert self.connection.ping(payload).wait(TIMEOUT_SECONDS), "no pong"

    def close(self, code: int, reason: str) -> End:
        self.connection.close(code, reason)
        return self.wait_for_end()

    def wait_for_end(self) -> End:
        with pytest.raises(websockets.exceptions.ConnectionClosed) as error:
            self.receive()
        assert error.value.rcvd, "no close frame"
        return End(error.value.rcvd.code, error.value.rcvd.reason)

    def leave(self) -> None:
        self.context.__exit__(None, None, None)


class WebsocketsAsyncio:
    """websockets, the client for asyncio, in a loop that runs while a call waits."""

    def __init__(self, url: str, tls: ssl.SSLContext | None, **options: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self.context = websockets.asyncio.client.connect(url, ssl=tls, proxy=None, max_size=16 * MIB, **options)
        self.connection = self.run(self.context.__aenter__())
        self.subprotocol = self.connection.subprotocol

    def run(self, awaitable: Any) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(awaitable, TIMEOUT_SECONDS))

    def send(self, message: str | bytes) -> None:
        self.run(self.connection.send(message))

    def send_fragments(self, fragments: Sequence[str]) -> None:
        self.run(self.connection.send(fragments))

    def receive(self) -> str | bytes:
        return self.run(self.connection.recv())

    def ping(self, payload: bytes) -> None:
        self.run(self.run(self.connection.ping(payload)))

    def close(self, code: int, reason: str) -> End:
        self.run(self.connection.close(code, reason))
        return self.wait_for_end()

    def wait_for_end(self) -> End:
        with pytest.raises(websockets.exceptions.ConnectionClosed) as error:
            self.receive()
        assert error.value.rcvd, "no close frame"
        return End(error.value.rcvd.code, error.value.rcvd.reason)

    def leave(self) -> None:
        self.run(self.context.__aexit__(None, None, None))
        self.loop.close()


class WebsocketClient:
    """websocket-client."""

    def __init__(self, url: str, tls: ssl.SSLContext | None, subprotocols: Sequence[str] | None = None) -> None:
        self.connection = websocket_client.create_connection(
            url,
            sslopt={"context": tls},
            timeout=TIMEOUT_SECONDS,
            subprotocols=subprotocols,
            http_no_proxy=["127.0.0.1"],
            skip_utf8_validation=True,  # seconds for a large message; Python checks it anyway
        )
        self.subprotocol = self.connection.subprotocol

    def send(self, message: str | bytes) -> None:
        self.connection.send(message) if isinstance(message, str) else self.connection.send_binary(message)

    def send_fragments(self, fragments: Sequence[str]) -> None:
        opcodes = [websocket_client.ABNF.OPCODE_TEXT] + [websocket_client.ABNF.OPCODE_CONT] * (len(fragments) - 1)
        for number, (opcode, fragment) in enumerate(zip(opcodes, fragments, strict=True), 1):
            fin = int(number == len(fragments))
            self.connection.send_frame(websocket_client.ABNF.create_frame(fragment.encode(), opcode, fin))

    def receive(self) -> str | bytes:
        return self.connection.recv()

    def ping(self, payload: bytes) -> None:
        self.connection.ping(payload)
        assert self.connection.recv_data_frame(control_frame=True)[1].data == payload

    def close(self, code: int, reason: str) -> End:
        self.connection.send_close(code, reason.encode())
        return self.wait_for_end()

    def wait_for_end(self) -> End:
        opcode, data = self.connection.recv_data()
        assert opcode == websocket_client.ABNF.OPCODE_CLOSE, (opcode, data)
        return End(int.from_bytes(data[:2], "big"), data[2:].decode())

    def leave(self) -> None:
        self.connection.shutdown()


CLIENTS = {
    "websockets-sync": WebsocketsSync,
    "websockets-asyncio": WebsocketsAsyncio,
    "websocket-client": WebsocketClient,
}
Connect = Callable[..., Client]


@pytest.fixture(params=CLIENTS)
def connect(request: pytest.FixtureRequest, server: Server) -> Iterator[Connect]:
    """Open a connection with one of the clients: ``connect("/echo/")``."""

    with ExitStack() as stack:

        def connect(path: str, **options: Any) -> Client:
            client = CLIENTS[request.param](server.url(path), server.tls, **options)
            stack.callback(client.leave)
            return client

        yield connect


@pytest.mark.parametrize("message", ["hello", "Grüße 🎉", "", b"\x00\xff", b""], ids=repr)
def test_message_comes_back(connect: Connect, message: str | bytes) -> None:
    client = connect("/echo/")
    client.send(message)
    assert client.receive() == message
    assert client.close(1000, "").code == 1000


def test_fragments_come_back_as_one_message(connect: Connect) -> None:
    client = connect("/echo/")
    client.send_fragments(["Grü", "ß", "e"])
    assert client.receive() == "Grüße"
    assert client.close(1000, "").code == 1000


@pytest.mark.parametrize("message", ["ä" * (2 * MIB), os.urandom(4 * MIB)], ids=["text", "binary"])
def test_large_message_comes_back(connect: Connect, message: str | bytes) -> None:
    client = connect("/echo-big/")
    client.send(message)
    assert client.receive() == message
    assert client.close(1000, "").code == 1000


def test_ping_is_answered(connect: Connect) -> None:
    client = connect("/echo/")
    client.ping(b"are you there")
    assert client.close(1000, "").code == 1000


@pytest.mark.parametrize("code", [1000, 1001, 4321])
def test_close_by_the_client_is_answered_with_its_code(connect: Connect, code: int) -> None:
    assert connect("/echo/").close(code, "bye").code == code


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, ""), (4000, "bye")])
def test_close_by_the_view_arrives_with_its_code_and_reason(connect: Connect, code: int, reason: str) -> None:
    client = connect(f"/close/?code={code}&reason={reason}")
    client.send("go")
    assert client.wait_for_end() == End(code, reason)


def test_end_of_the_view_closes_with_1000(connect: Connect) -> None:
    client = connect("/push/?count=3")
    assert [client.receive() for _ in range(3)] == ["0", "1", "2"]
    assert client.wait_for_end() == End(1000, "")


def test_message_too_big_for_the_view_closes_with_1009(connect: Connect) -> None:
    client = connect("/echo/")
    client.send(bytes(MIB + 1))
    assert client.wait_for_end().code == 1009


@only_refusing
def test_subprotocol_is_agreed_on(connect: Connect) -> None:
    client = connect("/subprotocol/", subprotocols=["other", "chat.v1"])
    assert client.subprotocol == "chat.v1"
    assert client.receive() == "chat.v1"
    assert client.wait_for_end() == End(1000, "")


def test_several_clients_at_once_each_get_their_own(connect: Connect, server: Server) -> None:
    clients = [connect("/echo/") for _ in range(server.at_once)]
    for number, client in enumerate(clients):
        client.send(f"client {number}")
    assert [client.receive() for client in clients] == [f"client {number}" for number in range(server.at_once)]
    for client in clients:
        assert client.close(1000, "").code == 1000
