"""One of two servers dies: its groups have an outage, the others do not notice."""

from __future__ import annotations

from pathlib import Path

import pytest

from dwebsocket.groups.redis.spread import server_of
from tests.groups.servers import RedisServer
from tests.real.group_crowd import Crowd, until
from tests.real.group_outages import open_many, seconds_until_noticed
from tests.real.group_site import BOTH, needs_redis, site

pytestmark = [needs_redis, pytest.mark.faults]

OURS, THEIRS = (next(f"g{number}" for number in range(100) if server_of(f"g{number}", 2) == which) for which in (0, 1))


def test_outage_of_one_server_is_one_of_its_groups_alone(tmp_path: Path) -> None:
    servers = [RedisServer(tmp_path) for _ in range(2)]
    with servers[0], servers[1], site(tmp_path, LOCATION=[one.url for one in servers]) as made, Crowd() as crowd:
        webs = made.start(*BOTH)
        members = open_many(crowd, webs, f"/member/?group={OURS}&group={THEIRS}&forward=0", 3)
        seconds_until_noticed(webs, servers[1].kill)
        for web in webs:
            assert web.get(f"/publish/?group={THEIRS}&text={THEIRS}+{web.port}+0").status == 503
            assert web.get(f"/publish/?group={OURS}&text={OURS}+{web.port}+0").status == 200
        for member in members:
            for web in webs:
                member.wait_for(f"{OURS} {web.port} 0")
        servers[1].start()
        for web in webs:
            web.expect_log("is back after")
        for web in webs:
            until(lambda: web.get(f"/publish/?group={THEIRS}&text={THEIRS}+{web.port}+1").status == 200, "a message")  # noqa: B023
        for member in members:
            member.wait_for(f"gap {THEIRS}")
            for web in webs:
                member.wait_for(f"{THEIRS} {web.port} 1")
            assert f"gap {OURS}" not in member.texts()
        made.check_logs(r"^\w+ django\.request: Service Unavailable: /publish/\n")
