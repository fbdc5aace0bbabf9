from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwebsocket.protocol.codes import Opcode
from dwebsocket.protocol.exceptions import MessageTooBig, ProtocolError
from dwebsocket.protocol.frames import Frame
from dwebsocket.protocol.parser import Parser
from tests.peer import BINARY, CONTINUATION, PING, TEXT, frame, head

from .wire import cuts, garbage, keys, mask, pieces_of, split


class Options(NamedTuple):
    """How the parser under test is made."""

    max_message_size: int | None = None
    rsv1_allowed: bool = False


class Parsed(NamedTuple):
    """What a parser made of its input: frames, and then the error if there was one."""

    frames: list[Frame]
    error: type[ProtocolError] | None = None
    message: str = ""


def parse(pieces: Iterable[bytes], options: Options) -> Parsed:
    """What a new parser gives when it is fed with `pieces`."""
    parser = Parser(**options._asdict())
    frames: list[Frame] = []
    try:
        for piece in pieces:
            parser.feed(piece)
            while (frame := parser.next_frame()) is not None:
                frames.append(frame)
    except ProtocolError as error:
        return Parsed(frames, type(error), str(error))
    return Parsed(frames)


def joined(parsed: Parsed) -> Parsed:
    """The same with the parts of each message put together where it began; one that is not complete has no fin."""
    frames: list[Frame] = []
    begin = 0
    for part in parsed.frames:
        if part.opcode is Opcode.CONTINUATION:
            frames[begin] = frames[begin]._replace(payload=frames[begin].payload + part.payload, fin=part.fin)
            continue
        if part.opcode < 8:
            begin = len(frames)
        frames.append(part)
    return parsed._replace(frames=frames)


ANY = Options()
RSV1 = Options(rsv1_allowed=True)
AT_MOST_10 = Options(max_message_size=10)

BYTES_256 = bytes(range(256))
BYTES_64_KIB = BYTES_256 * 256
KEY_OF_ZEROS = "00000000"

