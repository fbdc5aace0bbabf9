"""The one line that the log has of each WebSocket."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse
from django.utils.functional import SimpleLazyObject

from dwebsocket import connections, require_websocket
from dwebsocket.process import observers
from dwebsocket.signals import websocket_closed
from tests.helpers import recorded
from tests.links import assert_ends
from tests.peer import CLOSE, TEXT, Close, close_payload, frame, text
from tests.process.helpers import echo
from tests.sites import Site, changing

LINE = re.compile(
    r"(?P<path>\S+) (?P<user>\S+) (?P<address>\S+) (?P<seconds>\d+\.\d{3}) s,"
    r" received (?P<messages_received>\d+) messages \((?P<bytes_received>\d+) bytes\),"
    r" sent (?P<messages_sent>\d+) \((?P<bytes_sent>\d+) bytes\),"
    r" closed (?P<close_code>\d+)(?: (?P<close_reason>.*))?"
)
NORMAL = Close(1000)
EVIL = "a\nb\r\x1b[31m\u2028\x85c"


@pytest.fixture(autouse=True)
def _lines_are_written(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dwebsocket.access")


def talk(site: Site, path: str = "/", close: Close = NORMAL, **headers: str) -> None:
    """One message there and back, and then everything is over."""
    with site.connect(path, headers) as peer:
        peer.send_message("hello")
        assert peer.recv_message() == "hello"
        peer.close(*close)
        assert peer.read_to_eof() == b""
    site.until_idle()


def line(caplog: pytest.LogCaptureFixture) -> logging.LogRecord:
    """The only line there is."""
    (record,) = [record for record in caplog.records if record.name == "dwebsocket.access"]
    return record


def extras(record: logging.LogRecord) -> dict[str, Any]:
    """What the record has and others have not."""
    usual = {*vars(logging.makeLogRecord({})), "message", "asctime"}
    return {name: value for name, value in vars(record).items() if name not in usual}


# The line


def test_line_says_who_was_where_for_how_long_and_what_has_passed(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    talk(site(echo), "/rooms/7/?token=secret", Close(4001, "bye now"))
    record = line(caplog)
    found = LINE.fullmatch(record.getMessage())
    assert found, record.getMessage()
    said = found.groupdict()
    assert said.pop("seconds") == f"{record.seconds:.3f}"
    assert said == {
        "path": "/rooms/7/", "user": "-", "address": "127.0.0.1", "close_code": "4001", "close_reason": "bye now",
        "messages_received": "1", "messages_sent": "1",
        "bytes_received": str(len(text("hello") + frame(CLOSE, close_payload(4001, "bye now")))),
        "bytes_sent": str(len(frame(TEXT, b"hello", mask=None) + frame(CLOSE, close_payload(4001), mask=None))),
    }  # fmt: skip
    assert record.levelname == "INFO"


def test_every_part_of_the_line_is_an_attribute_that_json_can_say(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    @require_websocket
    def view(request: Any) -> None:
        site.tell(request)
        echo(request)

    talk(site(view), "/rooms/7/", Close(4001, "bye"))
    found = extras(line(caplog))
    assert found.pop("request") is site.hear()
    assert json.loads(json.dumps(found)) == found
    assert found.pop("seconds") >= 0
    assert found == {
        "path": "/rooms/7/", "user": "", "address": "127.0.0.1", "close_code": 4001, "close_reason": "bye",
        "messages_received": 1, "messages_sent": 1, "bytes_received": 11 + 11, "bytes_sent": 7 + 4,
    }  # fmt: skip


def test_line_of_a_view_that_fails_and_of_a_peer_that_vanishes_say_so(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    @require_websocket
    def view(request: Any) -> None:
        request.websocket.accept()
        raise PermissionDenied

    assert_ends(site(view).connect(), 4403, "Forbidden")
    site.until_idle()
    assert line(caplog).getMessage().endswith("closed 4403 Forbidden")
    caplog.clear()
    site(echo).connect().reset()
    site.until_idle()
    assert line(caplog).close_code == 1006


def test_refusal_has_no_line(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    @require_websocket
    def view(request: Any) -> HttpResponse:
        return HttpResponse(status=402)

    assert site(view).handshake().status == 402
    assert site.get().status == 426
    site.until_idle()
    assert "dwebsocket.access" not in [record.name for record in caplog.records]


@pytest.mark.parametrize("site", ["detached"], indirect=True)
def test_client_without_an_address_is_a_dash(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    with changing(lambda request: request.META.pop("REMOTE_ADDR")) as settings:
        talk(site(echo, **settings))
    assert " - - 0." in line(caplog).getMessage()
    assert line(caplog).address == ""


def test_nothing_is_written_and_nothing_computed_above_info(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "dwebsocket.access")
    talk(site(echo))
    assert caplog.records == []
    observers.log(None, 1000, "")  # type: ignore[arg-type]  # it is not even looked at


# The user


def test_user_whom_nobody_has_asked_for_is_not_asked_for_here(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    def load() -> User:
        site.tell("loaded")
        return User(username="ada")

    with changing(lambda request: setattr(request, "user", SimpleLazyObject(load))) as settings:
        talk(site(echo, **settings))
    assert line(caplog).user == ""
    assert site.told.empty()


def test_user_whom_the_view_has_asked_for_is_named(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    @require_websocket
    def view(request: Any) -> None:
        site.tell(request.user.username)
        echo(request)

    with changing(lambda request: setattr(request, "user", SimpleLazyObject(lambda: User(username="ada")))) as settings:
        talk(site(view, **settings))
    assert site.hear() == line(caplog).user == "ada"
    assert line(caplog).getMessage().startswith("/ ada 127.0.0.1 ")


# What others say does not forge lines


def test_line_stays_one_line_whatever_the_peer_says(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    def change(request: Any) -> None:
        request.user = User(username=EVIL)
        request.META["REMOTE_ADDR"] = request.META["HTTP_X_FORWARDED_FOR"] + EVIL

    with changing(change) as settings:
        talk(
            site(echo, **settings), "/a%0Ab%0D%1B%5B31m%E2%80%A8c", Close(4000, EVIL), **{"X-Forwarded-For": "10.0.0.1"}
        )
    message = line(caplog).getMessage()
    assert message.isprintable()
    assert r"a\nb\r\x1b[31m\u2028" in message
    assert message.count(r"\x85c") == 3


# Names of views


class Nameless:
    """A user of a project's own, whose name cannot be had just now."""

    is_authenticated = True

    def get_username(self) -> str:
        raise RuntimeError("no route to the directory")


def test_user_whose_name_cannot_be_had_is_nobody_and_stops_nothing(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    @require_websocket
    def view(request: Any) -> None:
        request.user = Nameless()
        echo(request)

    with recorded(websocket_closed) as closed:
        with site(view).connect("/room/") as peer:
            peer.send_message("hello")
            assert peer.recv_message() == "hello"
            assert [(info.path, info.user) for info in connections()] == [("/room/", "")]
            peer.close()
        site.until_idle()
    assert [signal["code"] for signal in closed] == [1000]
    assert line(caplog).user == ""
