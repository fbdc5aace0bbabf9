"""permessage-deflate, RFC 7692: what is agreed upon, and what travels. The other side is zlib by hand."""

from __future__ import annotations

import os
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwebsocket.protocol import handshake
from dwebsocket.protocol.codes import Opcode
from dwebsocket.protocol.deflate import (
    Agreement,
    Compression,
    PerMessageDeflate,
    SharedCompression,
    agree,
    serialize_once,
)
from dwebsocket.protocol.endpoint import Endpoint, State
from dwebsocket.protocol.exceptions import HandshakeError, InvalidPayload, MessageTooBig, PolicyViolation
from dwebsocket.protocol.extensions import Extension
from dwebsocket.protocol.frames import Frame
from dwebsocket.protocol.handshake import Request
from tests.peer import BINARY, CLOSE, CONTINUATION, PING, TEXT, close_payload, frame
from tests.peer import decode as decode_frame

TAIL = b"\x00\x00\xff\xff"
EVERYTHING = Agreement(False, False, 15, 15, says_client_bits=False)
HANDSHAKE = {
    "host": "example.com",
    "upgrade": "websocket",
    "connection": "Upgrade",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def offer(header: str) -> list[handshake.Offer]:
    request = Request("GET", "HTTP/1.1", {**HANDSHAKE, "sec-websocket-extensions": header})
    return list(handshake.read(request).extensions)


def deflated(data: bytes, *, flush: int = zlib.Z_SYNC_FLUSH) -> bytes:
    deflater = zlib.compressobj(wbits=-15)
    return (deflater.compress(data) + deflater.flush(flush)).removesuffix(TAIL)


def inflated(data: bytes) -> bytes:
    return zlib.decompressobj(wbits=-15).decompress(data + TAIL)


def extension(agreement: Agreement = EVERYTHING, *, limit: int | None = None, **options: int) -> PerMessageDeflate:
    return PerMessageDeflate(agreement, Compression(**options), max_message_size=limit)


def received(payload: bytes, by: PerMessageDeflate) -> bytes:
    return by.decode(Frame(Opcode.BINARY, payload, rsv1=True)).payload


class Unknown:
    """An extension that leaves every frame as it is."""

    uses_rsv1 = False

    def wire_size(self, message_size: int) -> int:
        return message_size

    def decode(self, frame: Frame) -> Frame:
        return frame

    encode = decode


# --- what is agreed upon ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "answer"),
    [
        pytest.param("permessage-deflate", "permessage-deflate", id="7-bare"),
        pytest.param(
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate; client_max_window_bits=15",
            id="7.1.2.2-hint-without-value",
        ),
        pytest.param(
            "permessage-deflate; client_max_window_bits=10",
            "permessage-deflate; client_max_window_bits=10",
            id="7.1.2.2-client-window",
        ),
        pytest.param(
            'permessage-deflate; server_max_window_bits="10"',
            "permessage-deflate; server_max_window_bits=10",
            id="7.1.2.1-server-window-quoted",
        ),
        pytest.param(
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
            id="7.1.1-no-takeover",
        ),
        pytest.param(
            "x; a=b, permessage-deflate; server_max_window_bits=8, permessage-deflate; unknown, permessage-deflate",
            "permessage-deflate",
            id="5.1-first-that-can-be-accepted",
        ),
        pytest.param("permessage-deflate; server_max_window_bits=8", None, id="zlib-has-no-window-of-8-bits"),
        pytest.param("permessage-deflate; unknown", None, id="7.1-unknown-parameter"),
        pytest.param("permessage-deflate; server_max_window_bits", None, id="7.1.2.1-without-value"),
        pytest.param("permessage-deflate; server_max_window_bits=010", None, id="7.1.2.1-leading-zero"),
        pytest.param("permessage-deflate; server_max_window_bits=16", None, id="7.1.2.1-too-large"),
        pytest.param("permessage-deflate; client_max_window_bits=7", None, id="7.1.2.2-too-small"),
        pytest.param("permessage-deflate; server_no_context_takeover=1", None, id="7.1.1.1-with-value"),
        pytest.param(
            "permessage-deflate; client_no_context_takeover; client_no_context_takeover", None, id="7.1-twice"
        ),
        pytest.param("x-webkit-deflate-frame", None, id="other-extension"),
        pytest.param("", None, id="none"),
    ],
)
def test_offer_is_answered(header: str, answer: str | None) -> None:
    agreement = agree(offer(header), Compression())

    assert (agreement and agreement.header()) == answer


