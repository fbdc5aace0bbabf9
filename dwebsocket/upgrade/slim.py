"""The request of a view that outlives it, in little memory: what a view may ask of it is all there.

Half of what an idle connection takes is its request. Thousands of them hold equal strings, lists and dictionaries, and
objects that Django makes in advance for a response that is never sent.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterator
from types import FunctionType, MethodType
from typing import Any

from django.http import HttpRequest
from django.utils.functional import LazyObject

from ..servers import Server
from ..servers.base import EMPTY_BODY, alike

#: By route, what the URLconf alone decides in a ResolverMatch, of the last one seen: Django makes these lists anew for
#: each request. `tried` has one for each pattern before that of the view, and takes kilobytes in a large project.
_matches: dict[str, tuple[Any, ...]] = {}

_STORAGES = frozenset(f"django.contrib.messages.storage.{name}" for name in ("cookie", "fallback", "session"))
_USER = "django.contrib.auth.middleware"


def slim(request: HttpRequest, server: Server) -> None:
    """Keep of the request what its view may still ask for. `server` has given the connection away."""
    vars(request).pop("_handshake", None)
    request._stream = EMPTY_BODY
    inner: Any = getattr(request, "_request", request)  # REST framework's has Django's inside
    inner._stream = EMPTY_BODY
    vars(inner).pop("headers", None)  # made from META when it is asked for
    environ: dict[str, Any] = inner.META
    if type(environ) is dict and environ is vars(inner).get("environ"):
        inner.META = inner.environ = server.kept(environ)  # not in place: the server may still need its own
    inner.method, inner.path, inner.path_info = alike(inner.method), alike(inner.path), alike(inner.path_info)
    with contextlib.suppress(AttributeError):  # another Django, or a project's own class: what is left stays as it is
        _slim_match(inner.resolver_match)
        _slim_user(inner)
        _slim_messages(inner)


def _slim_match(match: Any) -> None:
    if match is None or type(match.route) is not str:
        return
    own = (
        *(match.tried, match.app_names, match.namespaces, match.extra_kwargs),
        *(match.view_name, match.namespace, match.app_name, match._func_path, match.route),
    )
    seen = _matches.setdefault(match.route, own)
    if seen == own:
        match.tried, match.app_names, match.namespaces, match.extra_kwargs = seen[:4]
        match.view_name, match.namespace, match.app_name, match._func_path, match.route = seen[4:]
    else:
        _matches[match.route] = own
    if match.captured_kwargs == match.kwargs:
        match.captured_kwargs = match.kwargs


def _slim_user(request: Any) -> None:
    """Bind the functions that find the user to the request: Django does so with a closure and a partial."""
    asks = vars(request).get("auser")
    if type(asks) is functools.partial and asks.func.__module__ == _USER and asks.args == (request,):
        request.auser = MethodType(asks.func, request)
    user = vars(request).get("user")
    if not isinstance(user, LazyObject):
        return
    asks = vars(user).get("_setupfunc")
    if type(asks) is not FunctionType or asks.__module__ != _USER:
        return
    if [cell.cell_contents for cell in asks.__closure__ or ()] == [request]:  # lambda: get_user(request)
        vars(user)["_setupfunc"] = MethodType(sys.modules[_USER].get_user, request)


def _slim_messages(request: Any) -> None:
    messages = vars(request).get("_messages")
    if messages is not None and _is_untouched(messages):
        request._messages = Messages(request, type(messages))


def _is_untouched(messages: Any) -> bool:
    """Whether the storage is one of Django's, and no code has used it: one made later is as good."""
    return (
        type(messages).__module__ in _STORAGES
        and not (messages.used or messages.added_new or messages._queued_messages)
        and not (hasattr(messages, "_loaded_data") or hasattr(messages, "_level"))
    )


class Messages:
    """Django's storage for the messages of the request, made when it is needed: it takes more than a kilobyte."""

    __slots__ = ("_kind", "_request")

    def __init__(self, request: Any, kind: type[Any]) -> None:
        object.__setattr__(self, "_request", request)
        object.__setattr__(self, "_kind", kind)

    def update(self, response: Any) -> Any:
        """Store what was added; called with each response."""
        storage = self._request._messages
        return None if storage is self else storage.update(response)

    def __getattr__(self, name: str) -> Any:
        return getattr(_made(self), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(_made(self), name, value)

    def __iter__(self) -> Iterator[Any]:
        return iter(_made(self))

    def __len__(self) -> int:
        return len(_made(self))

    def __contains__(self, item: object) -> bool:
        return item in _made(self)

    def __repr__(self) -> str:
        return repr(_made(self))


def _made(messages: Messages) -> Any:
    request = messages._request
    if request._messages is messages:
        request._messages = messages._kind(request)
    return request._messages
