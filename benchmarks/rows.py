"""What is measured: the servers, the rows of the table, and the goals, as tables."""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

PEERS = "{peers}"  # the folder of the scripts
FD = "{fd}"  # the listening socket that the server is given
GUNICORN = (sys.executable, "-m", "gunicorn", f"--config={PEERS}/gunicorn_conf.py", f"--bind=fd://{FD}")


PAYLOAD = "".join("abcdefghijklmnopqrstuvwxyz0123456789"[i % 36] for i in range(128))  # that is published


class Publishing(Enum):
    """How the load client publishes a message."""

    RECORDED = "it repeats to Redis what the publisher has said there once"
    LIVE = "it asks the publisher's process for each message, which says something else each time"
    HTTP = "it sends a POST to the server"


class Fan(NamedTuple):
    """How a server fans messages out: what publishes them, and what members get."""

    publisher: tuple[str, ...] = ()
    publishing: Publishing = Publishing.RECORDED
    greeting: str = "joined"  # the message that tells members that they are members begins with it; without: the 101
    expected: str = PAYLOAD
    engine_io: bool = False  # the protocol below socket.io

    @property
    def options(self) -> tuple[str, ...]:
        """For the load client."""
        options = (f"--greeting={self.greeting}", f"--expected={self.expected}")
        return (*options, "--engine-io") if self.engine_io else options


class Server(NamedTuple):
    """How a server is started, and how it is called in the table and the chart."""

    label: str
    command: tuple[str, ...]
    path: str = "/"
    build: str | None = None  # of dwebsocket: "compiled", "pure", or "before", an earlier revision, compiled
    fan: Fan | None = None
    needs: tuple[str, ...] = ()  # what is not of PyPI; without it, the server is left out
    processes: int = 1


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
    "parked-pywsgi": Server("dwebsocket (gevent), WebSocketView", script("dwebsocket_pywsgi"), "/parked/", "compiled"),
    "parked-sync": Server("dwebsocket (gunicorn sync), WebSocketView", gunicorn("sync"), "/parked/", "compiled"),
    "parked-gthread": Server(
        "dwebsocket (gunicorn gthread), WebSocketView", gunicorn("gthread", "--threads=8"), "/parked/", "compiled"
    ),
    "stays-pywsgi": Server("dwebsocket (gevent), stay_open()", script("dwebsocket_pywsgi"), "/stays/", "compiled"),
    "stays-sync": Server("dwebsocket (gunicorn sync), stay_open()", gunicorn("sync"), "/stays/", "compiled"),
    "pywsgi-before": Server("dwebsocket (gevent), before", script("dwebsocket_pywsgi"), "/echo/", "before"),
    "gthread-before": Server(
        "dwebsocket (gunicorn gthread), before", gunicorn("gthread", "--threads=8"), "/echo/", "before"
    ),
}


def publisher(kind: str) -> tuple[str, ...]:
    return (sys.executable, f"{PEERS}/publish.py", kind)


REDIS = ("redis-server",)
ROOM, PARKED_ROOM = "/rooms/{room}/", "/parked-rooms/{room}/"
OURS = Fan(publisher("dwebsocket"))
PLAIN = Fan(publisher("redis"))
SOCKETIO = f'42["message","{PAYLOAD}"]'
SOCKETIO_PATH = "/socket.io/?EIO=4&transport=websocket&room={room}"

#: Each gets from Redis what is published, but nchan, which is given it.
FAN_SERVERS: dict[str, Server] = {
    "fan-floor": Server("no codec (uvloop)", script("fan_floor_uvloop"), ROOM, fan=PLAIN, needs=REDIS),
    "fan-pywsgi": Server("dwebsocket (gevent)", script("dwebsocket_pywsgi"), ROOM, "compiled", OURS, REDIS),
    "fan-gunicorn-gevent": Server("dwebsocket (gunicorn gevent)", gunicorn("gevent"), ROOM, "compiled", OURS, REDIS),
    "fan-gthread": Server(
        "dwebsocket (gunicorn gthread)", gunicorn("gthread", "--threads=8"), ROOM, "compiled", OURS, REDIS
    ),
    "fan-parked-pywsgi": Server(
        "dwebsocket (gevent), WebSocketView", script("dwebsocket_pywsgi"), PARKED_ROOM, "compiled", OURS, REDIS
    ),
    "fan-parked-sync": Server(
        "dwebsocket (gunicorn sync), WebSocketView", gunicorn("sync"), PARKED_ROOM, "compiled", OURS, REDIS
    ),
    "fan-websockets": Server("websockets.broadcast (uvloop)", script("fan_websockets"), ROOM, fan=PLAIN, needs=REDIS),
    "fan-channels-core": Server(
        "Channels (uvicorn), channels_redis core",
        uvicorn("core_members"),
        ROOM,
        fan=Fan(publisher("channels-core"), Publishing.LIVE),
        needs=REDIS,
    ),
    "fan-channels-pubsub": Server(
        "Channels (uvicorn), channels_redis pub/sub",
        uvicorn("pubsub_members"),
        ROOM,
        fan=Fan(publisher("channels-pubsub")),
        needs=REDIS,
    ),
    "fan-python-socketio": Server(
        "python-socketio (gevent)",
        script("fan_socketio_pywsgi"),
        SOCKETIO_PATH,
        # Its answer to 40 comes when it has made the connection a member of its room.
        fan=Fan(publisher("python-socketio"), greeting='40{"sid":', expected=SOCKETIO, engine_io=True),
        needs=REDIS,
    ),
    "fan-socket.io": Server(
        "socket.io (node)",
        ("node", f"{PEERS}/socketio/server.mjs", FD),
        SOCKETIO_PATH,
        fan=Fan(("node", f"{PEERS}/socketio/publish.mjs"), greeting='42["joined"]', expected=SOCKETIO, engine_io=True),
        needs=(*REDIS, "node", "npm"),
    ),
    "fan-nchan": Server(
        "nchan (nginx, C)",
        (sys.executable, f"{PEERS}/fan_nchan.py", "{nginx}", "{nchan}", FD),
        ROOM,
        fan=Fan(publishing=Publishing.HTTP, greeting=""),
        needs=("nchan", *REDIS),
    ),
    "joins-pywsgi": Server("dwebsocket (gevent)", script("dwebsocket_pywsgi"), "/joins/", "compiled", OURS, REDIS),
    "joins-gthread": Server(
        "dwebsocket (gunicorn gthread)", gunicorn("gthread", "--threads=8"), "/joins/", "compiled", OURS, REDIS
    ),
    "joins-channels-core": Server(
        "Channels (uvicorn), channels_redis core", uvicorn("core_joiners"), fan=PLAIN, needs=REDIS
    ),
    "joins-channels-pubsub": Server(
        "Channels (uvicorn), channels_redis pub/sub", uvicorn("pubsub_joiners"), fan=PLAIN, needs=REDIS
    ),
    "one-room": Server("dwebsocket (gevent)", script("dwebsocket_pywsgi"), "/echo-in/10000/", "compiled", OURS, REDIS),
    "rooms-of-ten": Server(
        "dwebsocket (gevent), rooms of ten", script("dwebsocket_pywsgi"), "/echo-in/10/", "compiled", OURS, REDIS
    ),
    # What publishes is measured itself, and there is no server.
    "publish-redis": Server("redis-py, publish()", publisher("redis"), fan=PLAIN, needs=REDIS),
    "publish-dwebsocket": Server("dwebsocket, group.send()", publisher("dwebsocket"), "", "compiled", OURS, REDIS),
    "publish-channels-core": Server(
        "channels_redis core, group_send()", publisher("channels-core"), fan=PLAIN, needs=REDIS
    ),
    "publish-channels-pubsub": Server(
        "channels_redis pub/sub, group_send()", publisher("channels-pubsub"), fan=PLAIN, needs=REDIS
    ),
    "publish-python-socketio": Server("python-socketio, emit()", publisher("python-socketio"), fan=PLAIN, needs=REDIS),
}
GROUPS_OF_EACH = 5  # in which a connection is present: as in peers/mysite/rooms.py
PYWSGI, FOUR = "dwebsocket (gevent)", "dwebsocket (gunicorn gevent, 4 processes)"
BACK = "/comes-back/{rooms}/"


def pywsgi(path: str, label: str = PYWSGI) -> Server:
    return Server(label, script("dwebsocket_pywsgi"), path, "compiled", OURS, REDIS)


def attends(rooms: str, size: int) -> Server:
    return pywsgi(f"/attends/{rooms}/{size}/{{is_present}}/")


#: Histories and presence, which the peers have not, or not alike: each is compared with our own groups without.
KEPT_SERVERS: dict[str, Server] = {
    "publish-history": Server(
        "dwebsocket, group.send() with a history", publisher("dwebsocket-history"), "", "compiled", OURS, REDIS
    ),
    "comes": pywsgi(f"/comes/{PAYLOAD}/"),
    "comes-back": pywsgi(BACK),
    "comes-back-4": Server(FOUR, gunicorn("gevent", "--workers=4"), BACK, "compiled", OURS, REDIS, 4),
    "attends-all": attends("plain", 10_000),
    "attends-all-kept": attends("kept", 10_000),
    "attends-ten": attends("plain", 10),
    "attends-ten-kept": attends("kept", 10),
    "present-joins": pywsgi("/present-joins/"),
}
SERVERS |= FAN_SERVERS | KEPT_SERVERS


