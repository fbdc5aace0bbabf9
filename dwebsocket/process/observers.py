"""Each opening and each end is told: by the signals, and by one line in the log."""

from __future__ import annotations

import logging
from typing import Any

from django.dispatch import Signal

from ..protocol.codes import CloseCode
from ..signals import websocket_closed, websocket_opened
from .info import ConnectionInfo
from .naming import visible
from .registry import Entry

logger = logging.getLogger("dwebsocket.access")


def tell_opened(entry: Entry) -> None:
    """Tell that the connection is open. Called in the view's thread or greenlet."""
    _send(websocket_opened, entry)


def tell_closed(entry: Entry) -> None:
    """Tell that the connection is over, and that its view has ended."""
    info = entry.info()
    if info is not None:
        code, reason = info.websocket.close_code or CloseCode.ABNORMAL_CLOSURE, info.websocket.close_reason
        _send(websocket_closed, entry, code=code, reason=reason, **info.traffic)
        log(info, code, reason)


def _send(signal: Signal, entry: Entry, **arguments: Any) -> None:
    signal.send_robust(type(entry.websocket), request=entry.request, websocket=entry.websocket, **arguments)


def log(info: ConnectionInfo, code: int, reason: str) -> None:
    """Write the one line of a connection that has closed. Every part of it is an attribute of the record too."""
    if not logger.isEnabledFor(logging.INFO):
        return
    logger.info(
        "%s %s %s %.3f s, received %d messages (%d bytes), sent %d (%d bytes), closed %d%s",
        visible(info.path), visible(info.user or "-"), visible(info.address or "-"), info.seconds,
        info.messages_received, info.bytes_received, info.messages_sent, info.bytes_sent, code,
        f" {visible(reason)}" if reason else "",
        extra={
            "request": info.request, "path": info.path, "user": info.user, "address": info.address,
            "close_code": code, "close_reason": reason, **info.traffic,
        },
    )  # fmt: skip
