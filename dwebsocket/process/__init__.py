"""The state of one process: its open WebSockets, how many there may be, and their end.

shutdown   the end of all of them, when the process ends
overstay   views that go on after their connection is over, told by the log
observers  each opening and end is told: signals, a line in the log
registry   an entry for each WebSocket, and the limit
info       a snapshot of one
naming     names of views and users for logs
"""
