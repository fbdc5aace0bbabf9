"""One server: scripts in pipelines, and the mark of a connection. What a pool meets is in test_backend.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dwebsocket.exceptions import GroupsUnavailable
from dwebsocket.groups.config import DEFAULTS
from dwebsocket.groups.redis import commands
from dwebsocket.groups.redis.location import Location
from dwebsocket.groups.redis.scripts import Call, Script
from dwebsocket.groups.redis.server import Server
from tests.groups.servers import RedisServer

LIST = b"t:calls"
NewServer = Callable[..., RedisServer]
NewOne = Callable[..., Server]


def push(value: bytes, script: Script) -> Call:
    return script.call([LIST], [value])


def scripts() -> tuple[Script, Script]:
    """Two that the server has never seen: each appends to a list."""
    salt = next(_salts)
    return (
        Script(f"redis.call('RPUSH',KEYS[1],ARGV[1]) return 'one' -- {salt}"),
        Script(f"redis.call('RPUSH',KEYS[1],ARGV[1]) return 'two' -- {salt}"),
    )


_salts = iter(range(1_000_000))


@pytest.fixture
def make(server: RedisServer) -> Iterator[NewOne]:
    made = []

    def new(mark: Any = None, at: RedisServer | None = None, timeout: float = 2) -> Server:
        settings = {**DEFAULTS, "LOCATION": (at or server).url, "TIMEOUT": timeout}
        location = Location("default", settings)
        made.append(Server("default", 0, location, commands.Names("t"), b"t:n:x", timeout, mark))
        return made[-1]

    with server.client() as client:
        client.delete(LIST)
        client.script_flush()
    yield new
    for one in made:
        one.close()


def pushed(server: RedisServer) -> list[bytes]:
    with server.client() as client:
        found: list[bytes] = client.lrange(LIST, 0, -1)
    return found


def calls_of(server: RedisServer) -> dict[str, int]:
    with server.client() as client:
        stats = client.info("commandstats")
    return {name: stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("eval", "evalsha")}


def test_script_that_the_server_does_not_know_is_sent_whole(make: NewOne, server: RedisServer) -> None:
    one, _ = scripts()
    target = make()
    before = calls_of(server)
    assert target.exchange([push(b"1", one)]) == [b"one"]
    assert target.exchange([push(b"2", one)]) == [b"one"]
    after = calls_of(server)

    assert pushed(server) == [b"1", b"2"]
    assert {name: after[name] - before[name] for name in after} == {"eval": 1, "evalsha": 2}


def test_commands_of_one_call_keep_their_order_where_no_script_is_known(make: NewOne, server: RedisServer) -> None:
    one, two = scripts()
    plain = commands.command(b"RPUSH", LIST, b"3")
    replies = make().exchange([push(b"1", one), push(b"2", two), plain, push(b"4", one), push(b"5", two)])

    assert replies == [b"one", b"two", 3, b"one", b"two"]
    assert pushed(server) == [b"1", b"2", b"3", b"4", b"5"]


def test_script_is_forgotten_in_the_middle_of_a_call(make: NewOne, server: RedisServer) -> None:
    one, _ = scripts()
    flush = commands.command(b"SCRIPT", b"FLUSH")

    assert make().exchange([push(b"1", one), flush, push(b"2", one), push(b"3", one)]) == [
        b"one",
        b"OK",
        b"one",
        b"one",
    ]
    assert pushed(server) == [b"1", b"2", b"3"]


def test_each_connection_is_marked_once_before_its_first_script(make: NewOne, server: RedisServer) -> None:
    one, mark = scripts()
    marks = iter(b"abc")
    target = make(lambda: push(b"mark %c" % next(marks), mark))
    target.exchange([commands.command(b"RPUSH", LIST, b"plain")])
    assert target.exchange([push(b"1", one), push(b"2", one)]) == [b"one", b"one"]
    target.exchange([push(b"3", one)])
    with server.client() as client:
        client.client_kill_filter(_type="normal")
    target.exchange([push(b"4", one)])

    assert pushed(server) == [b"plain", b"mark a", b"1", b"2", b"3", b"mark b", b"4"]


def test_probe_marks_again_once_scripts_have_run(make: NewOne, server: RedisServer) -> None:
    """A connection may live through a demotion and a promotion."""
    one, mark = scripts()
    target = make(lambda: push(b"mark", mark))
    target._publish_probe()
    assert pushed(server) == []
    target.exchange([push(b"1", one)])
    target._publish_probe()
    assert pushed(server) == [b"mark", b"1", b"mark"]


def test_mark_that_is_refused_refuses_the_call(make: NewOne) -> None:
    one, _ = scripts()
    refused = Script("return redis.error_reply('ERR no mark')")
    target = make(lambda: refused.call([], []))
    for _ in range(2):  # the connection is as good as before, and not marked
        with pytest.raises(GroupsUnavailable, match="no mark"):
            target.exchange([push(b"1", one)])


def test_error_of_a_script_is_the_refusal_of_all(make: NewOne) -> None:
    one, _ = scripts()
    wrong = Script("return redis.call('GET')")
    with pytest.raises(GroupsUnavailable, match="command from script"):
        make().exchange([push(b"1", one), wrong.call([], []), push(b"2", one)])
