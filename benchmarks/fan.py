"""What a fan-out needs beside its server and the load client: Redis, and messages that are published from outside.

The load client publishes. Most often it repeats to Redis, byte for byte, what the library's own publisher has said
there once, so that the publisher's language costs nothing. Where that says something else each time, the publisher's
process is asked for each message.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from .processes import pinned
from .rows import PAYLOAD, Fan, Publishing

HOST = "127.0.0.1"
PATIENCE = 20.0
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin") or ""
NCHAN = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
#: Says nothing to anybody.
SETUP = {b"HELLO", b"CLIENT", b"AUTH", b"SELECT", b"PING", b"COMMAND", b"INFO", b"SCRIPT"}


class PublisherFailed(Exception):
    """The process that publishes ended, or said nothing."""


class Publisher(NamedTuple):
    """For the load client: a descriptor, and the file with what is written there for each room."""

    descriptor: int
    publications: Path

    @property
    def options(self) -> tuple[str, ...]:
        return (f"--publisher={self.descriptor}", f"--publications={self.publications}")


class Place(NamedTuple):
    """Where a publisher's process runs, and with what."""

    core: int
    environ: Mapping[str, str]
    folder: Path


@contextmanager
def redis_server(core: int) -> Iterator[int]:
    """The port of a Redis that keeps nothing."""
    with socket.create_server((HOST, 0)) as free:
        port: int = free.getsockname()[1]
    command = ["redis-server", "--bind", HOST, "--port", str(port), "--save", "", "--appendonly", "no"]
    with pinned(core):
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)  # noqa: S603
    try:
        _connect(port).close()
        yield port
    finally:
        process.kill()
        process.wait()


@contextmanager
def publishing(fan: Fan, rooms: int, place: Place, ports: Mapping[str, int]) -> Iterator[Publisher]:
    """A publisher for so many rooms; `ports` are those of "redis" and of the "server"."""
    file = place.folder / "publications"
    if fan.publishing is Publishing.HTTP:
        _write(file, [_http(room) for room in range(rooms)])
        connection = _connect(ports["server"])
    elif fan.publishing is Publishing.RECORDED:
        _write(file, record(fan.publisher, rooms, place, ports["redis"]))
        connection = _connect(ports["redis"])
    else:
        _write(file, [b"%d\n" % room for room in range(rooms)])
        with _process(fan.publisher, place) as talk:
            _ask(talk, 0)
            talk.setblocking(True)
            yield Publisher(talk.fileno(), file)
        return
    with connection:
        yield Publisher(connection.fileno(), file)


def record(command: tuple[str, ...], rooms: int, place: Place, redis: int) -> list[bytes]:
    """What this publisher says to Redis for one message to each room."""
    with _Recorder(redis) as recorder:
        environ = {**place.environ, "BENCHMARKS_REDIS": f"redis://{HOST}:{recorder.port}"}
        with _process(command, place._replace(environ=environ)) as talk:
            _ask(talk, 0)
            recorder.take()
            return [_ask(talk, room) or recorder.take() for room in range(rooms)]


def _ask(talk: socket.socket, room: int) -> None:
    talk.sendall(b"%d\n" % room)
    if not talk.recv(64).endswith(b"\n"):
        raise PublisherFailed("the publisher has ended")


@contextmanager
def _process(command: tuple[str, ...], place: Place) -> Iterator[socket.socket]:
    """A socket to its standard input and output."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs, pinned(place.core):
            process = subprocess.Popen(  # noqa: S603
                [*command, PAYLOAD], stdin=theirs, stdout=theirs, env=place.environ, cwd=place.folder
            )
        ours.settimeout(PATIENCE)
        try:
            yield ours
        finally:
            process.kill()
            process.wait()


class _Recorder:
    """A proxy in front of Redis that keeps what its clients say."""

    def __init__(self, redis: int) -> None:
        self._redis = redis
        self._said: list[bytes] = []
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> _Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def take(self) -> bytes:
        """The commands of one message; the publisher has the answer to all of them."""
        said, self._said = b"".join(self._said), []
        return b"".join(command for command, name in _commands(said) if name.upper() not in SETUP)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                redis = _connect(self._redis)
                for source, target, keeps in ((client, redis, True), (redis, client, False)):
                    threading.Thread(target=self._pump, args=(source, target, keeps), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, keeps: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if keeps:
                    self._said.append(data)
                target.sendall(data)
        target.close()


def _commands(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each command, an array of bulk strings, and its name."""
    begin = 0
    while begin < len(data):
        line = data.index(b"\r\n", begin)
        count, end = int(data[begin + 1 : line]), line + 2
        words = []
        for _ in range(count):
            line = data.index(b"\r\n", end)
            length = int(data[end + 1 : line])
            words.append(data[line + 2 : line + 2 + length])
            end = line + 2 + length + 2
        yield data[begin:end], words[0]
        begin = end


def _http(room: int) -> bytes:
    body = PAYLOAD.encode()
    return b"POST /publish/%d HTTP/1.1\r\nHost: %b\r\nContent-Length: %d\r\n\r\n%b" % (
        room,
        HOST.encode(),
        len(body),
        body,
    )


def _write(file: Path, publications: list[bytes]) -> None:
    if not all(publications):
        raise PublisherFailed("the publisher has told Redis nothing")
    file.write_bytes(b"".join(b"%d\n%b" % (len(each), each) for each in publications))


def _connect(port: int) -> socket.socket:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            connection = socket.create_connection((HOST, port))
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection
