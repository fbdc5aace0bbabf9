"""The guards that the package brings: sessions, users, permissions, and what asking about them costs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
from django.conf import settings
from django.contrib.auth import logout
from django.contrib.auth.models import Group, Permission, User
from django.core.cache import caches
from django.db.backends.signals import connection_created
from django.test import override_settings

from dwebsocket import connections as live_connections
from dwebsocket import require_websocket
from dwebsocket.guards import builtin
from dwebsocket.guards.base import Guard
from dwebsocket.guards.builtin import has_perm, session_alive, user_is_active
from dwebsocket.protocol.exceptions import HandshakeError
from tests.guards.helpers import (
    SOON_SECONDS,
    Heard,
    assert_open,
    browser,
    each,
    guarded,
    key_of,
    requests_of,
    store,
    user_named,
)
from tests.helpers import DB
from tests.links import assert_ends, until
from tests.peer import Peer
from tests.sites import Site

ENGINES = ["db", "cached_db", "cache", "file", "signed_cookies"]


# The opening handshake


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
    assert_ends(peer, 4401, "the user is not logged in" if end == "deleted" else "the account is not active")
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


# The queries


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
