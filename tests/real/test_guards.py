"""In every process of a server: who logs out through one of them has to go in all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from django.contrib.auth import login, logout
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.urls import path

from dwebsocket import require_websocket
from dwebsocket.guards.builtin import session_alive, user_is_active
from tests.helpers import database_in
from tests.links import assert_ends
from tests.peer import Peer
from tests.project.urls import urlpatterns as of_the_project
from tests.real.servers import Server, assert_quiet, gunicorn

pytestmark = pytest.mark.timeout(60)

WORKERS = 2


# What the server serves: this module is its URLconf


def log_in_somebody(request: Any) -> HttpResponse:
    user, _ = User.objects.get_or_create(username=request.GET["name"])
    login(request, user)
    return HttpResponse(request.session.session_key)


def log_out(request: Any) -> HttpResponse:
    logout(request)
    return HttpResponse("logged out")


def deactivate(request: Any) -> HttpResponse:
    User.objects.filter(username=request.GET["name"]).update(is_active=False)
    return HttpResponse("deactivated")


@require_websocket(guard=[session_alive, user_is_active], guard_interval=0.2)
def guarded(request: Any) -> None:
    request.websocket.send(str(os.getpid()))
    for message in request.websocket:
        request.websocket.send(message)


urlpatterns = [
    path("log-in-somebody/", log_in_somebody),
    path("log-out/", log_out),
    path("deactivate/", deactivate),
    path("guarded/", guarded),
    *of_the_project,
]


# The tests


@pytest.fixture(scope="module", params=["gthread", "gevent"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp(f"guards-{request.param}")
    file = directory / "db.sqlite3"
    with database_in(file):
        pass
    others = {
        "ROOT_URLCONF": __name__,
        "DATABASES": {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(file)}},
        "SESSION_ENGINE": "django.contrib.sessions.backends.db",
    }
    server = Server(gunicorn(request.param, f"--workers={WORKERS}"), directory, TEST_SETTINGS=others)
    try:
        server.wait_until_up()
        yield server
    finally:
        server.stop()
    assert_quiet(server.news())


def log_in(server: Server, name: str) -> dict[str, str]:
    """The headers of the browser in which that user is logged in now."""
    response = server.get(f"/log-in-somebody/?name={name}")
    assert response.status == 200
    return {"Cookie": f"sessionid={response.body.decode()}"}


def connect_to_all(server: Server, stack: ExitStack, headers: dict[str, str]) -> list[Peer]:
    """A WebSocket in each of the processes."""
    peers: dict[str, Peer] = {}

    def connect() -> bool:
        peer = stack.enter_context(server.connect("/guarded/", headers))
        peers.setdefault(str(peer.recv_message()), peer)
        return len(peers) == WORKERS

    server.until(connect, "a WebSocket in each process")
    return list(peers.values())


def test_logout_through_one_process_closes_the_websockets_of_all(server: Server) -> None:
    with ExitStack() as stack:
        anns = log_in(server, "ann")
        peers = connect_to_all(server, stack, anns)
        others = connect_to_all(server, stack, log_in(server, "bob"))
        assert server.get("/log-out/", anns).status == 200
        for peer in peers:
            assert_ends(peer, 4401, "there is no live session")
        for other in others:
            other.send_message("still here")
            assert other.recv_message() == "still here"
        with server.peer() as late:
            assert late.handshake("/guarded/", anns).status == 401
    server.expect_log("WARNING django.request: Unauthorized: /guarded/")


def test_deactivation_through_one_process_closes_the_websockets_of_all(server: Server) -> None:
    with ExitStack() as stack:
        peers = connect_to_all(server, stack, log_in(server, "cat"))
        assert server.get("/deactivate/?name=cat").status == 200
        for peer in peers:
            assert_ends(peer, 4401, "the account is not active")
