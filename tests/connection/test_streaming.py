"""One message in chunks, both ways: as it comes, and larger than anybody would keep it."""

from __future__ import annotations

import sys
import threading
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from dwebsocket import WebSocketClosed, require_websocket
from tests.links import assert_ends
from tests.peer import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Close, Frame, close_payload, frame, text
from tests.sites import Site

KIB = 1024
PING_ME = frame(PING, b"me")
streaming = require_websocket(streaming=True)


# --- receiving -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", ["Grüße 🎉" * 100, "Grüße 🎉".encode() * 100], ids=["text", "binary"])
def test_message_comes_in_the_chunks_in_which_it_arrives(site: Site, whole: str | bytes) -> None:
    @streaming
    def view(request):
        chunks = list(request.websocket.receive_chunks())
        site.tell(chunks)

    data = whole.encode() if isinstance(whole, str) else whole
    peer = site(view).connect()
    peer.send_frame(TEXT if isinstance(whole, str) else BINARY, data[:8], fin=False)
    peer.send_frame(PING, b"between")
    assert peer.recv_frame() == Frame(PONG, b"between")
    peer.send_frame(CONTINUATION, data[8:9], fin=False)
    peer.send_frame(CONTINUATION, data[9:])
    chunks = site.hear()
    assert type(whole)().join(chunks) == whole
    assert len(chunks) >= 2
    assert_ends(peer, 1000)


def test_message_far_larger_than_the_limit_passes_in_chunks(site: Site) -> None:
    @require_websocket(streaming=True, max_message_size=1000)
    def view(request):
        site.tell(sum(map(len, request.websocket.receive_chunks())))

    peer = site(view).connect()
    peer.send_message(bytes(3_000_000))
    assert site.hear() == 3_000_000
    assert_ends(peer, 1000)


def test_reading_stops_until_a_chunk_is_taken(site: Site) -> None:
    go = threading.Event()

    @streaming
    def view(request):
        request.websocket.accept()
        site.wait_for(go)
        site.tell(sum(map(len, request.websocket.receive_chunks())))

    peer = site(view).connect()
    peer.sock.settimeout(0.3)
    wire, sent = frame(BINARY, bytes(64 * KIB * KIB)), 0
    with pytest.raises(TimeoutError):
        while True:
            sent += peer.sock.send(wire[sent : sent + 64 * KIB])
    assert sent < len(wire)
    go.set()
    peer.sock.settimeout(10)
    peer.sock.sendall(wire[sent:])
    assert site.hear() == 64 * KIB * KIB
    assert_ends(peer, 1000)


def test_chunks_that_are_not_taken_are_skipped(site: Site) -> None:
    @streaming
    def view(request):
        for _chunk in request.websocket.receive_chunks():
            break
        site.tell(request.websocket.wait())
        for _chunk in request.websocket.receive_chunks():
            break
        site.tell(list(request.websocket.receive_chunks()))

    peer = site(view).connect()
    for number in (1, 3):
        peer.send_raw(frame(TEXT, b"first", fin=False) + frame(CONTINUATION, b"rest") + text(f"message {number}"))
    assert site.hear() == "message 1"
    assert site.hear() == ["message 3"]
    assert_ends(peer, 1000)


def test_connection_that_closes_between_messages_ends_the_chunks(site: Site) -> None:
    @streaming
    def view(request):
        site.tell([list(request.websocket.receive_chunks()), list(request.websocket.receive_chunks())])

    peer = site(view).connect()
    peer.send_raw(text("last") + frame(CLOSE, close_payload(1000)))
    assert site.hear() == [["last"], []]
    assert peer.recv_message() == Close(1000)


def test_connection_that_closes_inside_a_message_raises(site: Site) -> None:
    @streaming
    def view(request):
        chunks = []
        try:
            chunks.extend(request.websocket.receive_chunks())
        except WebSocketClosed as error:
            site.tell(error.close_code)
            raise

    peer = site(view).connect()
    peer.send_raw(frame(TEXT, b"half", fin=False) + frame(CLOSE, close_payload(4000)))
    assert site.hear() == 4000
    assert peer.recv_message() == Close(4000)


def test_text_that_is_not_utf8_closes_with_1007_at_the_wrong_byte(site: Site) -> None:
    @streaming
    def view(request):
        with pytest.raises(WebSocketClosed):
            for chunk in request.websocket.receive_chunks():
                site.tell(chunk)

    peer = site(view).connect()
    peer.send_frame(TEXT, b"good", fin=False)
    assert site.hear() == "good"
    peer.send_frame(CONTINUATION, b"\xed\xa0", fin=False)
    message = peer.recv_message()
    assert isinstance(message, Close)
    assert message.code == 1007


