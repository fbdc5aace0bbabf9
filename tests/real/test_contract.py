"""What every server must give a view and its peer, detached and attached, spoken by a hand-written peer."""

from __future__ import annotations

import os
import random
import ssl
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.helpers import exchange
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
    Peer,
    PeerTimeout,
    close_payload,
    decode_all,
    frame,
    new_key,
    request,
    text,
)
from tests.project.views import MESSAGES_EACH, MIB, THREADS, message_of
from tests.real.helpers import VIOLATIONS, assert_ends, on, only_detached, only_early, only_halves, only_refusing
from tests.real.servers import KINDS, MANY, RUNSERVER_PLUS, Server, combinations, running

pytestmark = pytest.mark.timeout(60)


ECHO_PATHS = ["/echo/", "/echo-by-read/", "/echo-by-class/", "/echo-attached/"]


# Messages


@pytest.mark.parametrize("path", ECHO_PATHS)
@pytest.mark.parametrize("message", ["hello", "", "Grüße, 世界 🎉", b"\x00\xff\x80", b""], ids=repr)
def test_message_comes_back_as_it_was_sent(server: Server, path: str, message: str | bytes) -> None:
    with server.connect(path) as peer:
        assert exchange(peer, message) == message
        assert peer.close().code == 1000
        assert peer.read_to_eof() == b""


def test_view_that_answers_once_closes_with_1000(server: Server) -> None:
    with server.connect("/echo-once/") as peer:
        assert exchange(peer, "only") == "only"
        assert_ends(peer, 1000, "")


