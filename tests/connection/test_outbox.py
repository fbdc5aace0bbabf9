"""What waits to leave: bytes go in, bytes go out. No socket, no sleep."""

from __future__ import annotations

import math
from random import Random

import pytest

from dwebsocket.connection.limits import Bound
from dwebsocket.connection.outbox import NO_ROOM, OVERFLOWS, Outbox
from dwebsocket.protocol.exceptions import SendTimeout, WebSocketClosed

NOW = 1000.0
JOINED = 64 * 1024


def drain(outbox: Outbox, at_once: int) -> bytes:
    """What leaves through a kernel that takes `at_once` bytes in each call."""
    left = b""
    while outbox.waiting:
        taken = bytes(outbox.first()[:at_once])
        left += taken
        outbox.sent(len(taken), NOW)
    return left


def test_new_outbox_has_nothing() -> None:
    outbox = Outbox(NOW)

    assert (outbox.waiting, outbox.left, outbox.mark, outbox.error) == (0, 0, 0, None)
    assert outbox.last_progress_at == NOW
    assert outbox.is_done


@pytest.mark.parametrize("sent", range(9))
def test_first_bytes_that_have_left_already_are_not_sent_again(sent: int) -> None:
    outbox = Outbox(NOW)
    outbox.put(b"head", b"body", sent)

    assert outbox.waiting == outbox.mark == 8 - sent
    assert drain(outbox, 100) == b"headbody"[sent:]


@pytest.mark.parametrize("at_once", [1, 3, 7, 10_000])
def test_bytes_leave_whole_and_in_their_order_however_little_the_kernel_takes(at_once: int) -> None:
    outbox = Outbox(NOW)
    pieces = [bytes([number]) * (number * 13 % 50) for number in range(60)]
    for piece in pieces:
        outbox.put(piece)

    assert drain(outbox, at_once) == b"".join(pieces)
    assert outbox.left == outbox.mark == sum(map(len, pieces))
    assert outbox.is_done


def test_sender_knows_by_its_mark_when_its_own_bytes_have_left() -> None:
    outbox = Outbox(NOW)
    outbox.put(b"of one sender")
    mark = outbox.mark
    outbox.put(b"of the next")
    outbox.first()
    outbox.sent(len(b"of one sende"), NOW)
    assert outbox.left < mark
    outbox.sent(1, NOW)

    assert outbox.left == mark < outbox.mark


def test_progress_is_when_bytes_last_left() -> None:
    outbox = Outbox(NOW)
    outbox.put(b"bytes")
    assert outbox.last_progress_at == NOW
    outbox.sent(1, NOW + 5)
    outbox.put(b"more")

    assert outbox.last_progress_at == NOW + 5


def test_small_pieces_leave_together() -> None:
    outbox = Outbox(NOW)
    for number in range(100):
        outbox.put(b"%4d" % number)

    assert len(outbox.first()) == 400


def test_large_piece_is_not_copied_behind_a_small_one() -> None:
    outbox = Outbox(NOW)
    large = bytes(1 << 20)
    outbox.put(b"head", large)

    assert outbox.first() == b"head"
    outbox.sent(4, NOW)
    assert outbox.first() is large


@pytest.mark.parametrize("more", [b"x", b"x" * JOINED])
def test_what_tls_has_refused_is_offered_again_with_nothing_less(more: bytes) -> None:
    outbox = Outbox(NOW)
    outbox.put(b"first ", b"second ")
    refused = bytes(outbox.first())
    outbox.put(more)

    assert bytes(outbox.first()).startswith(refused)


# The end of it


