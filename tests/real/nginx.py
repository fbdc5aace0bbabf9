"""nginx itself, in front of a server of the tests, configured as docs/deployment.md says."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tests.peer import Headers, Peer
from tests.real.processes import end
from tests.real.servers import PATIENCE_SECONDS, ROOT, Server

EXECUTABLE = shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"]))
PAGE = (ROOT / "docs/deployment.md").read_text()
DOCUMENTED = "".join(re.findall(r"^```nginx\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))

# What nginx needs besides; its worker belongs to whom the tests belong.
CONFIGURATION = """
{main}
daemon off;
pid nginx.pid;
error_log stderr info;
events {{}}
http {{
    access_log off;
    client_body_temp_path client_body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
{site}
}}
"""
TLS = "ssl_certificate certificate.pem; ssl_certificate_key certificate.pem;"
TROUBLE = re.compile(r"\[(?:warn|error|crit|alert|emerg)\].*")

T = TypeVar("T")


class Nginx:
    """One running nginx, of one master and one worker."""

    host = "127.0.0.1"

    def __init__(self, directory: Path, server: Server, site: str, more: str, main: str, certificate: bytes) -> None:
        assert EXECUTABLE
        self._log_file = directory / "error.log"
        self._mark = 0
        with socket.create_server((self.host, 0), backlog=511) as listener, self._log_file.open("wb") as log:
            # nginx takes over a socket that it finds in the variable NGINX, as from its predecessor in an upgrade.
            listener.setblocking(False)
            self.port = listener.getsockname()[1]
            self.authority = f"{self.host}:{self.port}"
            listen = f"listen {self.authority}{' ssl' if certificate else ''}; {TLS if certificate else ''} {more}"
            site = substitute(site, {"# ...": listen, "127.0.0.1:8000": f"{server.host}:{server.port}"})
            main += "user root;" if os.geteuid() == 0 else ""
            (directory / "nginx.conf").write_text(CONFIGURATION.format(main=main, site=site))
            (directory / "certificate.pem").write_bytes(certificate)
            self._process = subprocess.Popen(
                [EXECUTABLE, "-p", directory, "-c", directory / "nginx.conf", "-e", "stderr"],
                env={"NGINX": f"{listener.fileno()};"},
                pass_fds=[listener.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def peer(self) -> Peer:
        return Peer(self.host, self.port)

    def connect(self, path: str = "/echo/", headers: Headers | None = None, early: bytes = b"") -> Peer:
        return self.peer().connect(path, headers, early)

    def workers(self) -> list[int]:
        """The process ids of all workers that there have been."""
        return [int(pid) for pid in re.findall(r"start worker process (\d+)", self.log())]

    def until(self, condition: Callable[[], T | None], wanted: str) -> T:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (result := condition()):
            assert self._process.poll() is None, f"nginx has ended:\n{self.log()}"
            assert time.monotonic() < deadline, f"waited in vain for {wanted}:\n{self.log()}"
            time.sleep(0.01)
        return result

    def log(self) -> str:
        return self._log_file.read_text(errors="replace")

    def expect_log(self, pattern: str) -> None:
        """Return when a line that matches is in the log; what comes before its end is not asked for again."""
        self._mark += self.until(lambda: re.search(pattern, self.log()[self._mark :]), f"the line {pattern!r}").end()

    def assert_quiet(self) -> None:
        trouble = TROUBLE.findall(self.log()[self._mark :])
        assert not trouble, "\n".join(trouble)

    def reload(self) -> None:
        """Return when a new worker serves; the old one keeps the connections that it has."""
        self._process.send_signal(signal.SIGHUP)
        self.expect_log("gracefully shutting down")

    def stop(self) -> None:
        end(self._process, signal.SIGTERM, self.log)


@contextmanager
def nginx(
    directory: Path, server: Server, *, site: str = DOCUMENTED, more: str = "", main: str = "", certificate: bytes = b""
) -> Iterator[Nginx]:
    """nginx in front of `server`, stopped at the end, when its log must hold no warning and nothing worse.

    `site` is the block of docs/deployment.md, `more` what its server has besides, `main` what stands outside of `http`.
    With a `certificate` (PEM, its key included) nginx ends TLS.
    """
    running = Nginx(directory, server, site, more, main, certificate)
    try:
        running.until(running.workers, "a worker")
        yield running
    finally:
        running.stop()
    running.assert_quiet()


def substitute(text: str, replacements: dict[str, str]) -> str:
    """The text with each of these replaced, which must be there exactly once."""
    for old, new in replacements.items():
        assert text.count(old) == 1, f"{text.count(old)} times {old!r} in {text}"
        text = text.replace(old, new)
    return text
