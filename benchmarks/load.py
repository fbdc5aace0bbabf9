"""The load client, load.c: compiled, started, read."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .processes import pinned

SOURCE = Path(__file__).with_name("load.c")


class LoadFailed(Exception):
    """The load client met something that is no answer."""


class Client:
    """The compiled load client, for one core."""

    def __init__(self, folder: Path, core: int, compiler: str = "cc") -> None:
        self.program = folder / "load"
        self.core = core
        command = [compiler, "-O2", "-std=gnu99", "-o", str(self.program), str(SOURCE)]
        subprocess.run(command, check=True)  # noqa: S603

    def run(
        self, *arguments: str, clocks: Mapping[str, Callable[[], float]], descriptors: tuple[int, ...] = ()
    ) -> dict[str, Any]:
        """What it measured, and how far each of the clocks has gone meanwhile. It is given the descriptors."""
        process = self._start(*arguments, descriptors=descriptors)
        with process:
            try:
                return self._result(process, clocks)
            finally:
                process.kill()

    @contextmanager
    def idle(self, connections: int, *arguments: str) -> Iterator[Callable[[], None]]:
        """So many connections are open, and do nothing but answer pings; a call sends a message on each, and returns
        when all are answered.
        """
        process = self._start("idle", f"--connections={connections}", *arguments)
        with process:
            try:
                self._expect(process, "READY")
                yield lambda: self._talk(process)
                self._end_of_idle(process)
            finally:
                process.kill()

    def _start(self, *arguments: str, descriptors: tuple[int, ...] = ()) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        command = [str(self.program), *arguments]
        with pinned(self.core):
            return subprocess.Popen(  # noqa: S603
                command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, pass_fds=descriptors
            )

    def _talk(self, process: subprocess.Popen[str]) -> None:
        stdin, _, _ = _pipes(process)
        stdin.write("\n")
        stdin.flush()
        self._expect(process, "ANSWERED")

    def _expect(self, process: subprocess.Popen[str], word: str) -> None:
        _, out, errors = _pipes(process)
        if out.readline().strip() != word:
            raise LoadFailed(errors.read().strip() or "the load client ended without a word")

    def _result(self, process: subprocess.Popen[str], clocks: Mapping[str, Callable[[], float]]) -> dict[str, Any]:
        stdin, out, errors = _pipes(process)
        self._expect(process, "MEASURING")
        before = {name: clock() for name, clock in clocks.items()}
        with suppress(BrokenPipeError):  # it has ended: its standard error says why
            stdin.write("\n")  # recover waits for it: what it counts is over in a moment
            stdin.flush()
        self._expect(process, "MEASURED")
        gone = {name: clock() - before[name] for name, clock in clocks.items()}
        result: dict[str, Any] = json.loads(out.readline() or "{}")
        _raise_if_failed(result, errors.read)
        return result | gone

    def _end_of_idle(self, process: subprocess.Popen[str]) -> None:
        stdin, out, errors = _pipes(process)
        stdin.close()
        _raise_if_failed(json.loads(out.readline() or "{}"), errors.read)


def _pipes(process: subprocess.Popen[str]) -> tuple[Any, Any, Any]:
    return process.stdin, process.stdout, process.stderr


def _raise_if_failed(result: dict[str, Any], words: Callable[[], str]) -> None:
    counted = result.get("errors")
    if counted is None or any(counted.values()):
        raise LoadFailed(f"{words().strip()} {counted}")
