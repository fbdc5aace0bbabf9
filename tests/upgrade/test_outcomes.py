"""What an exception, or a response, that leaves a view after the 101 says: to the peer, to the logs, to receivers."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from django.core import signals
from django.core.exceptions import BadRequest, DisallowedHost, PermissionDenied, SuspiciousOperation
from django.http import Http404, HttpRequest, HttpResponse
from django.test import override_settings
from rest_framework.exceptions import APIException

from dwebsocket import Forbidden, GroupsUnavailable, Unauthorized, WebSocketClosed, require_websocket
from dwebsocket.protocol.frames import cut_reason
from dwebsocket.upgrade.outcomes import Conclusion, close_for, close_for_status, conclude
from tests.helpers import levels, recorded
from tests.links import assert_ends
from tests.peer import Close
from tests.sites import Site


class NotYourRoom(PermissionDenied):
    """What a project makes of it."""


class OddHeader(SuspiciousOperation):
    """What a project makes of it."""


class Unprintable(Exception):
    """Its own text is a fault."""

    def __str__(self) -> str:
        raise ValueError("no text")


FAULTS = [RuntimeError("broken"), KeyError("key"), Unprintable()]
ANSWERS = [
    (PermissionDenied("not for you"), 403, "Forbidden"),
    (NotYourRoom(), 403, "Forbidden"),
    (Http404("no such room"), 404, "Not Found"),
    (SuspiciousOperation("100% odd"), 400, "Bad Request"),
    (OddHeader("odd header"), 400, "Bad Request"),
    (DisallowedHost("odd host"), 400, "Bad Request"),
    (BadRequest("what?"), 400, "Bad Request"),
]


def name(error: object) -> str:
    return type(error).__name__


def raising(error: BaseException, before: Callable[[HttpRequest], object]) -> Any:
    """A view that raises `error`, once `before` has been called."""

    @require_websocket
    def view(request: HttpRequest) -> None:
        before(request)
        raise error

    return view


def accept(request: Any) -> None:
    request.websocket.accept()


def end(site: Site, path: str = "/") -> Close:
    """The Close frame of a view that says nothing else; everything is over then."""
    with site.connect(path) as peer:
        close = peer.recv_message()
        assert isinstance(close, Close), close
        peer.send_close()
        assert peer.read_to_eof() == b""
    site.until_idle()
    return close


@pytest.fixture
def exceptions() -> Iterator[list[dict[str, Any]]]:
    """The got_request_exception signals of the test."""
    with recorded(signals.got_request_exception) as received:
        yield received


def what_was_said(record: logging.LogRecord) -> tuple[Any, ...]:
    """All that matters of a line."""
    error = record.exc_info and record.exc_info[1]
    return record.name, record.levelname, record.getMessage(), record.status_code, error, record.request.path


# What the peer hears


@pytest.mark.parametrize(("error", "status", "phrase"), ANSWERS, ids=name)
def test_exception_that_django_answers_with_a_status_closes_with_4000_and_the_status(
    site: Site, error: Exception, status: int, phrase: str, exceptions: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert end(site(raising(error, accept))) == Close(4000 + status, phrase)
    assert exceptions == []


@pytest.mark.parametrize("error", FAULTS, ids=name)
def test_any_other_exception_closes_with_1011_and_is_signalled(
    site: Site, error: Exception, exceptions: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert end(site(raising(error, accept)), "/room/") == Close(1011)
    assert [signal["request"].path for signal in exceptions] == ["/room/"]
    assert levels(caplog) == [("django.request", "ERROR")]


@pytest.mark.parametrize(("error", "code"), [(Unauthorized("logged out"), 4401), (Forbidden("banned"), 4403)], ids=name)
def test_what_a_guard_raises_closes_with_its_status_where_the_view_raises_it(
    site: Site, error: Exception, code: int, exceptions: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert end(site(raising(error, accept))).code == code
    assert levels(caplog) == [("django.request", "WARNING")]
    assert exceptions == []


def test_groups_that_cannot_be_reached_close_with_1013_and_the_log_says_why(
    site: Site, exceptions: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    error = GroupsUnavailable("redis://here: it wants a password")
    assert end(site(raising(error, accept)), "/room/") == Close(1013, "Service Unavailable")
    (record,) = [record for record in caplog.records if record.name == "django.request"]
    assert record.getMessage() == "redis://here: it wants a password: /room/"
    assert exceptions == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("broken"), "RuntimeError: broken"),
        (NotYourRoom("go away"), "NotYourRoom: go away"),
        (Http404(), "Http404"),
        (Unprintable(), "Unprintable"),
        (ValueError("one\nof many\r\nlines\x00"), "ValueError: one\nof many\r\nlines\x00"),
        (ValueError("é" * 200), f"ValueError: {'é' * 55}"),  # one byte is left, and it stays so
        (ValueError("🎉" * 200), f"ValueError: {'🎉' * 27}"),
    ],
    ids=["text", "kind", "no text", "unprintable", "lines", "two bytes", "four bytes"],
)
def test_reason_names_the_exception_while_debugging(
    site: Site, error: Exception, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert end(site(raising(error, accept), DEBUG=True)).reason == reason


def test_reason_does_not_name_the_exception_in_production(caplog: pytest.LogCaptureFixture) -> None:
    for error in [*FAULTS, *(error for error, _, _ in ANSWERS)]:
        assert close_for(error)[1] in ("", "Forbidden", "Not Found", "Bad Request")


@override_settings(DEBUG=True)
@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_reason_is_cut_between_two_characters_and_fills_the_frame(width: int) -> None:
    character = {1: "a", 2: "é", 3: "€", 4: "🎉"}[width]
    for offset in range(width):
        reason = close_for(ValueError("-" * offset + character * 123))[1]
        assert reason.strip("-").endswith(character)
        assert 123 - width < len(reason.encode()) <= 123


def test_half_a_surrogate_pair_does_no_harm_to_the_reason() -> None:
    assert close_for_status(404, "half \ud83d a pair") == (4404, "half ? a pair")


def test_reason_that_fits_is_not_cut() -> None:
    assert cut_reason("é" * 61 + "a") == "é" * 61 + "a"
    assert cut_reason("é" * 61 + "ab") == "é" * 61 + "a"


class OddStatus(APIException):
    """What a project makes of it, with a status that HTTP has not."""

    status_code = 999


class NoStatus(APIException):
    """The same, without any."""

    status_code = None


@pytest.mark.parametrize("error", [OddStatus(), NoStatus()], ids=name)
def test_exception_of_rest_framework_with_a_status_that_is_none_is_a_fault(
    site: Site, error: Exception, exceptions: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert end(site(raising(error, accept)), "/room/") == Close(1011)
    assert [signal["request"].path for signal in exceptions] == ["/room/"]


def test_receiver_that_is_stopped_does_not_keep_the_connection_from_closing_with_1011(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    def stop(**about: Any) -> None:
        raise gevent.Timeout(5)  # a BaseException, as of a time limit around what it does

    signals.got_request_exception.connect(stop)
    try:
        assert end(site(raising(RuntimeError("broken"), accept))) == Close(1011)
    finally:
        signals.got_request_exception.disconnect(stop)
    assert [record.name for record in caplog.records] == ["dwebsocket"]
    assert "could not be reported" in caplog.text


# What is logged


@pytest.mark.parametrize("error", [RuntimeError("broken"), *(error for error, _, _ in ANSWERS)], ids=name)
def test_exception_after_the_101_is_logged_as_the_same_one_is_before_it(
    site: Site, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    assert site(raising(error, lambda request: None)).handshake("/a/room/").status in (400, 403, 404, 500)
    (before,) = [record for record in caplog.records if record.name.startswith("django.")]
    caplog.clear()
    end(site(raising(error, accept)), "/a/room/")
    (after,) = caplog.records
    assert what_was_said(after) == what_was_said(before)


def test_text_that_would_forge_a_line_of_the_log_is_escaped(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    end(site(raising(BadRequest("odd\nERROR forged"), accept)), "/a%0Aforged/")
    (record,) = caplog.records
    assert record.getMessage() == r"odd\nERROR forged: /a\nforged/"


# Before the 101


@pytest.mark.parametrize(("error", "status", "phrase"), ANSWERS, ids=name)
def test_exception_before_the_101_is_an_ordinary_http_answer(
    site: Site, error: Exception, status: int, phrase: str, exceptions: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert site(raising(error, lambda request: None)).handshake().status == status
    assert exceptions == []


# Responses


@pytest.mark.parametrize(
    ("status", "close"),
    [
        (200, Close(1000)),
        (204, Close(1000)),
        (302, Close(1000)),
        (304, Close(1000)),
        (400, Close(4400, "Bad Request")),
        (403, Close(4403, "Forbidden")),
        (429, Close(4429, "Too Many Requests")),
        (499, Close(4499, "Unknown Status Code")),
        (500, Close(1011, "Internal Server Error")),
        (503, Close(1011, "Service Unavailable")),
    ],
)
def test_response_after_the_101_closes_with_what_its_status_says(site: Site, status: int, close: Close) -> None:
    @require_websocket
    def view(request: Any) -> HttpResponse:
        request.websocket.send("accepted")
        return HttpResponse("a body that nobody gets", status=status)

    peer = site(view).connect()
    assert peer.recv_message() == "accepted"
    assert_ends(peer, *close)


def test_response_does_not_change_a_close_code_that_the_view_has_chosen(site: Site) -> None:
    @require_websocket
    def view(request: Any) -> HttpResponse:
        request.websocket.accept()
        request.websocket.close(4001, "chosen")
        return HttpResponse(status=404)

    assert_ends(site(view).connect(), 4001, "chosen")


def test_reason_of_a_response_may_be_any_text() -> None:
    assert close_for_status(418, "é" * 100) == (4418, "é" * 61)


# No failure at all


@pytest.mark.parametrize("leave", ["send_close", "abandon", "reset"])
@pytest.mark.parametrize("busy", ["sending", "waiting", "iterating"])
def test_peer_that_leaves_is_no_error(
    site: Site, leave: str, busy: str, exceptions: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    def send_on(websocket: Any) -> None:
        while True:
            websocket.send("tick")
            site.pause(0.005)

    @require_websocket
    def view(request: Any) -> None:
        request.websocket.accept()
        try:
            {"sending": send_on, "waiting": lambda ws: ws.wait(), "iterating": list}[busy](request.websocket)
        finally:
            site.tell("ended")

    with site(view).connect() as peer:
        getattr(peer, leave)()
        assert site.hear() == "ended"
    site.until_idle()
    assert levels(caplog) == []
    assert exceptions == []


OLD_CODE: dict[str, Callable[[Any], object]] = {
    "decode": lambda message: message.decode(),
    "str": lambda message: str(message, "utf-8"),
    "startswith": lambda message: message.startswith(b"a"),
    "add to bytes": lambda message: b"you said " + message,
    "add bytes": lambda message: message + b"!",
    "in": lambda message: b"a" in message,
}


@pytest.mark.parametrize("code", OLD_CODE)
def test_exception_of_a_view_that_takes_text_for_bytes_names_the_old_verbs(
    site: Site, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    @require_websocket
    def view(request: HttpRequest) -> None:
        OLD_CODE[code](request.websocket.wait())

    with site(view).connect() as peer:
        peer.send_message("abc")
        assert_ends(peer, 1011)
    site.until_idle()
    has_notes = sys.version_info >= (3, 11)
    assert ('WEBSOCKET_CLASS = "dwebsocket.legacy.WebSocket"' in caplog.text) is has_notes


@pytest.mark.parametrize(
    ("error", "settings"),
    [
        (TypeError("unsupported operand type(s) for +: 'int' and 'str'"), {}),
        (AttributeError("'NoneType' object has no attribute 'decode'"), {}),
        (ValueError("decoding str is not supported"), {}),
        (TypeError("decoding str is not supported"), {"WEBSOCKET_CLASS": "dwebsocket.legacy.WebSocket"}),
    ],
    ids=repr,
)
def test_any_other_exception_does_not(
    site: Site, error: Exception, settings: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with site(raising(error, lambda request: request.websocket.accept()), **settings).connect() as peer:
        assert_ends(peer, 1011)
    site.until_idle()
    assert [record.name for record in caplog.records] == ["django.request"]
    assert "WEBSOCKET_CLASS" not in caplog.text


# What follows from how a view ends, as a table

PAGE, MISSING = HttpResponse("page"), HttpResponse(status=404)
FAULT, CLOSED, STOP = ValueError("no"), WebSocketClosed(1000), SystemExit()


@pytest.mark.parametrize(
    ("response", "error", "facts", "expected"),
    [
        pytest.param(PAGE, None, {"accepted": False}, Conclusion(answer=PAGE), id="refused with a page"),
        pytest.param(None, FAULT, {"accepted": False}, Conclusion(answer=FAULT), id="refused by a fault"),
        pytest.param(None, STOP, {"accepted": False, "is_stopped": True}, Conclusion(answer=STOP), id="stopped before"),
        pytest.param(None, None, {"accepted": True}, Conclusion(), id="talked"),
        pytest.param(PAGE, None, {"accepted": True}, Conclusion(report=PAGE), id="a page too late"),
        pytest.param(
            MISSING, None, {"accepted": True}, Conclusion(close=(4404, "Not Found"), report=MISSING), id="404 too late"
        ),
        pytest.param(
            PAGE, None, {"accepted": True, "has_status_line": False}, Conclusion(close=(4200, "OK"), report=PAGE),
            id="a page of a server that sent the 101 itself",
        ),
        pytest.param(None, FAULT, {"accepted": True}, Conclusion(close=(1011, ""), report=FAULT), id="a fault"),
        pytest.param(None, CLOSED, {"accepted": True, "is_own_end": True}, Conclusion(), id="its own end"),
        pytest.param(
            None, CLOSED, {"accepted": True}, Conclusion(close=(1011, ""), report=CLOSED), id="another's end"
        ),
        pytest.param(
            None, STOP, {"accepted": True, "is_stopped": True}, Conclusion(close=(1001, "")), id="stopped, detached"
        ),
        pytest.param(
            None, STOP, {"accepted": True, "is_stopped": True, "has_caller": True},
            Conclusion(answer=STOP, close=(1001, "")), id="stopped, attached",
        ),
    ],
)  # fmt: skip
def test_conclusion_follows_from_how_the_view_ends(
    response: Any, error: Any, facts: dict[str, bool], expected: Conclusion
) -> None:
    assert conclude(response, error, **facts) == expected


@pytest.mark.parametrize("error", [None, CLOSED])
def test_view_that_ends_without_a_word_before_the_101_refuses_with_403(error: Any) -> None:
    conclusion = conclude(None, error, accepted=False, is_own_end=error is not None)

    assert isinstance(conclusion.answer, HttpResponse)
    assert conclusion.answer.status_code == 403
