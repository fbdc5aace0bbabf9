"""`manage.py websocket_connect`, with servers written by hand: what it says of each answer, and of no answer."""

from __future__ import annotations

import io
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.cookies import SimpleCookie

import pytest
from django.apps import apps
from django.contrib import auth
from django.contrib.auth.models import User
from django.contrib.sessions.backends import db
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.db import connections
from django.http import HttpRequest
from django.test import override_settings

from dwebsocket.management.commands.websocket_connect import in_words
from tests.client.far import Far, echo, listening, said, shake_hands
from tests.helpers import database_in
from tests.management.commands.helpers import answering, http, outcome
from tests.peer import CLOSE, TEXT, close_payload

# Arguments


@pytest.mark.parametrize(
    ("option", "value"), [("--timeout", "0"), ("--timeout", "nan"), ("--wait", "-1"), ("--wait", "x")]
)
def test_seconds_that_cannot_be_are_refused(option, value) -> None:
    with pytest.raises(CommandError, match=option):
        call_command("websocket_connect", "ws://host/", option, value)


def test_header_that_cannot_be_sent_is_refused() -> None:
    with listening(lambda far: None) as port, pytest.raises(CommandError, match="is not a header"):
        call_command("websocket_connect", f"ws://127.0.0.1:{port}/", "--origin", "a\nb")


# Words


@pytest.mark.parametrize(
    ("message", "raw", "words"),
    [
        ("text", False, "text"),
        ('{"a": "ü"}', False, '{\n  "a": "ü"\n}'),
        ('{"a": "ü"}', True, '{"a": "ü"}'),
        ("[1]", False, "[\n  1\n]"),
        ("{no json", False, "{no json"),
        ("7", False, "7"),
        ("[" * 100_000, False, "[" * 100_000),
        (b"\x00\xff", False, "binary, 2 bytes: 00 ff"),
        (b"\x01" * 33, False, "binary, 33 bytes: " + " ".join(["01"] * 32) + " …"),
    ],
    ids=["text", "object", "raw", "list", "no JSON", "number", "deep", "binary", "long binary"],
)
def test_message_is_printed_as_one_can_read_it(message, raw, words) -> None:
    assert in_words(message, raw=raw) == words


# websocket_connect


