"""Processes on a core of their own: started, watched from outside, ended with all of their children."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024


class Cores(NamedTuple):
    """Where the server and where the load client runs, and what has to be said about that."""

    server: int
    client: int
    remark: str


def choose_cores() -> Cores:
    """Two of the cores that this process may use, on different physical ones where there are."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) == 1:
        return Cores(cores[0], cores[0], "server and client share the only core: the ratios say little")
    server = cores[0]
    others = [core for core in cores if core not in _siblings(server)]
    if not others:
        return Cores(
            server, cores[-1], "server and client are two threads of one physical core, and slow each other down"
        )
    return Cores(server, others[0], "server and client have a core each")


def _siblings(core: int) -> set[int]:
    file = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
    if not file.exists():
        return {core}
    ranges = [part.split("-") for part in file.read_text().strip().split(",")]
    return {number for first, *last in ranges for number in range(int(first), int(last[0] if last else first) + 1)}


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """This thread, and what it starts meanwhile, runs on this core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def idle_seconds(core: int) -> float:
    """How long this core has had nothing to do. All that counts is: the kernel's own work for a process's packets is
    often not in the times of that process.
    """
    fields = re.search(rf"^cpu{core} (.*)$", Path("/proc/stat").read_text(), re.MULTILINE)
    if fields is None:
        raise LookupError(f"no core {core} in /proc/stat")
    _user, _nice, _system, idle, iowait, *_others = map(int, fields[1].split())
    return (idle + iowait) / TICKS_PER_SECOND


class Running(NamedTuple):
    """A server that was started."""

    process: subprocess.Popen[bytes]
    port: int
    log: IO[bytes]

    def cpu_seconds(self) -> float:
        """What it and its children have used."""
        return sum(_cpu_ticks(pid) for pid in _tree(self.process.pid)) / TICKS_PER_SECOND

    def resident_kib(self) -> int:
        """What it and its children hold in memory."""
        return sum(int(_read(pid, "statm").split()[1]) for pid in _tree(self.process.pid)) * PAGE_KIB

    def last_words(self) -> str:
        self.log.seek(0)
        return self.log.read()[-2000:].decode(errors="replace")


@contextmanager
def started(
    command: tuple[str, ...], *, core: int, environ: Mapping[str, str], folder: Path, log: IO[bytes]
) -> Iterator[Running]:
    """A server on a port of the kernel's choice; `{fd}` in its command is the listening socket. Killed at the end."""
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        port: int = listener.getsockname()[1]
        arguments = [part.replace("{fd}", str(listener.fileno())) for part in command]
        with pinned(core):
            process = subprocess.Popen(  # noqa: S603 - the commands are those of rows.py
                arguments,
                pass_fds=[listener.fileno()],
                cwd=folder,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a group of its own, to be killed as one
            )
    try:
        yield Running(process, port, log)
    finally:
        # Nobody has reaped it, so the group is still its own, even when it has ended by itself.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _tree(pid: int) -> list[int]:
    children = [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in _read_children(task)]
    return [pid, *(descendant for child in children for descendant in _tree(child))]


def _read_children(task: Path) -> list[str]:
    try:
        return (task / "children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []  # a thread that has ended meanwhile


def _read(pid: int, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_text()


def _cpu_ticks(pid: int) -> int:
    """utime and stime, threads that have ended included."""
    after_name = _read(pid, "stat").rpartition(")")[2].split()
    return int(after_name[11]) + int(after_name[12])
