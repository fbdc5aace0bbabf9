"""What is known of a connection: for `connections()`, for the signals, and for its one line in the log."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest
from django.utils.functional import LazyObject, empty

from .websocket import WebSocket

logger = logging.getLogger("dwebsocket.access")


@dataclass(frozen=True, kw_only=True)
class ConnectionInfo:
    """One open WebSocket: whose it is, and what has passed so far.

    `user` is the name of the user if the view, a guard of this package, or something before them has asked for one. It
    is "" where nobody is logged in, and where nothing has used `request.user`: that would be a query. `address` is what
    the server calls REMOTE_ADDR. `seconds` since the connection was opened; bytes are those of frames on the wire.
    """

    websocket: WebSocket
    request: HttpRequest
    path: str
    user: str
    address: str
    seconds: float
    messages_received: int
    messages_sent: int
    bytes_received: int
    bytes_sent: int

    @property
    def traffic(self) -> dict[str, Any]:
        """The numbers alone."""
        return {
            "seconds": self.seconds,
            "messages_received": self.messages_received,
            "messages_sent": self.messages_sent,
            "bytes_received": self.bytes_received,
            "bytes_sent": self.bytes_sent,
        }


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


def visible(text: str) -> str:
    """The text in one line: what a peer says does not forge lines of a log."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def user_name(request: HttpRequest) -> str:
    """The name of the request's user; "" without one, and where nothing has asked for the user: that would be a query.

    A guard that has looked the user up says the name by `know_user()`.
    """
    request = getattr(request, "_request", request)  # REST framework's, which keeps its user there
    user: Any = vars(request).get("user")
    if isinstance(user, LazyObject) and vars(user).get("_wrapped", empty) is empty:
        return str(vars(request).get(_KNOWN, ""))
    return _name(user) if getattr(user, "is_authenticated", False) else ""


def know_user(request: HttpRequest, user: Any) -> None:
    """Keep the name of the user to whom the session of the request belongs; None: to no user."""
    setattr(request, _KNOWN, "" if user is None else _name(user))


_KNOWN = "_dwebsocket_user_name"


def _name(user: Any) -> str:
    try:
        return str(user.get_username() if hasattr(user, "get_username") else user)
    except Exception:  # of a project's own class: a name is not worth the rest of the line
        return ""


def view_name(request: HttpRequest) -> str:
    """The dotted name of the request's view; never its path, which the peer writes, and which may hold a secret."""
    match = request.resolver_match
    return "of no URL" if match is None else visible(dotted_name(match.func))


def dotted_name(view: Any) -> str:
    """The name of a view: of the class, where `as_view()` has made it."""
    view = getattr(view, "view_class", None) or getattr(view, "cls", None) or view
    return f"{view.__module__}.{getattr(view, '__qualname__', type(view).__qualname__)}"
