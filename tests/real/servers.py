"""The WSGI servers that the tests talk to, each started as a process of its own on a port of the kernel's choice."""

from __future__ import annotations

import json
import os
import re
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import gunicorn as gunicorn_package
import trustme

from tests.peer import Headers, Peer, Response
from tests.project import gunicorn_conf

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 20.0
MANY = 20
ADDRESS = re.compile(r"(?:https?://|TCP address )127\.0\.0\.1:([1-9]\d*)")

# A line of a log that says something went wrong: of Python, of our LOGGING, of gunicorn, of wsgiref.
TROUBLE = re.compile(
    r"Traceback|Bad file descriptor|Exception ignored|(?<!access: - )Broken pipe|Invalid (?:request|HTTP|http)"
    r"|^(WARNING|ERROR|CRITICAL) |\[(WARNING|ERROR|CRITICAL)\]|\bcode \d{3}, message",
    re.MULTILINE,
)

# What uWSGI's own router has to say of clients that leave, whatever they spoke.
ROUTER = re.compile(r"^\[uwsgi-http key.*\n", re.MULTILINE)

# The lines of one log record behind its first: a traceback, for instance.
REST_OF_RECORD = r".*\n(?:(?!(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) |access: |\[|127\.0\.0\.1 ).*\n)*"

#: gunicorn 23 with threads never sees a second request that came with the first, and once it has accepted as many
#: connections as it takes, it never looks at them again.
OLD_GUNICORN = gunicorn_package.version_info < (24,)

T = TypeVar("T")


@dataclass(frozen=True)
class Kind:
    """How to start and stop one WSGI server, and what it can do."""

    module: str
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGTERM
    modes: tuple[str, ...] = ("detached", "attached")
    tls: bool = False
    has_halves: bool = True  # one side of a connection may end before the other
    pipelines: bool = True  # answers a second request that came with the first
    keeps_alive: bool = True  # serves a second HTTP request on the same connection
    answers_itself: bool = False  # has sent the 101 before the view is called
    keeps_early: bool = True  # gives away what it has read behind the opening handshake
    attached_at_once: int = MANY  # attached WebSockets it can hold at the same time, as far as the tests ask
    measured: bool = True  # its coverage: a tracer that follows greenlets outlives neither uWSGI's Python nor a signal
    worker_timeout: float = 0  # seconds after which it kills a worker that does not come back


def runserver(*arguments: str, **facts: Any) -> Kind:
    options = ("runserver", "127.0.0.1:0", "--noreload", *arguments)
    return Kind("tests.project.manage", options, stop_signal=signal.SIGINT, **facts)


def gunicorn(worker: str, *arguments: str, **facts: Any) -> Kind:
    options = ("tests.project.wsgi", "--config=tests/project/gunicorn_conf.py", f"--worker-class={worker}", *arguments)
    return Kind("gunicorn", options, worker_timeout=gunicorn_conf.timeout, **facts)


def serve(name: str, **facts: Any) -> Kind:
    return Kind("tests.project.serve", (name,), **facts)


def uwsgi(mode: str, **facts: Any) -> Kind:
    return serve(f"uwsgi-{mode}", keeps_alive=False, keeps_early=False, measured=False, **facts)


DETACHED, ATTACHED = ("detached",), ("attached",)

