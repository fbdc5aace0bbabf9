"""Views of Django REST framework: they may return None after they have talked, as any view here may.

The framework insists on a response. It checks that in `finalize_response`, a method made to be overridden.
"""

from __future__ import annotations

import functools
from typing import Any

from django.http import HttpResponse

from ..upgrade.opening import NOT_RETURNED
from ..websocket import WebSocket


def patch_finalize_response(view: Any) -> None:
    """Patch the class of `view`, if it is an APIView's (or an `@api_view`), so that None may answer a WebSocket."""
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
    """Make the response that means the same as None from any view: it has accepted, unless it has refused.

    RuntimeError where the view has called `stay_open()`, and should have returned something.
    """
    if getattr(websocket._opening, "handlers", None) is not None:
        raise RuntimeError(NOT_RETURNED)
    if not websocket.closed:
        websocket.accept()
    return HttpResponse(status=403 if websocket._opening.connection is None else 200)  # the 200 is never sent


def _class_of(view: Any) -> Any:
    """Find the class of `view`, or of its bound method, below all decorators; None for a function."""
    while view is not None:
        owner = getattr(view, "__self__", None)
        kind = getattr(view, "cls", None) or (None if owner is None else type(owner))
        if kind is not None:
            return kind
        view = getattr(view, "func", None) or getattr(view, "__wrapped__", None)  # method_decorator makes a partial
    return None
