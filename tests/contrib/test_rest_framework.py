"""Views of Django REST framework: whoever may not is refused as over HTTP, whoever may talks, and None is an answer."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.core import signals
from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.http import Http404
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from rest_framework import exceptions as drf
from rest_framework.authentication import BaseAuthentication, BasicAuthentication, SessionAuthentication
from rest_framework.decorators import api_view
from rest_framework.permissions import AllowAny, BasePermission, IsAuthenticated
from rest_framework.response import Response
from rest_framework.throttling import SimpleRateThrottle
from rest_framework.views import APIView

from dwebsocket import accept_websocket, connections, require_websocket
from tests.helpers import exchange, levels, recorded
from tests.links import assert_ends
from tests.peer import Close
from tests.sites import Site

ADA = User(pk=1, username="ada", password="x")


class Backend:
    """The one user there is, without a database."""

    def authenticate(self, request: Any, username: str = "", password: str = "") -> User | None:
        return ADA if (username, password) == ("ada", "secret") else None

    def get_user(self, pk: int) -> User | None:
        return ADA if pk == 1 else None


class TokenAuthentication(BaseAuthentication):
    """What a project makes of it."""

    def authenticate(self, request: Any) -> tuple[User, str] | None:
        given = request.headers.get("Authorization", "")
        if given and given != "Token secret":
            raise drf.AuthenticationFailed("no such token")
        return (ADA, given) if given else None

    def authenticate_header(self, request: Any) -> str:
        return "Token"


class Nobody(BasePermission):
    message = "nobody may"

    def has_permission(self, request: Any, view: Any) -> bool:
        return False


POLICIES = {
    "authentication_classes": [TokenAuthentication],
    "permission_classes": [IsAuthenticated],
    "throttle_classes": [],
}
TOKEN = {"Authorization": "Token secret"}
BASIC = {"Authorization": f"Basic {base64.b64encode(b'ada:secret').decode()}"}


def session_cookie() -> str:
    """The cookie of a session in which the user is logged in."""
    session = SessionStore()
    session[SESSION_KEY] = "1"
    session[BACKEND_SESSION_KEY] = f"{__name__}.Backend"
    session[HASH_SESSION_KEY] = ADA.get_session_auth_hash()
    session.save()
    return f"{settings.SESSION_COOKIE_NAME}={session.session_key}"


# How a view can be written

Talk = Callable[..., Any]


def function(talk: Talk, policies: dict[str, Any]) -> Any:
    def view(request: Any, **kwargs: Any) -> Any:
        return talk(request)

    vars(view).update(policies)  # what the decorators of the framework do
    return view


def class_of(talk: Talk, policies: dict[str, Any]) -> Any:
    return type("View", (APIView,), {**policies, "get": lambda self, request, **kwargs: talk(request)})


def above_api_view(talk: Talk, decorator: Any, policies: dict[str, Any]) -> Any:
    return decorator(api_view(["GET"])(function(talk, policies)))


def above_as_view(talk: Talk, decorator: Any, policies: dict[str, Any]) -> Any:
    return decorator(class_of(talk, policies).as_view())


def above_as_view_and_another(talk: Talk, decorator: Any, policies: dict[str, Any]) -> Any:
    return decorator(never_cache(class_of(talk, policies).as_view()))


def on_dispatch(talk: Talk, decorator: Any, policies: dict[str, Any]) -> Any:
    return method_decorator(decorator, name="dispatch")(class_of(talk, policies)).as_view()


def on_dispatch_above_another(talk: Talk, decorator: Any, policies: dict[str, Any]) -> Any:
    return method_decorator([decorator, never_cache], name="dispatch")(class_of(talk, policies)).as_view()


def below_api_view(talk: Talk, decorator: Any, policies: dict[str, Any]) -> Any:
    return api_view(["GET"])(decorator(function(talk, policies)))


SHAPES = [
    above_api_view, above_as_view, above_as_view_and_another, on_dispatch, on_dispatch_above_another, below_api_view,
]  # fmt: skip
#: The framework's view hides what is below it from the middleware.
WITHOUT_MIDDLEWARE = [path for path in settings.MIDDLEWARE if "WebSocketMiddleware" not in path]


def serve(site: Site, shape: Any, talk: Talk, decorator: Any = accept_websocket, **policies: Any) -> Site:
    """The site, on which the one view is of this shape."""
    view = shape(talk, decorator, {**POLICIES, **policies})
    chosen = {"MIDDLEWARE": WITHOUT_MIDDLEWARE} if shape is below_api_view else {}
    return site(view, AUTHENTICATION_BACKENDS=[f"{__name__}.Backend"], **chosen)


def talk(request: Any) -> Response | None:
    if not request.is_websocket():
        return Response({"plain": request.user.get_username()})
    request.websocket.send(f"hello {request.user}")
    for message in request.websocket:
        request.websocket.send(message)
    return None


@pytest.fixture
def exceptions() -> Iterator[list[dict[str, Any]]]:
    """The got_request_exception signals of the test."""
    with recorded(signals.got_request_exception) as received:
        yield received


every_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)


# Who may


@every_shape
@pytest.mark.parametrize("decorator", [accept_websocket, require_websocket], ids=["accept", "require"])
def test_user_who_may_talks_and_the_view_returns_none(
    site: Site, shape: Any, decorator: Any, caplog: pytest.LogCaptureFixture
) -> None:
    peer = serve(site, shape, talk, decorator).connect("/", TOKEN)
    assert peer.recv_message() == "hello ada"
    peer.send_message("echo")
    assert peer.recv_message() == "echo"
    assert [info.user for info in connections()] == ["ada"]
    assert peer.close() == Close(1000)
    assert peer.read_to_eof() == b""
    peer.abandon()
    site.until_idle()
    assert levels(caplog) == []


@pytest.mark.parametrize("site", ["detached"], indirect=True)
@every_shape
@pytest.mark.parametrize(
    ("kind", "headers"),
    [(SessionAuthentication, {"Cookie": session_cookie()}), (BasicAuthentication, BASIC), (TokenAuthentication, TOKEN)],
    ids=["session", "basic", "token"],
)
def test_authentication_of_the_framework_lets_its_users_in(
    site: Site, shape: Any, kind: Any, headers: dict[str, str]
) -> None:
    serve(site, shape, talk, authentication_classes=[kind])
    assert site.connect("/", headers).recv_message() == "hello ada"


@every_shape
@pytest.mark.parametrize(
    ("policies", "headers", "status", "detail"),
    [
        ({}, {}, 401, "Authentication credentials were not provided."),
        ({}, {"Authorization": "Token wrong"}, 401, "no such token"),
        ({"authentication_classes": [SessionAuthentication]}, {}, 403, "Authentication credentials were not provided."),
        ({"permission_classes": [Nobody]}, TOKEN, 403, "nobody may"),
    ],
    ids=["nobody", "wrong", "no session", "permission"],
)
def test_whoever_may_not_is_refused_with_the_json_of_the_framework(
    site: Site,
    shape: Any,
    policies: dict[str, Any],
    headers: dict[str, str],
    status: int,
    detail: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    serve(site, shape, talk, **policies)
    for response in (site.handshake("/", headers), site.get("/", headers)):
        assert response.status == status
        assert response.headers["content-type"] == "application/json"
        assert json.loads(response.body) == {"detail": detail}
        assert response.headers.get("www-authenticate") == ("Token" if status == 401 else None)


names = itertools.count()


@every_shape
def test_one_who_comes_too_often_is_refused_with_429(site: Site, shape: Any, caplog: pytest.LogCaptureFixture) -> None:
    key = f"throttle-{next(names)}"

    class OncePerHour(SimpleRateThrottle):
        rate = "1/hour"

        def get_cache_key(self, request: Any, view: Any) -> str:
            return key

    serve(site, shape, talk, throttle_classes=[OncePerHour])
    assert site.connect("/", TOKEN).recv_message() == "hello ada"
    response = site.handshake("/", TOKEN)
    assert (response.status, response.headers["content-type"]) == (429, "application/json")
    assert int(response.headers["retry-after"]) > 0


# What the view says


@every_shape
def test_view_that_returns_none_at_once_has_accepted(site: Site, shape: Any) -> None:
    serve(site, shape, lambda request: None)
    assert_ends(site.connect("/", TOKEN), 1000)


@every_shape
def test_view_that_closes_before_the_101_and_returns_none_has_refused(
    site: Site, shape: Any, caplog: pytest.LogCaptureFixture
) -> None:
    serve(site, shape, lambda request: request.websocket.close())
    assert site.handshake("/", TOKEN).status == 403


@every_shape
def test_response_before_the_101_is_an_ordinary_answer(
    site: Site, shape: Any, caplog: pytest.LogCaptureFixture
) -> None:
    serve(site, shape, lambda request: Response({"seats": 0}, status=409))
    response = site.handshake("/", TOKEN)
    assert (response.status, json.loads(response.body)) == (409, {"seats": 0})


@every_shape
@pytest.mark.parametrize(
    ("error", "close", "level"),
    [
        (drf.NotFound(), Close(4404, "Not Found"), "WARNING"),
        (drf.PermissionDenied(), Close(4403, "Forbidden"), "WARNING"),
        (drf.ParseError(), Close(4400, "Bad Request"), "WARNING"),
        (drf.Throttled(), Close(4429, "Too Many Requests"), "WARNING"),
        (drf.APIException(), Close(1011, "Internal Server Error"), "ERROR"),
        (Http404(), Close(4404, "Not Found"), "WARNING"),
        (DjangoPermissionDenied(), Close(4403, "Forbidden"), "WARNING"),
    ],
    ids=["404", "403", "400", "429", "500", "Django's 404", "Django's 403"],
)
def test_exception_of_the_framework_after_the_101_closes_with_its_status(
    site: Site,
    shape: Any,
    error: Exception,
    close: Close,
    level: str,
    exceptions: list[Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(request: Any) -> None:
        request.websocket.accept()
        raise error

    assert_ends(serve(site, shape, fail).connect("/", TOKEN), *close)
    site.until_idle()
    assert exceptions == []
    if shape is below_api_view:  # elsewhere the framework has made a response of it
        assert levels(caplog) == [("django.request", level)]


@every_shape
def test_any_other_exception_after_the_101_closes_with_1011_and_is_reported(
    site: Site, shape: Any, exceptions: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(request: Any) -> None:
        request.websocket.accept()
        raise RuntimeError("broken")

    assert_ends(serve(site, shape, fail).connect("/", TOKEN), 1011)
    site.until_idle()
    assert len(exceptions) == 1
    assert levels(caplog) == [("django.request", "ERROR")]


@every_shape
def test_peer_that_leaves_while_the_view_sends_is_no_error(
    site: Site, shape: Any, exceptions: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    def tick(request: Any) -> None:
        while True:
            request.websocket.send("tick")
            site.pause(0.005)

    serve(site, shape, tick).connect("/", TOKEN).reset()
    site.until_idle()
    assert exceptions == []
    assert levels(caplog) == []


# The view ends, the connection stays


@every_shape
def test_view_that_stays_open_is_told_of_messages_and_of_the_end(
    site: Site, shape: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def stay(request: Any) -> Any:
        def received(message: Any) -> None:
            request.websocket.send(f"{request.user}: {message}")

        return request.websocket.stay_open(received, lambda *end: site.tell(end))

    peer = serve(site, shape, stay).connect("/", TOKEN)
    assert [exchange(peer, "one"), exchange(peer, "two")] == ["ada: one", "ada: two"]
    assert peer.close(4001, "bye") == Close(4001)
    assert site.hear() == (4001, "bye")
    site.until_idle()
    assert levels(caplog) == []


@every_shape
def test_exception_of_the_framework_in_a_turn_closes_with_its_status(
    site: Site, shape: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def stay(request: Any) -> Any:
        def received(message: Any) -> None:
            raise drf.NotFound

        return request.websocket.stay_open(received)

    peer = serve(site, shape, stay).connect("/", TOKEN)
    peer.send_message("where?")
    assert_ends(peer, 4404, "Not Found")


@every_shape
def test_view_that_stays_open_and_returns_none_is_a_mistake_that_says_so(
    site: Site, shape: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def stay(request: Any) -> None:
        request.websocket.stay_open()

    assert_ends(serve(site, shape, stay).connect("/", TOKEN), 1011)
    site.until_idle()
    assert "write `return request.websocket.stay_open(" in caplog.text


# Plain HTTP, and what a view is known by


@every_shape
def test_plain_http_is_answered_as_ever(site: Site, shape: Any) -> None:
    response = serve(site, shape, talk).get("/", TOKEN)
    assert (response.status, json.loads(response.body)) == (200, {"plain": "ada"})
    assert response.headers["content-type"] == "application/json"


@every_shape
def test_plain_http_is_426_where_a_websocket_is_required(
    site: Site, shape: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert serve(site, shape, talk, require_websocket).get("/", TOKEN).status == 426


@every_shape
def test_none_is_no_answer_to_plain_http(site: Site, shape: Any, caplog: pytest.LogCaptureFixture) -> None:
    serve(site, shape, lambda request: None)
    assert site.get("/", TOKEN).status == 500
    assert "Expected a `Response`" in caplog.text


@every_shape
def test_decorated_view_keeps_what_the_framework_says_of_it(shape: Any) -> None:
    view = shape(talk, accept_websocket, POLICIES)
    assert issubclass(view.cls, APIView)
    assert view.csrf_exempt
    assert view.login_required is False
    assert view.initkwargs == {}


def test_class_that_is_not_decorated_still_wants_a_response(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    accept_websocket(class_of(talk, POLICIES).as_view())
    site(class_of(lambda request: None, {**POLICIES, "permission_classes": [AllowAny]}).as_view(), MIDDLEWARE=[])
    assert site.get().status == 500
    assert "Expected a `Response`" in caplog.text
