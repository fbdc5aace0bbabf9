"""A Django request becomes a WebSocket: checked, handed to its view, and given back to Django as an ordinary response.

The view outlives its request. It runs in a new greenlet or thread. Django's call of it returns as soon as the view has
answered with HTTP, or has accepted. From then on the server has nothing to do with the connection.

request    is_websocket and websocket on every request
origin     the pages that may open a WebSocket
refusals   the HTTP answers, and the inert 101
viewrun    the view runs, detached or attached
parking    the turns of a view that has ended while its connection stays open
opening    pending, accepted or refused
outcomes   a view's end: what follows from it
sessions   the session, saved before the 101
context    language, time zone, URLconf carried over
slim       the request of a view that outlives it, in little memory
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponseBase

from .. import conf, guards
from ..process.registry import Entry, registry
from ..process.shutdown import call_at_exit
from ..protocol import handshake
from ..protocol.exceptions import HandshakeError
from ..protocol.handshake import Handshake
from ..servers import find_server
from .origin import check_origin
from .refusals import refuse
from .viewrun import ViewRun

View = Callable[..., HttpResponseBase | None]


def upgrade(
    request: HttpRequest, view: View, args: tuple[Any, ...], kwargs: dict[str, Any], given: dict[str, Any]
) -> HttpResponseBase:
    """The response of `view` to a request that asks for a WebSocket: its own where it refuses, else the inert 101.

    `given` are the options of the view's decorator.
    """
    options = conf.options(given)

    def run() -> HttpResponseBase | None:  # not a partial: a call from C would cost every view a kilobyte of stack
        return view(request, *args, **kwargs)

    try:
        server = find_server(request.META, first=conf.server_classes())
    except HandshakeError as error:
        return refuse(request, error)
    entry = Entry(request, server.reactor)
    try:
        shook = judge(request, options)
        registry.enter(entry)
    except HandshakeError as error:
        if not server.has_answered:
            return refuse(request, error)
        # The server has sent the 101 already: a Close frame says it.
        return ViewRun(entry, server, options, None).run(server, functools.partial(refuse, request, error))
    try:
        call_at_exit(server.at_exit)
        view_run = ViewRun(entry, server, options, shook)
    except BaseException:  # of a project's own class of WebSockets, or of servers
        registry.leave(entry)
        raise
    return view_run.run(server, run)


def judge(request: HttpRequest, options: conf.Options) -> Handshake:
    """The opening handshake of the request, which breaks no rule, comes from an allowed page, and passes the guards.

    HandshakeError, which knows its HTTP answer, where it does not.
    """
    shook = handshake.read(request._handshake)  # type: ignore[attr-defined]
    check_origin(request, options)
    guards.check(request, options.guard)
    return shook
