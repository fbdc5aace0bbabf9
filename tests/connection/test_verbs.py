"""The verbs, as a view calls them and as the peer sees it."""

from __future__ import annotations

import array
import datetime
import decimal
import json
import threading
import uuid
from contextlib import suppress
from typing import Any
from unittest import mock

import gevent
import pytest
from django.http import HttpResponse
from django.urls import path
from django.utils.functional import lazystr
from django.utils.safestring import mark_safe

from dwebsocket import CloseCode, State, WebSocketClosed, accept_websocket, require_websocket
from dwebsocket.upgrade import sessions
from dwebsocket.websocket import WebSocket
from tests.links import assert_ends
from tests.peer import (
    BINARY,
    CLOSE,
    CONTINUATION,
    NO_STATUS,
    PING,
    PONG,
    TEXT,
    Close,
    Frame,
    PeerTimeout,
    close_payload,
    frame,
    text,
)
from tests.sites import Site

# wait


@pytest.mark.parametrize(
    ("sent", "received"),
    [
        (text("Grüße 🎉"), "Grüße 🎉"),
        (text(""), ""),
        (frame(BINARY, b"\x00\xff"), b"\x00\xff"),
        (frame(BINARY), b""),
        (frame(TEXT, b"in ", fin=False) + frame(PING) + frame(CONTINUATION, b"parts"), "in parts"),
        (frame(BINARY, b"in ", fin=False) + frame(CONTINUATION, b"parts"), b"in parts"),
    ],
    ids=repr,
)
def test_wait_gives_text_as_str_and_binary_as_bytes(site: Site, sent: bytes, received: str | bytes) -> None:
    @require_websocket
    def view(request):
        site.tell(request.websocket.wait())

    with site(view).connect() as peer:
        peer.send_raw(sent)
        message = site.hear()
        assert message == received
        assert type(message) is type(received)


def test_wait_gives_none_when_the_time_is_over_and_the_connection_stays_open(site: Site) -> None:
    @require_websocket
    def view(request):
        site.tell([request.websocket.wait(timeout=0.05), request.websocket.closed])
        site.tell(request.websocket.wait(5))

    with site(view).connect() as peer:
        assert site.hear() == [None, False]
        peer.send_message("still here")
        assert site.hear() == "still here"


def test_wait_gives_none_when_the_connection_is_closed_and_closed_tells_so(site: Site) -> None:
    @require_websocket
    def view(request):
        site.tell([request.websocket.wait(), request.websocket.closed])

    with site(view).connect() as peer:
        assert peer.close() == Close(1000)
        assert site.hear() == [None, True]


# The end is told once

TELLING = {
    "wait": lambda websocket: websocket.wait(),
    "wait with a timeout": lambda websocket: websocket.wait(timeout=5),
    "wait_json": lambda websocket: websocket.wait_json(),
    "wait_json with a timeout": lambda websocket: websocket.wait_json(5),
    "read": lambda websocket: websocket.read(),
    "iteration": lambda websocket: next(iter(websocket), None),
    "receive_chunks": lambda websocket: next(websocket.receive_chunks(), None),
}


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streaming"])
@pytest.mark.parametrize("first", TELLING)
def test_what_waits_after_the_end_was_told_raises_websocket_closed(site: Site, first: str, streaming: bool) -> None:
    @require_websocket(streaming=streaming)
    def view(request):
        websocket = request.websocket
        websocket.accept()
        while not websocket.closed:
            site.pause(0.005)
        site.tell(TELLING[first](websocket))
        for verb in TELLING.values():
            try:
                site.tell([verb(websocket)])
            except WebSocketClosed as error:
                site.tell((error.close_code, error.close_reason, error.websocket is websocket))

    with site(view).connect() as peer:
        peer.close(4001, "bye")
        assert site.hear() is None
        told = {verb: site.hear() for verb in TELLING}
        assert told.pop("iteration") == [None]
        assert set(told.values()) == {(4001, "bye", True)}


def test_read_gives_its_fallback_at_the_end_too_and_raises_then(site: Site) -> None:
    @require_websocket
    def view(request):
        request.websocket.accept()
        while not request.websocket.closed:
            site.pause(0.005)
        site.tell(request.websocket.read("nothing"))
        with pytest.raises(WebSocketClosed):
            request.websocket.read("nothing")
        site.tell("raised")

    with site(view).connect() as peer:
        peer.close()
        assert [site.hear(), site.hear()] == ["nothing", "raised"]


@pytest.mark.parametrize("verb", ["wait", "wait_json"])
def test_time_that_is_over_is_no_end_however_often(site: Site, verb: str) -> None:
    @require_websocket
    def view(request):
        site.tell([getattr(request.websocket, verb)(timeout=0.001) for _ in range(20)])
        site.tell([request.websocket.read() for _ in range(20)])
        site.tell(getattr(request.websocket, verb)(timeout=5))

    with site(view).connect() as peer:
        assert [site.hear(), site.hear()] == [[None] * 20, [None] * 20]
        peer.send_message("5")
        assert str(site.hear()) == "5"


