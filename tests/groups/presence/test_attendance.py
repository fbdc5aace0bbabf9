"""Who of a process is present: it enters, leaves, renews its lease, and comes back after it has slept."""

from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import pytest

from dwebsocket import GroupsUnavailable
from dwebsocket.groups.backend import Departed, GroupsBackend, Lapsed, Presence, Present, Renewal
from dwebsocket.groups.config import DEFAULTS
from dwebsocket.groups.presence import attendance
from dwebsocket.groups.presence.attendance import Attendance
from tests.links import PATIENCE_SECONDS, ROOT, until

ROOM = "room:7"
Told = tuple[str, list[str], list[str]]


def anne(number: int = 1, info: str = "1", group: str = ROOM) -> Presence:
    """One of the WebSockets of a user."""
    return Presence(group, f"node:{number}", "uanne", info)


def user(number: int, group: str = ROOM) -> Presence:
    """A user with one WebSocket."""
    return Presence(group, f"node:{number}", f"u{number}", "1")


def guest(number: int) -> Presence:
    return Presence(ROOM, f"node:{number}", f"snode:{number}", "1")


class Register(GroupsBackend):
    """A backend with a lease that ends by the clock of the test. `calls` has all that it was asked."""

    def __init__(self, settings: dict[str, Any], clock: Callable[[], float]) -> None:
        super().__init__("default", {**DEFAULTS, **settings})
        self.clock = clock
        self.until = -1.0
        self.present: dict[tuple[str, str], Presence] = {}
        self.users: Counter[tuple[str, str]] = Counter()  # how many are present of each
        self.calls: list[tuple[str, Any]] = []
        self.failure: Exception | None = None  # of each call
        self.failures: deque[Exception] = deque()  # of the next attend()s
        self.renewal = Renewal(has_lapsed=False)  # the test's part of the answer
        self.gates: deque[Gate] = deque()  # at which the next calls wait
        self.pause: Callable[[], None] = lambda: None
        self._mutex = threading.RLock()

    def _called(self, what: str, arguments: Any) -> None:
        with self._mutex:
            self.calls.append((what, arguments))
            gate = self.gates.popleft() if self.gates else None
        if gate is not None:
            gate.wait()
        self.pause()
        if self.failure is not None:
            raise self.failure

    def renew(self) -> Renewal:
        self._called("renew", None)
        with self._mutex:
            has_lapsed = self._lapse()
            self.until = self.clock() + self.settings["LEASE"]
            renewal, self.renewal = self.renewal, Renewal(False, (), self.renewal.next_seconds)
            return renewal._replace(has_lapsed=has_lapsed)

    def attend(self, enter: Sequence[Presence], leave: Sequence[Presence]) -> list[bool]:
        self._called("attend", ([*enter], [*leave]))
        if self.failures:
            raise self.failures.popleft()
        with self._mutex:
            if self._lapse():
                raise Lapsed
            return [*map(self._enter, enter), *map(self._leave, leave)]

    def resign(self, grace_seconds: float) -> None:
        self._called("resign", grace_seconds)

    def _lapse(self) -> bool:
        if self.clock() < self.until:
            return False
        self.present.clear()
        self.users.clear()
        return True

    def _enter(self, presence: Presence) -> bool:
        is_first = (presence.group, presence.user) not in self.users
        self._leave(presence)
        self.present[presence.group, presence.socket] = presence
        self.users[presence.group, presence.user] += 1
        return is_first

    def _leave(self, presence: Presence) -> bool:
        there = self.present.pop((presence.group, presence.socket), None)
        if there is None:
            return False
        user = there.group, there.user
        self.users[user] -= 1
        if not self.users[user]:
            del self.users[user]
        return user not in self.users

    # What a test asks

    @property
    def sockets(self) -> list[str]:
        with self._mutex:
            return [presence.socket for presence in self.present.values()]

    def all(self, what: str) -> list[Any]:
        return [arguments for call, arguments in list(self.calls) if call == what]

    def left(self) -> list[list[Presence]]:
        return [leave for _, leave in self.all("attend") if leave]


class Gate:
    """A place at which a call waits: `arrived` is set by it, and `opened` by the test."""

    def __init__(self) -> None:
        self.arrived, self.opened = threading.Event(), threading.Event()

    def wait(self) -> None:
        self.arrived.set()
        assert self.opened.wait(PATIENCE_SECONDS)


