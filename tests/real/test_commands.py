"""The management commands as a developer starts them: against real servers, and through nginx, right and wrong."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.real.nginx import DOCUMENTED, EXECUTABLE, Nginx, nginx, substitute
from tests.real.servers import PATIENCE_SECONDS, ROOT, UNSUPPORTED, Server, running

pytestmark = pytest.mark.timeout(60)

on_one = pytest.mark.parametrize("running_server", [("gunicorn-gthread", "detached")], ids="-".join, indirect=True)
on_some = pytest.mark.parametrize(
    "running_server",
    [("gunicorn-gthread", "detached"), ("pywsgi", "attached"), ("runserver", "detached")],
    ids="-".join,
    indirect=True,
)
behind_nginx = pytest.mark.skipif(EXECUTABLE is None, reason="needs nginx")
KNOWS_NOTHING = "server { # ...\n location / { proxy_pass http://127.0.0.1:8000; } }"


def start(*arguments: str, **options) -> subprocess.Popen:
    """``manage.py`` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.project.manage", *arguments],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.project.settings"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def manage(*arguments: str, lines: str = "") -> tuple[int, str, str]:
    """The exit code of ``manage.py``, and what it printed."""
    with start(*arguments) as process:
        out, error = process.communicate(lines, PATIENCE_SECONDS)
    return process.returncode, out, error


def doctor(url: str, *options: str) -> tuple[int, str]:
    """The exit code of the doctor, and what it printed."""
    code, out, error = manage("websocket_doctor", url, "--idle=0.1", "--timeout=5", *options)
    assert error == ("CommandError: something is wrong, see above\n" if code else "")
    return code, out


def wrong_steps(out: str) -> list[str]:
    return re.findall(r"^WRONG  (.*?):", out, re.MULTILINE)


# websocket_connect


@on_some
def test_line_in_a_pipe_comes_back_and_the_command_ends(server: Server, note: str) -> None:
    code, out, error = manage("websocket_connect", "-v0", server.url(f"/echo/?note={note}"), lines="hi\nwörld\n")
    assert (code, out, error) == (0, "hi\nwörld\n", "")
    assert server.note(note) == "finally"


@on_one
def test_json_of_a_view_is_indented(server: Server) -> None:
    url = server.url()
    assert manage("websocket_connect", url, lines='{"a": [1]}\n') == (
        0,
        '{\n  "a": [\n    1\n  ]\n}\n',
        f"* connected to {url}\n* closed with 1000 NORMAL_CLOSURE\n",
    )


@on_one
def test_close_by_the_view_ends_the_command_while_somebody_still_types(server: Server) -> None:
    with start("websocket_connect", "-v0", server.url("/close/?code=4000&reason=later")) as process:
        process.stdin.write("go\n")
        process.stdin.flush()  # and stays open
        assert process.wait(PATIENCE_SECONDS) == 1
        assert process.stderr.read() == "CommandError: closed with 4000 of the application: later\n"


@on_one
def test_interrupt_closes_with_1000(server: Server, note: str) -> None:
    with start("websocket_connect", server.url(f"/greet/?note={note}")) as process:
        assert process.stderr.readline().startswith("* connected to ")
        assert process.stdout.readline() == "hello\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_SECONDS) == 0
        assert process.stdout.read() == ""
        assert process.stderr.read() == "* closed with 1000 NORMAL_CLOSURE\n"
    assert server.note(note) == "finally"


@on_one
def test_refusal_of_a_view_is_told(server: Server) -> None:
    code, out, error = manage("websocket_connect", server.url("/refuse/login/"))
    assert (code, out) == (1, "")
    assert error.startswith("CommandError: the server answered 302 Found\nLocation: /login/?next=/refuse/login/\n")


@pytest.mark.parametrize("running_server", [("pywsgi-tls", "attached")], ids="-".join, indirect=True)
def test_insecure_takes_a_certificate_of_nobody_known(server: Server) -> None:
    url = server.url()
    assert manage("websocket_connect", "--insecure", "-v0", url, lines="hi\n") == (0, "hi\n", "")
    code, out, error = manage("websocket_connect", url)
    assert (code, out) == (1, "")
    assert "certificate verify failed" in error
    server.take_news()  # what the server says of that depends on who gives up first


