"""The two decorators: what they serve, what they refuse, and how they nest."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from django.contrib.auth.decorators import login_required
from django.core.cache import caches
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory, override_settings
from django.urls import path
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import cache_page, never_cache
from django.views.decorators.clickjacking import xframe_options_deny
from django.views.decorators.gzip import gzip_page
from django.views.decorators.vary import vary_on_headers

from dwebsocket import accept_websocket, require_websocket
from tests.helpers import HANDSHAKE
from tests.links import assert_ends
from tests.peer import Close
from tests.sites import Site

MIDDLEWARE = "dwebsocket.middleware.WebSocketMiddleware"


@pytest.fixture(params=[[], [MIDDLEWARE]], ids=["without the middleware", "with it"])
def middleware(request: pytest.FixtureRequest) -> dict[str, list[str]]:
    return {"MIDDLEWARE": request.param}


def echo(request: Any) -> HttpResponse | None:
    """The mixed view of the README."""
    if not request.is_websocket():
        return HttpResponse("page")
    for message in request.websocket:
        request.websocket.send(message)
    return None


def assert_echoes(site: Site, path: str = "/") -> None:
    with site.connect(path) as peer:
        peer.send_message("echo")
        assert peer.recv_message() == "echo"
        assert peer.close() == Close(1000)
        assert peer.read_to_eof() == b""


# What they serve


def test_accept_websocket_serves_both(site: Site, middleware: dict[str, Any]) -> None:
    site(accept_websocket(echo), **middleware)
    assert site.get().body == b"page"
    assert_echoes(site)


def test_require_websocket_answers_plain_http_with_426_and_a_sentence(site: Site, middleware: dict[str, Any]) -> None:
    site(require_websocket(echo), **middleware)
    response = site.get()
    assert response.status == 426
    assert response.body.startswith(b"This URL expects a WebSocket.")
    assert response.headers["content-type"].startswith("text/plain")
    assert "upgrade" not in response.headers
    assert_echoes(site)


@pytest.mark.parametrize("decorator", [accept_websocket, require_websocket])
def test_handshake_whose_upgrade_a_proxy_has_removed_gets_426_and_the_reason(
    site: Site, middleware: dict[str, Any], decorator: Any
) -> None:
    response = site(decorator(echo), **middleware).handshake("/", {"Upgrade": None, "Connection": "close"})
    assert response.status == 426
    assert response.body.startswith(b"a proxy in between has removed the Upgrade header")


@pytest.mark.parametrize("decorator", [accept_websocket, require_websocket])
def test_decorator_may_be_called_without_options(site: Site, decorator: Any) -> None:
    assert_echoes(site(decorator()(echo), MIDDLEWARE=[]))


@pytest.mark.parametrize("decorator", [accept_websocket, require_websocket])
def test_class_is_decorated_through_method_decorator(site: Site, middleware: dict[str, Any], decorator: Any) -> None:
    @method_decorator(decorator(subprotocols=["chat"]), name="dispatch")
    class Echo(View):
        def get(self, request: Any, room: str) -> HttpResponse | None:
            return echo(request)

    site(path("rooms/<room>/", Echo.as_view()), **middleware)
    assert_echoes(site, "/rooms/a/")
    with site.peer() as peer:
        response = peer.handshake("/rooms/a/", {"Sec-WebSocket-Protocol": "chat"})
        assert response.headers["sec-websocket-protocol"] == "chat"


def test_method_of_a_class_is_decorated_through_method_decorator(site: Site, middleware: dict[str, Any]) -> None:
    class Echo(View):
        @method_decorator(accept_websocket)
        def dispatch(self, *args: Any, **kwargs: Any) -> Any:
            return super().dispatch(*args, **kwargs)

        def get(self, request: Any) -> HttpResponse | None:
            return echo(request)

    site(Echo.as_view(), **middleware)
    assert site.get().body == b"page"
    assert_echoes(site)


def test_callable_object_is_decorated_too(site: Site, middleware: dict[str, Any]) -> None:
    class Echo:
        def __call__(self, request: Any, **kwargs: Any) -> Any:
            return echo(request)

    assert_echoes(site(accept_websocket(Echo()), **middleware))
    assert_echoes(site(accept_websocket(functools.partial(Echo(), extra=1)), **middleware))


def test_decorated_view_keeps_its_name_and_attributes() -> None:
    def view(request: HttpRequest) -> None:
        """What it does."""

    view.csrf_exempt = True  # type: ignore[attr-defined]
    for decorator in (accept_websocket, require_websocket):
        decorated: Any = decorator(view)
        assert (decorated.__name__, decorated.__doc__, decorated.csrf_exempt) == ("view", "What it does.", True)


# is_websocket


@pytest.mark.parametrize("asked", [True, False], ids=["websocket", "plain"])
def test_is_websocket_is_a_call_and_a_truth_value(site: Site, middleware: dict[str, Any], asked: bool) -> None:
    @accept_websocket
    def view(request):
        called, bare = request.is_websocket(), request.is_websocket
        site.tell([called, bool(bare), not bare, repr(bare), request.websocket is not None])
        return HttpResponse("page")

    site(view, **middleware)
    assert (site.handshake() if asked else site.get()).body == b"page"
    assert site.hear() == [asked, asked, not asked, repr(asked), asked]


@pytest.mark.parametrize(
    ("upgrade", "asked"),
    [("websocket", True), ("WebSocket", True), ("h2c, websocket", True), ("h2c", False), ("", False)],
)
def test_is_websocket_says_what_the_upgrade_header_says(upgrade: str, asked: bool) -> None:
    seen = []

    @accept_websocket
    def view(request):
        seen.append(bool(request.is_websocket))
        return HttpResponse()

    request = RequestFactory().get("/", **HANDSHAKE | {"HTTP_UPGRADE": upgrade})
    response = view(request)
    assert (response.status_code, seen) == ((501, []) if asked else (200, [False]))


# Options


@pytest.mark.parametrize("decorator", [accept_websocket, require_websocket])
def test_options_hold_for_their_view_alone(site: Site, decorator: Any) -> None:
    site(
        path("small/", decorator(max_message_size=10)(echo)),
        path("usual/", decorator(echo)),
        path("big/", decorator(max_message_size=None)(echo)),
        WEBSOCKET_MAX_MESSAGE_SIZE=1000,
    )
    for where, sent, allowed in [
        ("/small/", 10, True),
        ("/small/", 11, False),
        ("/usual/", 1000, True),
        ("/usual/", 1001, False),
        ("/big/", 100_000, True),
    ]:
        with site.connect(where) as peer:
            peer.send_message(bytes(sent))
            answer = peer.recv_message()
            assert answer == (bytes(sent) if allowed else answer)
            assert isinstance(answer, bytes) is allowed
            if not allowed:
                assert answer.code == 1009


def test_unknown_option_is_a_type_error_that_lists_those_there_are() -> None:
    with pytest.raises(TypeError, match=r"unknown option 'subprotocol'; a view knows .*subprotocols"):
        accept_websocket(subprotocol="chat")


@pytest.mark.parametrize(
    "given",
    [{"subprotocols": "chat"}, {"ping_interval": 0}, {"max_message_size": -1}, {"detach": 1}, {"origins": [""]}],
    ids=str,
)
def test_option_that_cannot_be_is_a_value_error_when_the_view_is_decorated(given: dict[str, Any]) -> None:
    (name,) = given
    with pytest.raises(ValueError, match=f"the option {name} is .*; it must be "):
        require_websocket(**given)


@pytest.mark.parametrize("decorator", [accept_websocket, require_websocket])
def test_what_is_no_view_is_a_type_error_that_says_what_to_do(decorator: Any) -> None:
    with pytest.raises(TypeError, match="use method_decorator"):
        decorator(View)
    with pytest.raises(TypeError, match="options are given by name"):
        decorator(["chat"])


async def asynchronous(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


@pytest.mark.parametrize("view", [asynchronous, functools.partial(asynchronous)], ids=["function", "partial"])
def test_asynchronous_view_is_a_type_error(view: Any) -> None:
    with pytest.raises(TypeError, match="asynchronous"):
        accept_websocket(view)


def generator(request: HttpRequest) -> Any:
    yield "hello"


@pytest.mark.parametrize("view", [generator, functools.partial(generator)], ids=["function", "partial"])
def test_view_that_yields_its_messages_is_a_type_error_that_says_how_they_are_sent(view: Any) -> None:
    with pytest.raises(TypeError, match=r"does not yield its messages: request\.websocket\.send\(\) sends one"):
        accept_websocket(view)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 knows no notes")
@pytest.mark.parametrize("decorator", [never_cache, gzip_page, vary_on_headers("Accept"), xframe_options_deny])
@pytest.mark.parametrize("accepts", [True, False])
def test_decorator_below_ours_that_meets_none_is_told_where_it_belongs(
    site: Site, caplog: pytest.LogCaptureFixture, decorator: Any, accepts: bool
) -> None:
    @accept_websocket
    @decorator
    def view(request: Any) -> None:
        if accepts:
            request.websocket.accept()

    site(view)
    if accepts:
        assert site.connect().close(1000)
    else:
        assert site.handshake().status == 500
    site.until_idle()
    assert "Put that decorator above ours" in caplog.text


def test_attribute_of_none_that_the_view_itself_wants_gets_no_advice(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    @accept_websocket
    def view(request: Any) -> None:
        request.websocket.headers = None
        request.websocket.headers.get("Accept")

    assert site(view).handshake().status == 500
    assert "decorator" not in caplog.text.partition("AttributeError")[2]


# Nesting


def test_decorators_may_be_nested_and_nothing_happens_twice(site: Site, middleware: dict[str, Any]) -> None:
    calls: list[Any] = []

    @accept_websocket(subprotocols=["outer"])
    @require_websocket(subprotocols=["inner"])
    @accept_websocket
    def view(request):
        calls.append(request.websocket)
        request.websocket.accept()
        request.websocket.send(str(request.websocket.subprotocol))

    site(view, **middleware)
    with site.peer() as peer:
        response = peer.handshake("/", {"Sec-WebSocket-Protocol": "inner, outer"})
        assert response.headers["sec-websocket-protocol"] == "outer"
        assert peer.recv_message() == "outer"
        assert_ends(peer, 1000)
    assert len(calls) == 1
    assert site.get().status == 426


@pytest.mark.parametrize(
    "decorated",
    [login_required(accept_websocket(echo)), accept_websocket(login_required(echo))],
    ids=["outside", "inside"],
)
def test_login_required_redirects_the_handshake_and_lets_users_in(
    site: Site, decorated: Any, middleware: dict[str, Any]
) -> None:
    class User:
        is_authenticated = True

    def log_in(get_response: Any) -> Any:
        def call(request: Any) -> Any:
            request.user = User()
            request.user.is_authenticated = request.GET.get("user") == "yes"
            return get_response(request)

        return call

    with mock.patch(f"{__name__}.log_in", log_in, create=True):
        site(decorated, MIDDLEWARE=[f"{__name__}.log_in", *middleware["MIDDLEWARE"]])
    response = site.handshake()
    assert (response.status, response.headers["location"]) == (302, "/login/?next=/")
    assert_echoes(site, "/?user=yes")


# Caches


UPDATE = "django.middleware.cache.UpdateCacheMiddleware"
FETCH = "django.middleware.cache.FetchFromCacheMiddleware"
CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "decorators"}}


def cached(request: Any) -> HttpResponse | None:
    if not request.is_websocket():
        return HttpResponse("page")
    if "no" in request.GET:
        return HttpResponse("no WebSocket for you")
    return echo(request)


@pytest.fixture
def _cache() -> Iterator[None]:
    with override_settings(CACHES=CACHES):
        yield
        caches["default"].clear()


@pytest.mark.usefixtures("_cache")
@pytest.mark.parametrize(
    ("view", "settings"),
    [
        (cache_page(60)(accept_websocket(cached)), {}),
        (cache_page(60)(accept_websocket(cached)), {"MIDDLEWARE": [MIDDLEWARE]}),
        (accept_websocket(cached), {"MIDDLEWARE": [UPDATE, FETCH]}),
        (accept_websocket(cached), {"MIDDLEWARE": [UPDATE, FETCH, MIDDLEWARE]}),
        (accept_websocket(cached), {"MIDDLEWARE": [UPDATE, MIDDLEWARE, FETCH]}),
        (cached, {"MIDDLEWARE": [UPDATE, FETCH, MIDDLEWARE], "WEBSOCKET_ACCEPT_ALL": True}),
        (cached, {"MIDDLEWARE": [UPDATE, MIDDLEWARE, FETCH], "WEBSOCKET_ACCEPT_ALL": True}),
    ],
    ids=["cache_page", "cache_page and middleware", "site", "first", "between", "all", "all between"],
)
def test_cache_serves_no_page_to_a_handshake_and_no_refusal_to_a_page(site: Site, view: Any, settings: Any) -> None:
    site(view, CACHES=CACHES, **settings)
    for _ in range(2):
        assert site.get("/a/").body == b"page"
        assert_echoes(site, "/a/")
        assert site.handshake("/b/?no").body == b"no WebSocket for you"
        assert site.get("/b/?no").body == b"page"


@pytest.mark.parametrize(
    ("view", "status"),
    [(accept_websocket(echo), 200), (require_websocket(echo), 426), (lambda request: HttpResponse(), 200)],
    ids=["accepts", "requires", "plain"],
)
def test_http_answer_of_a_decorated_view_varies_on_upgrade(site: Site, view: Any, status: int) -> None:
    response = site(view, MIDDLEWARE=[MIDDLEWARE]).get()
    assert response.status == status
    assert response.headers.get("vary") == ("Upgrade" if hasattr(view, "accepts_websocket") else None)


@pytest.mark.parametrize("view", [accept_websocket(echo), lambda request: HttpResponse()], ids=["decorated", "plain"])
def test_refusal_of_a_handshake_varies_on_upgrade(site: Site, view: Any) -> None:
    response = site(view, MIDDLEWARE=[MIDDLEWARE]).handshake("/", {"Origin": "https://evil.example"})
    assert response.status in (400, 403)
    assert response.headers["vary"] == "Upgrade"


def test_what_varies_already_keeps_on_which(site: Site) -> None:
    assert site(accept_websocket(vary_on_headers("Accept")(echo))).get().headers["vary"] == "Accept, Upgrade"