@pytest.mark.parametrize("message", ["ä" * (MIB // 2), os.urandom(MIB)], ids=["text", "binary"])
def test_message_of_1_mib_comes_back(server: Server, message: str | bytes) -> None:
    with server.connect() as peer:
        assert exchange(peer, message) == message
        assert peer.close().code == 1000


def test_message_of_4_mib_comes_back_where_the_view_allows_it(server: Server) -> None:
    message = os.urandom(4 * MIB)
    with server.connect("/echo-big/") as peer:
        assert exchange(peer, message) == message
        assert peer.close().code == 1000


def test_messages_sent_in_one_burst_come_back_in_order(server: Server) -> None:
    messages = [f"message {number}" for number in range(1000)]
    with server.connect() as peer:
        peer.send_raw(b"".join(map(text, messages)))
        assert [peer.recv_message() for _ in messages] == messages
        assert peer.close().code == 1000


def test_fragments_come_back_as_one_message_and_a_ping_between_them_is_answered_at_once(server: Server) -> None:
    with server.connect() as peer:
        peer.send_frame(TEXT, "Grü".encode()[:3], fin=False)
        peer.send_frame(PING, b"between")
        assert peer.recv_frame() == Frame(PONG, b"between")
        peer.send_frame(CONTINUATION, fin=False)
        peer.send_frame(CONTINUATION, "Grüße".encode()[3:])
        assert peer.recv_message() == "Grüße"
        assert peer.close().code == 1000


def test_handshake_and_message_sent_byte_by_byte_are_understood(server: Server) -> None:
    with server.peer() as peer:
        for byte in peer.handshake_request("/echo/"):
            peer.send_raw(bytes([byte]))
        assert peer.recv_handshake().status == 101
        for byte in frame(TEXT, b"slow", length_bytes=0) + frame(BINARY, bytes(200)):
            peer.send_raw(bytes([byte]))
        assert peer.recv_message() == "slow"
        assert peer.recv_message() == bytes(200)
        assert peer.close().code == 1000


def test_waiting_messages_are_counted_and_read_without_blocking(server: Server) -> None:
    with server.connect("/count/") as peer:
        peer.send_raw(text("a") + text("b") + text("c"))
        assert [peer.recv_message() for _ in range(5)] == ["3", "a", "b", "c", "nothing"]
        assert_ends(peer, 1000)


def test_wait_with_a_timeout_returns_none_and_leaves_the_connection_open(server: Server) -> None:
    with server.connect("/wait-a-moment/") as peer:
        assert peer.recv_message() == "None False"
        assert exchange(peer, "still here") == "still here"
        assert peer.close().code == 1000


def test_json_comes_back_decoded_and_encoded(server: Server) -> None:
    with server.connect("/json/") as peer:
        assert exchange(peer, '{"a": [1, null]}') == '{"got": {"a": [1, null]}}'
        assert_ends(peer, 1000)


def test_invalid_json_closes_with_1007(server: Server) -> None:
    with server.connect("/json/") as peer:
        peer.send_message("{")
        assert_ends(peer, 1007)


def test_view_in_a_socket_reaches_the_database(server: Server) -> None:
    with server.connect("/database/") as peer:
        assert exchange(peer, "select") == "SELECT"
        assert peer.close().code == 1000


def test_session_set_over_http_is_read_in_the_socket(server: Server) -> None:
    cookie = server.get("/session/?colour=green").headers["set-cookie"].split(";")[0]
    with server.connect("/session/", {"Cookie": cookie}) as peer:
        assert peer.recv_message() == "green"
        assert_ends(peer, 1000)


def test_messages_sent_from_many_threads_never_interleave(server: Server) -> None:
    received: dict[int, list[str]] = {thread: [] for thread in range(THREADS)}
    with server.connect("/threads/") as peer:
        for _ in range(THREADS * MESSAGES_EACH):
            message = peer.recv_message()
            assert isinstance(message, str)
            received[int(message.split(" ", 1)[0])].append(message)
        assert_ends(peer, 1000)
    assert received == {t: [message_of(t, number) for number in range(MESSAGES_EACH)] for t in range(THREADS)}


# Bytes behind the handshake


@only_early
def test_message_in_the_segment_of_the_handshake_is_answered(server: Server) -> None:
    with server.connect(early=text("early")) as peer:
        assert peer.recv_message() == "early"
        assert peer.close().code == 1000


@only_early
def test_messages_behind_the_handshake_are_answered_even_if_the_last_is_cut(server: Server) -> None:
    whole, cut = text("one") + frame(BINARY, b"two"), text("three")
    with server.connect(early=whole + cut[:4]) as peer:
        assert peer.recv_message() == "one"
        assert peer.recv_message() == b"two"
        peer.send_raw(cut[4:])
        assert peer.recv_message() == "three"
        assert peer.close().code == 1000


@only_early
def test_big_message_behind_the_handshake_is_answered(server: Server) -> None:
    message = "x" * 300_000
    with server.connect(early=text(message)) as peer:
        assert peer.recv_message() == message
        assert peer.close().code == 1000


@only_early
def test_close_in_the_segment_of_the_handshake_is_answered(server: Server) -> None:
    with server.connect(early=text("last") + frame(CLOSE, close_payload(1001))) as peer:
        assert peer.recv_message() == "last"
        assert peer.recv_message() == Close(1001)
        assert peer.read_to_eof() == b""


def test_handshake_behind_plain_http_on_the_same_connection_is_answered(server: Server) -> None:
    with server.peer() as peer:
        assert peer.http("/plain/").body == b"plain"
        if server.kind.keeps_alive:
            assert exchange(peer.connect("/echo/"), "hello") == "hello"
            assert peer.close().code == 1000


def test_handshake_and_message_pipelined_behind_plain_http_are_answered(server: Server) -> None:
    key = new_key()
    with server.peer() as peer:
        upgrade = peer.handshake_request("/echo/", {"Sec-WebSocket-Key": key})
        peer.send_raw(request("/plain/", {"Host": peer.host}) + upgrade + text("early"))
        assert peer.recv_response().body == b"plain"
        if server.kind.keeps_alive and server.kind.pipelines:
            assert peer.recv_handshake(key).status == 101
            assert peer.recv_message() == "early"
            assert peer.close().code == 1000


# The closing handshake


@pytest.mark.parametrize("code", [1000, 1001, 1011, 3000, 4999])
def test_close_by_the_client_is_answered_with_its_code_and_nothing_follows(
    server: Server, note: str, code: int
) -> None:
    with server.connect(f"/echo/?note={note}") as peer:
        assert exchange(peer, "hello") == "hello"
        assert peer.close(code, "bye").code == code
        assert peer.read_to_eof() == b""
    assert server.note(note) == "finally"


def test_close_without_a_code_is_answered_and_nothing_follows(server: Server) -> None:
    with server.connect() as peer:
        peer.send_frame(CLOSE)
        assert peer.recv_message() in (Close(NO_STATUS), Close(1000))
        assert peer.read_to_eof() == b""


def test_messages_before_a_close_in_one_segment_are_answered_and_those_behind_it_never(server: Server) -> None:
    with server.connect() as peer:
        peer.send_raw(text("before") + frame(CLOSE, close_payload(1000)) + text("behind") + b"GET / HTTP/1.1\r\n\r\n")
        assert peer.recv_message() == "before"
        assert peer.recv_message() == Close(1000)
        assert peer.read_to_eof() == b""


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "moving"), (4000, "bis später")])
def test_close_by_the_view_sends_its_code_and_reason(server: Server, note: str, code: int, reason: str) -> None:
    with server.connect(f"/close/?code={code}&reason={quote(reason)}&note={note}") as peer:
        peer.send_message("go")
        assert_ends(peer, code, reason)
    assert server.note(note) == f"True {code}"