def test_message_taken_whole_is_put_together_and_a_timeout_in_between_loses_nothing(site: Site) -> None:
    @streaming
    def view(request):
        ws = request.websocket
        first = ws.wait()
        site.tell(first)
        site.tell(ws.wait(timeout=0.05))
        site.tell(ws.count_messages())
        site.tell(ws.wait())

    peer = site(view).connect()
    peer.send_raw(frame(BINARY, b"fi", fin=False) + frame(CONTINUATION, b"rst"))
    assert site.hear() == b"first"
    peer.send_frame(TEXT, b"sec", fin=False)
    assert site.hear() is None
    assert site.hear() == 0
    peer.send_frame(CONTINUATION, b"ond")
    assert site.hear() == "second"
    assert_ends(peer, 1000)


@pytest.mark.parametrize("kind", [str, bytes])
def test_message_that_a_wait_has_begun_can_be_taken_on_in_chunks(site: Site, kind: type) -> None:
    @streaming
    def view(request):
        ws = request.websocket
        site.tell(ws.wait(timeout=0.05))
        site.tell(list(ws.receive_chunks()))
        site.tell(ws.wait())

    peer = site(view).connect()
    peer.send_frame(TEXT if kind is str else BINARY, b"be", fin=False)
    assert site.hear() is None
    peer.send_raw(frame(CONTINUATION, b"gun") + text("next"))
    assert site.hear() == (["be", "gun"] if kind is str else [b"be", b"gun"])
    assert site.hear() == "next"
    assert_ends(peer, 1000)


def test_message_taken_whole_may_not_be_larger_than_the_limit(site: Site) -> None:
    @require_websocket(streaming=True, max_message_size=1000)
    def view(request):
        site.tell(request.websocket.wait())
        site.tell(request.websocket.wait())

    peer = site(view).connect()
    peer.send_message(bytes(1000))
    assert site.hear() == bytes(1000)
    peer.send_message(bytes(1001))
    assert site.hear() is None
    assert peer.recv_message() == Close(1009, "message of more than 1000 bytes")


def test_limit_of_a_message_taken_whole_is_in_bytes(site: Site) -> None:
    @require_websocket(streaming=True, max_message_size=1000)
    def view(request):
        site.tell(request.websocket.wait())
        site.tell(request.websocket.wait())

    peer = site(view).connect()
    peer.send_message("ā" * 500)
    assert site.hear() == "ā" * 500
    peer.send_raw(frame(TEXT, "ā".encode() * 250, fin=False) + frame(CONTINUATION, "ā".encode() * 251))
    assert site.hear() is None
    assert peer.recv_message() == Close(1009, "message of more than 1000 bytes")


