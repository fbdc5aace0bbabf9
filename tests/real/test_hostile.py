"""Peers that mean harm, against real servers: each may lose its own connection, and nobody else notices anything."""

from __future__ import annotations

import os
import random
import re
import resource
import signal
import socket
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

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
    close_payload,
    decode_all,
    frame,
    head,
    parse_close,
    text,
)
from tests.real.bystanders import undisturbed
from tests.real.helpers import VIOLATIONS, assert_ends
from tests.real.servers import KINDS, MANY, OLD_GUNICORN, Server, running

pytestmark = pytest.mark.timeout(120)

T = TypeVar("T")

MIB = 1 << 20
LIMIT = MIB  # the default of WEBSOCKET_MAX_MESSAGE_SIZE
ATTACKERS = 3
COMPRESSED = {"Sec-WebSocket-Extensions": "permessage-deflate"}
NO_MASK = bytes(4)  # a masking key that changes nothing, so that frames can be written down as they are

HELLO = b"\xf2\x48\xcd\xc9\xc9\x07\x00"  # deflated (RFC 7692, 7.2.3.1)

NOT_UTF8 = {
    "continuation without a start": b"\x80",
    "start without a continuation": b"\xc3(",
    "overlong": b"\xc0",
    "overlong in three bytes": b"\xe0\x80",
    "surrogate": b"\xed\xa0",
    "overlong in four bytes": b"\xf0\x80",
    "beyond the last character": b"\xf4\x90",
    "no such byte": b"\xff",
    "cut short by a start": b"\xf0\x9f\x8e\xc3",
}.values()

FLOOD_BYTES = 480_000
CONNECTS = 5000

SERVERS = [("pywsgi", "detached"), ("gunicorn-gthread", "detached"), ("gunicorn-gevent", "detached")]


