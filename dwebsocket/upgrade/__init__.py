"""A Django request becomes a WebSocket: checked, handed to its view, and given back to Django as an ordinary response.

The view outlives its request. It runs in a greenlet or thread of its own; Django's call of it returns as soon as the
view has answered with HTTP, or has accepted. From then on the server has nothing to do with the connection any more.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponseBase

from .. import conf, guards
from ..process.registry import live
from ..process.shutdown import call_at_exit
from ..protocol import handshake
from ..protocol.exceptions import HandshakeError
from ..servers import find_server
from .origin import check_origin
from .refusals import refuse
from .viewrun import Session

View = Callable[..., HttpResponseBase | None]


def upgrade(
    request: HttpRequest, view: View, args: tuple[Any, ...], kwargs: dict[str, Any], given: dict[str, Any]
) -> HttpResponseBase:
    """The response of `view` to a request that asks for a WebSocket: its own where it refuses, else the inert 101.

    `given` are the options of the view's decorator.
    """
    options = conf.options(given)
    session = None

    def run() -> HttpResponseBase | None:  # not a partial: a call from C would cost every view a kilobyte of stack
        return view(request, *args, **kwargs)

    try:
        server = find_server(request.META, first=conf.server_classes())
        session = Session(request, server, options)
        session.opening = handshake.read(request._handshake)  # type: ignore[attr-defined]
        check_origin(request, options)
        guards.check(request, options.guard)
        live.enter(session)
        call_at_exit(server.at_exit)
    except HandshakeError as error:
        if session is None or not server.has_answered:
            return refuse(request, error)
        return session.run(functools.partial(refuse, request, error))
    return session.run(run)