def test_server_asks_for_what_it_wants_though_the_client_did_not_offer_it() -> None:
    wanted = Compression(
        server_no_context_takeover=True,
        client_no_context_takeover=True,
        server_max_window_bits=11,
        client_max_window_bits=11,
    )

    agreement = agree(offer("permessage-deflate"), wanted)

    # 7.1.2.2: the client's window is not the server's to limit unless the client offers that
    assert agreement == Agreement(True, True, 11, 15, says_client_bits=False)


@pytest.mark.parametrize("header", ["permessage-deflate; =1", "permessage-deflate; a=", "a b", 'x; a="b', "x; a=b c"])
def test_malformed_header_is_refused_with_400(header: str) -> None:
    with pytest.raises(HandshakeError, match="Sec-WebSocket-Extensions") as refused:
        offer(header)

    assert refused.value.status_code == 400


def test_agreed_extension_stands_in_the_101() -> None:
    opening = handshake.read(Request("GET", "HTTP/1.1", HANDSHAKE))

    assert b"\r\nSec-WebSocket-Extensions: a; b=1, c\r\n" in opening.response(extensions=["a; b=1", "c"])
    assert b"Extensions" not in opening.response()


@pytest.mark.parametrize(
    "options",
    [{"server_max_window_bits": 8}, {"client_max_window_bits": 16}, {"level": 10}, {"mem_level": 0}],
    ids=str,
)
def test_compression_that_zlib_cannot_do_is_a_value_error(options: dict[str, int]) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=f"^{name} is {options[name]}; it must be "):
        Compression(**options)


# --- what arrives ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(bytes.fromhex("f248cdc9c90700"), id="7.2.3.1-one-block"),
        pytest.param(bytes.fromhex("000500faff48656c6c6f00"), id="7.2.3.3-no-compression"),
        pytest.param(bytes.fromhex("f348cdc9c9070000"), id="7.2.3.4-final-block"),
        pytest.param(bytes.fromhex("f24805000000ffffcac9c90700"), id="7.2.3.5-two-blocks"),
        pytest.param(deflated(b"Hello", flush=zlib.Z_FINISH), id="final-block-without-the-extra-byte"),
    ],
)
def test_example_of_the_rfc_is_inflated(payload: bytes) -> None:
    by = extension()
    for _ in range(3):
        assert received(payload, by) == b"Hello"


def test_final_block_that_ends_with_its_fragment_leaves_nothing_behind() -> None:
    by = extension()
    ended = deflated(b"Hello", flush=zlib.Z_FINISH)
    for _ in range(3):
        first = by.decode(Frame(Opcode.BINARY, ended, fin=False, rsv1=True))
        last = by.decode(Frame(Opcode.CONTINUATION, b""))
        assert first.payload + last.payload == b"Hello"


def test_example_of_the_rfc_shares_its_window() -> None:
    by = extension()
    assert received(bytes.fromhex("f248cdc9c90700"), by) == b"Hello"  # 7.2.3.2
    assert received(bytes.fromhex("f200110000"), by) == b"Hello"


def test_window_that_is_not_taken_over_is_forgotten() -> None:
    by = extension(EVERYTHING._replace(client_no_context_takeover=True))
    received(bytes.fromhex("f248cdc9c90700"), by)
    with pytest.raises(InvalidPayload):
        received(bytes.fromhex("f200110000"), by)


def test_message_without_rsv1_passes_as_it_is() -> None:
    plain = Frame(Opcode.BINARY, b"\xff\xff\xff")
    assert extension().decode(plain) == plain


def test_corrupt_data_is_1007() -> None:
    with pytest.raises(InvalidPayload, match="compressed data is corrupt"):
        received(b"\xff\xff\xff", extension())


def test_message_of_exactly_the_limit_is_inflated_and_one_byte_more_is_1009() -> None:
    assert received(deflated(bytes(1000)), extension(limit=1000)) == bytes(1000)
    with pytest.raises(MessageTooBig, match="more than 1000 bytes"):
        received(deflated(bytes(1001)), extension(limit=1000))


def test_limit_counts_the_fragments_together_and_each_message_anew() -> None:
    by = extension(limit=1500)
    for _ in range(2):
        data = deflated(bytes(1000))
        by.decode(Frame(Opcode.BINARY, data[:3], fin=False, rsv1=True))
        assert by.decode(Frame(Opcode.CONTINUATION, data[3:])).fin
    data = deflated(bytes(2000))
    with pytest.raises(MessageTooBig):
        for index, byte in enumerate(data):
            by.decode(Frame(Opcode.CONTINUATION if index else Opcode.BINARY, bytes([byte]), fin=False, rsv1=not index))


def test_bomb_goes_off_at_the_limit_and_not_after() -> None:
    bomb = deflated(bytes(64 * 1024 * 1024))
    inflated_bytes = []

    class Counting(PerMessageDeflate):
        def _inflate(self, data: bytes) -> bytes:
            try:
                return super()._inflate(data)
            finally:
                inflated_bytes.append(self._inflated)

    by = Counting(EVERYTHING, Compression(), max_message_size=1000)
    with pytest.raises(MessageTooBig):
        received(bomb, by)
    assert inflated_bytes == [1001]


@pytest.mark.parametrize("cut", [1, 2, 1000, 1 << 20], ids=lambda cut: f"{cut}-bytes-at-once")
def test_message_of_a_hundred_empty_streams_is_1008(cut: int) -> None:
    by = extension()
    streams = deflated(b"", flush=zlib.Z_FINISH) * 100
    with pytest.raises(PolicyViolation, match="too many deflate streams in one message"):
        for start in range(0, len(streams), cut):
            by.decode(Frame(Opcode.BINARY, streams[start : start + cut], fin=False, rsv1=not start))


def test_peer_that_ends_a_stream_with_each_fragment_may_send_as_many_as_it_likes() -> None:
    by = extension()
    data = [os.urandom(1500) for _ in range(300)]
    ended = [deflated(one, flush=zlib.Z_FINISH) for one in data]
    assert received(b"".join(ended), by) == b"".join(data)
    for _ in range(3):
        assert received(deflated(b"a", flush=zlib.Z_FINISH) * 64, by) == b"a" * 64


def test_end_of_a_stream_copies_next_to_nothing_of_what_follows() -> None:
    copied = []

    class Counting(PerMessageDeflate):
        def _end_stream(self) -> None:
            assert self._inflater is not None
            copied.append(len(self._inflater.unused_data))
            super()._end_stream()

    by = Counting(EVERYTHING, Compression())
    data = os.urandom(1024)
    assert received(deflated(data, flush=zlib.Z_FINISH) * 1000, by) == data * 1000
    assert len(copied) == 1000
    assert sum(copied) < 10_000_000  # 500 times the message, were it copied for each


# --- what leaves -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"Hello", b"a" * 100_000, os.urandom(5000)], ids=["short", "long", "random"])
def test_message_is_deflated_for_zlib_to_read(data: bytes) -> None:
    sent = extension().encode(Frame(Opcode.BINARY, data))

    assert sent.rsv1
    assert not sent.payload.endswith(TAIL)
    assert inflated(sent.payload) == data


def test_second_message_uses_the_window_of_the_first_unless_it_is_not_taken_over() -> None:
    data = os.urandom(500)
    sharing, forgetting = extension(), extension(EVERYTHING._replace(server_no_context_takeover=True))
    first, second = (len(sharing.encode(Frame(Opcode.BINARY, data)).payload) for _ in range(2))
    assert second < first / 10
    first, second = (len(forgetting.encode(Frame(Opcode.BINARY, data)).payload) for _ in range(2))
    assert second == first


def test_window_is_no_larger_than_agreed() -> None:
    data = os.urandom(600)
    small = extension(EVERYTHING._replace(server_max_window_bits=9))
    sent = small.encode(Frame(Opcode.BINARY, data + data)).payload
    assert zlib.decompressobj(wbits=-9).decompress(sent + TAIL) == data + data


@pytest.mark.parametrize(("size", "compressed"), [(0, False), (63, False), (64, True)])
def test_message_below_min_size_is_not_compressed(size: int, compressed: bool) -> None:
    sent = extension(min_size=64).encode(Frame(Opcode.TEXT, b"a" * size))
    assert sent.rsv1 is compressed
    assert (sent.payload == b"a" * size) is not compressed


