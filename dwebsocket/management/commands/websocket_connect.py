"""`manage.py websocket_connect URL`: try a view by hand."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib import import_module
from typing import Any, TextIO

from django.apps import apps
from django.conf import settings
from django.contrib import auth
from django.contrib.sessions.backends import db
from django.core.management.base import CommandError, CommandParser
from django.db import DatabaseError, close_old_connections

from ...client import ClientConnection, HandshakeFailed, Refused, connect
from ...client.command import (
    ClientCommand,
    close_in_words,
    not_negative,
    opening,
    printable,
    refusal_in_words,
    size_in_words,
    trust,
)
from ...protocol.codes import CloseCode
from ...protocol.exceptions import ProtocolError, WebSocketClosed
from ...protocol.messages import Message

WAIT_SECONDS = 1.0
_TICK_SECONDS = 0.1  # so often the command checks whether the input has ended
_SHOWN_BYTES = 32
_SESSION_SECONDS = 24 * 3600  # a killed command cannot remove its session, which then expires
_NORMAL = frozenset({CloseCode.NORMAL_CLOSURE, CloseCode.NO_STATUS_RCVD})


class Command(ClientCommand):
    """Sends the input line by line, prints the messages that arrive."""

    help = (
        "Opens a WebSocket: each line of the input is sent as a text message, what arrives is printed. Ctrl-D (the end"
        " of the input) closes it once nothing has arrived for a moment, Ctrl-C at once. On a terminal, control"
        " characters in what arrives are escaped; into a pipe it goes as it is. Lines that begin with * tell what"
        " happens, on the standard error; -v 0 leaves them out. Exit code 1 unless it was opened, and closed with 1000"
        " or without a code."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add those of the client, the login, and the form of the output."""
        super().add_arguments(parser)
        parser.add_argument(
            "--user", metavar="NAME",
            help="log this user of the project in: a session is made, its cookie sent, and the session removed at the"
            " end. The server must use the same sessions and SECRET_KEY, and be one that may have that cookie",
        )  # fmt: skip
        parser.add_argument("--raw", action="store_true", help="print JSON as it comes")
        parser.add_argument(
            "--wait", type=not_negative, default=WAIT_SECONDS, metavar="SECONDS",
            help="after the end of the input, close when nothing has arrived for so long (default: %(default)s)",
        )  # fmt: skip

    def handle(self, *args: Any, url: str, **options: Any) -> None:
        """Open the WebSocket, converse, and print how it ended."""
        self._verbose = options["verbosity"] > 0
        with logged_in(options["user"]) if options["user"] else nullcontext() as cookie:
            websocket = self._connect(url, options, cookie)
            subprotocol = websocket.subprotocol
            self._tell(f"connected to {url}" + (f", subprotocol {subprotocol}" if subprotocol else ""))
            self._converse(websocket, raw=options["raw"], wait=options["wait"], timeout=options["timeout"])
        code = websocket.close_code or CloseCode.ABNORMAL_CLOSURE
        words = close_in_words(code, websocket.close_reason)
        if code not in _NORMAL:
            raise CommandError(f"closed with {words}")
        self._tell(f"closed with {words}")

    def _connect(self, url: str, options: dict[str, Any], cookie: str | None) -> ClientConnection:
        asked = opening(options)
        if cookie is not None:
            asked["headers"] = with_cookie(asked["headers"], cookie)
        try:
            return connect(url, timeout=options["timeout"], ssl_context=trust(options), **asked)
        except Refused as refused:
            raise CommandError(refusal_in_words(refused)) from None
        except (HandshakeFailed, OSError) as error:
            sentence = f"{url} cannot be opened: {printable(str(error))}"
            raise CommandError(f"{sentence}\nwhat to do about it: manage.py websocket_doctor {url}") from None
        except ValueError as error:
            raise CommandError(f"{url} cannot be opened: {printable(str(error))}") from None

    def _converse(self, websocket: ClientConnection, *, raw: bool, wait: float, timeout: float) -> None:
        typing = Typing(websocket)
        try:
            shown = on_a_terminal if self.stdout.isatty() else str
            for message in typing.answers(wait):
                self.stdout.write(in_words(message, raw=raw, shown=shown))
                self.stdout.flush()
        except KeyboardInterrupt:
            pass
        except (WebSocketClosed, ProtocolError):
            return
        websocket.close(timeout=timeout)

    def _tell(self, sentence: str) -> None:
        if self._verbose:
            self.stderr.write(f"* {sentence}", str)  # plain: not in the colour of an error
            self.stderr.flush()


