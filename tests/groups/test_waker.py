"""A loop that polls is woken."""

from __future__ import annotations

import select

from dwebsocket.groups.waker import Waker


def is_ready(waker: Waker) -> bool:
    return bool(select.select([waker], [], [], 0)[0])


def test_wake_up_is_sent_once_until_it_is_taken() -> None:
    waker = Waker()
    assert not is_ready(waker)
    for _ in range(3):
        waker.wake()
    assert waker._alarm.recv(64) == b"\0"
    waker.wake()
    assert not is_ready(waker)
    waker.take()
    waker.wake()
    assert waker._alarm.recv(64) == b"\0"
    waker.close()


def test_loop_that_must_end_is_woken_again() -> None:
    waker = Waker()
    waker.wake()
    waker.wake(again=True)
    assert waker._alarm.recv(64) == b"\0\0"
    waker.close()


def test_full_and_closed_sockets_hold_no_caller_up() -> None:
    waker = Waker()
    for _ in range(100_000):
        waker.wake(again=True)
    while is_ready(waker):
        waker.take()
    waker.close()
    waker.wake()
    waker.take()
