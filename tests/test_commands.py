"""The management commands, with servers written by hand: what they say of each answer, and of what is no answer."""

from __future__ import annotations

import io
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.cookies import SimpleCookie

import pytest
import trustme
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
from tests.client.far import Far, echo, flood, listening, said, shake_hands
from tests.helpers import database_in
from tests.links import PATIENCE_SECONDS
from tests.peer import BINARY, CLOSE, PING, PONG, TEXT, close_payload

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


def outcome(*arguments: str, out: io.StringIO | None = None, **more) -> tuple[str, str]:
    out = out or io.StringIO()
    try:
        call_command(*arguments, stdout=out, **more)
    except CommandError as error:
        return out.getvalue(), str(error)
    return out.getvalue(), ""


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


def answering(answer: bytes) -> Callable[[Far], None]:
    def serve(far: Far) -> None:
        far.take_head()
        far.send(answer)

    return serve


def http(status: str, *fields: str, body: str = "", version: str = "1.1") -> bytes:
    return "\r\n".join([f"HTTP/{version} {status}", *fields, "", body]).encode()


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


# websocket_doctor


def doctor(url: str, *options: str) -> tuple[list[str], str]:
    """The lines that it prints, without its times, and the message of its CommandError."""
    out, error = outcome("websocket_doctor", url, "--timeout=10", *options)
    return re.sub(r"\d+\.\d (ms)|(?<=(?:ction|s cut) after )\d+\.\d (seconds)", r"N \1\2", out).splitlines(), error


def examine(serve: Callable[[Far], None], *options: str) -> list[str]:
    """The lines behind the first two, which say that a connection was made; at the end a "!" if something is wrong."""
    with listening(serve) as port:
        lines, error = doctor(f"ws://127.0.0.1:{port}/chat", *options)
    assert lines[:2] == [
        "ok     name: 127.0.0.1 is 127.0.0.1",
        f"ok     connection: connected to port {port} in N ms",
    ]
    return [line.replace(str(port), "PORT") for line in lines[2:]] + ["!"] * bool(error)


ACCEPTED = "ok     opening handshake: accepted in N ms, for pages of http://127.0.0.1:PORT"
PINGED = "ok     ping: answered in N ms"


def pongs(far: Far, until: int) -> bytes:
    """Answer pings; the payload of the first frame with the opcode ``until``."""
    while (taken := far.take()).opcode != until:
        if taken.opcode == PING:
            far.send(said(PONG, taken.payload))
    return taken.payload


def close(far: Far) -> None:
    """Answer what the doctor has to say at its end."""
    far.send(said(CLOSE, pongs(far, CLOSE)))


def test_doctor_finds_nothing_wrong_where_all_is_well() -> None:
    def serve(far: Far) -> None:
        assert shake_hands(far)["origin"].startswith("http://127.0.0.1:")
        assert pongs(far, TEXT) == b"x" * 2048
        far.send(said(TEXT, b"thanks") + said(PING))
        close(far)

    assert examine(serve, "--size=2048", "--idle=0.1") == [
        ACCEPTED,
        PINGED,
        "ok     large message: 2 KiB went through",
        "ok     silence: still open after 0.1 seconds, in which no ping of the server came; answered in N ms",
        "Nothing is wrong.",
    ]


def test_doctor_leaves_out_what_it_is_told_to() -> None:
    def serve(far: Far) -> None:
        shake_hands(far)
        close(far)

    assert examine(serve, "--size=0", "--idle=0") == [ACCEPTED, PINGED, "Nothing is wrong."]


def test_doctor_counts_the_pings_in_the_silence() -> None:
    def serve(far: Far) -> None:
        shake_hands(far)
        far.send(said(PONG, far.take().payload))
        far.send(said(PING, b"1") + said(PING, b"2"))
        assert [far.take()[:2], far.take()[:2]] == [(PONG, b"1"), (PONG, b"2")]
        close(far)

    silence = examine(serve, "--size=0", "--idle=0.3")[2]
    assert "in which 2 pings of it came" in silence


