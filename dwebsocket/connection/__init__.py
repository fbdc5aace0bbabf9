"""One live connection. From top to bottom:

    verbs       what a view calls
    connection  what a connection receives
    sending     what it sends
    lifetime    what it does besides: it waits, keeps its deadlines, and ends
    sockets     bytes in and out of a non-blocking socket

and sans I/O, so that their tests are tables:

    ending      the phases of the end
    keepalive   pings, idle, latency
    outbox      what the kernel has not taken
    batch       answers that leave together
    limits      what one connection may take
"""