@pytest.mark.parametrize("fragments", [[b"Hel", b"lo"], [b"", b""], [b"Hello", b""], [b"", b"Hello", b""]], ids=repr)
def test_fragments_are_deflated_as_one_message(fragments: list[bytes]) -> None:
    by = extension(min_size=64)
    for _ in range(2):
        sent = [
            by.encode(Frame(Opcode.CONTINUATION if index else Opcode.TEXT, data, fin=index == len(fragments) - 1))
            for index, data in enumerate(fragments)
        ]
        assert [one.rsv1 for one in sent] == [True] + [False] * (len(fragments) - 1)
        assert received(b"".join(one.payload for one in sent), extension()) == b"".join(fragments)
        by = extension()


# --- the endpoint with it --------------------------------------------------------------------------------------------


def opened(limit: int | None = None) -> Endpoint:
    endpoint = Endpoint(max_message_size=limit, extensions=[extension(limit=limit)])
    endpoint.accepted()
    return endpoint


def test_compressed_and_plain_messages_alternate_with_a_ping_in_between() -> None:
    data = deflated(b"Hello")
    wire = (
        frame(TEXT, data[:2], fin=False, rsv=4)
        + frame(PING, b"p")
        + frame(CONTINUATION, data[2:])
        + frame(BINARY, b"plain")
    )
    for cut in range(len(wire)):
        endpoint = opened()
        assert endpoint.receive_data(wire[:cut]) + endpoint.receive_data(wire[cut:]) == ["Hello", b"plain"]
        assert endpoint.data_to_send() == b"\x8a\x01p"


def test_message_that_cannot_be_compressed_may_take_more_than_the_limit_on_the_wire() -> None:
    data = os.urandom(1000)
    endpoint = opened(limit=1000)
    wire = frame(BINARY, deflated(data), rsv=4)
    assert len(deflated(data)) > 1000
    assert endpoint.receive_data(wire) == [data]
    endpoint.receive_data(frame(BINARY, bytes(1001)))
    assert (endpoint.state, endpoint.close_code) == (State.ENDING, 1009)


def test_bomb_ends_the_connection_with_1009_and_invalid_text_with_1007() -> None:
    for payload, code in ((bytes(2000), 1009), (b"\xff", 1007)):
        endpoint = opened(limit=1000)
        assert endpoint.receive_data(frame(TEXT, deflated(payload), rsv=4)) == []
        assert endpoint.close_code == code


@pytest.mark.parametrize("began", ["", "whole", "fragment"])
def test_behind_our_close_frame_nothing_is_inflated_and_control_frames_are_understood(began: str) -> None:
    class Refusing(PerMessageDeflate):
        closed = False

        def decode(self, frame: Frame) -> Frame:
            assert not self.closed
            return super().decode(frame)

    by = Refusing(EVERYTHING, Compression())
    endpoint = Endpoint(extensions=[by])
    endpoint.accepted()
    data = deflated(bytes(100_000))
    before = {
        "": b"",
        "whole": frame(BINARY, data, rsv=4),
        "fragment": frame(BINARY, data[:9], fin=False, rsv=4),
    }[began]
    assert endpoint.receive_data(before) == ([bytes(100_000)] if began == "whole" else [])
    endpoint.close(1000)
    by.closed = True

    late = (b"" if began == "fragment" else frame(BINARY, data[:9], fin=False, rsv=4)) + frame(PING, b"1")
    late += frame(CONTINUATION, data[9:]) + frame(TEXT, b"corrupt", rsv=4) + frame(PING, b"2")
    for byte in late:
        assert endpoint.receive_data(bytes([byte])) == []
    assert endpoint.data_to_send() == b"\x8a\x011\x8a\x012"
    assert endpoint.state is State.CLOSING
    endpoint.receive_data(frame(CLOSE, close_payload(4000)))
    assert (endpoint.state, endpoint.close_received, endpoint.close_code) == (State.CLOSED, True, 1000)


@given(st.lists(st.binary(max_size=2000)), st.booleans(), st.integers(9, 15), st.integers(0, 100))
def test_what_one_side_deflates_the_other_inflates(
    messages: list[bytes], takeover: bool, bits: int, min_size: int
) -> None:
    agreement = Agreement(not takeover, not takeover, bits, bits, says_client_bits=True)
    sending, receiving = extension(agreement, min_size=min_size), extension(agreement, limit=2000)
    for message in messages:
        assert receiving.decode(sending.encode(Frame(Opcode.BINARY, message))).payload == message


@given(st.binary(max_size=300))
def test_garbage_is_inflated_or_refused_with_a_close_code(garbage: bytes) -> None:
    endpoint = opened(limit=1000)
    endpoint.receive_data(frame(BINARY, garbage, rsv=4))
    assert endpoint.close_code in (None, 1007, 1008, 1009)


