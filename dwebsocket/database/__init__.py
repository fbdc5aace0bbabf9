"""The database connections of a view: given back while it waits for its peer.

lease    what one view has, released when it waits
sharing  what a test shares with the threads that work for it
atomic   ATOMIC_REQUESTS
own      the connections of this thread or greenlet
cursors  which of their cursors are in use
"""
