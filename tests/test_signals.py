"""What receivers are told of a WebSocket: when, by whom, and how much has passed."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from django.core.exceptions import PermissionDenied
from django.db import connections
from django.http import HttpRequest, HttpResponse

from dwebsocket import WebSocket, accept_websocket, guards, require_websocket, websocket_closed, websocket_opened
from tests.links import assert_ends, until
from tests.peer import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Close, Peer, close_payload, frame, text
from tests.sites import Site

SIGNALS = {"opened": websocket_opened, "closed": websocket_closed}


class ChatWebSocket(WebSocket):
    """What a project makes of it."""


@contextmanager
def receiving(**receivers: Callable[..., Any]) -> Iterator[None]:
    """`opened` and `closed` are told meanwhile."""
    with ExitStack() as stack:
        for name, receiver in receivers.items():
            SIGNALS[name].connect(receiver)
            stack.callback(SIGNALS[name].disconnect, receiver)
        yield


@pytest.fixture
def told() -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """The signals of the test, in their order."""
    received: list[tuple[str, dict[str, Any]]] = []

    def opened(**arguments: Any) -> None:
        received.append(("opened", arguments))

    def closed(**arguments: Any) -> None:
        received.append(("closed", arguments))

    with receiving(opened=opened, closed=closed):
        yield received


@require_websocket
def echo(request: Any) -> None:
    for message in request.websocket:
        request.websocket.send(message)


def leave(peer: Peer, code: int = 1000, reason: str = "") -> Close:
    """Close, and hang up once the server has nothing more to say; its Close frame."""
    answer = peer.close(code, reason)
    hang_up(peer)
    return answer


def hang_up(peer: Peer) -> bytes:
    """Hang up once the server has; what it sent until then."""
    rest = peer.read_to_eof()
    peer.abandon()
    return rest


def the_end(site: Site, told: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """The arguments of the one signal of the end, once everything is over."""
    site.until_idle()
    assert [name for name, _ in told] == ["opened", "closed"]
    return told[1][1]


def counters(end: dict[str, Any]) -> tuple[int, int, int, int]:
    return end["messages_received"], end["bytes_received"], end["messages_sent"], end["bytes_sent"]


# When


def test_signals_surround_the_view(site: Site) -> None:
    @require_websocket
    def view(request: Any) -> None:
        site.tell("the view begins")
        request.websocket.accept()
        site.tell("it has accepted")
        request.websocket.wait()
        site.tell("it ends")

    def opened(**arguments: Any) -> None:
        site.tell("opened")

    def closed(**arguments: Any) -> None:
        site.tell("closed")

    with receiving(opened=opened, closed=closed):
        leave(site(view).connect())
        heard = [site.hear() for _ in range(5)]
    assert heard == ["the view begins", "opened", "it has accepted", "it ends", "closed"]


def test_opening_whose_guards_cannot_be_asked_is_told_as_its_end_is(
    site: Site, told: list[tuple[str, dict[str, Any]]]
) -> None:
    @require_websocket(guard=lambda request: True)
    def view(request: Any) -> None:
        with mock.patch.object(guards, "watch", side_effect=RuntimeError("can't start new thread")):
            request.websocket.accept()

    assert leave(site(view).connect(), 1011).code == 1011
    assert the_end(site, told)["code"] == 1011


@pytest.mark.parametrize(
    "use",
    [
        lambda websocket: None,
        lambda websocket: websocket.accept(),
        lambda websocket: websocket.send("hello"),
        lambda websocket: websocket.wait(0),
        lambda websocket: websocket.has_messages(),
        lambda websocket: list(websocket),
    ],
    ids=["nothing", "accept", "send", "wait", "has_messages", "iteration"],
)
def test_each_is_sent_once_however_the_view_accepts(site: Site, use: Callable[[Any], object], told: list[Any]) -> None:
    @require_websocket
    def view(request: Any) -> None:
        use(request.websocket)

    leave(site(view).connect())
    assert the_end(site, told)["code"] == 1000


def test_receiver_may_send_the_first_message(site: Site) -> None:
    def greet(websocket: WebSocket, **arguments: Any) -> None:
        websocket.send("welcome")

    with receiving(opened=greet):
        peer = site(echo).connect(early=text("hello"))
        assert [peer.recv_message(), peer.recv_message()] == ["welcome", "hello"]
        leave(peer)


# What they say


def test_arguments_are_the_request_the_websocket_and_how_it_ended(site: Site, told: list[Any]) -> None:
    @require_websocket
    def view(request: Any) -> None:
        site.tell(request)
        list(request.websocket)

    site(view, WEBSOCKET_CLASS=f"{__name__}.ChatWebSocket")
    leave(site.connect("/room/"), 4001, "bye")
    request = site.hear()
    end = the_end(site, told)
    opening = told[0][1]
    assert opening == {
        "signal": websocket_opened, "sender": ChatWebSocket, "request": request, "websocket": request.websocket,
    }  # fmt: skip
    seconds = end.pop("seconds")
    assert seconds >= 0
    assert end == {
        "signal": websocket_closed, "sender": ChatWebSocket, "request": request, "websocket": request.websocket,
        "code": 4001, "reason": "bye", "messages_received": 0, "messages_sent": 0,
        "bytes_received": len(frame(CLOSE, close_payload(4001, "bye"))),
        "bytes_sent": len(frame(CLOSE, close_payload(4001), mask=None)),
    }  # fmt: skip


def test_websocket_is_open_at_first_and_closed_in_the_end(site: Site) -> None:
    def say(websocket: WebSocket, **arguments: Any) -> None:
        site.tell(websocket.closed)

    with receiving(opened=say, closed=say):
        peer = site(echo).connect()
        assert site.hear() is False
        leave(peer)
        assert site.hear() is True


def test_view_that_raises_has_ended_with_the_code_of_the_exception(
    site: Site, told: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    @require_websocket
    def view(request: Any) -> None:
        request.websocket.accept()
        raise PermissionDenied

    assert_ends(site(view).connect(), 4403, "Forbidden")
    end = the_end(site, told)
    assert (end["code"], end["reason"]) == (4403, "Forbidden")


@pytest.mark.parametrize("leave", ["abandon", "reset"])
def test_peer_that_vanishes_has_ended_with_1006(site: Site, told: list[Any], leave: str) -> None:
    peer = site(echo).connect()
    peer.send_message("hello")
    assert peer.recv_message() == "hello"
    getattr(peer, leave)()
    end = the_end(site, told)
    assert end["code"] == 1006
    assert counters(end) == (1, len(text("hello")), 1, len(frame(TEXT, b"hello", mask=None)))


# How much


def test_messages_and_bytes_of_every_frame_are_counted_and_the_101_is_not(site: Site, told: list[Any]) -> None:
    early = text("early")
    sent = [
        text("Grüße"),
        frame(BINARY, bytes(300)),
        frame(BINARY, bytes(70_000)),
        frame(PING, b"are you there?"),
        frame(PONG, b"nobody asked"),
        frame(TEXT, b"one ", fin=False),
        frame(PING),
        frame(CONTINUATION, b"message in ", fin=False),
        frame(CONTINUATION, b"fragments"),
        frame(CLOSE, close_payload(1000, "bye")),
    ]
    peer = site(echo).connect(early=early)
    peer.send_raw(b"".join(sent))
    received = hang_up(peer)
    end = the_end(site, told)
    assert counters(end) == (5, len(early) + sum(map(len, sent)), 5, len(received))
    messages = [b"early", "Grüße".encode(), bytes(300), bytes(70_000), b"one message in fragments"]
    controls = [b"are you there?", b"", close_payload(1000)]
    assert len(received) == sum(len(frame(TEXT, payload, mask=None)) for payload in [*messages, *controls])


def test_pings_of_ours_are_counted_as_bytes(site: Site, told: list[Any]) -> None:
    peer = site(echo, WEBSOCKET_PING_INTERVAL=0.05).connect()
    ping = peer.recv_frame()
    assert ping.opcode == PING
    peer.send_raw(frame(PONG, ping.payload) + frame(CLOSE, close_payload(1000)))
    rest = hang_up(peer)
    end = the_end(site, told)
    pong_and_close = len(frame(PONG, ping.payload)) + len(frame(CLOSE, close_payload(1000)))
    assert counters(end) == (0, pong_and_close, 0, len(frame(PING, ping.payload, mask=None)) + len(rest))


def test_compressed_messages_are_counted_as_they_are_on_the_wire(site: Site, told: list[Any]) -> None:
    compressor = zlib.compressobj(wbits=-15)
    deflated = (compressor.compress(bytes(10_000)) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
    sent = frame(BINARY, deflated, rsv=4) + frame(CLOSE, close_payload(1000))
    site(echo, WEBSOCKET_COMPRESSION=True)
    peer = site.connect("/", {"Sec-WebSocket-Extensions": "permessage-deflate"})
    peer.send_raw(sent)
    received = hang_up(peer)
    assert len(received) < 1000
    assert counters(the_end(site, told)) == (1, len(sent), 1, len(received))


def test_message_in_chunks_is_one_message(site: Site, told: list[Any]) -> None:
    @require_websocket(streaming=True)
    def view(request: Any) -> None:
        while chunks := list(request.websocket.receive_chunks()):
            request.websocket.send_chunks([*chunks, "!"])

    peer = site(view).connect()
    sent = frame(TEXT, b"in ", fin=False) + frame(CONTINUATION, b"chunks") + text("whole")
    peer.send_raw(sent)
    assert [peer.recv_message(), peer.recv_message()] == ["in chunks!", "whole!"]
    leave(peer)
    end = the_end(site, told)
    assert (end["messages_received"], end["messages_sent"]) == (2, 2)
    assert end["bytes_received"] == len(sent + frame(CLOSE, close_payload(1000)))


def test_bytes_in_fragments_are_those_on_the_wire(site: Site, told: list[Any]) -> None:
    @require_websocket(streaming=True)
    def view(request: Any) -> None:
        request.websocket.send_chunks(bytes(size) for size in (10, 200, 70_000))

    peer = site(view).connect()
    assert peer.recv_message() == bytes(70_210)
    assert_ends(peer, 1000)
    fragments = [frame(BINARY, bytes(size), mask=None) for size in (10, 200, 70_000, 0)]  # the last says that it is
    close = frame(CLOSE, close_payload(1000), mask=None)
    assert counters(the_end(site, told))[2:] == (1, sum(map(len, fragments)) + len(close))


def test_message_that_the_peer_did_not_take_does_not_count_as_bytes_that_were_sent(site: Site, told: list[Any]) -> None:
    size = 64 * 1024 * 1024

    @require_websocket(send_timeout=0.2)
    def view(request: Any) -> None:
        request.websocket.send(bytes(size))

    site(view).connect()
    until(lambda: len(told) == 2, "the end of the connection")
    end = the_end(site, told)
    assert end["code"] == 1006
    assert 0 < end["bytes_sent"] < size


# Receivers


@pytest.mark.parametrize("which", SIGNALS)
def test_receiver_that_raises_disturbs_nobody_and_is_logged(
    site: Site, which: str, told: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(**arguments: Any) -> None:
        raise RuntimeError("the receiver fails")

    def after(**arguments: Any) -> None:
        site.tell("the next one is told")

    with receiving(**{which: fail}), receiving(**{which: after}):
        peer = site(echo).connect()
        peer.send_message("hello")
        assert peer.recv_message() == "hello"
        assert leave(peer) == Close(1000)
        assert site.hear() == "the next one is told"
        the_end(site, told)
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("django.dispatch", "ERROR")
    assert "the receiver fails" in caplog.text


@pytest.fixture
def database(tmp_path: Path) -> Iterator[str]:
    """A database in a file, whose connections can be closed."""
    settings = {**connections.settings["default"], "NAME": tmp_path / "db.sqlite3"}
    with mock.patch.dict(connections.settings, {str(tmp_path): settings}):
        yield str(tmp_path)


def test_receiver_that_queries_gives_its_connection_back(site: Site, database: str) -> None:
    def query(signal: Any, **arguments: Any) -> None:
        with connections[database].cursor() as cursor:
            cursor.execute("SELECT 1")
        site.tell(connections[database])

    @require_websocket
    def view(request: Any) -> None:
        site.tell(request.websocket.wait())

    with receiving(opened=query, closed=query):
        peer = site(view).connect()
        connection = site.hear()
        until(lambda: connection.connection is None, "the database to be let go of while the view waits")
        peer.send_message("hello")
        assert site.hear() == "hello"
        assert_ends(peer, 1000)
        connection = site.hear()
    site.until_idle()
    until(lambda: connection.connection is None, "the database to be let go of in the end")


# Nothing to tell


def refuse(request: HttpRequest) -> HttpResponse:
    return HttpResponse("no seat left", status=402)


def close_before_the_101(request: Any) -> None:
    request.websocket.close()


def raise_forbidden(request: HttpRequest) -> None:
    raise PermissionDenied


@pytest.mark.parametrize("view", [refuse, close_before_the_101, raise_forbidden], ids=lambda view: view.__name__)
def test_refusal_of_the_view_is_not_told(
    site: Site, view: Any, told: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert site(accept_websocket(view)).handshake().status in (402, 403)
    site.until_idle()
    assert told == []


def test_refusal_before_the_view_and_plain_http_are_not_told(
    site: Site, told: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    site(accept_websocket(refuse))
    assert site.handshake(headers={"Origin": "https://evil.example"}).status == 403
    assert site.handshake(headers={"Sec-WebSocket-Version": "12"}).status == 426
    assert site.get().status == 402
    site.until_idle()
    assert told == []
