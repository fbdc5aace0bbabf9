"""The one connection of this process that receives: connected for ever, read by a loop in a separate thread.

Where gevent has patched the standard library, the thread is a greenlet. So modules are asked for their functions when
they are called, never before.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import select
import threading
import time
from collections.abc import Callable, Collection
from typing import Any

import hiredis

from ..backend import Sink
from ..chance import chance
from ..waker import Waker
from . import commands, faults, history
from .location import Location
from .subscriptions import LINGER_SECONDS, Subscriptions
from .watchdog import FIRST_SECONDS, WANTED_SECONDS, Backoff, Watchdog
from .wire import NOTHING, Wire

logger = logging.getLogger("dwebsocket")

#: Errors that are no surprise on a connection: they are told in a sentence, without a traceback.
_ORDINARY = (faults.Broken, faults.Refused, OSError, hiredis.HiredisError)
#: Every envelope begins with a letter; a position with a digit, which is less than this.
_ENVELOPES = b":"


class Subscriber:
    """Receives the groups that are wanted, and tells `sink`. Its loop ends at `close()`, and at nothing else."""

    def __init__(
        self,
        alias: str,
        number: int,
        location: Location,
        names: commands.Names,
        sink: Sink,
        node: bytes,
        publish_probe: Callable[[], None],
        watchdog: Watchdog,
        is_back: Callable[[], None],
    ) -> None:
        self._alias = alias
        self._number = number  # of this server in LOCATION
        self._location = location
        self._names = names
        self._sink = sink
        self._node = node
        self._publish_probe = publish_probe
        self._watchdog = watchdog
        self._is_back = is_back  # told before the sink: what is sent then is not refused any more
        self._pid = os.getpid()
        self._lock = threading.Lock()  # of the table; never held while something waits
        self._table = Subscriptions(LINGER_SECONDS * chance.uniform(1.0, 1.3))  # so that a fleet spreads
        self._is_closed = False
        self._waker = Waker()
        self._groups: dict[bytes, str] = {}  # of each channel that is subscribed
        self._out = bytearray()  # what the socket has not taken yet
        self._is_up = False
        self._is_refused = False  # by the last attempt, for a reason that the next one would meet again
        self._is_answering = False  # since the last attempt the server has taken a publication
        self._is_wanted = False  # since the last attempt a view has joined a group, and waits
        self._has_node = False  # our own channel is confirmed
        self._published: int | None = None  # the probe that the server has taken
        self._unfit: faults.Unfit | faults.Moved | None = None  # what was found out with it
        self._down_since: float | None = None
        self._told: set[str] = set()  # during this outage
        self._surprises: set[str] = set()  # ever
        self._thread = threading.Thread(target=self._run, name=f"dwebsocket-groups-{alias}", daemon=True)
        self._thread.start()

    def watch(self, add: Collection[str], drop: Collection[str]) -> None:
        with self._lock:
            confirmed = self._table.want(add, drop, time.monotonic())
        if confirmed:
            self._sink.watching(confirmed)
        if add and not self._is_up:
            self._is_wanted = True
        self._waker.wake()

    def server_answers(self) -> None:
        """Attempt to connect soon: the server has just taken a publication, and this process receives none."""
        if not self._is_up and not self._is_answering:
            self._is_answering = True
            self._waker.wake()

    def close(self) -> None:
        """End the loop, and wait a moment for it."""
        if self._pid != os.getpid():
            return  # in a child: the loop is the parent's, and so is all that it holds
        self._is_closed = True
        self._waker.wake(again=True)
        if threading.current_thread() is not self._thread:
            self._thread.join(1.0)

    def _is_over(self) -> bool:
        """Whether the loop must end. In a child of gevent's fork() the greenlets of the parent go on: ours must not."""
        return self._is_closed or self._pid != os.getpid()

    def _run(self) -> None:
        backoff = Backoff()
        while not self._is_over():
            began = time.monotonic()
            try:
                self._serve()
            except Exception as error:
                if self._is_over():
                    break
                self._lose(error)
            backoff.ended(time.monotonic() - began)
            self._pause(backoff.next(chance.random()))
        if self._pid == os.getpid():
            self._waker.close()

    def _serve(self) -> None:
        """Connect and receive, until the connection breaks."""
        wire = self._location.connect("dwebsocket-subscribe")
        try:
            poller = select.poll()
            poller.register(wire.socket, select.POLLIN)
            poller.register(self._waker, select.POLLIN)
            self._begin()
            while not self._is_over():
                self._turn(wire, poller)
        finally:
            wire.close()

    def _begin(self) -> None:
        now = time.monotonic()
        self._groups.clear()
        self._has_node = False
        self._published = self._unfit = None
        self._watchdog.reset(now)
        self._out[:] = commands.subscribe([self._node])
        with self._lock:
            self._table.reset(now)

    def _turn(self, wire: Wire, poller: select.poll) -> None:
        """One round: what is due leaves; what has come is passed on."""
        self._location.must_lead(wire)
        now = time.monotonic()
        due = self._prepare(now)
        if self._out:
            self._write(wire)
            poller.modify(wire.socket, select.POLLIN | select.POLLOUT if self._out else select.POLLIN)
        ready = poller.poll(max(0, math.ceil((due - now) * 1000)))
        if self._is_over():
            return
        if any(descriptor == self._waker.fileno() for descriptor, _ in ready):
            self._waker.take()
        self._read(wire)  # in any case: a process that stood still finds its PONG before it misses it
        if not self._is_up and self._has_node:
            self._come_up()

    def _prepare(self, now: float) -> float:
        """Put what is due into `_out`; returns when the next thing is due."""
        if self._unfit is not None:
            raise self._unfit
        if self._published is not None:
            self._watchdog.published(self._published, now)
            self._published = None
        probe = self._watchdog.look(now)
        if probe is not None:
            self._out += commands.PING
            self._start_probe(probe)
        with self._lock:
            add, drop = self._table.take(now)
            due = self._table.due()
        for groups in add:
            channels = [self._names.channel(group) for group in groups]
            self._groups.update(zip(channels, groups, strict=True))
            self._out += commands.subscribe(channels)
        for groups in drop:
            self._out += commands.unsubscribe([self._names.channel(group) for group in groups])
        return self._watchdog.due() if due is None else min(due, self._watchdog.due())

    def _write(self, wire: Wire) -> None:
        # A copy: TLS may want the same bytes again, and a bytearray that is being sent cannot be added to.
        del self._out[: wire.write(bytes(self._out))]

    def _read(self, wire: Wire) -> None:
        """Pass on what the socket has: one chunk, and what TLS has decrypted with it."""
        pending = getattr(wire.socket, "pending", None)
        while wire.read():
            self._pass_on(wire.gets)
            if pending is None or not pending():
                return

    def _pass_on(self, gets: Callable[[], Any]) -> None:
        message, group_of = self._sink.message, self._groups.get
        acks: list[list[bytes]] = []
        is_heard = False
        while (reply := gets()) is not NOTHING:
            if reply.__class__ is not list:
                raise faults.explain(str(reply))
            if reply[0] == b"message":
                if acks:
                    self._confirm(acks)
                    acks = []
                is_heard = True
                group = group_of(reply[1])
                if group is None:
                    continue  # a probe
                payload = reply[2]
                if payload < _ENVELOPES:  # it has a position before its envelope
                    message(group, *history.split(payload))
                else:
                    message(group, payload)
            elif reply[0] == b"pong":
                self._watchdog.heard_pong()
            else:
                acks.append(reply)
        if acks:
            self._confirm(acks)
        if is_heard:
            self._sink.flush()
            self._watchdog.heard_message(time.monotonic())

    def _confirm(self, acks: list[list[bytes]]) -> None:
        added, dropped = [], []
        for kind, channel, _count in acks:
            if channel == self._node:
                self._has_node = True
            elif kind == b"subscribe":
                added.append(self._groups[channel])
            else:
                dropped.append(self._groups.pop(channel))
        with self._lock:
            confirmed = self._table.subscribed(added)
            self._table.unsubscribed(dropped, time.monotonic())
        if confirmed:
            self._sink.watching(confirmed)

    def _come_up(self) -> None:
        with self._lock:
            if not self._table.is_whole:
                return
        self._is_up = True
        if self._down_since is None:
            return
        seconds = time.monotonic() - self._down_since
        self._down_since = None
        self._told.clear()
        self._is_back()
        self._sink.restored(self._number)
        logger.warning("groups %r: %s is back after %.1f s", self._alias, self._location, seconds)

    def _lose(self, error: Exception) -> None:
        now = time.monotonic()
        if isinstance(error, _ORDINARY):
            why = str(faults.as_fault(error))
        else:
            why = f"the loop met {type(error).__name__}: {error}"
            if why not in self._surprises and len(self._surprises) < 100:
                self._surprises.add(why)
                logger.error("groups %r: an error that was not expected", self._alias, exc_info=error)
        with self._lock:
            self._table.reset(now)
        self._is_up = False
        self._is_refused = isinstance(error, faults.Refused)
        if self._down_since is None:
            self._down_since = now
            self._tell("groups %r: %s is lost, and messages with it, until it is back: %s", why)
            self._sink.lost(f"{self._location}: {why}", self._number)
        elif self._is_refused:  # a setting: worth another line
            self._tell("groups %r: %s is still lost: %s", why)

    def _tell(self, text: str, why: str) -> None:
        if why not in self._told:
            self._told.add(why)
            logger.warning(text, self._alias, self._location, why)

    def _pause(self, seconds: float) -> None:
        """Wait before the next attempt; `close()` ends that, `server_answers()` nearly does, `watch()` shortens it."""
        began = time.monotonic()
        until = began + seconds
        self._is_answering = self._is_wanted = False
        poller = select.poll()
        poller.register(self._waker, select.POLLIN)
        while not self._is_over() and (remaining := until - time.monotonic()) > 0:
            if poller.poll(math.ceil(remaining * 1000)) and not self._is_over():
                self._waker.take()
            if self._is_answering and not self._is_refused:
                until = min(until, began + FIRST_SECONDS)
            elif self._is_wanted:
                until = min(until, began + WANTED_SECONDS)

    def _start_probe(self, probe: int) -> None:
        thread = threading.Thread(target=self._probe, args=(probe,), name="dwebsocket-groups-probe", daemon=True)
        with contextlib.suppress(RuntimeError):  # no thread can be started now: the PING must do
            thread.start()

    def _probe(self, probe: int) -> None:
        try:
            self._publish_probe()
            self._published = probe
        except (faults.Unfit, faults.Moved) as error:
            self._unfit = error
        except Exception as error:  # it says nothing about receiving
            logger.debug("groups %r: a probe has failed: %s", self._alias, error)
        self._waker.wake()
