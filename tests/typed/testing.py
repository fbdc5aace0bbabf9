"""Tests with the test client."""

from typing import Any

from django.test import Client, TestCase
from typing_extensions import assert_type

from dwebsocket import CloseCode, WebSocketClosed, group
from dwebsocket.test import (
    SentMessage,
    TestWebSocket,
    WebSocketClient,
    WebSocketClientMixin,
    WebSocketRefused,
    groups_down,
    sent_to,
)


class ApiClient(WebSocketClientMixin, Client):
    websocket_timeout = 0.5


class ChatTests(TestCase):
    client_class = WebSocketClient
    client: WebSocketClient  # pyright: ignore[reportIncompatibleVariableOverride]  # django-stubs knows Client only

    def test_echo(self) -> None:
        with self.client.websocket("/echo/") as websocket:
            assert_type(websocket, TestWebSocket)
            websocket.send("hello")
            assert websocket.receive() == "hello"


def test_client(websocket_client: WebSocketClient) -> None:
    websocket_client.get("/")
    websocket_client.login(username="somebody", password="secret")
    websocket = websocket_client.websocket(
        "/echo/",
        subprotocols=["chat.v2"],
        origin=None,
        headers={"X-Room": "lobby"},
        secure=True,
        timeout=2,
        REMOTE_ADDR="192.0.2.1",
    )
    assert_type(websocket, TestWebSocket)
    assert_type(ApiClient().websocket("/", origin="https://example.com"), TestWebSocket)


def test_websocket(websocket: TestWebSocket) -> None:
    with websocket as same:
        assert_type(same, TestWebSocket)
    assert_type(websocket.path, str)
    assert_type(websocket.timeout, float)
    assert_type(websocket.receive(), str | bytes)
    assert_type(websocket.receive(timeout=1.5), str | bytes)
    assert_type(websocket.receive_json(timeout=1), Any)
    for message in websocket:
        assert_type(message, str | bytes)
    websocket.send("text")
    websocket.send(b"binary")
    websocket.send_json([1, 2])
    assert_type(websocket.response.status, int)
    assert_type(websocket.response.get("set-cookie"), str | None)
    assert_type(websocket.subprotocol, str | None)
    assert_type(websocket.closed, bool)
    assert_type(websocket.close_code, int | None)
    assert_type(websocket.close_reason, str)
    websocket.close()
    websocket.close(CloseCode.GOING_AWAY, reason="leaving")


def test_groups() -> None:
    with sent_to(group("room:7")) as sent, groups_down():
        assert_type(sent, list[SentMessage])
        for message in sent:
            assert_type(message.data, str | bytes)
            assert_type(message.at_commit, bool)


def test_refusal(websocket_client: WebSocketClient) -> None:
    try:
        with websocket_client.websocket("/staff/") as websocket:
            websocket.receive()
    except WebSocketRefused as refusal:
        assert refusal.response.status_code == 403
    except WebSocketClosed as error:
        assert error.close_code == CloseCode.GOING_AWAY
