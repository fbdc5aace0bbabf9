"""A logout closes the WebSockets of its session, in every process, and no others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth import login, logout
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_out
from django.contrib.sessions.backends.db import SessionStore
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path

from dwebsocket import require_websocket
from dwebsocket.groups import process
from dwebsocket.groups.logout import connect
from tests.groups.backends import SETTING
from tests.groups.helpers import leave
from tests.helpers import AUTH, DB, SESSIONS, database_in
from tests.links import assert_ends
from tests.peer import Peer
from tests.sites import Site

SETTINGS = {"MIDDLEWARE": [SESSIONS, AUTH], "SESSION_ENGINE": DB}


@pytest.fixture(autouse=True, scope="module")
def _database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with database_in(tmp_path_factory.mktemp("logout") / "database"):
        User.objects.create(username="anna")
        yield


def log_in(request: HttpRequest) -> HttpResponse:
    login(request, User.objects.get(username="anna"))
    return HttpResponse()


def log_out(request: HttpRequest) -> HttpResponse:
    if request.GET.get("rollback"):
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            logout(request)
            1 / 0  # noqa: B018
    else:
        with transaction.atomic():
            logout(request)
    return HttpResponse()


@require_websocket
def talk(request: Any) -> None:
    if "ask" in request.GET:
        str(request.user)
    request.websocket.send("open")
    request.websocket.wait()


URLS = [path("login/", log_in), path("logout/", log_out), path("", talk)]


def cookie(site: Site) -> dict[str, str]:
    """That of a new session, logged in."""
    return {"Cookie": site.get("/login/").headers["set-cookie"].split(";")[0]}


def opened(site: Site, headers: dict[str, str], where: str = "/") -> Peer:
    peer = site.connect(where, headers)
    assert peer.recv_message() == "open"
    return peer


@pytest.mark.parametrize("where", ["/", "/?ask"])
def test_logout_closes_the_websockets_of_its_session_alone(site: Site, where: str) -> None:
    site(*URLS, WEBSOCKET_CLOSE_ON_LOGOUT=True, **SETTINGS)
    here, there = cookie(site), cookie(site)
    one, two, other, anonymous = (opened(site, headers, where) for headers in (here, here, there, {}))
    assert site.get("/logout/", here).status == 200
    assert_ends(one, 4401, "logged out")
    assert_ends(two, 4401, "logged out")
    leave(other, anonymous)


def test_logout_that_is_rolled_back_closes_nothing(site: Site) -> None:
    site(*URLS, WEBSOCKET_CLOSE_ON_LOGOUT=True, **SETTINGS)
    here = cookie(site)
    peer = opened(site, here)
    site.get("/logout/?rollback=1", here)
    leave(peer)


@pytest.mark.parametrize(
    ("chosen", "groups", "closes"),
    [
        (None, {"default": {}}, False),
        (None, SETTING, True),
        (True, {"default": {}}, True),
        (True, SETTING, True),
        (False, {"default": {}}, False),
        (False, SETTING, False),
    ],
)
def test_setting_says_whether_and_without_it_the_reach_of_the_backend(
    site: Site, chosen: bool | None, groups: Any, closes: bool
) -> None:
    """Where a message reaches one process alone, some WebSockets of a session would close, and others not."""
    site(*URLS, WEBSOCKET_CLOSE_ON_LOGOUT=chosen, WEBSOCKET_GROUPS=groups, **SETTINGS)
    here = cookie(site)
    peer = opened(site, here)
    site.get("/logout/", here)
    if closes:
        assert_ends(peer, 4401, "logged out")
    else:
        leave(peer)


def test_logout_succeeds_though_the_broker_is_gone(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site(*URLS, WEBSOCKET_GROUPS=SETTING, **SETTINGS)
    here = cookie(site)
    peer = opened(site, here)
    backend: Any = process.dispatcher("default").backend
    backend.is_lost = True
    assert site.get("/logout/", here).status == 200
    assert "lost" in caplog.text
    leave(peer)


def test_logout_outside_of_a_transaction_succeeds_though_the_broker_is_gone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with override_settings(WEBSOCKET_GROUPS=SETTING):
        backend: Any = process.dispatcher("default").backend
        backend.is_lost = True
        request = HttpRequest()
        request.session = SessionStore()
        request.session.create()
        logout(request)
        assert not backend.published
    assert "stay open: session_alive would close them" in caplog.text


@pytest.mark.parametrize("request_", [None, HttpRequest()])
def test_logout_without_a_session_sends_nothing(request_: HttpRequest | None) -> None:
    with override_settings(WEBSOCKET_GROUPS=SETTING):
        backend: Any = process.dispatcher("default").backend
        user_logged_out.send(User, request=request_, user=None)
        assert not backend.published


def test_app_that_is_ready_twice_sends_once() -> None:
    connect()
    with override_settings(WEBSOCKET_GROUPS=SETTING):
        backend: Any = process.dispatcher("default").backend
        request = HttpRequest()
        request.session = SessionStore()
        request.session.create()
        logout(request)
        assert len(backend.published) == 1