def test_message_that_crosses_the_close_of_the_view_is_dropped(server: Server) -> None:
    with server.connect("/close/?code=1000") as peer:
        peer.send_message("go")
        assert peer.recv_message() == Close(1000)
        peer.send_message(bytes(200_000))
        peer.send_close()
        assert peer.read_to_eof() == b""


@pytest.mark.parametrize("path", ["/unused/", "/accept-only/"])
def test_view_that_returns_none_has_accepted_and_closes_with_1000(server: Server, path: str) -> None:
    with server.connect(path) as peer:
        assert_ends(peer, 1000, "")


@only_refusing
def test_headers_given_to_accept_are_on_the_101(server: Server) -> None:
    with server.peer() as peer:
        assert peer.handshake("/accept-only/").headers["x-greeting"] == "hello"
        assert_ends(peer, 1000)


def test_messages_pushed_before_the_end_of_the_view_all_arrive(server: Server) -> None:
    with server.connect("/push/?count=500") as peer:
        assert [peer.recv_message() for _ in range(500)] == [str(number) for number in range(500)]
        assert_ends(peer, 1000)


def test_close_is_noticed_while_the_view_never_reads(server: Server, note: str) -> None:
    with server.connect(f"/watch-closed/?note={note}") as peer:
        assert peer.close(3001).code == 3001
        assert server.note(note) == "True 3001"
        assert peer.read_to_eof() == b""


@on(combinations("attached"))
def test_view_that_ends_while_a_thread_of_its_own_sends_leaves_no_byte_of_http(server: Server) -> None:
    for _ in range(3):
        with server.connect("/ends-before-its-thread/") as peer:
            time.sleep(1)  # a peer that does not read until all is over
            received = bytearray()
            with suppress(ConnectionError, ssl.SSLEOFError):
                while data := peer.sock.recv(1 << 18):
                    received += data
            assert b"HTTP" not in received


# Pings


def test_ping_is_answered_while_the_view_sleeps(server: Server, note: str) -> None:
    with server.connect(f"/sleepy/?note={note}") as peer:
        assert peer.recv_message() == "asleep"
        for payload in (b"", b"hello", bytes(125)):
            peer.send_frame(PING, payload)
            assert peer.recv_frame() == Frame(PONG, payload)
        server.wake(note)
        assert peer.recv_message() == "awake"
        assert_ends(peer, 1000)


def test_unasked_pong_is_ignored(server: Server) -> None:
    with server.connect() as peer:
        peer.send_frame(PONG, b"unasked")
        assert exchange(peer, "hello") == "hello"
        assert peer.close().code == 1000


def answer_pings(peer: Peer, count: int) -> None:
    for _ in range(count):
        ping = peer.recv_frame()
        assert ping.opcode == PING
        peer.send_frame(PONG, ping.payload)


def test_peer_that_answers_pings_stays_connected(server: Server) -> None:
    with server.connect("/pinged/") as peer:
        answer_pings(peer, 5)
        assert exchange(peer, "still here") == "still here"
        assert peer.close().code == 1000


def test_peer_that_answers_pings_stays_connected_while_the_view_sleeps(server: Server, note: str) -> None:
    with server.connect(f"/pinged-asleep/?note={note}") as peer:
        answer_pings(peer, 5)
        server.wake(note)
        assert_ends(peer, 1000)


