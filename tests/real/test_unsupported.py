"""Servers that give away no socket are refused with a sentence; a project's own adapter goes first."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from django.test import AsyncClient

from tests.helpers import HANDSHAKE, levels
from tests.real.servers import KINDS, UNSUPPORTED, Server, assert_quiet, running


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_server_without_a_socket_answers_501_and_logs_the_servers_that_work(tmp_path: Path, name: str) -> None:
    server = Server(UNSUPPORTED[name], tmp_path)
    try:
        server.wait_until_up()
        with server.peer() as peer:
            response = peer.handshake("/echo/")
        assert response.status == 501
        assert name in response.body.decode().lower()
        log = server.expect_log(r"ERROR dwebsocket: Not Implemented: /echo/ ")
        for named in (name, "gunicorn", "pywsgi", "uWSGI", "Werkzeug", "cheroot", "runserver"):
            assert named.lower() in log.lower()
        assert server.get("/echo/").body == b"echo over HTTP"
        assert_quiet(server.news())
    finally:
        server.stop()


@pytest.mark.parametrize("name", ["gunicorn-gthread", "gunicorn-gevent"])
def test_gunicorn_behind_a_middleware_that_replaces_its_input_answers_501_and_names_it(
    tmp_path: Path, name: str
) -> None:
    kind = KINDS[name]
    server = Server(replace(kind, arguments=("tests.project.wrapped_wsgi", *kind.arguments[1:])), tmp_path)
    try:
        server.wait_until_up()
        for _ in range(2):
            with server.peer() as peer:
                response = peer.handshake("/echo/")
            assert response.status == 501
            assert "replaced gunicorn's wsgi.input by a tests.project.wrapped_wsgi.Input" in response.body.decode()
        log = server.expect_log(r"(?:ERROR dwebsocket: Not Implemented: /echo/ .*\n(?:.*access.*\n)*)+")
        assert "tests.project.wrapped_wsgi.Input" in log
        assert server.get("/echo/").body == b"echo over HTTP"
        assert_quiet(server.news())
    finally:
        server.stop()


def test_asgi_handler_answers_501_and_is_named(caplog: pytest.LogCaptureFixture) -> None:
    headers = {name.removeprefix("HTTP_").replace("_", "-"): value for name, value in HANDSHAKE.items()}
    del headers["HOST"], headers["SERVER-PROTOCOL"]  # which the test client brings, and which ASGI does not have
    response = asyncio.run(AsyncClient().get("/echo/", headers=headers))
    assert response.status_code == 501
    assert "the ASGI server" in response.content.decode()
    assert ("dwebsocket", "ERROR") in levels(caplog)


def test_adapter_of_the_project_is_asked_first(tmp_path: Path) -> None:
    setting = "tests.project.own_server.OwnServer"
    with running("unknown", tmp_path, WEBSOCKET_SERVER=setting) as server, server.connect() as peer:
        assert peer.recv_message() == "from a server of my own"
        assert peer.close().code == 1000