@pytest.mark.parametrize("error", [WebSocketClosed, SendTimeout])
def test_nothing_leaves_after_the_end_and_the_sender_sees_that_it_has_not(error: type[WebSocketClosed]) -> None:
    outbox = Outbox(NOW)
    outbox.put(b"waiting")
    outbox.offer(b"frame", 1, NOW, CLOSE, "", behind=True)
    outbox.pong_later(b"pong")
    outbox.end(error)

    assert outbox.error is error
    assert outbox.waiting == 0
    assert outbox.left < outbox.mark
    assert outbox.take_late_pongs() == b""
    mark = outbox.mark
    outbox.put(b"too late")
    outbox.release(NOW)
    assert (outbox.waiting, outbox.mark) == (0, mark + 8)


def test_first_reason_for_the_end_stays() -> None:
    outbox = Outbox(NOW)
    outbox.end(SendTimeout)
    outbox.end(WebSocketClosed)

    assert outbox.error is SendTimeout


def test_outbox_that_has_ended_is_kept_for_it_says_so() -> None:
    outbox = Outbox(NOW)
    outbox.end(WebSocketClosed)

    assert not outbox.is_done


# Late pongs


def test_latest_pongs_are_kept_and_given_once() -> None:
    outbox = Outbox(NOW)
    outbox.pong_later(b"first")
    outbox.pong_later(b"latest")

    assert not outbox.is_done
    assert [outbox.take_late_pongs() for _ in range(2)] == [b"latest", b""]
    assert outbox.is_done


# Frames that are offered


#: The kernel takes nothing: "a" has begun to leave, the others have not.
CLOSE, DROP_NEW, DROP_OLDEST, LATEST = (Bound(100, 10, overflow) for overflow in OVERFLOWS)


def slow(*offers: str, bound: Bound = DROP_OLDEST, each: int = 20, seconds: float = 0) -> Outbox:
    """An outbox with offers of so many bytes, which came `seconds` after each other; the first has begun to leave."""
    outbox = Outbox(NOW)
    for number, name in enumerate(offers):
        if number:
            outbox.offer(name.encode() * each, 1, NOW + number * seconds, bound, name)
        else:
            outbox.put(name.encode() * each)
            outbox.has_begun(each, 1, NOW, bound)
    return outbox


def names(outbox: Outbox, each: int = 20) -> str:
    return drain(outbox, 100_000).decode()[::each]


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize(
    ("waiting", "size", "fits"),
    [
        ([], 101, True),  # else it could never be sent
        ([40], 60, True),
        ([40], 61, False),
        ([20, 20], 60, True),
        ([20, 20], 61, False),
        ([200], 1, False),
    ],
)
def test_what_fits_is_bounded_in_bytes(waiting: list[int], behind: bool, size: int, fits: bool) -> None:
    outbox = Outbox(NOW)
    for count in waiting:
        outbox.offer(bytes(count), 1, NOW, CLOSE, "", behind)

    assert outbox.fits(size, NOW, CLOSE) is fits


def test_only_what_was_offered_and_has_not_left_counts() -> None:
    outbox = Outbox(NOW)
    outbox.put(bytes(1000))  # a view's own message
    assert outbox.fits(500, NOW, CLOSE)
    outbox.offer(bytes(500), 1, NOW, CLOSE, "")
    assert not outbox.fits(1, NOW, CLOSE)
    outbox.first()
    outbox.sent(1450, NOW)

    assert outbox.fits(50, NOW, CLOSE)
    assert not outbox.fits(51, NOW, CLOSE)


def test_rest_of_what_the_kernel_took_in_part_counts() -> None:
    outbox = Outbox(NOW)
    outbox.put(b"answers" + bytes(90), b"", 7)
    outbox.has_begun(60, 1, NOW, CLOSE)

    assert outbox.fits(40, NOW, CLOSE)
    assert not outbox.fits(41, NOW, CLOSE)


@pytest.mark.parametrize(
    ("seconds", "bytes_later", "fits"), [(10, 0, True), (10.1, 0, False), (10.1, 19, False), (10.1, 20, True)]
)
def test_what_fits_is_bounded_by_the_age_of_the_oldest(seconds: float, bytes_later: int, fits: bool) -> None:
    outbox = slow("a", "b", bound=CLOSE, seconds=5)
    if bytes_later:
        outbox.sent(bytes_later, NOW + 9)  # a peer that takes a byte now and then is slow, too

    assert outbox.fits(1, NOW + seconds, CLOSE) is fits