def assert_cut_off(peer: Peer) -> None:
    """The server pings a peer that stays silent, and then ends the connection by itself."""
    assert peer.recv_frame().opcode == PING
    received = decode_all(peer.read_to_eof())
    assert {sent.opcode for sent in received} <= {PING, CLOSE}, received


def test_peer_that_answers_no_ping_is_cut_off(server: Server, note: str) -> None:
    with server.connect(f"/pinged/?note={note}") as peer:
        assert_cut_off(peer)
        assert server.note(note) == "finally"


def test_peer_that_answers_no_ping_is_cut_off_while_the_view_sleeps(server: Server, note: str) -> None:
    with server.connect(f"/pinged-asleep/?note={note}") as peer:
        assert_cut_off(peer)
        server.wake(note)


# Peers that vanish or stall


@pytest.mark.parametrize("path", ["/echo/", "/push-for-ever/", "/flood/"])
@pytest.mark.parametrize("leave", [Peer.reset, Peer.abandon], ids=["reset", "abandon"])
def test_client_that_vanishes_ends_the_view_quietly(server: Server, note: str, path: str, leave) -> None:
    peer = server.connect(f"{path}?note={note}")
    peer.send_message("hello")
    peer.recv_message()
    leave(peer)
    assert server.note(note) == "finally"


@pytest.mark.parametrize("leave", [Peer.reset, Peer.abandon], ids=["reset", "abandon"])
def test_client_that_vanishes_in_the_middle_of_a_frame_ends_the_view_quietly(server: Server, note: str, leave) -> None:
    peer = server.connect(f"/echo/?note={note}")
    peer.send_raw(text("never finished")[:5])
    leave(peer)
    assert server.note(note) == "finally"


def test_client_that_resets_while_the_view_never_reads_is_noticed(server: Server, note: str) -> None:
    peer = server.connect(f"/watch-closed/?note={note}")
    peer.reset()
    assert server.note(note) == "True 1006"


# More than anybody reads for a view that does not.
UNREAD = frame(TEXT, b"GET /plain/ HTTP/1.1\r\n\r\n", mask=bytes(4)) * 10_000


def test_bytes_that_nobody_has_read_before_a_reset_are_never_read_as_http(server: Server, note: str) -> None:
    before = server.file_descriptors()
    with server.connect(f"/sleepy/?note={note}") as peer:
        assert peer.recv_message() == "asleep"
        peer.send_raw(UNREAD)
        peer.reset()
    server.wake(note)
    assert server.note(note) == "finally"
    server.until(lambda: server.file_descriptors() <= before, f"{before} descriptors")


def test_bytes_that_nobody_has_read_before_the_send_timeout_are_never_read_as_http(server: Server, note: str) -> None:
    before = server.file_descriptors()
    with server.connect(f"/flood/?note={note}") as peer:
        peer.send_raw(UNREAD)
        assert server.note(note) == "finally"
        server.until(lambda: server.file_descriptors() <= before, f"{before} descriptors")


def test_clients_that_reset_or_leave_at_any_moment_leave_nothing_behind(server: Server) -> None:
    moments = random.Random(1)
    before = server.file_descriptors()
    for leave in [Peer.reset, Peer.reset, Peer.abandon] * 30:
        peer = server.peer()
        peer.send_raw(peer.handshake_request("/echo/") + text("x" * moments.choice([1, 200, 70_000])) + text("y"))
        time.sleep(moments.choice([0, moments.uniform(0, 0.005)]))
        leave(peer)
    server.until(lambda: server.file_descriptors() <= before, f"{before} descriptors")
    assert server.get("/plain/").body == b"plain"


@only_halves
def test_half_closed_client_still_gets_its_answers(server: Server, note: str) -> None:
    with server.connect(f"/echo/?note={note}") as peer:
        peer.send_raw(text("one") + text("two"))
        peer.half_close()
        assert peer.recv_message() == "one"
        assert peer.recv_message() == "two"
        assert {last.opcode for last in decode_all(peer.read_to_eof())} <= {CLOSE}
    assert server.note(note) == "finally"


def test_client_that_never_reads_is_cut_off_after_the_send_timeout(server: Server, note: str) -> None:
    with server.connect(f"/flood/?note={note}"):
        assert server.note(note) == "finally"