# websocket_doctor, without a proxy


@on_some
def test_doctor_finds_nothing_wrong_with_a_server(server: Server) -> None:
    code, out = doctor(server.url("/echo/"))
    assert code == 0, out
    assert "ok     large message: 1 MiB went through" in out
    assert out.endswith("Nothing is wrong.\n")


@on_one
def test_doctor_says_what_limits_messages(server: Server) -> None:
    code, out = doctor(server.url("/echo/"), "--size", str((1 << 20) + 1))
    assert (code, wrong_steps(out)) == (1, ["large message"])
    assert "1009 MESSAGE_TOO_BIG" in out
    assert "WEBSOCKET_MAX_MESSAGE_SIZE" in out
    assert "ok     silence" in out


@on_one
@pytest.mark.parametrize("path", ["/watch-closed/", "/echo-once/"], ids=["never reads", "reads once"])
def test_doctor_needs_no_view_that_answers(server: Server, path: str) -> None:
    code, out = doctor(server.url(path))
    assert code == 0, out
    assert ("?      large message" in out) == (path == "/watch-closed/")


@on_one
@pytest.mark.parametrize(
    ("path", "options", "sentence"),
    [
        ("/echo", (), "its URL ends with a slash"),
        ("/refuse/login/", (), "the view wants a session: --header 'Cookie: sessionid=…'"),
        ("/plain/", (), "its view is not decorated with accept_websocket or require_websocket"),
        ("/refuse/forbidden/", (), "if it is the view: it wants a session"),
        ("/nowhere/", (), "no view has this URL"),
        ("/echo/", ("--origin", "https://evil.example"), "add it to WEBSOCKET_ALLOWED_ORIGINS"),
        ("/echo/", ("--header", "Host: other.example"), "a Host that ALLOWED_HOSTS does not name"),
    ],
)
def test_doctor_says_why_django_refuses(server: Server, path: str, options: tuple[str, ...], sentence: str) -> None:
    code, out = doctor(server.url(path), *options)
    assert (code, wrong_steps(out)) == (1, ["opening handshake"])
    assert sentence in out
    server.take_news()


def test_doctor_knows_a_web_server_that_serves_files(tmp_path: Path) -> None:
    arguments = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", tmp_path]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            port = re.search(r"port (\d+)", process.stdout.readline()).group(1)
            code, out = doctor(f"http://127.0.0.1:{port}/")
        finally:
            process.terminate()
    assert (code, wrong_steps(out)) == (1, ["opening handshake"])
    assert "the view there serves ordinary pages" in out
    assert "the answer is HTTP/1.0" in out


def test_doctor_says_that_a_server_cannot_serve_websockets(tmp_path: Path) -> None:
    server = Server(UNSUPPORTED["waitress"], tmp_path)
    try:
        server.wait_until_up()
        code, out = doctor(server.url("/echo/"))
    finally:
        server.stop()
    assert (code, wrong_steps(out)) == (1, ["opening handshake"])
    assert "the server answered 501 Not Implemented" in out
    assert "gunicorn, gevent's pywsgi, runserver, uWSGI" in out


# websocket_doctor, through nginx


@contextmanager
def proxied(server: Server, directory: Path, **options) -> Iterator[Nginx]:
    """nginx in front of the server; what the two log of the faults that the doctor finds is no matter here."""
    with nginx(directory, server, **options) as proxy:
        yield proxy
        proxy.expect_log(r"\Z")
    server.take_news()


@behind_nginx
@on_some
def test_doctor_finds_nothing_wrong_with_nginx_as_documented(server: Server, tmp_path: Path) -> None:
    with nginx(tmp_path, server) as proxy:
        code, out = doctor(f"http://{proxy.authority}/echo/")
    assert code == 0, out


MISTAKES = {
    "proxy_http_version 1.1;": "proxy_http_version 1.1;",
    "proxy_set_header Upgrade $http_upgrade;": "proxy_set_header Upgrade $http_upgrade;",
    "proxy_set_header Connection $connection_upgrade;": 'proxy_set_header Connection "upgrade";',
    "proxy_set_header Host $http_host;": "nginx: proxy_set_header Host $http_host",
}