#: An "attached" mode alone: that server is attached whatever the settings say.
KINDS = {
    "runserver": runserver(environment={"DJANGO_DEBUG": "1"}),
    "runserver-nothreading": runserver("--nothreading", keeps_alive=False, attached_at_once=1),
    "pywsgi": serve("pywsgi"),
    "pywsgi-tls": serve("pywsgi", modes=ATTACHED, tls=True, has_halves=False),
    "gunicorn-sync": gunicorn("sync", keeps_alive=False, attached_at_once=1),
    "gunicorn-gthread": gunicorn("gthread", "--threads=2", pipelines=not OLD_GUNICORN, attached_at_once=2),
    "gunicorn-gthread-tls": gunicorn(
        "gthread", "--threads=20", modes=ATTACHED, tls=True, pipelines=not OLD_GUNICORN, has_halves=False
    ),
    "gunicorn-gevent": gunicorn("gevent"),
    "gunicorn-gevent-tls": gunicorn("gevent", modes=ATTACHED, tls=True, has_halves=False),
    "gevent-websocket": serve("gevent-websocket", modes=DETACHED, answers_itself=True),
    "gunicorn-gevent-websocket": gunicorn(
        "geventwebsocket.gunicorn.workers.GeventWebSocketWorker", modes=DETACHED, answers_itself=True
    ),
    "uwsgi-gevent": uwsgi("gevent"),
    "uwsgi-http": uwsgi("http", modes=DETACHED, has_halves=False),
    "uwsgi-threads": uwsgi("threads"),
    "uwsgi-plain": uwsgi("plain", attached_at_once=1),
    "werkzeug": serve("werkzeug", modes=DETACHED, keeps_alive=False, stop_signal=signal.SIGINT),
    "unknown": serve("unknown", modes=ATTACHED, keeps_alive=False, stop_signal=signal.SIGINT),
    "cheroot": serve("cheroot", attached_at_once=3),
    "cheroot-tls": serve("cheroot", modes=ATTACHED, tls=True, has_halves=False, attached_at_once=3),
}

#: Werkzeug again, as django-extensions starts it.
RUNSERVER_PLUS = serve("runserver-plus", stop_signal=signal.SIGINT)

#: None of these gives away the socket of a connection.
UNSUPPORTED = {"waitress": serve("waitress"), "granian": serve("granian")}


def combinations(*modes: str, **facts: Any) -> list[tuple[str, str]]:
    """The servers of ``KINDS`` of whom these ``facts`` are true, each in those of ``modes`` that it has."""
    return [
        (name, mode)
        for mode in modes or ("detached", "attached")
        for name, kind in KINDS.items()
        if mode in kind.modes and all(getattr(kind, fact) == value for fact, value in facts.items())
    ]


