"""What is measured: the servers, the rows of the table, and the goals, as tables."""

from __future__ import annotations

import sys
from typing import NamedTuple

PEERS = "{peers}"  # the folder of the scripts
FD = "{fd}"  # the listening socket that the server is given
GUNICORN = (sys.executable, "-m", "gunicorn", f"--config={PEERS}/gunicorn_conf.py", f"--bind=fd://{FD}")


class Server(NamedTuple):
    """How a server is started, and how it is called in the table and the chart."""

    label: str
    command: tuple[str, ...]
    path: str = "/"
    build: str | None = None  # of dwebsocket: "compiled", "pure", or "before", an earlier revision, compiled


def script(name: str) -> tuple[str, ...]:
    return (sys.executable, f"{PEERS}/{name}.py", FD)


def gunicorn(worker_class: str, *options: str) -> tuple[str, ...]:
    return (*GUNICORN, f"--worker-class={worker_class}", *options, "mysite.wsgi")


UVICORN = ("--fd", FD, "--no-access-log", "--log-level=warning", "--lifespan=off", "--backlog=4096")
NO_COMPRESSION = ("--ws-per-message-deflate=false", f"--ws-max-size={2 << 20}")


def uvicorn(application: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "uvicorn", *UVICORN, *NO_COMPRESSION, f"mysite.asgi:{application}")


SERVERS: dict[str, Server] = {
    "floor": Server("no codec (uvloop)", script("floor_uvloop")),
    "picows": Server("picows (uvloop)", script("picows_uvloop")),
    "websockets": Server("websockets (uvloop)", script("websockets_asyncio")),
    "websockets-sync": Server("websockets (threads)", script("websockets_sync")),
    "gevent-websocket": Server("gevent-websocket", script("gevent_websocket_pywsgi")),
    "simple-websocket": Server("simple-websocket (gevent)", script("simple_websocket_pywsgi")),
    "channels-uvicorn": Server("Channels (uvicorn)", uvicorn("bare")),
    "channels-documented": Server("Channels (uvicorn), with session and user", uvicorn("documented")),
    "channels-daphne": Server(
        "Channels (daphne)", (sys.executable, "-m", "daphne", "--fd", FD, "--verbosity=0", "mysite.asgi:bare")
    ),
    "pywsgi": Server("dwebsocket (gevent)", script("dwebsocket_pywsgi"), "/echo/", "compiled"),
    "pywsgi-pure": Server("dwebsocket (gevent), pure Python", script("dwebsocket_pywsgi"), "/echo/", "pure"),
    "gunicorn-gevent": Server("dwebsocket (gunicorn gevent)", gunicorn("gevent"), "/echo/", "compiled"),
    "gthread": Server("dwebsocket (gunicorn gthread)", gunicorn("gthread", "--threads=8"), "/echo/", "compiled"),
    "sync": Server("dwebsocket (gunicorn sync)", gunicorn("sync"), "/echo/", "compiled"),
    "pywsgi-before": Server("dwebsocket (gevent), before", script("dwebsocket_pywsgi"), "/echo/", "before"),
    "gthread-before": Server(
        "dwebsocket (gunicorn gthread), before", gunicorn("gthread", "--threads=8"), "/echo/", "before"
    ),
}


class Contender(NamedTuple):
    """One server under one load; `idle` connections are open meanwhile. Without a load, only they are measured."""

    name: str  # unlike all others in the row
    server: str
    load: tuple[str, ...] = ()
    idle: int = 0

    @property
    def connections(self) -> int:
        return self.idle + sum(int(option.split("=")[1]) for option in self.load if option.startswith("--connections="))


class Value(NamedTuple):
    """What a measurement is compared by: its key there, and how it reads."""

    key: str
    unit: str
    digits: int = 0

    def words(self, number: float) -> str:
        return f"{number:,.{self.digits}f} {self.unit}"


MESSAGES = Value("per_second", "messages/s")
CYCLES = Value("per_second", "cycles/s")
REQUESTS = Value("per_second", "requests/s")
SERVER_CPU = Value("server_cpu_us", "µs of CPU", 1)
MEMORY = Value("idle_kib", "KiB", 1)
P99 = Value("p99_us", "µs")


class Goal(NamedTuple):
    """`ours` is to be at least, or at most, `bound` times `peer`; without a peer, `bound` itself."""

    ours: str
    peer: str | None
    bound: float
    at_least: bool = True
    value: Value | None = None  # if not that of the row

    def is_met(self, number: float) -> bool:
        return number >= self.bound if self.at_least else number <= self.bound

    def words(self, value: Value) -> str:
        sign = "≥" if self.at_least else "≤"
        return f"{sign} {self.bound:g} \N{MULTIPLICATION SIGN}" if self.peer else f"{sign} {value.words(self.bound)}"


class Row(NamedTuple):
    """A line of the table: the same work for all contenders."""

    work: str
    value: Value
    contenders: tuple[Contender, ...]
    goals: tuple[Goal, ...] = ()
    half_of: str | None = None  # the row that says the rate of an open loop: half of what its slowest contender reached


def everyone(*load: str, servers: tuple[str, ...], idle: int = 0) -> tuple[Contender, ...]:
    return tuple(Contender(server, server, load, idle) for server in servers)


