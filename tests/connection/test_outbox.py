"""What waits to leave: bytes go in, bytes go out. No socket, no sleep."""

from __future__ import annotations

import pytest

from dwebsocket.connection.outbox import Outbox
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
    outbox.put_behind(b"frame")
    outbox.pong_later(b"pong")
    outbox.end(error)

    assert outbox.error is error
    assert outbox.waiting == 0
    assert outbox.left < outbox.mark
    assert outbox.take_late_pongs() == b""
    mark = outbox.mark
    outbox.put(b"too late")
    outbox.release()
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


@pytest.mark.parametrize(
    ("waiting", "behind", "size", "fits"),
    [
        (0, 0, 10, True),
        (0, 0, 101, True),  # else it could never be sent
        (40, 0, 60, True),
        (40, 0, 61, False),
        (0, 40, 60, True),
        (0, 40, 61, False),
        (20, 20, 60, True),
        (20, 20, 61, False),
        (200, 0, 1, False),
    ],
)
def test_what_fits_is_bounded_in_bytes(waiting: int, behind: int, size: int, fits: bool) -> None:
    outbox = Outbox(NOW)
    outbox.put(bytes(waiting))
    if behind:
        outbox.put_behind(bytes(behind))

    assert outbox.fits(size, 100) is fits


def test_frames_behind_a_message_in_fragments_leave_when_it_has_its_end() -> None:
    outbox = Outbox(NOW)
    outbox.put(b"fragment ")
    outbox.put_behind(b"frame 1 ")
    outbox.put_behind(b"frame 2")
    outbox.put(b"last fragment ")
    assert outbox.waiting == len(b"fragment last fragment ")
    assert not outbox.is_done
    outbox.release()

    assert drain(outbox, 5) == b"fragment last fragment frame 1 frame 2"
    assert outbox.is_done
    outbox.release()
    assert outbox.is_done


def test_frames_behind_a_message_that_found_no_end_are_dropped() -> None:
    outbox = Outbox(NOW)
    outbox.put_behind(b"frame")
    outbox.release(drop=True)

    assert outbox.is_done
