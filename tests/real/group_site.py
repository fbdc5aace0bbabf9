"""A site with groups, of real processes: Redis behind a relay, web servers, and publishers outside of them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.groups.servers import REDIS, RedisServer
from tests.real.group_checker import Message, Stream
from tests.real.group_crowd import until
from tests.real.relay import Relay
from tests.real.servers import KINDS, ROOT, Kind, Server, assert_quiet, gunicorn

needs_redis = pytest.mark.skipif(not REDIS, reason="there is no redis-server: apt install redis-server")

THREADS, GEVENT = "gunicorn-gthread", "gunicorn-gevent"
BOTH = (THREADS, GEVENT)

_SMALL_BUFFERS = "--config=tests/project/gunicorn_small_buffers.py"
#: The same, where the kernel holds little for a peer that does not read.
SMALL = {"threads": gunicorn("gthread", "--threads=2", _SMALL_BUFFERS), "gevent": gunicorn("gevent", _SMALL_BUFFERS)}

#: What a process says of an outage.
OUTAGE = re.compile(
    r"^WARNING dwebsocket: groups 'default': redis(?:\+sentinel)?://\S+ is (lost|still lost|back).*\n", re.MULTILINE
)
#: The same of a view that an outage has ended: join() raised, nothing was wrong with the view.
CLOSED_1013 = re.compile(r"^WARNING dwebsocket: .*GroupsUnavailable.*\n", re.MULTILINE)

#: Where members had to be told that a history has lost what they missed.
LOST = r"^WARNING dwebsocket: messages are lost that no history .*\n"
#: Of presence in an outage.
AWAY = r"^WARNING dwebsocket: groups 'default': presence is (?:not )?told to the backend.*\n"
#: A view whose join() has taken too long, or a page that wanted something of groups, in an outage.
REFUSED = r"^\w+ (?:dwebsocket|django\.request): .*(?:GroupsUnavailable|Service Unavailable|'default': redis:).*\n"
#: What gunicorn says of a worker that was killed.
REPLACED = r"^.*\[(?:WARNING|ERROR)\] Worker .*was (?:sent|terminated).*\n"


class Result(NamedTuple):
    """One message of a publisher: what became of it, when `send()` was called, and how long that took.

    `position` is what `send()` has returned, "-" where there is none.
    """

    message: Message
    outcome: str
    began: float
    seconds: float
    position: str


class Publisher:
    """A process that publishes, with a thread for each name."""

    def __init__(
        self,
        directory: Path,
        settings: dict[str, Any],
        names: Sequence[str],
        groups: Sequence[str],
        *,
        count: int = 0,
        pause_seconds: float = 0.001,
        size: int = 0,
    ) -> None:
        orders = {
            "publishers": names, "groups": groups, "count": count, "pause_seconds": pause_seconds, "size": size
        }  # fmt: skip
        self._out = directory / f"publisher-{names[0]}"
        self._errors = directory / f"publisher-{names[0]}.errors"
        with self._out.open("wb") as out, self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.real.group_publisher", json.dumps(orders)],
                cwd=ROOT,
                env=_environment(settings),
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=errors,
            )

    def wait_until_ready(self) -> None:
        until(lambda: self._out.read_text().startswith("ready\n") or self.process.poll() is not None, "the publisher")
        assert self.process.poll() is None, self._errors.read_text()

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"go\n")
        self.process.stdin.flush()

    def stop(self) -> list[Result]:
        """End it, or wait until it has sent all, and return what became of it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(60)
        finally:
            self.process.kill()
            self.process.wait()
        assert self.process.returncode == 0, self._errors.read_text()
        return self.results()

    def results(self) -> list[Result]:
        """What became of the messages up to now."""
        text = self._out.read_text()
        found = []
        for line in text[: text.rfind("\n") + 1].splitlines()[1:]:
            group, name, n, outcome, began, seconds, position = line.split()
            found.append(Result(Message(group, name, int(n)), outcome, float(began), float(seconds), position))
        return found

    def kill(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.kill()
        self.process.wait()


def unsure(results: Iterable[Result]) -> set[Message]:
    """Those whose `send()` has raised."""
    return {result.message for result in results if result.outcome != "ok"}


def last(results: Iterable[Result]) -> dict[Stream, int]:
    """The last message of each stream whose `send()` has returned."""
    found: dict[Stream, int] = {}
    for message, outcome, *_ in results:
        if outcome == "ok":
            stream = Stream(message.group, message.publisher)
            found[stream] = max(message.n, found.get(stream, -1))
    return found


def _environment(settings: dict[str, Any]) -> dict[str, str]:
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.project.settings",
        "PYTHONPATH": str(ROOT),
        **{name: json.dumps(value) for name, value in settings.items()},
    }