@pytest.mark.parametrize("overflow", OVERFLOWS)
@pytest.mark.parametrize(
    ("offers", "size", "dropped"),
    [
        (["a", "b"], 60, {}),
        (["a", "b", "c"], 40, {}),
        (["a", "b", "c"], 41, {"drop_oldest": "b", "latest": "b"}),
        (["a", "b", "c"], 61, {"drop_oldest": "bc", "latest": "bc"}),
        (["a", "b", "c", "d", "e"], 20, {"drop_oldest": "b", "latest": "b"}),
        (["a", "b"], 90, {"drop_oldest": None, "latest": None}),  # "a" has begun to leave, and they would not fit
    ],
)
def test_offer_that_does_not_fit_drops_the_oldest_where_its_bound_says_so(
    offers: list[str], size: int, dropped: dict[str, str | None], overflow: str
) -> None:
    bound = Bound(100, 10, overflow)
    outbox = slow(*offers, bound=bound)
    overflows = len(offers) * 20 + size > 100
    victims = dropped.get(overflow) if overflows else ""

    assert outbox.make_room(size, NOW, bound, "z") == (NO_ROOM if victims is None else len(victims))
    assert names(outbox) == "".join(name for name in offers if name not in (victims or ""))
    assert outbox.is_done


@pytest.mark.parametrize("bound", [DROP_OLDEST, LATEST])
def test_what_is_too_old_is_dropped_though_there_is_room(bound: Bound) -> None:
    outbox = slow("a", "b", "c", "d", bound=bound, seconds=1)

    assert outbox.make_room(1, NOW + 12, bound, "z") == 1
    assert names(outbox) == "acd"


@pytest.mark.parametrize("bound", [CLOSE, DROP_NEW])
def test_offer_is_refused_while_something_is_too_old(bound: Bound) -> None:
    outbox = slow("a", "b", bound=bound)

    assert outbox.make_room(1, NOW + 10, bound, "") == 0
    assert outbox.make_room(1, NOW + 10.1, bound, "") == NO_ROOM
    assert names(outbox) == "ab"


def test_count_of_what_was_dropped_is_that_of_messages() -> None:
    outbox = slow("a")
    outbox.offer(bytes(50), 7, NOW, DROP_OLDEST, "")

    assert outbox.make_room(50, NOW, DROP_OLDEST, "") == 7


@pytest.mark.parametrize("other", [CLOSE, DROP_NEW])
def test_what_was_offered_to_be_kept_is_not_dropped_for_another(other: Bound) -> None:
    outbox = slow("a", "b", bound=other)
    outbox.offer(b"c" * 20, 1, NOW, DROP_OLDEST, "")

    assert outbox.make_room(61, NOW, DROP_OLDEST, "") == NO_ROOM
    assert outbox.make_room(60, NOW, DROP_OLDEST, "") == 1
    assert names(outbox) == "ab"


@pytest.mark.parametrize(
    ("key", "left", "count"),
    [("b", "acd", 1), ("d", "abc", 1), ("a", "abcd", 0), ("new", "abcd", 0), ("", "abcd", 0)],
)
def test_latest_replaces_what_waits_with_the_same_key_and_has_not_begun(key: str, left: str, count: int) -> None:
    outbox = slow("a", "b", "c", "d", bound=LATEST)

    assert outbox.make_room(20, NOW, LATEST, key) == count
    assert names(outbox) == left


