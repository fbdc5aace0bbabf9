"""Views that go on although their connection is over: the log names each of them once, and the line it is at.

Such a view holds its greenlet or thread, and stands in `connections()`. Nothing else tells of it.
"""

from __future__ import annotations

import functools
import logging
import os
import sysconfig
import weakref
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from ..reactors.base import Reactor
from ..reactors.clock import monotonic

logger = logging.getLogger("dwebsocket")

#: How long a view may go on after its connection is over.
OVERSTAY_SECONDS = 60.0

#: Where no code of a view is, as far as it can be told: this package, the standard library, what is installed.
_FOLDERS = tuple(f"{folder}{os.sep}" for folder in (Path(__file__).parents[1], sysconfig.get_path("stdlib")))
_INSTALLED = ("site-packages", "dist-packages")


class Place(NamedTuple):
    """A line of code."""

    file: str
    line: int
    function: str


class Stay:
    """One view, from its beginning to its end."""

    __slots__ = ("_caller", "_is_late", "_is_over", "_path", "reactor")

    def __init__(self, path: str, reactor: Reactor) -> None:
        self.reactor = reactor
        self._path = path
        self._is_over = False  # the connection
        self._caller: Any = None  # of the reactor; None while the view does not run
        self._is_late = False  # its connection was over while it ran: a Watch may hold it

    def begin(self, caller: Any) -> None:
        """The greenlet or thread `caller` begins to run the view, or a turn of it."""
        self._caller = caller
        if self._is_over:
            self._watch()

    def end(self) -> None:
        """The view, or its turn, has ended."""
        self._caller = None
        if self._is_late and (watch := _watches.get(self.reactor)) is not None:
            watch.discard(self)

    def connection_over(self) -> None:
        """The connection is over: from now on the view should end."""
        self._is_over = True
        if self._caller is not None:
            self._watch()

    def _watch(self) -> None:
        self._is_late = True
        _watches.setdefault(self.reactor, Watch()).add(self)

    def report(self) -> None:
        """Write the line of the log, unless the view has ended."""
        place = self._place()
        if place is not None:
            logger.warning(
                "the view at %r still runs %g seconds after its connection is over: %s, line %d, in %s"
                " (a loop ends when it asks `closed`, or when it lets wait() and send() raise)",
                self._path, OVERSTAY_SECONDS, *place,
            )  # fmt: skip

    def _place(self) -> Place | None:
        caller = self._caller
        frame = None if caller is None else self.reactor.frame_of(caller)
        places = list(_places(frame))  # which hold no frame: that would keep alive what the view has
        return next(filter(_may_be_of_a_view, places), places[0] if places else None)


def _may_be_of_a_view(place: Place) -> bool:
    return not place.file.startswith(_FOLDERS) and not any(name in place.file for name in _INSTALLED)


def _places(frame: FrameType | None) -> Iterator[Place]:
    """The lines that the frame and its callers are at, the innermost first."""
    while frame is not None:
        yield Place(frame.f_code.co_filename, frame.f_lineno or 0, frame.f_code.co_name)
        frame = frame.f_back


class Watch:
    """The views of one reactor whose connections are over. An ordinary one is here until it has noticed."""

    def __init__(self) -> None:
        self._over: dict[Stay, float] = {}  # since when

    def add(self, stay: Stay) -> None:
        """Wait for the view to end."""
        self._over[stay] = now = monotonic()
        stay.reactor.schedule(self, now + OVERSTAY_SECONDS)  # the earliest holds, for all

    def discard(self, stay: Stay) -> None:
        """Wait no longer: the view has ended."""
        self._over.pop(stay, None)

    def on_deadline(self, now: float) -> None:
        """Report the views whose time has passed; what a reactor calls."""
        waiting = dict(self._over)
        late = [stay for stay, since in waiting.items() if since + OVERSTAY_SECONDS <= now]
        for stay in late:
            self._over.pop(stay, None)
            del waiting[stay]
        if late:
            _spawn_report(late)
        for stay, since in waiting.items():  # the first is the next
            stay.reactor.schedule(self, since + OVERSTAY_SECONDS)
            break


_watches: weakref.WeakKeyDictionary[Reactor, Watch] = weakref.WeakKeyDictionary()

os.register_at_fork(after_in_child=_watches.clear)  # they watch the views of the parent


def _spawn_report(stays: Sequence[Stay]) -> None:
    """Report from a new greenlet or thread: a log may wait, and the reactor must not."""
    with suppress(RuntimeError):  # no thread can be started
        stays[0].reactor.spawn(functools.partial(_report, stays), "websocket overstay")


def _report(stays: Sequence[Stay]) -> None:
    for stay in stays:
        stay.report()
