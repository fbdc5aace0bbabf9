"""What Redis tells of itself: the commands that it got, its CPU, its memory."""

from __future__ import annotations

import re
import socket

from .fan import HOST

#: Commands that only our scripts call, and the question itself: all others have come from clients, one by one.
_NOT_SENT = re.compile(
    "del|get|h(del|get|getall|incrby|len|mget|scan|set)|info|pexpire|quit|s(add|et|randmember|rem)|time"
    "|x(add|range)|z(add|range|rem|score)"
)


#: XRANGEs in a read of the 100 messages that are kept: a read goes back by 50 messages at a time.
RANGES = 2


class Broker:
    """A Redis on this machine."""

    def __init__(self, port: int) -> None:
        self._port = port

    def cpu_seconds(self) -> float:
        """What it has used."""
        found = self._info("cpu")
        return float(found["used_cpu_user"]) + float(found["used_cpu_sys"])

    def memory_bytes(self) -> int:
        """What its data and its clients take."""
        return int(self._info("memory")["used_memory"])

    def commands(self) -> int:
        """How many were sent to it: a script is one, whatever it calls."""
        return sum(calls for name, calls in self._calls().items() if not _NOT_SENT.fullmatch(name))

    def reads(self) -> int:
        """How often messages of a history were asked for."""
        return self._calls().get("xrange", 0) // RANGES

    def _calls(self) -> dict[str, int]:
        found = self._info("commandstats")
        return {
            name.removeprefix("cmdstat_"): int(value.partition(",")[0].removeprefix("calls="))
            for name, value in found.items()
        }

    def _info(self, section: str) -> dict[str, str]:
        with socket.create_connection((HOST, self._port)) as connection:
            connection.sendall(b"INFO %b\r\nQUIT\r\n" % section.encode())
            text = b"".join(iter(lambda: connection.recv(1 << 16), b"")).decode()
        return dict(re.findall(r"^(\w[\w|-]*):(.*?)\r$", text, re.MULTILINE))
