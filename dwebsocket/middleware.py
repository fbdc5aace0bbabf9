"""The middleware: `is_websocket` and `websocket` on every request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponseBase
from django.utils.module_loading import import_string

from . import conf
from .decorators import MARK, vary
from .protocol.exceptions import HandshakeError
from .upgrade import upgrade
from .upgrade.refusals import refuse
from .upgrade.request import prepare

_NOT_EXPECTED = (
    "this URL does not expect a WebSocket: its view is not decorated with accept_websocket or require_websocket, as it"
    " must be where WebSocketMiddleware is in use and WEBSOCKET_ACCEPT_ALL is not set. A class needs"
    " method_decorator(accept_websocket, name='dispatch'). A decorator that hides ours goes below it, or uses"
    " functools.wraps; or leave the middleware out"
)


class WebSocketMiddleware:
    """Gives every request `is_websocket` and `websocket`, and refuses a WebSocket to a view that does not expect one.

    With WEBSOCKET_ACCEPT_ALL every view expects one. Then it must be the last middleware of the list, for it calls the
    view itself. A middleware behind it could not check the view any more, as LoginRequiredMiddleware does.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        asked = prepare(request)
        response = self._get_response(request)
        # A wrong setting must not break plain HTTP, so the setting is read here without a check.
        if asked or getattr(settings, f"{conf.PREFIX}ACCEPT_ALL", False):
            vary(response)
        return response

    def process_view(
        self, request: HttpRequest, view: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> HttpResponseBase | None:
        """Answer a WebSocket request for a view that is not decorated; None leaves the request to the view."""
        if not prepare(request) or getattr(view, MARK, False):
            return None
        if not conf.get("ACCEPT_ALL"):
            return refuse(request, HandshakeError(_NOT_EXPECTED))
        if passed_over := middleware_passed_over():
            raise ImproperlyConfigured(
                f"with WEBSOCKET_ACCEPT_ALL, WebSocketMiddleware must come after {', '.join(passed_over)}"
            )
        return upgrade(request, view, args, kwargs, {})


def middleware_passed_over() -> list[str]:
    """List the middleware behind WebSocketMiddleware with a `process_view`: the view would be called without it."""
    paths = list(settings.MIDDLEWARE)
    own = f"{WebSocketMiddleware.__module__}.{WebSocketMiddleware.__qualname__}"
    if own not in paths:  # a subclass, or a wrapper: its place is not known
        return []
    return [path for path in paths[paths.index(own) + 1 :] if hasattr(import_string(path), "process_view")]