def test_json_null_is_no_end(site: Site) -> None:
    @require_websocket
    def view(request):
        site.tell([request.websocket.wait_json() for _ in range(3)])

    with site(view).connect() as peer:
        peer.send_raw(text("null") + text("null") + text("1"))
        assert site.hear() == [None, None, 1]


LOOPS = {
    "wait": lambda websocket, site: websocket.wait(),
    "wait with a timeout": lambda websocket, site: websocket.wait(timeout=0.01),
    "wait_json": lambda websocket, site: websocket.wait_json(),
    "read": lambda websocket, site: (websocket.read(), site.pause(0.005))[0],
    "chunks": lambda websocket, site: "".join(websocket.receive_chunks()),
    "iteration": lambda websocket, site: [websocket.send(message) for message in websocket] or websocket.wait(),
}


@pytest.mark.parametrize("loop", LOOPS)
def test_view_that_waits_for_ever_ends_when_its_client_has_left(
    site: Site, loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    @require_websocket
    def view(request):
        while True:
            message = LOOPS[loop](request.websocket, site)
            if message:
                request.websocket.send(str(message))

    with site(view).connect() as peer:
        peer.send_message("1")
        assert peer.recv_message() == "1"
        peer.close()
    site.until_idle()
    assert caplog.records == []


def test_loop_whose_json_is_none_ends(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    @require_websocket
    def view(request):
        while True:
            request.websocket.wait_json()

    with site(view).connect() as peer:
        peer.send_message("{")
        assert_ends(peer, 1007, "not JSON")
    site.until_idle()
    assert caplog.records == []


def test_all_that_waited_when_the_end_came_are_told_of_it(site: Site) -> None:
    @require_websocket
    def view(request):
        request.websocket.accept()
        threads = [threading.Thread(target=lambda: site.tell(request.websocket.wait())) for _ in range(3)]
        for thread in threads:
            thread.start()
        request.websocket.send("waiting")
        while any(thread.is_alive() for thread in threads):
            site.pause(0.005)
        site.tell(request.websocket.wait())  # this one was not told yet
        with pytest.raises(WebSocketClosed):
            request.websocket.wait()
        site.tell("raised")

    with site(view).connect() as peer:
        assert peer.recv_message() == "waiting"
        peer.send_raw(text("for one") + frame(PING))
        assert peer.recv_frame().opcode == PONG
        assert site.hear() == "for one"
        peer.close()
        assert [site.hear() for _ in range(4)] == [None, None, None, "raised"]


def greedy(websocket: WebSocket, verb: str) -> None:
    """Call the verb in a loop that nothing stops, and that lets nothing else run by itself."""
    with suppress(WebSocketClosed):
        GREEDY[verb](websocket)


GREEDY = {
    "wait": lambda websocket: websocket.wait(),
    "wait with a timeout": lambda websocket: websocket.wait(timeout=60),
    "read": lambda websocket: websocket.read(),
    "has_messages": lambda websocket: websocket.has_messages(),
    "count_messages": lambda websocket: websocket.count_messages(),
    "closed": lambda websocket: websocket.closed,
    "is_closed": lambda websocket: websocket.is_closed(),
    "send": lambda websocket: websocket.send("into the void"),
    "iteration": lambda websocket: list(websocket),
    "chunks": lambda websocket: list(websocket.receive_chunks()),
}


@pytest.mark.parametrize("kind", ["dwebsocket.websocket.WebSocket", "dwebsocket.legacy.WebSocket"])
@pytest.mark.parametrize("verb", GREEDY)
def test_view_that_asks_in_a_loop_after_the_end_lets_others_run(site: Site, verb: str, kind: str) -> None:
    stop = threading.Event()

    @require_websocket
    def greedy_view(request):
        request.websocket.accept()
        site.tell("begins")
        while not stop.is_set():
            greedy(request.websocket, verb)

    @require_websocket
    def echo(request):
        for message in request.websocket:
            if message is not None:
                request.websocket.send(message)

    site(path("greedy/", greedy_view), path("echo/", echo), WEBSOCKET_CLASS=kind)
    try:
        with site.connect("/greedy/") as leaver:
            assert site.hear() == "begins"
            leaver.abandon()
        with site.connect("/echo/") as peer:
            for number in range(10):
                peer.send_message(str(number))
                assert peer.recv_message() == str(number)
    finally:
        stop.set()


def test_view_that_asks_whether_it_is_closed_in_a_loop_lets_others_run(site: Site) -> None:
    @require_websocket
    def greedy_view(request):
        request.websocket.accept()
        while not request.websocket.closed:
            pass

    @require_websocket
    def echo(request):
        for message in request.websocket:
            request.websocket.send(message)

    site(path("greedy/", greedy_view), path("echo/", echo))
    with site.connect("/greedy/"), site.connect("/echo/") as peer:
        for number in range(10):
            peer.send_message(str(number))
            assert peer.recv_message() == str(number)


# read, has_messages, count_messages


def test_read_gives_the_message_that_is_here_else_the_fallback(site: Site) -> None:
    go = threading.Event()

    @require_websocket
    def view(request):
        site.tell([request.websocket.read(), request.websocket.read("nothing"), request.websocket.read(fallback=0)])
        site.wait_for(go)
        site.tell([request.websocket.read("nothing") for _ in range(4)])

    with site(view).connect() as peer:
        assert site.hear() == [None, "nothing", 0]
        peer.send_raw(text("one") + text("") + frame(BINARY, b""))
        peer.send_frame(PING)
        assert peer.recv_frame().opcode == PONG  # so the messages before it have been read as well
        go.set()
        assert site.hear() == ["one", "", b"", "nothing"]


def test_read_does_not_block_on_half_a_message(site: Site) -> None:
    go = threading.Event()

    @require_websocket
    def view(request):
        request.websocket.accept()
        site.wait_for(go)
        site.tell([request.websocket.read("nothing"), request.websocket.has_messages()])
        site.tell(request.websocket.wait())

    with site(view).connect() as peer:
        peer.send_frame(TEXT, b"half ", fin=False)
        peer.send_frame(PING)
        assert peer.recv_frame().opcode == PONG
        whole = frame(CONTINUATION, b"a message")
        peer.send_raw(whole[:-1])
        go.set()
        assert site.hear() == ["nothing", False]
        peer.send_raw(whole[-1:])
        assert site.hear() == "half a message"


def test_messages_that_wait_are_counted(site: Site) -> None:
    go = threading.Event()

    @require_websocket
    def view(request):
        websocket = request.websocket
        site.tell([websocket.has_messages(), websocket.count_messages()])
        site.wait_for(go)
        site.tell([websocket.has_messages(), websocket.count_messages()])
        websocket.wait()
        site.tell([websocket.has_messages(), websocket.count_messages()])
        websocket.wait()
        site.tell([websocket.has_messages(), websocket.count_messages()])

    with site(view).connect() as peer:
        assert site.hear() == [False, 0]
        peer.send_raw(text("one") + text("two") + frame(PING))
        assert peer.recv_frame().opcode == PONG
        go.set()
        assert [site.hear() for _ in range(3)] == [[True, 2], [True, 1], [False, 0]]


# Iteration


def test_iteration_gives_every_message_and_simply_ends(site: Site) -> None:
    @require_websocket
    def view(request):
        site.tell(list(request.websocket))
        site.tell(list(request.websocket))

    with site(view).connect() as peer:
        peer.send_raw(text("one") + frame(BINARY, b"two") + text(""))
        assert peer.close() == Close(1000)
        assert site.hear() == ["one", b"two", ""]
        assert site.hear() == []


# send


@pytest.mark.parametrize(
    ("message", "sent"),
    [
        ("Grüße", Frame(TEXT, "Grüße".encode())),
        ("", Frame(TEXT, b"")),
        (mark_safe("<b>"), Frame(TEXT, b"<b>")),
        (b"\x00\xff", Frame(BINARY, b"\x00\xff")),
        (bytearray(b"array"), Frame(BINARY, b"array")),
        pytest.param(memoryview(b"view"), Frame(BINARY, b"view"), id="memoryview"),
        pytest.param(memoryview(b"every other")[::2], Frame(BINARY, b"eeyohr"), id="memoryview with steps"),
        (array.array("B", b"array"), Frame(BINARY, b"array")),
        pytest.param(type("Bytes", (bytes,), {})(b"mine"), Frame(BINARY, b"mine"), id="subclass of bytes"),
        pytest.param(type("Text", (str,), {})("x" * 20_000), Frame(TEXT, b"x" * 20_000), id="large subclass of str"),
    ],
    ids=repr,
)
def test_send_sends_str_as_text_and_bytes_like_as_binary(site: Site, message: Any, sent: Frame) -> None:
    @require_websocket
    def view(request):
        request.websocket.send(message)

    with site(view).connect() as peer:
        assert peer.recv_frame() == sent
        assert_ends(peer, 1000)


def test_methods_can_be_replaced_for_a_test(site: Site) -> None:
    @require_websocket
    def view(request):
        request.websocket.accept()
        request.websocket.room = "any attribute"
        request.websocket.send(request.websocket.room)

    with (
        mock.patch.object(WebSocket, "send", lambda self, message: self.send_json([message])),
        mock.patch.object(WebSocket, "send_json", lambda self, obj: self.close(4000, repr(obj))),
        site(view).connect() as peer,
    ):
        assert_ends(peer, 4000, "['any attribute']")


def test_close_takes_a_reason_that_is_marked_safe(site: Site) -> None:
    @require_websocket
    def view(request):
        request.websocket.accept()
        request.websocket.close(4001, mark_safe("bye"))
        assert request.websocket.close_reason == "bye"

    with site(view).connect() as peer:
        assert_ends(peer, 4001, "bye")


@pytest.mark.parametrize(
    ("message", "name"),
    [(None, "NoneType"), (1, "int"), ({"a": 1}, "dict"), ([b"a"], "list"), (lazystr("lazy"), "__proxy__")],
    ids=["None", "int", "dict", "list", "lazy string"],
)
def test_send_of_anything_else_is_a_type_error_that_names_the_type(site: Site, message: Any, name: str) -> None:
    @require_websocket
    def view(request):
        try:
            request.websocket.send(message)
        except TypeError as error:
            site.tell(str(error))
        request.websocket.send("unharmed")

    with site(view).connect() as peer:
        assert site.hear() == f"a message is str or bytes-like, not {name} (send_json() sends others)"
        assert peer.recv_message() == "unharmed"


def test_send_on_a_closed_connection_raises_websocket_closed_with_code_and_reason(site: Site) -> None:
    @require_websocket
    def view(request):
        websocket = request.websocket
        assert websocket.wait() is None
        for send in (websocket.send, websocket.send_json):
            with pytest.raises(WebSocketClosed) as caught:
                send("too late")
            site.tell([caught.value.close_code, caught.value.close_reason, caught.value.websocket is websocket])

    with site(view).connect() as peer:
        peer.close(4001, "bye")
        assert site.hear() == [4001, "bye", True]
        assert site.hear() == [4001, "bye", True]


def test_send_of_what_wait_gave_after_the_end_ends_the_view_quietly(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    @require_websocket
    def view(request):
        while True:
            request.websocket.send(request.websocket.wait())

    with site(view).connect() as peer:
        peer.send_message("echo")
        assert peer.recv_message() == "echo"
        peer.close()
    site.until_idle()
    assert caplog.records == []


def test_send_of_none_before_the_101_opens_nothing(site: Site) -> None:
    @require_websocket
    def view(request):
        with pytest.raises(TypeError):
            request.websocket.send(None)
        return HttpResponse(status=418)

    assert site(view).handshake().status == 418


def test_send_from_native_threads_reaches_the_peer_whole(site: Site) -> None:
    @require_websocket
    def view(request):
        threads = [
            threading.Thread(target=request.websocket.send, args=[chr(97 + number) * 50_000]) for number in range(4)
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            site.pause(0.01)

    with site(view).connect() as peer:
        assert {peer.recv_message() for _ in range(4)} == {chr(97 + number) * 50_000 for number in range(4)}
        assert_ends(peer, 1000)


def test_every_verb_works_from_a_native_thread(site: Site) -> None:
    @require_websocket
    def view(request):
        websocket = request.websocket

        def use() -> None:
            websocket.accept(headers={"X-Thread": "yes"})
            site.tell(websocket.wait())
            websocket.send("back")
            site.tell([websocket.count_messages(), websocket.closed])
            websocket.close(3000)

        thread = threading.Thread(target=use)
        thread.start()
        while thread.is_alive():
            site.pause(0.01)
        site.tell(websocket.wait())

    with site(view).peer() as peer:
        assert peer.handshake().headers["x-thread"] == "yes"
        peer.send_message("there")
        assert site.hear() == "there"
        assert peer.recv_message() == "back"
        assert site.hear() == [0, False]
        assert_ends(peer, 3000)
        assert site.hear() is None


# JSON


def test_send_json_encodes_as_django_does(site: Site) -> None:
    thing = {
        "when": datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.timezone.utc),
        "price": decimal.Decimal("1.50"),
        "id": uuid.UUID(int=1),
        "lazy": lazystr("lazy"),
        "none": None,
    }

    @require_websocket
    def view(request):
        request.websocket.send_json(thing)

    with site(view).connect() as peer:
        sent = peer.recv_frame()
        assert sent.opcode == TEXT
        assert json.loads(sent.payload) == {
            "when": "2024-02-29T12:00:00Z",
            "price": "1.50",
            "id": "00000000-0000-0000-0000-000000000001",
            "lazy": "lazy",
            "none": None,
        }


def test_send_json_of_what_json_cannot_say_is_a_type_error_and_harms_nothing(site: Site) -> None:
    @require_websocket
    def view(request):
        with pytest.raises(TypeError):
            request.websocket.send_json({"set": {1}})
        request.websocket.send_json([])

    with site(view).connect() as peer:
        assert peer.recv_message() == "[]"


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan")], ids=str)
def test_send_json_of_a_number_that_json_has_not_is_a_value_error_and_harms_nothing(site: Site, number: float) -> None:
    @require_websocket
    def view(request):
        with pytest.raises(ValueError, match="not JSON compliant"):
            request.websocket.send_json({"x": [number]})
        request.websocket.send_json([1.5, 1e308])

    with site(view).connect() as peer:
        assert peer.recv_message() == "[1.5, 1e+308]"


def test_wait_json_decodes_numbers_that_a_float_can_hold(site: Site) -> None:
    @require_websocket
    def view(request):
        site.tell(request.websocket.wait_json())

    with site(view).connect() as peer:
        peer.send_message("[1.5, -1.7976931348623157e308, 1e-999, 12345678901234567890]")
        assert site.hear() == [1.5, -1.7976931348623157e308, 0.0, 12345678901234567890]


@pytest.mark.parametrize("message", ['{"a": [1, null]}', b'{"a": [1, null]}'], ids=["text", "binary"])
def test_wait_json_decodes(site: Site, message: str | bytes) -> None:
    @require_websocket
    def view(request):
        site.tell(request.websocket.wait_json())

    with site(view).connect() as peer:
        peer.send_message(message)
        assert site.hear() == {"a": [1, None]}


def test_wait_json_gives_none_when_the_time_is_over_and_when_the_connection_is_closed(site: Site) -> None:
    @require_websocket
    def view(request):
        site.tell([request.websocket.wait_json(timeout=0.05), request.websocket.closed])
        site.tell([request.websocket.wait_json(), request.websocket.closed])

    with site(view).connect() as peer:
        assert site.hear() == [None, False]
        peer.close()
        assert site.hear() == [None, True]


@pytest.mark.parametrize(
    "message",
    ["{", "", b"\xff\xfe\xfd", "NaN", "[" * 100_000, "1" * 10_000, '{"x": 1e999}', "[-1.5e309]"],
    ids=["cut", "empty", "not UTF-8", "NaN", "deep", "long number", "too large", "too small"],
)
def test_wait_json_of_what_is_no_json_closes_with_1007_and_gives_none(
    site: Site, message: str | bytes, caplog: pytest.LogCaptureFixture
) -> None:
    @require_websocket
    def view(request):
        site.tell([request.websocket.wait_json(), request.websocket.closed, request.websocket.close_code])

    with site(view).connect() as peer:
        peer.send_message(message)
        assert_ends(peer, 1007, "not JSON")
        assert site.hear() == [None, True, 1007]
    site.until_idle()
    assert caplog.records == []


# close


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        ((), 1000, ""),
        ((1001,), 1001, ""),
        ((CloseCode.POLICY_VIOLATION, "no"), 1008, "no"),
        ((3000, "ä" * 61 + "a"), 3000, "ä" * 61 + "a"),
        ((4999,), 4999, ""),
    ],
    ids=repr,
)
def test_close_sends_its_code_and_reason_and_the_peer_answers(
    site: Site, arguments: Any, code: int, reason: str
) -> None:
    @require_websocket
    def view(request):
        websocket = request.websocket
        websocket.accept()
        websocket.close(*arguments)
        site.tell([websocket.closed, websocket.close_code, websocket.close_reason, websocket.wait()])

    with site(view).connect() as peer:
        assert_ends(peer, code, reason)
        assert site.hear() == [True, code, reason, None]


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, -1, 70_000, None, "1000"])
@pytest.mark.parametrize("accepted", [True, False], ids=["accepted", "before the 101"])
def test_close_with_a_code_that_may_not_be_sent_is_a_value_error_and_closes_nothing(
    site: Site, code: Any, accepted: bool
) -> None:
    @require_websocket
    def view(request):
        if accepted:
            request.websocket.accept()
        with pytest.raises(ValueError):
            request.websocket.close(code)
        request.websocket.send("still open")

    with site(view).connect() as peer:
        assert peer.recv_message() == "still open"