class Terminal(io.StringIO):
    """A place to print to that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def connect(url: str, *options: str, lines: bytes = b"", **more) -> tuple[str, str]:
    """What the command prints, and the message of its CommandError; ``lines`` are its input."""
    reading, writing = os.pipe()
    os.write(writing, lines)
    os.close(writing)
    with open(reading, encoding="utf-8") as stdin, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", stdin)
        return outcome("websocket_connect", url, *options, **more)


def test_line_is_sent_and_its_answer_printed_before_the_close() -> None:
    with listening(echo) as port:
        url = f"ws://127.0.0.1:{port}/"
        told = io.StringIO()
        out, error = connect(url, "--wait", "0.5", lines='{"a":1}\nhö'.encode(), stderr=told)
    assert error == ""
    assert out == '{\n  "a": 1\n}\nhö\n'
    assert told.getvalue() == f"* connected to {url}\n* closed with 1000 NORMAL_CLOSURE\n"


def test_quiet_connect_prints_messages_only() -> None:
    with listening(echo) as port:
        assert connect(f"ws://127.0.0.1:{port}/", "--raw", "-v0", lines=b"[1]\n") == ("[1]\n", "")


def test_answer_that_takes_its_time_is_waited_for_as_long_as_told() -> None:
    def serve(far: Far) -> None:
        shake_hands(far)
        far.take()
        with pytest.raises(TimeoutError):  # the command is silent, and waits
            far.sock.settimeout(0.4)
            far.take()
        far.send(said(TEXT, b"late") + said(CLOSE, close_payload(1000)))

    with listening(serve) as port:
        out, error = connect(f"ws://127.0.0.1:{port}/", "--wait", "20", "-v0", lines=b"hi\n")
    assert (out, error) == ("late\n", "")


def test_connect_says_what_was_negotiated_with_what_it_was_told() -> None:
    def serve(far: Far) -> None:
        headers = shake_hands(far, protocol="b")
        assert (headers["cookie"], headers["origin"]) == ("a=1", "http://site.example")
        assert headers["sec-websocket-protocol"] == "a, b"
        far.send(said(CLOSE, close_payload(1000, "done")))

    options = ("-H", "Cookie: a=1", "--subprotocol=a", "--subprotocol=b", "--origin=http://site.example")
    told = io.StringIO()
    with listening(serve) as port:
        out, error = connect(f"http://127.0.0.1:{port}/", *options, stderr=told)
    assert (out, error) == ("", "")
    assert told.getvalue().splitlines() == [
        f"* connected to ws://127.0.0.1:{port}/, subprotocol b",
        "* closed with 1000 NORMAL_CLOSURE: done",
    ]


def test_connect_without_an_origin_says_none() -> None:
    def serve(far: Far) -> None:
        assert "origin" not in shake_hands(far)
        far.send(said(CLOSE))

    with listening(serve) as port:
        assert connect(f"ws://127.0.0.1:{port}/")[1] == ""


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (said(CLOSE, close_payload(1011, "oh")), "closed with 1011 INTERNAL_ERROR: oh"),
        (b"", "closed with 1006 ABNORMAL_CLOSURE: the stream ended without a close frame"),
        (said(0x3), "closed with 1002 PROTOCOL_ERROR: reserved opcode 0x3"),
    ],
)
def test_connect_fails_where_the_close_is_not_a_normal_one(sent, error) -> None:
    def serve(far: Far) -> None:
        shake_hands(far, early=said(TEXT, b"before") + sent)

    with listening(serve) as port:
        out, failure = connect(f"ws://127.0.0.1:{port}/", "-v0")
    assert (out, failure) == ("before\n", error)


def test_connect_tells_a_refusal_in_words() -> None:
    answer = http("402 Payment Required", "Server: s", "Date: now", "Retry-After: 3", body=f"pay\nfirst{'!' * 2000}")
    with listening(answering(answer)) as port:
        out, error = connect(f"ws://127.0.0.1:{port}/")
    assert out == ""
    status, *fields, pay, first = error.splitlines()
    assert status == "the server answered 402 Payment Required"
    assert fields == ["Retry-After: 3", "Server: s"]
    assert (pay, first[:8], first[-2:], len(first) < 1100) == ("| pay", "| first!", " …", True)


PAGE = """<!doctype html><html><head><TITLE>Page not found &mdash; /chat</TITLE>
<style type="text/css">body { color: red }</style><script>alert("<p>no</p>")</script></head>
<body><!-- <p>hidden</p> --><h1>Page not found <span>(404)</span></h1>
<table><tr><th>Method:</th>\n<td>GET</td></tr></table><p>a &lt;b&gt; \n c<br>d<p>GET</p><p>GET</p>&#x202e;
<style>cut { off"""


def test_connect_prints_the_title_and_the_text_of_a_page() -> None:
    answer = http("404 Not Found", "Content-Type: text/html; charset=utf-8", body=PAGE)
    with listening(answering(answer)) as port:
        lines = connect(f"ws://127.0.0.1:{port}/")[1].splitlines()
    assert lines[2:] == [
        "| Page not found — /chat",
        "| Page not found (404)",
        "| Method: GET",
        "| a <b> c",
        "| d",
        "| GET",
        r"| \u202e",
    ]


def test_connect_prints_no_body_that_is_not_text() -> None:
    with listening(answering(http("400 Bad", "Content-Type: image/x", body="\0\1"))) as port:
        assert connect(f"ws://127.0.0.1:{port}/")[1].endswith("\n| (2 bytes of image/x)")


def test_connect_says_why_nothing_can_be_opened_and_who_knows_more() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"ws://127.0.0.1:{listener.getsockname()[1]}/"
    why, advice = connect(url)[1].splitlines()
    assert re.fullmatch(rf"{url} cannot be opened: .*[Cc]onnection refused", why)
    assert advice == f"what to do about it: manage.py websocket_doctor {url}"


# websocket_connect --user


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> Iterator[None]:
    with database_in(tmp_path_factory.mktemp("commands") / "db.sqlite3"):
        yield


@pytest.fixture
def anna(tables) -> Iterator[User]:
    """A user of the project, whose sessions are in its database."""
    with override_settings(SESSION_ENGINE="django.contrib.sessions.backends.db"):
        yield User.objects.create_user("anna", password="secret")
    User.objects.all().delete()


def user_of(cookie: str) -> object:
    """The user that Django finds for the cookies of a request, in a thread that has connections of its own."""
    request = HttpRequest()
    sent = SimpleCookie(cookie)["sessionid"].value
    request.session = db.SessionStore(sent)
    try:
        return auth.get_user(request)
    finally:
        connections.close_all()


def test_user_is_logged_in_for_as_long_as_the_command_runs(anna) -> None:
    seen = []

    def serve(far: Far) -> None:
        cookie = shake_hands(far)["cookie"]
        seen.extend([cookie.startswith("a=1; sessionid="), user_of(cookie)])
        far.send(said(CLOSE))

    with listening(serve) as port:
        assert connect(f"ws://127.0.0.1:{port}/", "--user=anna", "-H", "Cookie: a=1", "-v0") == ("", "")
    assert seen == [True, anna]
    assert not Session.objects.exists()
    anna.refresh_from_db()
    assert anna.last_login is None


def test_session_is_removed_where_the_websocket_is_refused(anna) -> None:
    with listening(answering(http("403 Forbidden"))) as port:
        assert connect(f"ws://127.0.0.1:{port}/", "--user=anna")[1] == "the server answered 403 Forbidden"
    assert not Session.objects.exists()


def test_user_that_does_not_exist_is_named(anna) -> None:
    assert connect("ws://127.0.0.1:1/", "--user=bert")[1] == "there is no user with the username 'bert'"


def test_user_that_is_not_active_cannot_log_in(anna) -> None:
    anna.is_active = False
    anna.save()
    assert connect("ws://127.0.0.1:1/", "--user=anna")[1].startswith("anna cannot log in: no backend")
    assert not Session.objects.exists()


@pytest.mark.parametrize("app", ["django.contrib.auth", "django.contrib.sessions"])
def test_user_needs_the_app(anna, monkeypatch, app) -> None:
    installed = apps.is_installed
    monkeypatch.setattr(apps, "is_installed", lambda name: name != app and installed(name))
    assert f"--user needs {app} in INSTALLED_APPS" in connect("ws://127.0.0.1:1/", "--user=anna")[1]


def test_user_needs_the_tables_of_the_database(anna, monkeypatch) -> None:
    monkeypatch.setattr(Session._meta, "db_table", "nowhere")
    assert connect("ws://127.0.0.1:1/", "--user=anna")[1].startswith(
        "--user needs the database of the project: no such"
    )


# What a terminal is shown


#: Sets the clipboard; clears the screen, in C0 and in C1; begins a line anew; turns text around; ends a line.
HOSTILE = "\x1b]52;c;eA==\x07\x1b[2J\x9b2J\r\b\x7f\u202e\u2028\u0085"
HARMLESS = r"\x1b]52;c;eA==\x07\x1b[2J\x9b2J\r\x08\x7f\u202e\u2028\x85"


@pytest.mark.parametrize(
    ("message", "options", "shown"),
    [
        (f"a\tä{HOSTILE}", (), f"a\tä{HARMLESS}\n"),
        (f"{HOSTILE}\nb", ("--raw",), f"{HARMLESS}\\nb\n"),
        ("* closed with 1000 NORMAL_CLOSURE", (), "\\x2a closed with 1000 NORMAL_CLOSURE\n"),
        ("a\n* closed with 1000", (), "a\\n* closed with 1000\n"),
        ('{"a": "\x9b2J\x7f"}', (), '{\n  "a": "\\x9b2J\\x7f"\n}\n'),
        ('{\n  "a": 1\n}', (), '{\n  "a": 1\n}\n'),
        ("{\n* closed", (), "{\\n* closed\n"),
    ],
    ids=["text", "raw", "star", "second line", "JSON", "indented JSON", "no JSON"],
)
def test_message_can_neither_steer_a_terminal_nor_look_like_a_line_of_the_command(message, options, shown) -> None:
    def serve(far: Far) -> None:
        shake_hands(far, early=said(TEXT, message.encode()) + said(CLOSE))

    with listening(serve) as port:
        assert connect(f"ws://127.0.0.1:{port}/", "-v0", *options, out=Terminal()) == (shown, "")


def test_message_goes_into_a_pipe_as_it_is_and_what_is_told_elsewhere() -> None:
    def serve(far: Far) -> None:
        shake_hands(far, early=said(TEXT, f"{HOSTILE}\n* closed".encode()) + said(CLOSE))

    with listening(serve) as port:
        assert connect(f"ws://127.0.0.1:{port}/") == (f"{HOSTILE}\n* closed\n", "")


def test_close_reason_cannot_steer_a_terminal() -> None:
    def serve(far: Far) -> None:
        shake_hands(far, early=said(CLOSE, close_payload(4000, f"{HOSTILE}\nnext")))

    with listening(serve) as port:
        assert connect(f"ws://127.0.0.1:{port}/", "-v0")[1] == f"closed with 4000 of the application: {HARMLESS}\\nnext"


@pytest.mark.parametrize("command", [connect, lambda url: outcome("websocket_doctor", url)], ids=["connect", "doctor"])
def test_refusal_cannot_steer_a_terminal(command) -> None:
    lines = [
        "HTTP/1.1 302 \x1b[2J",
        "Server: \x9b2J\nok     ping: answered",
        "Location: /\x1b[2J\x9b\rNothing is wrong.",
        "Content-Type: text/plain",
        "",
        "\x1b[2J\r\n* closed with 1000 NORMAL_CLOSURE\nNothing is wrong.",
    ]
    with listening(answering("\r\n".join(lines).encode("latin-1"))) as port:
        out, error = command(f"ws://127.0.0.1:{port}/")
    told = out + error
    assert not re.search(r"[^\n -\x7e\xa0-\uffff]", told)
    assert r"302 \x1b[2J" in told
    assert r"\x9b2J\nok     ping" in told
    assert not re.search(r"^(\*|Nothing|ok     ping)", told, re.MULTILINE)


# Alone


def test_commands_need_nothing_but_the_app(tmp_path) -> None:
    """A project whose one app is dwebsocket, and whose URLconf does not exist."""
    (tmp_path / "bare.py").write_text('INSTALLED_APPS = ["dwebsocket"]\nROOT_URLCONF = "nowhere"\nSECRET_KEY = "x"\n')
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "bare",
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
    }
    arguments = [sys.executable, "-m", "django", "websocket_connect", "-v0"]
    with listening(echo) as port:
        done = subprocess.run(
            [*arguments, f"ws://127.0.0.1:{port}/"], env=environment, input=b"hi\n", capture_output=True, timeout=30
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hi\n", b"")
