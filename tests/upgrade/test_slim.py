"""The request of a view that outlives it: all that a view may ask for is there, in less memory."""

from __future__ import annotations

import contextvars
import types
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.local import Local
from asgiref.sync import async_to_sync
from django.contrib import messages
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.messages.storage.base import Message
from django.contrib.messages.storage.cookie import CookieStorage
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.http import HttpRequest
from django.urls import include, path
from django.utils import timezone, translation
from rest_framework.decorators import api_view

from dwebsocket import WebSocketView, require_websocket
from dwebsocket.upgrade import context as context_module
from dwebsocket.upgrade.context import adopt_locals
from tests.helpers import AUTH, SESSIONS
from tests.peer import Peer
from tests.sites import Site

MESSAGES = "django.contrib.messages.middleware.MessageMiddleware"
LOCALE = "django.middleware.locale.LocaleMiddleware"
SETTINGS = {
    "MIDDLEWARE": [SESSIONS, LOCALE, AUTH, MESSAGES],
    "SESSION_ENGINE": "django.contrib.sessions.backends.signed_cookies",
    "AUTHENTICATION_BACKENDS": [f"{__name__}.Backend"],
    "USE_I18N": True,
}
OWN = Local()  # of a project
ADA = User(pk=1, username="ada", password="x")


class Backend:
    """The one user there is, without a database."""

    def get_user(self, pk: int) -> User | None:
        return ADA if pk == 1 else None

    async def aget_user(self, pk: int) -> User | None:
        return self.get_user(pk)


def cookies() -> dict[str, str]:
    """The headers of a browser whose user is logged in, and has a message waiting."""
    session = SessionStore()
    session[SESSION_KEY], session[BACKEND_SESSION_KEY] = "1", f"{__name__}.Backend"
    session[HASH_SESSION_KEY] = ADA.get_session_auth_hash()
    session["room"] = 7
    session.save()
    waiting = CookieStorage(HttpRequest())._encode([Message(messages.INFO, "welcome")])
    return {"Cookie": f"sessionid={session.session_key}; messages={waiting}", "X-Own": "of its own"}


def asked(request: Any) -> dict[str, Any]:
    """All that a view may ask its request for; of the environ, what is the server's alone is left out."""
    request = getattr(request, "_request", request)
    match = request.resolver_match
    return {
        "META": {name: value for name, value in request.META.items() if name not in ("wsgi.input", "wsgi.errors")},
        "headers": dict(request.headers),
        "attributes": [request.method, request.path, request.path_info, request.content_type, request.encoding],
        "asked": [request.get_host(), request.get_full_path(), request.build_absolute_uri("x"), request.scheme],
        "secure": [request.is_secure(), request.get_port(), request.content_params],
        "query": [request.GET.urlencode(), request.POST.urlencode(), dict(request.FILES)],
        "COOKIES": request.COOKIES,
        "session": dict(request.session.items()),
        "match": dict(vars(match)) | {"repr": repr(match)},
    }


@require_websocket
def compares(request: Any, **captured: Any) -> None:
    before = asked(request)
    request.websocket.accept()
    after = asked(request)
    request.websocket.send_json([name for name, value in before.items() if after[name] != value])
    request.websocket.send_json([request.user.username, request.META is request.environ])
    request.websocket.send(async_to_sync(request.auser)().username)
    assert request.body == request.read() == request.META["wsgi.input"].read() == b""


class Compares(WebSocketView):
    """The same, and again with each message."""

    def opened(self) -> None:
        self.before = asked(self.request)

    def received(self, message: Any) -> None:
        after = asked(self.request)
        self.send_json([name for name, value in self.before.items() if after[name] != value])
        self.send_json([self.request.user.username, self.request.META is self.request.environ])
        self.send(async_to_sync(self.request.auser)().username)


URLS = [
    path("elsewhere/", compares),
    path("api/<int:number>/", api_view(["GET"])(compares)),
    path("rooms/", include(([path("<name>/", compares, {"extra": True}, name="room")], "app"), namespace="space")),
    path("parked/<name>/", Compares.as_view()),
]


def answers(peer: Peer) -> list[Any]:
    return [peer.recv_message(), peer.recv_message(), peer.recv_message()]


