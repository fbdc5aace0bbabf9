"""What becomes of an exception, or a response, that leaves a view after the 101: a report, and a Close frame."""

from __future__ import annotations

import logging

from django.conf import settings
from django.core import signals
from django.core.exceptions import BadRequest, PermissionDenied, SuspiciousOperation
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.log import log_response

from .protocol.codes import CloseCode
from .protocol.frames import MAX_CLOSE_REASON_BYTES

_OWN_CODES = 4000  # RFC 6455, 7.4.2: from here on a close code is ours to define; the status of HTTP comes on top

#: The exceptions that Django answers with a status of their own.
_STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (PermissionDenied, 403),
    (Http404, 404),
    (SuspiciousOperation, 400),
    (BadRequest, 400),
)


def close_for(error: BaseException) -> tuple[int, str]:
    """The close code and reason for an exception: 4403, 4404, 4400, or 1011. With DEBUG the reason names it."""
    reason = f"{type(error).__name__}: {error}" if settings.DEBUG else ""
    status = _status(error)
    if status is None:
        return CloseCode.INTERNAL_ERROR, cut(reason)
    return close_for_status(status, reason or HttpResponse(status=status).reason_phrase)


def close_for_status(status_code: int, reason: str) -> tuple[int, str]:
    """The close code and reason that say what an HTTP status says: 4403 for 403, and 1011 for what begins with 5."""
    code = CloseCode.INTERNAL_ERROR if status_code >= 500 else _OWN_CODES + status_code
    return code, cut(reason)


def report(request: HttpRequest, error: BaseException) -> None:
    """Report an exception as Django does: to the same loggers, and if it is a fault, to `got_request_exception`."""
    status = _status(error)
    if status is None:
        signals.got_request_exception.send(sender=None, request=request)
    elif isinstance(error, SuspiciousOperation):
        logger = logging.getLogger(f"django.security.{type(error).__name__}")
        logger.error(str(error), exc_info=error, extra={"status_code": status, "request": request})
        return
    response = HttpResponse(status=status or 500)
    log_response(
        "%s: %s", response.reason_phrase, request.path,
        response=response, request=request, exception=None if status == 404 else error,
    )  # fmt: skip


def cut(reason: str) -> str:
    """As much of the reason as fits into a Close frame."""
    return reason.encode(errors="replace")[:MAX_CLOSE_REASON_BYTES].decode(errors="ignore")


def _status(error: BaseException) -> int | None:
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), None)
