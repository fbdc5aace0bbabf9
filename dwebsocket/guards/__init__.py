"""Who may open a WebSocket, and who may keep it: guards are asked at the opening handshake, and then every interval.

@accept_websocket(guard=[session_alive, has_perm("chat.view_room")], guard_interval=30)

A guard is called with the request. It lets in by returning True. It refuses by returning False or None or raising
PermissionDenied (HTTP 403, on an open WebSocket the close code 4403), or by raising Unauthorized (401, 4401). Any other
answer is a TypeError: what a decorator returns, such as login_required, is always true. What a guard sees as
`request.session` and `request.user` is always the state of now. Any other exception is an error at the opening
handshake; later it is logged, and asked again when the interval has passed: an outage of the database closes nothing.

A guard that asks the database once for all its WebSockets is a subclass of Guard; those of this module are.
"""

from .base import Guard, Verdict, check, guard_verdict
from .builtin import has_perm, session_alive, user_is_active
from .schedule import settle, watch, watch_no_longer

__all__ = [
    "Guard",
    "Verdict",
    "check",
    "guard_verdict",
    "has_perm",
    "session_alive",
    "settle",
    "user_is_active",
    "watch",
    "watch_no_longer",
]
