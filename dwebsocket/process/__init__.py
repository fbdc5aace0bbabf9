"""What one process has: its open WebSockets, how many there may be, and their end.

shutdown   all of them end, when the process does
info       what is known of each
observers  what is told of each opening and end: signals, a line in the log
registry   an entry for each, and the limit
naming     names of views
"""