# --- deflated once for many connections ------------------------------------------------------------------------------


SHARED = SharedCompression(15, 6, 8, 20)


@pytest.mark.parametrize("message", ["", "short", "x" * 19, "Grüße 🎉", b"", b"x" * 19], ids=repr)
@pytest.mark.parametrize("shared", [None, SHARED])
def test_small_message_and_every_message_without_compression_is_framed_as_it_is(
    message: str | bytes, shared: SharedCompression | None
) -> None:
    opcode, payload = (TEXT, message.encode()) if isinstance(message, str) else (BINARY, message)

    assert serialize_once(message, shared) == frame(opcode, payload, mask=None)


@pytest.mark.parametrize("bits", [9, 15])
@pytest.mark.parametrize("message", ["y" * 20, "Grüße 🎉" * 50_000, bytes(100_000), os.urandom(70_000)], ids=len)
def test_large_message_is_deflated_by_itself(message: str | bytes, bits: int) -> None:
    shared = SharedCompression(bits, 6, 8, 20)
    raw, size = decode_frame(serialize_once(message, shared))
    assert size == len(serialize_once(message, shared))

    assert (raw.rsv, raw.fin, raw.opcode) == (4, True, TEXT if isinstance(message, str) else BINARY)
    inflated = zlib.decompressobj(wbits=-bits).decompress(raw.payload + TAIL)
    assert inflated == (message.encode() if isinstance(message, str) else message)


def test_parameters_are_equal_where_the_same_frames_fit() -> None:
    one, same, other = (
        extension(agreement, level=5, min_size=7).share()
        for agreement in (
            EVERYTHING,
            EVERYTHING._replace(client_max_window_bits=9),
            Agreement(False, False, 9, 15, False),
        )
    )

    assert one == same == SharedCompression(15, 5, zlib.DEF_MEM_LEVEL, 7)
    assert len({one, same, other}) == 2


@pytest.mark.parametrize("takeover", [False, True])
@pytest.mark.parametrize("bits", [9, 15])
def test_own_messages_and_shared_frames_mix_in_one_window_of_the_peer(takeover: bool, bits: int) -> None:
    sender = extension(Agreement(not takeover, False, bits, 15, says_client_bits=False))
    peer = zlib.decompressobj(wbits=-bits)
    words = b"the same words again and again " * 30

    def inflate(payload: bytes) -> bytes:
        return peer.decompress(payload + TAIL)

    def own(payload: bytes) -> Frame:
        return sender.encode(Frame(Opcode.BINARY, payload))

    first, again = own(words).payload, own(words).payload
    assert (len(again) < len(first) / 2) is takeover
    assert [inflate(payload) for payload in (first, again)] == [words] * 2
    shared = sender.share()
    for number in range(5):
        other = b"%d" % number + words[number:]
        raw, _ = decode_frame(serialize_once(other, shared))
        assert inflate(raw.payload) == other
        assert inflate(own(words).payload) == words


def test_message_that_has_begun_goes_on_with_its_context_and_the_next_begins_afresh() -> None:
    sender, peer = extension(), zlib.decompressobj(wbits=-15)
    words = os.urandom(1000)
    first = sender.encode(Frame(Opcode.BINARY, words)).payload
    assert peer.decompress(first + TAIL) == words
    begun = sender.encode(Frame(Opcode.BINARY, words, fin=False)).payload
    shared = sender.share()
    ended = sender.encode(Frame(Opcode.CONTINUATION, words)).payload
    assert peer.decompress(begun + ended + TAIL) == words * 2
    assert len(begun + ended) < 500
    raw, _ = decode_frame(serialize_once(bytes(40_000), shared))
    assert peer.decompress(raw.payload + TAIL) == bytes(40_000)
    assert peer.decompress(sender.encode(Frame(Opcode.BINARY, words)).payload + TAIL) == words


@pytest.mark.parametrize("extensions", [[], [Unknown()]])
def test_without_permessage_deflate_there_is_nothing_to_share(extensions: list[Extension]) -> None:
    assert Endpoint(extensions=extensions).share_compression() is None


def test_endpoint_shares_the_compression_that_was_agreed() -> None:
    assert Endpoint(extensions=[extension()]).share_compression() == SharedCompression(15, -1, zlib.DEF_MEM_LEVEL, 0)
