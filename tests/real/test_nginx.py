"""What a view and its peer get through nginx, in the configuration that docs/deployment.md has and in similar ones."""

from __future__ import annotations

import ast
import os
import re
import signal
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import trustme
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.helpers import exchange
from tests.peer import BINARY, PING, PONG, Close, Peer, frame, head, text
from tests.project.views import MIB
from tests.real.helpers import assert_ends
from tests.real.nginx import DOCUMENTED, EXECUTABLE, PAGE, Nginx, nginx, substitute
from tests.real.servers import PATIENCE_SECONDS, Server, running

pytestmark = [pytest.mark.timeout(60), pytest.mark.skipif(EXECUTABLE is None, reason="needs nginx")]

DETACHED = [(name, "detached") for name in ("gunicorn-gevent", "gunicorn-gthread", "gunicorn-sync", "pywsgi")]


def behind_nginx(*servers: tuple[str, str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("running_server", servers, ids="-".join, indirect=True)


on_each = behind_nginx(*DETACHED, ("gunicorn-gevent", "attached"))
on_each_detached = behind_nginx(*DETACHED)


@pytest.fixture
def proxy(server: Server, tmp_path: Path) -> Iterator[Nginx]:
    """nginx as docs/deployment.md configures it."""
    with nginx(tmp_path, server) as proxy:
        yield proxy


# The configuration of docs/deployment.md


@on_each
@pytest.mark.parametrize(
    "message",
    ["Grüße, 世界 🎉", b"\x00\xff\x80", "ä" * (MIB // 2), os.urandom(MIB)],
    ids=["text", "binary", "1 MiB text", "1 MiB binary"],
)
def test_message_comes_back_as_it_was_sent(proxy: Nginx, message: str | bytes) -> None:
    with proxy.connect() as peer:
        assert exchange(peer, message) == message
        assert peer.close().code == 1000
        assert peer.read_to_eof() == b""


@on_each
@pytest.mark.parametrize("message", ["early", "x" * 300_000], ids=["short", "long"])
def test_message_in_the_segment_of_the_handshake_is_answered(proxy: Nginx, message: str) -> None:
    with proxy.connect(early=text(message)) as peer:
        assert peer.recv_message() == message
        assert peer.close().code == 1000


@on_each
def test_one_url_answers_plain_http_too_and_then_becomes_a_websocket(proxy: Nginx) -> None:
    with proxy.peer() as peer:
        assert peer.http("/echo/").body == b"echo over HTTP"
        assert exchange(peer.connect("/echo/"), "hello") == "hello"
        assert peer.close().code == 1000


@on_each
def test_close_by_the_client_is_answered_with_its_code_and_nothing_follows(
    server: Server, proxy: Nginx, note: str
) -> None:
    with proxy.connect(f"/echo/?note={note}") as peer:
        assert peer.close(4999, "bye").code == 4999
        assert peer.read_to_eof() == b""
    assert server.note(note) == "finally"


@on_each
def test_close_by_the_view_arrives_with_its_code_and_reason_and_nothing_follows(
    server: Server, proxy: Nginx, note: str
) -> None:
    with proxy.connect(f"/close/?code=4000&reason=later&note={note}") as peer:
        peer.send_message("go")
        assert_ends(peer, 4000, "later")
    assert server.note(note) == "True 4000"


@on_each
def test_close_by_the_view_arrives_while_the_client_still_sends(proxy: Nginx) -> None:
    with proxy.connect("/close/?code=4000") as peer:
        peer.send_raw(text("go") + 8 * frame(BINARY, bytes(MIB // 2)))
        assert_ends(peer, 4000)


@on_each
def test_violation_closes_with_its_code_after_what_came_before_it(proxy: Nginx) -> None:
    with proxy.connect() as peer:
        peer.send_raw(text("before") + head(BINARY, MIB + 1))
        assert peer.recv_message() == "before"
        close = peer.recv_message()
        assert isinstance(close, Close)
        assert close.code == 1009
        assert peer.read_to_eof() == b""


@on_each
def test_refusal_arrives_as_http_after_which_the_connection_goes_on(server: Server, proxy: Nginx) -> None:
    with proxy.peer() as peer:
        response = peer.handshake("/refuse/custom/")
        assert (response.status, response.headers["x-seats"], response.body) == (402, "0", b"no seat left")
        assert peer.http("/plain/").body == b"plain"
    server.expect_log("WARNING django.request: Payment Required: /refuse/custom/")


@on_each
@pytest.mark.parametrize("leave", [Peer.reset, Peer.abandon], ids=["reset", "abandon"])
def test_client_that_vanishes_ends_the_view(server: Server, proxy: Nginx, note: str, leave) -> None:
    peer = proxy.connect(f"/watch-closed/?note={note}")
    leave(peer)
    assert server.note(note) == "True 1006"


@on_each
def test_close_that_crosses_what_the_client_still_sends_arrives(proxy: Nginx) -> None:
    with proxy.connect() as peer:
        peer.send_message(bytes(4 * MIB))
        assert_ends(peer, 1009)


# Where a line of it is missing, the answer says which


MISTAKES = {
    "proxy_http_version 1.1;": ("proxy_http_version 1.0;", 400, "not HTTP/1.0 (behind nginx: proxy_http_version 1.1)"),
    "proxy_set_header Upgrade $http_upgrade;": ("", 426, "a proxy in between has removed the Upgrade header"),
    "proxy_set_header Connection $connection_upgrade;": ("", 400, "the Connection header does not say Upgrade"),
    "proxy_set_header Host $http_host;": ("", 403, "nginx: proxy_set_header Host $http_host"),
}


@on_each_detached
@pytest.mark.parametrize("line", MISTAKES)
def test_documented_line_that_is_missing_is_named_by_the_refusal(server: Server, tmp_path: Path, line: str) -> None:
    instead, status, sentence = MISTAKES[line]
    with nginx(tmp_path, server, site=substitute(DOCUMENTED, {line: instead})) as proxy, proxy.peer() as peer:
        response = peer.handshake("/echo-once/", {"Origin": f"http://{proxy.authority}"})
        assert response.status == status
        assert sentence in response.body.decode()
        assert peer.http("/plain/").body == b"plain"
    server.expect_log(r"WARNING django\.(?:request|security\.WebSocketOrigin): .*/echo-once/")


@on_each_detached
def test_proxy_that_knows_nothing_of_websockets_is_named_by_the_426(server: Server, tmp_path: Path) -> None:
    site = "server { # ...\n location / { proxy_pass http://127.0.0.1:8000; } }"
    with nginx(tmp_path, server, site=site) as proxy, proxy.peer() as peer:
        for path in ("/echo-once/", "/echo/"):  # the second serves plain HTTP too, but this is none
            response = peer.handshake(path)
            assert response.status == 426
            assert b"a proxy in between has removed the Upgrade header" in response.body
            server.expect_log(f"WARNING django.request: Upgrade Required: {path} .*proxy_set_header Upgrade")
        assert peer.http("/plain/").body == b"plain"


# TLS ends at nginx: the origin of the pages is https


@pytest.fixture(scope="module", params=["gunicorn-gevent", "pywsgi"])
def told_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose Django is told of the proxy, as docs/deployment.md says."""
    (value,) = re.findall(r"`SECURE_PROXY_SSL_HEADER = (.+?)`", PAGE)
    settings = {"SECURE_PROXY_SSL_HEADER": ast.literal_eval(value)}
    with running(request.param, tmp_path_factory.mktemp(request.param), TEST_SETTINGS=settings) as server:
        yield server


@contextmanager
def tls_site(directory: Path, server: Server) -> Iterator[tuple[str, Callable[..., ClientConnection]]]:
    """Where a site is served over TLS, and how a page of a given origin opens a WebSocket there."""
    authority = trustme.CA()
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    certificate = authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.bytes()
    with nginx(directory, server, certificate=certificate) as proxy:
        yield proxy.authority, partial(connect, f"wss://{proxy.authority}/echo/", ssl=trust, proxy=None)


def test_own_page_over_https_opens_a_websocket(told_server: Server, tmp_path: Path) -> None:
    with tls_site(tmp_path, told_server) as (host, open_websocket), open_websocket(origin=f"https://{host}") as ws:
        for message in ("hello", os.urandom(MIB)):
            ws.send(message)
            assert ws.recv(PATIENCE_SECONDS) == message


@pytest.mark.parametrize("foreign", ["http://{}", "https://{}0", "https://evil.example"])
def test_other_page_is_refused_over_tls(told_server: Server, tmp_path: Path, foreign: str) -> None:
    with tls_site(tmp_path, told_server) as (host, open_websocket), pytest.raises(InvalidStatus) as refused:
        open_websocket(origin=foreign.format(host))
    assert refused.value.response.status_code == 403
    expect_refusal(told_server, foreign.format(host), host)


def test_client_cannot_claim_that_it_came_over_tls(told_server: Server, tmp_path: Path) -> None:
    with nginx(tmp_path, told_server) as proxy, proxy.peer() as peer:
        origin = f"https://{proxy.authority}"
        assert peer.handshake("/echo/", {"Origin": origin, "X-Forwarded-Proto": "https"}).status == 403
    expect_refusal(told_server, origin, proxy.authority, "SECURE_PROXY_SSL_HEADER")


@behind_nginx(("pywsgi", "detached"))  # gunicorn by itself believes a proxy on its own host
def test_own_page_over_https_is_refused_where_django_is_not_told_of_the_proxy(server: Server, tmp_path: Path) -> None:
    with tls_site(tmp_path, server) as (host, open_websocket), pytest.raises(InvalidStatus) as refused:
        open_websocket(origin=f"https://{host}")
    assert refused.value.response.status_code == 403
    expect_refusal(server, f"https://{host}", host, "SECURE_PROXY_SSL_HEADER")


def expect_refusal(server: Server, origin: str, host: str, setting: str = "WEBSOCKET_ALLOWED_ORIGINS") -> None:
    log = server.expect_log(r"WARNING django\.security\.WebSocketOrigin: ")
    assert f"origin {origin!r} is not allowed for host {host!r}" in log
    assert setting in log


# Idle connections


@pytest.mark.parametrize(
    ("name", "timeout_seconds", "interval"),
    [("gunicorn-gevent", 5, 1), ("gunicorn-gthread", 2, 0.3), ("pywsgi", 2, 0.3)],
)
def test_pings_keep_an_idle_socket_open_for_longer_than_two_read_timeouts(
    tmp_path: Path, name: str, timeout_seconds: int, interval: float
) -> None:
    with (
        running(name, tmp_path, WEBSOCKET_PING_INTERVAL=interval) as server,
        nginx(tmp_path, server, more=f"proxy_read_timeout {timeout_seconds}s;") as proxy,
        proxy.connect() as peer,
    ):
        end = time.monotonic() + 2.1 * timeout_seconds
        while time.monotonic() < end:
            ping = peer.recv_frame()
            assert ping.opcode == PING
            peer.send_frame(PONG, ping.payload)
        assert exchange(peer, "still here") == "still here"
        assert peer.close().code == 1000


@pytest.mark.parametrize("name", ["gunicorn-gevent", "gunicorn-gthread", "pywsgi"])
def test_idle_socket_without_pings_is_cut_by_the_read_timeout(tmp_path: Path, name: str, note: str) -> None:
    with (
        running(name, tmp_path, WEBSOCKET_PING_INTERVAL=None) as server,
        nginx(tmp_path, server, more="proxy_read_timeout 1s;") as proxy,
        proxy.connect(f"/watch-closed/?note={note}") as peer,
    ):
        assert peer.read_to_eof() == b""
        assert server.note(note) == "True 1006"
        proxy.expect_log(r"upstream timed out .* while proxying upgraded connection")


# nginx ends, or begins anew


@on_each
@pytest.mark.parametrize(("path", "left"), [("/echo/", "finally"), ("/watch-closed/", "True 1006")])
def test_view_ends_when_nginx_stops(server: Server, proxy: Nginx, note: str, path: str, left: str) -> None:
    with proxy.connect(f"{path}?note={note}") as peer:
        proxy.stop()
        assert peer.read_to_eof() == b""
        assert server.note(note) == left


@on_each
def test_view_ends_when_the_worker_of_nginx_is_killed(server: Server, proxy: Nginx, note: str) -> None:
    with proxy.connect(f"/echo/?note={note}") as peer:
        os.kill(proxy.workers()[-1], signal.SIGKILL)
        assert server.note(note) == "finally"
        assert peer.read_to_eof() == b""
    proxy.expect_log(r"\[alert\] .*exited on signal 9")


@on_each_detached
def test_reload_of_nginx_leaves_a_socket_open(server: Server, proxy: Nginx) -> None:
    with proxy.connect() as old:
        proxy.reload()
        with proxy.connect() as new:
            for peer in (old, new):
                assert exchange(peer, "hello") == "hello"
                assert peer.close().code == 1000
                assert peer.read_to_eof() == b""


@on_each_detached
def test_view_ends_when_a_reload_of_nginx_waits_no_longer(server: Server, tmp_path: Path, note: str) -> None:
    with (
        nginx(tmp_path, server, main="worker_shutdown_timeout 100ms;") as proxy,
        proxy.connect(f"/echo/?note={note}") as peer,
    ):
        proxy.reload()
        assert server.note(note) == "finally"
        assert peer.read_to_eof() == b""
