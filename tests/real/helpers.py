"""What the tests of real servers share: on which of them a test runs, how a stream ends, what breaks the protocol."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.peer import BINARY, CLOSE, CONTINUATION, NO_STATUS, PING, TEXT, Close, Peer, close_payload, frame, head
from tests.project.views import MIB
from tests.real.servers import Kind, Server, combinations


def on(servers: list[tuple[str, str]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("running_server", servers, ids="-".join, indirect=True)


only_detached = on(combinations("detached"))
only_early = on(combinations(keeps_early=True))
only_refusing = on(combinations(answers_itself=False))  # nobody has sent the 101 before the view is called
only_halves = on(combinations(has_halves=True))

LIMIT = MIB
VIOLATIONS = {
    "5.1 frame without a mask": (frame(TEXT, b"x", mask=None), 1002),
    "5.2 reserved opcode 3": (frame(0x3, b"x"), 1002),
    "5.2 reserved opcode 11": (frame(0xB, b"x"), 1002),
    "5.2 rsv1 without an extension": (frame(TEXT, b"x", rsv=4), 1002),
    "5.2 rsv2": (frame(TEXT, b"x", rsv=2), 1002),
    "5.2 rsv3 on a ping": (frame(PING, b"x", rsv=1), 1002),
    "5.2 length 5 in two bytes": (frame(BINARY, bytes(5), length_bytes=2), 1002),
    "5.2 length 65535 in eight bytes": (frame(BINARY, bytes(65535), length_bytes=8), 1002),
    "5.2 length with its highest bit set": (head(BINARY, 1 << 63, length_bytes=8), 1002),
    "5.4 continuation of nothing": (frame(CONTINUATION, b"x"), 1002),
    "5.4 message inside a message": (frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), 1002),
    "5.5 ping in fragments": (frame(PING, b"x", fin=False), 1002),
    "5.5 ping of 126 bytes": (frame(PING, bytes(126)), 1002),
    "5.5.1 close of one byte": (frame(CLOSE, b"\x03"), 1002),
    "5.5.1 close reason not UTF-8": (frame(CLOSE, close_payload(1000) + b"\xff"), 1007),
    **{f"7.4 close {code}": (frame(CLOSE, close_payload(code)), 1002) for code in (0, 999, 1005, 1006, 1015, 5000)},
    "8.1 text not UTF-8": (frame(TEXT, b"\xff"), 1007),
    "8.1 text that ends in half a character": (frame(TEXT, b"\xe2\x82"), 1007),
    "8.1 not UTF-8 across fragments": (frame(TEXT, b"\xc3", fin=False) + frame(CONTINUATION, b"("), 1007),
    "8.1 not UTF-8 in a fragment whose message never ends": (frame(TEXT, b"\xed\xa0\x80", fin=False), 1007),
    "7.4.1 too big, said by the head alone": (head(BINARY, LIMIT + 1), 1009),
    "7.4.1 too big, whole": (frame(BINARY, bytes(2 * LIMIT)), 1009),
    "7.4.1 too big in fragments": (frame(BINARY, bytes(LIMIT), fin=False) + frame(CONTINUATION, b"x"), 1009),
}


def assert_ends(peer: Peer, code: int, reason: str | None = None) -> None:
    """The server's close frame is next; it is answered, and then the stream ends without another byte."""
    close = peer.recv_message()
    assert isinstance(close, Close), close
    assert close == Close(code, close.reason if reason is None else reason)
    peer.send_close(code if code != NO_STATUS else 1000)
    assert peer.read_to_eof() == b""
    assert not peer.truncated


@contextmanager
def started(kind: Kind, directory: Path, **settings: object) -> Iterator[Server]:
    server = Server(kind, directory, **settings)
    try:
        server.wait_until_up()
        yield server
    finally:
        server.stop()


def leave_when_told(peer: Peer) -> Close:
    with peer:
        close = peer.recv_message(timeout=30)
        assert isinstance(close, Close), close
        peer.send_close(close.code)
        assert peer.read_to_eof() == b""
    return close
