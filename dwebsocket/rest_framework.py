"""Views of Django REST framework: they may return None after they have talked, as any view here may.

That framework insists on a response, and has one place where it looks at it, made to be overridden: it is overridden.
"""

from __future__ import annotations

import functools
from typing import Any

from django.http import HttpResponse


def may_return_none(view: Any) -> None:
    """Let `view` return None on a WebSocket, if it is an `@api_view`, the view of an APIView, or its `dispatch`."""
    kind: Any = getattr(view, "cls", None) or type(getattr(getattr(view, "func", view), "__self__", None))
    finalize = getattr(kind, "finalize_response", None)
    if finalize is None or hasattr(finalize, "dwebsocket"):
        return

    @functools.wraps(finalize)
    def finalize_response(self: Any, request: Any, response: Any, *args: Any, **kwargs: Any) -> Any:
        if response is None and request.websocket is not None:
            response = HttpResponse()  # which nobody gets
        return finalize(self, request, response, *args, **kwargs)

    finalize_response.dwebsocket = True  # type: ignore[attr-defined]
    kind.finalize_response = finalize_response