def test_doctor_says_the_limit_of_messages_and_goes_on() -> None:
    def serve(far: Far) -> None:
        shake_hands(far)
        pongs(far, TEXT)
        far.send(said(CLOSE, close_payload(1009, "message of more than 5 bytes")))
        assert far.take()[0] in (PING, CLOSE)

    lines = examine(serve, "--size=2048", "--idle=0")
    assert lines[2:] == [
        "WRONG  large message: 2 KiB is more than the server takes: 1009 MESSAGE_TOO_BIG: message of more than 5 bytes",
        "       WEBSOCKET_MAX_MESSAGE_SIZE, or max_message_size of the view, says the limit (--size tries another)",
        "!",
    ]


def test_doctor_takes_a_view_that_does_not_like_the_message_for_healthy() -> None:
    def serve(far: Far) -> None:
        shake_hands(far)
        pongs(far, TEXT)
        far.send(said(CLOSE, close_payload(1007, "no JSON")))
        assert far.take()[0] in (PING, CLOSE)

    assert examine(serve, "--idle=0")[2:] == [
        "ok     large message: 1 MiB went through; the view then closed with 1007 INVALID_FRAME_PAYLOAD_DATA: no JSON",
        "Nothing is wrong.",
    ]


def test_doctor_says_that_a_large_message_cuts_the_connection() -> None:
    def serve(far: Far) -> None:
        shake_hands(far)
        far.send(said(PONG, far.take().payload))
        assert far.sock.recv(1)

    wrong, advice, mark = examine(serve, "--idle=0")[2:]
    assert wrong.startswith("WRONG  large message: the connection was cut by a message of 1 MiB")
    assert "firewall or proxy" in advice
    assert mark == "!"


def test_doctor_says_that_a_large_message_does_not_go_through() -> None:
    examined = threading.Event()

    def serve(far: Far) -> None:
        shake_hands(far)
        far.send(said(PONG, far.take().payload))
        assert examined.wait(PATIENCE_SECONDS)

    with listening(serve) as port:
        lines, error = doctor(f"ws://127.0.0.1:{port}/", "--idle=0", "--timeout=0.3", f"--size={16 << 20}")
        examined.set()
    assert lines[4] == "WRONG  large message: 16 MiB did not go through within 0.3 seconds"
    assert error


def test_doctor_does_not_blame_the_way_for_a_view_that_does_not_read() -> None:
    def serve(far: Far) -> None:
        shake_hands(far)
        assert pongs(far, TEXT)
        assert [far.take().opcode, far.take().opcode] == [PING, CLOSE]

    assert examine(serve, "--idle=0", "--timeout=0.3", "--size=10")[2:] == [
        "?      large message: 10 bytes went out, but nothing was answered: the view does not read what is sent to it,"
        " or something holds it back (a view that echoes tells which)",
        "Nothing is wrong.",
    ]


def test_doctor_says_that_pings_are_held_back() -> None:
    def serve(far: Far) -> None:
        shake_hands(far)
        assert far.take().opcode == PING
        assert far.take().opcode == CLOSE

    lines = examine(serve, "--size=0", "--idle=0", "--timeout=0.1")
    assert lines[1] == "WRONG  ping: no answer within 0.1 seconds"
    assert "a proxy that passed the handshake on, but buffers what follows" in lines[2]


@pytest.mark.parametrize("sent", [said(TEXT, b"x" * 1000), said(PONG)], ids=["messages", "pongs"])
def test_doctor_ends_in_time_where_frames_flow_without_an_end_and_none_is_an_answer(sent) -> None:
    begin = time.monotonic()
    lines = examine(lambda far: (shake_hands(far), flood(far, sent)), "--size=0", "--idle=0.2", "--timeout=0.2")
    assert lines[1] == "WRONG  ping: no answer within 0.2 seconds"
    assert "WRONG  silence: no answer within 0.2 seconds" in lines
    assert time.monotonic() - begin < PATIENCE_SECONDS


def test_doctor_says_that_the_connection_is_cut_at_once() -> None:
    def serve(far: Far) -> None:
        shake_hands(far)

    lines = examine(serve, "--size=0", "--idle=0")
    assert lines[1].startswith("WRONG  ping: the connection was cut (")