class Place:
    """A Register, its Attendance, and what was told of changes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, **settings: Any) -> None:
        self.backend = Register(settings, clock)
        self.told: list[Told] = []
        self.threads: set[str] = set()
        self.attendance = Attendance(self.backend, self._changed)

    def _changed(self, group: str, joined: list[Present], left: list[Present]) -> None:
        self.threads.add(threading.current_thread().name)
        self.told.append((group, [member.user for member in joined], [member.user for member in left]))

    def enter(self, *presences: Presence) -> None:
        for presence in presences:
            self.attendance.enter(presence)

    def leave(self, *presences: Presence, at_once: bool = False) -> None:
        for presence in presences:
            self.attendance.leave(presence.group, presence.socket, at_once)

    @property
    def told_left(self) -> list[str]:
        """The users whose leave was told. That comes after the backend has noted it."""
        return [user for _, _, left in self.told for user in left]

    def quiet(self) -> bool:
        """Whether the loop has nothing to do but to renew."""
        place = self.attendance
        with place._lock:
            return not (place._gone or place._leaving or place._in_grace or place._again)


@pytest.fixture
def new_place() -> Iterator[Callable[..., Place]]:
    places: list[Place] = []

    def new(*arguments: Any, **settings: Any) -> Place:
        places.append(Place(*arguments, **settings))
        return places[-1]

    yield new
    for place in places:
        place.backend.failure, place.backend.pause = None, lambda: None
        place.attendance.close(0)
        if place.attendance._thread is not None:
            place.attendance._thread.join(PATIENCE_SECONDS)
            assert not place.attendance._thread.is_alive()


NewPlace = Callable[..., Place]


@pytest.fixture(autouse=True)
def _of_dwebsocket(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "dwebsocket")


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


# To enter


def test_first_one_takes_the_lease_and_enters(new_place: NewPlace) -> None:
    place = new_place()
    assert place.attendance._thread is None
    place.enter(anne())
    place.enter(anne(2))

    assert [call for call, _ in place.backend.calls][:2] == ["renew", "attend"]
    assert place.backend.sockets == ["node:1", "node:2"]
    assert len(place.attendance) == 2
    until(place.quiet)
    assert place.told == [(ROOM, ["uanne"], [])]


def test_lease_of_the_first_ones_is_taken_once(new_place: NewPlace) -> None:
    place, gate = new_place(), Gate()
    place.backend.gates.append(gate)
    with ThreadPoolExecutor(8) as pool:
        entering = [pool.submit(place.enter, user(number)) for number in range(8)]
        assert gate.arrived.wait(PATIENCE_SECONDS)
        until(lambda: len(place.attendance) == 8)
        gate.opened.set()
        for future in entering:
            future.result(PATIENCE_SECONDS)

    assert len(place.backend.all("renew")) == 1
    assert len(place.backend.sockets) == 8


def test_all_who_wait_for_a_lease_fail_with_the_one_that_asks(new_place: NewPlace) -> None:
    place, gate = new_place(), Gate()
    place.backend.gates.append(gate)
    place.backend.failure = GroupsUnavailable("the broker is gone")
    with ThreadPoolExecutor(8) as pool, mock.patch.object(place.attendance, "_turn"):  # the loop would ask, too
        entering = [pool.submit(place.enter, user(number)) for number in range(8)]
        assert gate.arrived.wait(PATIENCE_SECONDS)
        until(lambda: len(place.attendance) == 8)
        gate.opened.set()
        for future in entering:
            with pytest.raises(GroupsUnavailable, match="the broker is gone"):
                future.result(PATIENCE_SECONDS)

    assert len(place.backend.all("renew")) <= 2, "the first one, and those that came meanwhile"
    assert len(place.attendance) == 0


def test_those_that_come_meanwhile_enter_in_one_call(new_place: NewPlace) -> None:
    place, gate = new_place(), Gate()
    place.enter(user(1))
    until(place.quiet)
    calls = len(place.backend.all("attend"))
    place.backend.gates.append(gate)
    with ThreadPoolExecutor(10) as pool:
        first = pool.submit(place.enter, user(2))
        assert gate.arrived.wait(PATIENCE_SECONDS)
        others = [pool.submit(place.enter, user(number)) for number in range(3, 12)]
        until(lambda: len(place.attendance) == 11)
        gate.opened.set()
        for future in (first, *others):
            future.result(PATIENCE_SECONDS)
    assert len(place.backend.sockets) == 11
    assert len(place.backend.all("attend")) <= calls + 3


def test_info_is_changed_by_entering_again(new_place: NewPlace) -> None:
    place = new_place()
    place.enter(anne(), anne(info="2"), anne(group="room:8"))

    assert place.backend.present[ROOM, "node:1"].info == "2"
    assert len(place.attendance) == 2
    assert [*place.attendance._known] == [anne(info="2"), anne(group="room:8")]


def test_presences_of_a_websocket_share_its_strings(new_place: NewPlace) -> None:
    place = new_place()
    place.enter(anne(), anne(group="room:8"), anne(group="room:9")._replace(user="u" + "bob"))

    first, second, other = place.attendance._known
    assert second == anne(group="room:8")
    assert second.socket is first.socket
    assert other.socket is first.socket
    assert (first.user, other.user) == ("uanne", "ubob")


def test_one_that_cannot_enter_is_not_present_whatever_the_backend_has_noted(
    new_place: NewPlace, caplog: pytest.LogCaptureFixture
) -> None:
    place = new_place()
    place.enter(anne())
    place.backend.failures.append(GroupsUnavailable("the answer did not come"))
    place.backend._enter(user(2))
    with pytest.raises(GroupsUnavailable, match="did not come"):
        place.enter(user(2))
    until(place.backend.left)

    assert place.backend.left() == [[user(2)]]
    assert place.backend.sockets == ["node:1"]


def test_one_whose_info_cannot_be_changed_keeps_the_former(new_place: NewPlace) -> None:
    place = new_place()
    place.enter(anne())
    place.backend.failures.append(GroupsUnavailable("the answer did not come"))
    place.backend._enter(anne(info="2"))
    with pytest.raises(GroupsUnavailable):
        place.enter(anne(info="2"))
    until(lambda: place.backend.present[ROOM, "node:1"].info == "1")

    assert place.backend.left() == []


def test_lease_that_is_over_at_once_each_time_is_an_error(new_place: NewPlace) -> None:
    place = new_place(LEASE=0)
    with pytest.raises(GroupsUnavailable, match="is LEASE too short"):
        place.enter(anne())
    assert len(place.attendance) == 0


def test_first_one_for_whom_no_thread_can_be_started_fails(new_place: NewPlace) -> None:
    place = new_place()
    no_thread = mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread"))
    with no_thread, pytest.raises(RuntimeError, match="new thread"):
        place.enter(anne())
    assert len(place.attendance) == 0
    place.enter(anne())

    assert place.backend.sockets == ["node:1"]


# To leave


def test_one_leaves_after_the_grace(new_place: NewPlace) -> None:
    place = new_place(GRACE=0.2)
    place.enter(anne())
    began = time.monotonic()
    place.leave(anne())
    until(lambda: len(place.told) == 2)

    assert time.monotonic() - began >= 0.2
    assert place.told == [(ROOM, ["uanne"], []), (ROOM, [], ["uanne"])]
    assert place.backend.sockets == []
    assert place.threads == {"dwebsocket-presence-enter-default", "dwebsocket-presence-default"}


@pytest.mark.parametrize(
    ("presence", "at_once", "grace"), [(guest(1), False, 60), (user(1), True, 60), (user(1), False, 0)]
)
def test_guest_leaves_at_once_and_others_where_it_is_said(
    new_place: NewPlace, presence: Presence, at_once: bool, grace: float
) -> None:
    place = new_place(GRACE=grace)
    place.enter(presence)
    place.leave(presence, at_once=at_once)
    until(lambda: len(place.told) == 2)

    assert place.backend.sockets == []


def test_page_that_is_loaded_again_has_not_been_away(new_place: NewPlace) -> None:
    place = new_place(GRACE=0.1)
    place.enter(anne(1))
    place.leave(anne(1))
    place.enter(anne(2))
    until(lambda: place.backend.sockets == ["node:2"])

    assert place.told == [(ROOM, ["uanne"], [])]


def test_one_that_enters_again_itself_does_not_leave(new_place: NewPlace) -> None:
    place = new_place(GRACE=0.05)
    place.enter(anne(), user(2))
    place.leave(anne(), user(2))
    place.enter(anne())
    until(place.backend.left)

    assert place.backend.left() == [[user(2)]]
    assert place.backend.sockets == ["node:1"]


def test_leave_of_one_that_is_not_there_does_nothing(new_place: NewPlace) -> None:
    place = new_place()
    place.leave(anne())
    place.enter(user(1))
    place.leave(user(2), user(1, group="room:8"), at_once=True)
    place.leave(user(1), at_once=True)
    until(place.backend.left)

    assert place.backend.left() == [[user(1)]]


def test_leaves_of_the_same_moment_go_together(new_place: NewPlace) -> None:
    place, everybody = new_place(GRACE=0.3), [user(number) for number in range(1200)]
    place.enter(*everybody)
    place.leave(*everybody)
    until(lambda: len(place.told_left) >= 1200)

    sizes = [len(leave) for leave in place.backend.left()]
    assert len(sizes) <= 6
    assert (sum(sizes), max(sizes)) == (1200, 500)
    assert place.told_left == [one.user for one in everybody]
    assert place.backend.sockets == []


def test_leave_waits_for_nothing(new_place: NewPlace) -> None:
    place = new_place(GRACE=0)
    place.enter(anne())
    until(place.quiet)
    with place.attendance._lock, place.attendance._renewing:
        place.leave(anne())
    until(lambda: not place.backend.sockets)


def test_one_that_leaves_while_it_enters_is_not_present(new_place: NewPlace) -> None:
    place, entering, leaving = new_place(), Gate(), Gate()
    place.enter(user(1))
    until(place.quiet)
    place.backend.gates.extend([entering, leaving])
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(place.enter, guest(2))
        assert entering.arrived.wait(PATIENCE_SECONDS)
        place.leave(guest(2))
        assert leaving.arrived.wait(PATIENCE_SECONDS)
        leaving.opened.set()
        until(place.quiet)  # the leave has overtaken it
        entering.opened.set()
        future.result(PATIENCE_SECONDS)
    until(lambda: len(place.backend.left()) == 2)
    until(lambda: place.backend.sockets == ["node:1"])


def test_one_that_enters_again_while_it_leaves_is_present(new_place: NewPlace) -> None:
    place, gate = new_place(GRACE=0), Gate()
    place.enter(anne())
    until(place.quiet)
    place.backend.gates.append(gate)
    place.leave(anne())
    assert gate.arrived.wait(PATIENCE_SECONDS)
    place.enter(anne())
    gate.opened.set()  # the leave comes after it
    until(lambda: place.told[1:] == [(ROOM, [], ["uanne"]), (ROOM, ["uanne"], [])])

    assert place.backend.sockets == ["node:1"]


def test_one_that_enters_again_while_its_leave_fails_is_present(new_place: NewPlace) -> None:
    place, gate = new_place(GRACE=0), Gate()
    place.enter(anne())
    until(place.quiet)
    place.backend.gates.append(gate)
    place.leave(anne())
    assert gate.arrived.wait(PATIENCE_SECONDS)
    place.enter(anne())
    place.backend._leave(anne())
    place.backend.failures.append(GroupsUnavailable("the answer did not come"))
    gate.opened.set()
    until(lambda: place.backend.sockets == ["node:1"])


@pytest.mark.parametrize("error", [None, GroupsUnavailable("the answer did not come")])
@pytest.mark.parametrize("presence", [user(2), guest(2)])
def test_one_that_leaves_while_it_enters_leaves_once(
    new_place: NewPlace, presence: Presence, error: Exception | None
) -> None:
    place, gate = new_place(GRACE=0.2), Gate()
    place.enter(user(1))
    until(place.quiet)
    with ThreadPoolExecutor(1) as pool:
        place.backend.gates.append(gate)
        future = pool.submit(place.enter, presence)
        assert gate.arrived.wait(PATIENCE_SECONDS)
        place.leave(presence)
        until(lambda: len(place.attendance) == 1)
        if error is not None:
            place.backend.failures.append(error)
        gate.opened.set()
        assert future.exception(PATIENCE_SECONDS) is error
    until(place.quiet)
    until(lambda: place.backend.sockets == ["node:1"])


# The lease


def test_lease_is_renewed_three_times_in_its_time(new_place: NewPlace) -> None:
    place = new_place(LEASE=0.3)
    began = time.monotonic()
    place.enter(anne())
    until(lambda: len(place.backend.all("renew")) == 5)
    took = time.monotonic() - began

    assert took >= 0.4
    assert place.backend.sockets == ["node:1"]
    assert place.told == [(ROOM, ["uanne"], [])]


def test_loop_sleeps_until_something_is_due(new_place: NewPlace) -> None:
    place = new_place()
    place.enter(anne())
    place.leave(anne())
    until(lambda: place.attendance._in_grace)
    with mock.patch.object(place.attendance, "_turn") as turn:
        time.sleep(0.2)

    assert turn.call_count <= 2


@pytest.mark.parametrize(("next_seconds", "least", "most"), [(None, 5, 5), (0.0, 1, 1.5), (3.0, 3, 3.5), (14.0, 5, 5)])
def test_lease_of_another_process_that_runs_out_is_looked_at(
    new_place: NewPlace, next_seconds: float | None, least: float, most: float
) -> None:
    attendance = new_place().attendance
    for _ in range(20):
        assert least <= attendance._until_next(Renewal(False, (), next_seconds)) <= most


def test_rest_of_what_one_renewal_has_removed_is_removed_at_once(new_place: NewPlace) -> None:
    place = new_place(LEASE=600)
    place.backend.renewal = Renewal(False, [Departed(ROOM, "uold", "1")], 0.0)
    place.enter(anne())
    until(lambda: len(place.backend.all("renew")) == 2)


def test_departed_are_told_and_looked_for_soon(new_place: NewPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attendance, "_SOONEST_SECONDS", 0.05)
    monkeypatch.setattr(attendance, "_JITTER_SECONDS", 0.05)
    place = new_place(LEASE=600)
    place.backend.renewal = Renewal(False, [Departed(ROOM, "uold", "1")], 0.01)
    place.enter(anne())
    assert place.told == [(ROOM, [], ["uold"]), (ROOM, ["uanne"], [])]
    place.backend.renewal = Renewal(False, [Departed(ROOM, "ubert", "1"), Departed("room:8", "ubert", "1")])
    until(lambda: len(place.told) == 4)

    assert place.told[2:] == [(ROOM, [], ["ubert"]), ("room:8", [], ["ubert"])]


def test_process_that_has_slept_enters_all_again(new_place: NewPlace) -> None:
    now = 1000.0
    place, everybody = new_place(lambda: now, LEASE=1, GRACE=0.1), [user(number) for number in range(1200)]
    place.enter(*everybody)
    until(place.quiet)
    before = len(place.backend.all("attend"))
    place.leave(user(0))  # gone with the lease
    now += 2
    until(lambda: len(place.backend.sockets) == 1199)
    until(place.quiet)

    assert "node:0" not in place.backend.sockets
    entered = [len(enter) for enter, _ in place.backend.all("attend")[before:] if enter]
    assert entered == [500, 500, 199]
    assert place.told_left == []  # the process that has removed it tells that


def test_one_that_enters_finds_that_the_process_has_slept(new_place: NewPlace) -> None:
    now = 1000.0
    place = new_place(lambda: now)
    place.enter(user(1), user(2))
    now += 30
    place.enter(user(3))
    until(lambda: sorted(place.backend.sockets) == ["node:1", "node:2", "node:3"])

    assert len(place.backend.all("renew")) == 2


def test_leaves_of_a_process_that_has_slept_do_no_harm(new_place: NewPlace) -> None:
    now = 1000.0
    place = new_place(lambda: now)
    place.enter(user(1), user(2))
    now += 30
    place.leave(user(1), at_once=True)
    until(lambda: place.backend.sockets == ["node:2"])


# Outages


def test_outage_is_told_once_and_leaves_wait_for_its_end(new_place: NewPlace, caplog: pytest.LogCaptureFixture) -> None:
    place = new_place(LEASE=0.3, GRACE=0)
    now = 1000.0
    place.backend.clock = lambda: now  # the lease outlives the outage
    place.enter(user(1), user(2))
    place.backend.failure = GroupsUnavailable("the broker is gone")
    place.leave(user(1))
    until(lambda: place.attendance._failures >= 3)
    place.leave(user(2))
    until(lambda: len(place.attendance) == 0)
    place.backend.failure = None
    until(lambda: not place.backend.sockets)
    until(lambda: len(caplog.records) == 2)
    until(lambda: len(place.told_left) == 2)

    lost, back = lines(caplog)
    assert lost == "groups 'default': presence is not told to the backend until it answers: the broker is gone"
    assert back.startswith("groups 'default': presence is told to the backend again after ")
    assert [record.exc_info for record in caplog.records] == [None, None]
    assert sorted(place.told_left) == ["u1", "u2"]


def test_restored_backend_is_asked_at_once(new_place: NewPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    place = new_place(LEASE=600)
    place.attendance.restored()  # nothing has entered yet
    place.enter(user(1))
    monkeypatch.setattr(attendance, "_FIRST_RETRY_SECONDS", 60)
    monkeypatch.setattr(attendance, "_LONGEST_RETRY_SECONDS", 60)
    place.backend.failure = GroupsUnavailable("the broker is gone")
    place.leave(user(1), at_once=True)
    until(lambda: place.attendance._failures)
    place.backend.failure, place.backend.until = None, -1.0  # it has come back empty
    place.attendance.restored()
    until(lambda: not place.attendance._failures)

    assert len(place.backend.all("renew")) == 2


def test_broker_that_has_come_back_empty_has_all_again(new_place: NewPlace) -> None:
    place = new_place()
    place.enter(user(1), user(2))
    place.backend.until = -1.0
    place.attendance.restored()
    until(lambda: sorted(place.backend.sockets) == ["node:1", "node:2"])


def test_broker_that_has_missed_the_latest_is_told_again(new_place: NewPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica that has taken over, and knows the lease of the process."""
    monkeypatch.setattr(attendance, "_GATHER_SECONDS", 0)
    place = new_place(LEASE=600, GRACE=0)
    place.enter(user(1), user(2), user(3))
    place.leave(user(1), user(3))
    until(lambda: place.told_left == ["u1", "u3"])
    place.enter(user(3))
    with place.backend._mutex:
        place.backend.present = {(ROOM, "node:1"): user(1)}
        place.backend.users = Counter([(ROOM, "u1")])
    place.told.clear()
    place.attendance.restored()
    until(lambda: sorted(place.backend.sockets) == ["node:2", "node:3"])
    until(place.quiet)
    assert sorted(place.backend.users) == [(ROOM, "u2"), (ROOM, "u3")]
    assert place.told_left == ["u1"]


