from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from dwebsocket.groups.redis.pool import Pool
from dwebsocket.groups.redis.wire import Wire
from tests.links import until

NewPool = Callable[..., Pool]


class Connector:
    """Makes wires over socket pairs; `gate` holds up what is being made, `error` fails it."""

    def __init__(self) -> None:
        self.ends: list[socket.socket] = []
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self) -> Wire:
        self.gate.wait(10)
        if self.error is not None:
            raise self.error
        ours, theirs = socket.socketpair()
        self.ends.append(theirs)
        return Wire(ours)


@pytest.fixture
def connector() -> Iterator[Connector]:
    made = Connector()
    yield made
    made.gate.set()
    for end in made.ends:
        end.close()


def within(seconds: float) -> float:
    return time.monotonic() + seconds


def test_wire_that_is_given_back_is_used_again(connector: Connector) -> None:
    pool = Pool(connector, 2)
    first = pool.take(within(5))
    pool.give(first)

    assert pool.take(within(5)) is first
    pool.discard(first)
    assert len(connector.ends) == 1


def test_no_more_than_the_bound_are_made_and_a_waiter_gets_the_next(connector: Connector) -> None:
    pool = Pool(connector, 1)
    wire = pool.take(within(5))
    with pytest.raises(TimeoutError):
        pool.take(within(0.05))
    taken: list[Wire] = []
    thread = threading.Thread(target=lambda: taken.append(pool.take(within(10))))
    thread.start()
    until(lambda: pool._waiting)
    pool.give(wire)
    thread.join()

    assert taken == [wire]
    pool.discard(wire)


def test_place_of_a_discarded_wire_is_free(connector: Connector) -> None:
    pool = Pool(connector, 1)
    wire = pool.take(within(5))
    threading.Timer(0.05, pool.discard, [wire]).start()
    other = pool.take(within(10))

    assert other is not wire
    pool.discard(other)


def test_failure_to_connect_is_raised_and_frees_its_place(connector: Connector) -> None:
    pool = Pool(connector, 1)
    connector.error = ValueError("no")
    for _ in range(3):
        with pytest.raises(ValueError, match="no"):
            pool.take(within(5))
    connector.error = None

    pool.discard(pool.take(within(5)))


def test_connection_that_takes_too_long_serves_the_next_one(connector: Connector) -> None:
    pool = Pool(connector, 1)
    connector.gate.clear()
    with pytest.raises(TimeoutError):
        pool.take(within(0.05))
    with pytest.raises(TimeoutError):
        pool.take(within(0.05))
    connector.gate.set()
    wire = pool.take(within(10))

    assert len(connector.ends) == 1
    pool.discard(wire)


def test_idle_wires_are_closed_together(connector: Connector) -> None:
    pool = Pool(connector, 3)
    wires = [pool.take(within(5)) for _ in range(3)]
    for wire in wires[:2]:
        pool.give(wire)
    pool.discard_idle()

    assert [wire.socket.fileno() == -1 for wire in wires] == [True, True, False]
    pool.discard(wires[2])


def test_closed_pool_keeps_no_wire(connector: Connector) -> None:
    pool = Pool(connector, 2)
    idle, taken = pool.take(within(5)), pool.take(within(5))
    pool.give(idle)
    pool.close()
    pool.give(taken)

    assert idle.socket.fileno() == taken.socket.fileno() == -1


def test_many_threads_share_few_wires(connector: Connector) -> None:
    pool = Pool(connector, 3)
    in_use: set[Wire] = set()
    faults: list[Wire] = []

    def work() -> None:
        for turn in range(50):
            wire = pool.take(within(20))
            if wire in in_use:
                faults.append(wire)
            in_use.add(wire)
            time.sleep(0)
            in_use.remove(wire)
            if turn % 10 == 9:
                pool.discard(wire)
            else:
                pool.give(wire)

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert not faults
    assert not any(thread.is_alive() for thread in threads)
    assert pool._count == len(pool._idle) <= 3
    pool.close()


def test_child_has_its_wires_and_leaves_those_of_its_parent(connector: Connector) -> None:
    pool = Pool(connector, 1)
    pool.give(pool.take(within(5)))
    held = pool._idle[0]
    with pool._changed:  # the child finds it taken, by a thread that it does not have
        child = os.fork()
        if not child:
            status = 1
            try:
                wire = pool.take(within(5))
                status = 0 if wire is not held and held.socket.fileno() == -1 else 2
            finally:
                os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    connector.ends[0].setblocking(False)
    with pytest.raises(BlockingIOError):  # neither bytes nor an end
        connector.ends[0].recv(1)
    assert pool.take(within(5)) is held
    pool.discard(held)


def test_wire_that_leads_elsewhere_is_not_used_again(connector: Connector) -> None:
    current: list[Wire] = []
    pool = Pool(connector, 2, lambda wire: wire in current)
    pool._connect = lambda: current.append(made := connector()) or made  # type: ignore[func-returns-value]
    taken, idle = pool.take(within(10)), pool.take(within(10))
    pool.give(idle)
    current.clear()
    pool.give(taken)
    fresh = pool.take(within(10))

    assert fresh not in (taken, idle)
    assert (taken.socket.fileno(), idle.socket.fileno()) == (-1, -1)
    assert pool._count == 1
    pool.give(fresh)
    assert pool.take(within(10)) is fresh


def test_wire_that_leads_elsewhere_when_it_is_made_is_not_used(connector: Connector) -> None:
    made = iter((False, True))
    pool = Pool(connector, 1, lambda wire: next(made))

    assert pool.take(within(10)).socket.fileno() != -1
    assert len(connector.ends) == 2
    assert pool._count == 1
