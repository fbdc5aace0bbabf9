"""WebSockets for ordinary, synchronous Django views.

from dwebsocket import accept_websocket

@accept_websocket
def echo(request):
    if not request.is_websocket():
        return render(request, "echo.html")
    for message in request.websocket:
        request.websocket.send(message)
"""

from .decorators import accept_websocket, require_websocket
from .exceptions import (
    Forbidden,
    GroupsUnavailable,
    HistoryDisabled,
    PositionGone,
    PresenceDisabled,
    TooManyGroups,
    Unauthorized,
)
from .groups.control import disconnect_user
from .groups.group import Group, Groups, everyone, group, is_online, user_group
from .groups.page import envelope
from .groups.position import START
from .groups.presence.members import Member
from .guards.base import Guard
from .guards.builtin import has_perm, session_alive, user_is_active
from .process.info import ConnectionInfo
from .process.registry import connections
from .process.shutdown import shutdown, shutdown_on_signal
from .protocol import COMPILED
from .protocol.codes import CloseCode
from .protocol.endpoint import State
from .protocol.exceptions import HandshakeError, SendTimeout, WebSocketClosed, WebSocketError
from .signals import (
    group_overflow,
    group_presence_changed,
    groups_interrupted,
    websocket_closed,
    websocket_opened,
)
from .views import WebSocketRequest, WebSocketView
from .websocket import Gap, GroupMessage, Joined, Tick, WebSocket

__all__ = [
    "COMPILED",
    "START",
    "CloseCode",
    "ConnectionInfo",
    "Forbidden",
    "Gap",
    "Group",
    "GroupMessage",
    "Groups",
    "GroupsUnavailable",
    "Guard",
    "HandshakeError",
    "HistoryDisabled",
    "Joined",
    "Member",
    "PositionGone",
    "PresenceDisabled",
    "SendTimeout",
    "State",
    "Tick",
    "TooManyGroups",
    "Unauthorized",
    "WebSocket",
    "WebSocketClosed",
    "WebSocketError",
    "WebSocketRequest",
    "WebSocketView",
    "accept_websocket",
    "connections",
    "disconnect_user",
    "envelope",
    "everyone",
    "group",
    "group_overflow",
    "group_presence_changed",
    "groups_interrupted",
    "has_perm",
    "is_online",
    "require_websocket",
    "session_alive",
    "shutdown",
    "shutdown_on_signal",
    "user_group",
    "user_is_active",
    "websocket_closed",
    "websocket_opened",
]

__version__ = "1.0.0.dev0"
