"""A lane whose worker runs when the test says so, and members that write down what they are offered."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any, cast

from dwebsocket.connection.limits import Bound
from dwebsocket.groups.audience import Audience, Host, Kind, Member
from dwebsocket.groups.lane import Lane
from dwebsocket.groups.messages import TEXT, Envelope
from dwebsocket.protocol import frames
from dwebsocket.protocol.codes import Opcode
from dwebsocket.protocol.deflate import SharedCompression
from dwebsocket.reactors.base import Reactor
from dwebsocket.websocket import GroupMessage, Translate, WebSocket

FORWARDED = Kind(True, None, None, Bound())


def kind(
    *, forward: bool = True, translate: Translate | None = None, shared: SharedCompression | None = None, **bound: Any
) -> Kind:
    return Kind(forward, translate, shared, Bound(**bound))


def text(message: str, **about: bytes) -> Envelope:
    return Envelope(TEXT, message.encode(), **about)


def frame(message: str) -> bytes:
    """The frame of a text message, as a server sends it."""
    return frames.Frame(Opcode.TEXT, message.encode()).serialize()


class StillReactor:
    """`run()` lets the worker run; `on_breath` is called whenever it lets others run."""

    def __init__(self) -> None:
        self.run: Callable[[], None] = lambda: None
        self.wakes = 0
        self.breaths = 0
        self.on_breath: Callable[[], object] = lambda: None

    def worker(self, function: Callable[[], None], name: str) -> Callable[[], None]:
        self.run = function
        return self._wake

    def _wake(self) -> None:
        self.wakes += 1

    def breathe(self, now: float) -> None:
        self.breaths += 1
        self.on_breath()

    def latch(self) -> threading.Event:
        return threading.Event()


class Offered:
    """A connection: `offers` are what it was given, as (frames, messages, bound, key). It answers with `answers`."""

    def __init__(self, reactor: StillReactor) -> None:
        self.reactor = reactor
        self.offers: list[tuple[bytes, int, Bound, str]] = []
        self.answers: list[int] = []
        self.closes: list[tuple[int, str]] = []
        self.notifications = 0
        self.log: list[Any] = []
        self.on_offer: Callable[[], object] = lambda: None

    def offer(self, data: bytes, messages: int = 1, bound: Bound | None = None, key: str = "") -> int:
        self.on_offer()
        answer = self.answers.pop(0) if self.answers else 0
        self.offers.append((data, messages, bound or Bound(), key))
        self.log.append(data)
        return answer

    def close_soon(self, code: int, reason: str = "") -> None:
        self.closes.append((code, reason))
        self.log.append((code, reason))

    def notify(self) -> None:
        self.notifications += 1

    @property
    def received(self) -> bytes:
        return b"".join(data for data, *_ in self.offers)


class WebSocketOf:
    """The owner of members: one WebSocket, and what it puts aside for its view."""

    def __init__(self, number: int, connection: Offered) -> None:
        self.number = number
        self.connection = connection
        self.is_in_several = False
        self.websocket = cast(WebSocket, object())
        self.events: list[Any] = []
        self.answer = 0

    def put(self, message: GroupMessage, key: str, bound: Bound) -> int:
        self.events.append(message.data)
        return self.answer

    def put_gap(self, group: str) -> None:
        self.events.append(None)


class Fleet:
    """One lane, and its members."""

    def __init__(self) -> None:
        self.reactor = StillReactor()
        self.overflowed: list[list[Member]] = []
        self.lane = Lane(cast(Reactor, self.reactor), self.overflowed.append)
        self.audiences: dict[str, Audience] = {}
        self._numbers = itertools.count(1)

    def websocket(self) -> WebSocketOf:
        return WebSocketOf(next(self._numbers), Offered(self.reactor))

    def join(self, group: str, websocket: WebSocketOf | None = None, kind: Kind = FORWARDED) -> Member:
        if websocket is None:
            websocket = self.websocket()
        audience = self.audiences.setdefault(group, Audience(group, cast(Host, None)))
        member = Member(websocket, audience, cast(Any, websocket.connection), kind)
        self.lane.enter(member)
        return member

    def put(self, group: str, envelope: Envelope | None) -> None:
        self.lane.put(self.audiences[group], envelope)

    def send(self, group: str, *messages: str) -> None:
        for message in messages:
            self.put(group, text(message))

    def run(self) -> None:
        self.reactor.run()


def offers(member: Member) -> list[tuple[bytes, int, Bound, str]]:
    return cast(Offered, member.connection).offers


def received(member: Member) -> bytes:
    return cast(Offered, member.connection).received
