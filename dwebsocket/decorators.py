"""The two decorators."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, overload

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.cache import patch_vary_headers

from . import conf
from .contrib.rest_framework import patch_finalize_response
from .database.atomic import atomic_request, exempt
from .upgrade import View, upgrade
from .upgrade.refusals import refuse_stripped
from .upgrade.request import prepare
from .upgrade.viewrun import GENERATOR

if TYPE_CHECKING:
    from typing_extensions import Unpack

Arguments = ParamSpec("Arguments")
Responding = TypeVar("Responding", bound=Callable[..., HttpResponseBase])

#: The attribute by which the middleware knows a decorated view.
MARK = "accepts_websocket"

#: The attribute with the options of a decorated view, for the system checks.
OPTIONS = "websocket_options_given"

UPGRADE_REQUIRED = (
    "This URL expects a WebSocket. If you did open one, a proxy in between has removed the Upgrade header.\n"
)


class ViewDecorator(Protocol):
    """A decorator. It allows a view to return None; a view that always returns a response keeps its type."""

    @overload
    def __call__(self, view: Responding, /) -> Responding: ...
    @overload
    def __call__(
        self, view: Callable[Arguments, HttpResponseBase | None], /
    ) -> Callable[Arguments, HttpResponseBase]: ...


@overload
def accept_websocket(view: Responding) -> Responding: ...
@overload
def accept_websocket(view: Callable[Arguments, HttpResponseBase | None]) -> Callable[Arguments, HttpResponseBase]: ...
@overload
def accept_websocket(**options: Unpack[conf.ViewOptions]) -> ViewDecorator: ...
def accept_websocket(view: Any = None, **options: Any) -> Any:
    """Make a view that serves WebSocket and plain HTTP alike.

    `request.is_websocket()` tells which it is; `request.websocket` is the WebSocket, or None. On a WebSocket the view
    may outlive its request, and answers by talking: its return value after that is ignored, unless it is that of
    `stay_open()`.

    Options, each the setting of that name for this view alone: `subprotocols`, `origins` (instead of
    WEBSOCKET_ALLOWED_ORIGINS), `require_origin`, `max_message_size` (bytes), `streaming`, `compression`,
    `compression_min_size` (bytes), `receive_queue` (messages), `send_timeout`, `ping_interval`, `ping_timeout`,
    `close_timeout`, `idle_timeout` (seconds), `detach`, `release_db`, `guard` (see `dwebsocket.guards`),
    `guard_interval` (seconds), `websocket_class` (of `request.websocket`, or the dotted path to it).

    With ATOMIC_REQUESTS, plain HTTP is served in a transaction, and a WebSocket is not.
    """
    return _decorator(view, options, serve_http=lambda view, request, *args, **kwargs: view(request, *args, **kwargs))


@overload
def require_websocket(view: Responding) -> Responding: ...
@overload
def require_websocket(view: Callable[Arguments, HttpResponseBase | None]) -> Callable[Arguments, HttpResponseBase]: ...
@overload
def require_websocket(**options: Unpack[conf.ViewOptions]) -> ViewDecorator: ...
def require_websocket(view: Any = None, **options: Any) -> Any:
    """Make a view that serves WebSocket only: plain HTTP is answered with 426. Options as for `accept_websocket`."""
    return _decorator(view, options, serve_http=_refuse_http)


def _refuse_http(view: View, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
    return HttpResponse(UPGRADE_REQUIRED, status=426, content_type="text/plain")


def _decorator(view: View | None, options: dict[str, Any], serve_http: Callable[..., Any]) -> Any:
    conf.check_view_options(options)
    if view is None:
        return functools.partial(_decorate, options=options, serve_http=serve_http)
    return _decorate(view, options, serve_http)


def _decorate(view: View, options: dict[str, Any], serve_http: Callable[..., Any]) -> View:
    if inspect.isclass(view):
        raise TypeError(f"{view.__name__} is a class: use method_decorator(…, name='dispatch')")
    if not callable(view):
        raise TypeError(f"a view is a function, not {view!r}; options are given by name")
    if inspect.iscoroutinefunction(view) or inspect.isasyncgenfunction(view):
        raise TypeError(f"{view!r} is asynchronous; a WebSocket view here is an ordinary function")
    if inspect.isgeneratorfunction(view):
        raise TypeError(f"{view!r}: {GENERATOR}")

    patch_finalize_response(view)
    exempt_on = exempt(view)

    @functools.wraps(view)
    def decorated(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase | None:
        if not prepare(request):
            http_view = atomic_request(view, exempt_on, request)
            response: HttpResponseBase = refuse_stripped(request) or serve_http(http_view, request, *args, **kwargs)
        elif request.websocket is not None:  # type: ignore[attr-defined]  # decorated twice, or accepted for all views
            return view(request, *args, **kwargs)
        else:
            response = upgrade(request, view, args, kwargs, options)
        if isinstance(response, HttpResponseBase):  # else Django raises an error that says what is wrong
            vary(response)
        return response

    decorated._non_atomic_requests = exempt_on  # type: ignore[attr-defined]  # Django has no public name for it
    setattr(decorated, MARK, True)
    setattr(decorated, OPTIONS, options)
    return decorated


def vary(response: HttpResponseBase) -> None:
    """Say that another answer is given to an opening handshake: a cache must keep the two apart."""
    patch_vary_headers(response, ["Upgrade"])
