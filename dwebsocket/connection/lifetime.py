"""The waits, the deadlines and the end of a connection."""

from __future__ import annotations

import functools
import logging
import math
import os
import socket
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

try:
    import cython
except ImportError:
    from .. import _compiled as cython

from ..protocol.codes import CloseCode
from ..protocol.endpoint import Endpoint, State
from ..protocol.exceptions import SendTimeout, WebSocketClosed
from ..protocol.messages import Message, Part
from ..reactors.base import Link, Reactor, Served
from ..reactors.clock import monotonic
from .ending import Ending, Facts, Phase, Step
from .keepalive import Beat, KeepAlive
from .limits import TOO_SLOW, Limits
from .outbox import Outbox
from .sockets import limit_silence

logger = logging.getLogger("dwebsocket")

_PING_BYTES = 4
_LONGEST_SLEEP_SECONDS = 24 * 60 * 60  # every operating system can count so far

_OPEN = State.OPEN
_OVER = Phase.OVER

T = TypeVar("T")
Method = TypeVar("Method", bound=Callable[..., Any])


class WaitHook(Protocol):
    """Told before and after each wait; releases what a long wait must not hold (a database connection)."""

    def keeps_for(self, now: float) -> float:
        """For how many seconds from `now` (time.monotonic()) all may be kept. Must not wait."""
        ...  # pragma: no cover

    def release(self) -> None:
        """Release it before a wait begins; may wait itself."""
        ...  # pragma: no cover

    def woken(self) -> None:
        """Check what was kept, after a wait. Must not wait."""
        ...  # pragma: no cover


def on_reactor_thread(method: Method) -> Method:
    """Run the method on the reactor's thread, with the connection's lock held, whichever thread calls it."""

    @functools.wraps(method)
    def call(self: Lifetime, *arguments: Any) -> Any:
        return self.call_on_reactor(method, (self, *arguments))

    return call  # type: ignore[return-value]


