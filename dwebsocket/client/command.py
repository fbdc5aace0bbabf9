"""The base of commands that open a WebSocket: their arguments, and the results in words."""

from __future__ import annotations

import argparse
import html
import re
import ssl
from collections.abc import Sequence
from typing import Any, TypedDict

from django.core.management.base import BaseCommand, CommandParser

from ..protocol.codes import CloseCode
from ..protocol.handshake import is_token
from .handshake import Refused, Response
from .url import Target

TIMEOUT_SECONDS = 10.0
_SCHEMES = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
#: The headers of a refusal that help to explain it.
_TELLING = ("location", "www-authenticate", "retry-after", "sec-websocket-version", "allow", "content-type", "server")
_MAX_BODY_CHARACTERS = 1000
#: The parts of a page that are no text, its title, and the tags that begin a new line; each may be cut off.
_UNSEEN = re.compile(r"(?is)<!--.*?(?:-->|\Z)|<(style|script|title|template|svg)\b.*?(?:</\1\s*>|\Z)")
_TITLE = re.compile(r"(?i)<title[^<>]*>([^<>]*)")
_BLOCK = re.compile(r"(?i)</?(?:address|br|dd|div|dt|footer|h\d|header|li|main|p|pre|section|table|tr)\b[^<>]*>")
_TAG = re.compile(r"</?[A-Za-z!][^<>]*>")
#: Characters that move a cursor, end a line or turn text around: C0 but for the tab, DEL, C1, and some of Unicode's.
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_LIBRARIES, _APPLICATIONS = range(3000, 4000), range(4000, 5000)  # RFC 6455, 7.4.2


class Opening(TypedDict):
    """The opening handshake, as arguments of `client.connect()`."""

    headers: Sequence[tuple[str, str]]
    subprotocols: Sequence[str]
    origin: str | None


class ClientCommand(BaseCommand):
    """A command that takes the URL of a WebSocket as its first argument. It needs no database and no settings."""

    requires_system_checks: list[str] = []  # noqa: RUF012  # the server is another process

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the arguments that all of them have in common."""
        parser.add_argument("url", type=websocket_url, metavar="URL", help="ws(s):// or http(s)://")
        parser.add_argument(
            "-H", "--header", action="append", default=[], type=header, dest="headers", metavar='"NAME: VALUE"',
            help='a header of the opening handshake, as "Cookie: sessionid=…"; can be given more than once',
        )  # fmt: skip
        parser.add_argument(
            "--subprotocol", action="append", default=[], dest="subprotocols", metavar="NAME",
            help="a subprotocol to offer; can be given more than once, the preferred one first",
        )  # fmt: skip
        parser.add_argument(
            "--origin", metavar="ORIGIN", help="the site of the page that opens it, as https://example.com"
        )
        parser.add_argument("--insecure", action="store_true", help="take any certificate")
        parser.add_argument(
            "--timeout", type=positive, default=TIMEOUT_SECONDS, metavar="SECONDS",
            help="how long to wait for each answer (default: %(default)s)",
        )  # fmt: skip


def websocket_url(text: str) -> str:
    """The URL with ws:// or wss://; ArgumentTypeError where it is none."""
    scheme, separator, rest = text.partition("://")
    if not separator or scheme.lower() not in _SCHEMES:
        raise argparse.ArgumentTypeError(f"{text!r} does not begin with ws://, wss://, http:// or https://")
    url = f"{_SCHEMES[scheme.lower()]}://{rest}"
    try:
        Target.parse(url)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return url


def header(text: str) -> tuple[str, str]:
    """Name and value of a header written as "Name: value"."""
    name, colon, value = text.partition(":")
    if not colon or not is_token(name.strip()):
        raise argparse.ArgumentTypeError(f'{text!r} is not a header: write "Name: value"')
    return name.strip(), value.strip()


def positive(text: str) -> float:
    """A number of seconds above 0."""
    seconds = float(text)
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0")
    return seconds


def not_negative(text: str) -> float:
    """A number of seconds, 0 or above."""
    seconds = float(text)
    if not seconds >= 0:
        raise argparse.ArgumentTypeError(f"{text} is less than 0")
    return seconds


def opening(options: dict[str, Any]) -> Opening:
    """The opening handshake that the arguments ask for."""
    return Opening(headers=options["headers"], subprotocols=options["subprotocols"], origin=options["origin"])


def trust(options: dict[str, Any]) -> ssl.SSLContext:
    """The TLS context: certificates are judged as Python does, or not at all with --insecure."""
    context = ssl.create_default_context()
    if options["insecure"]:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def printable(text: str) -> str:
    """The text in one line that is harmless to a terminal: control characters are escaped as in Python."""
    return _CONTROL.sub(lambda match: repr(match[0])[1:-1], text)


def close_in_words(code: int, reason: str) -> str:
    """The close code with its name, and the reason: "1009 MESSAGE_TOO_BIG: message of more than 1048576 bytes"."""
    name = CloseCode(code).name if code in frozenset(CloseCode) else _name_of_range(code)
    return f"{code} {name}" + (f": {printable(reason)}" if reason else "")


def _name_of_range(code: int) -> str:
    if code in _APPLICATIONS:
        return "of the application"
    return "of a library" if code in _LIBRARIES else "unregistered"


def refusal_in_words(refused: Refused) -> str:
    """The status, the headers that say something about it, and behind bars the beginning of the body."""
    response = refused.response
    told = [f"{name.title()}: {printable(value)}" for name in _TELLING if (value := response.get(name))]
    body = [f"| {line}" for line in body_in_words(response, refused.body)]
    return "\n".join([printable(str(refused)), *told, *body])


def body_in_words(response: Response, body: bytes) -> list[str]:
    """The lines of the beginning of a body, where it is text, as they can be printed."""
    text = body.decode(errors="replace").strip()
    if "\0" in text:
        return [f"({len(body)} bytes of {printable(response.get('content-type') or 'something')})"]
    if "html" in (response.get("content-type") or "").lower():
        text = page_in_words(text)
    cut = f"{text[:_MAX_BODY_CHARACTERS]} …" if len(text) > _MAX_BODY_CHARACTERS else text
    return [printable(line) for line in cut.splitlines()]


def page_in_words(page: str) -> str:
    """The title of a page of HTML, and below it the lines of its text."""
    title = _TITLE.search(page)
    text = _TAG.sub(" ", _BLOCK.sub("\0", _UNSEEN.sub("", page)))  # no page has a NUL
    lines = [" ".join(html.unescape(line).split()) for line in [title[1] if title else "", *text.split("\0")]]
    return "\n".join(dict.fromkeys(line for line in lines if line))


def size_in_words(size: int) -> str:
    """A number of bytes, as "1 MiB" where it is a round one."""
    for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if size and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} bytes"