@pytest.mark.parametrize("address", ["/rooms/a%20b/?x=1&y=%C3%A9", "/api/7/", "/parked/x/"])
def test_view_finds_after_the_opening_what_it_has_found_before(detached_site: Site, address: str) -> None:
    for _ in range(2):  # the second shares with the first
        peer = detached_site(*URLS, **SETTINGS).connect(address, cookies())
        peer.send_message("go on")
        assert answers(peer) == ["[]", '["ada", true]', "ada"]


def test_requests_share_what_is_equal_and_nothing_else(detached_site: Site) -> None:
    @require_websocket
    def view(request: Any, name: str) -> None:
        request.websocket.accept()
        detached_site.tell(request)
        request.websocket.wait()

    site = detached_site(path("other/", view), path("room/<name>/", view), MIDDLEWARE=[SESSIONS, AUTH, MESSAGES])
    _peers = [site.connect(f"/room/{name}/", {"X-Own": name}) for name in ("seven", "eight")]
    first, second = site.hear(), site.hear()
    for name in ("HTTP_HOST", "HTTP_CONNECTION", "SERVER_PROTOCOL", "REMOTE_ADDR", "wsgi.input"):
        assert first.META[name] is second.META[name]
    assert sorted([first.META["HTTP_X_OWN"], second.META["HTTP_X_OWN"]]) == ["eight", "seven"]
    assert first.META is not second.META
    assert first.resolver_match.tried is second.resolver_match.tried
    assert len(first.resolver_match.tried) == 2
    assert first.resolver_match.kwargs != second.resolver_match.kwargs
    assert first.resolver_match.captured_kwargs is first.resolver_match.kwargs
    assert first.path is first.path_info is first.META["PATH_INFO"]


def test_patterns_that_were_tried_are_those_of_the_request(detached_site: Site) -> None:
    """The same route may be found by way of others."""

    @require_websocket
    def view(request: Any) -> None:
        request.websocket.send(str(len(request.resolver_match.tried)))

    def other(request: Any, number: int) -> None:
        raise NotImplementedError

    for patterns in ([path("", view)], [path("a/", other), path("", view)], [path("", view)]):
        peer = detached_site(*patterns).connect("/")
        assert peer.recv_message() == str(len(patterns))


def test_match_of_another_kind_stays_as_it_is(detached_site: Site) -> None:
    @require_websocket
    def view(request: Any) -> None:
        request.resolver_match = match = types.SimpleNamespace(route="another", kwargs={}, func=view)
        request.websocket.accept()
        request.websocket.send_json([request.resolver_match is match, sorted(vars(match))])

    assert detached_site(view).connect().recv_message() == '[true, ["func", "kwargs", "route"]]'


# Messages of Django


def test_message_that_waits_is_there_for_the_view_after_the_opening(detached_site: Site) -> None:
    @require_websocket
    def view(request: Any) -> None:
        request.websocket.accept()
        waiting = messages.get_messages(request)
        request.websocket.send_json(
            [
                len(waiting),
                Message(messages.INFO, "welcome") in waiting,
                [str(message) for message in waiting],
                repr(waiting).partition(":")[0],
            ]
        )
        messages.set_level(request, messages.WARNING)
        messages.info(request, "not recorded")
        messages.warning(request, "recorded")
        request.websocket.send_json([messages.get_level(request), [str(message) for message in waiting]])

    peer = detached_site(view, **SETTINGS).connect("/", cookies())
    assert peer.recv_message() == '[1, true, ["welcome"], "<FallbackStorage"]'
    assert peer.recv_message() == '[30, ["welcome", "recorded"]]'


def test_level_of_the_messages_can_be_the_first_that_the_view_sets(detached_site: Site) -> None:
    @require_websocket
    def view(request: Any) -> None:
        request.websocket.accept()
        messages.set_level(request, messages.ERROR)
        request.websocket.send_json([messages.get_level(request), len(messages.get_messages(request))])

    peer = detached_site(view, **SETTINGS).connect()
    assert peer.recv_message() == "[40, 0]"