class Site:
    """Redis, the relay in front of it, the servers that are reached through it, and publishers.

    `groups` are settings of the alias "default"; `persistence` is that of Redis.
    """

    def __init__(self, directory: Path, *, persistence: str = "none", **groups: Any) -> None:
        self.directory = directory
        self.redis = RedisServer(directory, persistence=persistence)
        self.redis.start()
        self._persistence = persistence
        self.relay = Relay(self.redis.port)
        self.direct = Relay(self.redis.port)  # which no fault befalls
        self._groups = {"TIMEOUT": 1, "PROBE": 1, "JOIN_TIMEOUT": 2, **groups}
        self.servers: list[Server] = []
        self._publishers: list[Publisher] = []
        self._replicas: dict[RedisServer, Relay] = {}
        self._count = 0

    def settings(self, port: int | None = None, **groups: Any) -> dict[str, Any]:
        """WEBSOCKET_GROUPS for a process that reaches Redis through the relay, or on that port."""
        url = f"redis://127.0.0.1:{port or self.relay.port}/0"
        backend = "dwebsocket.groups.redis.RedisGroups"
        return {"WEBSOCKET_GROUPS": {"default": {"BACKEND": backend, "LOCATION": url, **self._groups, **groups}}}

    def start(self, *kinds: str | Kind, **settings: Any) -> list[Server]:
        """Start servers, and return when all are up."""
        started = []
        for kind in kinds:
            self._count += 1
            directory = self.directory / f"server-{self._count}"
            directory.mkdir()
            found = KINDS[kind] if isinstance(kind, str) else kind
            started.append(Server(found, directory, **{**self.settings(), **settings}))
            self.servers.append(started[-1])
        for server in started:
            server.wait_until_up()
        return started

    def publisher(
        self, names: Sequence[str], groups: Sequence[str], *, is_direct: bool = False, **options: Any
    ) -> Publisher:
        """Start a publisher that is ready; `is_direct`: it does not go through the relay that has faults."""
        settings = self.settings(self.direct.port if is_direct else None)
        made = Publisher(self.directory, settings, names, groups, **options)
        self._publishers.append(made)
        made.wait_until_ready()
        return made

    # Another one that takes over

    def add_replica(self) -> tuple[RedisServer, Relay]:
        """Start a replica that has all, and the relay by which it gets more."""
        relay = Relay(self.redis.port)
        replica = RedisServer(self.directory, persistence=self._persistence)
        self._replicas[replica] = relay
        replica.start()
        with self.redis.client() as client:
            client.config_set("repl-diskless-sync-delay", 0)
        with replica.client() as client:
            client.execute_command("REPLICAOF", "127.0.0.1", relay.port)
            until(lambda: client.info("replication")["master_link_status"] == "up", "the replica")
        return replica, relay

    def fail_over(self, replica: RedisServer) -> None:
        """Let the primary die, and the replica take its place, to which all ways lead from now on."""
        self.redis.kill()
        with replica.client() as client:
            client.execute_command("REPLICAOF", "NO", "ONE")
        self._replicas.pop(replica).close()
        self.redis = replica
        for relay in (self.relay, self.direct):
            relay.lead_to(replica.port)

    def check_logs(self, *expected: str) -> None:
        """The logs of all servers are quiet, but for outages and what is `expected`."""
        for server in self.servers:
            log = OUTAGE.sub("", server.take_news())
            for pattern in expected:
                log = re.sub(pattern, "", log, flags=re.MULTILINE)
            assert_quiet(log)

    def close(self) -> None:
        for publisher in self._publishers:
            publisher.kill()
        try:
            for server in self.servers:
                server.stop()
        finally:
            for server in self.servers:
                server.kill()
            self.relay.close()
            self.direct.close()
            for replica, relay in self._replicas.items():
                relay.close()
                replica.stop()
            self.redis.stop()


@contextmanager
def site(directory: Path, *, persistence: str = "none", **groups: Any) -> Iterator[Site]:
    made = Site(directory, persistence=persistence, **groups)
    try:
        yield made
    finally:
        made.close()
