"""What the tests of the commands use: a command's output and error, and answers to its handshake."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

from django.core.management import CommandError, call_command

from tests.client.far import Far


def outcome(*arguments: str, out: io.StringIO | None = None, **more) -> tuple[str, str]:
    out = out or io.StringIO()
    try:
        call_command(*arguments, stdout=out, **more)
    except CommandError as error:
        return out.getvalue(), str(error)
    return out.getvalue(), ""


def answering(answer: bytes) -> Callable[[Far], None]:
    def serve(far: Far) -> None:
        far.take_head()
        far.send(answer)

    return serve


def http(status: str, *fields: str, body: str = "", version: str = "1.1") -> bytes:
    return "\r\n".join([f"HTTP/{version} {status}", *fields, "", body]).encode()


def doctor(url: str, *options: str) -> tuple[list[str], str]:
    """The lines that it prints, without its times, and the message of its CommandError."""
    out, error = outcome("websocket_doctor", url, "--timeout=10", *options)
    return re.sub(r"\d+\.\d (ms)|(?<=(?:ction|s cut) after )\d+\.\d (seconds)", r"N \1\2", out).splitlines(), error
