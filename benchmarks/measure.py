"""One measurement: a fresh server, the idle connections it holds, the load it is under."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from .broker import Broker
from .builds import install
from .fan import HOST, NCHAN, NGINX, PATIENCE, Place, PublisherFailed, publishing, redis_server
from .load import Client, LoadFailed
from .processes import Cores, Running, idle_seconds, pinned, started
from .rows import GROUPS_OF_EACH, PAYLOAD, PEERS, SERVERS, Contender, Fan, Server

SPARE_DESCRIPTORS = 200
FEW_MEMBERS = ("--connections=10", "--rooms=1", "--depth=1", "--rate=0", "--seconds=0.5")
NO_ROOM = "/echo-in/0/"  # of the servers whose memberships are measured
AT_REST = 0.05  # of a second, that a server uses
NPM = ("npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock")


class Bench:
    """A folder with everything that is measured, and the load client."""

    def __init__(self, folder: Path, cores: Cores, servers: Iterable[str], before: str = "") -> None:
        self.folder = folder
        self.cores = cores
        self.descriptors = _raise_descriptors()
        self.client = Client(folder, cores.client)
        self.peers = Path(shutil.copytree(Path(__file__).with_name("peers"), folder / "peers"))
        lacks = {server: ", ".join(filter(self._lacks, SERVERS[server].needs)) for server in servers}
        #: The servers that this machine has not, and what they would need.
        self.left_out = {server: lack for server, lack in lacks.items() if lack}
        builds = {SERVERS[server].build for server in lacks if server not in self.left_out}
        self.builds = {build: install(build, folder, before) for build in sorted(filter(None, builds))}

    def _lacks(self, need: str) -> bool:
        if need == "nchan":
            return not (NGINX and NCHAN.exists())
        if shutil.which(need) is None:
            return True
        return need == "npm" and not self._install_node_modules()

    def _install_node_modules(self) -> bool:
        return not subprocess.run(NPM, cwd=self.peers / "socketio", stdout=subprocess.DEVNULL).returncode  # noqa: S603

    def versions(self) -> dict[str, str]:
        """Of what is not of PyPI, as far as it was measured or could have been."""
        commands = {
            "redis-server": (["redis-server", "--version"], r"v=(\S+)"),
            "node": (["node", "--version"], r"v(\S+)"),
            "nginx": ([NGINX, "-v"], r"nginx/(\S+)"),
        }
        there = {name: command for name, command in commands.items() if shutil.which(command[0][0])}
        found = {name: _search(pattern, *command) for name, (command, pattern) in there.items()}
        for package in self.peers.glob("socketio/node_modules/socket.io/package.json"):
            found["socket.io"] = json.loads(package.read_text())["version"]
        return found

    def measure(self, contender: Contender, *load: str) -> dict[str, Any]:
        """The values of one measurement, by the keys that rows.py compares."""
        if contender.connections + SPARE_DESCRIPTORS > self.descriptors:
            raise LoadFailed(
                f"{contender.connections} connections, and no more than {self.descriptors} files may be open"
            )
        server = SERVERS[contender.server]
        kind = contender.load[0] if contender.load else ""
        ports: dict[str, int] = {}
        with ExitStack() as stack:
            environ = self._environ(server)
            if server.fan:
                ports["redis"] = stack.enter_context(redis_server(self.cores.client))
                environ["BENCHMARKS_REDIS"] = f"redis://{HOST}:{ports['redis']}"
            if kind == "publish":
                return self._publish(contender, environ, load)
            if kind == "membership":
                return self._membership(server, environ, contender.idle)
            if kind == "recover":
                return self._recover(contender, environ, Broker(ports["redis"]))
            if kind == "attend":
                return self._attend(contender, environ, Broker(ports["redis"]))
            with self._started(server, environ) as running:
                address = (f"--port={running.port}", f"--path={server.path}")
                if kind == "fan":
                    ports["server"] = running.port
                    return self._fan(contender, running, ports, environ, *address, *load)
                clocks = self._clocks(running)
                if server.fan:
                    clocks["redis_cpu_seconds"] = Broker(ports["redis"]).cpu_seconds
                return self._measure(contender, running, clocks, *address, *load)

    @contextmanager
    def _started(self, server: Server, environ: Mapping[str, str]) -> Iterator[Running]:
        """Why a measurement failed ends with what the server has said."""
        command, core = self._command(server.command), self.cores.server
        with (
            tempfile.TemporaryFile() as log,
            started(command, core=core, environ=environ, folder=self.folder, log=log) as running,
        ):
            try:
                yield running
            except (LoadFailed, PublisherFailed) as error:
                raise LoadFailed(f"{error}\n{running.last_words()}") from error

    def _command(self, command: tuple[str, ...]) -> tuple[str, ...]:
        places = {PEERS: str(self.peers), "{nginx}": NGINX, "{nchan}": str(NCHAN)}
        return tuple(_replace(part, places) for part in command)

    def _measure(
        self, contender: Contender, running: Running, clocks: Mapping[str, Callable[[], float]], *load: str
    ) -> dict[str, Any]:
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
                values |= _rates(self.client.run(mode, *load, *options, clocks=clocks))
        return values

    def _membership(self, server: Server, environ: Mapping[str, str], connections: int) -> dict[str, Any]:
        """What a connection holds whose view has joined a room, less what it holds without."""
        without, idle = (self._idle_kib(server, environ, path, connections) for path in (NO_ROOM, server.path))
        return {"idle_kib": idle, "membership_kib": idle - without}

    def _idle_kib(self, server: Server, environ: Mapping[str, str], path: str, connections: int) -> float:
        """Of each connection, when it has had an answer: its view has joined by then what it joins."""
        with self._started(server, environ) as running:
            address = (f"--port={running.port}", f"--path={path}")
            self.client.run("echo", *address, "--seconds=0.5", clocks={})
            before = running.resident_kib()
            with self.client.idle(connections, *address) as say:
                say()
                return (running.resident_kib() - before) / connections

    def _fan(
        self, contender: Contender, running: Running, ports: Mapping[str, int], environ: Mapping[str, str], *load: str
    ) -> dict[str, Any]:
        fan = SERVERS[contender.server].fan or Fan()
        mode, *options = contender.load
        place = Place(self.cores.client, environ, self.folder)
        publisher = fan._replace(publisher=self._command(fan.publisher))
        with publishing(publisher, contender.option("rooms"), place, ports) as published:
            arguments = (mode, *load, *options, *fan.options, *published.options)
            run = partial(self.client.run, *arguments, descriptors=(published.descriptor,))
            run(*FEW_MEMBERS, clocks={})  # as with the echo
            return _rates(run(clocks=self._clocks(running)))

    def _publish(self, contender: Contender, environ: Mapping[str, str], load: tuple[str, ...]) -> dict[str, Any]:
        """The publisher has the core of a server, and Redis that of the load client."""
        seconds = next(part.partition("=")[2] for part in load if part.startswith("--seconds="))
        command = (*SERVERS[contender.server].command, PAYLOAD, seconds, str(contender.option("threads", 1)))
        values = self._run(command, environ)
        return values | {"per_second": values["done"] / values["seconds"]} | _cpu(values)

    def _run(self, command: tuple[str, ...], environ: Mapping[str, str]) -> Any:
        """What it says, which is JSON."""
        with pinned(self.cores.server):
            found = subprocess.run(  # noqa: S603
                self._command(command), env=environ, cwd=self.folder, capture_output=True, text=True
            )
        if found.returncode:
            raise LoadFailed(found.stderr[-2000:])
        return json.loads(found.stdout)

    # Histories and presence

    def _recover(self, contender: Contender, environ: Mapping[str, str], broker: Broker) -> dict[str, Any]:
        """The first of the groups is that of the warm-up: a process knows nothing of the others."""
        server, missed = SERVERS[contender.server], contender.option("missed")
        rooms, each = contender.option("rooms"), contender.option("each", 1)
        keeps = (sys.executable, f"{PEERS}/keep.py", str(1 + rooms * each), str(missed), PAYLOAD)
        positions = self._run(keeps, environ)
        groups = [range(1 + room * each, 1 + room * each + each) for room in range(rooms)]
        warmup, paths = self.folder / "warmup", self.folder / "paths"
        warmup.write_text(_back(server.path, [0], positions))
        paths.write_text("".join(_back(server.path, of_room, positions) for of_room in groups))
        with self._started(server, environ) as running:
            clocks = self._clocks(running) | {
                "redis_cpu_seconds": broker.cpu_seconds,
                "reads": broker.reads,
                "commands": broker.commands,
            }
            run = partial(self.client.run, "recover", f"--port={running.port}", f"--expected={PAYLOAD}")
            _wait_until_at_rest(running)
            run("--connections=10", f"--paths={warmup}", f"--missed={missed}", clocks={})
            _wait_until_at_rest(running)
            options = (f"--connections={contender.option('connections')}", f"--rooms={rooms}", f"--paths={paths}")
            values = _rates(run(*options, f"--missed={missed * each}", clocks=clocks))
        reads_each = values["reads"] / (rooms * each * server.processes)
        return values | {"last_ms": values["seconds"] * 1000, "reads_each": reads_each}

    def _attend(self, contender: Contender, environ: Mapping[str, str], broker: Broker) -> dict[str, Any]:
        """What is held of those that are present, less what is held where they are only members; what is sent then."""
        members, _ = self._held(contender, environ, broker, is_present=False)
        present, resting = self._held(contender, environ, broker, is_present=True)
        presences = contender.idle * GROUPS_OF_EACH
        process, redis = ((with_ - without) / presences for with_, without in zip(present, members, strict=True))
        return {"presence_bytes": process, "redis_presence_bytes": redis, **resting}

    def _held(
        self, contender: Contender, environ: Mapping[str, str], broker: Broker, *, is_present: bool
    ) -> tuple[tuple[float, float], dict[str, float]]:
        """The bytes that the server and Redis hold for idle connections; what happens in a second of their rest."""
        server = SERVERS[contender.server]
        with self._started(server, environ) as running:
            path = server.path.format(is_present=int(is_present))
            address = (f"--port={running.port}", f"--path={path}", "--patience=60")
            with self.client.idle(10, *address) as say:
                say()
            clocks = {
                "resident": lambda: running.resident_kib() * 1024.0,
                "redis": lambda: float(broker.memory_bytes()),
                "commands": broker.commands,
                "server_cpu_seconds": running.cpu_seconds,
                "redis_cpu_seconds": broker.cpu_seconds,
            }
            empty = {name: clock() for name, clock in clocks.items()}
            with self.client.idle(contender.idle, *address) as say:
                say()
                _wait_until_at_rest(running)
                full = {name: clock() for name, clock in clocks.items()}
                begin = time.monotonic()
                time.sleep(contender.option("rest") if is_present else 0)
                rest = {name: (clock() - full[name]) / (time.monotonic() - begin) for name, clock in clocks.items()}
        bytes_ = full["resident"] - empty["resident"], full["redis"] - empty["redis"]
        return bytes_, {f"{name}_per_second": gone for name, gone in rest.items()}

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
    return (
        result
        | _cpu(result)
        | {
            "per_second": done / seconds,
            "server_busy": 1 - result["server_core_idle_seconds"] / seconds,
            "client_busy": 1 - result["client_core_idle_seconds"] / seconds,
            "server_share": result["server_cpu_seconds"] / seconds,
        }
    )


def _cpu(values: Mapping[str, Any]) -> dict[str, float]:
    """What the server, and Redis, have used for each of what was done."""
    return {
        f"{who}_cpu_us": values[f"{who}_cpu_seconds"] / values["done"] * 1e6
        for who in ("server", "redis")
        if f"{who}_cpu_seconds" in values
    }


def _back(path: str, groups: Sequence[int], positions: Sequence[str]) -> str:
    """The line with the path of a page that comes back to these groups."""
    rooms = "-".join(map(str, groups))
    return f"{path.format(rooms=rooms)}?{'&'.join(f'since={positions[at]}:kept:{at}' for at in groups)}\n"


def _wait_until_at_rest(running: Running) -> None:
    """All its processes have started, and have done what they had to do."""
    deadline, before = time.monotonic() + PATIENCE, -1.0
    while running.cpu_seconds() - before > AT_REST and time.monotonic() < deadline:
        before = running.cpu_seconds()
        time.sleep(1)


def _replace(text: str, places: Mapping[str, str]) -> str:
    for place, found in places.items():
        text = text.replace(place, found)
    return text


def _search(pattern: str, *command: str) -> str:
    found = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # noqa: S603
    match = re.search(pattern, found.stdout)
    return match[1] if match else "?"


def _raise_descriptors() -> int:
    """As many as this process may have, and so its children."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most