FRAMES = [
    pytest.param("81 85 37fa213d 7f9f4d5158", ANY, [Frame(Opcode.TEXT, b"Hello")], id="5.7-masked-text"),
    pytest.param(
        "01 83 37fa213d 7f9f4d  80 82 37fa213d 5b95",
        ANY,
        [Frame(Opcode.TEXT, b"Hel", fin=False), Frame(Opcode.CONTINUATION, b"lo")],
        id="5.7-fragmented-text",
    ),
    pytest.param("89 85 37fa213d 7f9f4d5158", ANY, [Frame(Opcode.PING, b"Hello")], id="5.7-ping"),
    pytest.param("8a 85 37fa213d 7f9f4d5158", ANY, [Frame(Opcode.PONG, b"Hello")], id="5.7-masked-pong"),
    pytest.param(
        f"82 fe 0100 {KEY_OF_ZEROS} {BYTES_256.hex()}", ANY, [Frame(Opcode.BINARY, BYTES_256)], id="5.7-256-bytes"
    ),
    pytest.param(
        f"82 ff 0000000000010000 {KEY_OF_ZEROS} {BYTES_64_KIB.hex()}",
        ANY,
        [Frame(Opcode.BINARY, BYTES_64_KIB)],
        id="5.7-64-kib",
    ),
    pytest.param("88 82 37fa213d 3412", ANY, [Frame(Opcode.CLOSE, b"\x03\xe8")], id="5.5.1-close"),
    pytest.param(
        f"82 fd {KEY_OF_ZEROS} {bytes(125).hex()}", ANY, [Frame(Opcode.BINARY, bytes(125))], id="5.2-longest-in-7-bits"
    ),
    pytest.param(
        f"82 fe 007e {KEY_OF_ZEROS} {bytes(126).hex()}",
        ANY,
        [Frame(Opcode.BINARY, bytes(126))],
        id="5.2-shortest-in-16-bits",
    ),
    pytest.param(
        f"82 fe ffff {KEY_OF_ZEROS} {bytes(65_535).hex()}",
        ANY,
        [Frame(Opcode.BINARY, bytes(65_535))],
        id="5.2-longest-in-16-bits",
    ),
    pytest.param(
        f"89 fd {KEY_OF_ZEROS} {bytes(125).hex()}", ANY, [Frame(Opcode.PING, bytes(125))], id="5.5-longest-control"
    ),
    pytest.param("81 80 37fa213d", ANY, [Frame(Opcode.TEXT, b"")], id="5.2-empty-text"),
    pytest.param("8a 80 37fa213d", ANY, [Frame(Opcode.PONG, b"")], id="5.5.3-empty-pong"),
    pytest.param(
        "01 80 37fa213d  00 80 37fa213d  80 80 37fa213d",
        ANY,
        [
            Frame(Opcode.TEXT, b"", fin=False),
            Frame(Opcode.CONTINUATION, b"", fin=False),
            Frame(Opcode.CONTINUATION, b""),
        ],
        id="5.4-empty-fragments",
    ),
    pytest.param(
        "02 81 01020304 60  89 81 01020304 71  80 81 01020304 63",
        ANY,
        [Frame(Opcode.BINARY, b"a", fin=False), Frame(Opcode.PING, b"p"), Frame(Opcode.CONTINUATION, b"b")],
        id="5.4-control-between-fragments",
    ),
    pytest.param(
        "81 81 01020304 60  82 81 05060708 67",
        ANY,
        [Frame(Opcode.TEXT, b"a"), Frame(Opcode.BINARY, b"b")],
        id="5.3-each-frame-has-its-own-key",
    ),
    pytest.param("c1 81 01020304 60", RSV1, [Frame(Opcode.TEXT, b"a", rsv1=True)], id="9.1-rsv1-of-an-extension"),
    pytest.param(
        "42 81 01020304 60  80 81 01020304 63",
        RSV1,
        [Frame(Opcode.BINARY, b"a", fin=False, rsv1=True), Frame(Opcode.CONTINUATION, b"b")],
        id="9.1-rsv1-on-the-first-fragment",
    ),
    pytest.param("81 81 01020304 60", RSV1, [Frame(Opcode.TEXT, b"a")], id="9.1-rsv1-may-be-clear"),
    pytest.param("82 8a 00000000" + "61" * 10, AT_MOST_10, [Frame(Opcode.BINARY, b"a" * 10)], id="limit-exactly"),
    pytest.param(
        f"02 86 {KEY_OF_ZEROS} 616161616161  80 84 {KEY_OF_ZEROS} 61616161",
        AT_MOST_10,
        [Frame(Opcode.BINARY, b"a" * 6, fin=False), Frame(Opcode.CONTINUATION, b"a" * 4)],
        id="limit-exactly-over-fragments",
    ),
    pytest.param(
        f"82 86 {KEY_OF_ZEROS} 616161616161  82 86 {KEY_OF_ZEROS} 616161616161",
        AT_MOST_10,
        [Frame(Opcode.BINARY, b"a" * 6), Frame(Opcode.BINARY, b"a" * 6)],
        id="limit-counts-each-message",
    ),
    pytest.param(
        f"02 86 {KEY_OF_ZEROS} 616161616161  80 80 {KEY_OF_ZEROS}  82 8a {KEY_OF_ZEROS} " + "61" * 10,
        AT_MOST_10,
        [
            Frame(Opcode.BINARY, b"a" * 6, fin=False),
            Frame(Opcode.CONTINUATION, b""),
            Frame(Opcode.BINARY, b"a" * 10),
        ],
        id="limit-counts-each-message-after-fragments",
    ),
    pytest.param(
        f"89 8b {KEY_OF_ZEROS} " + "61" * 11, AT_MOST_10, [Frame(Opcode.PING, b"a" * 11)], id="limit-not-for-control"
    ),
    pytest.param(
        f"02 8a {KEY_OF_ZEROS} " + "61" * 10 + f" 89 81 {KEY_OF_ZEROS} 70  80 80 {KEY_OF_ZEROS}",
        AT_MOST_10,
        [Frame(Opcode.BINARY, b"a" * 10, fin=False), Frame(Opcode.PING, b"p"), Frame(Opcode.CONTINUATION, b"")],
        id="limit-counts-no-control-between-fragments",
    ),
]


