"""What a guard of an open WebSocket sees: the session and the user of now."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth import login
from django.contrib.auth.models import User
from django.urls import path
from django.utils.functional import SimpleLazyObject

from dwebsocket import require_websocket
from tests.guards.helpers import SOON_SECONDS, Heard, assert_open, browser, each, guarded, store, user_named
from tests.helpers import AUTH, DB, SESSIONS
from tests.links import assert_ends, until
from tests.sites import Site, changing


@each("db")
def test_guard_sees_the_session_of_now_though_the_view_has_one_of_before(site: Site, engine: str) -> None:
    @require_websocket(guard=lambda request: request.session.get("room") == 7, guard_interval=SOON_SECONDS)
    def view(request):
        request.websocket.send(str(request.session["room"]))
        request.websocket.wait()
        site.tell(request.session["room"])

    session = store()
    session["room"] = 7
    session.save()
    peer = site(view).connect("/", {"Cookie": f"sessionid={session.session_key}"})
    assert peer.recv_message() == "7"
    session["room"] = 8
    session.save()
    assert_ends(peer, 4403, "permission denied")
    assert site.hear() == 7


@each("db")
def test_guard_sees_the_user_of_now_though_the_view_has_one_of_before(site: Site, engine: str) -> None:
    @require_websocket(guard=lambda request: request.user.first_name == "Ann", guard_interval=SOON_SECONDS)
    def view(request):
        request.websocket.send(request.user.first_name)
        request.websocket.wait()
        site.tell(request.user.first_name)

    ann = user_named("ann")
    User.objects.update(first_name="Ann")
    peer = site(view).connect("/", browser(ann))
    assert peer.recv_message() == "Ann"
    User.objects.update(first_name="Anna")
    assert_ends(peer, 4403, "permission denied")
    assert site.hear() == "Ann"


def lazily(request: Any) -> None:
    request.user = SimpleLazyObject(lambda: User.objects.get(username="ann"))


def at_once(request: Any) -> None:
    request.user = User.objects.get(username="ann")


def by_login(request: Any) -> None:
    login(request, User.objects.get(username="ann"), backend="django.contrib.auth.backends.ModelBackend")


@pytest.mark.parametrize("others", [[SESSIONS, AUTH], []], ids=["with sessions", "without"])
@pytest.mark.parametrize("put", [lazily, at_once], ids=lambda put: put.__name__)
def test_user_whom_a_middleware_of_the_project_has_found_stays_until_deactivated(
    site: Site, put: Any, others: list[str]
) -> None:
    heard = Heard()
    user_named("ann")
    with changing(put, *others) as given:
        guarded(
            site,
            lambda request: request.user.is_authenticated and request.user.is_active,
            heard,
            SESSION_ENGINE=DB,
            **given,
        )
        peer = site.connect()
        assert_open(peer, heard)
        User.objects.update(is_active=False)
        assert_ends(peer, 4403, "permission denied")


@pytest.mark.parametrize("put", [lazily, at_once], ids=lambda put: put.__name__)
def test_user_whom_a_middleware_of_the_project_has_found_is_nobody_once_deleted(site: Site, put: Any) -> None:
    heard = Heard()
    user_named("ann")
    with changing(put) as given:
        peer = guarded(site, lambda request: request.user.is_authenticated, heard, SESSION_ENGINE=DB, **given).connect()
        assert_open(peer, heard)
        User.objects.all().delete()
        assert_ends(peer, 4403, "permission denied")


def test_user_whom_a_middleware_logs_in_stays_until_deactivated(site: Site) -> None:
    heard = Heard()
    user_named("ann")
    with changing(by_login, SESSIONS, AUTH) as given:
        peer = guarded(site, lambda request: request.user.is_active, heard, SESSION_ENGINE=DB, **given).connect()
        assert_open(peer, heard)
        User.objects.update(is_active=False)
        assert_ends(peer, 4403, "permission denied")


def test_guard_of_an_open_websocket_knows_by_which_path_it_came(site: Site) -> None:
    seen: list[Any] = []

    def guard(request: Any) -> bool:
        seen.append((request.path, request.resolver_match.kwargs, request.GET["x"], request.META["REMOTE_ADDR"]))
        return True

    @require_websocket(guard=guard, guard_interval=SOON_SECONDS)
    def view(request, room):
        request.websocket.wait()

    peer = site(path("rooms/<int:room>/", view)).connect("/rooms/7/?x=1")
    until(lambda: len(seen) >= 3, "the guard to be asked again")
    assert set(map(repr, seen)) == {repr(("/rooms/7/", {"room": 7}, "1", "127.0.0.1"))}
    peer.abandon()