@behind_nginx
@on_one
@pytest.mark.parametrize("line", MISTAKES)
def test_doctor_names_the_line_that_nginx_lacks(server: Server, tmp_path: Path, line: str) -> None:
    instead = "proxy_http_version 1.0;" if "version" in line else ""
    with proxied(server, tmp_path, site=substitute(DOCUMENTED, {line: instead})) as proxy:
        code, out = doctor(f"http://{proxy.authority}/echo/")
    assert (code, wrong_steps(out)) == (1, ["opening handshake"])
    assert MISTAKES[line] in out


@behind_nginx
@on_one
@pytest.mark.parametrize("path", ["/echo/", "/echo-once/"], ids=["accepts", "requires"])
def test_doctor_says_that_nginx_knows_nothing_of_websockets(server: Server, tmp_path: Path, path: str) -> None:
    with proxied(server, tmp_path, site=KNOWS_NOTHING) as proxy:
        code, out = doctor(f"http://{proxy.authority}{path}")
    assert (code, wrong_steps(out)) == (1, ["opening handshake"])
    assert "a proxy in between has removed the Upgrade header" in out
    assert "           proxy_set_header Upgrade $http_upgrade;\n" in out


@behind_nginx
def test_doctor_says_that_nginx_cuts_what_is_silent(tmp_path: Path) -> None:
    with (
        running("gunicorn-gthread", tmp_path, WEBSOCKET_PING_INTERVAL=None) as server,
        proxied(server, tmp_path, more="proxy_read_timeout 1s;") as proxy,
    ):
        code, out = doctor(f"http://{proxy.authority}/echo/", "--idle=10")
    assert (code, wrong_steps(out)) == (1, ["silence"])
    assert re.search(r"the connection was cut after \d\.\d seconds, in which no ping of the server came", out)
    assert "proxy_read_timeout" in out
    assert "WEBSOCKET_PING_INTERVAL" in out


@behind_nginx
def test_doctor_finds_silence_well_where_pings_come_in_time(tmp_path: Path) -> None:
    with (
        running("gunicorn-gthread", tmp_path, WEBSOCKET_PING_INTERVAL=0.3) as server,
        nginx(tmp_path, server, more="proxy_read_timeout 1s;") as proxy,
    ):
        code, out = doctor(f"http://{proxy.authority}/echo/", "--idle=2")
    assert code == 0, out
    assert re.search(r"still open after 2 seconds, in which \d pings of it came", out)


@behind_nginx
@on_one
def test_doctor_says_that_nginx_reaches_no_server(server: Server, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nowhere = f"127.0.0.1:{listener.getsockname()[1]}"
    site = DOCUMENTED.replace("127.0.0.1:8000", nowhere) + "# 127.0.0.1:8000\n"
    with proxied(server, tmp_path, site=site) as proxy:
        code, out = doctor(f"http://{proxy.authority}/echo/")
    assert (code, wrong_steps(out)) == (1, ["opening handshake"])
    assert "502 Bad Gateway (Server: nginx" in out
    assert "the proxy cannot reach the server behind it" in out


@behind_nginx
@on_one
def test_doctor_says_that_the_server_behind_nginx_does_not_answer(server: Server, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        site = DOCUMENTED.replace("127.0.0.1:8000", f"127.0.0.1:{silent.getsockname()[1]}") + "# 127.0.0.1:8000\n"
        with proxied(server, tmp_path, site=site, more="proxy_read_timeout 1s;") as proxy:
            code, out = doctor(f"http://{proxy.authority}/echo/")
    assert (code, wrong_steps(out)) == (1, ["opening handshake"])
    assert "504 Gateway Time-out" in out
    assert "does not answer in time" in out


@behind_nginx
@on_one
def test_doctor_says_that_nginx_sends_everything_to_https(server: Server, tmp_path: Path) -> None:
    site = "server { # ...\n location / { return 301 https://$http_host$request_uri; } } # 127.0.0.1:8000"
    with proxied(server, tmp_path, site=site) as proxy:
        code, out = doctor(f"http://{proxy.authority}/echo/")
    assert (code, wrong_steps(out)) == (1, ["opening handshake"])
    assert "open it with wss://" in out