@only_detached
def test_client_that_stalls_in_the_middle_of_a_frame_delays_no_other(server: Server) -> None:
    with server.connect() as stalling, server.connect() as other:
        stalling.send_raw(text("never finished")[:5])
        assert exchange(other, "hello") == "hello"
        assert server.get("/plain/").body == b"plain"
        assert other.close().code == 1000


# Errors


def test_exception_after_the_accept_closes_with_1011_and_is_reported_as_django_does(server: Server) -> None:
    with server.connect("/raise-after/") as peer:
        assert peer.recv_message() == "accepted"
        assert_ends(peer, 1011)
    log = server.expect_log(r"ERROR django\.request: Internal Server Error: /raise-after/")
    assert log.count("Traceback") == 1
    assert log.rstrip().endswith("RuntimeError: after the accept")


@only_refusing
def test_exception_before_the_accept_is_an_ordinary_500(server: Server) -> None:
    with server.peer() as peer:
        assert peer.handshake("/raise-before/").status == 500
    log = server.expect_log(r"ERROR django\.request: Internal Server Error: /raise-before/")
    assert log.count("Traceback") == 1
    assert log.rstrip().endswith("RuntimeError: before the accept")


@on([("pywsgi", "detached"), ("gunicorn-gthread", "attached")])  # the codec is the same on all
@pytest.mark.parametrize(("violation", "code"), VIOLATIONS.values(), ids=VIOLATIONS)
def test_violation_of_the_protocol_closes_with_its_code_after_what_came_before_it(
    server: Server, note: str, violation: bytes, code: int
) -> None:
    with server.connect(f"/echo/?note={note}") as peer:
        peer.send_raw(text("before") + violation)
        assert peer.recv_message() == "before"
        assert_ends(peer, code)
    assert server.note(note) == "finally"


# Refusals and plain HTTP


@pytest.mark.parametrize("path", ["/echo/", "/echo-by-class/"])
def test_one_url_answers_plain_http_too(server: Server, path: str) -> None:
    assert server.get(path).body == b"echo over HTTP"


def test_plain_http_where_a_websocket_is_required_gets_426(server: Server) -> None:
    response = server.get("/echo-once/")
    assert response.status == 426
    assert response.body
    server.expect_log(r"Upgrade Required: /echo-once/")


REFUSALS = {
    "/refuse/custom/": (402, "Payment Required: /refuse/custom/"),
    "/refuse/not-found/": (404, "Not Found: /refuse/not-found/"),
    "/refuse/forbidden/": (403, r"Forbidden \(Permission denied\): /refuse/forbidden/"),
    "/refuse/close/": (403, "Forbidden: /refuse/close/"),
    "/no-such-page/": (404, "Not Found: /no-such-page/"),
    "/undecorated/": (400, "Bad Request: /undecorated/"),
}


@only_refusing
@pytest.mark.parametrize("path", REFUSALS)
def test_refusal_is_an_ordinary_http_answer_after_which_the_connection_goes_on(server: Server, path: str) -> None:
    status, record = REFUSALS[path]
    with server.peer() as peer:
        assert peer.handshake(path).status == status
        server.expect_log(f"WARNING django.request: {record}")
        assert_goes_on(server, peer)


@only_refusing
def test_redirect_of_login_required_is_an_ordinary_http_answer(server: Server) -> None:
    with server.peer() as peer:
        response = peer.handshake("/refuse/login/")
        assert (response.status, response.headers["location"]) == (302, "/login/?next=/refuse/login/")
        assert_goes_on(server, peer)


@only_refusing
def test_refusal_keeps_the_body_and_headers_of_the_view(server: Server) -> None:
    with server.peer() as peer:
        response = peer.handshake("/refuse/custom/")
        assert (response.body, response.headers["x-seats"]) == (b"no seat left", "0")
    server.expect_log("Payment Required")


def assert_goes_on(server: Server, peer: Peer) -> None:
    """The connection serves a next request, or ends where the server serves one per connection."""
    if server.kind.keeps_alive:
        assert peer.http("/plain/").body == b"plain"
    else:
        assert peer.read_to_eof() == b""


@only_refusing
@pytest.mark.parametrize("origin", ["http://evil.example", "null", "{}.evil.example", "ftp://127.0.0.1"])
def test_foreign_origin_gets_403_and_one_line_in_the_log(server: Server, origin: str) -> None:
    origin = origin.format(server.origin)
    with server.peer() as peer:
        assert peer.handshake("/echo/", {"Origin": origin}).status == 403
    log = server.expect_log(r"django\.security\.WebSocketOrigin: ")
    for named in (origin, f"127.0.0.1:{server.port}", "WEBSOCKET_ALLOWED_ORIGINS"):
        assert named in log


