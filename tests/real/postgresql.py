"""A PostgreSQL of the tests' own: a new cluster in a temporary directory, with few connections to give."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import psycopg

from tests.real.processes import end
from tests.real.servers import PATIENCE_SECONDS, ROOT

# Debian has them outside of PATH, for each version; the newest comes first.
_VERSIONS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
_PATH = os.pathsep.join([*map(str, _VERSIONS), os.environ.get("PATH", os.defpath)])
INITDB, POSTGRES = (shutil.which(name, path=_PATH) for name in ("initdb", "postgres"))

MAX_CONNECTIONS = 30
SUPERUSER, OWN = "postgres", "tests"  # who the tests are, and what their own connections are called

# As root it does not start.
_ACCOUNT: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}

CONFIGURATION = {
    "max_connections": str(MAX_CONNECTIONS),
    "listen_addresses": "",  # a UNIX socket is all that it listens on
    "fsync": "off",
    "autovacuum": "off",
}


class PostgreSQL:
    """One cluster, whose server can be started and stopped."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._data = directory / "data"
        self._log_file = directory / "log"
        self._numbers = count()
        if _ACCOUNT:
            shutil.chown(directory, _ACCOUNT["user"], _ACCOUNT["group"])
        with self._log_file.open("wb") as log:
            options = ("--auth=trust", f"--username={SUPERUSER}", "--encoding=UTF8", "--locale=C", "--no-sync")
            assert self._popen(log, INITDB, f"--pgdata={self._data}", *options).wait() == 0, self.log()

    def _popen(self, log: Any, *command: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command, cwd=self._directory, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, **_ACCOUNT
        )

    def start(self) -> None:
        """Return when it takes connections."""
        settings = {**CONFIGURATION, "unix_socket_directories": self._directory}
        with self._log_file.open("ab") as log:
            options = [f"--{name}={value}" for name, value in settings.items()]
            self._process = self._popen(log, POSTGRES, "-D", self._data, *options)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self._takes_connections():
            assert self._process.poll() is None, f"PostgreSQL has ended:\n{self.log()}"
            assert time.monotonic() < deadline, f"PostgreSQL takes no connections:\n{self.log()}"
            time.sleep(0.02)

    def _takes_connections(self) -> bool:
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """End it, and every connection to it."""
        end(self._process, signal.SIGINT, self.log)

    def restart(self) -> None:
        self.stop()
        self.start()

    def execute(self, sql: str, *parameters: Any, database: str = SUPERUSER) -> list[tuple[Any, ...]]:
        """The rows of one statement, over a connection of its own that counts nowhere."""
        with psycopg.connect(
            host=self.host, user=SUPERUSER, dbname=database, application_name=OWN, autocommit=True
        ) as connection:
            cursor = connection.execute(sql, parameters)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def migrate(self) -> None:
        """Make what every database begins as."""
        # No superuser: for them alone some connections are held back, also from a server that leaks all others.
        self.execute("CREATE ROLE project LOGIN")
        self.execute("CREATE DATABASE migrated OWNER project")
        settings = {"DATABASES": {"default": Database(self, "migrated").settings()}}
        subprocess.run(
            [sys.executable, "-m", "tests.project.manage", "migrate", "--verbosity=0"],
            cwd=ROOT,
            env={
                **os.environ,
                "DJANGO_SETTINGS_MODULE": "tests.project.settings",
                "TEST_SETTINGS": json.dumps(settings),
            },
            check=True,
        )

    def create_database(self) -> Database:
        """A new one, migrated and empty."""
        name = f"project{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} OWNER project TEMPLATE migrated")
        return Database(self, name)

    def log(self) -> str:
        return self._log_file.read_text(errors="replace")

    @property
    def host(self) -> str:
        return str(self._directory)


@dataclass(frozen=True)
class Database:
    """One database of a cluster, as its project and as an onlooker sees it."""

    cluster: PostgreSQL
    name: str

    def settings(self, **more: Any) -> dict[str, Any]:
        """What DATABASES says about it."""
        place = {"HOST": self.cluster.host, "USER": "project", "NAME": self.name}
        return {"ENGINE": "django.db.backends.postgresql", **place, **more}

    def execute(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """The rows of one statement, over a connection of its own that is not counted."""
        return self.cluster.execute(sql, *parameters, database=self.name)

    def connections(self) -> list[int]:
        """The server processes of all connections to it, each by its pid."""
        sql = "SELECT pid FROM pg_stat_activity WHERE datname = %s AND application_name <> %s ORDER BY pid"
        return [pid for (pid,) in self.cluster.execute(sql, self.name, OWN)]

    def terminate_connections(self) -> int:
        """End all connections to it, as an operator does; how many that were. They are gone then."""
        sql = (
            "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid, 5000))"
            " FROM pg_stat_activity WHERE datname = %s AND application_name <> %s"
        )
        [(terminated,)] = self.cluster.execute(sql, self.name, OWN)
        return int(terminated)


@contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    """A running cluster, gone at the end."""
    # Not below the directory of the tests, which is for the eyes of their user only.
    with tempfile.TemporaryDirectory(prefix="dwebsocket-postgresql-") as directory:
        cluster = PostgreSQL(Path(directory))
        cluster.start()
        try:
            cluster.migrate()
            yield cluster
        finally:
            cluster.stop()