class Lifetime(Served):
    """The waits, the deadlines and the end of a connection; it takes the steps that its parts find due.

    `ending`, `keepalive` and `outbox` judge by the facts and the time, and know no socket; each is made when it is
    first needed. `Connection`, above, passes the messages on.
    """

    __slots__ = (
        "_answers_owed",
        "_dispose",
        "_ending",
        "_inbox",
        "_inbox_bytes",
        "_keep_alive",
        "_link",
        "_outbox",
        "_owner_thread",
        "_read_ended",
        "_socket",
        "endpoint",
        "last_message_at",
        "last_read_at",
        "limits",
        "lock",
        "reactor",
        "wait_hook",
    )

    def __init__(
        self, sock: Any, reactor: Reactor, endpoint: Endpoint, limits: Limits, dispose: Callable[[], None]
    ) -> None:
        self.endpoint = endpoint
        self.limits = limits
        self.wait_hook: WaitHook | None = None
        self.reactor = reactor
        self._owner_thread = reactor.owner_thread or 0  # only this thread may use the connection; 0: any may
        self._link: Link = reactor.link(self, sock.fileno())
        self.lock = self._link.lock
        self._socket = sock
        self._dispose: Callable[[], None] | None = dispose  # None once it was called: no thread polls the socket
        self._inbox: list[Message | Part] = []
        self._inbox_bytes = 0
        self._answers_owed = 0  # messages that were taken, and may still be answered before the end
        self._read_ended = False  # the peer's stream has ended
        self._outbox: Outbox | None = None
        self._ending: Ending | None = None
        self._keep_alive: KeepAlive | None = None
        self.last_read_at = self.last_message_at = now = monotonic()
        if limits.ping_interval is not None or limits.idle_timeout is not None:
            self._keep_alive = KeepAlive(now, limits.ping_interval, limits.ping_timeout, limits.idle_timeout)
        limit_silence(sock, limits.ping_timeout, limits.send_timeout)

    @property
    def latency(self) -> float | None:
        """Seconds between the last ping that was answered and its pong; None before the first."""
        return None if self._keep_alive is None else self._keep_alive.latency

    def on_deadline(self, now: float) -> float | None:
        """Do what is due, and say when to be called again."""
        try:
            self._notice_hangup_while_paused(now)
            while self._act(now):
                self._settle()
            return self._earliest()
        except Exception:
            self._break_off()
            return None

    def _break_off(self) -> None:
        """End this connection, and no other, because of a fault in this package."""
        logger.exception("internal error; the connection is dropped")
        self._abort("internal error")

    # Threads

    def is_foreign_thread(self) -> bool:
        """Whether the calling thread must not touch the connection, but ask the reactor to call."""
        if cython.compiled:
            return self._owner_thread != 0 and PyThread_get_thread_ident() != self._owner_thread  # type: ignore # noqa: F821
        return self._owner_thread != 0 and self.reactor.thread_ident() != self._owner_thread

    def call_on_reactor(
        self, function: Callable[..., T], arguments: tuple[Any, ...], undo: Callable[[T], None] | None = None
    ) -> T:
        """Return the result of `function`, run on the reactor's thread, with the lock held, whichever thread calls.

        A result that a stopped caller in another thread cannot get any more is given to `undo`.
        """
        if self.is_foreign_thread():
            return self.reactor.call(functools.partial(self.call_on_reactor, function, arguments), undo)
        self._enter()
        try:
            return function(*arguments)
        finally:
            self._leave()

    def _enter(self) -> None:
        if self.lock is not None:
            self.lock.acquire()

    def _leave(self) -> None:
        if self.lock is not None:
            self.lock.release()

    def _post(self, function: Callable[[], None]) -> None:
        if self.is_foreign_thread():
            self.reactor.call(function)
        elif self.lock is None:
            function()
        else:
            self.lock.post(function)

    # Overridden by `Sending` and `Connection`

    def _wants_to_read(self) -> bool:
        """Whether arriving bytes should be read now."""
        raise NotImplementedError

    def _write(self, data: bytes, payload: bytes = b"") -> None:
        """Send what the kernel takes; the rest goes to the outbox."""
        raise NotImplementedError

    def _flush(self) -> None:
        """Send what waits, as far as the kernel takes it."""
        raise NotImplementedError

    # Waiting

    def _sleep(self, deadline: float | None) -> bool:
        """Sleep until something may have happened; False, at once, when the deadline has passed."""
        now = monotonic()
        remaining = _LONGEST_SLEEP_SECONDS if deadline is None else deadline - now
        if remaining <= 0:
            return False
        hook = self.wait_hook
        if hook is None:
            self._link.sleep(None if deadline is None else min(remaining, _LONGEST_SLEEP_SECONDS))
            return True
        keeps = hook.keeps_for(now)
        if keeps <= 0:  # others may run meanwhile: the caller looks again
            self._call_unlocked(hook.release)
        else:
            self._link.sleep(min(remaining, keeps, _LONGEST_SLEEP_SECONDS))
            hook.woken()
        return True

    def _call_unlocked(self, function: Callable[[], None]) -> None:
        """Call `function`, which may wait, without the lock."""
        self._leave()
        try:
            function()
        finally:
            self._enter()

    # The end

    def _settle(self) -> None:
        """Do what follows from the present state; every change of it must call this."""
        is_open = self.endpoint.state is _OPEN
        if not is_open and self._move_to_the_end():
            return
        link = self._link
        reads, writes = self._wants_to_read(), self._is_writing()
        if reads != link.reads or writes != link.writes:
            link.watch(read=reads, write=writes)
        if not is_open or writes:  # the other deadlines only move later, and are judged anew when they are due
            self._schedule()
        if not is_open or self._inbox:
            link.wake()

    def _move_to_the_end(self) -> bool:
        """Take the steps of the end that can be taken now; True when the end has come.

        A step may call this again: a write that fails looks at the socket. So each step is decided by fresh facts.
        """
        now = monotonic()
        if self._ending is None:
            self._ending = Ending(now, self.limits.close_timeout)
        while (step := self._ending.move(now, self._facts())) is not None:
            _STEPS[step](self)
        return self._ending.phase is _OVER

    def _facts(self) -> Facts:
        endpoint, outbox = self.endpoint, self._outbox
        facts = Facts(endpoint.state)
        facts.is_owed = bool(self._inbox) or self._answers_owed > 0
        facts.is_paused = not self._wants_to_read()
        facts.read_ended = self._read_ended
        facts.close_received = endpoint.close_received
        facts.last_read_at = self.last_read_at
        if outbox is not None:
            facts.is_writing = outbox.waiting > 0
            facts.write_ended = outbox.error is not None
            facts.last_progress_at = outbox.last_progress_at
        return facts

    def _is_writing(self) -> bool:
        """Whether bytes of ours wait for the peer to read."""
        return self._outbox is not None and self._outbox.waiting > 0

    def _close_now(self, code: int, reason: str) -> None:
        self._end(self.endpoint.close(code, reason))

    def _go_away_now(self, code: int) -> None:
        self._end(self.endpoint.close(code))
        if self._ending is not None:
            self._ending.hurry()
            self._schedule()

    def _end(self, close_frame: bytes) -> None:
        self._drop_inbox()
        self._write(close_frame)
        self._settle()

    def _abort(self, reason: str, error: type[WebSocketClosed] = WebSocketClosed) -> None:
        if self._ending is not None and self._ending.phase is _OVER:
            return
        self._give_up(reason, error)
        self._dispose_of_socket()

    def _give_up(self, reason: str, error: type[WebSocketClosed]) -> None:
        if self._ending is None:
            self._ending = Ending(monotonic(), self.limits.close_timeout)
        self._ending.give_up()
        self.endpoint.abort(reason)
        self._stop_writing(error)

    def _stop_writing(self, error: type[WebSocketClosed]) -> None:
        if self._outbox is None:
            self._outbox = Outbox(monotonic())
        self._outbox.end(error)

    def _drop_inbox(self) -> None:
        self._inbox.clear()
        self._inbox_bytes = self._answers_owed = 0
        if self.endpoint.has_more:  # the end may be in it
            self._link.resume()

    def _answer_the_end(self) -> None:
        self._write(self.endpoint.answer())

    def _end_writing(self) -> None:
        self._stop_writing(WebSocketClosed)
        if not self._read_ended:
            # Unread bytes would turn our FIN into a RST, which can overtake the Close frame: so we say that we are
            # done, and read until the peer is done, too.
            try:
                self._socket.shutdown(socket.SHUT_WR)
            except OSError:
                self._read_ended = True

    def _give_up_waiting(self) -> None:
        self._drop_inbox()
        self._abort(self._ending.reason)  # type: ignore[union-attr]  # this is a step of it

    def _dispose_of_socket(self) -> None:
        self._link.close(self._release)

    def _release(self) -> None:
        try:
            self._dispose()  # type: ignore[misc]  # called once
        finally:
            self._dispose = None

    def _go_on(self) -> None:
        self._ending = None

    def _notice_hangup_while_paused(self, now: float) -> None:
        """Notice a peer that has left while the inbox is full and nothing is read: else its connection never ends."""
        if self._ending is None and not self._wants_to_read() and self._link.hung_up():
            self._ending = Ending(now, self.limits.close_timeout, Phase.HUNG_UP)
            self._schedule()

    # Deadlines

    def _schedule(self) -> None:
        earliest = self._earliest()
        if earliest is not None:
            self._link.schedule(earliest)

    def _earliest(self) -> float | None:
        """The next deadline, if nothing else happens; None when there is none."""
        due = min(self._stalled_at(), self._overdue_at())
        if self._ending is not None:
            due = min(due, self._ending.due(self._facts()))
        if self._keep_alive is not None and self.endpoint.state is _OPEN:
            due = min(due, self._keep_alive.due(self.last_read_at, self.last_message_at))
        return None if due == math.inf else due

    def _stalled_at(self) -> float:
        outbox, send_timeout = self._outbox, self.limits.send_timeout
        if outbox is None or not outbox.waiting or send_timeout is None:
            return math.inf
        return outbox.last_progress_at + send_timeout

    def _overdue_at(self) -> float:
        outbox = self._outbox
        return math.inf if outbox is None or self.endpoint.state is not _OPEN else outbox.overdue_at

    def _act(self, now: float) -> bool:
        """Do one thing that is due, and return True, if there is one: the others may not be due any more then."""
        if self._stalled_at() <= now:
            self._give_up_sending()
            return True
        if self._overdue_at() <= now:
            self._judge_what_was_offered(now)
            return True
        if self._ending is not None and (step := self._ending.expire(now, self._facts())) is not None:
            _STEPS[step](self)
            return True
        if self._keep_alive is None or self.endpoint.state is not _OPEN:
            return False
        beat = self._keep_alive.beat(now, self.last_read_at, self.last_message_at)
        if beat is not None:
            _BEATS[beat](self, now, self._keep_alive)
        return beat is not None

    def _give_up_sending(self) -> None:
        self._abort(f"the peer did not read for {self.limits.send_timeout} seconds", SendTimeout)

    def _judge_what_was_offered(self, now: float) -> None:
        self._flush()  # this process may have stood still, and not the peer
        if self._outbox is not None and self._outbox.is_overdue(now):
            self._close_as_too_slow()

    def _close_as_too_slow(self) -> None:
        if self._outbox is not None:
            self._outbox.drop_offers()  # they would only hold up the Close frame
        self._end(self.endpoint.close(*TOO_SLOW))

    def _close_if_idle(self, now: float, keep_alive: KeepAlive) -> None:
        last_message_at = self.last_message_at
        self._link.look(pause=False)  # a message may have come while this process stood still
        if self.last_message_at == last_message_at:
            self._end(self.endpoint.close(CloseCode.NORMAL_CLOSURE, "idle"))

    def _ping(self, now: float, keep_alive: KeepAlive) -> None:
        # A peer with bytes waiting for it has enough to read, and the stalled outbox has its own deadline.
        payload = None if self._is_writing() else os.urandom(_PING_BYTES)
        keep_alive.pinged(now, payload)
        if payload is not None:
            self._write(self.endpoint.send_ping(payload))

    def _give_up_silent_peer(self, now: float, keep_alive: KeepAlive) -> None:
        # The pong may wait behind messages that no view takes, or this process stood still: that is no silent peer.
        if self._wants_to_read() and not self._link.arrived():
            self._abort(f"no answer to a ping within {self.limits.ping_timeout} seconds")
        else:
            keep_alive.excuse(now)


_STEPS: dict[Step, Callable[[Lifetime], None]] = {
    Step.GO_ON: Lifetime._go_on,
    Step.ANSWER: Lifetime._answer_the_end,
    Step.DROP_INBOX: Lifetime._drop_inbox,
    Step.END_WRITING: Lifetime._end_writing,
    Step.ABORT: Lifetime._give_up_waiting,
    Step.DISPOSE: Lifetime._dispose_of_socket,
}
_BEATS: dict[Beat, Callable[[Lifetime, float, KeepAlive], None]] = {
    Beat.IDLE: Lifetime._close_if_idle,
    Beat.PING: Lifetime._ping,
    Beat.DEAD: Lifetime._give_up_silent_peer,
}
