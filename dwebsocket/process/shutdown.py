"""The end of every WebSocket of this process, in time and in order."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import socket
from collections.abc import Callable
from types import FrameType

from .. import conf
from ..reactors import reactor_for
from .naming import view_name
from .registry import registry

logger = logging.getLogger("dwebsocket")


_NAMED = 5  # of the views that do not end, in the log
_calls_at_exit = itertools.count()  # not forgotten by a fork: neither are the functions to be called at exit


def call_at_exit(at_exit: Callable[[Callable[[], None]], None]) -> None:
    """Have `shutdown()` called when this process ends, by way of the first `at_exit`."""
    if not next(_calls_at_exit):
        at_exit(shutdown)


def shutdown(code: int | None = None, seconds: float | None = None) -> None:
    """End every WebSocket of this process with a closing handshake, and refuse new ones with 503 from now on.

    It is called by itself when the process ends. Blocks until every view has come to its end, at most twice `seconds`
    (WEBSOCKET_DRAIN_SECONDS). `code` is that of the Close frame (WEBSOCKET_SHUTDOWN_CODE).
    """
    code = conf.get("SHUTDOWN_CODE") if code is None else code
    seconds = conf.get("DRAIN_SECONDS") if seconds is None else seconds
    if registry.end(code, seconds):
        left = registry.members()
        views = sorted({view_name(entry.request) for entry in left})
        logger.warning(
            "%d WebSocket views had not ended %s seconds after they were told to: %s%s",
            len(left), 2 * seconds, ", ".join(views[:_NAMED]), " …" if len(views) > _NAMED else "",
        )  # fmt: skip


def shutdown_on_signal(signum: int = signal.SIGTERM) -> None:
    """End every WebSocket of this process as soon as it gets a signal; then happens what would have happened before.

    Needed where a server waits for attached views before it ends, or where the signal ends the process without its exit
    functions. Call it in the main thread of the process that serves (with gunicorn, from `post_worker_init`), once the
    server has set its own handler. RuntimeError where that one is not Python's to call.
    """
    earlier = signal.getsignal(signum)
    if earlier is None:
        raise RuntimeError(f"signal {signum} is handled outside of Python, and cannot be passed on")
    start = reactor_for(socket.socket).starter(lambda: _shutdown_for_signal(signum, earlier))
    started = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal started
        if earlier is signal.SIG_DFL and started:  # all have ended, or the signal comes for the second time
            signal.signal(number, earlier)
            os.kill(os.getpid(), number)
        if not started:
            started = True
            start()
        if callable(earlier):
            earlier(number, frame)

    signal.signal(signum, handle)


def _shutdown_for_signal(signum: int, earlier: object) -> None:
    shutdown()
    if earlier is signal.SIG_DFL:
        os.kill(os.getpid(), signum)
