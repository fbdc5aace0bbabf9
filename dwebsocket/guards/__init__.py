"""Guards decide which WebSockets may open and stay open: asked at the opening handshake, and then every interval.

@accept_websocket(guard=[session_alive, has_perm("chat.view_room")], guard_interval=30)

A guard is called with the request. It lets in by returning True. It refuses by returning False or None or raising
PermissionDenied (HTTP 403, on an open WebSocket the close code 4403), or by raising Unauthorized (401, 4401). Any other
answer is a TypeError: the result of a decorator, such as login_required, is always true.

A guard reads `request.session` and `request.user` as they are now. Any other exception is an error at the opening
handshake. Later it is logged, and the guard is asked again after the interval: a database outage closes nothing.

A subclass of Guard asks the database once for all its WebSockets; the guards of this package do.
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
