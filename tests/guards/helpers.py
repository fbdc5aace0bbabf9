"""What the tests of guards use: users, browsers that are logged in, guarded views, WebSockets that are asked about."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import gevent
import pytest
from django.conf import settings
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.backends.db import SessionStore
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.test import Client, RequestFactory

from dwebsocket import require_websocket
from dwebsocket.exceptions import Unauthorized
from dwebsocket.guards.base import Guard
from dwebsocket.guards.schedule import watch_no_longer
from dwebsocket.protocol.exceptions import HandshakeError
from tests.links import Home, until
from tests.peer import Peer
from tests.sites import Site

SOON_SECONDS, NEVER_SECONDS = 0.02, 3600.0


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


def unauthorized(request: Any) -> bool:
    raise Unauthorized("who are you?")


def denied(request: Any) -> bool:
    raise PermissionDenied("not for you")


def broken(request: Any) -> bool:
    raise RuntimeError("the guard is broken")


def yes(request: Any) -> bool:
    return True


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


def leave(home: Home, wards: list[Ward]) -> None:
    for ward in wards:
        home.do(watch_no_longer, ward)


def making_schedules(name: str = "dwebsocket guards") -> int:
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
