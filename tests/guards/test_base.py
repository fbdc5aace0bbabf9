"""What a guard answers, and what the client gets to see of it."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.http import HttpResponse

from dwebsocket import accept_websocket, require_websocket
from dwebsocket.exceptions import Forbidden
from dwebsocket.guards.base import Guard
from dwebsocket.protocol.exceptions import HandshakeError
from tests.guards.helpers import Heard, assert_open, broken, denied, guarded, unauthorized, yes
from tests.sites import Site


@pytest.mark.parametrize(
    ("guard", "status", "sentence"),
    [
        (lambda request: False, 403, "permission denied"),
        (lambda request: None, 403, "permission denied"),
        (denied, 403, "permission denied"),
        (unauthorized, 401, "who are you?"),
        ([yes, denied, unauthorized], 403, "permission denied"),
        ([yes, unauthorized, denied], 401, "who are you?"),
        (f"{__name__}.unauthorized", 401, "who are you?"),
        ([f"{__name__}.yes", f"{__name__}.denied"], 403, "permission denied"),
        (broken, 500, ""),
    ],
    ids=["false", "none", "denied", "unauthorized", "403-first", "401-first", "path", "paths", "broken"],
)
@pytest.mark.parametrize("where", ["setting", "option"])
def test_guard_refuses_the_opening_handshake_before_the_view_is_called(
    site: Site, guard: Any, status: int, sentence: str, where: str
) -> None:
    options = {"guard": guard} if where == "option" else {}

    @require_websocket(**options)
    def view(request):
        raise AssertionError("the view was called")

    response = site(view, **({"WEBSOCKET_GUARD": guard} if where == "setting" else {})).handshake()
    assert response.status == status
    assert status == 500 or response.body.decode().strip() == sentence


def test_text_of_a_permission_denied_reaches_neither_the_client_nor_the_log(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    response = guarded(site, denied).handshake()
    site.until_idle()
    assert "not for you" not in f"{response}{caplog.text}"


def test_text_of_a_guard_that_would_forge_a_line_of_the_log_is_escaped(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    def guard(request: Any) -> bool:
        raise Forbidden("no such room\nERROR forged")

    assert guarded(site, guard).handshake("/a/room/").status == 403
    site.until_idle()
    (record,) = caplog.records
    assert record.getMessage() == r"Forbidden: /a/room/ (no such room\nERROR forged)"


async def asynchronous(request: Any) -> bool:
    return True


@pytest.fixture
def coroutine() -> Iterator[Any]:
    """What an asynchronous guard returns, and nobody awaits."""
    coroutine = asynchronous(None)
    yield coroutine
    coroutine.close()


class Speechless(Guard):
    """Judges nobody."""

    def judge(self, requests: Sequence[Any]) -> list[HandshakeError | None]:
        return []


def test_guard_that_judges_nobody_lets_nobody_in(site: Site) -> None:
    assert guarded(site, Speechless()).handshake().status == 500


def test_guard_that_returns_a_coroutine_lets_nobody_in(site: Site, coroutine: Any) -> None:
    assert guarded(site, lambda request: coroutine).handshake().status == 500


def test_guard_that_returns_a_coroutine_later_is_logged_and_closes_nothing(
    site: Site, coroutine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    answers, heard = [True], Heard()
    peer = guarded(site, lambda request: answers[0], heard).connect()
    answers[0] = coroutine
    assert_open(peer, heard)
    assert "is asynchronous; here it is an ordinary function" in caplog.text
    assert "could not be asked; the WebSockets stay open" in caplog.text


def takes_a_view(function: Any) -> Any:
    """A decorator of a project: its answer to a request is always true."""
    return lambda *args: function(*args)


@pytest.mark.parametrize(
    ("guard", "words"),
    [
        (takes_a_view, "returned a function, neither True nor False: a decorator is no guard; write it above"),
        (functools.partial(login_required, login_url="/in/"), "a decorator is no guard; write it above"),
        (lambda request: 1, "returned a int, neither True nor False: let it return bool(…)"),
        (lambda request: "", "returned a str, neither"),
        (lambda request: User.objects.filter(username="ann"), "returned a QuerySet, neither"),
        (lambda request: HttpResponse(), "returned a HttpResponse, neither"),
    ],
    ids=["decorator", "login_required", "number", "empty", "queryset", "response"],
)
def test_answer_that_is_neither_true_nor_false_lets_nobody_in_and_says_what_to_write(
    site: Site, guard: Any, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert guarded(site, guard).handshake().status == 500
    site.until_idle()
    assert "the guard <" in caplog.text or "the guard functools" in caplog.text
    assert words in caplog.text


def test_answer_that_is_neither_true_nor_false_later_is_logged_and_closes_nothing(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    answers, heard = [True], Heard()
    peer = guarded(site, lambda request: answers[0], heard).connect()
    answers[0] = "yes"  # type: ignore[call-overload]
    assert_open(peer, heard)
    assert "returned a str, neither True nor False: let it return bool(…)" in caplog.text
    assert "could not be asked; the WebSockets stay open" in caplog.text


def test_guard_of_a_view_replaces_that_of_the_settings(site: Site) -> None:
    @require_websocket(guard=yes)
    def view(request):
        request.websocket.send("hello")

    assert site(view, WEBSOCKET_GUARD=denied).connect().recv_message() == "hello"


def test_plain_http_of_the_same_view_is_not_asked(site: Site) -> None:
    @accept_websocket(guard=denied)
    def view(request):
        return HttpResponse("a page")

    assert site(view).get().body == b"a page"
    assert site.handshake().status == 403
