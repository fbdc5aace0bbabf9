"""What is sent in the transaction of a request leaves after the commit, and only then."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.real.group_crowd import Crowd, Subscriber
from tests.real.group_site import BOTH, Site, needs_redis, site
from tests.real.postgresql import POSTGRES, Database
from tests.real.servers import Server

pytestmark = [needs_redis, pytest.mark.faults, pytest.mark.skipif(POSTGRES is None, reason="needs PostgreSQL")]


def start(made: Site, kind: str, database: Database) -> Server:
    """A server whose every request is a transaction."""
    (server,) = made.start(kind, TEST_SETTINGS={"DATABASES": {"default": database.settings(ATOMIC_REQUESTS=True)}})
    return server


def open_readers(crowd: Crowd, server: Server, count: int) -> list[Subscriber]:
    readers = [crowd.add(server, "/reader-of-rows/?group=g", f"reader {number}") for number in range(count)]
    for reader in readers:
        reader.wait_for("joined")
    return readers


@pytest.mark.parametrize("kind", BOTH)
def test_receiver_finds_the_row_that_it_is_told_of(tmp_path: Path, kind: str, database: Database) -> None:
    with site(tmp_path) as made, Crowd() as crowd:
        server = start(made, kind, database)
        readers = open_readers(crowd, server, 3)

        def save(number: int) -> None:
            assert server.get(f"/save-and-publish/?group=g&name=row{number}").status == 200
            assert server.get(f"/save-and-publish/?group=g&name=failed{number}&fail=1").status == 500

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(save, range(40)))
        wanted = {f"row{number}" for number in range(40)}
        for reader in readers:
            for name in wanted:
                reader.wait_for(name)
            # No row that was not there yet, none of a transaction or a savepoint that was rolled back.
            assert sorted(reader.texts()) == sorted({"joined", *wanted})
        made.check_logs(
            r"^ERROR django\.request: Internal Server Error: .*\n(?!INFO|WARNING|ERROR)(.*\n)*?RuntimeError.*\n"
        )


@pytest.mark.parametrize("kind", BOTH)
def test_request_whose_message_is_lost_answers_200_all_the_same(tmp_path: Path, kind: str, database: Database) -> None:
    with site(tmp_path) as made, Crowd() as crowd:
        server = start(made, kind, database)
        (reader,) = open_readers(crowd, server, 1)
        made.redis.pause()
        try:
            answer = server.get("/save-and-publish/?group=g&name=paused")
        finally:
            made.redis.resume()
        assert answer.status == 200
        server.expect_log(r"a message to the group 'g' is lost: it was to be sent after the commit\n")
        made.redis.kill()
        answer = server.get("/save-and-publish/?group=g&name=killed")
        assert answer.status == 200
        server.expect_log(r"a message to the group 'g' is lost: it was to be sent after the commit\n")
        assert {name for (name,) in database.execute("SELECT name FROM auth_group")} == {"paused", "killed"}
        made.redis.start()
        server.expect_log("is back after")
        assert server.get("/save-and-publish/?group=g&name=back").status == 200
        reader.wait_for("back")
        assert set(reader.texts()) <= {"joined", "paused", "back"}  # what was sent to a Redis that stood still may come
        made.check_logs()
