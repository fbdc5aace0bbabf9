"""One live connection. From top to bottom:

    verbs       the methods that a view calls
    connection  receives: reads, parses, keeps the inbox
    sending     sends: messages, fragments, frames that are offered
    lifetime    waits, keeps the deadlines, and ends
    sockets     bytes in and out of a non-blocking socket

and sans I/O, so that their tests are tables:

    ending      the phases of the end
    keepalive   pings, idle, latency
    outbox      bytes that the kernel has not taken
    batch       answers that leave together
    limits      the bytes, messages and seconds that one connection may take
"""