def test_own_origin_is_welcome(server: Server) -> None:
    with server.connect("/echo/", {"Origin": server.origin}) as peer:
        assert exchange(peer, "hello") == "hello"
        assert peer.close().code == 1000


@only_refusing
def test_host_that_is_not_allowed_gets_400(server: Server) -> None:
    with server.peer() as peer:
        assert peer.handshake("/echo/", {"Host": "evil.example"}).status == 400
    server.expect_log(r"ERROR django\.security\.DisallowedHost: Invalid HTTP_HOST header: 'evil.example'")


@pytest.mark.parametrize(
    "headers",
    [{"Connection": "keep-alive, Upgrade"}, {"Upgrade": "WebSocket", "Connection": "upgrade"}],
    ids=["list", "case"],
)
def test_handshake_as_browsers_and_proxies_write_it_is_accepted(server: Server, headers: dict[str, str]) -> None:
    with server.connect("/echo/", headers) as peer:
        assert exchange(peer, "hello") == "hello"
        assert peer.close().code == 1000


@only_refusing
def test_handshake_with_a_body_gets_400(server: Server) -> None:
    with server.peer() as peer:
        assert peer.handshake("/echo/", {"Content-Length": "5"}, early=b"hello").status == 400
    server.expect_log("Bad Request: /echo/")


@only_refusing
@pytest.mark.parametrize("version", ["12", "8", "014", "thirteen"])
def test_wrong_version_gets_426_and_the_right_one(server: Server, version: str) -> None:
    with server.peer() as peer:
        response = peer.handshake("/echo/", {"Sec-WebSocket-Version": version})
        assert (response.status, response.headers["sec-websocket-version"]) == (426, "13")
        assert response.body
    server.expect_log("Upgrade Required: /echo/")


@only_refusing
@pytest.mark.parametrize("key", [None, "short", "dGhlIHNhbXBsZSBub25jZ===", "dGhlIHNhbXBsZSBub25jZQ==dGhl"])
def test_bad_key_gets_400_and_a_sentence(server: Server, key: str | None) -> None:
    with server.peer() as peer:
        response = peer.handshake("/echo/", {"Sec-WebSocket-Key": key})
        assert response.status == 400
        assert response.body
    server.expect_log("Bad Request: /echo/")


@only_refusing
@pytest.mark.parametrize(
    ("offered", "chosen"), [("chat.v1", "chat.v1"), ("other, chat.v1", "chat.v1"), ("other", None), (None, None)]
)
def test_subprotocol_that_both_sides_know_is_chosen(server: Server, offered: str | None, chosen: str | None) -> None:
    with server.peer() as peer:
        response = peer.handshake("/subprotocol/", {"Sec-WebSocket-Protocol": offered})
        assert response.headers.get("sec-websocket-protocol") == chosen
        assert peer.recv_message() == str(chosen)
        assert_ends(peer, 1000)


TOO_LATE = {
    "the view": ("/refuse/custom/", {}, 4402, "Payment Required: /refuse/custom/"),
    "the origin": ("/echo/", {"Origin": "http://evil.example"}, 4403, "WebSocketOrigin: Forbidden: /echo/"),
    "the version": ("/echo/", {"Sec-WebSocket-Version": "8"}, 4426, "Upgrade Required: /echo/"),
}


@on(combinations(answers_itself=True))
@pytest.mark.parametrize(("path", "headers", "code", "record"), TOO_LATE.values(), ids=TOO_LATE)
def test_refusal_that_comes_too_late_for_http_is_a_close_with_its_status(
    server: Server, path: str, headers: dict[str, str], code: int, record: str
) -> None:
    with server.connect(path, headers) as peer:
        assert_ends(peer, code)
    server.expect_log(record)


# Many at once


def test_several_sockets_at_once_echo(server: Server) -> None:
    with ExitStack() as stack:
        peers = [stack.enter_context(server.connect()) for _ in range(server.at_once)]
        for number, peer in enumerate(peers):
            peer.send_message(f"peer {number}")
        assert [peer.recv_message() for peer in peers] == [f"peer {number}" for number in range(server.at_once)]
        for peer in peers:
            assert peer.close().code == 1000
            assert peer.read_to_eof() == b""


