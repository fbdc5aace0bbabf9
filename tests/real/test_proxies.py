"""What a view and its peer get through HAProxy, Caddy and Apache, in the configurations that docs/deployment.md has."""

from __future__ import annotations

import ast
import os
import re
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import trustme
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.helpers import exchange
from tests.peer import PING, PONG, Close, Peer
from tests.project.views import MIB
from tests.real.helpers import assert_ends, leave_when_told, started
from tests.real.nginx import PAGE
from tests.real.proxies import HOST, KINDS, Proxy, proxying
from tests.real.servers import KINDS as SERVER_KINDS
from tests.real.servers import PATIENCE_SECONDS, ROOT, Server, assert_quiet, running

pytestmark = pytest.mark.timeout(60)

COMPATIBILITY = ROOT / "docs/compatibility.md"
SERVERS = [("gunicorn-gevent", "detached"), ("gunicorn-gthread", "detached")]
on_each = pytest.mark.parametrize("running_server", SERVERS, ids="-".join, indirect=True)


def needed(name: str) -> str:
    if KINDS[name].executable is None:
        pytest.skip(f"needs {KINDS[name].program}")
    return name


@pytest.fixture(scope="module", params=KINDS)
def name(request: pytest.FixtureRequest) -> str:
    return needed(request.param)


