"""Everything that can go wrong, as one tree.

    WebSocketError
    ├── HandshakeError            the opening handshake is refused; knows its HTTP answer
    │   ├── UpgradeRequired       426: not this version of the protocol, or no WebSocket at all
    │   ├── OriginForbidden       403: a page of another site opened it
    │   ├── Unauthorized          401: the user is not logged in, or not any more
    │   ├── Forbidden             403: the user may not
    │   ├── ServerNotSupported    501: this server does not give away its socket
    │   ├── TooManyConnections    503: this process holds as many as it may
    │   ├── ShuttingDown          503: this process is about to end
    │   └── GroupsUnavailable     503, 1013: the backend of the groups does not answer
    ├── ProtocolError             the peer broke RFC 6455; knows its close code, 1002
    │   ├── InvalidPayload        1007: text that is not UTF-8
    │   ├── MessageTooBig         1009: more than the limit
    │   └── PolicyViolation       1008: within the rules, but far more work than content
    ├── HistoryDisabled           a history is asked for, and the Groups are declared without one
    ├── PositionGone              the history does not reach back to a position any more
    ├── PresenceDisabled          presence is asked for, and the Groups are declared without it
    ├── TooManyGroups             one WebSocket joins more groups than it may
    └── WebSocketClosed           the connection is closed; knows the close code and reason
        └── SendTimeout           it was closed because the peer did not read

Each says in lower case what was wrong. The protocol's errors are in `protocol.exceptions`; the others, which answer
with HTTP, are here.
"""

from __future__ import annotations

from collections.abc import Mapping

from .protocol.codes import CloseCode
from .protocol.exceptions import (
    HandshakeError,
    InvalidPayload,
    MessageTooBig,
    PolicyViolation,
    ProtocolError,
    SendTimeout,
    UpgradeRequired,
    WebSocketClosed,
    WebSocketError,
)

__all__ = [
    "Forbidden",
    "GroupsUnavailable",
    "HandshakeError",
    "HistoryDisabled",
    "InvalidPayload",
    "MessageTooBig",
    "OriginForbidden",
    "PolicyViolation",
    "PositionGone",
    "PresenceDisabled",
    "ProtocolError",
    "SendTimeout",
    "ServerNotSupported",
    "ShuttingDown",
    "TooManyConnections",
    "TooManyGroups",
    "Unauthorized",
    "UpgradeRequired",
    "WebSocketClosed",
    "WebSocketError",
]


class OriginForbidden(HandshakeError):
    """The page that opened the WebSocket belongs to a site that may not (10.2)."""

    status_code = 403


class Unauthorized(HandshakeError):
    """The user is not logged in; an open WebSocket closes with 4401."""

    status_code = 401
    headers: Mapping[str, str] = {"WWW-Authenticate": "Session"}  # RFC 9110, 15.5.2: there must be one


class Forbidden(HandshakeError):
    """The user lacks the permission; an open WebSocket closes with 4403."""

    status_code = 403


class ServerNotSupported(HandshakeError):
    """The WSGI server does not give away the socket of its connection."""

    status_code = 501


class TooManyConnections(HandshakeError):
    """This process serves as many WebSockets as it may; the client can try again."""

    status_code = 503
    headers: Mapping[str, str] = {"Retry-After": "10"}


class ShuttingDown(HandshakeError):
    """This process is about to end; another one will answer the client that tries again."""

    status_code = 503
    headers: Mapping[str, str] = {"Retry-After": "1"}


class GroupsUnavailable(HandshakeError):
    """The backend of the groups does not answer: what was to be sent may have been sent or not.

    A WebSocket view that does not handle it closes with 1013, or refuses with 503: the client tries again later.
    """

    close_code = CloseCode.TRY_AGAIN_LATER
    status_code = 503
    headers: Mapping[str, str] = {"Retry-After": "5"}


class TooManyGroups(WebSocketError):
    """One WebSocket would be in more groups than `max_groups`."""


class HistoryDisabled(WebSocketError):
    """The Groups are declared without `history=`."""


class PositionGone(WebSocketError):
    """The history does not reach back to this position: it is too old, or of another epoch."""


class PresenceDisabled(WebSocketError):
    """The Groups are declared without `presence=True`."""
