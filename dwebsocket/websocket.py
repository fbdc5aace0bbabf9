"""The WebSocket that a view gets."""

from __future__ import annotations

from .connection.verbs import Verbs

__all__ = ["WebSocket"]


class WebSocket(Verbs):
    """A WebSocket as a view sees it (`request.websocket`).

    The opening handshake is answered by `accept()`, or by the first verb that needs the connection. Until then the
    view can still refuse: by returning an HttpResponse, by raising Http404 or PermissionDenied, or by `close()`.

    Every method may be called from any thread or greenlet.
    """
