"""Who may open a WebSocket, and who may keep it: each guard, and the rounds in which all are asked."""

from __future__ import annotations

import contextvars
import functools
import gc
import itertools
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import gevent
import pytest
from django.conf import settings
from django.contrib.auth import login, logout
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import Group, Permission, User
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.core.cache import caches
from django.core.exceptions import PermissionDenied
from django.db import connection, connections, transaction
from django.db.backends.signals import connection_created
from django.http import HttpResponse
from django.test import Client, RequestFactory, override_settings
from django.urls import path
from django.utils.functional import SimpleLazyObject

from dwebsocket import accept_websocket, guards, require_websocket
from dwebsocket import connections as live_connections
from dwebsocket.exceptions import Forbidden, Unauthorized
from dwebsocket.guards import builtin, schedule
from dwebsocket.guards.base import Guard
from dwebsocket.guards.builtin import has_perm, session_alive, user_is_active
from dwebsocket.guards.schedule import watch, watch_no_longer
from dwebsocket.protocol.exceptions import HandshakeError
from dwebsocket.reactors.thread import ThreadReactor
from tests.helpers import AUTH, DB, SESSIONS, database_in
from tests.links import Home, Hub, Threads, assert_ends, run_program, until
from tests.peer import Peer
from tests.sites import Site, changing

SOON_SECONDS, NEVER_SECONDS = 0.02, 3600.0
ENGINES = ["db", "cached_db", "cache", "file", "signed_cookies"]

logger = logging.getLogger("dwebsocket")


@pytest.fixture(scope="module", autouse=True)
def database_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    file = tmp_path_factory.mktemp("guards") / "db.sqlite3"
    with database_in(file):
        yield file


