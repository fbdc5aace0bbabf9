"""HAProxy, Caddy and Apache, each in front of a server of the tests, configured as docs/deployment.md says."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.peer import Headers, Peer
from tests.real.nginx import PAGE, substitute
from tests.real.servers import PATIENCE_SECONDS, Server

HOST = "127.0.0.1"
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])

# Apache's modules are files beside it. Its children belong to www-data where root starts it, as on Debian.
_APACHE = """
ServerName {host}
Listen {host}:{port}
PidFile apache.pid
ErrorLog error.log
LogLevel warn
User www-data
Group www-data
{modules}
{site}
"""
_APACHE_MODULES = "mpm_event authz_core proxy proxy_http headers ssl"
_CADDY = """
{{
    admin off
    auto_https off
    storage file_system {directory}
    skip_install_trust
}}
{site}
"""


def documented(language: str) -> str:
    """The block of docs/deployment.md that is written in this language."""
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return block


@dataclass(frozen=True)
class Kind:
    """How one proxy is started, and how the block of the documentation becomes the file that it reads."""

    program: str
    arguments: tuple[str, ...]
    file: str
    trouble: str  # what a line of its log contains that tells of a mistake
    surroundings: str = "{site}"
    listen: str = ""  # what the documented block has in this place …
    plain: str = ""  # … is this without TLS,
    tls: str = ""  # and this with it

    @property
    def executable(self) -> str | None:
        return shutil.which(self.program, path=_PATH)

    @property
    def documented(self) -> str:
        return documented({"apache2": "apache"}.get(self.program, self.program))


KINDS = {
    "haproxy": Kind(
        "haproxy",
        ("-db", "-f", "haproxy.cfg"),
        "haproxy.cfg",
        r"\[(?:WARNING|ALERT|EMERG)\]",
        listen="bind :443 ssl crt /etc/haproxy/site.pem",
        plain="bind {host}:{port}",
        tls="bind {host}:{port} ssl crt certificate.pem",
    ),
    "caddy": Kind(
        "caddy",
        ("run", "--adapter", "caddyfile", "--config", "Caddyfile"),
        "Caddyfile",
        r'"level":"(?:error|panic|fatal)"',
        surroundings=_CADDY,
        listen="example.com {",
        plain="http://{host}:{port} {{",
        tls="https://{host}:{port} {{\n    tls certificate.pem certificate.pem",
    ),
    "apache": Kind(
        "apache2",
        ("-D", "FOREGROUND", "-d", ".", "-f", "apache.conf"),
        "apache.conf",
        # As it stops: AH00046, a child that has just started misses the signal once in a while, and is killed; AH03093,
        # a thread hands a connection that is kept alive to the listener, which has closed its descriptors.
        r":(?:error|crit|alert|emerg)\](?!.* (?:AH00046|AH03093): )",
        surroundings=_APACHE,
        listen="<VirtualHost *:443>\n    # ...",
        plain="<VirtualHost {host}:{port}>",
        tls="<VirtualHost {host}:{port}>\n    SSLEngine on\n    SSLCertificateFile certificate.pem",
    ),
}


class Proxy:
    """One running proxy."""

    def __init__(
        self, name: str, directory: Path, server: Server, replacements: dict[str, str], certificate: bytes
    ) -> None:
        kind = self.kind = KINDS[name]
        assert kind.executable
        self.port = reserve_port()
        self.authority = f"{HOST}:{self.port}"
        self._log_file, self._error_file = directory / "proxy.log", directory / "error.log"
        listen = (kind.tls if certificate else kind.plain).format(host=HOST, port=self.port)
        site = substitute(
            kind.documented, {kind.listen: listen, f"{HOST}:8000": f"{server.host}:{server.port}", **replacements}
        )
        modules = [
            f"LoadModule {module}_module /usr/lib/apache2/modules/mod_{module}.so" for module in _APACHE_MODULES.split()
        ]
        text = kind.surroundings.format(
            host=HOST, port=self.port, directory=directory, modules="\n".join(modules), site=site
        )
        (directory / kind.file).write_text(text)
        (directory / "certificate.pem").write_bytes(certificate)
        with self._log_file.open("wb") as log:
            self._process = subprocess.Popen(
                [kind.executable, *kind.arguments],
                cwd=directory,
                env={**os.environ, "HOME": str(directory)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait_until_up(self) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            assert self._process.poll() is None, f"the proxy has ended:\n{self.log()}"
            assert time.monotonic() < deadline, f"the proxy does not listen:\n{self.log()}"
            try:
                return socket.create_connection((HOST, self.port)).close()
            except ConnectionRefusedError:
                time.sleep(0.02)

    def peer(self) -> Peer:
        return Peer(HOST, self.port)

    def connect(self, path: str = "/echo/", headers: Headers | None = None) -> Peer:
        return self.peer().connect(path, headers)

    def log(self) -> str:
        return "".join(file.read_text(errors="replace") for file in (self._log_file, self._error_file) if file.exists())

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"the proxy did not stop:\n{self.log()}") from None


@contextmanager
def proxying(
    name: str, directory: Path, server: Server, replacements: dict[str, str] | None = None, certificate: bytes = b""
) -> Iterator[Proxy]:
    """The proxy in front of `server`, stopped at the end, when its log must tell of no mistake.

    `replacements` are of the documented block. With a `certificate` (PEM, its key included) the proxy ends TLS.
    """
    proxy = Proxy(name, directory, server, replacements or {}, certificate)
    try:
        proxy.wait_until_up()
        yield proxy
    finally:
        proxy.stop()
    trouble = [line for line in proxy.log().splitlines() if re.search(proxy.kind.trouble, line)]
    assert not trouble, "\n".join(trouble)


def reserve_port() -> int:
    """A port of the kernel's choice, which for a minute it gives only to a program that asks for this very port.

    A connection of that port that has ended on its side is in TIME_WAIT: a `bind` with SO_REUSEADDR may still have the
    port, the kernel's own choice leaves it out. The three proxies take over no socket from us.
    """
    with socket.create_server((HOST, 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        accepted, _ = listener.accept()
        accepted.close()
        assert client.recv(1) == b""
        return listener.getsockname()[1]
