"""`is_websocket` and `websocket` on every request."""

from __future__ import annotations

from django.http import HttpRequest

from ..protocol import handshake
from ..servers import handshake_request


class Truth:
    """True or False, as a value and as a call: `if request.is_websocket` and `if request.is_websocket()`."""

    __slots__ = ("_value",)

    def __init__(self, value: bool) -> None:
        self._value = value

    def __bool__(self) -> bool:
        return self._value

    def __call__(self) -> bool:
        return self._value

    def __repr__(self) -> str:
        return repr(self._value)


_TRUTHS = {value: Truth(value) for value in (False, True)}


def prepare(request: HttpRequest) -> bool:
    """Give the request `is_websocket` and `websocket`, once; whether it asks to become a WebSocket."""
    if not hasattr(request, "is_websocket"):
        asked = "HTTP_UPGRADE" in request.META and _asks_for_websocket(request)
        request.is_websocket = _TRUTHS[asked]  # type: ignore[attr-defined]
        request.websocket = None  # type: ignore[attr-defined]
    return bool(request.is_websocket)  # type: ignore[attr-defined]


def _asks_for_websocket(request: HttpRequest) -> bool:
    request._handshake = handshake_request(request.META)  # type: ignore[attr-defined]  # for `upgrade()`
    return handshake.is_websocket(request._handshake)  # type: ignore[attr-defined]
