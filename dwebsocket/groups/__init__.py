"""Groups: a message reaches all members, whichever process it is sent from.

group       Groups, Group, group(), user_group(), everyone: which a project declares and sends to
messages    the envelope that travels between processes
position    a place in the history of a group
commit      a message leaves after the commit
membership  the groups of one WebSocket
audience    the members of one group in one process, and the frames that they get
events      messages that wait for a view
lane        what arrives is written to the members, a burst in one send for each
dispatcher  the groups of one process: it passes each message on to the lanes
history     histories in this process: positions, what is missing, and members that come back
presence    members that are here, and rosters
chance      random numbers for delays
loop        a thread that is started at its first need
waker       a loop that polls is woken
page        the JSON that a page gets: envelopes, gaps, rosters
process     the dispatcher of this process, for each alias
telling     signals, whose receivers may wait
node        the name of this process, and of its WebSockets
sending     a message leaves
control     WebSockets are closed in every process
logout      a logout closes those of its session
siblings    a warning where a message within this process is too little
testing     for tests: messages that were sent, and backends that are down
backend     the contract of backends
local       within this process
memory      what a broker would keep, for `local`
redis       between all processes, by way of Redis
config      WEBSOCKET_GROUPS
"""