@pytest.fixture(autouse=True)
def _empty() -> Iterator[None]:
    with override_settings(PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"]):
        yield
    for model in (Session, User, Group):
        model.objects.all().delete()
    connection.close()


@pytest.fixture
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The sessions of one kind, as settings say it."""
    chosen = f"django.contrib.sessions.backends.{request.param}"
    with override_settings(SESSION_ENGINE=chosen, SESSION_FILE_PATH=str(tmp_path)):
        yield request.param


def each(*engines: str) -> Any:
    return pytest.mark.parametrize("engine", engines, indirect=True)


class Heard(Guard):
    """Lets everybody in, and counts the rounds: who waits for the next but one knows that others were asked."""

    def __init__(self) -> None:
        self.rounds = 0

    def judge(self, requests: Sequence[Any]) -> list[HandshakeError | None]:
        self.rounds += 1
        return [None] * len(requests)

    def until_asked_again(self) -> None:
        seen = self.rounds
        until(lambda: self.rounds >= seen + 2, "the guards to be asked again")


def store(key: str | None = None) -> Any:
    return import_module(settings.SESSION_ENGINE).SessionStore(key)


def user_named(name: str, *permissions: str) -> User:
    user = User.objects.create_user(name, password="before")
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return user


def browser(user: User | None) -> dict[str, str]:
    """The headers of a browser in which `user` is logged in, or somebody has a session without that."""
    if user is None:
        session = store()
        session["visits"] = 1
        session.save()
        return {"Cookie": f"sessionid={session.session_key}"}
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return {"Cookie": f"sessionid={client.cookies['sessionid'].value}"}


def key_of(headers: dict[str, str]) -> str:
    return headers["Cookie"].partition("=")[2]


def guarded(site: Site, *guards: Any, **more: Any) -> Site:
    """A view that echoes as long as these guards let it, and tells when it ends."""

    @require_websocket(guard=list(guards), guard_interval=SOON_SECONDS)
    def view(request):
        for message in request.websocket:
            request.websocket.send(message)
        site.tell([request.websocket.close_code, request.websocket.closed])

    return site(view, **more)


def assert_open(peer: Peer, heard: Heard) -> None:
    heard.until_asked_again()
    peer.send_message("still here")
    assert peer.recv_message() == "still here"


# The opening handshake


def unauthorized(request: Any) -> bool:
    raise Unauthorized("who are you?")


def denied(request: Any) -> bool:
    raise PermissionDenied("not for you")


def broken(request: Any) -> bool:
    raise RuntimeError("the guard is broken")


def yes(request: Any) -> bool:
    return True


@pytest.mark.parametrize(
    ("guard", "status", "sentence"),
    [
        (lambda request: False, 403, "permission denied"),
        (lambda request: None, 403, "permission denied"),
        (denied, 403, "permission denied"),
        (unauthorized, 401, "who are you?"),
        ([yes, denied, unauthorized], 403, "permission denied"),
        ([yes, unauthorized, denied], 401, "who are you?"),
        (f"{__name__}.unauthorized", 401, "who are you?"),
        ([f"{__name__}.yes", f"{__name__}.denied"], 403, "permission denied"),
        (broken, 500, ""),
    ],
    ids=["false", "none", "denied", "unauthorized", "403-first", "401-first", "path", "paths", "broken"],
)
@pytest.mark.parametrize("where", ["setting", "option"])
def test_guard_refuses_the_opening_handshake_before_the_view_is_called(
    site: Site, guard: Any, status: int, sentence: str, where: str
) -> None:
    options = {"guard": guard} if where == "option" else {}

    @require_websocket(**options)
    def view(request):
        raise AssertionError("the view was called")

    response = site(view, **({"WEBSOCKET_GUARD": guard} if where == "setting" else {})).handshake()
    assert response.status == status
    assert status == 500 or response.body.decode().strip() == sentence


def test_text_of_a_permission_denied_reaches_neither_the_client_nor_the_log(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    response = guarded(site, denied).handshake()
    site.until_idle()
    assert "not for you" not in f"{response}{caplog.text}"


def test_text_of_a_guard_that_would_forge_a_line_of_the_log_is_escaped(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    def guard(request: Any) -> bool:
        raise Forbidden("no such room\nERROR forged")

    assert guarded(site, guard).handshake("/a/room/").status == 403
    site.until_idle()
    (record,) = caplog.records
    assert record.getMessage() == r"Forbidden: /a/room/ (no such room\nERROR forged)"


async def asynchronous(request: Any) -> bool:
    return True


@pytest.fixture
def coroutine() -> Iterator[Any]:
    """What an asynchronous guard returns, and nobody awaits."""
    coroutine = asynchronous(None)
    yield coroutine
    coroutine.close()


class Speechless(Guard):
    """Judges nobody."""

    def judge(self, requests: Sequence[Any]) -> list[HandshakeError | None]:
        return []


def test_guard_that_judges_nobody_lets_nobody_in(site: Site) -> None:
    assert guarded(site, Speechless()).handshake().status == 500


def test_guard_that_returns_a_coroutine_lets_nobody_in(site: Site, coroutine: Any) -> None:
    assert guarded(site, lambda request: coroutine).handshake().status == 500


def test_guard_that_returns_a_coroutine_later_is_logged_and_closes_nothing(
    site: Site, coroutine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    answers, heard = [True], Heard()
    peer = guarded(site, lambda request: answers[0], heard).connect()
    answers[0] = coroutine
    assert_open(peer, heard)
    assert "is asynchronous; here it is an ordinary function" in caplog.text
    assert "could not be asked; the WebSockets stay open" in caplog.text


def takes_a_view(function: Any) -> Any:
    """A decorator of a project: its answer to a request is always true."""
    return lambda *args: function(*args)


@pytest.mark.parametrize(
    ("guard", "words"),
    [
        (takes_a_view, "returned a function, neither True nor False: a decorator is no guard; write it above"),
        (functools.partial(login_required, login_url="/in/"), "a decorator is no guard; write it above"),
        (lambda request: 1, "returned a int, neither True nor False: let it return bool(…)"),
        (lambda request: "", "returned a str, neither"),
        (lambda request: User.objects.filter(username="ann"), "returned a QuerySet, neither"),
        (lambda request: HttpResponse(), "returned a HttpResponse, neither"),
    ],
    ids=["decorator", "login_required", "number", "empty", "queryset", "response"],
)
def test_answer_that_is_neither_true_nor_false_lets_nobody_in_and_says_what_to_write(
    site: Site, guard: Any, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert guarded(site, guard).handshake().status == 500
    site.until_idle()
    assert "the guard <" in caplog.text or "the guard functools" in caplog.text
    assert words in caplog.text


def test_answer_that_is_neither_true_nor_false_later_is_logged_and_closes_nothing(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    answers, heard = [True], Heard()
    peer = guarded(site, lambda request: answers[0], heard).connect()
    answers[0] = "yes"  # type: ignore[call-overload]
    assert_open(peer, heard)
    assert "returned a str, neither True nor False: let it return bool(…)" in caplog.text
    assert "could not be asked; the WebSockets stay open" in caplog.text


def test_guard_of_a_view_replaces_that_of_the_settings(site: Site) -> None:
    @require_websocket(guard=yes)
    def view(request):
        request.websocket.send("hello")

    assert site(view, WEBSOCKET_GUARD=denied).connect().recv_message() == "hello"


def test_plain_http_of_the_same_view_is_not_asked(site: Site) -> None:
    @accept_websocket(guard=denied)
    def view(request):
        return HttpResponse("a page")

    assert site(view).get().body == b"a page"
    assert site.handshake().status == 403


@pytest.mark.parametrize("guard", [user_is_active, has_perm("auth.view_group"), session_alive], ids=repr)
def test_nobody_is_refused_with_401_by_the_guards_that_want_somebody(site: Site, guard: Guard) -> None:
    assert guarded(site, guard, SESSION_ENGINE=DB).handshake().status == 401


def test_session_that_has_ended_before_is_refused_with_401(site: Site) -> None:
    guarded(site, session_alive, SESSION_ENGINE=DB)
    headers = browser(user_named("ann"))
    store(key_of(headers)).flush()
    assert site.handshake("/", headers).status == 401


def test_permission_that_the_user_lacks_is_refused_with_403(site: Site) -> None:
    guarded(site, has_perm("auth.view_group"), SESSION_ENGINE=DB)
    assert site.handshake("/", browser(user_named("ann", "view_user"))).status == 403


def test_permission_without_a_dot_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=r'a permission is "app\.codename", not \'view_group\''):
        has_perm("view_group")


def test_request_without_sessions_or_users_is_nobodys(site: Site) -> None:
    assert guarded(site, session_alive, MIDDLEWARE=[]).handshake().status == 401
    assert guarded(site, user_is_active, MIDDLEWARE=[]).handshake().status == 401


# Open WebSockets


@pytest.mark.parametrize(
    ("refuse", "code", "reason"),
    [
        (lambda request: False, 4403, "permission denied"),
        (denied, 4403, "permission denied"),
        (unauthorized, 4401, "who are you?"),
    ],
    ids=["false", "denied", "unauthorized"],
)
def test_open_websocket_is_closed_and_its_view_ends(site: Site, refuse: Any, code: int, reason: str) -> None:
    guards = [yes]
    peer = guarded(site, lambda request: guards[0](request)).connect()
    guards[0] = refuse
    assert_ends(peer, code, reason)
    assert site.hear() == [code, True]


def test_guard_of_the_settings_is_asked_again_too(site: Site) -> None:
    asked = iter([True])

    @require_websocket
    def view(request):
        request.websocket.wait()

    site(view, WEBSOCKET_GUARD=lambda request: next(asked, False), WEBSOCKET_GUARD_INTERVAL=SOON_SECONDS)
    assert_ends(site.connect(), 4403, "permission denied")


def test_each_of_several_guards_can_close(site: Site) -> None:
    for last in range(3):
        lets = [True, True, True]
        guards = [lambda request, i=i, lets=lets: lets[i] for i in range(3)]
        peer = guarded(site, *guards).connect()
        lets[last] = False
        assert_ends(peer, 4403, "permission denied")
        assert site.hear() == [4403, True]


def test_view_that_computes_finds_its_websocket_closed(site: Site) -> None:
    lets = [True]
    woken = threading.Event()

    @require_websocket(guard=lambda request: lets[0], guard_interval=SOON_SECONDS)
    def view(request):
        request.websocket.accept()
        site.wait_for(woken)
        site.tell(request.websocket.closed)

    peer = site(view).connect()
    lets[0] = False
    assert_ends(peer, 4403, "permission denied")
    woken.set()
    assert site.hear() is True


def log_out(headers: dict[str, str], user: User) -> None:
    store(key_of(headers)).flush()


def expire(headers: dict[str, str], user: User) -> None:
    session = store(key_of(headers))
    session.set_expiry(-1)
    session.save()


def change_password(headers: dict[str, str], user: User) -> None:
    user.set_password("after")
    user.save()


def delete_user(headers: dict[str, str], user: User) -> None:
    user.delete()


ENDS = [log_out, expire, change_password, delete_user]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
@each("db", "cached_db", "cache", "file")
@pytest.mark.parametrize("site", ["detached"], indirect=True)
def test_end_of_a_session_closes_its_websocket_and_no_other(site: Site, engine: str, end: Any) -> None:
    heard = Heard()
    guarded(site, session_alive, heard)
    ann, bob = user_named("ann"), user_named("bob")
    anns, bobs = browser(ann), browser(bob)
    peer, others = site.connect("/", anns), [site.connect("/", bobs), site.connect("/", browser(None))]
    for one in (peer, *others):
        assert_open(one, heard)
    end(anns, ann)
    assert_ends(peer, 4401, "there is no live session")
    assert site.hear() == [4401, True]
    for other in others:
        assert_open(other, heard)


@pytest.mark.parametrize("end", [change_password, delete_user], ids=lambda end: end.__name__)
@each("signed_cookies")
@pytest.mark.parametrize("site", ["detached"], indirect=True)
def test_session_in_a_signed_cookie_ends_with_what_the_server_knows_of(site: Site, engine: str, end: Any) -> None:
    heard = Heard()
    guarded(site, session_alive, heard)
    ann = user_named("ann")
    anns = browser(ann)
    peer, other = site.connect("/", anns), site.connect("/", browser(None))
    assert_open(peer, heard)
    end(anns, ann)
    assert_ends(peer, 4401, "there is no live session")
    assert_open(other, heard)


@each("signed_cookies")
@pytest.mark.parametrize("site", ["detached"], indirect=True)
def test_session_in_a_signed_cookie_cannot_be_logged_out_which_is_said_once(
    site: Site, engine: str, caplog: pytest.LogCaptureFixture
) -> None:
    builtin._warn_once.cache_clear()
    heard = Heard()
    guarded(site, session_alive, heard)
    anns = browser(user_named("ann"))
    for _ in range(2):
        assert_open(site.connect("/", anns), heard)
    said = [record.getMessage() for record in caplog.records if record.name == "dwebsocket"]
    assert len(said) == 1
    assert "does not see a logout" in said[0]


@each("signed_cookies")
@pytest.mark.parametrize("site", ["detached"], indirect=True)
def test_session_in_a_signed_cookie_expires(site: Site, engine: str) -> None:
    heard = Heard()
    peer = guarded(site, session_alive, heard).connect("/", browser(user_named("ann")))
    assert_open(peer, heard)
    with override_settings(SESSION_COOKIE_AGE=-1):
        assert_ends(peer, 4401, "there is no live session")


@each(*ENGINES)
@pytest.mark.parametrize("site", ["detached"], indirect=True)
def test_session_that_was_emptied_and_kept_has_not_ended(site: Site, engine: str) -> None:
    heard = Heard()
    session = store()
    session.save()
    headers = {"Cookie": f"sessionid={session.session_key}"}
    assert_open(guarded(site, session_alive, heard).connect("/", headers), heard)


@each("db")
def test_logout_by_the_view_itself_closes_its_websocket(site: Site, engine: str) -> None:
    @require_websocket(guard=session_alive, guard_interval=SOON_SECONDS)
    def view(request):
        request.websocket.accept()
        logout(request)
        request.websocket.wait()

    assert_ends(site(view).connect("/", browser(user_named("ann"))), 4401, "there is no live session")


@each("db")
@pytest.mark.parametrize("guard", [session_alive, user_is_active, has_perm("auth.view_group")], ids=repr)
def test_guard_knows_the_name_of_the_user_whom_the_view_never_asks_for(site: Site, engine: str, guard: Guard) -> None:
    guarded(site, guard)
    peer = site.connect("/", browser(user_named("ann", "view_group")))
    assert [info.user for info in live_connections()] == ["ann"]
    assert_open_and_leave(peer)


@each("db")
@pytest.mark.parametrize("site", ["detached"], indirect=True)
def test_session_of_no_user_has_no_name(site: Site, engine: str) -> None:
    guarded(site, session_alive)
    peer = site.connect("/", browser(None))
    assert [info.user for info in live_connections()] == [""]
    assert_open_and_leave(peer)


def assert_open_and_leave(peer: Peer) -> None:
    peer.send_message("still here")
    assert peer.recv_message() == "still here"
    peer.close()


@each("db")
@pytest.mark.parametrize("site", ["detached"], indirect=True)
def test_password_of_a_secret_key_from_before_is_still_the_same(site: Site, engine: str) -> None:
    heard = Heard()
    headers = browser(user_named("ann"))
    guarded(site, session_alive, heard, SECRET_KEY="another", SECRET_KEY_FALLBACKS=[settings.SECRET_KEY])
    peer = site.connect("/", headers)
    assert_open(peer, heard)


@each("db")
@pytest.mark.parametrize("site", ["detached"], indirect=True)
def test_session_of_a_user_whose_key_nobody_could_have_is_nobodys_and_protects_no_other(
    site: Site, engine: str
) -> None:
    heard = Heard()
    guarded(site, session_alive, heard)
    ann, bob = browser(user_named("ann")), browser(user_named("bob"))
    first, second = site.connect("/", ann), site.connect("/", bob)
    session = store(key_of(ann))
    session["_auth_user_id"] = "3f2504e0-4f89-11d3-9a0c-0305e82c3301"
    session.save()
    assert_ends(first, 4401, "there is no live session")
    store(key_of(bob)).flush()
    assert_ends(second, 4401, "there is no live session")


@each("cache")
@pytest.mark.parametrize("site", ["detached"], indirect=True)
def test_cache_that_cannot_be_reached_ends_no_session(
    site: Site, engine: str, caplog: pytest.LogCaptureFixture
) -> None:
    heard = Heard()
    peer = guarded(site, session_alive, heard).connect("/", browser(user_named("ann")))
    cache = type(caches["default"])
    away = ConnectionError("no route to the cache")
    with mock.patch.object(cache, "get", side_effect=away), mock.patch.object(cache, "has_key", side_effect=away):
        assert_open(peer, heard)
    assert "the guard session_alive could not be asked" in caplog.text
    assert_open(peer, heard)


@pytest.mark.parametrize("end", ["deactivated", "deleted"])
@pytest.mark.parametrize("site", ["detached"], indirect=True)
def test_user_who_is_deactivated_or_deleted_has_to_go(site: Site, end: str) -> None:
    heard = Heard()
    guarded(site, user_is_active, heard, SESSION_ENGINE=DB)
    ann = user_named("ann")
    peer, other = site.connect("/", browser(ann)), site.connect("/", browser(user_named("bob")))
    assert_open(peer, heard)
    if end == "deleted":
        ann.delete()
    else:
        User.objects.filter(pk=ann.pk).update(is_active=False)
    assert_ends(peer, 4401, "nobody is logged in" if end == "deleted" else "the account is not active")
    assert_open(other, heard)


def take_from_user(ann: User) -> None:
    ann.user_permissions.clear()


def take_from_group(ann: User) -> None:
    ann.user_permissions.clear()
    ann.groups.get().permissions.clear()


def take_from_members(ann: User) -> None:
    ann.user_permissions.clear()
    ann.groups.clear()


def take_from_superuser(ann: User) -> None:
    User.objects.filter(pk=ann.pk).update(is_superuser=False)


@pytest.mark.parametrize("take", [take_from_user, take_from_group, take_from_members, take_from_superuser])
@pytest.mark.parametrize("site", ["detached"], indirect=True)
def test_permission_that_is_taken_away_closes_with_4403(site: Site, take: Callable[[User], None]) -> None:
    heard = Heard()
    guarded(site, has_perm("auth.view_group"), heard, SESSION_ENGINE=DB)
    ann = User.objects.create_superuser("ann") if take is take_from_superuser else user_named("ann")
    permission = Permission.objects.get(codename="view_group")
    if take is take_from_user:
        ann.user_permissions.add(permission)
    elif take is not take_from_superuser:
        group = Group.objects.create(name="readers")
        group.permissions.add(permission)
        ann.groups.add(group)
    peer, other = site.connect("/", browser(ann)), site.connect("/", browser(user_named("bob", "view_group")))
    assert_open(peer, heard)
    take(ann)
    assert_ends(peer, 4403, "permission denied")
    assert_open(other, heard)


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


# The rounds


@dataclass(eq=False)
class Ward:
    """Somebody to ask about."""

    home: Home
    request: Any
    revoked: list[str] = field(default_factory=list)

    @property
    def reactor(self) -> Any:
        return self.home.reactor

    def around(self, function: Callable[[], None]) -> Callable[[], None]:
        return function

    def revoke(self, error: HandshakeError) -> None:
        self.revoked.append(str(error))


@pytest.fixture
def wards(home: Home) -> Iterator[Callable[..., list[Ward]]]:
    """Watch as many as are wanted, with these guards; in the end nobody is, and nothing runs any more."""
    watched: list[Ward] = []
    home.do(connections.close_all)

    def make(count: int, *guards: Any, interval: float = SOON_SECONDS, requests: Sequence[Any] = ()) -> list[Ward]:
        new = [Ward(home, request) for request in requests or [RequestFactory().get("/") for _ in range(count)]]
        watched.extend(new)
        for ward in new:
            home.do(watch, ward, guards, interval)
        return new

    yield make
    leave(home, watched)
    until(lambda: not making_rounds(), "the rounds to end")


def leave(home: Home, wards: list[Ward]) -> None:
    for ward in wards:
        home.do(watch_no_longer, ward)


def rounds_of(home: Home) -> Any:
    return schedule._rounds[home.reactor]


def making_rounds(name: str = "dwebsocket guards") -> int:
    """How many threads and greenlets keep the time of the rounds."""
    greenlets = [thing for thing in gc.get_objects() if issubclass(type(thing), gevent.Greenlet)]  # asks no lazy object
    names = [thread.name for thread in threading.enumerate()] + [greenlet.name for greenlet in greenlets if greenlet]
    return names.count(name)


def requests_of(users: list[User], count: int) -> list[Any]:
    """The requests of as many browsers, their users looked up as the opening handshake does it."""
    made = []
    with transaction.atomic():  # a commit for each is most of the time that this takes
        for number in range(count):
            request = RequestFactory().get("/")
            request.user = users[number % len(users)]
            request.session = SessionStore(key_of(browser(request.user)))
            made.append(request)
    return made


@contextmanager
def queries_of_others() -> Iterator[list[str]]:
    """The queries of all threads but this one, as they come."""
    seen: list[str] = []
    here = threading.get_ident()

    def see(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        seen.append(sql)
        return execute(sql, params, many, context)

    def opened(connection: Any, **about: Any) -> None:
        if threading.get_ident() != here and see not in connection.execute_wrappers:
            connection.execute_wrappers.append(see)
            wrapped.append(connection)

    wrapped: list[Any] = []
    connection_created.connect(opened)
    try:
        yield seen
    finally:
        connection_created.disconnect(opened)
        for one in wrapped:
            one.execute_wrappers.remove(see)


@pytest.mark.parametrize(
    ("guard", "queries"),
    [(session_alive, 2), (user_is_active, 1), (has_perm("auth.view_group"), 3)],
    ids=repr,
)
@override_settings(SESSION_ENGINE=DB)
def test_number_of_queries_does_not_depend_on_the_number_of_websockets(wards: Any, guard: Guard, queries: int) -> None:
    class Mark(Heard):
        def judge(self, requests: Sequence[Any]) -> list[HandshakeError | None]:
            asked.append(len(requests))
            seen.append("a round")
            return super().judge(requests)

    asked: list[int] = []
    ann = user_named("ann", "view_group")
    requests = requests_of([ann], 100)
    with queries_of_others() as seen:
        mark = Mark()
        made = wards(100, guard, mark, requests=requests, interval=0.1)
        until(lambda: asked.count(100) >= 3, "three rounds of all")
        seen_so_far = list(seen)
    whole = "\n".join(seen_so_far).split("a round")[1:-1]  # the first began before all were there
    assert {len(one.strip().splitlines()) for one in whole} == {queries}
    assert not any(ward.revoked for ward in made)


def test_guard_that_fails_is_logged_once_a_round_closes_nothing_and_is_asked_again(
    wards: Any, caplog: pytest.LogCaptureFixture
) -> None:
    outage = [True]

    class Mark(Heard):
        def judge(self, requests: Sequence[Any]) -> list[HandshakeError | None]:
            if len(requests) == 50:
                logger.warning("a round")
            return super().judge(requests)

    def guard(request: Any) -> bool:
        if outage:
            raise ConnectionError("no route to the database")
        return False

    mark = Mark()
    made = wards(50, guard, mark)
    until(lambda: [record.getMessage() for record in caplog.records].count("a round") >= 4, "four rounds")
    assert not any(ward.revoked for ward in made)
    messages = [record.getMessage() for record in caplog.records]
    messages = messages[messages.index("a round") :]
    for message, after in itertools.pairwise(messages):
        assert (message == "a round") is (after != "a round")
    assert any("could not be asked; the WebSockets stay open" in message for message in messages)
    outage.clear()
    until(lambda: all(ward.revoked for ward in made), "the guard to be asked again")


@pytest.mark.parametrize("error", [RuntimeError("broken"), gevent.Timeout(1)], ids=["error", "timeout"])
def test_request_about_which_a_guard_fails_does_not_protect_the_others(wards: Any, error: BaseException) -> None:
    def guard(request: Any) -> bool:
        if request.path == "/broken/":
            raise error
        return False

    paths = ["/first/", "/broken/", "/last/"]
    first, failing, last = wards(3, guard, requests=[RequestFactory().get(path) for path in paths])
    until(lambda: first.revoked and last.revoked, "the others to be closed")
    assert not failing.revoked


@pytest.mark.parametrize("kind", [iter, list], ids=["one by one", "all at once"])
def test_websocket_that_cannot_be_judged_protects_no_other_of_its_batch(wards: Any, kind: Any) -> None:
    class Batch(Guard):
        def judge(self, requests: Sequence[Any]) -> Any:
            return kind(self.verdict(request) for request in requests)

        def verdict(self, request: Any) -> HandshakeError:
            if request.path == "/broken/":
                raise RuntimeError("broken")
            return Forbidden("gone")

    paths = ["/first/", "/broken/", "/last/"]
    first, failing, last = wards(3, Batch(), requests=[RequestFactory().get(path) for path in paths])
    until(lambda: first.revoked and last.revoked, "the others to be closed")
    assert not failing.revoked


def test_websocket_that_cannot_be_closed_protects_no_other_of_its_batch(wards: Any) -> None:
    class Batch(Guard):
        def judge(self, requests: Sequence[Any]) -> list[HandshakeError | None]:
            return [None if lets else Forbidden("gone") for _ in requests]

    def fail(error: HandshakeError) -> None:
        raise RuntimeError("of a project's own WebSocket")

    lets = [True]
    first, failing, last = wards(3, Batch())
    failing.revoke = fail
    lets.clear()
    until(lambda: first.revoked and last.revoked, "the others to be closed")


def test_guard_that_fails_does_not_silence_the_others(wards: Any) -> None:
    class Broken(Guard):
        def judge(self, requests: Sequence[Any]) -> list[HandshakeError | None]:
            raise RuntimeError("broken")

    (ward,) = wards(1, Broken(), denied)
    until(lambda: ward.revoked, "the other guard")
    assert set(ward.revoked) == {"permission denied"}


def test_guard_that_has_not_judged_all_of_them_is_an_error(wards: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Short(Guard):
        def judge(self, requests: Sequence[Any]) -> list[HandshakeError | None]:
            return [Forbidden("the first")] if len(requests) > 1 else [None]

    wards(2, Short())
    until(lambda: "could not be asked" in caplog.text, "the log")


def test_guard_need_not_be_hashable(wards: Any) -> None:
    @dataclass
    class MayStay:
        lets: bool = True

        def __call__(self, request: Any) -> bool:
            return self.lets

    guard = MayStay()
    (ward,) = wards(1, guard)
    guard.lets = False
    until(lambda: ward.revoked, "the guard to be asked")


def test_rounds_end_with_the_last_websocket_and_begin_again_with_the_next(home: Home, wards: Any) -> None:
    for _ in range(3):
        heard = Heard()
        made = wards(2, heard, interval=NEVER_SECONDS) + wards(2, heard)
        heard.until_asked_again()
        assert making_rounds() == 1
        leave(home, made)
        until(lambda: not making_rounds(), "the rounds to end")
        asked = heard.rounds
    assert heard.rounds == asked


def test_rounds_do_not_sit_out_their_interval_when_nobody_is_left(home: Home, wards: Any) -> None:
    heard = Heard()
    short = wards(1, heard, interval=SOON_SECONDS)
    long = wards(1, heard, interval=NEVER_SECONDS)
    heard.until_asked_again()
    leave(home, short)
    until(lambda: rounds_of(home)._due.keys() == {NEVER_SECONDS}, "the rounds to wait for ever")
    leave(home, long)
    until(lambda: not making_rounds(), "the rounds to end")


def test_websocket_that_has_ended_is_asked_about_no_more(home: Home, wards: Any) -> None:
    seen: list[str] = []
    heard = Heard()

    def guard(request: Any) -> bool:
        seen.append(request.path)
        return True

    gone, _stays = wards(2, guard, heard, requests=[RequestFactory().get("/gone/"), RequestFactory().get("/stays/")])
    heard.until_asked_again()
    leave(home, [gone])
    heard.until_asked_again()
    seen.clear()
    heard.until_asked_again()
    assert set(seen) == {"/stays/"}


def test_rounds_hold_no_websocket_while_they_wait_for_their_next_turn(home: Home, wards: Any) -> None:
    heard = Heard()
    wards(1, heard, interval=NEVER_SECONDS)
    ward = Ward(home, RequestFactory().get("/"))
    home.do(watch, ward, (heard,), NEVER_SECONDS)
    rounds = rounds_of(home)
    rounds._due[NEVER_SECONDS] = 0.0  # the hour is over
    home.do(lambda: rounds._changed.set())
    until(lambda: heard.rounds, "the guard to be asked")
    leave(home, [ward])
    alive = weakref.ref(ward)
    del ward
    until(lambda: [gc.collect(), alive() is None][1], "the WebSocket to go")
    assert heard.rounds == 1


class Kept:
    """A value of a context."""


def test_rounds_do_not_run_in_the_context_in_which_they_began(home: Home, wards: Any) -> None:
    variable: contextvars.ContextVar[Kept] = contextvars.ContextVar("variable")
    ward, heard = Ward(home, RequestFactory().get("/")), Heard()
    spawn = type(home.reactor).spawn

    def inherit(reactor: Any, function: Callable[[], None], name: str) -> None:  # as threads of Python 3.14 may
        spawn(reactor, functools.partial(contextvars.copy_context().run, function), name)

    def begin() -> weakref.ref[Kept]:
        variable.set(kept := Kept())
        watch(ward, (heard,), SOON_SECONDS)
        return weakref.ref(kept)

    with mock.patch.object(type(home.reactor), "spawn", inherit):
        kept = home.do(begin)
    try:
        heard.until_asked_again()
        until(lambda: [gc.collect(), kept() is None][1], "the context to go")
    finally:
        leave(home, [ward])


@pytest.fixture
def blocking(home: Home) -> Iterator[Callable[[], Any]]:
    """Makes guards that block as a lock of the database does, until the test is over; each counts its calls."""
    over = threading.Event()

    def make() -> Any:
        def guard(request: Any) -> bool:
            guard.calls += 1  # type: ignore[attr-defined]
            while not over.is_set():
                home.pause(0.005)
            return True

        guard.calls = 0  # type: ignore[attr-defined]
        return guard

    with mock.patch.object(schedule, "_PATIENCE_SECONDS", 0.05):
        yield make
        over.set()
        until(lambda: not askers(), "the guards to answer")


def askers() -> int:
    return making_rounds("dwebsocket guard")


@pytest.mark.parametrize("interval", [SOON_SECONDS, 0.2], ids=["the same interval", "another one"])
def test_guard_that_blocks_delays_no_other_guard(home: Home, blocking: Any, wards: Any, interval: float) -> None:
    stuck, lets, heard = blocking(), [True], Heard()
    (waits,) = wards(1, stuck)
    until(lambda: stuck.calls, "the guard to block")
    (other,) = wards(1, lambda request: lets[0], heard, interval=interval)
    heard.until_asked_again()
    lets[0] = False
    until(lambda: other.revoked, "the other guard to be asked")
    assert stuck.calls == 1
    assert not waits.revoked


def test_guards_that_block_hold_a_bounded_number_of_threads(home: Home, blocking: Any, wards: Any) -> None:
    many = [blocking() for _ in range(5)]
    heard = Heard()
    with mock.patch.object(schedule, "MOST_ASKERS", 3):
        wards(1, *many[:2], heard)
        heard.until_asked_again()
        wards(1, *many)
        until(lambda: sum(guard.calls for guard in many) == 3, "three to be asked")
        heard_so_far = heard.rounds
        home.do(home.pause, 0.2)
        assert askers() == 3
        assert sum(guard.calls for guard in many) == 3
        assert heard.rounds <= heard_so_far + 1


def test_log_says_once_that_too_many_guards_block_for_any_to_be_asked(
    home: Home, blocking: Any, wards: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with mock.patch.object(schedule, "MOST_ASKERS", 2):
        wards(1, blocking())
        home.do(home.pause, 0.2)
        assert not caplog.records  # the others are asked all the same
        wards(1, blocking())
        until(lambda: caplog.records, "the log")
        home.do(home.pause, 0.2)
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert "2 guards do not answer" in record.getMessage()


def test_guard_that_blocked_is_asked_again_when_it_has_answered(home: Home, wards: Any) -> None:
    blocks, calls = [True], []

    def guard(request: Any) -> bool:
        calls.append(request)
        while blocks:
            home.pause(0.005)
        return len(calls) < 3

    with mock.patch.object(schedule, "_PATIENCE_SECONDS", 0.05):
        (ward,) = wards(1, guard)
        until(lambda: calls, "the guard to block")
        blocks.clear()
        until(lambda: ward.revoked, "the guard to be asked again")


def test_settling_waits_for_a_guard_that_is_being_asked(home: Home, blocking: Any, wards: Any) -> None:
    stuck = blocking()
    made = wards(1, stuck)
    until(lambda: stuck.calls, "the guard to block")
    leave(home, made)
    began = time.monotonic()
    guards.settle(0.05)
    assert time.monotonic() - began >= 0.05


def test_guards_are_asked_where_no_thread_can_be_started_for_them(home: Home, wards: Any) -> None:
    heard, spawn = Heard(), type(home.reactor).spawn

    def fail(reactor: Any, function: Callable[[], None], name: str) -> None:
        if name == "dwebsocket guard":
            raise RuntimeError("can't start new thread")
        spawn(reactor, function, name)

    with mock.patch.object(type(home.reactor), "spawn", fail):
        wards(1, heard)
        heard.until_asked_again()


def test_interval_is_not_disturbed_by_another_one(home: Home, wards: Any) -> None:
    often, seldom = Heard(), Heard()
    wards(1, seldom, interval=NEVER_SECONDS)
    short = wards(1, often)
    often.until_asked_again()
    often.until_asked_again()
    assert not seldom.rounds
    leave(home, short)
    again = Heard()
    wards(1, again)
    again.until_asked_again()
    assert not seldom.rounds


def test_no_database_connection_stays_open_between_the_rounds(home: Home, wards: Any, database_file: Path) -> None:
    def held() -> int:
        links = []
        for descriptor in os.listdir("/proc/self/fd"):
            try:
                links.append(os.readlink(f"/proc/self/fd/{descriptor}"))
            except OSError:  # closed meanwhile
                continue
        return links.count(str(database_file))

    heard = Heard()
    with override_settings(SESSION_ENGINE=DB):
        requests = requests_of([user_named("ann")], 2)
        connection.close()
        wards(2, session_alive, heard, requests=requests, interval=0.2)
        for _ in range(2):
            heard.until_asked_again()
            until(lambda: not held(), "the connection to be closed")


@pytest.fixture
def _hasty_threads() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_hasty_threads")
def test_websockets_that_are_opened_at_the_same_time_share_one_thread() -> None:
    for _ in range(20):
        home, heard = Threads(), Heard()
        reactor = ThreadReactor()
        with mock.patch.object(Threads, "reactor", reactor):
            made = [Ward(home, RequestFactory().get("/")) for _ in range(8)]
            together = threading.Barrier(len(made))

            def start(ward: Ward, together: Any = together, heard: Any = heard) -> None:
                together.wait()
                watch(ward, (heard,), SOON_SECONDS)

            for future in [home.start(start, ward) for ward in made]:
                future.result(10)
            heard.until_asked_again()
            assert making_rounds() == 1
            leave(home, made)
            until(lambda: not making_rounds(), "the rounds to end")


def test_reactor_is_not_held_by_rounds_that_have_ended() -> None:
    home, heard = Threads(), Heard()
    reactor = ThreadReactor()
    alive = weakref.ref(reactor)
    with mock.patch.object(Threads, "reactor", reactor):
        made = [Ward(home, RequestFactory().get("/"))]
        home.do(watch, made[0], (heard,), SOON_SECONDS)
        heard.until_asked_again()
        leave(home, made)
    del reactor
    until(lambda: [gc.collect(), alive() is None][1], "the reactor to go")


def test_thread_that_cannot_be_started_is_an_error_and_is_tried_again(wards: Any, home: Home) -> None:
    heard = Heard()
    no_thread = RuntimeError("can't start new thread")
    with mock.patch.object(type(home.reactor), "spawn", side_effect=no_thread), pytest.raises(RuntimeError):
        wards(1, heard)
    assert not heard.rounds
    wards(1, heard)
    heard.until_asked_again()


@pytest.mark.parametrize("home", [Hub], indirect=True)
@pytest.mark.parametrize("kind", ["each", "all"])
def test_hub_has_its_turn_while_many_websockets_are_asked_about(home: Hub, wards: Any, kind: str) -> None:
    events: list[str] = []

    def compute(request: Any = None) -> bool:
        until_then = time.perf_counter() + 0.001
        while time.perf_counter() < until_then:
            pass
        events.append("asked")
        return True

    class All(Guard):
        def judge(self, requests: Sequence[Any]) -> Iterator[HandshakeError | None]:
            for _ in requests:
                compute()
                yield None

    def tick() -> None:
        while not done:
            events.append("tick")
            gevent.sleep(0.0005)

    done: list[bool] = []
    requests = [RequestFactory().get("/") for _ in range(1000)]
    ticking = home.start(tick)
    wards(1000, compute if kind == "each" else All(), requests=requests, interval=0.5)
    until(lambda: events.count("asked") >= 1000, "a whole round")
    done.append(True)
    ticking.result(10)
    longest = max(len(run) for run in "".join("a" if event == "asked" else " " for event in events).split())
    assert longest <= (20 if kind == "each" else 200)


FORK = """
import os, sys, time
from dataclasses import dataclass
if sys.argv[1] == "gevent":
    from gevent import monkey
    monkey.patch_all()
import django
from django.conf import settings
settings.configure()
django.setup()
from dwebsocket import guards
if sys.argv[1] == "gevent":
    from dwebsocket.reactors import gevent as reactors
else:
    from dwebsocket.reactors import thread as reactors
from django.test import RequestFactory

asked = []

def guard(request):
    asked.append(request.path)
    return True

class Ward:
    def __init__(self, path):
        self.request, self.reactor = RequestFactory().get(path), reactors.current()
    def around(self, function):
        return function

def until(condition):
    while not condition():
        time.sleep(0.005)

parents = Ward("/parent/")
guards.watch(parents, (guard,), 0.01)
until(lambda: len(asked) >= 2)
child = os.fork()
asked.clear()
if child == 0:
    own = Ward("/child/")
    guards.watch(own, (guard,), 0.01)
    until(lambda: asked.count("/child/") >= 5)
    assert set(asked) == {"/child/"}, asked
    guards.watch_no_longer(parents)
    os._exit(7)
_, status = os.waitpid(child, 0)
until(lambda: len(asked) >= 2)
print(os.waitstatus_to_exitcode(status), *set(asked))
"""


@pytest.mark.parametrize("kind", ["thread", "gevent"])
def test_child_of_a_fork_asks_about_its_own_websockets_only(kind: str) -> None:
    assert run_program(FORK, kind).split() == ["7", "/parent/"]
