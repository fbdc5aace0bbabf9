"""What is told of each opening and each end: the signals, and one line in the log."""

from __future__ import annotations

import logging

from .info import ConnectionInfo
from .naming import visible

logger = logging.getLogger("dwebsocket.access")


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
