"""Views of Django REST framework: they may return None after they have talked, as any view here may.

That framework insists on a response, and has one place where it looks at it, made to be overridden: it is overridden.
"""

from __future__ import annotations

import functools
from typing import Any

from django.http import HttpResponse

from ..websocket import WebSocket


def may_return_none(view: Any) -> None:
    """Let `view` return None on a WebSocket, if it is an `@api_view`, the view of an APIView, or its `dispatch`."""
    kind = _class_of(view)
    finalize = getattr(kind, "finalize_response", None)
    if finalize is None or hasattr(finalize, "dwebsocket"):
        return

    @functools.wraps(finalize)
    def finalize_response(self: Any, request: Any, response: Any, *args: Any, **kwargs: Any) -> Any:
        websocket = getattr(request, "websocket", None)
        if response is None and websocket is not None:
            response = _response_for_none(websocket)
        return finalize(self, request, response, *args, **kwargs)

    finalize_response.dwebsocket = True  # type: ignore[attr-defined]
    kind.finalize_response = finalize_response


def _response_for_none(websocket: WebSocket) -> HttpResponse:
    """A response that says what None says of any view: it has accepted, unless it has refused."""
    if not websocket.closed:
        websocket.accept()
    return HttpResponse(status=403 if websocket._opening.connection is None else 200)  # nobody gets the 200


def _class_of(view: Any) -> Any:
    """The class whose view, or whose bound method, `view` is, below whatever decorators it has; None for a function."""
    while view is not None:
        owner = getattr(view, "__self__", None)
        kind = getattr(view, "cls", None) or (None if owner is None else type(owner))
        if kind is not None:
            return kind
        view = getattr(view, "func", None) or getattr(view, "__wrapped__", None)  # method_decorator makes a partial
    return None
