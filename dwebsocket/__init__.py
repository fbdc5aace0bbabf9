"""WebSockets for ordinary, synchronous Django views.

from dwebsocket import accept_websocket

@accept_websocket
def echo(request):
    if not request.is_websocket():
        return render(request, "echo.html")
    for message in request.websocket:
        request.websocket.send(message)
"""

from .decorators import accept_websocket, require_websocket
from .live import shutdown, shutdown_on_signal
from .protocol.codes import CloseCode
from .protocol.endpoint import State
from .protocol.exceptions import SendTimeout, WebSocketClosed, WebSocketError

__all__ = [
    "CloseCode",
    "SendTimeout",
    "State",
    "WebSocketClosed",
    "WebSocketError",
    "accept_websocket",
    "require_websocket",
    "shutdown",
    "shutdown_on_signal",
]

__version__ = "1.0.0.dev0"
