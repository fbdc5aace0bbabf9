"""One measurement: a fresh server, the idle connections it holds, the load it is under."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from .builds import install
from .load import Client, LoadFailed
from .processes import Cores, Running, idle_seconds, started
from .rows import PEERS, SERVERS, Contender, Server

SPARE_DESCRIPTORS = 200


class Bench:
    """A folder with everything that is measured, and the load client."""

    def __init__(self, folder: Path, cores: Cores, servers: Iterable[str], before: str = "") -> None:
        self.folder = folder
        self.cores = cores
        self.descriptors = _raise_descriptors()
        self.client = Client(folder, cores.client)
        self.peers = Path(shutil.copytree(Path(__file__).with_name("peers"), folder / "peers"))
        builds = {SERVERS[server].build for server in servers}
        self.builds = {build: install(build, folder, before) for build in sorted(filter(None, builds))}

    def measure(self, contender: Contender, *load: str) -> dict[str, Any]:
        """The values of one measurement, by the keys that rows.py compares."""
        if contender.connections + SPARE_DESCRIPTORS > self.descriptors:
            raise LoadFailed(
                f"{contender.connections} connections, and no more than {self.descriptors} files may be open"
            )
        server = SERVERS[contender.server]
        command = tuple(part.replace(PEERS, str(self.peers)) for part in server.command)
        with (
            tempfile.TemporaryFile() as log,
            started(
                command, core=self.cores.server, environ=self._environ(server), folder=self.folder, log=log
            ) as running,
        ):
            try:
                return self._measure(contender, running, f"--port={running.port}", f"--path={server.path}", *load)
            except LoadFailed as error:
                raise LoadFailed(f"{error}\n{running.last_words()}") from error

    def _measure(self, contender: Contender, running: Running, *load: str) -> dict[str, Any]:
        address = load[:2]
        # It is up, and has imported and cached what it does at a first connection.
        self.client.run("echo", *address, "--seconds=0.1", clocks={})
        values: dict[str, Any] = {}
        with ExitStack() as stack:
            if contender.idle:
                before = running.resident_kib()
                stack.enter_context(self.client.idle(contender.idle, *address))
                values["idle_kib"] = (running.resident_kib() - before) / contender.idle
            if contender.load:
                mode, *options = contender.load
                values |= _rates(self.client.run(mode, *load, *options, clocks=self._clocks(running)))
        return values

    def _clocks(self, running: Running) -> dict[str, Callable[[], float]]:
        return {
            "server_cpu_seconds": running.cpu_seconds,
            "server_core_idle_seconds": partial(idle_seconds, self.cores.server),
            "client_core_idle_seconds": partial(idle_seconds, self.cores.client),
        }

    def _environ(self, server: Server) -> dict[str, str]:
        paths = [self.peers] if server.build is None else [self.peers, self.builds[server.build]]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "DJANGO"))}
        return kept | {"PYTHONPATH": os.pathsep.join(map(str, paths)), "BENCHMARKS_BUILD": server.build or ""}


def _rates(result: dict[str, Any]) -> dict[str, Any]:
    seconds, done = result["seconds"], result["done"]
    return result | {
        "per_second": done / seconds,
        "server_cpu_us": result["server_cpu_seconds"] / done * 1e6,
        "server_busy": 1 - result["server_core_idle_seconds"] / seconds,
        "client_busy": 1 - result["client_core_idle_seconds"] / seconds,
        "server_share": result["server_cpu_seconds"] / seconds,
    }


def _raise_descriptors() -> int:
    """As many as this process may have, and so its children."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most