ALL = (
    "picows",
    "pywsgi",
    "pywsgi-pure",
    "gunicorn-gevent",
    "gevent-websocket",
    "simple-websocket",
    "channels-uvicorn",
    "channels-daphne",
    "websockets",
    "websockets-sync",
    "gthread",
    "sync",
    "floor",
)
# Four descriptors and three threads for each connection: 5,000 connections are often more than a process may have.
ALL_THAT_HOLD_THOUSANDS = tuple(server for server in ALL if server != "websockets-sync")
OURS_AND_FASTEST = ("picows", "pywsgi")
ECHO = ("echo", "--size=64", "--connections=100", "--depth=1")
MANY = ("--size=64", "--connections=1000")
CHURN = ("churn", "--size=64", "--connections=16")
GET = ("get", "--path=/", "--connections=16")

ROWS: dict[str, Row] = {
    "echo": Row(
        "64 B text echo, 100 connections, 1 in flight",
        MESSAGES,
        everyone(*ECHO, servers=ALL),
        (
            Goal("pywsgi", "picows", 1.0),
            Goal("pywsgi", "channels-uvicorn", 10),
            Goal("pywsgi", "gevent-websocket", 4),
        ),
    ),
    "client": Row(
        "the fastest of these, and the load client 0.5 µs slower for each message",
        MESSAGES,
        (Contender("as it is", "picows", ECHO), Contender("slower client", "picows", (*ECHO, "--spin=500"))),
        (Goal("slower client", "as it is", 0.95),),
    ),
    "pipeline": Row(
        "64 B text echo, 100 connections, 16 in flight",
        MESSAGES,
        everyone("echo", "--size=64", "--connections=100", "--depth=16", servers=OURS_AND_FASTEST),
        (Goal("pywsgi", "picows", 1.5),),
    ),
    "large": Row(
        "1 MiB binary echo, 8 connections",
        MESSAGES,
        everyone("echo", f"--size={1 << 20}", "--binary", "--connections=8", servers=OURS_AND_FASTEST),
        (Goal("pywsgi", "picows", 1.0),),
    ),
    "pure": Row(
        "64 B text echo, 100 connections, without a compiler",
        MESSAGES,
        everyone(*ECHO, servers=("pywsgi", "pywsgi-pure")),
        (Goal("pywsgi-pure", "pywsgi", 0.75),),
    ),
    "churn": Row(
        "connect, opening handshake, one echo, closing handshake",
        CYCLES,
        (
            *everyone(*CHURN, servers=("channels-uvicorn", "channels-documented", "pywsgi")),
            Contender("GET", "pywsgi", GET),
        ),
        (
            Goal("pywsgi", "channels-uvicorn", 1.5),
            Goal("pywsgi", "channels-documented", 1.5),
            Goal("pywsgi", "GET", 1.5, at_least=False, value=SERVER_CPU),
        ),
    ),
    "memory": Row(
        "memory of an idle connection, 5,000 connections",
        MEMORY,
        everyone(servers=ALL_THAT_HOLD_THOUSANDS, idle=5000),
        (Goal("pywsgi", None, 15, at_least=False),),
    ),
    "thousand": Row(
        "64 B text echo, 1,000 connections, 1 in flight",
        MESSAGES,
        everyone("echo", *MANY, servers=OURS_AND_FASTEST),
    ),
    "latency": Row(
        "99th percentile of latency at half load, 1,000 connections",
        P99,
        everyone("rate", *MANY, servers=OURS_AND_FASTEST),
        (Goal("pywsgi", "picows", 1.2, at_least=False),),
        half_of="thousand",
    ),
    "idle": Row(
        "64 B text echo, 100 connections beside 10,000 idle ones",
        MESSAGES,
        (Contender("alone", "pywsgi", ECHO), Contender("beside 10,000", "pywsgi", ECHO, idle=10_000)),
        (Goal("beside 10,000", "alone", 0.9),),
    ),
    "threads": Row(
        "64 B text echo, 100 connections, threads",
        MESSAGES,
        everyone(*ECHO, servers=("gthread", "websockets-sync", "sync")),
        (Goal("gthread", "websockets-sync", 3), Goal("sync", "websockets-sync", 3)),
    ),
    "sync": Row(
        "plain HTTP on one sync worker beside 4,000 idle WebSockets",
        REQUESTS,
        (
            Contender("alone", "sync", ("get", "--path=/", "--connections=4")),
            Contender("beside 4,000", "sync", ("get", "--path=/", "--connections=4"), idle=4000),
        ),
        (Goal("beside 4,000", "alone", 0.9),),
    ),
}


def beside_before(work: str, value: Value, *load: str, server: str = "pywsgi", idle: int = 0) -> Row:
    """The same work for this revision and for the one before: a change must cost no more than a fiftieth."""
    before = f"{server}-before"
    at_least = value is not MEMORY
    goal = Goal(server, before, 0.98 if at_least else 1.02, at_least=at_least)
    return Row(work, value, everyone(*load, servers=(server, before), idle=idle), (goal,))


#: The rows of `--before REVISION`.
BEFORE: dict[str, Row] = {
    "before-echo": beside_before("64 B text echo, 100 connections, 1 in flight", MESSAGES, *ECHO),
    "before-pipeline": beside_before(
        "64 B text echo, 100 connections, 16 in flight",
        MESSAGES,
        "echo",
        "--size=64",
        "--connections=100",
        "--depth=16",
    ),
    "before-large": beside_before(
        "1 MiB binary echo, 8 connections", MESSAGES, "echo", f"--size={1 << 20}", "--binary", "--connections=8"
    ),
    "before-churn": beside_before("connect, opening handshake, one echo, closing handshake", CYCLES, *CHURN),
    "before-memory": beside_before("memory of an idle connection, 5,000 connections", MEMORY, idle=5000),
    "before-threads": beside_before("64 B text echo, 100 connections, threads", MESSAGES, *ECHO, server="gthread"),
}
ALL_ROWS = ROWS | BEFORE