def test_doctor_says_that_the_peer_breaks_the_protocol() -> None:
    def serve(far: Far) -> None:
        shake_hands(far, early=said(BINARY, b"x", rsv=4))
        assert far.take().opcode in (PING, CLOSE)

    lines = examine(serve, "--size=0", "--idle=0")
    assert lines[1] == "WRONG  ping: what arrives is not RFC 6455: reserved bit set"
    assert lines[-1] == "!"


def test_doctor_says_when_silence_cuts_the_connection() -> None:
    def serve(far: Far) -> None:
        shake_hands(far)
        far.send(said(PONG, far.take().payload))

    wrong, advice, mark = examine(serve, "--size=0", "--idle=10")[2:]
    assert wrong == "WRONG  silence: the connection was cut after N seconds, in which no ping of the server came"
    assert "proxy_read_timeout" in advice
    assert "WEBSOCKET_PING_INTERVAL" in advice
    assert mark == "!"


def test_doctor_says_that_a_connection_is_dead_after_silence() -> None:
    def serve(far: Far) -> None:
        shake_hands(far)
        far.send(said(PONG, far.take().payload))
        assert [far.take().opcode, far.take().opcode] == [PING, CLOSE]

    lines = examine(serve, "--size=0", "--idle=0.1", "--timeout=0.2")
    assert lines[2] == "WRONG  silence: no answer within 0.2 seconds"
    assert "a NAT" in lines[3]


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (1000, "the view closed the connection after N seconds (1000 NORMAL_CLOSURE)"),
        (1001, "the server ended the connection after N seconds (1001 GOING_AWAY): does it restart?"),
        (1012, "the server ended the connection after N seconds (1012 SERVICE_RESTART): does it restart?"),
    ],
)
def test_doctor_takes_no_offence_at_a_view_that_ends(code, sentence) -> None:
    def serve(far: Far) -> None:
        shake_hands(far)
        far.send(said(PONG, far.take().payload) + said(CLOSE, close_payload(code)))
        assert far.take().opcode == CLOSE

    assert examine(serve, "--size=0", "--idle=10")[2:] == [f"?      silence: {sentence}", "Nothing is wrong."]


REFUSALS = [
    pytest.param(http("200 OK"), "the view there serves ordinary pages", id="200"),
    pytest.param(http("301 Moved", "Location: /chat/"), "its URL ends with a slash (APPEND_SLASH", id="APPEND_SLASH"),
    pytest.param(
        http("302 Found", "Location: /login/?next=/chat"), "that is a login page, the view wants a session", id="login"
    ),
    pytest.param(http("307 Go", "Location: https://127.0.0.1/chat"), "open it with wss://", id="https"),
    pytest.param(http("308 Go", "Location: http://other.example/chat"), "open it at other.example", id="other host"),
    pytest.param(http("302 Found", "Location: http://[::1"), "redirects to http://[::1, which is no URL", id="no URL"),
    pytest.param(http("400 Bad Request"), "a Host that ALLOWED_HOSTS does not", id="400"),
    pytest.param(http("401 Unauthorized"), "--header 'Authorization: …'", id="401"),
    pytest.param(http("403 Forbidden"), "WEBSOCKET_ALLOWED_ORIGINS or CSRF_TRUSTED_ORIGINS", id="403"),
    pytest.param(http("404 Not Found"), "no view has this URL", id="404"),
    pytest.param(http("405 No"), "does not take GET", id="405"),
    pytest.param(http("418 Teapot"), "no WebSocket is served at this URL", id="418"),
    pytest.param(http("426 Upgrade Required"), "proxy_set_header Upgrade $http_upgrade;", id="426"),
    pytest.param(http("429 Slow"), "limits their rate", id="429"),
    pytest.param(http("500 Oh"), "raised an exception before it accepted", id="500"),
    pytest.param(http("501 Not Implemented"), "does not give its sockets away", id="501"),
    pytest.param(http("502 Bad Gateway"), "the proxy cannot reach the server behind it", id="502"),
    pytest.param(http("503 No"), "WEBSOCKET_MAX_CONNECTIONS is reached", id="503"),
    pytest.param(http("504 Gateway Timeout"), "does not answer in time", id="504"),
    pytest.param(http("404 Not Found", version="1.0"), "the answer is HTTP/1.0", id="HTTP/1.0"),
    pytest.param(b"SSH-2.0-OpenSSH_9\r\n", "this is no WebSocket server", id="SSH"),
    pytest.param(b"", "this is no WebSocket server", id="silence"),
    pytest.param(http("101 Switching Protocols", "Upgrade: other"), "this is no WebSocket server", id="other protocol"),
]