def test_messages_taken_whole_by_several_threads_are_whole(site: Site) -> None:
    """A piece of a message that one thread has taken cannot come behind the next one, which another has."""

    @streaming
    def view(request):
        ws = request.websocket
        ws.accept()
        taken: list[str] = []

        def take() -> None:
            while (message := ws.wait()) is not None:
                taken.append(message)

        threads = [threading.Thread(target=take) for _ in range(4)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            site.pause(0.005)
        site.tell(sorted(taken))

    messages = [f"{number}:" + ",".join(map(str, range(100))) for number in range(40)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        peer = site(view).connect()
        for message in messages:
            pieces = [message[start : start + 2].encode() for start in range(0, len(message), 2)]
            peer.send_raw(
                frame(TEXT, pieces[0], fin=False)
                + b"".join(frame(CONTINUATION, piece, fin=False) for piece in pieces[1:])
                + frame(CONTINUATION)
            )
        peer.send_close(1000)
        assert site.hear() == sorted(messages)
    finally:
        sys.setswitchinterval(interval)


def test_message_taken_whole_takes_no_more_memory_than_it_has_bytes(site: Site) -> None:
    @streaming
    def view(request):
        ws = request.websocket
        ws.accept()
        tracemalloc.start()
        try:
            whole = ws.wait()
            site.tell((len(whole), tracemalloc.get_traced_memory()[1]))
        finally:
            tracemalloc.stop()

    peer = site(view).connect()
    peer.send_raw(frame(TEXT, "ā".encode(), fin=False))
    for _ in range(2):
        peer.send_raw(frame(CONTINUATION, "ā".encode(), fin=False) * 2000)
    peer.send_raw(frame(CONTINUATION))
    size, peak = site.hear()
    assert size == 4_001
    assert peak < 350_000  # 4,000 pieces in a list: more than 320,000 beside the buffers


def test_fragments_without_content_give_no_chunks(site: Site) -> None:
    @streaming
    def view(request):
        ws = request.websocket
        ws.accept()
        site.tell("accepted")
        site.wait_for(go)
        site.tell(ws.count_messages())
        site.tell(list(ws.receive_chunks()))

    go = threading.Event()
    peer = site(view).connect()
    assert site.hear() == "accepted"
    # More than the inbox has room for, were each of them a part of the message.
    peer.send_raw(frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 100 + frame(CONTINUATION, b"all") + PING_ME)
    assert peer.recv_frame() == Frame(PONG, b"me")
    go.set()
    assert site.hear() == 1
    assert site.hear() == ["all"]
    assert_ends(peer, 1000)


def test_without_the_option_a_message_is_one_chunk(site: Site) -> None:
    @require_websocket
    def view(request):
        site.tell(list(request.websocket.receive_chunks()))

    peer = site(view).connect()
    peer.send_raw(frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b"))
    assert site.hear() == ["ab"]
    assert_ends(peer, 1000)


# --- sending ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chunks", "frames"),
    [
        (["a", "b"], [Frame(TEXT, b"a", fin=False), Frame(CONTINUATION, b"b", fin=False), Frame(CONTINUATION, b"")]),
        ([bytearray(b"a")], [Frame(BINARY, b"a", fin=False), Frame(CONTINUATION, b"")]),
        ([], [Frame(TEXT, b"")]),
    ],
    ids=["text", "binary", "none"],
)
def test_each_chunk_is_a_fragment_that_leaves_at_once(site: Site, chunks: list[Any], frames: list[Frame]) -> None:
    @require_websocket
    def view(request):
        request.websocket.send_chunks(iter(chunks))

    peer = site(view).connect()
    assert [peer.recv_frame() for _ in frames] == frames
    assert_ends(peer, 1000)


def test_other_senders_wait_for_the_end_of_the_message_and_pings_are_answered_inside(site: Site) -> None:
    go = threading.Event()

    @require_websocket
    def view(request):
        ws = request.websocket

        def chunks() -> Iterator[str]:
            yield "first"
            other.start()
            site.wait_for(go)
            yield "second"

        other = threading.Thread(target=ws.send, args=["other"])
        ws.send_chunks(chunks())
        while other.is_alive():
            site.pause(0.005)

    peer = site(view).connect()
    assert peer.recv_frame() == Frame(TEXT, b"first", fin=False)
    peer.send_frame(PING, b"inside")
    assert peer.recv_frame() == Frame(PONG, b"inside")
    go.set()
    assert peer.recv_frame() == Frame(CONTINUATION, b"second", fin=False)
    assert peer.recv_frame() == Frame(CONTINUATION, b"")
    assert peer.recv_frame() == Frame(TEXT, b"other")
    assert_ends(peer, 1000)


def test_chunks_that_fail_in_the_middle_close_with_1011(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    @require_websocket
    def view(request):
        def chunks() -> Iterator[str]:
            yield "first"
            raise LookupError("no second")

        with pytest.raises(LookupError):
            request.websocket.send_chunks(chunks())
        site.tell(request.websocket.closed)

    peer = site(view).connect()
    assert peer.recv_frame() == Frame(TEXT, b"first", fin=False)
    assert peer.recv_frame() == Frame(CLOSE, close_payload(1011, "the message was not finished"))
    assert site.hear()


@pytest.mark.parametrize("chunks", [["a", b"b"], [b"a", "b"], ["a", 5]], ids=repr)
def test_chunks_of_different_types_are_a_type_error(site: Site, chunks: list[Any]) -> None:
    @require_websocket
    def view(request):
        with pytest.raises(TypeError):
            request.websocket.send_chunks(chunks)

    peer = site(view).connect()
    peer.recv_frame()
    assert_ends(peer, 1011, "the message was not finished")


def test_chunk_that_fails_before_the_first_leaves_the_connection_open(site: Site) -> None:
    @require_websocket
    def view(request):
        with pytest.raises(TypeError):
            request.websocket.send_chunks([5])
        request.websocket.send("still here")

    peer = site(view).connect()
    assert peer.recv_message() == "still here"
    assert_ends(peer, 1000)


def test_chunks_to_a_peer_that_left_end_the_view_quietly(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    @require_websocket
    def view(request):
        def chunks() -> Iterator[bytes]:
            while True:
                yield bytes(KIB)

        request.websocket.send_chunks(chunks())

    peer = site(view).connect()
    peer.recv_frame()
    peer.reset()
    site.until_idle()
    assert not caplog.records


def test_websocket_that_was_refused_neither_takes_nor_gives_chunks(site: Site) -> None:
    @require_websocket
    def view(request):
        request.websocket.close()
        site.tell(list(request.websocket.receive_chunks()))
        with pytest.raises(WebSocketClosed):
            request.websocket.send_chunks(["never"])

    assert site(view).handshake().status == 403
    assert site.hear() == []
