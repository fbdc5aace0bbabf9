"""A small blocking client (RFC 6455), for the management commands and the test client.

No public API. It has no extensions, no proxies, no redirects and no limits: it is meant for trusted servers.

    command     the arguments and the words that the management commands share
    connection  an open WebSocket, and the calls that open one
    handshake   the opening handshake, and the HTTP that answers it
    tls         TLS over a socket
    stream      a socket whose waits have deadlines
    url         the parts of a URL
"""

from .connection import CLOSE_TIMEOUT_SECONDS, ClientConnection, connect, dial, open_websocket
from .handshake import ClientHandshake, HandshakeFailed, Refused, Response, read_head
from .stream import Stream
from .tls import TLSStream
from .url import Target

__all__ = [
    "CLOSE_TIMEOUT_SECONDS",
    "ClientConnection",
    "ClientHandshake",
    "HandshakeFailed",
    "Refused",
    "Response",
    "Stream",
    "TLSStream",
    "Target",
    "connect",
    "dial",
    "open_websocket",
    "read_head",
]