def on(*servers: tuple[str, str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("running_server", servers, ids="-".join, indirect=True)


on_each_reactor = on(*SERVERS[:2])
on_attached_too = on(*SERVERS, ("pywsgi", "attached"), ("gunicorn-gevent", "attached"))


@pytest.fixture(scope="module", params=SERVERS, ids="-".join)
def running_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that nobody has used before, so that its memory can be watched."""
    name, mode = request.param
    directory = tmp_path_factory.mktemp(f"{name}-{mode}")
    with running(name, directory, WEBSOCKET_DETACH=mode == "detached") as server:
        yield server


@contextmanager
def connected(server: Server, count: int, path: str | None = None, **options) -> Iterator[list[Peer]]:
    """So many peers; each with a WebSocket at ``path``, if that is given."""
    with ExitStack() as stack:
        peers = [stack.enter_context(server.peer()) for _ in range(count)]
        if path is not None:
            for peer in peers:
                peer.connect(path, **options)
        yield peers


def unheard(server: Server, path: str) -> Peer:
    """A peer that reads little more than the 101, because it has no room for it."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect((server.host, server.port))
    peer = Peer.over(sock)
    peer.host = f"{server.host}:{server.port}"
    return peer.connect(path)


def send_until_stopped(peer: Peer, data: bytes) -> int:
    """Send ``data`` again and again until the server reads no more or is gone; how many bytes have left by then."""
    peer.sock.settimeout(1)
    sent = 0
    try:
        while True:
            sent += peer.sock.send(data)
    except (TimeoutError, ConnectionError):
        return sent


def all_at_once(function: Callable[..., T], *arguments: Sequence[Any]) -> list[T]:
    """``function`` called with the first of each of ``arguments``, with the second, ..., each in a thread."""
    with ThreadPoolExecutor(len(arguments[0])) as pool:
        return list(pool.map(function, *arguments))


def deflated(payload: bytes) -> bytes:
    """A whole compressed message (RFC 7692, 7.2.1)."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (deflater.compress(payload) + deflater.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\x00\x00\xff\xff")


# The opening handshake


@on(*SERVERS, ("runserver", "detached"))
def test_handshakes_sent_byte_by_byte_that_never_finish_disturb_nobody(server: Server) -> None:
    # Where each of them holds one of the few threads of the server, new requests have to wait; WebSockets do not.
    serves_http = server.kind.attached_at_once == MANY
    with undisturbed(server, http=serves_http), connected(server, 50) as peers:
        request = peers[0].handshake_request("/echo/")
        for position in range(60):
            for peer in peers:
                peer.send_raw(request[position : position + 1])
            time.sleep(0.02)
        for peer in peers:
            peer.abandon()
        assert server.get("/plain/").body == b"plain"


# Frames


HALVES = [
    b"\x82",
    head(BINARY, 1000)[:3],
    head(BINARY, MIB)[:9],
    head(BINARY, MIB)[:-1],
    frame(TEXT, b"never finished")[:-1],
    frame(PING, b"never finished")[:-1],
    frame(CLOSE, close_payload(1000, "never finished"))[:-1],
]


def test_frame_that_stalls_halfway_is_cut_off_because_no_ping_is_answered(server: Server, note: str) -> None:
    with undisturbed(server), connected(server, len(HALVES), f"/pinged/?note={note}") as peers:
        for peer, half in zip(peers, HALVES, strict=True):
            peer.send_raw(half)
        for peer in peers:
            assert {sent.opcode for sent in decode_all(peer.read_to_eof())} == {PING}
    assert server.note(note).split("\n") == ["finally"] * len(HALVES)


def test_frame_that_comes_byte_by_byte_costs_no_more_than_its_bytes(server: Server) -> None:
    payload = b"x" * LIMIT
    with undisturbed(server), connected(server, MANY, "/victim/") as peers:
        for peer in peers:
            peer.send_raw(head(TEXT, len(payload), mask=NO_MASK))
        for position in range(100):
            for peer in peers:
                peer.send_raw(payload[position : position + 1])
            time.sleep(0.01)
        peers[0].send_raw(payload[100:])
        assert peers[0].recv_message() == str(LIMIT)


def test_fragmented_message_that_never_ends_is_kept_as_long_as_pings_are_answered(server: Server) -> None:
    with undisturbed(server), connected(server, 1, "/pinged/") as [peer]:
        peer.send_frame(TEXT, b"never ", fin=False)
        for _ in range(5):
            ping = peer.recv_frame()
            assert ping.opcode == PING
            peer.send_frame(PONG, ping.payload)
        peer.send_frame(CONTINUATION, b"say never")
        assert peer.recv_message() == "never say never"


LENGTHS = {LIMIT + 1: 1009, 1 << 31: 1009, 1 << 32: 1009, (1 << 63) - 1: 1009, 1 << 63: 1002, (1 << 64) - 1: 1002}


@on_attached_too
def test_header_that_announces_too_much_is_refused_before_its_payload(server: Server) -> None:
    with undisturbed(server):
        for length, code in LENGTHS.items():
            with server.connect("/echo/") as peer:
                peer.send_raw(head(BINARY, length, length_bytes=8)[:10])  # not even the masking key
                assert_ends(peer, code)


def cpu_seconds(server: Server) -> float:
    """What the worker has used of the processor."""
    fields = Path(f"/proc/{server.worker_pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def fragments(payload: bytes) -> bytes:
    """A text message in fragments of one byte each."""
    pieces = [
        frame(CONTINUATION if position else TEXT, payload[position : position + 1], fin=False)
        for position in range(len(payload) - 1)
    ]
    return b"".join(pieces) + frame(CONTINUATION, payload[-1:])


@on_each_reactor
def test_ten_thousand_fragments_of_one_byte_come_back_and_ten_times_as_many_cost_ten_times_as_much(
    server: Server,
) -> None:
    costs = []
    with undisturbed(server), connected(server, 1, "/echo/") as [peer]:
        for count in (10_000, 100_000):
            message = "ä€🎉!" * (count // 10)
            data = fragments(message.encode())
            before = cpu_seconds(server)
            peer.send_raw(data)
            assert peer.recv_message(timeout=60) == message
            costs.append(cpu_seconds(server) - before)
        assert peer.close().code == 1000
    assert costs[1] < 30 * costs[0]


@pytest.mark.parametrize(
    ("running_server", "rsv"),
    [(SERVERS[0], 0), (SERVERS[0], 4), (SERVERS[1], 0)],
    ids=["pywsgi", "pywsgi-compressed", "gunicorn-gthread"],
    indirect=["running_server"],
)
def test_thirty_thousand_empty_fragments_are_one_message(server: Server, rsv: int) -> None:
    last = HELLO if rsv else b"Hello"
    data = frame(TEXT, fin=False, rsv=rsv) + frame(CONTINUATION, fin=False) * 29_998 + frame(CONTINUATION, last)
    with undisturbed(server), connected(server, 1, "/victim/", headers=COMPRESSED) as [peer]:
        peer.send_raw(data)
        assert peer.recv_message(timeout=60) == "Hello"
        assert peer.close().code == 1000


@on_each_reactor
@pytest.mark.parametrize(
    ("begin", "again"), [(frame(TEXT, fin=False), frame(CONTINUATION, fin=False)), (b"", frame(PING))]
)
def test_hundred_thousand_frames_without_content_at_once_end_the_connection(
    server: Server, begin: bytes, again: bytes
) -> None:
    with undisturbed(server), connected(server, 4, "/victim/") as peers:
        for peer in peers:
            with suppress(OSError):  # the server may be through with it
                peer.send_raw(begin + again * 100_000)
        for peer in peers:
            assert peer.read_to_eof(60).endswith(
                frame(CLOSE, close_payload(1008, "too many frames without content"), mask=None)
            )


@on_each_reactor
def test_empty_fragments_without_end_cost_no_memory(server: Server) -> None:
    data = frame(CONTINUATION, fin=False) * 30_000
    with undisturbed(server), connected(server, 2, "/victim/", headers=COMPRESSED) as peers:
        for peer, rsv in zip(peers, (0, 4), strict=True):
            peer.send_frame(TEXT, fin=False, rsv=rsv)
            peer.send_raw(data)
        for peer in peers:  # all of them have been looked at
            assert peer.close().code == 1000


@pytest.mark.parametrize("path", ["/victim/", "/deaf/"])
def test_text_that_is_not_utf8_is_refused_at_the_first_wrong_byte(server: Server, note: str, path: str) -> None:
    with undisturbed(server):
        for wrong in NOT_UTF8:
            with server.connect(f"{path}?note={note}") as peer:
                peer.send_raw(frame(TEXT, "ä".encode(), fin=False))
                for byte in wrong[:-1]:
                    peer.send_frame(CONTINUATION, bytes([byte]), fin=False)
                peer.send_frame(PING, b"so far")
                while (received := peer.recv_frame()).opcode == PING:
                    peer.send_frame(PONG, received.payload)
                assert received == Frame(PONG, b"so far")
                peer.send_frame(CONTINUATION, wrong[-1:], fin=False)
                assert_ends(peer, 1007)
        server.wake(note)


# Control frames


@on_each_reactor
def test_flood_of_pings_whose_answers_nobody_reads_ends_after_the_send_timeout(server: Server, note: str) -> None:
    pings = (frame(PING, bytes(125)) + frame(CONTINUATION, b"x", fin=False)) * 1000  # of pings alone there is a limit
    with undisturbed(server), ExitStack() as stack:
        peers = [stack.enter_context(unheard(server, f"/victim/?note={note}")) for _ in range(ATTACKERS)]
        for peer in peers:
            peer.send_frame(TEXT, fin=False)
        all_at_once(send_until_stopped, peers, [pings] * ATTACKERS)
    assert server.note(note).split("\n") == ["finally 1006"] * ATTACKERS


# Back-pressure


@on_attached_too
def test_peer_that_never_reads_what_the_view_sends_is_dropped_after_the_send_timeout(server: Server, note: str) -> None:
    with undisturbed(server), ExitStack() as stack:
        peers = [stack.enter_context(unheard(server, f"/torrent/?note={note}")) for _ in range(10)]
        server.until(lambda: server.note(note).count("\n") == len(peers) - 1, "the end of every view")
    assert server.note(note).split("\n") == ["SendTimeout True"] * len(peers)


@on_each_reactor
def test_flood_of_messages_to_a_view_that_never_reads_is_held_back(server: Server, note: str) -> None:
    data = frame(TEXT, b"x") * 100_000
    with undisturbed(server), connected(server, ATTACKERS, f"/deaf/?note={note}") as peers:
        assert (
            max(all_at_once(send_until_stopped, peers, [data] * ATTACKERS)) < 32 * MIB
        )  # what the kernel keeps between two sockets
        for peer in peers:
            peer.reset()
        server.wake(note)


@pytest.mark.parametrize("name", ["pywsgi", "gunicorn-gthread"])
def test_compressed_messages_to_a_view_that_never_reads_cost_little_memory(
    tmp_path: Path, name: str, note: str
) -> None:
    data = frame(TEXT, deflated(b"x" * LIMIT), rsv=4) * 1000  # a mebibyte, of which each kilobyte becomes one
    with (
        running(name, tmp_path) as server,
        undisturbed(server, may_grow_mib=16 + 8 * ATTACKERS),
        connected(server, ATTACKERS, f"/deaf/?note={note}", headers=COMPRESSED) as peers,
    ):
        all_at_once(send_until_stopped, peers, [data] * ATTACKERS)
        for peer in peers:
            peer.reset()
        server.wake(note)


FLOODS = {
    "pings": (b"", frame(PING), frame(PONG, mask=None)),
    "empty fragments": (frame(TEXT, fin=False), frame(CONTINUATION, fin=False), b""),
    "messages": (b"", frame(TEXT, b"x"), frame(TEXT, b"x", mask=None)),
}


@pytest.mark.parametrize("path", ["/echo/", "/parked/"])
@pytest.mark.parametrize("flood", FLOODS)
@on_each_reactor
def test_flood_is_answered_to_its_end_and_others_have_their_turns_between(
    server: Server, flood: str, path: str
) -> None:
    begin, again, answer = FLOODS[flood]
    count = min(FLOOD_BYTES // len(again), 30_000)  # of those without content there is a limit
    data = begin + again * count + frame(CLOSE, close_payload(1000))
    answers = answer * count + frame(CLOSE, close_payload(1000), mask=None)
    with undisturbed(server) as watched, connected(server, 8, path) as peers:
        started = time.monotonic()
        for peer in peers:
            peer.send_raw(data)
        assert all_at_once(Peer.read_to_eof, peers, [60] * len(peers)) == [answers] * len(peers)
        seconds = time.monotonic() - started
    if server.kind is KINDS["pywsgi"]:  # threads get their turns from Python, greenlets only from us
        assert watched.slowest_seconds < seconds / 2


# Compression


def bomb() -> bytes:
    """A gibibyte of zeroes, compressed: a thousand times a mebibyte that needs nothing of what came before it."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    mebibyte = deflater.compress(bytes(MIB)) + deflater.flush(zlib.Z_FULL_FLUSH)
    assert len(zlib.decompressobj(-15).decompress(mebibyte * 3)) == 3 * MIB
    return mebibyte * 1024


@on_each_reactor
def test_bomb_of_a_gibibyte_goes_off_at_the_limit(server: Server) -> None:
    payload = bomb()
    whole = frame(BINARY, payload, rsv=4)
    pieces = [payload[start : start + 1000] for start in range(0, len(payload), 1000)]
    in_fragments = frame(BINARY, fin=False, rsv=4) + b"".join(frame(CONTINUATION, piece, fin=False) for piece in pieces)
    with undisturbed(server):
        for data in (whole, in_fragments):
            with connected(server, ATTACKERS, "/victim/", headers=COMPRESSED) as peers:
                for peer in peers:
                    peer.send_raw(data)
                for peer in peers:
                    assert_ends(peer, 1009)


# The end


@on_attached_too
def test_close_behind_a_full_inbox_is_answered_after_the_messages(server: Server, note: str) -> None:
    with undisturbed(server), connected(server, 1, f"/deaf/?note={note}") as [peer]:
        peer.send_raw(frame(TEXT, b"x") * 10_000)
        peer.send_close(3000)
        server.wake(note)
        assert peer.recv_message() == Close(3000)
        assert peer.read_to_eof() == b""
        assert server.note(note) == "10000 3000"


@pytest.mark.parametrize("leave", [Peer.abandon, Peer.reset], ids=["abandon", "reset"])
def test_peer_that_leaves_behind_a_full_inbox_costs_nothing_though_its_view_never_reads(
    server: Server, note: str, leave: Callable[[Peer], None]
) -> None:
    with undisturbed(server), connected(server, ATTACKERS, f"/deaf/?note={note}") as peers:
        for peer in peers:
            peer.send_raw(frame(TEXT, b"x") * 50_000)
            leave(peer)
    server.wake(note)  # only now: the descriptors are back already
    server.until(lambda: len(server.note(note).split("\n")) == ATTACKERS, "the end of every view")
    assert {line.split()[1] for line in server.note(note).split("\n")} == {"1006"}


def test_garbage_behind_a_close_is_dropped(server: Server) -> None:
    chance = random.Random(1)
    with undisturbed(server):
        for size in (1, 100, 70_000, 3 * MIB):
            with server.connect("/victim/") as peer:
                peer.send_raw(frame(CLOSE, close_payload(1000)) + chance.randbytes(size))
                assert peer.recv_message() == Close(1000)
                assert peer.read_to_eof() == b""


@on_attached_too
def test_bytes_without_end_behind_a_close_are_dropped_until_the_close_timeout(server: Server, note: str) -> None:
    with undisturbed(server), connected(server, ATTACKERS, f"/victim/?note={note}") as peers:
        for peer in peers:
            peer.send_close()
        assert min(all_at_once(send_until_stopped, peers, [bytes(MIB)] * ATTACKERS)) > 2 * MIB
    assert server.note(note).split("\n") == ["finally 1000"] * ATTACKERS


# What a peer has sent behind its handshake when it leaves, and what comes back if it still listens.
ANSWER = frame(TEXT, b"hello", mask=None)
GOODBYE = frame(CLOSE, close_payload(1000), mask=None)
STAGES = {
    "the handshake": (b"", b""),
    "half a header": (head(TEXT, 1000)[:3], b""),
    "a header": (head(TEXT, 1000), b""),
    "half a frame": (text("never finished")[:-1], b""),
    "a fragment": (frame(TEXT, b"never finished", fin=False), b""),
    "half a ping": (frame(PING, b"never finished")[:-1], b""),
    "a message": (text("hello"), ANSWER),
    "messages": (text("hello") * 5000, ANSWER * 5000),
    "half a close": (frame(CLOSE, close_payload(1000))[:-1], b""),
    "a close": (frame(CLOSE, close_payload(1000)), GOODBYE),
    "a message and a close": (
        text("hello") + frame(CLOSE, close_payload(1000)),
        frame(TEXT, b"hello", mask=None) + GOODBYE,
    ),
    "an error": (frame(CLOSE, b"?"), frame(CLOSE, close_payload(1002, "close frame with half a code"), mask=None)),
}


@on_attached_too
def test_peer_may_half_close_at_any_stage(server: Server, note: str) -> None:
    with undisturbed(server):
        for sent, answer in STAGES.values():
            for in_one_segment in (False, True):
                with server.connect(f"/victim/?note={note}", early=sent if in_one_segment else b"") as peer:
                    if not in_one_segment:
                        peer.send_raw(sent)
                    peer.half_close()
                    assert peer.read_to_eof() == answer
        for path, received in (("/close/?code=4000", 4000), ("/unused/", 1000)):
            with server.connect(path) as peer:
                peer.send_message("go")
                assert peer.recv_message() == Close(received)
                peer.half_close()  # instead of an answer
                assert peer.read_to_eof() == b""
    assert_all_ended(server, note, 2 * len(STAGES))


@on_attached_too
def test_peer_may_reset_at_any_stage(server: Server, note: str) -> None:
    with undisturbed(server):
        for sent, answer in STAGES.values():
            for in_one_segment in (False, True):
                with server.connect(f"/victim/?note={note}", early=sent if in_one_segment else b"") as peer:
                    if not in_one_segment:
                        peer.send_raw(sent)
                    if answer:
                        peer.recv_frame()
                    peer.reset()
        for path in ("/close/?code=4000", "/unused/"):
            with server.connect(path) as peer:
                peer.send_message("go")
                assert isinstance(peer.recv_message(), Close)
                peer.reset()
        for _ in range(5):
            with server.connect(f"/torrent/?note={note}") as peer:
                assert len(peer.recv_message()) == 1 << 16
                peer.reset()
    assert_all_ended(server, note, 2 * len(STAGES) + 5)


def assert_all_ended(server: Server, note: str, count: int) -> None:
    server.until(lambda: len(server.note(note).split("\n")) == count, f"the end of {count} views")


# Servers have much to say of half a request, up to tracebacks of their own. This would be ours.
OUR_FAULT = re.compile(r"^ERROR |\bdwebsocket/\w+(/\w+)?\.py|\bdwebsocket: ", re.M)


@on(*SERVERS, ("runserver", "detached"))
@pytest.mark.parametrize("leave", [Peer.half_close, Peer.abandon, Peer.reset], ids=["half-close", "abandon", "reset"])
def test_peer_may_leave_before_the_end_of_its_handshake(server: Server, leave: Callable[[Peer], None]) -> None:
    with undisturbed(server):
        for size in (0, 1, 20, 100, -20, -2, -1, None):
            for _ in range(3):
                with server.peer() as peer:
                    peer.send_raw(peer.handshake_request("/echo/")[:size])
                    leave(peer)
                    if leave is Peer.half_close:
                        peer.read_to_eof()
    assert not OUR_FAULT.search(server.take_news())


# Many


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """As many open files as this process, and the servers that it starts, are allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard > 2 * CONNECTS, f"no more than {hard} open files allowed"
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
@pytest.mark.parametrize(
    ("name", "accepted"),
    [("pywsgi", CONNECTS), ("gunicorn-gevent", 1000)] + [("gunicorn-gthread", 1000)] * (not OLD_GUNICORN),
)
def test_five_thousand_connections_without_a_handshake_disturb_no_websocket(
    tmp_path: Path, name: str, accepted: int
) -> None:
    # gunicorn takes as many as its worker_connections; the others wait in the kernel, and with them all plain HTTP.
    http = accepted == CONNECTS
    with running(name, tmp_path) as server:
        with undisturbed(server, may_grow_mib=CONNECTS * 32 / 1024, http=http), ExitStack() as stack:
            before = server.file_descriptors()
            for number in range(1, CONNECTS + 1):
                sock = stack.enter_context(socket.socket())
                sock.setblocking(False)
                sock.connect_ex((server.host, server.port))
                if number % 100 == 0:  # more at once, and the kernel would let some wait for seconds
                    wanted = before + min(number, accepted)
                    server.until(lambda wanted=wanted: server.file_descriptors() >= wanted, f"{wanted} descriptors")
        with server.connect() as peer:
            assert exchange(peer, "hello") == "hello"


OFFER = "permessage-deflate; server_max_window_bits=8"  # cannot be accepted
REFUSED = {400, 414, 431}
HANDSHAKES = {
    "100 subprotocols": ("/subprotocol/", {"Sec-WebSocket-Protocol": "p" + ", p".join(map(str, range(100)))}, {101}),
    "a subprotocol 1000 times": ("/subprotocol/", {"Sec-WebSocket-Protocol": ", ".join(["p"] * 1000)}, {400}),
    "100 extensions": ("/victim/", {"Sec-WebSocket-Extensions": ", ".join([OFFER] * 100)}, {101}),
    "1000 extensions": ("/victim/", {"Sec-WebSocket-Extensions": ", ".join([OFFER] * 1000)}, {101, *REFUSED}),
    "1000 parameters": ("/victim/", {"Sec-WebSocket-Extensions": "permessage-deflate" + "; a=b" * 1000}, {101}),
    "7000 commas": ("/victim/", {"Sec-WebSocket-Extensions": "," * 7000}, {101}),
    "2000 connection options": ("/echo/", {"Connection": "Upgrade" + ", x" * 2000}, {101}),
    "a key of 6000 bytes": ("/echo/", {"Sec-WebSocket-Key": "A" * 6000}, {400}),
    "an origin of 7000 brackets": ("/echo/", {"Origin": "http://" + "[" * 7000}, {403}),
    "90 headers": ("/echo/", {f"X-{number}": "x" for number in range(90)}, {101}),
    "10,000 headers": ("/echo/", {f"X-{number}": "x" for number in range(10_000)}, REFUSED),
    "a header of 60,000 bytes": ("/echo/", {"X-Large": "x" * 60_000}, {101, *REFUSED}),
    "a header of 1 MiB": ("/echo/", {"X-Large": "x" * MIB}, REFUSED),
    "a URL of 100,000 bytes": ("/echo/?" + "x" * 100_000, {}, REFUSED),
}


@on(*SERVERS, ("runserver", "detached"))
def test_handshake_that_is_far_too_large_is_answered_all_the_same(server: Server) -> None:
    # 101 or our own refusal where the request is within the limits of every server, else what the server says.
    with undisturbed(server):
        for name, (path, headers, statuses) in HANDSHAKES.items():
            assert (name, status_of(server, path, headers) in statuses) == (name, True)
            if 101 not in statuses or statuses > {101}:
                server.take_news()  # each server has its own words for it


def status_of(server: Server, path: str, headers: dict[str, str]) -> int:
    with server.peer() as peer:
        try:
            peer.send_raw(peer.handshake_request(path, headers))
            return peer.recv_response().status
        except ConnectionError:  # it has closed without having read it all
            return 400


# What only the connection of the peer is to suffer for


COMPRESSION_VIOLATIONS = {
    "6 rsv1 on a ping": (frame(PING, rsv=4), 1002),
    "6.1 rsv1 on a continuation": (frame(TEXT, fin=False, rsv=4) + frame(CONTINUATION, rsv=4), 1002),
    "6 rsv2 on a compressed message": (frame(TEXT, HELLO, rsv=6), 1002),
    "7.2.2 no deflate stream": (frame(TEXT, b"\xff" * 100, rsv=4), 1007),
    "7.2.2 text that is not UTF-8": (frame(TEXT, deflated(b"\xff"), rsv=4), 1007),
    "7.2.2 larger than the limit": (frame(BINARY, deflated(bytes(LIMIT + 1)), rsv=4), 1009),
    "7.2.2 announced larger than anything compressed": (head(BINARY, 2 * LIMIT, rsv=4), 1009),
    "7.2.2 larger than the limit, not compressed": (head(BINARY, LIMIT + 1), 1009),
}


@on_attached_too
def test_violations_cost_only_the_connections_they_are_made_on(server: Server) -> None:
    with undisturbed(server):
        for violations, headers in ((VIOLATIONS, {}), (COMPRESSION_VIOLATIONS, COMPRESSED)):
            with connected(server, len(violations), "/victim/", headers=headers) as peers:
                for peer, (violation, _) in zip(peers, violations.values(), strict=True):
                    peer.send_raw(text("before") + violation)
                for peer, (_, code) in zip(peers, violations.values(), strict=True):
                    assert peer.recv_message() == "before"
                    assert_ends(peer, code)


def test_nonsense_is_answered_by_a_close_and_never_by_an_error(server: Server) -> None:
    chance = random.Random(1)

    def nonsense() -> bytes:
        """Random bytes, or frames whose headers might be right."""
        if chance.random() < 0.5:
            return chance.randbytes(chance.choice([3, 20, 200, 5000]))
        frames = [
            frame(
                chance.choice([CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG]),
                chance.randbytes(chance.choice([0, 1, 2, 10, 125, 300])),
                fin=chance.random() < 0.7,
                rsv=chance.choice([0, 0, 4]),
            )
            for _ in range(chance.randrange(1, 20))
        ]
        return b"".join(frames)

    with undisturbed(server):
        for number in range(200):
            with server.connect("/victim/", COMPRESSED if number % 2 else {}) as peer:
                peer.send_raw(nonsense())
                peer.half_close()
                received = decode_all(peer.read_to_eof())
                closes = [parse_close(sent.payload) for sent in received if sent.opcode == CLOSE]
                assert {close.code for close in closes} <= {1002, 1007, 1009, NO_STATUS}, closes
                assert len(closes) <= 1


def test_message_of_the_wrong_type_ends_the_view_with_1011_and_one_report(server: Server) -> None:
    with undisturbed(server):
        for path, right, wrong, error in (
            ("/text-only/", "text", b"binary", "TypeError"),
            ("/binary-only/", b"binary", "text", "AttributeError"),
        ):
            with server.connect(path) as peer:
                assert isinstance(exchange(peer, right), str)
                peer.send_message(wrong)
                assert_ends(peer, 1011)
            log = server.expect_log(rf"ERROR django\.request: Internal Server Error: {path}")
            assert log.count("Traceback") == 1
            assert re.search(rf"^{error}: ", log, re.MULTILINE)


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        (b'{"a": 1}', '{"got": {"a": 1}}'),
        (b"\xff", Close(1007, "not JSON")),
        (b"\x00", Close(1007, "not JSON")),
        ("NaN", Close(1007, "not JSON")),
        ("[" * 100_000, Close(1007, "not JSON")),
        ("1" * 100_000, Close(1007, "not JSON")),
    ],
    ids=["JSON in binary", "not UTF-8", "not JSON", "NaN", "deep", "long"],
)
def test_view_that_wants_json_gets_json_or_nothing(server: Server, message: str | bytes, answer: str | Close) -> None:
    with server.connect("/json/") as peer:
        assert exchange(peer, message) == answer


# A server that is short of time


@pytest.mark.parametrize("name", ["pywsgi", "gunicorn-gthread"])
def test_server_that_stood_still_drops_nobody_who_has_answered_meanwhile(tmp_path: Path, name: str) -> None:
    timing = {"WEBSOCKET_PING_INTERVAL": 0.2, "WEBSOCKET_PING_TIMEOUT": 1}
    with running(name, tmp_path, **timing) as server, connected(server, MANY, "/echo/") as peers:
        pings = [peer.recv_frame() for peer in peers]
        os.kill(server.worker_pid, signal.SIGSTOP)
        for peer, ping in zip(peers, pings, strict=True):
            assert ping.opcode == PING
            peer.send_frame(PONG, ping.payload)
        time.sleep(1.2)
        os.kill(server.worker_pid, signal.SIGCONT)
        for peer in peers:
            assert exchange(peer, "hello") == "hello"