@pytest.mark.parametrize(("wire", "options", "frames"), FRAMES)
def test_bytes_of_frames_give_these_frames(wire: str, options: Options, frames: list[Frame]) -> None:
    assert parse([bytes.fromhex(wire)], options) == Parsed(frames)


@pytest.mark.parametrize(("wire", "options", "frames"), FRAMES)
def test_bytes_of_frames_cut_at_every_byte_give_the_same(wire: str, options: Options, frames: list[Frame]) -> None:
    expected = joined(Parsed(frames))

    for pieces in cuts(bytes.fromhex(wire)):
        assert joined(parse(pieces, options)) == expected, pieces


# Each of these ends with the first byte that breaks the rule.
REFUSED = [
    pytest.param("81 05", ANY, [], ProtocolError, "frame is not masked", id="5.7-unmasked-text"),
    pytest.param("01 03", ANY, [], ProtocolError, "frame is not masked", id="5.7-unmasked-fragment"),
    pytest.param("89 05", ANY, [], ProtocolError, "frame is not masked", id="5.7-unmasked-ping"),
    pytest.param("82 7e", ANY, [], ProtocolError, "frame is not masked", id="5.7-unmasked-256-bytes"),
    pytest.param("82 7f", ANY, [], ProtocolError, "frame is not masked", id="5.7-unmasked-64-kib"),
    pytest.param("88 00", ANY, [], ProtocolError, "frame is not masked", id="5.1-unmasked-close"),
    *(
        pytest.param(f"8{opcode:x}", ANY, [], ProtocolError, f"reserved opcode 0x{opcode:x}", id=f"5.2-opcode-{opcode}")
        for opcode in (0x3, 0x4, 0x5, 0x6, 0x7, 0xB, 0xC, 0xD, 0xE, 0xF)
    ),
    pytest.param("03", ANY, [], ProtocolError, "reserved opcode 0x3", id="5.2-opcode-3-no-fin"),
    pytest.param("c1", ANY, [], ProtocolError, "reserved bit set", id="5.2-rsv1"),
    pytest.param("a1", ANY, [], ProtocolError, "reserved bit set", id="5.2-rsv2"),
    pytest.param("91", ANY, [], ProtocolError, "reserved bit set", id="5.2-rsv3"),
    pytest.param("f1", ANY, [], ProtocolError, "reserved bit set", id="5.2-rsv1-rsv2-rsv3"),
    pytest.param("c9", ANY, [], ProtocolError, "reserved bit set", id="5.2-rsv1-on-ping"),
    pytest.param("98", ANY, [], ProtocolError, "reserved bit set", id="5.2-rsv3-on-close"),
    pytest.param("a1", RSV1, [], ProtocolError, "reserved bit set", id="9.1-rsv2-beside-an-extension"),
    pytest.param("91", RSV1, [], ProtocolError, "reserved bit set", id="9.1-rsv3-beside-an-extension"),
    pytest.param("e1", RSV1, [], ProtocolError, "reserved bit set", id="9.1-rsv1-and-rsv2"),
    pytest.param("c9", RSV1, [], ProtocolError, "reserved bit set on a control frame", id="rfc7692-6-rsv1-on-ping"),
    pytest.param("c8", RSV1, [], ProtocolError, "reserved bit set on a control frame", id="rfc7692-6-rsv1-on-close"),
    pytest.param(
        "41 81 01020304 60  c0",
        RSV1,
        [Frame(Opcode.TEXT, b"a", fin=False, rsv1=True)],
        ProtocolError,
        "reserved bit set on a continuation",
        id="rfc7692-6.1-rsv1-on-continuation",
    ),
    pytest.param("08", ANY, [], ProtocolError, "fragmented control frame", id="5.5-fragmented-close"),
    pytest.param("09", ANY, [], ProtocolError, "fragmented control frame", id="5.5-fragmented-ping"),
    pytest.param("0a", ANY, [], ProtocolError, "fragmented control frame", id="5.5-fragmented-pong"),
    pytest.param("88 fe", ANY, [], ProtocolError, "control frame too long", id="5.5-close-of-126-bytes"),
    pytest.param("89 fe", ANY, [], ProtocolError, "control frame too long", id="5.5-ping-of-126-bytes"),
    pytest.param("8a ff", ANY, [], ProtocolError, "control frame too long", id="5.5-pong-of-64-kib"),
    pytest.param("80", ANY, [], ProtocolError, "continuation of no message", id="5.4-continuation-first"),
    pytest.param("00", ANY, [], ProtocolError, "continuation of no message", id="5.4-continuation-first-no-fin"),
    pytest.param(
        "81 81 01020304 60  80",
        ANY,
        [Frame(Opcode.TEXT, b"a")],
        ProtocolError,
        "continuation of no message",
        id="5.4-continuation-after-a-message",
    ),
    pytest.param(
        "01 81 01020304 60  80 81 01020304 63  00",
        ANY,
        [Frame(Opcode.TEXT, b"a", fin=False), Frame(Opcode.CONTINUATION, b"b")],
        ProtocolError,
        "continuation of no message",
        id="5.4-continuation-after-the-last",
    ),
    pytest.param(
        "01 81 01020304 60  81",
        ANY,
        [Frame(Opcode.TEXT, b"a", fin=False)],
        ProtocolError,
        "new message inside a fragmented one",
        id="5.4-text-in-text",
    ),
    pytest.param(
        "02 81 01020304 60  89 80 01020304  02",
        ANY,
        [Frame(Opcode.BINARY, b"a", fin=False), Frame(Opcode.PING, b"")],
        ProtocolError,
        "new message inside a fragmented one",
        id="5.4-binary-in-binary-after-a-ping",
    ),
    pytest.param("82 fe 0000", ANY, [], ProtocolError, "length is not in its shortest form", id="5.2-0-in-16-bits"),
    pytest.param("82 fe 007d", ANY, [], ProtocolError, "length is not in its shortest form", id="5.2-125-in-16-bits"),
    pytest.param(
        "82 ff 0000000000000001", ANY, [], ProtocolError, "length is not in its shortest form", id="5.2-1-in-64-bits"
    ),
    pytest.param(
        "82 ff 000000000000ffff",
        ANY,
        [],
        ProtocolError,
        "length is not in its shortest form",
        id="5.2-65535-in-64-bits",
    ),
    pytest.param(
        "82 ff 8000000000000000", ANY, [], ProtocolError, "length has its highest bit set", id="5.2-highest-bit"
    ),
    pytest.param(
        "82 ff ffffffffffffffff", AT_MOST_10, [], ProtocolError, "length has its highest bit set", id="5.2-all-bits"
    ),
    pytest.param("82 8b", AT_MOST_10, [], MessageTooBig, "message of more than 10 bytes", id="7.4.1-1009"),
    pytest.param("01 8b", AT_MOST_10, [], MessageTooBig, "message of more than 10 bytes", id="7.4.1-1009-fragment"),
    pytest.param("82 fe 0100", AT_MOST_10, [], MessageTooBig, "message of more than 10 bytes", id="7.4.1-1009-16-bits"),
    pytest.param(
        "82 ff 7fffffffffffffff",
        AT_MOST_10,
        [],
        MessageTooBig,
        "message of more than 10 bytes",
        id="7.4.1-1009-largest-length",
    ),
    pytest.param(
        f"02 86 {KEY_OF_ZEROS} 616161616161  80 85",
        AT_MOST_10,
        [Frame(Opcode.BINARY, b"a" * 6, fin=False)],
        MessageTooBig,
        "message of more than 10 bytes",
        id="7.4.1-1009-over-fragments",
    ),
    pytest.param(
        f"02 86 {KEY_OF_ZEROS} 616161616161  00 84 {KEY_OF_ZEROS} 61616161  89 80 {KEY_OF_ZEROS}  80 81",
        AT_MOST_10,
        [
            Frame(Opcode.BINARY, b"a" * 6, fin=False),
            Frame(Opcode.CONTINUATION, b"a" * 4, fin=False),
            Frame(Opcode.PING, b""),
        ],
        MessageTooBig,
        "message of more than 10 bytes",
        id="7.4.1-1009-over-three-fragments",
    ),
    pytest.param(
        "82 81", Options(max_message_size=0), [], MessageTooBig, "message of more than 0 bytes", id="7.4.1-1009-limit-0"
    ),
]


@pytest.mark.parametrize(("wire", "options", "frames", "error", "message"), REFUSED)
def test_byte_that_breaks_a_rule_is_refused_and_none_before_it(
    wire: str, options: Options, frames: list[Frame], error: type[ProtocolError], message: str
) -> None:
    data = bytes.fromhex(wire)

    assert parse([data[:-1]], options) == Parsed(frames)
    assert parse([data], options) == Parsed(frames, error, message)


@pytest.mark.parametrize(("wire", "options", "frames", "error", "message"), REFUSED)
def test_bytes_that_break_a_rule_cut_at_every_byte_are_refused_the_same(
    wire: str, options: Options, frames: list[Frame], error: type[ProtocolError], message: str
) -> None:
    expected = joined(Parsed(frames, error, message))

    for pieces in cuts(bytes.fromhex(wire)):
        assert joined(parse(pieces, options)) == expected, pieces


def test_largest_length_is_accepted_where_there_is_no_limit() -> None:
    """5.2: 63 bits may be used."""
    wire = bytes.fromhex("82 ff 7fffffffffffffff 00000000 61")

    assert parse([wire], ANY) == Parsed([Frame(Opcode.BINARY, b"a", fin=False)])


def test_data_frame_is_given_in_the_parts_that_arrive() -> None:
    """5.4: an intermediary may fragment a message just so."""
    pieces = split(bytes.fromhex("81 85 37fa213d 7f9f4d5158"), [6, 7, 9])

    assert parse(pieces, ANY) == Parsed(
        [
            Frame(Opcode.TEXT, b"H", fin=False),
            Frame(Opcode.CONTINUATION, b"el", fin=False),
            Frame(Opcode.CONTINUATION, b"lo", fin=True),
        ]
    )