def test_what_is_told_again_is_of_one_lease(new_place: NewPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    later = [0.0]
    monkeypatch.setattr(attendance, "monotonic", lambda: later[0] + time.monotonic())
    place = new_place(lambda: 0.0, LEASE=600, GRACE=0)
    place.enter(user(1), user(2), user(3))
    place.leave(user(1))
    until(lambda: len(place.backend.sockets) == 2)
    later[0] = 601.0
    place.leave(user(2))
    until(lambda: len(place.backend.sockets) == 1)
    until(place.quiet)
    assert [presence for presence, _ in place.attendance._left] == [user(2)]


def test_loop_survives_an_error_that_was_not_expected(new_place: NewPlace, caplog: pytest.LogCaptureFixture) -> None:
    place = new_place(LEASE=0.3)
    place.enter(user(1))
    place.backend.failure = RuntimeError("a bug")
    until(lambda: place.attendance._failures >= 2)
    place.backend.failure = None
    until(lambda: not place.attendance._failures)
    until(lambda: place.backend.sockets == ["node:1"])

    assert lines(caplog)[0] == "groups 'default': presence met an error that was not expected"
    assert caplog.records[0].exc_info is not None
    assert len(caplog.records) == 2


def test_leaves_that_wait_are_bounded(new_place: NewPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attendance, "_MAX_LEAVES", 3)
    monkeypatch.setattr(attendance, "_FIRST_RETRY_SECONDS", 60)
    monkeypatch.setattr(attendance, "_LONGEST_RETRY_SECONDS", 60)
    place = new_place(LEASE=600, GRACE=0)
    everybody = [user(number) for number in range(5)]
    place.enter(*everybody)
    place.backend.failure = GroupsUnavailable("the broker is gone")
    place.leave(*everybody)
    until(lambda: place.attendance._failures and not place.attendance._gone)

    assert list(place.attendance._leaving.values()) == everybody[-3:]


def test_receiver_that_fails_is_logged(new_place: NewPlace, caplog: pytest.LogCaptureFixture) -> None:
    place = new_place(GRACE=0)
    place.enter(user(1), user(2, group="room:8"))
    with mock.patch.object(place.attendance, "_changed", side_effect=ZeroDivisionError) as changed:
        place.leave(user(1), user(2, group="room:8"))
        until(lambda: changed.call_count == 2)

    until(lambda: len(caplog.records) == 2)
    assert not place.attendance._failures


# The end


def test_end_shortens_the_lease_and_is_the_last_thing_that_the_backend_gets(new_place: NewPlace) -> None:
    place = new_place(LEASE=0.3)
    place.enter(user(1))
    place.attendance.close(5)
    assert place.backend.calls[-1] == ("resign", 5)
    place.leave(user(1))
    count = len(place.backend.calls)
    place.backend.until = -1.0
    with pytest.raises(GroupsUnavailable, match="this process ends"):
        place.enter(user(2))

    assert place.backend.calls[count:] == []
    assert place.attendance._thread is not None
    assert not place.attendance._thread.is_alive()


def test_end_without_presence_asks_for_nothing(new_place: NewPlace) -> None:
    place = new_place()
    place.attendance.close(5)
    assert place.backend.calls == []


def test_end_is_not_held_up_by_the_backend(new_place: NewPlace, caplog: pytest.LogCaptureFixture) -> None:
    place, gate = new_place(TIMEOUT=0.1), Gate()
    place.enter(user(1))
    until(place.quiet)
    place.backend.gates.append(gate)
    place.backend.failure = GroupsUnavailable("the broker is gone")
    began = time.monotonic()
    place.attendance.close(5)
    assert time.monotonic() - began < 2
    gate.opened.set()
    until(lambda: lines(caplog))

    assert lines(caplog) == ["groups 'default': the lease of this process was not given back: the broker is gone"]


def test_child_of_a_fork_leaves_the_lease_to_its_parent(new_place: NewPlace) -> None:
    place = new_place(GRACE=0)
    place.enter(user(1))
    until(place.quiet)
    loop = place.attendance._thread
    assert loop is not None
    with mock.patch.object(os, "getpid", return_value=-1):
        place.attendance.close(0)
        assert loop.is_alive()
        place.attendance._wake()
        loop.join(PATIENCE_SECONDS)
        assert not loop.is_alive()

    assert place.backend.all("resign") == []


# All at once


def test_backend_has_exactly_those_who_have_not_left_however_calls_overlap(new_place: NewPlace) -> None:
    place = new_place(LEASE=0.3, GRACE=0)
    place.backend.pause = lambda: time.sleep(random.choice([0, 0, 0.001, 0.003]))

    def come_and_go(seed: int) -> None:
        dice = random.Random(seed)
        for step in range(40):
            presence = Presence(f"room:{dice.randrange(3)}", f"node:{dice.randrange(4)}", "uanne", str(step))
            if dice.random() < 0.5:
                place.enter(presence)
            else:
                place.leave(presence)
            if dice.random() < 0.02:
                place.backend.until = -1.0  # the broker is emptied

    with ThreadPoolExecutor(6) as pool:
        for future in [pool.submit(come_and_go, seed) for seed in range(6)]:
            future.result(PATIENCE_SECONDS)
    place.attendance.restored()
    until(
        lambda: (
            place.quiet()
            and {key: presence.info for key, presence in place.backend.present.items()}
            == {(presence.group, presence.socket): presence.info for presence in place.attendance._known}
        )
    )


PATCHED = """
from gevent import monkey
monkey.patch_all()
import gevent, sys
from tests.groups.presence.test_attendance import Place, guest, user
from tests.links import until
place = Place(LEASE=0.3, GRACE=0.1)
gevent.joinall([gevent.spawn(place.enter, user(number)) for number in range(50)], raise_error=True)
assert len(place.backend.sockets) == 50 and len(place.backend.all("renew")) == 1
place.enter(guest(50))
gevent.get_hub().loop.run_callback(place.attendance.leave, guest(50).group, guest(50).socket)  # in the hub: no wait
until(lambda: len(place.backend.sockets) == 50)
place.leave(*[user(number) for number in range(50)])
until(lambda: not place.backend.sockets)
until(lambda: len(place.backend.all("renew")) > 3)
place.attendance.close(1)
assert place.backend.calls[-1] == ("resign", 1)
print("done")
"""


def test_under_gevent_the_loop_is_a_greenlet_and_the_hub_never_waits() -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import os, django\n{PATCHED.replace('import gevent, sys', 'import gevent')}"],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.project.settings"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


def test_loop_takes_no_numbers_of_a_project(new_place: NewPlace) -> None:
    """A project, or a tool that generates its tests, has seeded the generator of the module."""
    random.seed(7)
    expected = random.random()
    random.seed(7)
    place = new_place(LEASE=0.03)
    place.enter(user(1))
    until(lambda: len(place.backend.all("renew")) > 3)
    assert random.random() == expected
