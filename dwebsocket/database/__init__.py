"""The database connections of a view, released while it waits for its peer.

lease    the connections of one view, released when it waits
kept     the connections that a view which comes back soon keeps for a moment
sharing  the connections that a test shares with the threads that work for it
atomic   ATOMIC_REQUESTS
own      the connections of this thread or greenlet
cursors  which of their cursors are in use
"""
