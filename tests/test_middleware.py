"""The middleware: what every request gets, what is refused, and WEBSOCKET_ACCEPT_ALL."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.http import Http404, HttpResponse
from django.test import RequestFactory, override_settings
from django.urls import path

from dwebsocket import accept_websocket, require_websocket
from dwebsocket.middleware import WebSocketMiddleware, middleware_passed_over
from tests.helpers import HANDSHAKE, levels
from tests.links import assert_ends
from tests.sites import Site

OWN = "dwebsocket.middleware.WebSocketMiddleware"
COMMON = "django.middleware.common.CommonMiddleware"  # does not look at views
CSRF = "django.middleware.csrf.CsrfViewMiddleware"  # does
ACCEPT_ALL = {"MIDDLEWARE": [COMMON, CSRF, OWN], "WEBSOCKET_ACCEPT_ALL": True}


def undecorated(request: Any, name: str = "world") -> HttpResponse | None:
    if not request.is_websocket:
        return HttpResponse(f"page {request.websocket}")
    request.websocket.send(f"hello {name}")
    return None


def test_every_plain_request_gets_is_websocket_and_websocket(site: Site) -> None:
    site(undecorated, MIDDLEWARE=[OWN])
    assert site.get().body == b"page None"


def test_middleware_behind_it_sees_is_websocket_too(site: Site) -> None:
    def behind(get_response: Any) -> Any:
        def call(request: Any) -> Any:
            site.tell(bool(request.is_websocket))
            return get_response(request)

        return call

    with mock.patch(f"{__name__}.behind", behind, create=True):
        site(accept_websocket(undecorated), MIDDLEWARE=[OWN, f"{__name__}.behind"])
    site.get()
    assert site.hear() is False
    assert_ends_with_hello(site)
    assert site.hear() is True


def assert_ends_with_hello(site: Site, path: str = "/", name: str = "world") -> None:
    with site.connect(path) as peer:
        assert peer.recv_message() == f"hello {name}"
        assert_ends(peer, 1000)


def test_websocket_to_a_view_that_is_not_decorated_is_refused_with_400(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    response = site(undecorated, MIDDLEWARE=[OWN]).handshake()
    assert response.status == 400
    assert response.body.startswith(b"this URL does not expect a WebSocket: its view is not decorated")
    assert b"name='dispatch'" in response.body
    assert b"or leave the middleware out" in response.body
    assert levels(caplog) == [("django.request", "WARNING")]


def test_websocket_to_no_view_at_all_is_a_404(site: Site) -> None:
    assert site(path("elsewhere/", undecorated), MIDDLEWARE=[OWN]).handshake().status == 404


def test_view_behind_a_decorator_that_hides_ours_is_refused(site: Site) -> None:
    decorated = accept_websocket(undecorated)
    assert site(lambda request: decorated(request), MIDDLEWARE=[OWN]).handshake().status == 400


# WEBSOCKET_ACCEPT_ALL


def test_accept_all_gives_every_view_a_websocket(site: Site) -> None:
    site(path("rooms/<name>/", undecorated), **ACCEPT_ALL)
    assert site.get("/rooms/a/").body == b"page None"
    assert_ends_with_hello(site, "/rooms/a/", "a")


def test_accept_all_leaves_decorated_views_their_options(site: Site) -> None:
    @require_websocket(subprotocols=["chat"])
    def view(request):
        request.websocket.accept()
        request.websocket.send(str(request.websocket.subprotocol))

    site(view, **ACCEPT_ALL)
    with site.peer() as peer:
        assert peer.handshake("/", {"Sec-WebSocket-Protocol": "chat"}).headers["sec-websocket-protocol"] == "chat"
        assert peer.recv_message() == "chat"
        assert_ends(peer, 1000)
    assert site.get().status == 426


def test_accept_all_leaves_refusals_to_django(site: Site) -> None:
    def view(request):
        raise Http404

    assert site(view, **ACCEPT_ALL).handshake().status == 404


def test_accept_all_checks_the_origin(site: Site) -> None:
    assert site(undecorated, **ACCEPT_ALL).handshake("/", {"Origin": "https://evil.example"}).status == 403


def test_accept_all_before_a_middleware_that_must_see_the_view_is_an_error_that_names_it(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site(undecorated, MIDDLEWARE=[OWN, COMMON, CSRF], WEBSOCKET_ACCEPT_ALL=True)
    assert site.handshake().status == 500
    assert site.get().body == b"page None"
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert isinstance(record.exc_info[1], ImproperlyConfigured)
    assert CSRF in str(record.exc_info[1])
    assert COMMON not in str(record.exc_info[1])


@pytest.mark.parametrize(
    ("middleware", "passed_over"),
    [
        ([OWN], []),
        ([CSRF, COMMON, OWN], []),
        ([OWN, COMMON], []),
        ([OWN, COMMON, CSRF], [CSRF]),
        ([COMMON], []),
        (["tests.test_middleware.Subclass", CSRF], []),
    ],
    ids=str,
)
def test_middleware_that_would_be_passed_over_is_what_comes_behind_and_looks_at_views(
    middleware: list[str], passed_over: list[str]
) -> None:
    with override_settings(MIDDLEWARE=middleware):
        assert middleware_passed_over() == passed_over


class Subclass(WebSocketMiddleware):
    """A project's own."""


def test_subclass_does_what_the_middleware_does(site: Site) -> None:
    site(undecorated, MIDDLEWARE=[f"{__name__}.Subclass"], WEBSOCKET_ACCEPT_ALL=True)
    assert_ends_with_hello(site)


def test_process_view_leaves_plain_requests_alone() -> None:
    middleware = WebSocketMiddleware(lambda request: HttpResponse("page"))
    request = RequestFactory().get("/")
    assert middleware(request).content == b"page"
    assert middleware.process_view(request, undecorated, (), {}) is None


def test_process_view_works_without_call(caplog: pytest.LogCaptureFixture) -> None:
    """Another middleware may have replaced the request on the way."""
    middleware = WebSocketMiddleware(lambda request: HttpResponse())
    response = middleware.process_view(RequestFactory().get("/", **HANDSHAKE), undecorated, (), {})
    assert response is not None
    assert response.status_code == 400