class Server:
    """One running server. Its log is read from a mark on, which moves as a test takes what it expected."""

    def __init__(self, kind: Kind, directory: Path, *, middleware: bool = True, **settings: Any) -> None:
        self.kind = kind
        self.notes = directory / "notes"
        self.notes.mkdir()
        self.log_file = directory / "log"
        self.mark = 0
        environment = {
            **os.environ,
            **kind.environment,
            **{name: json.dumps(value) for name, value in settings.items()},
            "DJANGO_SETTINGS_MODULE": "tests.project.settings",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            "PYTHONUNBUFFERED": "1",
            # What is measured is what the process holds, not over how many arenas glibc has spread it: that is chance.
            "MALLOC_ARENA_MAX": "1",
            "TEST_NOTES": str(self.notes),
            "TEST_WEBSOCKET_MIDDLEWARE": str(int(middleware)),
        }
        if not kind.measured:
            environment = {name: value for name, value in environment.items() if not name.startswith("COVERAGE_")}
        arguments = kind.arguments
        self.tls: ssl.SSLContext | None = None
        if kind.tls:
            arguments += self._certify(directory)
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", kind.module, *arguments],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        detached = "detached" in kind.modes and settings.get("WEBSOCKET_DETACH", True)
        self.at_once = MANY if detached else kind.attached_at_once

    def _certify(self, directory: Path) -> tuple[str, ...]:
        """Make a certificate that our peers trust; the arguments that name it."""
        authority = trustme.CA()
        self.tls = ssl.create_default_context()
        authority.configure_trust(self.tls)
        issued = authority.issue_cert("127.0.0.1")
        files = (directory / "certificate.pem", directory / "key.pem")
        issued.cert_chain_pems[0].write_to_path(files[0])
        issued.private_key_pem.write_to_path(files[1])
        options = ("--certfile={}", "--keyfile={}") if self.kind.module == "gunicorn" else ("{}", "{}")
        return tuple(option.format(file) for option, file in zip(options, files, strict=True))

    def wait_until_up(self) -> None:
        self.host = "127.0.0.1"
        self.port = int(self.until(lambda: ADDRESS.search(self.log()), "the port").group(1))
        self.worker_pid = int(self.get("/pid/").body)

    # HTTP and WebSockets

    def peer(self, timeout: float = Peer.timeout) -> Peer:
        return Peer(self.host, self.port, timeout, tls=self.tls)

    def connect(self, path: str = "/echo/", headers: Headers | None = None, early: bytes = b"") -> Peer:
        return self.peer().connect(path, headers, early)

    def url(self, path: str = "/echo/") -> str:
        return f"{'wss' if self.tls else 'ws'}://{self.host}:{self.port}{path}"

    @property
    def origin(self) -> str:
        """What a browser calls the pages of this server."""
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"

    def get(self, path: str, headers: Headers | None = None) -> Response:
        """The answer to plain HTTP, once the server has ended the connection too."""
        with self.peer() as peer:
            response = peer.http(path, {"Connection": "close", **(headers or {})})
            assert peer.read_to_eof() == b""
            return response

    # What the process does

    def until(self, condition: Callable[[], T | None], wanted: str) -> T:
        """What ``condition`` returns once that is true, for a condition that comes about in its own time."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (result := condition()):
            assert self.process.poll() is None, f"the server has ended:\n{self.log()}"
            assert time.monotonic() < deadline, f"waited in vain for {wanted}; new in the log:\n{self.news()}"
            time.sleep(0.01)
        return result

    def file_descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.worker_pid}/fd"))

    def resident_mib(self) -> float:
        """The memory that the worker occupies just now."""
        pages = int(Path(f"/proc/{self.worker_pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)

    def note(self, name: str) -> str:
        """What the view left under ``?note=NAME``, once it has."""
        path = self.notes / name
        return self.until(lambda: path.exists() and path.read_text(), f"the note {name}").strip()

    def wake(self, name: str) -> None:
        """Let the view that sleeps under ``?note=NAME`` go on."""
        (self.notes / f"{name}.wake").touch()

    # The log

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def news(self) -> str:
        """The log from the mark on."""
        return self.log()[self.mark :]

    def expect_log(self, pattern: str) -> str:
        """The log from the mark to the end of the record that matches, once it is there. The mark moves behind it."""
        regex = re.compile(pattern + REST_OF_RECORD)
        end = self.until(lambda: regex.search(self.news()), f"the log line {pattern!r}").end()
        log = self.news()[:end]
        self.mark += end
        return log

    def take_news(self) -> str:
        """The log from the mark to its end. The mark moves there."""
        news = self.news()
        self.mark += len(news)
        return news

    def stop(self) -> str:
        """End the process as an operator would, which lets its exit functions run; the whole log comes back."""
        for _ in range(2):  # once in hundreds of times coverage's tracer swallows the KeyboardInterrupt
            if self.process.poll() is None:
                self.process.send_signal(self.kind.stop_signal)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(PATIENCE_SECONDS)
                return self.log()
            if self.kind.stop_signal is not signal.SIGINT:
                break
        self.kill()
        raise AssertionError(f"the server did not stop:\n{self.log()}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def running(name: str, directory: Path, **options: Any) -> Iterator[Server]:
    """A server of ``KINDS`` with settings of its own, stopped at the end, when its log must be quiet."""
    server = Server(KINDS[name], directory, **options)
    try:
        server.wait_until_up()
        yield server
        server.get("/plain/")  # a Ctrl-C while runserver answers is lost: wsgiref takes it for an error of the view
    finally:
        server.stop()
    assert_quiet(server.news())


def assert_quiet(log: str) -> None:
    """Fail if a log holds a traceback or a line of level WARNING or higher."""
    log = ROUTER.sub("", log)
    found = TROUBLE.search(log)
    if found:
        around = log[max(found.start() - 1000, 0) : found.end() + 3000]
        raise AssertionError(f"{found.group()!r} in the log:\n{around}")