@only_detached
def test_200_open_sockets_leave_http_alone_and_outlive_the_timeout_of_the_worker(server: Server) -> None:
    with ExitStack() as stack:
        peers = [stack.enter_context(server.connect()) for _ in range(200)]
        started = time.monotonic()
        assert server.get("/plain/").body == b"plain"
        assert time.monotonic() - started < 2
        time.sleep(server.kind.worker_timeout * 1.4)
        assert int(server.get("/pid/").body) == server.worker_pid
        for number, peer in enumerate(peers):
            assert exchange(peer, f"peer {number}") == f"peer {number}"
        for peer in peers:
            assert peer.close().code == 1000
            assert peer.read_to_eof() == b""


@on([(name, mode) for name, mode in combinations("attached") if KINDS[name].attached_at_once < MANY])
def test_attached_sockets_hold_the_threads_of_the_server_until_one_closes(server: Server) -> None:
    with ExitStack() as stack:
        peers = [stack.enter_context(server.connect()) for _ in range(server.at_once)]
        http = stack.enter_context(server.peer())
        with pytest.raises(PeerTimeout):
            http.http("/plain/", timeout=0.3)
        for peer in peers:
            assert peer.close().code == 1000
            assert peer.read_to_eof() == b""
            peer.abandon()
        assert http.recv_response().body == b"plain"


def test_descriptors_are_as_many_as_before_after_100_connections(server: Server) -> None:
    def cycle(leave) -> None:
        with server.connect() as peer:
            assert exchange(peer, "hello") == "hello"
            leave(peer)

    ways = [Peer.close, Peer.reset, Peer.abandon, Peer.half_close]
    for leave in ways:
        cycle(leave)
    before = server.file_descriptors()
    for number in range(100):
        cycle(ways[number % len(ways)])
    server.until(lambda: server.file_descriptors() <= before, f"{before} descriptors")


def test_runserver_plus_serves_websockets_and_http(tmp_path: Path) -> None:
    server = Server(RUNSERVER_PLUS, tmp_path)
    try:
        server.wait_until_up()
        with server.connect() as peer:
            assert exchange(peer, "hello") == "hello"
            assert peer.close().code == 1000
            assert peer.read_to_eof() == b""
        assert server.get("/echo/").body == b"echo over HTTP"
    finally:
        server.stop()


# Settings


def test_decorated_view_without_the_middleware_echoes(tmp_path: Path) -> None:
    with running("runserver", tmp_path, middleware=False) as server:
        for path in ECHO_PATHS:
            with server.connect(path) as peer:
                assert exchange(peer, "hello") == "hello"
                assert peer.close().code == 1000
        assert server.get("/echo/").body == b"echo over HTTP"


def test_accept_all_gives_undecorated_views_a_socket(tmp_path: Path) -> None:
    with running("runserver", tmp_path, WEBSOCKET_ACCEPT_ALL=True) as server:
        with server.connect("/undecorated/") as peer:
            assert exchange(peer, "hello") == "hello"
            assert peer.close().code == 1000
        assert server.get("/undecorated/").body == b"echo over HTTP"


@pytest.mark.parametrize("name", KINDS)
def test_ping_settings_of_the_project_cut_off_a_silent_peer(tmp_path: Path, name: str, note: str) -> None:
    timing = {"WEBSOCKET_PING_INTERVAL": 0.2, "WEBSOCKET_PING_TIMEOUT": 0.3, "WEBSOCKET_CLOSE_TIMEOUT": 0.5}
    with running(name, tmp_path, **timing) as server, server.connect(f"/echo/?note={note}") as peer:
        assert_cut_off(peer)
        assert server.note(note) == "finally"


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if not kind.tls])  # those: test_shutdown.py
def test_server_with_an_open_socket_stops_when_told_to(tmp_path: Path, name: str) -> None:
    with ExitStack() as stack:
        with running(name, tmp_path) as server:
            peer = stack.enter_context(server.connect())
            assert exchange(peer, "hello") == "hello"
        assert {last.opcode for last in decode_all(peer.read_to_eof())} <= {CLOSE}
