"""The signals of each WebSocket: it was opened, it was closed.

Both are sent in the view's thread or greenlet, with `sender` the class of the WebSocket. An exception in a receiver is
logged; the view and the other receivers go on.
"""

from __future__ import annotations

from django.dispatch import Signal

#: The 101 has been sent. Arguments: `request`, `websocket`.
websocket_opened = Signal()

#: The connection is over, and the view has ended. Arguments: `request`, `websocket`, `code` and `reason` of the end,
#: `seconds`, `messages_received`, `messages_sent`, `bytes_received`, `bytes_sent` (of frames, on the wire).
websocket_closed = Signal()