def test_parts_of_a_first_fragment_leave_the_message_open() -> None:
    pieces = split(bytes.fromhex("01 83 37fa213d 7f9f4d"), [7])

    assert parse(pieces, ANY) == Parsed(
        [Frame(Opcode.TEXT, b"H", fin=False), Frame(Opcode.CONTINUATION, b"el", fin=False)]
    )


def test_rsv1_is_on_the_first_part_alone() -> None:
    """RFC 7692, 6: as on the fragments of a message."""
    pieces = split(bytes.fromhex("c1 83 37fa213d 7f9f4d"), [7])

    assert parse(pieces, RSV1) == Parsed(
        [Frame(Opcode.TEXT, b"H", fin=False, rsv1=True), Frame(Opcode.CONTINUATION, b"el")]
    )


def test_control_frame_is_given_whole() -> None:
    wire = bytes.fromhex("89 85 37fa213d 7f9f4d5158")

    assert parse([wire[:-1]], ANY) == Parsed([])
    assert parse(split(wire, [6, 8, 10]), ANY) == Parsed([Frame(Opcode.PING, b"Hello")])


def test_parser_without_bytes_needs_more() -> None:
    assert Parser().next_frame() is None


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_anything_bytes_like_can_be_fed(kind: type) -> None:
    parser = Parser()

    parser.feed(kind(bytes.fromhex("81 85 37fa213d 7f9f4d5158")))

    assert parser.next_frame() == Frame(Opcode.TEXT, b"Hello")


