"""The verbs of dwebsocket 0.5, where they differ."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.urls import path

from dwebsocket import legacy, require_websocket
from tests.links import assert_ends
from tests.peer import BINARY, CLOSE, PING, PONG, TEXT, Frame, close_payload, frame, text
from tests.sites import Site

LEGACY = {"WEBSOCKET_CLASS": "dwebsocket.legacy.WebSocket"}


@pytest.mark.parametrize(
    ("sent", "received"),
    [(text("Grüße"), "Grüße".encode()), (text(""), b""), (frame(BINARY, b"\xff"), b"\xff")],
    ids=repr,
)
def test_every_message_comes_as_bytes(site: Site, sent: bytes, received: bytes) -> None:
    @require_websocket
    def view(request):
        site.tell(request.websocket.wait())
        site.tell(request.websocket.read())
        site.tell(next(iter(request.websocket)))

    with site(view, **LEGACY).connect() as peer:
        peer.send_raw(sent + sent + sent + frame(PING))
        assert peer.recv_frame().opcode == PONG
        assert [site.hear() for _ in range(3)] == [received] * 3


def test_read_gives_its_fallback_when_nothing_is_here(site: Site) -> None:
    @require_websocket
    def view(request):
        site.tell([request.websocket.read(), request.websocket.read("nothing")])

    site(view, **LEGACY).connect()
    assert site.hear() == [None, "nothing"]


def test_iteration_ends_with_none(site: Site) -> None:
    @require_websocket
    def view(request):
        site.tell(list(request.websocket))

    with site(view, **LEGACY).connect() as peer:
        peer.send_message("one")
        peer.close()
        assert site.hear() == [b"one", None]


@pytest.mark.parametrize(
    ("message", "sent"),
    [
        ("Grüße", "Grüße"),
        ("Grüße".encode(), "Grüße"),
        (bytearray(b"array"), "array"),
        (memoryview(b"view"), "view"),
        (b"", ""),
        (7, "7"),
        (None, "None"),
    ],
    ids=["str", "bytes", "bytearray", "memoryview", "no bytes", "int", "None"],
)
def test_everything_is_sent_as_text(site: Site, message: Any, sent: str) -> None:
    @require_websocket
    def view(request):
        request.websocket.send(message)

    with site(view, **LEGACY).connect() as peer:
        assert peer.recv_frame() == Frame(TEXT, sent.encode())
        assert_ends(peer, 1000)


def test_send_after_the_end_is_silent(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    @require_websocket
    def view(request):
        for message in request.websocket:
            request.websocket.send(message)  # the final None as well
        request.websocket.send("into the void")
        request.websocket.send_json({"into": "the void"})
        site.tell(request.websocket.closed)

    with site(view, **LEGACY).connect() as peer:
        peer.send_message("echo")
        assert peer.recv_message() == "echo"
        peer.close()
        assert site.hear() is True
    site.until_idle()
    assert caplog.records == []


def test_send_after_a_refusal_is_silent(site: Site) -> None:
    @require_websocket
    def view(request):
        request.websocket.close()
        request.websocket.send("into the void")
        site.tell("still running")

    assert site(view, **LEGACY).handshake().status == 403
    assert site.hear() == "still running"


def test_echo_of_the_documentation_of_0_5_works(site: Site) -> None:
    @require_websocket
    def view(request):
        message = request.websocket.wait()
        request.websocket.send(message)

    with site(view, **LEGACY).connect() as peer:
        peer.send_message("echo")
        assert peer.recv_message() == "echo"
        assert_ends(peer, 1000)


def test_the_rest_is_as_in_the_new_class(site: Site) -> None:
    go = threading.Event()

    @require_websocket
    def view(request):
        websocket = request.websocket
        site.tell([websocket.has_messages(), websocket.count_messages(), websocket.is_closed()])
        site.wait_for(go)
        site.tell([websocket.has_messages(), websocket.count_messages(), websocket.wait_json()])
        assert websocket.wait() is None
        site.tell([websocket.close_code, websocket.is_closed()])

    with site(view, **LEGACY).connect() as peer:
        assert site.hear() == [False, 0, False]
        peer.send_raw(text("[1]") + frame(PING))
        assert peer.recv_frame().opcode == PONG
        go.set()
        assert site.hear() == [True, 1, [1]]
        peer.send_frame(CLOSE, close_payload(4001))
        assert site.hear() == [4001, True]


def test_waiting_on_behind_the_end_is_an_eof_error(site: Site) -> None:
    @require_websocket
    def view(request):
        websocket = request.websocket
        site.tell([websocket.wait(), list(websocket)])
        for verb in (websocket.wait, websocket.read, websocket.wait_json, lambda: websocket.wait(timeout=5)):
            with pytest.raises(EOFError):
                verb()
        site.tell("raised")

    with site(view, **LEGACY).connect() as peer:
        peer.close()
        assert [site.hear(), site.hear()] == [[None, [None]], "raised"]


@pytest.mark.parametrize("verb", ["wait", "read"])
def test_eof_error_that_leaves_its_own_view_is_no_fault(
    site: Site, verb: str, caplog: pytest.LogCaptureFixture
) -> None:
    @require_websocket
    def view(request):
        while True:
            message = getattr(request.websocket, verb)()
            if message:
                request.websocket.send(message)
            site.pause(0.005)

    with site(view, **LEGACY).connect() as peer:
        peer.send_message("one")
        assert peer.recv_message() == "one"
        peer.close()
    site.until_idle()
    assert caplog.records == []


def test_eof_error_of_somebody_else_is_a_fault(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    @require_websocket
    def view(request):
        request.websocket.accept()
        raise EOFError("of a file")

    with site(view, **LEGACY).connect() as peer:
        assert_ends(peer, 1011)
    site.until_idle()
    assert [record.name for record in caplog.records] == ["django.request"]


@pytest.mark.parametrize("take", ["wait", "read"])
def test_the_none_that_tells_of_the_end_counts_as_a_message_until_it_is_taken(site: Site, take: str) -> None:
    @require_websocket
    def view(request):
        websocket = request.websocket
        while not websocket.has_messages():
            site.pause(0.005)
        site.tell([websocket.count_messages(), getattr(websocket, take)()])
        while not websocket.has_messages():
            site.pause(0.005)
        site.tell([websocket.count_messages(), getattr(websocket, take)()])
        site.tell([websocket.has_messages(), websocket.count_messages()])

    with site(view, **LEGACY).connect() as peer:
        peer.send_message("one")
        assert site.hear() == [1, b"one"]
        peer.close()
        assert site.hear() == [1, None]
        assert site.hear() == [False, 0]


def test_its_name_is_a_key(site: Site) -> None:
    @require_websocket
    def view(request):
        clients = {str(request.websocket): request.websocket}
        assert clients.pop(repr(request.websocket)) is request.websocket
        names = {str(request.websocket)}
        request.websocket.accept()
        names.add(str(request.websocket))
        request.websocket.wait()
        names.add(f"{request.websocket}")
        site.tell(names)

    with site(view, **LEGACY).connect() as one, site.connect() as other:
        one.close()
        other.close()
        names = [site.hear(), site.hear()]
        assert [len(name) for name in names] == [1, 1]
        assert names[0] != names[1]


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [((1000, b"bye"), 1000, "bye"), ((4000, "Grüße".encode()), 4000, "Grüße"), ((None, None), 1000, "")],
    ids=repr,
)
def test_close_takes_bytes_and_none(site: Site, arguments: Any, code: int, reason: str) -> None:
    @require_websocket
    def view(request):
        request.websocket.accept()
        request.websocket.close(*arguments)

    with site(view, **LEGACY).connect() as peer:
        assert_ends(peer, code, reason)


def test_protocol_is_gone_and_tells_what_there_is_instead(site: Site) -> None:
    @require_websocket
    def view(request):
        site.tell(hasattr(request.websocket, "protocol"))
        with pytest.raises(AttributeError, match=r"is_closed\(\) and has_messages\(\), see docs/migration\.md"):
            request.websocket.protocol.sock.fileno()
        site.tell("raised")

    with site(view, **LEGACY).connect():
        assert [site.hear(), site.hear()] == [False, "raised"]


@pytest.mark.parametrize("kind", ["dwebsocket.legacy.WebSocket", legacy.WebSocket], ids=["path", "class"])
def test_one_view_may_have_the_old_verbs_and_another_the_new(site: Site, kind: Any) -> None:
    @require_websocket(websocket_class=kind)
    def old(request):
        site.tell(request.websocket.wait())

    @require_websocket
    def new(request):
        site.tell(request.websocket.wait())

    site(path("old/", old), path("new/", new))
    for url, received in (("/old/", b"text"), ("/new/", "text")):
        with site.connect(url) as peer:
            peer.send_message("text")
            assert site.hear() == received
