"""The database is free while a view waits: a real PostgreSQL with few connections to give, behind real servers."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import connections

from dwebsocket import require_websocket
from dwebsocket.database import lease
from tests.helpers import exchange
from tests.links import until
from tests.peer import Close, Peer
from tests.project.views import BLOCKS
from tests.real.postgresql import MAX_CONNECTIONS, POSTGRES, Database, PostgreSQL
from tests.real.servers import Server, assert_quiet, running
from tests.sites import Site

pytestmark = [pytest.mark.timeout(60), pytest.mark.skipif(POSTGRES is None, reason="needs PostgreSQL")]

IDLE, AT_ONCE = 500, 8  # sockets in all, and of those that are being opened
MAY_STAY = 5  # connections to the database
POOL = {"OPTIONS": {"pool": {"min_size": 1, "max_size": 4}}}

on_both = pytest.mark.parametrize("name", ["pywsgi", "gunicorn-gthread"])


@contextmanager
def serving(
    name: str, directory: Path, database: Database, more: dict[str, Any] | None = None, **settings: Any
) -> Iterator[Server]:
    """The server `name` on `database`, for which DATABASES says `more`; sessions are kept there too."""
    others = {
        "DATABASES": {"default": database.settings(**(more or {}))},
        "SESSION_ENGINE": "django.contrib.sessions.backends.db",
    }
    with running(name, directory, TEST_SETTINGS=others, **settings) as server:
        yield server


@pytest.fixture(scope="module", params=["pywsgi", "gunicorn-gthread", "runserver"])
def shared(
    request: pytest.FixtureRequest, cluster: PostgreSQL, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Database]]:
    database = cluster.create_database()
    with serving(request.param, tmp_path_factory.mktemp(request.param), database) as server:
        yield server, database


@pytest.fixture
def site(shared: tuple[Server, Database]) -> Iterator[tuple[Server, Database]]:
    """A server and its database, with nothing set: each server once for all tests that want it so."""
    yield shared
    assert_quiet(shared[0].take_news())


def until_free(server: Server, database: Database) -> None:
    server.until(lambda: not database.connections(), "the end of all connections to the database")


@contextmanager
def released_others(
    server: Server, database: Database, left: list[int], path: str = "/groups/", groups: int = 0
) -> Iterator[None]:
    """Enter once another view that waits has given back what it had, and `left` alone is still there."""
    with server.connect(path) as other:
        assert other.recv_message() == f"hello: {groups} groups"
        server.until(lambda: database.connections() == left, f"{left} to be the only connections to the database")
        yield


def log_in(server: Server, name: str) -> dict[str, str]:
    """The headers of a new user."""
    response = server.get(f"/log-in/?name={name}")
    session = re.search(r"sessionid=\w+", response.headers["set-cookie"])
    assert session, response
    return {"Cookie": session.group()}


def count_of(database: Database, name: str) -> int:
    """How many groups of that name everybody sees."""
    [(number,)] = database.execute("SELECT count(*) FROM auth_group WHERE name = %s", name)
    return int(number)


# What lets go of the database


WAKE: dict[str, Callable[[Peer], object]] = {
    "wait": lambda peer: peer.send_message("go on"),
    "timed-wait": lambda peer: peer.send_message("go on"),
    "iteration": lambda peer: peer.send_message("go on"),
    "send": Peer.recv_message,
    "chunks": Peer.recv_message,
}


@pytest.mark.parametrize("by", BLOCKS)
def test_view_that_waits_for_its_peer_has_no_connection_and_asks_again_behind_it(
    site: tuple[Server, Database], by: str
) -> None:
    server, database = site
    with server.connect(f"/block/?by={by}") as peer:
        assert peer.recv_message() == "before: 0 groups"
        until_free(server, database)
        WAKE[by](peer)
        assert peer.recv_message() == "after: 0 groups"
        assert peer.close().code == 1000


def test_closing_handshake_is_waited_for_without_a_connection(site: tuple[Server, Database]) -> None:
    server, database = site
    with server.connect("/ask-and-end/") as peer:
        assert peer.recv_message() == "hello: 0 groups"
        assert peer.recv_message() == Close(1000)
        until_free(server, database)  # long before `close_timeout`
        peer.send_close()
        assert peer.read_to_eof() == b""


def test_view_that_asks_at_every_message_keeps_its_connection_for_a_moment(site: tuple[Server, Database]) -> None:
    server, database = site
    with server.connect("/processes/") as peer:
        server.until(lambda: exchange(peer, "?") == exchange(peer, "?"), "two answers by the same process")
        until_free(server, database)
        assert int(str(exchange(peer, "?"))) > 0
        assert peer.close().code == 1000


@pytest.mark.parametrize(
    ("name", "path"), [("pywsgi", "/groups/"), ("pywsgi", "/visitor/"), ("gunicorn-gevent", "/visitor/")]
)
def test_500_idle_sockets_that_asked_the_database_hold_next_to_nothing_of_it(
    tmp_path: Path, database: Database, name: str, path: str
) -> None:
    hello = {"/groups/": "", "/visitor/": "ada, "}[path]

    def open_one(headers: dict[str, str]) -> Peer:
        peer = server.peer()
        sockets.callback(peer.abandon)
        peer.connect(path, headers)
        assert peer.recv_message() == f"{hello}hello: 0 groups"
        assert exchange(peer, "first") == f"{hello}first: 0 groups"
        return peer

    assert IDLE > 10 * MAX_CONNECTIONS
    with serving(name, tmp_path, database) as server, ExitStack() as sockets, ThreadPoolExecutor(AT_ONCE) as threads:
        peers = list(threads.map(open_one, [log_in(server, "ada")] * IDLE))
        server.until(lambda: len(database.connections()) <= MAY_STAY, f"at most {MAY_STAY} connections")
        until_free(server, database)  # else one that comes back within a second of its last query keeps its connection
        for peer in peers[::50]:
            assert exchange(peer, "again") == f"{hello}again: 0 groups"
        assert len(database.connections()) <= MAY_STAY
        until_free(server, database)
        assert exchange(peers[-1], "late") == f"{hello}late: 0 groups"


@pytest.mark.parametrize("name", ["pywsgi", "gunicorn-gevent", "gunicorn-gthread"])
def test_50_idle_sockets_share_the_4_connections_of_a_pool(tmp_path: Path, database: Database, name: str) -> None:
    def open_one(_number: int) -> Peer:
        peer = server.peer()
        sockets.callback(peer.abandon)
        peer.connect("/visitor/", headers)
        assert peer.recv_message() == "ada, hello: 0 groups"
        assert exchange(peer, "first") == "ada, first: 0 groups"
        return peer

    with serving(name, tmp_path, database, POOL) as server, ExitStack() as sockets, ThreadPoolExecutor(10) as threads:
        headers = log_in(server, "ada")
        peers = list(threads.map(open_one, range(50)))
        for peer in peers:
            assert exchange(peer, "again") == "ada, again: 0 groups"
        assert 1 <= len(database.connections()) <= 4


def test_connection_of_an_attached_view_goes_back_when_it_accepts(
    tmp_path: Path, database: Database, note: str
) -> None:
    with serving("gunicorn-gthread", tmp_path, database) as server:
        headers = log_in(server, "ada")
        with server.connect(f"/visitor-asleep/?note={note}", headers) as peer:
            until_free(server, database)
            server.wake(note)
            assert peer.recv_message() == "ada, hello: 0 groups"
            until_free(server, database)
            assert exchange(peer, "next") == "next: 0 groups"
            assert peer.close().code == 1000


@on_both
def test_attached_views_that_wait_have_no_connection(tmp_path: Path, database: Database, name: str) -> None:
    with serving(name, tmp_path, database, WEBSOCKET_DETACH=False) as server:
        headers = log_in(server, "ada")
        with server.connect("/visitor/", headers) as peer:
            assert peer.recv_message() == "ada, hello: 0 groups"
            until_free(server, database)
            assert exchange(peer, "next") == "ada, next: 0 groups"
            assert peer.close().code == 1000


# What stays


@pytest.mark.parametrize(
    ("query", "wake"),
    [("ask&size=10", lambda peer: peer.send_message("next")), (f"size={1 << 20}", lambda peer: None)],
    ids=["waits between rows", "sends to a slow reader"],
)
@pytest.mark.parametrize("path", ["/rows/", "/rows-for-a-visitor/"])
def test_rows_come_out_of_the_database_for_as_long_as_that_takes(
    tmp_path: Path, database: Database, path: str, query: str, wake: Callable[[Peer], None]
) -> None:
    names = [f"group {number}" for number in range(40)]
    database.execute("INSERT INTO auth_group (name) SELECT unnest(%s::text[])", names)
    with (
        serving("pywsgi", tmp_path, database) as server,
        server.connect(f"{path}?{query}", log_in(server, "ada")) as peer,
    ):
        wake(peer)
        received = [str(peer.recv_message()).rstrip()]
        [cursor] = database.connections()
        with released_others(server, database, left=[cursor], groups=len(names)):
            pass
        for _ in names[1:]:
            wake(peer)
            received.append(str(peer.recv_message()).rstrip())
        assert received == names
        until_free(server, database)
        assert peer.close().code == 1000


@on_both
def test_cursor_that_a_view_holds_from_before_its_wait_works_behind_it(
    tmp_path: Path, database: Database, name: str
) -> None:
    with serving(name, tmp_path, database) as server, server.connect("/cursor-held/") as peer:
        [pid] = server.until(database.connections, "the connection of the cursor")
        with released_others(server, database, left=[pid]):
            assert exchange(peer, "first") == "FIRST"
            assert exchange(peer, "second") == "SECOND"
            assert peer.close().code == 1000


@on_both
def test_view_with_release_db_false_keeps_its_connection(tmp_path: Path, database: Database, name: str) -> None:
    with serving(name, tmp_path, database) as server, server.connect("/processes-kept/") as peer:
        pid = int(str(exchange(peer, "?")))
        with released_others(server, database, left=[pid]):
            assert exchange(peer, "?") == str(pid)
            assert peer.close().code == 1000


@on_both
def test_setting_release_db_false_is_for_all_views_that_do_not_say_otherwise(
    tmp_path: Path, database: Database, name: str
) -> None:
    with (
        serving(name, tmp_path, database, WEBSOCKET_RELEASE_DB=False) as server,
        server.connect("/processes/") as peer,
    ):
        pid = int(str(exchange(peer, "?")))
        with released_others(server, database, left=[pid], path="/groups-released/"):
            assert exchange(peer, "?") == str(pid)
            assert peer.close().code == 1000


# Connections that the database ends


def test_restart_of_the_database_goes_unnoticed_by_views_that_wait(
    cluster: PostgreSQL, site: tuple[Server, Database]
) -> None:
    server, database = site
    with server.connect("/groups/") as peer:
        assert peer.recv_message() == "hello: 0 groups"
        until_free(server, database)
        cluster.restart()
        assert exchange(peer, "next") == "next: 0 groups"
        assert peer.close().code == 1000


def test_end_of_a_connection_that_is_kept_for_a_moment_goes_unnoticed(site: tuple[Server, Database]) -> None:
    server, database = site

    def end_what_is_kept() -> int:
        assert exchange(peer, "before") == "before: 0 groups"
        assert exchange(peer, "again") == "again: 0 groups"
        return database.terminate_connections()

    with server.connect("/groups/") as peer:
        assert peer.recv_message() == "hello: 0 groups"
        server.until(end_what_is_kept, "a connection that is kept")
        assert exchange(peer, "next") == "next: 0 groups"
        assert peer.close().code == 1000


def settled(database: Database) -> Callable[[], bool]:
    """Whether the connections were the same at the last ten looks."""
    looks: deque[list[int]] = deque(maxlen=10)

    def look() -> bool:
        looks.append(database.connections())
        return len(looks) == 10 and all(pids == looks[0] for pids in looks)

    return look


@on_both
def test_end_of_the_connections_of_a_pool_goes_unnoticed_where_it_checks_them(
    tmp_path: Path, database: Database, name: str
) -> None:
    with (
        serving(name, tmp_path, database, {**POOL, "CONN_HEALTH_CHECKS": True}) as server,
        server.connect("/groups/") as peer,
    ):
        assert peer.recv_message() == "hello: 0 groups"
        server.until(settled(database), "a pool that makes no connection just now: its end would be logged")
        assert database.terminate_connections()
        assert exchange(peer, "next") == "next: 0 groups"
        assert peer.close().code == 1000


@on_both
def test_end_of_a_transaction_is_an_error_and_not_another_connection(
    tmp_path: Path, database: Database, note: str, name: str
) -> None:
    with (
        serving(name, tmp_path, database) as server,
        server.connect(f"/transaction-of-a-function/?name={note}") as peer,
    ):
        exchange(peer, "first")
        server.expect_log("WARNING dwebsocket: ")
        assert database.terminate_connections() == 1
        assert getattr(exchange(peer, "second"), "code", None) == 1011
        server.expect_log("ERROR django.request: Internal Server Error: /transaction-of-a-function/")


# Transactions


@on_both
def test_transaction_outlasts_the_wait(tmp_path: Path, database: Database, note: str, name: str) -> None:
    with (
        serving(name, tmp_path, database) as server,
        server.connect(f"/transaction-of-a-function/?name={note}") as peer,
    ):
        answer = exchange(peer, "first")
        pid, seen = map(int, str(answer).split())
        assert (seen, count_of(database, note)) == (1, 0)
        with released_others(server, database, left=[pid]):
            assert exchange(peer, "second") == answer
            assert count_of(database, note) == 0
        assert peer.close().code == 1000
        server.until(lambda: count_of(database, note), "the commit")
        server.expect_log("WARNING dwebsocket: ")


@on_both
def test_wait_in_a_transaction_is_warned_of_once_for_each_view(tmp_path: Path, database: Database, name: str) -> None:
    views = {"function": "transaction_of_a_function", "class": "TransactionOfAClass"}
    with serving(name, tmp_path, database) as server:
        for kind, view in views.items():
            for number in range(2):
                with server.connect(f"/transaction-of-a-{kind}/?name={kind}{number}") as peer:
                    for _ in range(3):
                        assert str(exchange(peer, "?")).endswith(" 1")
                    assert peer.close().code == 1000
                    assert peer.read_to_eof() == b""
                if number == 0:
                    record = server.expect_log(rf"WARNING dwebsocket: .*\btests\.project\.views\.{view}\b")
                    assert "atomic" in record


@pytest.fixture(scope="module", params=["detached", "attached"])
def atomic_site(
    request: pytest.FixtureRequest, cluster: PostgreSQL, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Database]]:
    """A server whose database has ATOMIC_REQUESTS."""
    directory, database = tmp_path_factory.mktemp(f"atomic-{request.param}"), cluster.create_database()
    detach = request.param == "detached"
    with serving("gunicorn-gthread", directory, database, {"ATOMIC_REQUESTS": True}, WEBSOCKET_DETACH=detach) as server:
        yield server, database


ADD = {"/add/": True, "/add-by-class/": True, "/add-exempt-above/": False, "/add-exempt-below/": False}


@pytest.mark.parametrize("path", ADD)
def test_websocket_is_in_no_transaction_of_its_request(
    atomic_site: tuple[Server, Database], path: str, note: str
) -> None:
    server, database = atomic_site
    with server.connect(f"{path}?name={note}") as peer:
        assert peer.recv_message() == "False"
        assert count_of(database, note) == 1
        assert getattr(exchange(peer, "fail"), "code", None) == 1011
        peer.send_close()
        assert peer.read_to_eof() == b""
    assert count_of(database, note) == 1
    server.expect_log(f"ERROR django.request: Internal Server Error: {path}")
    assert_quiet(server.take_news())


@pytest.mark.parametrize(("path", "is_atomic"), ADD.items())
def test_plain_http_of_the_same_view_is_in_one_unless_the_view_says_otherwise(
    atomic_site: tuple[Server, Database], path: str, is_atomic: bool, note: str
) -> None:
    server, database = atomic_site
    assert server.get(f"{path}?name={note}").body == str(is_atomic).encode()
    assert count_of(database, note) == 1
    assert server.get(f"{path}?name={note}-fails&fail").status == 500
    assert count_of(database, f"{note}-fails") == (0 if is_atomic else 1)
    server.expect_log(f"ERROR django.request: Internal Server Error: {path}")
    assert_quiet(server.take_news())


# Transactions that Django does not know of


@pytest.fixture
def alias(database: Database) -> Iterator[str]:
    """What a server in this process calls the database; a name of its own, so that no thread has been there before."""
    lease._warned.clear()
    lasting = database.settings(CONN_MAX_AGE=None)  # on a hub without patches the request's own end would close it
    chosen = connections.configure_settings({"default": {}, database.name: lasting})
    connections.databases[database.name] = chosen[database.name]
    yield database.name
    connections[database.name].close()
    del connections.databases[database.name]


@contextmanager
def transaction_in_sql(wrapper: Any) -> Iterator[None]:
    with wrapper.cursor() as cursor:
        cursor.execute("BEGIN")
    yield
    with wrapper.cursor() as cursor:
        cursor.execute("COMMIT")


@contextmanager
def transaction_of_the_driver(wrapper: Any) -> Iterator[None]:
    wrapper.ensure_connection()
    with wrapper.connection.transaction():
        yield


@pytest.mark.parametrize("transaction", [transaction_in_sql, transaction_of_the_driver])
def test_transaction_that_was_begun_behind_djangos_back_outlasts_the_wait(
    detached_site: Site, database: Database, alias: str, transaction: Any, caplog: pytest.LogCaptureFixture
) -> None:
    @require_websocket
    def view(request):
        with transaction(connections[alias]):
            Group.objects.using(alias).create(name="behind the back")
            for message in request.websocket:
                request.websocket.send(message)

    peer = detached_site(view).connect()
    until(lambda: "waits for its peer inside atomic()" in caplog.text, "the view to wait")
    assert exchange(peer, "go on") == "go on"
    assert count_of(database, "behind the back") == 0
    assert peer.close().code == 1000
    detached_site.until_idle()
    assert count_of(database, "behind the back") == 1