def test_latest_replaces_only_the_latest_of_a_key_that_has_left() -> None:
    outbox = slow("a", "b", bound=LATEST)
    drain(outbox, 7)
    outbox.offer(b"x", 1, NOW, LATEST, "b")
    outbox.first()
    outbox.offer(b"y", 1, NOW, LATEST, "b")

    assert outbox.make_room(1, NOW, LATEST, "b") == 1
    assert names(outbox, 1) == "x"


def test_keys_of_what_was_not_offered_as_latest_do_not_count() -> None:
    outbox = slow("a", "b", "b", bound=DROP_OLDEST)

    assert outbox.make_room(1, NOW, LATEST, "b") == 0


def test_what_does_not_fit_as_latest_drops_the_oldest_and_its_own_key() -> None:
    outbox = slow("a", "b", "c", "d", "e", bound=LATEST)

    assert outbox.make_room(40, NOW, LATEST, "d") == 2
    assert names(outbox) == "ace"


@pytest.mark.parametrize("at_once", [1, 3, 19, 20, 21, 1000])
def test_marks_of_senders_stay_right_where_offers_between_them_are_dropped(at_once: int) -> None:
    outbox = Outbox(NOW)
    pieces = {"1": "own", "a": "offered", "2": "own", "b": "offered", "c": "offered", "3": "own", "d": "offered"}
    marks: dict[str, int] = {}
    for name, kind in pieces.items():
        if kind == "own":
            outbox.put(name.encode() * 20)
            marks[name] = outbox.mark
        else:
            outbox.offer(name.encode() * 20, 1, NOW, DROP_OLDEST, "")
        if name == "1":
            outbox.first()  # the kernel took nothing
    assert outbox.make_room(90, NOW, DROP_OLDEST, "") == 4
    left = ""
    while outbox.waiting:
        taken = bytes(outbox.first()[:at_once])
        left += taken.decode()
        outbox.sent(len(taken), NOW)
        for name, mark in marks.items():
            assert (outbox.left >= mark) is (left.count(name) == 20)
    assert left == "1" * 20 + "2" * 20 + "3" * 20
    assert outbox.is_done


def test_what_tls_has_been_shown_is_not_dropped() -> None:
    outbox = Outbox(NOW)
    for name in "abc":
        outbox.offer(name.encode() * 20, 1, NOW, DROP_OLDEST, "")
    refused = bytes(outbox.first())
    outbox.offer(b"d" * 20, 1, NOW, DROP_OLDEST, "")

    assert outbox.make_room(40, NOW, DROP_OLDEST, "") == 1
    assert bytes(outbox.first()) == refused == b"a" * 20 + b"b" * 20 + b"c" * 20


def test_peer_is_overdue_where_what_must_not_be_dropped_has_waited_too_long() -> None:
    outbox = Outbox(NOW)
    outbox.offer(bytes(20), 1, NOW, DROP_OLDEST, "")
    assert outbox.overdue_at == math.inf
    outbox.offer(bytes(20), 1, NOW + 1, CLOSE, "")
    outbox.offer(bytes(20), 1, NOW + 2, CLOSE, "")
    assert outbox.overdue_at == NOW + 11
    assert not outbox.is_overdue(NOW + 10.9)
    assert outbox.is_overdue(NOW + 11)
    outbox.first()
    outbox.sent(40, NOW + 11)

    assert not outbox.is_overdue(NOW + 11)
    assert outbox.overdue_at == NOW + 12
    assert drain(outbox, 20)
    assert not outbox.is_overdue(NOW + 12)
    assert outbox.overdue_at == math.inf


def test_rest_of_what_the_kernel_took_in_part_may_be_overdue() -> None:
    outbox = Outbox(NOW)
    outbox.put(bytes(50), b"", 30)
    outbox.has_begun(50, 1, NOW, CLOSE)

    assert outbox.is_overdue(NOW + 10)