@pytest.mark.parametrize("reason", [b"bye", None, 5], ids=repr)
@pytest.mark.parametrize("accepted", [True, False], ids=["accepted", "before the 101"])
def test_close_with_a_reason_that_is_no_str_is_a_type_error_and_closes_nothing(
    site: Site, reason: Any, accepted: bool
) -> None:
    @require_websocket
    def view(request):
        if accepted:
            request.websocket.accept()
        with pytest.raises(TypeError, match=f"a close reason is str, not {type(reason).__name__}"):
            request.websocket.close(1000, reason)
        request.websocket.send("still open")

    with site(view).connect() as peer:
        assert peer.recv_message() == "still open"


def test_close_with_a_reason_that_is_translated_when_it_is_sent(site: Site) -> None:
    @require_websocket
    def view(request):
        request.websocket.accept()
        request.websocket.close(4001, lazystr("bye"))

    with site(view).connect() as peer:
        assert_ends(peer, 4001, "bye")


def test_close_with_a_reason_that_is_too_long_is_a_value_error_and_closes_nothing(site: Site) -> None:
    @require_websocket
    def view(request):
        request.websocket.accept()
        with pytest.raises(ValueError, match="124 bytes"):
            request.websocket.close(1000, "ä" * 62)
        request.websocket.send("still open")

    with site(view).connect() as peer:
        assert peer.recv_message() == "still open"