@pytest.fixture(scope="module")
def proxy(name: str, running_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Each proxy as docs/deployment.md configures it."""
    with proxying(name, tmp_path_factory.mktemp(name), running_server) as proxy:
        yield proxy


# Messages


@on_each
@pytest.mark.parametrize(
    "message",
    ["Grüße, 世界 🎉", b"\x00\xff\x80", "ä" * (MIB // 2), os.urandom(MIB)],
    ids=["text", "binary", "1 MiB text", "1 MiB binary"],
)
def test_message_comes_back_as_it_was_sent(server: Server, proxy: Proxy, message: str | bytes) -> None:
    with proxy.connect() as peer:
        assert exchange(peer, message) == message
        assert peer.close().code == 1000
        assert peer.read_to_eof() == b""


@on_each
def test_one_url_answers_plain_http_too_and_then_becomes_a_websocket(server: Server, proxy: Proxy) -> None:
    with proxy.peer() as peer:
        assert peer.http("/echo/").body == b"echo over HTTP"
        assert exchange(peer.connect("/echo/"), "hello") == "hello"
        assert peer.close().code == 1000


@on_each
def test_ping_of_the_client_is_answered(server: Server, proxy: Proxy) -> None:
    with proxy.connect() as peer:
        peer.send_frame(PING, b"are you there?")
        pong = peer.recv_frame()
        assert (pong.opcode, pong.payload) == (PONG, b"are you there?")


# Headers


@on_each
def test_headers_of_the_handshake_arrive_at_both_ends(server: Server, proxy: Proxy) -> None:
    with proxy.peer() as peer:
        cookie = peer.http("/session/?colour=blue").headers["set-cookie"].partition(";")[0]
    with proxy.connect("/session/", {"Cookie": cookie}) as peer:
        assert peer.recv_message() == "blue"
    with proxy.peer() as peer:
        assert peer.handshake("/accept-only/").headers["x-greeting"] == "hello"
    with proxy.peer() as peer:
        response = peer.handshake("/subprotocol/", {"Sec-WebSocket-Protocol": "chat.v1, chat.v2"})
        assert response.headers["sec-websocket-protocol"] == "chat.v2"


@on_each
def test_own_page_may_connect_and_another_may_not(server: Server, proxy: Proxy) -> None:
    with proxy.connect(headers={"Origin": f"http://{proxy.authority}"}) as peer:
        assert exchange(peer, "hello") == "hello"
    with proxy.peer() as peer:
        assert peer.handshake("/echo/", {"Origin": "http://evil.example"}).status == 403
    server.expect_log(r"WARNING django\.security\.WebSocketOrigin: .*evil\.example")


@on_each
def test_refusal_arrives_as_http_after_which_the_connection_goes_on(server: Server, proxy: Proxy) -> None:
    with proxy.peer() as peer:
        response = peer.handshake("/refuse/custom/")
        assert (response.status, response.headers["x-seats"], response.body) == (402, "0", b"no seat left")
        assert peer.http("/plain/").body == b"plain"
    server.expect_log("WARNING django.request: Payment Required: /refuse/custom/")


# Ends


@on_each
@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
def test_close_code_of_the_client_arrives(server: Server, proxy: Proxy, note: str, code: int) -> None:
    with proxy.connect(f"/victim/?note={note}") as peer:
        assert peer.close(code, "bye").code == code
        assert peer.read_to_eof() == b""
    assert server.note(note) == f"finally {code}"


@on_each
@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, 3000, 4999])
def test_close_code_of_the_view_arrives(server: Server, proxy: Proxy, note: str, code: int) -> None:
    with proxy.connect(f"/close/?code={code}&reason=later&note={note}") as peer:
        peer.send_message("go")
        assert_ends(peer, code, "later")
    assert server.note(note) == f"True {code}"


@on_each
@pytest.mark.parametrize("leave", [Peer.reset, Peer.abandon], ids=["reset", "abandon"])
def test_client_that_vanishes_ends_the_view(server: Server, proxy: Proxy, note: str, leave) -> None:
    leave(proxy.connect(f"/watch-closed/?note={note}"))
    assert server.note(note) == "True 1006"


@on_each
def test_client_that_vanishes_ends_a_view_that_sends(server: Server, proxy: Proxy, note: str) -> None:
    peer = proxy.connect(f"/push-for-ever/?note={note}")
    assert peer.recv_message() == "tick"
    peer.abandon()
    assert server.note(note) == "finally"


@pytest.mark.parametrize("server_name", ["gunicorn-gevent", "gunicorn-gthread"])
def test_end_of_the_server_reaches_the_client_with_1012(tmp_path: Path, name: str, server_name: str) -> None:
    with (
        started(SERVER_KINDS[server_name], tmp_path) as server,
        proxying(name, tmp_path, server) as proxy,
        ThreadPoolExecutor() as pool,
    ):
        leaving = [pool.submit(leave_when_told, proxy.connect()) for _ in range(5)]
        assert_quiet(server.stop())
        assert {left.result() for left in leaving} == {Close(1012)}


# Silence


#: What makes a proxy impatient, in place of lines of its documented block. Caddy has no timeout for a WebSocket.
IMPATIENT = {
    "haproxy": {f"timeout {side} 60s": f"timeout {side} 1s" for side in ("client", "server")},
    "apache": {"ProxyPreserveHost On": "ProxyPreserveHost On\n    Timeout 1"},
}


@on_each
def test_pings_keep_a_silent_socket_open_for_longer_than_the_timeout(name: str, server: Server, tmp_path: Path) -> None:
    with (
        proxying(name, tmp_path, server, IMPATIENT.get(name)) as proxy,
        proxy.connect("/bystander/") as peer,  # whose view pings five times a second
    ):
        end = time.monotonic() + 3.5
        while time.monotonic() < end:
            ping = peer.recv_frame()
            assert ping.opcode == PING
            peer.send_frame(PONG, ping.payload)
        assert exchange(peer, "still here") == "still here"
        assert peer.close().code == 1000


@pytest.mark.parametrize("name", IMPATIENT)
@pytest.mark.parametrize("running_server", SERVERS[:1], ids="-".join, indirect=True)
def test_silent_socket_without_pings_is_cut_by_the_timeout(
    name: str, server: Server, tmp_path: Path, note: str
) -> None:
    with (
        proxying(needed(name), tmp_path, server, IMPATIENT[name]) as proxy,
        proxy.connect(f"/watch-closed/?note={note}") as peer,  # pinged every 20 seconds
    ):
        assert peer.read_to_eof() == b""
        assert server.note(note) == "True 1006"


# Where a line of it is missing


MISTAKES = {
    "upgrade=websocket": ("apache", 426, "a proxy in between has removed the Upgrade header"),
    "ProxyPreserveHost On": ("apache", 403, "WEBSOCKET_ALLOWED_ORIGINS"),
}


@on_each
@pytest.mark.parametrize("line", MISTAKES)
def test_line_that_is_missing_is_told_by_the_refusal(server: Server, tmp_path: Path, line: str) -> None:
    name, status, sentence = MISTAKES[line]
    with proxying(needed(name), tmp_path, server, {line: ""}) as proxy, proxy.peer() as peer:
        response = peer.handshake("/echo-once/", {"Origin": f"http://{proxy.authority}"})
        assert response.status == status
        assert sentence in response.body.decode()
    server.expect_log(r"WARNING django\.(?:request|security\.WebSocketOrigin): .*/echo-once/")


# TLS ends at the proxy: the origin of the pages is https


@pytest.fixture(scope="module")
def told_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose Django is told of the proxy, as docs/deployment.md says."""
    (value,) = re.findall(r"`SECURE_PROXY_SSL_HEADER = (.+?)`", PAGE)
    settings = {"SECURE_PROXY_SSL_HEADER": ast.literal_eval(value)}
    with running("gunicorn-gevent", tmp_path_factory.mktemp("told"), TEST_SETTINGS=settings) as server:
        yield server


def test_own_page_over_https_may_connect_and_another_may_not(name: str, told_server: Server, tmp_path: Path) -> None:
    authority = trustme.CA()
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    certificate = authority.issue_cert(HOST).private_key_and_cert_chain_pem.bytes()
    with proxying(name, tmp_path, told_server, certificate=certificate) as proxy:
        open_websocket = partial(connect, f"wss://{proxy.authority}/echo/", ssl=trust, proxy=None)
        with open_websocket(origin=f"https://{proxy.authority}") as ws:
            for message in ("hello", os.urandom(MIB)):
                ws.send(message)
                assert ws.recv(PATIENCE_SECONDS) == message
        with pytest.raises(InvalidStatus) as refused:
            open_websocket(origin=f"http://{proxy.authority}")
        assert refused.value.response.status_code == 403
    told_server.expect_log(r"WARNING django\.security\.WebSocketOrigin: ")


def test_client_cannot_claim_that_it_came_over_tls(name: str, told_server: Server, tmp_path: Path) -> None:
    with proxying(name, tmp_path, told_server) as proxy, proxy.peer() as peer:
        headers = {"Origin": f"https://{proxy.authority}", "X-Forwarded-Proto": "https"}
        assert peer.handshake("/echo/", headers).status == 403
    told_server.expect_log(r"WARNING django\.security\.WebSocketOrigin: ")


def test_header_that_traefik_is_told_to_set_makes_its_handshake_one_of_https(told_server: Server) -> None:
    """Traefik is no package of Debian: what it sends is sent by hand, with the header of the documented middleware."""
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", COMPATIBILITY.read_text(), re.MULTILINE | re.DOTALL)
    ((header, value),) = re.findall(r"customRequestHeaders:\n +([\w-]+): (\w+)\n", block)
    came = {"Host": "testserver", "Origin": "https://testserver", "X-Forwarded-Proto": "wss"}
    with told_server.connect(headers={**came, header: value}) as peer:
        assert exchange(peer, "hello") == "hello"