class Contender(NamedTuple):
    """One server under one load; `idle` connections are open meanwhile. Without a load, only they are measured."""

    name: str  # unlike all others in the row
    server: str
    load: tuple[str, ...] = ()
    idle: int = 0

    def option(self, name: str, default: int = 0) -> int:
        """Of the load."""
        found = [part.partition("=")[2] for part in self.load if part.startswith(f"--{name}=")]
        return int(found[-1]) if found else default

    @property
    def connections(self) -> int:
        return self.idle + self.option("connections")

    def small(self) -> Contender:
        """The same with a twentieth of the connections, where it is the connections that take the time."""
        if self.load[:1] == ("recover",):
            return self._replace(load=(*self.load, f"--connections={self.option('connections') // 20}"))
        if self.load[:1] == ("attend",):
            return self._replace(load=("attend", "--rest=6"), idle=self.idle // 20)
        return self


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
DELIVERIES = Value("per_second", "deliveries/s")
JOINS = Value("per_second", "joins/s")
MEMBERSHIP = Value("membership_kib", "KiB", 2)
REDIS_CPU = Value("redis_cpu_us", "µs of CPU of Redis each", 1)
LAST = Value("last_ms", "ms")
READS = Value("reads", "reads")
READS_EACH = Value("reads_each", "reads for each group and process", 2)
COMMANDS = Value("commands_per_second", "commands/s", 2)
PRESENCE = Value("presence_bytes", "bytes")
PRESENCE_IN_REDIS = Value("redis_presence_bytes", "bytes in Redis")


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
    # The row that says the rate of an open loop: half of what the slowest contender reached there, or another part.
    half_of: str | None = None
    part: float = 0.5
    quick: tuple[str, ...] = ()  # the contenders that --quick measures; without: all
    also: tuple[Value, ...] = ()  # what is told beside the value


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
            *everyone(*CHURN, servers=("channels-uvicorn", "channels-documented", "pywsgi", "parked-pywsgi")),
            Contender("GET", "pywsgi", GET),
        ),
        (
            Goal("pywsgi", "channels-uvicorn", 1.5),
            Goal("pywsgi", "channels-documented", 1.5),
            Goal("parked-pywsgi", "channels-documented", 1.5),
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
    "parked-echo": Row(
        "64 B text echo, 100 connections, a loop beside a WebSocketView",
        MESSAGES,
        everyone(*ECHO, servers=("pywsgi", "parked-pywsgi")),
        (Goal("parked-pywsgi", "pywsgi", 0.8),),
    ),
    "parked-threads": Row(
        "64 B text echo, 100 connections, threads, a loop beside a WebSocketView",
        MESSAGES,
        everyone(*ECHO, servers=("sync", "parked-sync")),
        (Goal("parked-sync", "sync", 0.9),),
    ),
    "parked-memory": Row(
        "memory of an idle connection, 5,000 connections, parked",
        MEMORY,
        everyone(
            servers=("pywsgi", "parked-pywsgi", "stays-pywsgi", "parked-sync", "stays-sync", "parked-gthread"),
            idle=5000,
        ),
        (
            Goal("pywsgi", None, 17, at_least=False),
            Goal("parked-pywsgi", None, 8, at_least=False),
            Goal("parked-sync", None, 9, at_least=False),
            Goal("parked-gthread", None, 9, at_least=False),
        ),
    ),
    # One process may have 20,000 descriptors on many machines.
    "parked-memory-many": Row(
        "memory of an idle connection, 19,500 connections, parked",
        MEMORY,
        everyone(servers=("parked-pywsgi", "parked-sync"), idle=19_500),
        (Goal("parked-pywsgi", None, 8, at_least=False), Goal("parked-sync", None, 9, at_least=False)),
    ),
    "parked-idle": Row(
        "64 B text echo, 100 connections beside 19,500 parked ones",
        MESSAGES,
        (
            Contender("alone", "parked-pywsgi", ECHO),
            Contender("beside 19,500", "parked-pywsgi", ECHO, idle=19_500),
        ),
        (Goal("beside 19,500", "alone", 0.9),),
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

GEVENT, THREADS, FLOOR = "fan-pywsgi", "fan-gthread", "fan-floor"
EVERY_FAN = (
    FLOOR,
    GEVENT,
    "fan-gunicorn-gevent",
    THREADS,
    "fan-websockets",
    "fan-socket.io",
    "fan-python-socketio",
    "fan-channels-core",
    "fan-channels-pubsub",
    "fan-nchan",
)
#: Without those that need seconds for a message to 10,000. Threads have fewer members: with two descriptors for each,
#: 10,000 are often more than a process may have.
FAST_FANS = (FLOOR, GEVENT, "fan-websockets", "fan-socket.io", "fan-nchan")
FAN = ("fan", "--connections=1000", "--rooms=1")
FAN_1, FAN_4 = (*FAN, "--depth=1"), (*FAN, "--depth=4")
# As many deliveries under way as in one room of 1,000 with one message.
FAN_ROOMS = ("fan", "--connections=10000", "--rooms=1000", "--depth=100")
JOIN = ("echo", "--size=64", "--connections=100", "--depth=1")

FAN_ROWS: dict[str, Row] = {
    "fan": Row(
        "fan-out to one room of 1,000, 128 B, 1 message under way",
        DELIVERIES,
        everyone(*FAN_1, servers=EVERY_FAN),
        (
            Goal(GEVENT, FLOOR, 1.0),
            Goal(GEVENT, "fan-channels-core", 25),
            Goal(GEVENT, "fan-channels-pubsub", 25),
            Goal(GEVENT, "fan-socket.io", 1.5),
            Goal(GEVENT, "fan-websockets", 1.5),
            Goal(THREADS, GEVENT, 0.6),
        ),
        quick=(FLOOR, GEVENT),
    ),
    "fan-4": Row(
        "fan-out to one room of 1,000, 128 B, 4 messages under way",
        DELIVERIES,
        everyone(*FAN_4, servers=EVERY_FAN),
        (
            Goal(GEVENT, FLOOR, 2.5),
            Goal(GEVENT, "fan-channels-core", 60),
            Goal(GEVENT, "fan-channels-pubsub", 60),
            Goal(THREADS, GEVENT, 0.6),
        ),
    ),
    "fan-client": Row(
        "the same, and the load client 0.2 µs slower for each delivery",
        DELIVERIES,
        (Contender("as it is", GEVENT, FAN_4), Contender("slower client", GEVENT, (*FAN_4, "--spin=200"))),
        (Goal("slower client", "as it is", 0.95),),
    ),
    "fan-10k": Row(
        "fan-out to one room of 10,000, 128 B, 4 messages under way",
        DELIVERIES,
        (
            *everyone("fan", "--connections=10000", "--rooms=1", "--depth=4", servers=FAST_FANS),
            Contender("9,000 members", THREADS, ("fan", "--connections=9000", "--rooms=1", "--depth=4")),
        ),
        (Goal(GEVENT, FLOOR, 1.5), Goal("9,000 members", GEVENT, 0.6)),
    ),
    "fan-parked": Row(
        "fan-out to one room of 10,000, 128 B, 4 messages under way, views that wait beside parked ones",
        DELIVERIES,
        everyone(
            "fan",
            "--connections=10000",
            "--rooms=1",
            "--depth=4",
            servers=(GEVENT, "fan-parked-pywsgi", "fan-parked-sync"),
        ),
        (Goal("fan-parked-pywsgi", GEVENT, 0.95), Goal("fan-parked-sync", GEVENT, 0.6)),
    ),
    "fan-rooms": Row(
        "fan-out to 1,000 rooms of 10 in turn, 128 B, 1,000 deliveries under way",
        DELIVERIES,
        (
            Contender("one room of 1,000", GEVENT, FAN_1),
            *everyone(*FAN_ROOMS, servers=FAST_FANS),
            Contender("rooms of 9", THREADS, ("fan", "--connections=9000", "--rooms=1000", "--depth=111")),
        ),
        (Goal(GEVENT, "one room of 1,000", 0.5), Goal("rooms of 9", GEVENT, 0.6)),
    ),
    "fan-latency": Row(
        "99th percentile of publish to the last of 1,000, at a tenth of the highest rate",
        P99,
        everyone(*FAN, "--seconds=10", servers=(FLOOR, GEVENT, THREADS)),
        (Goal(GEVENT, FLOOR, 1.2, at_least=False),),
        half_of="fan",
        part=0.1 / 1000,  # of deliveries
    ),
    "fan-joins": Row(
        "leave a room, join a new one, answer; 100 connections",
        JOINS,
        everyone(*JOIN, servers=("joins-pywsgi", "joins-gthread", "joins-channels-core", "joins-channels-pubsub")),
    ),
    "fan-membership": Row(
        "memory of a membership, 5,000 connections",
        MEMBERSHIP,
        everyone("membership", servers=("one-room", "rooms-of-ten"), idle=5000),
        (Goal("one-room", None, 0.5, at_least=False),),
    ),
    "fan-publish": Row(
        "publish from a process outside, 128 B",
        MESSAGES,
        everyone(
            "publish",
            servers=(
                "publish-redis",
                "publish-dwebsocket",
                "publish-python-socketio",
                "publish-channels-core",
                "publish-channels-pubsub",
            ),
        ),
        (Goal("publish-dwebsocket", "publish-redis", 0.8),),
    ),
}

PUBLISH_8 = ("publish", "--threads=8")
RECOVER = ("recover", "--connections=2000", "--missed=50")
EACH_OF_TEN = (*RECOVER, "--rooms=1", "--each=10")
ATTEND = ("attend", "--rest=20")
#: A quiet history is looked at every 24 to 36 seconds (CHECK).
ATTEND_KEPT = ("attend", "--rest=60")

KEPT_ROWS: dict[str, Row] = {
    "history-publish": Row(
        "publish from a process outside, 128 B, with a history of 100 and without",
        MESSAGES,
        (
            *everyone("publish", servers=("publish-dwebsocket", "publish-history")),
            Contender("8 threads", "publish-dwebsocket", PUBLISH_8),
            Contender("8 threads with a history", "publish-history", PUBLISH_8),
        ),
        (
            Goal("publish-history", "publish-dwebsocket", 0.5),
            Goal("8 threads with a history", "8 threads", 0.5),
        ),
        quick=("publish-dwebsocket", "publish-history"),
        also=(REDIS_CPU,),
    ),
    "history-recover": Row(
        "2,000 come back at once, until the last one has the 50 messages of 128 B that it has missed in each group",
        LAST,
        (
            Contender("none missed", "comes", (*RECOVER, "--rooms=1", "--missed=1")),
            Contender("one group", "comes-back", (*RECOVER, "--rooms=1")),
            Contender("one of ten groups", "comes-back", (*RECOVER, "--rooms=10")),
            Contender("ten groups each", "comes-back", EACH_OF_TEN),
            Contender("4: one group", "comes-back-4", (*RECOVER, "--rooms=1")),
            Contender("4: one of ten groups", "comes-back-4", (*RECOVER, "--rooms=10")),
            Contender("4: ten groups each", "comes-back-4", EACH_OF_TEN),
        ),
        tuple(
            Goal(name, None, 1, at_least=False, value=READS_EACH)
            for at in ("", "4: ")
            for name in (f"{at}one group", f"{at}one of ten groups", f"{at}ten groups each")
        ),
        quick=("one group", "4: one group"),
        also=(READS, REDIS_CPU),
    ),
    "presence-rest": Row(
        "10,000 that are present in five groups each, and nothing happens",
        COMMANDS,
        (
            Contender("in the same", "attends-all", ATTEND, idle=10_000),
            Contender("in the same, with histories", "attends-all-kept", ATTEND_KEPT, idle=10_000),
            Contender("in 5,000 of ten", "attends-ten", ATTEND, idle=10_000),
            Contender("in 5,000 of ten, with histories", "attends-ten-kept", ATTEND_KEPT, idle=10_000),
        ),
        tuple(
            Goal(name, None, 1, at_least=False)
            for name in ("in the same", "in the same, with histories", "in 5,000 of ten")
        ),
        quick=("in 5,000 of ten, with histories",),
        also=(PRESENCE, PRESENCE_IN_REDIS),
    ),
    "presence-joins": Row(
        "leave a room, join a new one and be present there, answer; 100 connections",
        JOINS,
        everyone(*JOIN, servers=("joins-pywsgi", "present-joins")),
        also=(REDIS_CPU,),
    ),
}
ROWS |= FAN_ROWS | KEPT_ROWS


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


def narrow(keeps: Callable[[Row, Contender], bool]) -> None:
    """Take the other contenders out of all rows, and the goals that name them."""
    for name, row in ALL_ROWS.items():
        kept = tuple(each for each in row.contenders if keeps(row, each))
        names = {None, *(each.name for each in kept)}
        goals = tuple(goal for goal in row.goals if {goal.ours, goal.peer} <= names)
        ALL_ROWS[name] = row._replace(contenders=kept, goals=goals)
