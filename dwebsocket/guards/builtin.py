"""The guards that the package brings, and their queries."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from django.contrib import auth
from django.contrib.sessions.backends import cache, db, signed_cookies
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.utils import timezone
from django.utils.crypto import constant_time_compare

from ..exceptions import Forbidden, Unauthorized
from ..process.naming import know_user, session_key
from .base import DENIED, Guard, Verdict

logger = logging.getLogger("dwebsocket")


# The guards that the package brings


class _SessionAlive(Guard):
    def __repr__(self) -> str:
        return "session_alive"

    def judge(self, requests: Sequence[HttpRequest]) -> Iterator[Verdict]:
        _warn_of_cookies(requests)
        sessions = _sessions_now(requests)
        users = _users_now(data[auth.SESSION_KEY] for data in sessions.values() if auth.SESSION_KEY in data)
        for request in requests:
            data = sessions.get(session_key(request))
            if data is not None and _belongs(data, users):
                know_user(request, users.get(str(data.get(auth.SESSION_KEY))))
                yield None
            else:
                yield Unauthorized("there is no live session")


class _UserIsActive(Guard):
    def __repr__(self) -> str:
        return "user_is_active"

    def judge(self, requests: Sequence[HttpRequest]) -> Iterator[Verdict]:
        users = _users_now(pk for request in requests if (pk := _user_pk(request)) is not None)
        for request in requests:
            user = users.get(str(_user_pk(request)))
            if user is None:
                yield Unauthorized("the user is not logged in")
            else:
                yield None if user.is_active else Unauthorized("the account is not active")


class _HasPerm(Guard):
    def __init__(self, permission: str) -> None:
        self._permission = permission

    def __repr__(self) -> str:
        return f"has_perm({self._permission!r})"

    def judge(self, requests: Sequence[HttpRequest]) -> Iterator[Verdict]:
        users = _users_now(pk for request in requests if (pk := _user_pk(request)) is not None)
        may = {pk: user.has_perm(self._permission) for pk, user in users.items()}
        for request in requests:
            pk = str(_user_pk(request))
            if pk not in may:
                yield Unauthorized("the user is not logged in")
            else:
                yield None if may[pk] else Forbidden(DENIED)


#: Refuses (401) when the session of the request is gone: logged out, flushed, expired, or the password was changed.
session_alive: Guard = _SessionAlive()

#: Refuses (401) when the user is not logged in, was deleted, or was deactivated.
user_is_active: Guard = _UserIsActive()


def has_perm(permission: str) -> Guard:
    """Make a guard that refuses a user who is not logged in (401), or lacks the `permission` "app.codename" (403).

    ValueError when the string is no permission.
    """
    if not isinstance(permission, str):
        raise TypeError('has_perm() makes a guard of a permission: guard=has_perm("app.codename")')
    if "." not in permission:
        raise ValueError(f'a permission is "app.codename", not {permission!r}')
    return _HasPerm(permission)


@functools.cache
def _warn_once(engine: type) -> None:
    logger.warning(
        "session_alive does not see a logout with sessions of %s: they are kept in the cookie alone", engine.__module__
    )


def _warn_of_cookies(requests: Iterable[HttpRequest]) -> None:
    for request in requests:
        session = getattr(request, "session", None)
        if isinstance(session, signed_cookies.SessionStore):
            _warn_once(type(session))


def _sessions_now(requests: Iterable[HttpRequest]) -> dict[str | None, Mapping[str, Any]]:
    """Load the data of the requests' sessions, as it is now; sessions that are gone are left out."""
    found: dict[str | None, Mapping[str, Any]] = {}
    in_one_table: dict[str, db.SessionStore] = {}
    for request in requests:
        key = session_key(request)
        if key is None or key in found:
            continue
        store = request.session
        if isinstance(store, db.SessionStore) and type(store).load is db.SessionStore.load:
            in_one_table[key] = store
            continue
        fresh = type(store)(key)
        data = fresh.load()
        if fresh.session_key == key and not fresh.modified:  # each store says in its way that the session is gone
            found[key] = data
        elif isinstance(store, cache.SessionStore):  # load() takes an unreachable cache for an empty one; this raises
            store.exists(key)
    for store in list(in_one_table.values())[:1]:
        rows = store.model.objects.filter(session_key__in=list(in_one_table), expire_date__gt=timezone.now())
        found.update({row.session_key: store.decode(row.session_data) for row in rows})
    return found


def _user_pk(request: HttpRequest) -> object:
    user = getattr(request, "user", None)
    return user.pk if user is not None and user.is_authenticated else None


def _users_now(pks: Iterable[object]) -> dict[str, Any]:
    """Load the users as they are now, by primary key as a string, the form that a session holds."""
    model = auth.get_user_model()
    wanted = {}
    for pk in pks:
        with contextlib.suppress(ValidationError):  # the session is older than the users' present kind of key
            wanted[str(pk)] = model._meta.pk.to_python(pk)
    users = model._default_manager.in_bulk(set(wanted.values())) if wanted else {}
    return {key: users[pk] for key, pk in wanted.items() if pk in users}


def _belongs(data: Mapping[str, Any], users: Mapping[str, Any]) -> bool:
    """Whether a session is anonymous, or of a user whose password is still the one with which it began."""
    if auth.SESSION_KEY not in data:
        return True
    user = users.get(str(data[auth.SESSION_KEY]))
    if user is None or not hasattr(user, "get_session_auth_hash"):
        return user is not None
    begun_with = data.get(auth.HASH_SESSION_KEY, "")
    hashes = [user.get_session_auth_hash(), *user.get_session_auth_fallback_hash()]
    return any(constant_time_compare(begun_with, known) for known in hashes)