@contextmanager
def logged_in(name: str) -> Iterator[str]:
    """Log the user in: gives the session's cookie, and removes the session at the end. CommandError on failure."""
    try:
        session = session_of(user_named(name))
    except DatabaseError as error:
        raise CommandError(f"--user needs the database of the project: {error}") from None
    close_old_connections()  # the command makes no query while the WebSocket is open
    try:
        yield f"{settings.SESSION_COOKIE_NAME}={session.session_key}"
    finally:
        close_old_connections()
        session.flush()


def user_named(name: str) -> Any:
    """The user of the project with that name."""
    if not apps.is_installed("django.contrib.auth"):
        raise CommandError("--user needs django.contrib.auth in INSTALLED_APPS")
    model = auth.get_user_model()
    try:
        return model._default_manager.get_by_natural_key(name)
    except model.DoesNotExist:
        raise CommandError(f"there is no user with the {model.USERNAME_FIELD} {name!r}") from None


def session_of(user: Any) -> Any:
    """A saved session in which the user is logged in, as `login()` makes it, without the signal of a login."""
    store = import_module(settings.SESSION_ENGINE).SessionStore
    if issubclass(store, db.SessionStore) and not apps.is_installed("django.contrib.sessions"):
        raise CommandError(f"--user needs django.contrib.sessions in INSTALLED_APPS, for {settings.SESSION_ENGINE}")
    session = store()
    session[auth.SESSION_KEY] = user._meta.pk.value_to_string(user)
    session[auth.BACKEND_SESSION_KEY] = backend_of(user)
    if hasattr(user, "get_session_auth_hash"):
        session[auth.HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.set_expiry(_SESSION_SECONDS)
    session.save()
    return session


def backend_of(user: Any) -> str:
    """The first backend that gives the user; Django's backends do not give an inactive one."""
    path: str
    for path in settings.AUTHENTICATION_BACKENDS:
        get_user = getattr(auth.load_backend(path), "get_user", None)
        if get_user is not None and get_user(user.pk) is not None:
            return path
    raise CommandError(f"{user} cannot log in: no backend of AUTHENTICATION_BACKENDS gives this user (is_active?)")


def with_cookie(headers: Sequence[tuple[str, str]], cookie: str) -> list[tuple[str, str]]:
    """The headers with the cookie added, all cookies in one header: servers join several with a comma."""
    cookies = [value for name, value in headers if name.lower() == "cookie"]
    others = [(name, value) for name, value in headers if name.lower() != "cookie"]
    return [*others, ("Cookie", "; ".join([*cookies, cookie]))]


class Typing:
    """Sends the lines of the input, in another thread."""

    def __init__(self, websocket: ClientConnection) -> None:
        self._websocket = websocket
        self._ended_at: float | None = None
        if sys.stdin is None:  # closed before we were called
            self._ended_at = time.monotonic()
            return
        # Another file object: a thread that still reads from `sys.stdin` when the process ends would break that end.
        lines = open(os.dup(sys.stdin.fileno()), encoding=sys.stdin.encoding, errors="replace")  # noqa: SIM115
        threading.Thread(target=self._send_lines, args=(lines,), daemon=True).start()

    def answers(self, wait: float) -> Iterator[Message]:
        """Give the messages that arrive, until the input has ended and then none has come for `wait` seconds."""
        heard_at = 0.0
        while self._ended_at is None or time.monotonic() < max(self._ended_at, heard_at) + wait:
            try:
                yield self._websocket.receive(_TICK_SECONDS)
            except TimeoutError:
                continue
            heard_at = time.monotonic()

    def _send_lines(self, lines: TextIO) -> None:
        try:
            with lines:
                for line in lines:
                    self._websocket.send(line.removesuffix("\n"))
        except WebSocketClosed:
            pass  # the receiving thread gets the reason
        finally:
            self._ended_at = time.monotonic()


def in_words(message: Message, *, raw: bool, shown: Callable[[str], str] = str) -> str:
    """The message for the output: JSON indented unless `raw`, and of binary ones the size and the beginning.

    `shown` makes each line of it printable.
    """
    if isinstance(message, bytes):
        more = " …" if len(message) > _SHOWN_BYTES else ""
        return f"binary, {size_in_words(len(message))}: {message[:_SHOWN_BYTES].hex(' ')}{more}"
    indented = None if raw else pretty(message)
    return shown(message) if indented is None else "\n".join(map(shown, indented.split("\n")))


def on_a_terminal(line: str) -> str:
    """The line, harmless to a terminal, and not to be mistaken for a line of the command itself."""
    line = printable(line)
    return rf"\x2a{line[1:]}" if line.startswith("*") else line


def pretty(text: str) -> str | None:
    """An object or a list of JSON, indented; None where `text` is something else."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return None