def test_fed_bytes_may_change_afterwards() -> None:
    """A reader may read into one buffer again and again."""
    parser, buffer = Parser(), bytearray.fromhex("81 85 37fa213d 7f9f4d5158")

    parser.feed(buffer)
    buffer[:] = bytes(len(buffer))

    assert parser.next_frame() == Frame(Opcode.TEXT, b"Hello")


def test_payload_that_is_given_is_not_changed_by_what_follows() -> None:
    parser = Parser()
    parser.feed(frame(TEXT, b"first"))
    first = parser.next_frame()

    parser.feed(frame(TEXT, b"other"))

    assert parser.next_frame() == Frame(Opcode.TEXT, b"other")
    assert first == Frame(Opcode.TEXT, b"first")


@pytest.mark.parametrize("limit", [1 << 63, 1 << 70])
def test_limit_may_be_larger_than_any_message(limit: int) -> None:
    parser = Parser(max_message_size=limit)
    parser.feed(frame(BINARY, bytes(11)))
    assert parser.next_frame() == Frame(Opcode.BINARY, bytes(11))


@pytest.mark.parametrize("rest", [0, 1, 6, 7, 20])
def test_a_few_bytes_that_wait_for_more_do_not_hold_what_was_read_with_them(rest: int) -> None:
    parser = Parser(gather_binary=True)
    parser.feed(frame(BINARY, bytes(100_000)) + frame(PING, bytes(100))[:rest])

    frames = list(iter(parser.next_frame, None))

    assert len(frames) == 1
    assert len(parser.buffered) <= rest


def test_limit_may_change_between_messages() -> None:
    parser = Parser(max_message_size=None)
    parser.feed(frame(BINARY, bytes(11)))
    assert parser.next_frame() == Frame(Opcode.BINARY, bytes(11))

    parser.max_message_size = 10
    parser.feed(frame(BINARY, bytes(11)))

    with pytest.raises(MessageTooBig):
        parser.next_frame()


@given(st.data(), keys, st.lists(st.binary(max_size=200), min_size=1, max_size=5), st.booleans())
def test_fragments_with_control_frames_between_them_come_out_as_they_went_in(
    data: st.DataObject, key: bytes, payloads: list[bytes], rsv1: bool
) -> None:
    wire = b""
    for i, payload in enumerate(payloads):
        fin = i == len(payloads) - 1
        wire += frame(CONTINUATION if i else BINARY, payload, fin=fin, rsv=4 * (rsv1 and not i), mask=key)
        wire += frame(PING, bytes([i]), mask=key)

    parsed = joined(parse(data.draw(pieces_of(wire)), RSV1))

    pings = [Frame(Opcode.PING, bytes([i])) for i in range(len(payloads))]
    assert parsed == Parsed([Frame(Opcode.BINARY, b"".join(payloads), rsv1=rsv1), *pings])


@given(st.lists(st.integers(0, 300), min_size=1, max_size=5), st.integers(0, 1000))
def test_limit_refuses_exactly_the_messages_that_announce_more(sizes: list[int], limit: int) -> None:
    """Headers alone are fed: the sizes are announced, and no payload of the last one arrives."""
    *before, last = sizes
    wire = b"".join(frame(CONTINUATION if i else BINARY, bytes(size), fin=False) for i, size in enumerate(before))
    wire += head(CONTINUATION if before else BINARY, last)

    parsed = parse([wire], Options(max_message_size=limit))

    too_big = sum(sizes) > limit
    assert parsed.error is (MessageTooBig if too_big else None)


@given(keys, st.binary(max_size=60))
def test_any_key_is_taken_off(key: bytes, payload: bytes) -> None:
    wire = bytes([0x82, 0x80 + len(payload)]) + key + mask(payload, key)

    assert parse([wire], ANY) == Parsed([Frame(Opcode.BINARY, payload)])


@given(st.data(), garbage, st.sampled_from([ANY, RSV1, AT_MOST_10]))
def test_any_garbage_cut_anywhere_gives_the_same(data: st.DataObject, wire: bytes, options: Options) -> None:
    assert joined(parse(data.draw(pieces_of(wire)), options)) == joined(parse([wire], options))
