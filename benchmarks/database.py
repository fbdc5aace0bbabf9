"""``python -m benchmarks.database``: what it costs to give the database back while a view waits.

One small query for each message, on a PostgreSQL of its own; the sockets ask in turn, each once it has its answer. In
each round every contender has its turn, in the opposite order every second time, and only what was measured in the same
round is compared. It needs what the tests need: PostgreSQL, and the dependency group ``test``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.peer import Peer
from tests.real.postgresql import postgresql
from tests.real.servers import KINDS, Server, running

#: The settings of each contender: what its database has, and what dwebsocket is told.
CONTENDERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "kept": ({}, {"WEBSOCKET_RELEASE_DB": False}),
    "released": ({}, {}),
    "released to a pool": ({"OPTIONS": {"pool": {"min_size": 1, "max_size": 4}}}, {}),
}
BASE = "kept"
PATH = "/groups/"


def main() -> None:
    options = arguments()
    rates: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    with ExitStack() as stack:
        cluster = stack.enter_context(postgresql())
        servers: dict[str, Server] = {}
        for name, (database, settings) in CONTENDERS.items():
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dwebsocket-database-")))
            databases = {"DATABASES": {"default": cluster.create_database().settings(**database)}}
            servers[name] = stack.enter_context(running(options.server, folder, TEST_SETTINGS=databases, **settings))
        for number in range(options.rounds):
            for name in list(CONTENDERS)[:: -1 if number % 2 else 1]:
                rates[name].append(messages_per_second(servers[name], options.sockets, options.seconds))
    for name, measured in rates.items():
        ratio = statistics.median(own / base for own, base in zip(measured, rates[BASE], strict=True))
        print(f"{name:20}{statistics.median(measured):8.0f} messages/s {ratio:8.2f}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.database", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--server", choices=KINDS, default="pywsgi", metavar="NAME", help="default: %(default)s")
    parser.add_argument("--sockets", type=int, default=1, help="that ask in turn (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=2, help="of each measurement (default: %(default)s)")
    return parser.parse_args()


def messages_per_second(server: Server, sockets: int, seconds: float) -> float:
    with ExitStack() as stack:
        peers = [stack.enter_context(server.connect(PATH)) for _ in range(sockets)]
        for peer in peers:
            peer.recv_message()
        ask_all(peers)
        begin, answers = time.perf_counter(), 0
        while time.perf_counter() - begin < seconds:
            answers += ask_all(peers)
        return answers / (time.perf_counter() - begin)


def ask_all(peers: list[Peer]) -> int:
    for peer in peers:
        peer.send_message("?")
    for peer in peers:
        if not isinstance(answer := peer.recv_message(), str):
            raise RuntimeError(f"the server does not answer: {answer!r}")
    return len(peers)


if __name__ == "__main__":
    main()
