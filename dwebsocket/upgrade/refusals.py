"""The HTTP answers around an opening handshake: a refusal with its line in the log, and the inert 101."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from django.http import HttpRequest, HttpResponse
from django.utils.log import log_response

from ..exceptions import OriginForbidden, ServerNotSupported, ShuttingDown, TooManyConnections
from ..protocol import handshake
from ..protocol.exceptions import HandshakeError, UpgradeRequired
from ..servers import handshake_request

logger = logging.getLogger("dwebsocket")


origin_logger = logging.getLogger("django.security.WebSocketOrigin")
_STRIPPED = (
    "a proxy in between has removed the Upgrade header"
    " (behind nginx: proxy_http_version 1.1 and proxy_set_header Upgrade $http_upgrade)"
)


def refuse_stripped(request: HttpRequest) -> HttpResponse | None:
    """The answer to a request that was sent to open a WebSocket, and that a proxy has turned into plain HTTP."""
    if not handshake.has_lost_its_upgrade(handshake_request(request.META)):
        return None
    return refuse(request, UpgradeRequired(_STRIPPED))


def refuse(request: HttpRequest, error: HandshakeError) -> HttpResponse:
    """The HTTP answer of a handshake that cannot succeed: a status and a sentence, and one line in the log."""
    response = HttpResponse(f"{error}\n", status=error.status_code, headers=error.headers, content_type="text/plain")
    log, level = _LOGS.get(type(error), (logging.getLogger("django.request"), "warning"))
    log_response(
        "%s: %s (%s)", response.reason_phrase, request.path, str(error), response=response, request=request, logger=log,
        level=level,
    )  # fmt: skip
    return response


_LOGS = {
    OriginForbidden: (origin_logger, "warning"),
    ServerNotSupported: (logger, "error"),
    TooManyConnections: (logger, "warning"),
    ShuttingDown: (logger, "info"),
}


class SwitchingProtocols(HttpResponse):
    """The response that Django and the server see of a WebSocket: an empty 101 that closes itself, exactly once.

    It is never sent: by then the server writes into a dead end. Some servers do not close a response that they
    could not send; `request_finished` must fire all the same, or the request's database connection stays open.
    """

    status_code = 101

    def __iter__(self) -> Iterator[bytes]:
        self.close()
        return iter(())

    def close(self) -> None:
        if not self.closed:
            super().close()
