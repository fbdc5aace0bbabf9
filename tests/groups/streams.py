"""A broker that loses, delays and forgets, and processes that keep the position of one group, as models."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, NamedTuple, cast

from dwebsocket.groups.audience import Entrance, Member
from dwebsocket.groups.backend import Kept, Read
from dwebsocket.groups.history.history import Admission, History
from dwebsocket.groups.history.stream import Asked, Budget, Found, Stream
from dwebsocket.groups.messages import GAP, RESET, TEXT, Envelope
from dwebsocket.groups.position import START, Position
from tests.groups.lanes import FORWARDED


def payload(text: str) -> bytes:
    return Envelope(TEXT, text.encode()).serialize()


class Announcement(NamedTuple):
    position: Position
    payload: bytes


class Broker:
    """One history: `logs` has all that was ever announced of each epoch, `resets` what each epoch has followed on."""

    def __init__(self, history: int) -> None:
        self.history = history
        self.epoch = "e0"
        self.logs: dict[str, list[bytes]] = {"e0": []}
        self.resets: dict[str, Position] = {}
        self.kept: list[Kept] = []
        self.processes: list[Process] = []
        self._count = 0

    @property
    def top(self) -> Position:
        return Position(self.epoch, len(self.logs[self.epoch]))

    def publish(self) -> None:
        self._count += 1
        data = payload(f"message {self._count}")
        self.logs[self.epoch].append(data)
        self.kept = [*self.kept, Kept(self.top.offset, data)][-self.history :]
        self._announce(Announcement(self.top, data))

    def clear(self) -> None:
        previous = self.top
        self._begin()
        self.resets[self.epoch] = previous
        self._announce(Announcement(self.top, Envelope(RESET, str(previous).encode()).serialize()))

    def empty(self) -> None:
        """Lose all, and tell of it only by what comes next."""
        self._begin()

    def crash(self, count: int) -> None:
        """Come back without the last `count` messages, in another epoch that has those of before."""
        log, kept = self.logs[self.epoch], self.kept
        self._begin()
        self.logs[self.epoch] = log[: max(0, len(log) - count)]
        self.kept = [one for one in kept if one.offset <= self.top.offset]

    def evict(self) -> None:
        """Lose the messages, and not the epoch."""
        self.kept = []
        self._forgot()

    def read(self, asked: Asked) -> Read:
        since, latest, _ = asked.want
        first = self.top.offset - latest + 1
        if since is not None and since.epoch == self.epoch:
            first = min(first, since.offset + 1)
        return Read(self.top, tuple(one for one in self.kept if one.offset >= first))

    def has_all_after(self, position: Position) -> bool:
        return (
            position.epoch == self.epoch
            and (self.kept[0].offset if self.kept else self.top.offset + 1)
            <= (position.offset + 1)
            <= self.top.offset + 1
        )

    def begins_behind(self, epoch: str, position: Position) -> bool:
        """Whether nothing was sent between `position` and the first message of `epoch`: the history was cleared."""
        previous = self.resets.get(epoch)
        while previous is not None and previous != position and previous.offset == 0:
            previous = self.resets.get(previous.epoch)
        return previous == position

    def _begin(self) -> None:
        self.epoch = f"e{len(self.logs)}"
        self.logs[self.epoch] = []
        self.kept = []
        self._forgot()

    def _forgot(self) -> None:
        for process in self.processes:
            process.look_whether_members_can_recover()

    def _announce(self, announcement: Announcement) -> None:
        for process in self.processes:
            process.look_whether_members_can_recover()
            if not process.is_out:
                process.coming.append(announcement)


class Page:
    """A member: it checks what it is told against all that was announced."""

    def __init__(self, broker: Broker, since: Position | str | None) -> None:
        self.broker = broker
        self.since = since
        self.could_recover = isinstance(since, Position) and broker.has_all_after(since)
        self.at: Position | None = None  # it has all up to here, or was told
        self.told: list[Any] = []
        self.admission = Admission(cast(Member, self), FORWARDED, since, threading.Event())

    def come_in(self, found: Found, entrance: Entrance) -> None:
        log = self.broker.logs[found.position.epoch]
        assert found.start.epoch == found.position.epoch
        assert [one.offset for one in found.missed] == [*range(found.start.offset + 1, found.position.offset + 1)]
        assert [one.payload for one in found.missed] == log[found.start.offset : found.position.offset]
        assert list(entrance.missed) == list(found.missed)
        if found.recovered:
            assert found.start == self.since, "it has all after the place at which it was"
        if isinstance(self.since, Position):
            assert found.recovered is not None
            if self.could_recover:
                assert found.recovered, f"{self.since} can be recovered"
        else:
            assert found.recovered is (None if self.since in (None, START) else False)
        self.at = found.position
        self.told.append(found)

    def receive(self, envelope: Envelope) -> None:
        if self.at is None:
            return
        position = Position.parse(envelope.position or "")
        assert position is not None
        self.told.append(envelope)
        if envelope.kind == GAP:
            self.at = position
            return
        if position.epoch != self.at.epoch:  # nothing is missing where the history was cleared
            assert self.broker.begins_behind(position.epoch, self.at)
            self.at = Position(position.epoch, 0)
        assert position.offset == self.at.offset + 1, f"{position} after {self.at}"
        sent = self.broker.logs[position.epoch][position.offset - 1]
        assert Envelope.parse(sent, position) == envelope
        self.at = position


class Question(NamedTuple):
    asked: Asked
    pages: list[Admission]
    read: list[Read]  # empty until the broker has executed it


class Process:
    """One process: what comes to it and what it has asked, and its pages."""

    def __init__(self, broker: Broker, *, is_tight: bool = False) -> None:
        self.broker = broker
        self.is_tight = is_tight  # it may keep nothing, and give a member a few messages at once
        self.budget = Budget(0 if is_tight else 1 << 30)
        self._max_missed_bytes = 60 if is_tight else 1 << 30
        self.coming: deque[Announcement] = deque()
        self.questions: list[Question] = []
        self.is_out = False
        broker.processes.append(self)
        self.begin()

    def begin(self) -> None:
        """Have the first member: what was asked before may still be answered."""
        self.stream = Stream(self.broker.history, 3600.0, self._max_missed_bytes, self.budget)
        self.history = History("room", self.stream, self._put_all, self._put)
        self.history.doubt()
        self.must_read = False
        self.waiting: list[Admission] = []
        self.pages: list[Page] = []

    def look_whether_members_can_recover(self) -> None:
        for page in self.pages:
            if page.at is None and isinstance(page.since, Position):
                page.could_recover = page.could_recover and self.broker.has_all_after(page.since)

    # What happens

    def deliver(self) -> None:
        position, data = self.coming.popleft()
        self.must_read |= self.history.arrive(position, data)

    def lose(self, at: int) -> None:
        del self.coming[at]

    def break_off(self) -> None:
        self.is_out = True
        self.coming.clear()

    def restore(self) -> None:
        self.is_out = False
        self.history.doubt()
        self.must_read = True

    def join(self, since: Position | str | None) -> Page:
        page = Page(self.broker, since)
        page.could_recover &= not self.is_tight
        self.pages.append(page)
        if not self.history.admit(page.admission):
            self.waiting.append(page.admission)
        return page

    def ask(self) -> None:
        if self.questions:  # what one of them brings may be forgotten before the answer to another, older one
            for page in self.pages:
                page.could_recover &= page.at is not None
        admissions, self.waiting, self.must_read = self.waiting, [], False
        asked = self.history.ask(admissions)
        if asked is not None:
            self.questions.append(Question(asked, admissions, []))

    def execute(self, at: int) -> None:
        question = self.questions[at]
        if not question.read:
            read = self.broker.read(question.asked)
            question.read.append(_bounded(read, self._max_missed_bytes) if self.is_tight else read)

    def answer(self, at: int) -> None:
        self.execute(at)
        asked, admissions, [read] = self.questions.pop(at)
        self.read = read
        _, must_read, waiting = self.history.answer(read, asked, admissions)
        self.must_read |= must_read
        self.waiting += [one for one in waiting if cast(Any, one.member) in self.pages]

    def end(self) -> None:
        """Lose the last member, and gain another first one."""
        self.history.close()
        self.coming.clear()
        self.begin()

    def settle(self) -> None:
        """Let everything come, and check once."""
        if self.is_out:
            self.restore()
        for is_checked in (False, True):
            while self.coming:
                self.deliver()
            if is_checked:
                self.ask()
                if not self.questions:  # those who waited have found their places without it
                    self.ask()
            for _ in range(10):
                while self.questions:
                    self.answer(0)
                if not (self.must_read or self.waiting):
                    break
                self.ask()
        assert not (self.must_read or self.waiting or self.questions)

    def check(self) -> None:
        """Nothing is missing: to be called after `settle()`."""
        if not self.pages:
            return
        assert self.stream.is_whole
        assert self.stream.known == self.broker.top
        for page in self.pages:
            assert page.at is not None
            has_all = page.at == self.broker.top
            assert has_all or (not self.broker.top.offset and self.broker.begins_behind(self.broker.epoch, page.at))

    # What the history does

    def _put_all(self, envelope: Envelope) -> None:
        for page in self.pages:
            if envelope.kind == GAP and page.at is not None:
                assert not self.read.reaches_back_to(page.at), "nothing is missing"
            page.receive(envelope)

    def _put(self, member: Member, entrance: Entrance) -> None:
        page = cast(Page, member)
        if page in self.pages:
            assert page.admission.found is not None
            page.come_in(page.admission.found, entrance)
        entrance.done()


def _bounded(read: Read, max_bytes: int) -> Read:
    """The last entries, so many that they have more than `max_bytes`."""
    size, first = 0, len(read.entries)
    while first and size <= max_bytes:
        first -= 1
        size += len(read.entries[first].payload)
    return Read(read.top, tuple(read.entries[first:]))
