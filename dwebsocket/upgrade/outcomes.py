"""A view has ended: the answer for Django, the Close frame and the report that follow."""

from __future__ import annotations

import logging
import re
import sys
from typing import NamedTuple

from django.conf import settings
from django.core import signals
from django.core.exceptions import BadRequest, PermissionDenied, SuspiciousOperation
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseForbidden
from django.utils.log import log_response

from .. import legacy
from ..exceptions import GroupsUnavailable
from ..process.naming import view_name
from ..protocol.codes import CloseCode, close_code_for
from ..protocol.exceptions import HandshakeError
from ..protocol.frames import cut_reason

logger = logging.getLogger("dwebsocket")

#: The exceptions that Django answers with a separate status.
_STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (PermissionDenied, 403),
    (Http404, 404),
    (SuspiciousOperation, 400),
    (BadRequest, 400),
)


class Conclusion(NamedTuple):
    """The consequences of how a view has ended; None for those that there are not."""

    answer: HttpResponseBase | BaseException | None = None  # for Django: a response, or an exception to raise
    close: tuple[int, str] | None = None
    report: HttpResponseBase | BaseException | None = None


def conclude(
    response: HttpResponseBase | None,
    error: BaseException | None,
    *,
    accepted: bool,
    is_own_end: bool = False,
    is_stopped: bool = False,
    has_caller: bool = False,
    has_status_line: bool = True,
) -> Conclusion:
    """The consequences of a view that has returned `response`, or that `error` has left.

    `accepted`: the 101 has left, and it is too late for HTTP. `is_own_end`: the error only says that this WebSocket is
    closed. `is_stopped`: the server stops the view. `has_caller`: the server's call is still there (attached).
    `has_status_line`: HTTP could be spoken before the 101; where the server sent it itself, a Close frame says it all.
    """
    if not accepted:
        if error is not None and not is_own_end:
            return Conclusion(answer=error)
        return Conclusion(answer=HttpResponseForbidden() if response is None else response)
    if error is not None:
        if is_stopped:
            return Conclusion(answer=error if has_caller else None, close=(CloseCode.GOING_AWAY, ""))
        return Conclusion() if is_own_end else Conclusion(close=close_for(error), report=error)
    if not isinstance(response, HttpResponseBase):
        return Conclusion()
    says_more = response.status_code >= 400 or not has_status_line
    close = close_for_status(response.status_code, response.reason_phrase) if says_more else None
    return Conclusion(close=close, report=response)


def close_for(error: BaseException) -> tuple[int, str]:
    """The close code and reason for an exception: 4403, 4404, 4400, or 1011. With DEBUG the reason names it."""
    reason = _described(error) if settings.DEBUG else ""
    status = _status(error)
    if status is None:
        return CloseCode.INTERNAL_ERROR, cut_reason(reason)
    if isinstance(error, HandshakeError):
        return error.close_code, cut_reason(reason or HttpResponse(status=status).reason_phrase)
    return close_for_status(status, reason or HttpResponse(status=status).reason_phrase)


def close_for_status(status_code: int, reason: str) -> tuple[int, str]:
    """The close code and reason that say what an HTTP status says."""
    return close_code_for(status_code), cut_reason(reason)


def report(request: HttpRequest, error: BaseException) -> None:
    """Report an exception as Django does: to the same loggers, and if it is a fault, to `got_request_exception`."""
    status = _status(error)
    if _may_want_the_old_verbs(request, error):
        error.add_note(_OLD_VERBS)  # type: ignore[attr-defined]
    if status is None:
        signals.got_request_exception.send(sender=None, request=request)
    elif isinstance(error, SuspiciousOperation):
        logger = logging.getLogger(f"django.security.{type(error).__name__}")
        logger.error(str(error), exc_info=error, extra={"status_code": status, "request": request})
        return
    response = HttpResponse(status=status or 500)
    is_told_in_full = status is None or isinstance(error, (PermissionDenied, BadRequest))
    log_response(
        "%s: %s", _title(error) or response.reason_phrase, request.path,
        response=response, request=request, exception=error if is_told_in_full else None,
    )  # fmt: skip


_OLD_VERBS = (
    "Text is str and binary is bytes since dwebsocket 1. A view that was written for 0.5 runs with"
    ' WEBSOCKET_CLASS = "dwebsocket.legacy.WebSocket", or with the option websocket_class: see docs/migration.md'
)
#: What Python says where bytes were expected and str has come; each has its own words for it.
_STR_FOR_BYTES = re.compile(
    r"""'str' object has no attribute 'decode'|decoding str|not ['"]?bytes|str to bytes|not '?str'?$"""
)


def _may_want_the_old_verbs(request: HttpRequest, error: BaseException) -> bool:
    """Whether the view mixes text and bytes, as one for 0.5 does with the new class; Python 3.10 knows no notes."""
    return (
        type(error) in (AttributeError, TypeError)
        and hasattr(error, "add_note")
        and not isinstance(getattr(request, "websocket", None), legacy.WebSocket)
        and _STR_FOR_BYTES.search(str(error)) is not None
    )


_WANTS_A_RESPONSE = (
    "The view has returned None, and a decorator below ours wants a response. Put that decorator above ours, or let the"
    " view return one, HttpResponse(): after the opening it is ignored"
)


def advise(error: BaseException) -> None:
    """Add to the error what to do about it, where Django's own decorator has met the None of a view.

    Python 3.10 knows no notes.
    """
    if isinstance(error, AttributeError) and error.obj is None and hasattr(error, "add_note"):
        traceback = error.__traceback__
        while traceback is not None and traceback.tb_next is not None:
            traceback = traceback.tb_next
        raised_in = "" if traceback is None else traceback.tb_frame.f_globals.get("__name__", "")
        if raised_in.startswith("django.") and hasattr(HttpResponse(), error.name or ""):
            error.add_note(_WANTS_A_RESPONSE)


def log(request: HttpRequest, response: HttpResponseBase) -> None:
    """Log an answer that comes too late: an error as Django does, any other that says something at DEBUG."""
    if response.status_code >= 400:
        log_response("%s: %s", response.reason_phrase, request.path, response=response, request=request)  # type: ignore[arg-type]
    elif not _is_empty(response):
        logger.debug(
            "the view %s returned a response of status %d after the opening: it is ignored, use send()",
            view_name(request), response.status_code,
        )  # fmt: skip


def _is_empty(response: HttpResponseBase) -> bool:
    """Whether it says nothing, as that of every class-based view, which has to return one."""
    if response.status_code != 200 or response.streaming or not getattr(response, "is_rendered", True):
        return False
    return isinstance(response, HttpResponse) and not response.content


def _status(error: BaseException) -> int | None:
    """The status with which Django, REST framework, or we ourselves answer the exception; None where it is a fault."""
    if isinstance(error, HandshakeError):
        return error.status_code
    framework = sys.modules.get("rest_framework.exceptions")  # not imported: not raised
    if framework is not None and isinstance(error, framework.APIException):
        return error.status_code if error.status_code in range(400, 600) else None
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), None)


def _title(error: BaseException) -> str:
    """The words that Django logs in front of the path, where that is not the phrase of the status."""
    if isinstance(error, PermissionDenied):
        return "Forbidden (Permission denied)"
    return str(error) if isinstance(error, (BadRequest, GroupsUnavailable)) else ""


def _described(error: BaseException) -> str:
    name = type(error).__name__
    try:
        text = str(error)
    except Exception:  # its own fault, and no reason to close with another code
        text = ""
    return f"{name}: {text}" if text else name