@pytest.mark.parametrize("how", ["read", "added", "level"])
def test_messages_that_the_view_has_used_before_the_opening_stay_as_they_are(detached_site: Site, how: str) -> None:
    @require_websocket
    def view(request: Any) -> None:
        if how == "read":
            list(messages.get_messages(request))
        elif how == "added":
            messages.info(request, "added")
        else:
            messages.set_level(request, messages.ERROR)
        before = request._messages
        request.websocket.accept()
        request.websocket.send_json([request._messages is before])

    assert detached_site(view, **SETTINGS).connect("/", cookies()).recv_message() == "[true]"


class OwnStorage(CookieStorage):
    """A project's own."""


def test_storage_of_a_project_stays_as_it_is(detached_site: Site) -> None:
    @require_websocket
    def view(request: Any) -> None:
        request.websocket.accept()
        request.websocket.send(type(request._messages).__name__)

    peer = detached_site(view, MESSAGE_STORAGE=f"{__name__}.OwnStorage", **SETTINGS).connect()
    assert peer.recv_message() == "OwnStorage"


# The user


def test_user_that_a_middleware_has_put_there_stays_as_it_is(detached_site: Site) -> None:
    user = AnonymousUser()

    @require_websocket
    def view(request: Any) -> None:
        request.user = user
        request.auser = user
        request.websocket.accept()
        request.websocket.send_json([request.user is user, request.auser is user])

    assert detached_site(view, **SETTINGS).connect().recv_message() == "[true, true]"


# The context


@pytest.fixture
def _as_before() -> Iterator[None]:
    with translation.override("en"), timezone.override("UTC"):
        yield


@pytest.mark.usefixtures("_as_before")
def test_parked_view_has_its_own_language_and_time_zone_beside_others(detached_site: Site) -> None:
    class View(WebSocketView):
        def opened(self) -> None:
            translation.activate(self.request.GET["language"])
            timezone.activate(self.request.GET["zone"])
            self.send("opened")

        def received(self, message: Any) -> None:
            self.send_json([translation.get_language(), timezone.get_current_timezone_name()])
            if message == "change":
                translation.activate("de")

    site = detached_site(View.as_view())
    wanted = [("fr", "Asia/Tokyo"), ("de", "Europe/Berlin"), ("fr", "Asia/Tokyo")]
    peers = [site.connect(f"/?language={language}&zone={zone}") for language, zone in wanted]
    for peer in peers:
        assert peer.recv_message() == "opened"
    for message in ("say", "change"):
        for peer, (language, zone) in zip(peers, wanted, strict=True):
            peer.send_message(message)
            assert peer.recv_message() == f'["{language}", "{zone}"]'
    peers[0].send_message("say")
    assert peers[0].recv_message() == '["de", "Asia/Tokyo"]'


def test_contexts_share_equal_values_and_no_others() -> None:
    def begun(language: str, **more: Any) -> contextvars.Context:
        """The context of a request, as its view goes on in it."""
        context = contextvars.Context()
        context.run(translation.activate, language)
        for name, value in more.items():
            context.run(setattr, OWN, name, value)
        context.run(adopt_locals)
        return context

    def stored(context: contextvars.Context) -> list[Any]:
        return [value for value in context.values() if type(value).__module__ == "asgiref.local"]

    french, german, again = begun("fr"), begun("de"), begun("fr")
    assert [*map(id, stored(french))] == [*map(id, stored(again))]
    assert stored(german)[0] is not stored(french)[0]
    french.run(translation.activate, "en")  # a later one of that view, in a dictionary of its own
    assert [context.run(translation.get_language) for context in (french, german, again)] == ["en", "de", "fr"]

    request, other = object(), object()
    first, second = begun("fr", request=request), begun("fr", request=other)
    assert first.run(getattr, OWN, "request") is request
    assert second.run(getattr, OWN, "request") is other
    assert not any(value is request for last in context_module._shared.values() for value in last.data.values())


def test_contexts_that_share_values_are_few() -> None:
    for number in range(1000):
        context = contextvars.Context()
        context.run(setattr, OWN, "name", f"number {number}")
        context.run(adopt_locals)
        assert context.run(getattr, OWN, "name") == f"number {number}"
        assert len(context_module._shared) <= 256