def test_time_of_an_offer_behind_a_message_in_fragments_begins_with_the_end_of_that_message() -> None:
    """The view is slow, and not the peer."""
    outbox = Outbox(NOW)
    outbox.offer(b"frame", 1, NOW, CLOSE, "", behind=True)
    assert not outbox.is_overdue(NOW + 100)
    assert outbox.fits(1, NOW + 100, CLOSE)
    outbox.release(NOW + 100)

    assert outbox.overdue_at == NOW + 110


def test_all_that_was_offered_and_has_not_begun_is_dropped_for_the_close_frame() -> None:
    outbox = slow("a", "b", bound=CLOSE)
    outbox.put(b"own" * 10)
    outbox.offer(b"behind", 1, NOW, CLOSE, "", behind=True)
    outbox.drop_offers()

    assert drain(outbox, 7) == b"a" * 20 + b"own" * 10
    assert outbox.is_done


def test_nothing_is_offered_where_there_is_nothing_or_the_end_has_come() -> None:
    outbox = Outbox(NOW)
    outbox.offer(b"", 1, NOW, LATEST, "a")
    outbox.end(WebSocketClosed)
    outbox.offer(b"late", 1, NOW, LATEST, "a")
    outbox.has_begun(4, 1, NOW, CLOSE)

    assert outbox.make_room(4, NOW, LATEST, "a") == 0
    assert outbox.overdue_at == math.inf


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_offers_drops_and_bytes_agrees_with_a_plain_list(seed: int) -> None:
    random = Random(seed)
    outbox, expected, left = Outbox(NOW), b"", b""
    plain: list[tuple[bytes, bool]] = []  # what has not begun to leave, and whether it may be dropped
    for step in range(300):
        name = b"%4d" % step
        if random.random() < 0.3 and outbox.waiting:
            shown = bytes(outbox.first())
            while plain and len(expected) < len(left) + len(shown):
                expected += plain.pop(0)[0]
            taken = shown[: random.randrange(len(shown)) + 1]
            left += taken
            outbox.sent(len(taken), NOW)
        elif random.random() < 0.3:
            outbox.put(name)
            plain.append((name, False))
        elif (dropped := outbox.make_room(4, NOW, Bound(60, 10, "drop_oldest"), "")) != NO_ROOM:
            for _ in range(dropped):
                plain.remove(next(entry for entry in plain if entry[1]))
            outbox.offer(name, 1, NOW, DROP_OLDEST, "")
            plain.append((name, True))
        assert outbox.waiting == len(expected) - len(left) + 4 * len(plain)
    assert left + drain(outbox, 3) == expected + b"".join(name for name, _ in plain)
    assert outbox.is_done


def test_frames_behind_a_message_in_fragments_leave_when_it_has_its_end() -> None:
    outbox = Outbox(NOW)
    outbox.put(b"fragment ")
    outbox.offer(b"frame 1 ", 1, NOW, CLOSE, "", behind=True)
    outbox.offer(b"frame 2", 1, NOW, CLOSE, "", behind=True)
    outbox.put(b"last fragment ")
    assert outbox.waiting == len(b"fragment last fragment ")
    assert not outbox.is_done
    outbox.release(NOW)

    assert drain(outbox, 5) == b"fragment last fragment frame 1 frame 2"
    assert outbox.is_done
    outbox.release(NOW)
    assert outbox.is_done


@pytest.mark.parametrize("key", ["1", "2"])
def test_frames_behind_a_message_in_fragments_can_be_replaced(key: str) -> None:
    outbox = Outbox(NOW)
    for number in "123":
        outbox.offer(number.encode(), 1, NOW, LATEST, number, behind=True)
    assert outbox.make_room(1, NOW, LATEST, key) == 1
    outbox.release(NOW)

    assert drain(outbox, 5).decode() == "123".replace(key, "")


def test_frames_behind_a_message_that_found_no_end_are_dropped() -> None:
    outbox = Outbox(NOW)
    outbox.offer(b"frame", 1, NOW, CLOSE, "", behind=True)
    outbox.release(NOW, drop=True)

    assert outbox.is_done