@pytest.mark.parametrize(("answer", "advice"), REFUSALS)
def test_doctor_knows_what_to_do_about_a_refusal(answer, advice) -> None:
    first, *more, mark = examine(answering(answer))
    assert first.startswith("WRONG  opening handshake: ")
    assert advice in "\n".join(more)
    assert mark == "!"


def test_doctor_leaves_it_to_the_server_that_explains_itself() -> None:
    answer = http(
        "400 Bad Request", "Server: s", "Content-Type: text/plain", body="this URL does not expect a WebSocket\n"
    )
    assert examine(answering(answer)) == [
        "WRONG  opening handshake: the server answered 400 Bad Request (Server: s)",
        "       | this URL does not expect a WebSocket",
        "!",
    ]


def test_doctor_knows_which_proxy_makes_handshakes_without_a_key() -> None:
    answer = http("400 Bad Request", "Content-Type: text/plain", body="Sec-WebSocket-Key is missing\n")
    said, advice, mark = examine(answering(answer))[1:]
    assert said == "       | Sec-WebSocket-Key is missing"
    assert "Envoy does that" in advice and "allow_connect" in advice
    assert mark == "!"


def test_doctor_says_that_nothing_answers() -> None:
    def serve(far: Far) -> None:
        far.take_head()
        assert far.at_end()

    lines = examine(serve, "--timeout=0.1")
    assert lines[0] == "WRONG  opening handshake: no answer within 0.1 seconds"
    assert "all threads or workers" in lines[1]


def test_doctor_says_that_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    lines, error = doctor(f"ws://127.0.0.1:{port}/")
    assert lines[1] == f"WRONG  connection: no server listens on port {port}"
    assert error


def test_doctor_says_that_a_name_has_no_address() -> None:
    lines, error = doctor("ws://no-such-name.invalid/")
    assert lines[0].startswith("WRONG  name: 'no-such-name.invalid' has no address")
    assert len(lines) == 2
    assert error


@pytest.mark.parametrize(
    ("name", "trusted", "advice"),
    [
        ("127.0.0.1", False, "--insecure tries without looking at it"),
        ("other.example", True, "the certificate is for another name"),
    ],
)
def test_doctor_says_what_is_wrong_with_a_certificate(tmp_path, monkeypatch, name, trusted, advice) -> None:
    certificate = certify(tmp_path, monkeypatch, name, trusted=trusted)
    with pytest.raises((ssl.SSLError, ConnectionError)), listening(lambda far: None, certificate) as port:
        lines, error = doctor(f"wss://127.0.0.1:{port}/")
    assert lines[1].startswith("WRONG  connection: the certificate is refused: ")
    assert advice in lines[2]
    assert error


@pytest.mark.parametrize(("trusted", "options"), [(True, ()), (False, ("--insecure",))])
def test_doctor_tells_which_tls_is_spoken(tmp_path, monkeypatch, trusted, options) -> None:
    def serve(far: Far) -> None:
        shake_hands(far)
        close(far)

    with listening(serve, certify(tmp_path, monkeypatch, "127.0.0.1", trusted=trusted)) as port:
        lines, error = doctor(f"https://127.0.0.1:{port}/", "--size=0", "--idle=0", *options)
    assert error == ""
    assert lines[1] == f"ok     connection: connected to port {port} in N ms, TLSv1.3"


def certify(tmp_path, monkeypatch, name: str, *, trusted: bool) -> ssl.SSLContext:
    """A server's side of TLS; its authority is known to the process where it is ``trusted``."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    if trusted:
        authority.cert_pem.write_to_path(tmp_path / "authority.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    return context


def test_doctor_says_that_no_tls_is_spoken() -> None:
    with listening(lambda far: far.send(http("400 Bad Request"))) as port:
        lines, error = doctor(f"wss://127.0.0.1:{port}/")
    assert lines[1].startswith("WRONG  connection: no TLS (")
    assert error


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
