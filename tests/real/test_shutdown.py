"""A server that ends, or begins anew, leaves nobody without a word: 1012 to each peer, an end to each view."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers import exchange
from tests.peer import CONTINUATION, PING, PONG, TEXT, Close, Frame, Peer, frame
from tests.real.helpers import leave_when_told, started
from tests.real.servers import ADDRESS, KINDS, Kind, Server, assert_quiet, running

pytestmark = pytest.mark.timeout(60)

GUNICORNS = ["gunicorn-sync", "gunicorn-gthread", "gunicorn-gevent"]
MANY = 10


@contextmanager
def inhabited(server: Server, path: str = "/echo/") -> Iterator[list[Future[Close]]]:
    """As many peers as the server holds, each of whom talks, and leaves when it is told to."""
    peers = [server.connect(path) for _ in range(min(MANY, server.at_once))]
    with ThreadPoolExecutor(len(peers)) as pool:
        for peer in peers:
            assert exchange(peer, "hello") == "hello"
        yield [pool.submit(leave_when_told, peer) for peer in peers]


def codes(leaving: list[Future[Close]]) -> set[int]:
    return {left.result().code for left in leaving}


# The end


def attached(name: str) -> Kind:
    """The server as its views have to be attached to: gunicorn needs its hook then."""
    kind = KINDS[name]
    return replace(kind, arguments=(*kind.arguments, "--config=tests/project/gunicorn_attached.py"))


CASES = {
    # uWSGI's router ends before its workers, and everybody's connection with it.
    **{name: (kind, True) for name, kind in KINDS.items() if "detached" in kind.modes and name != "uwsgi-http"},
    **{f"{name}-attached": (attached(name), False) for name in GUNICORNS},
    **{name: (attached(name), True) for name in ("gunicorn-gthread-tls", "gunicorn-gevent-tls")},
    **{name: (KINDS[name], True) for name in ("pywsgi-tls", "cheroot-tls")},
}


@pytest.mark.parametrize(("kind", "detach"), CASES.values(), ids=CASES)
def test_server_that_is_told_to_end_closes_each_socket_and_ends_each_view(
    tmp_path: Path, note: str, kind: Kind, detach: bool
) -> None:
    with started(kind, tmp_path, WEBSOCKET_DETACH=detach, WEBSOCKET_SHUTDOWN_CODE=4012) as server:
        with inhabited(server, f"/echo/?note={note}") as leaving:
            if "uwsgi" in kind.arguments[0]:  # which calls nobody at the end of a worker that is busy
                server.until(
                    lambda: server.log().count(f"{note} => generated") == len(leaving), "the end of all requests"
                )
            log = server.stop()
            assert codes(leaving) == {4012}
        assert server.note(note).split("\n") == ["finally"] * len(leaving)
        assert_quiet(log)


@pytest.mark.parametrize("name", ["runserver", "pywsgi", *GUNICORNS])
def test_peer_that_does_not_answer_delays_the_end_by_little(tmp_path: Path, name: str) -> None:
    # gunicorn kills a worker after `graceful_timeout`, and says so.
    with started(KINDS[name], tmp_path, WEBSOCKET_CLOSE_TIMEOUT=600) as server, server.connect() as peer:
        assert exchange(peer, "hello") == "hello"
        assert_quiet(server.stop())
        assert peer.recv_message() == Close(1012)


@contextmanager
def flooding(server: Server, count: int) -> Iterator[None]:
    """So many peers that send frames which complete no message, as fast as they are read, until the end."""
    data = frame(CONTINUATION, b"x", fin=False) * 20_000  # of frames without content there is a limit

    def flood(peer: Peer) -> None:
        peer.send_frame(TEXT, fin=False)
        with suppress(OSError):  # the end of the server
            while not over.is_set():
                peer.send_raw(data)

    over = threading.Event()
    with ExitStack() as stack:
        peers = [stack.enter_context(server.connect("/echo/")) for _ in range(count)]
        pool = stack.enter_context(ThreadPoolExecutor(count))
        stack.callback(over.set)
        for peer in peers:
            pool.submit(flood, peer)
        yield


def test_flood_of_frames_that_complete_no_message_holds_up_neither_others_nor_the_end(
    tmp_path: Path, note: str
) -> None:
    with (
        started(KINDS["gunicorn-gthread"], tmp_path, WEBSOCKET_DRAIN_SECONDS=1) as server,
        server.connect() as bystander,
        server.connect(f"/sleepy/?note={note}") as busy,
    ):
        assert busy.recv_message() == "asleep"
        with flooding(server, 20):
            for number in range(5):  # answered by the background thread
                busy.send_frame(PING, b"%d" % number)
                assert busy.recv_frame(timeout=5) == Frame(PONG, b"%d" % number)
            assert exchange(bystander, "hello") == "hello"
            server.process.send_signal(server.kind.stop_signal)
            assert bystander.recv_message(timeout=5) == Close(1012)
            bystander.send_close(1012)
            assert busy.recv_message(timeout=5) == Close(1012)
            server.wake(note)
            server.stop()


# A new beginning


def served_by_another(server: Server) -> None:
    def answered() -> bool:
        try:
            return int(server.get("/pid/").body) != server.worker_pid
        except ConnectionError:  # the old worker had accepted it
            return False

    server.until(answered, "a new worker")
    with server.connect() as peer:
        assert exchange(peer, "hello") == "hello"
        assert peer.close().code == 1000


@pytest.mark.parametrize("name", GUNICORNS)
def test_worker_that_gunicorn_replaces_on_hup_closes_its_sockets(tmp_path: Path, name: str) -> None:
    with started(KINDS[name], tmp_path) as server, inhabited(server) as leaving:
        os.kill(server.process.pid, signal.SIGHUP)
        assert codes(leaving) == {1012}
        served_by_another(server)
        # gunicorn 23 tells the old worker every second, also when Python has taken its handlers away already.
        assert_quiet(re.sub(r".*\[ERROR\] Worker \(pid:\d+\) was sent SIGTERM!\n", "", server.stop()))


@pytest.mark.parametrize("name", GUNICORNS)
def test_worker_that_has_served_its_requests_closes_its_sockets(tmp_path: Path, name: str) -> None:
    kind = KINDS[name]
    kind = replace(kind, arguments=(*kind.arguments, f"--max-requests={MANY + 5}"))
    with started(kind, tmp_path) as server:
        with inhabited(server) as leaving:
            for _ in range(4):
                assert server.get("/plain/").body == b"plain"
            assert codes(leaving) == {1012}
            served_by_another(server)
        assert_quiet(server.stop().replace("[WARNING] Maximum request limit of", "", 1))


@pytest.mark.parametrize("name", GUNICORNS)
def test_worker_of_a_preloaded_application_closes_its_sockets(tmp_path: Path, name: str) -> None:
    kind = replace(KINDS[name], arguments=(*KINDS[name].arguments, "--preload"))
    with started(kind, tmp_path) as server, inhabited(server) as leaving:
        assert_quiet(server.stop())
        assert codes(leaving) == {1012}


def test_runserver_that_reloads_closes_its_sockets_and_comes_back(
    tmp_path: Path, note: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "watched.py"
    module.write_text("from dwebsocket.websocket import WebSocket\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    kind = KINDS["runserver"]
    kind = replace(kind, arguments=tuple(option for option in kind.arguments if option != "--noreload"))
    with started(kind, tmp_path, WEBSOCKET_CLASS="watched.WebSocket") as server:
        with inhabited(server, f"/echo/?note={note}") as leaving:
            server.take_news()
            # The reloader has to have seen the old time before it can notice the new one.
            server.until(lambda: os.utime(module) or all(left.done() for left in leaving), "the end of all")
            assert codes(leaving) == {1012}
        assert server.note(note).split("\n") == ["finally"] * len(leaving)
        server.port = int(server.until(lambda: ADDRESS.search(server.news()), "the new port").group(1))
        served_by_another(server)
        assert_quiet(server.log())


# Those who come meanwhile, and those who are too many


@pytest.mark.parametrize("name", ["runserver", "pywsgi", "gunicorn-gthread", "gunicorn-gevent"])
def test_handshake_while_all_have_to_leave_gets_503_and_plain_http_its_answer(tmp_path: Path, name: str) -> None:
    with running(name, tmp_path, WEBSOCKET_DRAIN_SECONDS=1) as server, server.connect() as staying:
        assert exchange(staying, "hello") == "hello"
        assert server.get("/shutdown/").body == b"ending"
        with server.peer() as peer:
            response = peer.handshake("/echo/")
            assert (response.status, response.headers["retry-after"]) == (503, "1")
        assert server.get("/plain/").body == b"plain"
        assert staying.recv_message() == Close(1012)
        staying.send_close()
        assert staying.read_to_eof() == b""


@pytest.mark.parametrize(("name", "detach"), [("pywsgi", True), ("gunicorn-gthread", True), ("gunicorn-gevent", False)])
def test_handshake_beyond_the_limit_gets_503_until_another_has_left(tmp_path: Path, name: str, detach: bool) -> None:
    settings = {"WEBSOCKET_MAX_CONNECTIONS": 3, "WEBSOCKET_DETACH": detach}
    with running(name, tmp_path, **settings) as server, ExitStack() as stack:
        peers = [stack.enter_context(server.connect()) for _ in range(3)]
        for _ in range(5):
            with server.peer() as peer:
                response = peer.handshake("/echo/")
                assert (response.status, response.headers["retry-after"]) == (503, "10")
                assert response.body
            server.expect_log("WARNING dwebsocket: Service Unavailable: /echo/")
        started = time.monotonic()
        assert server.get("/plain/").body == b"plain"
        assert time.monotonic() - started < 1
        assert peers[0].close().code == 1000
        assert peers[0].read_to_eof() == b""
        peers[0].abandon()

        def admitted() -> bool:
            with server.peer() as peer:
                return peer.handshake("/echo/").status == 101

        server.until(admitted, "a free place")
        server.take_news()
        assert exchange(peers[1], "still here") == "still here"


# Signals


def test_signal_without_a_handler_ends_the_process_when_all_have_left(tmp_path: Path) -> None:
    kind = replace(KINDS["werkzeug"], arguments=("werkzeug-sigterm",), stop_signal=signal.SIGTERM, measured=False)
    with started(kind, tmp_path) as server:
        with inhabited(server) as leaving:
            assert_quiet(server.stop())
            assert codes(leaving) == {1012}
        assert server.process.returncode == -signal.SIGTERM


def test_second_signal_ends_the_process_at_once(tmp_path: Path) -> None:
    kind = replace(KINDS["werkzeug"], arguments=("werkzeug-sigterm",), stop_signal=signal.SIGTERM, measured=False)
    with started(kind, tmp_path, WEBSOCKET_DRAIN_SECONDS=600) as server, server.connect("/sleepy/?note=x") as peer:
        assert peer.recv_message() == "asleep"
        server.process.send_signal(signal.SIGTERM)
        assert peer.recv_message() == Close(1012)
        server.stop()
        assert server.process.returncode == -signal.SIGTERM