def test_only_the_first_close_does_something(site: Site) -> None:
    @require_websocket
    def view(request):
        request.websocket.accept()
        for code in (3001, 3002, 3003):
            request.websocket.close(code)
        site.tell(request.websocket.close_code)

    with site(view).connect() as peer:
        assert_ends(peer, 3001)
        assert site.hear() == 3001


def test_close_after_the_peer_closed_changes_nothing(site: Site) -> None:
    @require_websocket
    def view(request):
        assert request.websocket.wait() is None
        request.websocket.close(3000, "too late")
        site.tell([request.websocket.close_code, request.websocket.close_reason])

    with site(view).connect() as peer:
        assert peer.close(4001, "bye") == Close(4001)
        assert site.hear() == [4001, "bye"]
        assert peer.read_to_eof() == b""


def test_closing_handshake_is_finished_while_the_view_goes_on(site: Site) -> None:
    go = threading.Event()

    @require_websocket
    def view(request):
        request.websocket.accept()
        request.websocket.close(3000)
        site.wait_for(go)

    with site(view).connect() as peer:
        assert_ends(peer, 3000)
        go.set()


def test_close_before_the_101_refuses_with_403(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    @require_websocket
    def view(request):
        websocket = request.websocket
        websocket.close(4001, "not you")
        websocket.close(4002)
        site.tell(
            [websocket.closed, websocket.is_closed(), websocket.state, websocket.close_code, websocket.close_reason]
        )
        site.tell([websocket.wait(), websocket.has_messages(), list(websocket)])

    response = site(view).handshake()
    assert response.status == 403
    assert site.hear() == [True, True, State.CLOSED, 4001, "not you"]
    assert site.hear() == [None, False, []]
    assert [record.name for record in caplog.records if record.levelname != "WARNING"] == []


@pytest.mark.parametrize(
    "use",
    [
        lambda websocket: websocket.send("x"),
        lambda websocket: websocket.send_json({}),
        lambda websocket: websocket.send(websocket.wait()),
        lambda websocket: websocket.accept(),
        lambda websocket: [websocket.wait() for _ in range(2)],
    ],
    ids=["send", "send_json", "send(wait())", "accept", "wait and wait"],
)
def test_use_after_a_refusal_raises_websocket_closed_which_ends_the_view_quietly(
    site: Site, use: Any, caplog: pytest.LogCaptureFixture
) -> None:
    @require_websocket
    def view(request):
        request.websocket.close(4001)
        with pytest.raises(WebSocketClosed) as caught:
            use(request.websocket)
        site.tell([caught.value.close_code, caught.value.websocket is request.websocket])
        use(request.websocket)

    assert site(view).handshake().status == 403
    assert site.hear() == [4001, True]
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_view_that_refused_may_still_give_its_own_answer(site: Site) -> None:
    @require_websocket
    def view(request):
        request.websocket.close()
        return HttpResponse("pay first", status=402)

    response = site(view).handshake()
    assert (response.status, response.body) == (402, b"pay first")


# What the connection says about itself


def test_each_websocket_has_a_name_of_its_own(site: Site) -> None:
    @require_websocket
    def view(request):
        site.tell({str(request.websocket), repr(request.websocket)})
        request.websocket.wait()

    with site(view).connect() as one, site.connect() as other:
        names = [site.hear(), site.hear()]
        assert [len(name) for name in names] == [1, 1]
        assert names[0] != names[1]
        one.close()
        other.close()


def test_state_goes_from_connecting_over_open_to_closed(site: Site) -> None:
    go = threading.Event()

    @require_websocket
    def view(request):
        websocket = request.websocket
        states = [websocket.state, named(websocket), websocket.closed, websocket.close_code, websocket.close_reason]
        websocket.accept()
        states += [websocket.state, named(websocket), websocket.closed, websocket.is_closed(), websocket.latency]
        go.set()
        assert websocket.wait() is None
        site.tell([*states, websocket.state, named(websocket), websocket.closed, websocket.is_closed()])

    def named(websocket):
        return str(websocket).replace(f" at {id(websocket):#x}", "")

    with site(view).connect() as peer:
        assert go.wait(5)
        peer.close()
        assert site.hear() == [
            *[State.CONNECTING, "<WebSocket CONNECTING>", False, None, ""],
            *[State.OPEN, "<WebSocket OPEN>", False, False, None],
            *[State.CLOSED, "<WebSocket CLOSED>", True, True],
        ]


@pytest.mark.parametrize(
    ("payload", "code", "reason"),
    [
        (close_payload(4001, "bye"), 4001, "bye"),
        (b"", NO_STATUS, ""),
        (close_payload(1005), 1002, "close code 1005 may not be sent"),
    ],
    ids=repr,
)
def test_close_code_and_reason_are_those_of_the_peer(site: Site, payload: bytes, code: int, reason: str) -> None:
    @require_websocket
    def view(request):
        assert request.websocket.wait() is None
        site.tell([request.websocket.close_code, request.websocket.close_reason])

    with site(view).connect() as peer:
        peer.send_frame(CLOSE, payload)
        assert site.hear() == [code, reason]


def test_close_code_is_1006_when_the_peer_just_left(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    @require_websocket
    def view(request):
        assert request.websocket.wait() is None
        site.tell([request.websocket.close_code, request.websocket.close_reason])

    site(view).connect().reset()
    assert site.hear() == [1006, "the peer left without a closing handshake"]
    site.until_idle()
    assert caplog.records == []


def test_closed_becomes_true_while_the_view_does_not_read(site: Site) -> None:
    @require_websocket
    def view(request):
        request.websocket.accept()
        while not request.websocket.closed:
            site.pause(0.005)
        site.tell(request.websocket.close_code)

    site(view).connect().abandon()
    assert site.hear() == 1006


def test_latency_is_what_the_last_ping_took(site: Site) -> None:
    @require_websocket(ping_interval=0.05)
    def view(request):
        request.websocket.accept()
        while request.websocket.latency is None:
            site.pause(0.005)
        site.tell(request.websocket.latency)

    with site(view).connect() as peer:
        ping = peer.recv_frame()
        assert ping.opcode == PING
        peer.send_frame(PONG, ping.payload)
        assert 0 < site.hear() < 5


# accept


def test_accept_sends_the_101_with_headers_at_once(site: Site) -> None:
    go = threading.Event()

    @require_websocket
    def view(request):
        request.websocket.accept(headers={"X-Greeting": "hello", "Set-Cookie": "a=b"})
        site.wait_for(go)

    peer = site(view).peer()
    headers = peer.handshake().headers
    assert (headers["x-greeting"], headers["set-cookie"]) == ("hello", "a=b")
    go.set()
    assert_ends(peer, 1000)


def test_accept_sends_a_header_twice_when_it_is_given_as_pairs(site: Site) -> None:
    @require_websocket
    def view(request):
        request.websocket.accept(headers=[("X-Many", "one"), ("X-Many", "two")])

    assert site(view).peer().handshake().headers["x-many"] == "one, two"


def test_second_accept_does_nothing(site: Site) -> None:
    @require_websocket
    def view(request):
        request.websocket.accept()
        request.websocket.accept(subprotocol="unheard-of", headers={"X-Late": "yes"})
        request.websocket.send("once")

    with site(view).peer() as peer:
        assert "x-late" not in peer.handshake().headers
        assert peer.recv_message() == "once"
        assert_ends(peer, 1000)


@pytest.mark.parametrize(
    ("given", "chosen"),
    [({}, "chat.v2"), ({"subprotocol": "chat.v1"}, "chat.v1"), ({"subprotocol": None}, "chat.v2")],
    ids=str,
)
def test_accept_with_a_subprotocol_tells_both_sides(site: Site, given: dict[str, str], chosen: str) -> None:
    @require_websocket(subprotocols=["chat.v3", "chat.v2"])
    def view(request):
        site.tell(request.websocket.subprotocol)
        request.websocket.accept(**given)
        site.tell(request.websocket.subprotocol)

    headers = {"Sec-WebSocket-Protocol": "chat.v1, chat.v2"}
    assert site(view).handshake("/", headers).headers["sec-websocket-protocol"] == chosen
    assert [site.hear(), site.hear()] == [None, chosen]


def test_no_common_subprotocol_is_no_reason_to_refuse(site: Site) -> None:
    @require_websocket
    def view(request):
        request.websocket.accept()
        site.tell(request.websocket.subprotocol)

    site(view, WEBSOCKET_SUBPROTOCOLS=["chat.v3"])
    response = site.handshake("/", {"Sec-WebSocket-Protocol": "chat.v1"})
    assert response.status == 101
    assert "sec-websocket-protocol" not in response.headers
    assert site.hear() is None


@pytest.mark.parametrize(
    "given",
    [
        {"subprotocol": "chat.v9"},
        {"headers": {"X Greeting": "hello"}},
        {"headers": {"X-Greeting": "hello\r\nX-Injected: yes"}},
        {"headers": {"X-Greeting": "世界"}},
        {"headers": {"Upgrade": "h2c"}},
        {"headers": {"Sec-WebSocket-Accept": "mine"}},
        {"headers": [("Content-Length", "5")]},
    ],
    ids=str,
)
def test_accept_that_cannot_be_said_is_a_value_error_and_the_view_can_still_refuse(site: Site, given: Any) -> None:
    @require_websocket
    def view(request):
        with pytest.raises(ValueError):
            request.websocket.accept(**given)
        site.tell([request.websocket.state, request.websocket.subprotocol])
        return HttpResponse("another time", status=503)

    response = site(view).handshake("/", {"Sec-WebSocket-Protocol": "chat.v1"})
    assert (response.status, response.body) == (503, b"another time")
    assert site.hear() == [State.CONNECTING, None]


def test_accept_after_one_that_failed_opens_the_connection(site: Site) -> None:
    @require_websocket
    def view(request):
        with pytest.raises(ValueError):
            request.websocket.accept(subprotocol="chat.v9")
        request.websocket.accept()
        request.websocket.send("open")

    with site(view).connect() as peer:
        assert peer.recv_message() == "open"


VERBS = {
    "wait": lambda websocket: websocket.wait(timeout=0.01),
    "read": lambda websocket: websocket.read(),
    "has_messages": lambda websocket: websocket.has_messages(),
    "count_messages": lambda websocket: websocket.count_messages(),
    "wait_json": lambda websocket: websocket.wait_json(timeout=0.01),
    "send": lambda websocket: websocket.send("first"),
    "send_json": lambda websocket: websocket.send_json("first"),
    "iteration": lambda websocket: next(iter(websocket)),
}


@pytest.mark.parametrize("verb", VERBS)
def test_first_verb_that_needs_the_connection_sends_the_101(site: Site, verb: str) -> None:
    @require_websocket
    def view(request):
        assert request.websocket.state is State.CONNECTING
        VERBS[verb](request.websocket)
        site.tell(request.websocket.state)

    with site(view).connect(early=text('"a"')):
        assert site.hear() is State.OPEN


@pytest.mark.parametrize(
    "name", ["closed", "close_code", "close_reason", "subprotocol", "latency", "state", "is_closed"]
)
def test_asking_what_it_is_does_not_open_the_connection(site: Site, name: str) -> None:
    @require_websocket
    def view(request):
        value = getattr(request.websocket, name)
        if callable(value):
            value()
        return HttpResponse(status=418)

    assert site(view).handshake().status == 418


# The order of the end, as a view meets it


@pytest.mark.parametrize("end", ["close", "error", "eof"])
def test_messages_before_the_end_are_answered_and_then_the_end_is(site: Site, end: str) -> None:
    @require_websocket
    def view(request):
        for message in request.websocket:
            site.pause(0.02)
            request.websocket.send(message)
        site.tell(request.websocket.close_code)

    with site(view).connect() as peer:
        last = {"close": frame(CLOSE, close_payload(1001)), "error": frame(0x3), "eof": b""}[end]
        peer.send_raw(text("one") + text("two") + last + text("behind"))
        if end == "eof":
            peer.half_close()
        answers = [peer.recv_message(), peer.recv_message()]
        assert answers == ["one", "two"]
        if end == "eof":
            assert peer.recv_message() == "behind"
        else:
            assert peer.recv_message() == {"close": Close(1001), "error": Close(1002, "reserved opcode 0x3")}[end]
        assert peer.read_to_eof() == b""
        assert site.hear() == {"close": 1001, "error": 1002, "eof": 1006}[end]


def test_view_that_does_not_come_back_for_the_end_is_not_waited_for(site: Site) -> None:
    go = threading.Event()

    @require_websocket(close_timeout=0.3)
    def view(request):
        request.websocket.wait()
        site.wait_for(go)
        site.tell([request.websocket.closed, request.websocket.wait()])

    with site(view).connect() as peer:
        peer.send_raw(text("last") + frame(CLOSE, close_payload(1001)))
        with pytest.raises(PeerTimeout):
            peer.recv_frame(timeout=0.05)
        assert peer.recv_message() == Close(1001)
        assert peer.read_to_eof() == b""
    go.set()
    assert site.hear() == [True, None]


def test_mixed_view_serves_plain_http_too(site: Site) -> None:
    @accept_websocket
    def view(request):
        if request.is_websocket():
            request.websocket.send("socket")
            return None
        return HttpResponse("page")

    site(view)
    assert site.get().body == b"page"
    assert site.connect().recv_message() == "socket"


# Several threads


def test_first_verb_of_several_threads_saves_the_session_once_and_all_are_sent(site: Site) -> None:
    saved: list[int] = []

    def save(request: Any) -> list[tuple[str, str]]:
        saved.append(1)
        site.pause(0.1)  # as a database takes
        return []

    @require_websocket
    def view(request):
        websocket, sent = request.websocket, []

        def send(number: int) -> None:
            websocket.send(f"{number}")
            sent.append(number)

        for number in range(4):
            if site.server.name == "pywsgi":
                gevent.spawn(send, number)
            else:
                threading.Thread(target=send, args=[number]).start()
        while len(sent) < 4:
            site.pause(0.005)

    with mock.patch.object(sessions, "save", save):
        peer = site(view).connect()
        assert sorted(str(peer.recv_message()) for _ in range(4)) == ["0", "1", "2", "3"]
        assert peer.recv_message() == Close(1000)
        peer.send_close()
    assert saved == [1]


def test_accept_that_waited_for_one_that_fails_takes_its_place(site: Site) -> None:
    begun = threading.Event()

    def save(request: Any) -> list[tuple[str, str]]:
        begun.set()
        site.pause(0.1)
        return []

    @require_websocket
    def view(request):
        websocket, raised = request.websocket, []

        def fail() -> None:
            try:
                websocket.accept("not offered")
            except ValueError:
                raised.append(True)

        if site.server.name == "pywsgi":
            gevent.spawn(fail)
        else:
            threading.Thread(target=fail).start()
        site.wait_for(begun)
        websocket.send("accepted")
        site.tell(raised)

    with mock.patch.object(sessions, "save", save):
        assert site(view).connect().recv_message() == "accepted"
        assert site.hear() == [True]
