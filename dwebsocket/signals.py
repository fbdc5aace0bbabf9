"""The signals of each WebSocket, and of the groups.

Those of a WebSocket that was opened, or closed, are sent in the view's thread or greenlet, with `sender` the class of
the WebSocket; those of the groups in a new one. An exception in a receiver is logged; all else goes on.
"""

from __future__ import annotations

from django.dispatch import Signal

#: The 101 has been sent. Arguments: `request`, `websocket`.
websocket_opened = Signal()

#: The connection is over, and the view has ended. Arguments: `request`, `websocket`, `code` and `reason` of the end,
#: `seconds`, `messages_received`, `messages_sent`, `bytes_received`, `bytes_sent` (of frames, on the wire).
websocket_closed = Signal()

#: The backend of the groups could not be reached: messages to them may be missing. Arguments: `alias` (of
#: WEBSOCKET_GROUPS), `seconds` that it took. Sent once for each outage and process, when it is over.
groups_interrupted = Signal()

#: A member of a group is too slow: messages for it were dropped, or it was closed with 1013, as `overflow` says.
#: Arguments: `websocket`, `group` (the name). `sender` is the class of the WebSocket.
group_overflow = Signal()

#: Members have come, or gone. Arguments: `group` (the name), `alias` (of WEBSOCKET_GROUPS), `joined`, `left`: lists of
#: Member. Sent once for each change over all processes, by the one that noted it: that of the member, or, after a
#: crash, another one. A user comes with its first WebSocket, and goes GRACE seconds after its last one.
group_presence_changed = Signal()
