"""Groups: a message reaches all members, whichever process it is sent from.

group       Groups, Group, group(), user_group(), everyone: which a project declares and sends to
messages    the envelope that travels between processes
commit      a message leaves after the commit
membership  the groups of one WebSocket
audience    the members of one group in one process
dispatcher  what arrives is written to the members, a burst in one send for each
process     the dispatcher of this process, for each alias
backend     the contract of backends
local       within this process
redis       between all processes, by way of Redis
config      WEBSOCKET_GROUPS
"""
