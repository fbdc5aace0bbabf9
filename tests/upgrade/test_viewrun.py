"""How a request becomes a WebSocket, or is refused; how its view ends; what Django gets to see of it."""

from __future__ import annotations

import contextvars
import errno
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import gevent
import pytest
from django.contrib.sessions.backends.cache import SessionStore
from django.core import signals
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.db import connections
from django.http import Http404, HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.template import engines
from django.template.response import SimpleTemplateResponse
from django.test import Client, RequestFactory, override_settings
from django.urls import path
from django.utils import timezone, translation
from django.utils.decorators import method_decorator
from django.views import View

from dwebsocket import WebSocketClosed, accept_websocket, conf, require_websocket
from dwebsocket.exceptions import Forbidden, OriginForbidden, Unauthorized
from dwebsocket.protocol.exceptions import HandshakeError
from dwebsocket.upgrade.origin import check_origin
from tests.helpers import HANDSHAKE, levels, recorded
from tests.links import assert_ends, descriptors, run_program, until
from tests.peer import BINARY, Close, PeerTimeout, frame, text
from tests.sites import PyWSGI, Site


@pytest.fixture
def finished() -> Iterator[list[dict[str, Any]]]:
    """The request_finished signals of the test."""
    with recorded(signals.request_finished) as received:
        yield received


@pytest.fixture
def exceptions() -> Iterator[list[dict[str, Any]]]:
    """The got_request_exception signals of the test."""
    with recorded(signals.got_request_exception) as received:
        yield received


# Refusals before the 101


def raise_404(request: Any) -> HttpResponse:
    raise Http404("no such room")


def raise_forbidden(request: Any) -> HttpResponse:
    raise PermissionDenied("not for you")


def raise_suspicious(request: Any) -> HttpResponse:
    raise SuspiciousOperation("what is that?")


def template_response(request: Any) -> HttpResponse:
    return SimpleTemplateResponse(engines["django"].from_string("{{ 1|add:1 }}"), status=402)


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (lambda request: HttpResponse("no seat left", status=402), 402, b"no seat left"),
        (lambda request: HttpResponse("a page after all"), 200, b"a page after all"),
        (lambda request: StreamingHttpResponse(["in ", "parts"], headers={"Content-Length": "8"}), 200, b"in parts"),
        (template_response, 402, b"2"),
        (lambda request: HttpResponseRedirect("/login/"), 302, b""),
        (raise_404, 404, None),
        (raise_forbidden, 403, None),
        (raise_suspicious, 400, None),
    ],
    ids=["response", "page", "streaming", "template", "redirect", "404", "403", "400"],
)
def test_answer_of_a_view_that_did_not_accept_is_an_ordinary_http_answer(
    site: Site, answer: Any, status: int, body: bytes | None, finished: list[Any]
) -> None:
    response = site(require_websocket(answer)).handshake()
    assert response.status == status
    assert body is None or response.body == body
    assert response.headers["x-frame-options"] == "DENY"  # it went through the middleware
    site.until_idle()
    until(lambda: len(finished) == 1)


def test_exception_before_the_101_is_reported_by_django(
    site: Site, caplog: pytest.LogCaptureFixture, exceptions: list[Any]
) -> None:
    @require_websocket
    def view(request):
        raise RuntimeError("before the accept")

    assert site(view).handshake().status == 500
    (record,) = caplog.records
    assert (record.name, record.levelname, record.status_code) == ("django.request", "ERROR", 500)
    assert str(record.exc_info[1]) == "before the accept"
    assert len(exceptions) == 1


def test_refusal_of_a_view_that_looked_at_the_request_can_be_tried_again_on_the_same_connection(site: Site) -> None:
    @require_websocket
    def view(request):
        if request.GET.get("token") != "secret":
            return HttpResponse("token?", status=401)
        request.websocket.send("welcome")

    with site(view).peer() as peer:
        assert peer.handshake("/").status == 401
        assert peer.connect("/?token=secret").recv_message() == "welcome"


@pytest.mark.parametrize("answer", ["response", "exception"])
def test_websocket_that_was_refused_is_closed_for_whoever_kept_it(
    site: Site, answer: str, caplog: pytest.LogCaptureFixture
) -> None:
    @require_websocket
    def view(request):
        site.tell(request.websocket)
        if answer == "response":
            return HttpResponse("no seat left", status=402)
        raise Http404

    with site(view).peer() as peer:
        assert peer.handshake().status == (402 if answer == "response" else 404)
        websocket = site.hear()
        assert websocket.closed
        assert websocket.wait(timeout=0.1) is None
        with pytest.raises(WebSocketClosed):
            websocket.send("into the HTTP connection")
        with pytest.raises(PeerTimeout):
            peer.recv_frame(timeout=0.1)


# Views that accept


def test_view_that_returns_none_without_using_the_websocket_has_accepted_and_closes_with_1000(site: Site) -> None:
    assert_ends(site(require_websocket(lambda request: None)).connect(), 1000)


def test_view_that_returns_closes_with_1000(site: Site) -> None:
    @require_websocket
    def view(request):
        request.websocket.send("once")
        return HttpResponse("ignored")

    with site(view).connect() as peer:
        assert peer.recv_message() == "once"
        assert_ends(peer, 1000)


@pytest.mark.parametrize("value", [True, "a string", 0, b""], ids=repr)
def test_what_is_no_response_is_ignored_too(site: Site, value: Any) -> None:
    @require_websocket
    def view(request):
        request.websocket.send("once")
        return value

    with site(view).connect() as peer:
        assert peer.recv_message() == "once"
        assert_ends(peer, 1000)


@pytest.mark.parametrize(
    ("response", "status"),
    [
        (HttpResponse("<h1>page</h1>"), 200),
        (HttpResponse(status=204), 204),
        (HttpResponseRedirect("/elsewhere/"), 302),
        (StreamingHttpResponse(["page"]), 200),
        (SimpleTemplateResponse(engines["django"].from_string("page")), 200),
        (HttpResponse(), None),
        (None, None),
    ],
    ids=["page", "no content", "redirect", "streaming", "template", "empty", "none"],
)
def test_page_that_is_returned_too_late_is_told_once_to_those_who_debug(
    site: Site, response: Any, status: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    @require_websocket
    def view(request):
        request.websocket.accept()
        return response

    with caplog.at_level("DEBUG", "dwebsocket"):
        assert_ends(site(view).connect(), 1000)
        site.until_idle()
    told = [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "dwebsocket"]
    about = f"returned a response of status {status} after the opening: it is ignored"
    assert [level for level, _ in told] == ["DEBUG"] * (status is not None)
    assert all(about in message for _, message in told)


def test_error_that_is_returned_too_late_is_logged_as_one_in_time(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    @require_websocket
    def view(request):
        request.websocket.accept()
        return HttpResponse(status=404)

    with site(view).connect() as peer:
        assert_ends(peer, 4404, "Not Found")
    site.until_idle()
    assert levels(caplog) == [("django.request", "WARNING")]


@pytest.mark.parametrize("error", [Unauthorized("who?"), Forbidden("you?")], ids=repr)
def test_view_refuses_by_raising_what_a_guard_raises(site: Site, error: HandshakeError) -> None:
    @require_websocket
    def view(request):
        raise error

    refused = site(view).handshake()
    assert (refused.status, refused.body) == (error.status_code, f"{error}\n".encode())


def test_view_gets_its_arguments(site: Site) -> None:
    @require_websocket
    def view(request, room, *, floor):
        request.websocket.send(f"{room} {floor} {request.GET['q']}")

    site(path("rooms/<int:room>/", view, kwargs={"floor": 3}))
    assert site.connect("/rooms/7/?q=x").recv_message() == "7 3 x"


def test_bytes_behind_the_handshake_reach_the_view(site: Site) -> None:
    @require_websocket
    def view(request):
        for message in request.websocket:
            request.websocket.send(message)

    whole = text("early") + frame(BINARY, bytes(20_000)) + text("cut")
    with site(view).connect(early=whole[:-2]) as peer:
        assert peer.recv_message() == "early"
        assert peer.recv_message() == bytes(20_000)
        peer.send_raw(whole[-2:])
        assert peer.recv_message() == "cut"


# Exceptions after the 101


def test_exception_after_the_101_is_reported_as_django_does_and_closes_with_1011(
    site: Site, caplog: pytest.LogCaptureFixture, exceptions: list[Any], finished: list[Any]
) -> None:
    requests = []

    @require_websocket
    def view(request):
        requests.append(request)
        request.websocket.send("accepted")
        raise RuntimeError("after the accept")

    with site(view).connect("/somewhere/") as peer:
        assert peer.recv_message() == "accepted"
        assert_ends(peer, 1011)
    site.until_idle()
    (record,) = caplog.records
    assert (record.name, record.levelname, record.status_code) == ("django.request", "ERROR", 500)
    assert record.getMessage() == "Internal Server Error: /somewhere/"
    assert str(record.exc_info[1]) == "after the accept"
    assert [record.request] == requests
    assert [signal["request"] for signal in exceptions] == requests
    until(lambda: finished, "the end of the request")
    assert len(finished) == 1


def test_messages_sent_before_the_exception_arrive(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    @require_websocket
    def view(request):
        for number in range(100):
            request.websocket.send(str(number) * 1000)
        raise RuntimeError

    with site(view).connect() as peer:
        assert [peer.recv_message() for _ in range(100)] == [str(number) * 1000 for number in range(100)]
        assert_ends(peer, 1011)


def test_exception_of_a_view_whose_peer_has_left_is_reported_all_the_same(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    @require_websocket
    def view(request):
        list(request.websocket)
        raise RuntimeError("nobody is listening")

    site(view).connect().reset()
    until(lambda: caplog.records)
    site.until_idle()
    assert levels(caplog) == [("django.request", "ERROR")]


def test_exception_that_is_no_exception_is_reported_too_unless_it_is_a_stop_of_the_server(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    @require_websocket
    def view(request):
        request.websocket.accept()
        raise gevent.Timeout(5)  # a BaseException, so that `except Exception` lets it pass

    assert_ends(site(view).connect(), 1011)
    until(lambda: levels(caplog) == [("django.request", "ERROR")])


def test_websocket_closed_of_the_own_socket_ends_the_view_quietly(
    site: Site, caplog: pytest.LogCaptureFixture, exceptions: list[Any]
) -> None:
    @require_websocket
    def view(request):
        try:
            while True:
                request.websocket.send("tick")
                site.pause(0.005)
        finally:
            site.tell("finally")

    with site(view).connect() as peer:
        assert peer.recv_message() == "tick"
        peer.send_close(1001)
        while isinstance(message := peer.recv_message(), str):
            assert message == "tick"
        assert message == Close(1001)
    assert site.hear() == "finally"
    site.until_idle()
    assert levels(caplog) == []
    assert exceptions == []


def test_websocket_closed_of_another_socket_is_an_error_like_any_other(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    first: list[Any] = []

    @require_websocket
    def view(request):
        if not first:
            first.append(request.websocket)
            list(request.websocket)
            site.tell("the first has ended")
        else:
            request.websocket.accept()
            first[0].send("to whom?")

    site(view).connect().close()
    assert site.hear() == "the first has ended"
    assert_ends(site.connect(), 1011)
    until(lambda: levels(caplog) == [("django.request", "ERROR")])


def test_websocket_closed_raised_by_hand_is_an_error_like_any_other(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    @require_websocket
    def view(request):
        request.websocket.accept()
        raise WebSocketClosed(1000)

    assert_ends(site(view).connect(), 1011)
    until(lambda: levels(caplog) == [("django.request", "ERROR")])


def test_receiver_of_the_signal_that_fails_does_not_keep_the_connection_from_closing_with_1011(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(**kwargs: Any) -> None:
        raise ValueError("the receiver fails")

    @require_websocket
    def view(request):
        request.websocket.accept()
        raise RuntimeError("the view fails")

    signals.got_request_exception.connect(fail)
    try:
        assert_ends(site(view).connect(), 1011)
        site.until_idle()
    finally:
        signals.got_request_exception.disconnect(fail)


def test_view_that_is_stopped_by_the_server_closes_with_1001_and_nothing_follows(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    @require_websocket
    def view(request):
        request.websocket.accept()
        raise gevent.GreenletExit if site.server.name == "pywsgi" else SystemExit

    assert_ends(site(view).connect(), 1001)
    site.until_idle()
    assert levels(caplog) == []
    if site.mode == "attached":  # the server's own way out, and its business
        site.server.errors.clear()


# The request ends, the view goes on


def test_request_is_over_before_a_detached_view_ends(detached_site: Site, finished: list[Any]) -> None:
    site, go = detached_site, threading.Event()
    statuses = []

    def middleware(get_response: Any) -> Any:
        def call(request: Any) -> Any:
            response = get_response(request)
            statuses.append((response.status_code, response.content, response.streaming))
            return response

        return call

    @require_websocket
    def view(request):
        request.websocket.accept()
        site.wait_for(go)
        request.websocket.send("still here")

    with mock.patch(f"{__name__}.passed_by", middleware, create=True):
        site(view, MIDDLEWARE=[f"{__name__}.passed_by"])
    with site.connect() as peer:
        until(lambda: finished)
        assert statuses == [(101, b"", False)]
        go.set()
        assert peer.recv_message() == "still here"
    site.until_idle()
    until(lambda: finished, "the end of the request")
    assert len(finished) == 1


@pytest.mark.parametrize("site", ["attached"], indirect=True)
def test_request_lasts_as_long_as_an_attached_view(site: Site, finished: list[Any]) -> None:
    go = threading.Event()

    @require_websocket
    def view(request):
        request.websocket.accept()
        site.wait_for(go)
        site.tell(len(finished))

    with site(view).connect() as peer:
        go.set()
        assert site.hear() == 0
        assert_ends(peer, 1000)
    until(lambda: len(finished) == 1)


def test_session_is_saved_when_a_detached_view_accepts(detached_site: Site) -> None:
    site, go = detached_site, threading.Event()

    @require_websocket
    def view(request):
        request.session["colour"] = "green"
        request.websocket.accept()
        site.tell(request.session)
        site.wait_for(go)

    site(view, SESSION_ENGINE="django.contrib.sessions.backends.cache")
    with site.connect():
        session = site.hear()
        until(lambda: session.session_key, "the session to be saved")
        until(lambda: SessionStore(session.session_key).get("colour") == "green", "the session to be saved")
        go.set()


REQUEST_ID: contextvars.ContextVar[str] = contextvars.ContextVar("REQUEST_ID")


def test_view_sees_the_context_of_its_request_after_that_is_over(site: Site, finished: list[Any]) -> None:
    def middleware(get_response: Any) -> Any:
        def call(request: Any) -> Any:
            token = REQUEST_ID.set("42")
            with translation.override("pl"), timezone.override("Asia/Tokyo"):
                response = get_response(request)
            REQUEST_ID.reset(token)
            return response

        return call

    @require_websocket
    def view(request):
        request.websocket.accept()
        while site.mode == "detached" and not finished:
            site.pause(0.005)
        seen = [translation.get_language(), timezone.get_current_timezone_name(), REQUEST_ID.get()]
        request.websocket.send(" ".join(seen))

    with mock.patch(f"{__name__}.foreign", middleware, create=True):
        site(view, MIDDLEWARE=[f"{__name__}.foreign"])
    with site.connect() as peer:
        assert peer.recv_message() == "pl Asia/Tokyo 42"
        assert_ends(peer, 1000)


@pytest.fixture
def database_file(tmp_path: Path) -> Iterator[str]:
    """The alias of a database in a file, of which each thread has a connection of its own."""
    connections.databases["file"] = connections.configure_settings(
        {"default": {}, "file": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "database")}}
    )["file"]
    yield "file"
    del connections.databases["file"]


@pytest.mark.parametrize("ending", ["return", "refuse", "raise"])
def test_database_connections_of_a_detached_view_are_closed_when_it_ends(
    detached_site: Site, database_file: str, ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    site = detached_site

    @require_websocket
    def view(request):
        connection = connections[database_file]
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        site.tell([connection, connection.connection is not None])
        if ending == "refuse":
            return HttpResponse(status=402)
        request.websocket.accept()
        if ending == "raise":
            raise RuntimeError
        return None

    with site(view).peer() as peer:
        assert peer.handshake().status == (402 if ending == "refuse" else 101)
        connection, was_open = site.hear()
        assert was_open
    until(lambda: connection.connection is None, "the connection to be closed")


PATCHED = """
from gevent import monkey
monkey.patch_all()
import sys, threading, types
import django, gevent
from django.conf import settings
from gevent.pywsgi import WSGIServer
settings.configure(
    USE_TZ=True, ALLOWED_HOSTS=["127.0.0.1"], ROOT_URLCONF="urls", MIDDLEWARE=["urls.polish"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1]}},
)
django.setup()
from django.core.wsgi import get_wsgi_application
from django.db import connection, connections
from django.urls import path
from django.utils import translation
from dwebsocket import require_websocket
from tests.peer import *

kept, finished = [], threading.Event()
django.core.signals.request_finished.connect(lambda **kwargs: finished.set(), weak=False)

def polish(get_response):
    def call(request):
        kept.append(connections["default"])
        with translation.override("pl"):
            return get_response(request)
    return call

@require_websocket
def view(request):
    request.websocket.accept()
    finished.wait()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    kept.append(connections["default"])
    kept.append(connections["default"].connection)
    request.websocket.send(translation.get_language())

urls = sys.modules["urls"] = types.ModuleType("urls")
urls.polish, urls.urlpatterns = polish, [path("", view)]

server = WSGIServer(("127.0.0.1", 0), get_wsgi_application(), log=None)
server.start()
with Peer("127.0.0.1", server.server_port).connect() as peer:
    assert peer.recv_message() == "pl"
    assert peer.close() == Close(1000)
of_request, of_view, was_open = kept
assert of_view is not of_request and was_open is not None
while of_view.connection is not None:
    gevent.sleep(0.005)
server.stop()
"""


def test_view_in_a_patched_process_has_the_context_of_its_request_and_a_database_connection_of_its_own(
    tmp_path: Path,
) -> None:
    run_program(PATCHED, str(tmp_path / "database"))


def test_request_of_a_detached_view_keeps_nothing_of_the_server(detached_site: Site) -> None:
    @require_websocket
    def view(request):
        before = request.META["wsgi.input"]
        request.websocket.accept()
        detached_site.tell(
            [request.META["wsgi.input"] is before, request.META["wsgi.input"].read(), request.body, request.read()]
        )

    detached_site(view).connect()
    assert detached_site.hear() == [False, b"", b"", b""]


@pytest.fixture
def stop_request(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """The middleware of this module called "noting" notes the greenlet of the request, which this stops."""
    greenlets: list[gevent.Greenlet] = []

    def noting(get_response: Any) -> Any:
        def call(request: Any) -> Any:
            greenlets.append(gevent.getcurrent())
            return get_response(request)

        return call

    monkeypatch.setitem(globals(), "noting", noting)
    return lambda: greenlets[-1].kill(block=False)


FORGED = "/room/x%0aCRITICAL%20forged%1b[31m-token-5f2a/"


@require_websocket
def tells_its_thread(request: Any, name: str) -> None:
    current = gevent.getcurrent()
    request.websocket.send(current.name if isinstance(current, gevent.Greenlet) else threading.current_thread().name)


@pytest.mark.parametrize("site", ["detached"], indirect=True)
def test_thread_of_a_view_has_the_name_of_the_view_and_nothing_that_the_peer_wrote(site: Site) -> None:
    peer = site(path("room/<name>/", tells_its_thread)).connect(FORGED)
    assert peer.recv_message() == "websocket tests.upgrade.test_viewrun.tells_its_thread"


@pytest.mark.parametrize("site", ["detached"], indirect=True)
def test_thread_of_a_view_that_a_middleware_calls_has_no_name_that_the_peer_wrote(site: Site) -> None:
    def calling(get_response: Any) -> Any:
        return lambda request: tells_its_thread(request, "x")

    with mock.patch(f"{__name__}.calling", calling, create=True):
        site(path("elsewhere/", tells_its_thread), MIDDLEWARE=[f"{__name__}.calling"])
    assert site.connect(FORGED).recv_message() == "websocket of no URL"


# A thread cannot be stopped from outside.
only_pywsgi = pytest.mark.parametrize("wsgi_server", [PyWSGI], ids=["pywsgi"], indirect=True)


@only_pywsgi
def test_request_that_is_stopped_before_the_view_has_answered_is_over_for_the_view_too(
    detached_site: Site, stop_request: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    site = detached_site

    @require_websocket
    def view(request):
        stop_request()
        site.pause(0.02)
        try:
            request.websocket.accept()
        except WebSocketClosed as error:
            site.tell([error.close_code, error.close_reason])
            raise

    peer = site(view, MIDDLEWARE=[f"{__name__}.noting"]).peer()
    peer.send_raw(peer.handshake_request())
    assert site.hear() == [1001, "the server stopped the request"]
    site.until_idle()
    assert levels(caplog) == []
    site.server.errors.clear()


@only_pywsgi
def test_request_that_is_stopped_when_the_view_has_just_accepted_leaves_the_view_alone(
    detached_site: Site, stop_request: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    site = detached_site

    @require_websocket
    def view(request):
        stop_request()
        request.websocket.accept()
        site.pause(0.02)
        request.websocket.send("still here")

    with site(view, MIDDLEWARE=[f"{__name__}.noting"]).connect() as peer:
        assert peer.recv_message() == "still here"
        assert_ends(peer, 1000)
    site.until_idle()
    assert levels(caplog) == []
    site.server.errors.clear()


def test_no_descriptors_left_is_an_ordinary_http_error(detached_site: Site, caplog: pytest.LogCaptureFixture) -> None:
    @require_websocket
    def view(request):
        request.websocket.accept()

    detached_site(view)
    none_left = OSError(errno.EMFILE, "too many open files")
    with mock.patch("dwebsocket.servers.base._socket.socketpair", side_effect=none_left):
        assert detached_site.handshake().status == 500
    assert levels(caplog) == [("django.request", "ERROR")]


@pytest.mark.parametrize("end", ["close", "leave", "reset", "refused", "error"])
def test_connections_leave_no_descriptor_thread_or_log_line_behind(
    site: Site, end: str, caplog: pytest.LogCaptureFixture
) -> None:
    @require_websocket(close_timeout=2)
    def view(request):
        if end == "refused":
            return HttpResponse(status=403)
        for message in request.websocket:
            request.websocket.send(message)
        return None

    site(view)

    def session() -> None:
        with site.peer() as peer:
            if peer.handshake().status != 101:
                return
            peer.send_message("echo")
            assert peer.recv_message() == "echo"
            if end == "close":
                peer.close()
            elif end == "reset":
                peer.reset()
            elif end == "error":
                peer.send_frame(0x3)

    session()
    site.until_idle()
    before, threads_before = descriptors(), threading.active_count()
    for _ in range(40):
        session()
    site.until_idle()
    until(lambda: descriptors() <= before, "the descriptors to come back")
    until(lambda: threading.active_count() <= threads_before, "the threads to end")
    assert end == "refused" or levels(caplog) == []


# The opening handshake


@pytest.mark.parametrize(
    ("headers", "options", "status", "sentence"),
    [
        ({}, {"method": "POST"}, 400, "a WebSocket is opened with GET, not POST"),
        ({}, {"version": "HTTP/1.0"}, 400, "a WebSocket is opened with HTTP/1.1, not HTTP/1.0"),
        ({"Sec-WebSocket-Key": None}, {}, 400, "Sec-WebSocket-Key is missing"),
        ({"Sec-WebSocket-Key": "short"}, {}, 400, "Sec-WebSocket-Key is not 16 bytes in base64"),
        ({"Connection": "keep-alive"}, {}, 400, "the Connection header does not say Upgrade"),
        (
            {"Sec-WebSocket-Version": "8"},
            {},
            426,
            "only version 13 of the WebSocket protocol (RFC 6455) is spoken here",
        ),
        ({"Sec-WebSocket-Protocol": "a, a"}, {}, 400, "Sec-WebSocket-Protocol is not a list of different tokens"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("site", ["detached"], indirect=True)
def test_malformed_handshake_gets_its_status_a_sentence_and_one_line_in_the_log(
    site: Site, headers: Any, options: Any, status: int, sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    @require_websocket
    def view(request):
        raise AssertionError("the view must not be called")

    response = site(view, MIDDLEWARE=[]).handshake("/", headers, **options)
    assert response.status == status
    assert response.body.decode().startswith(sentence)
    assert response.headers["content-type"].startswith("text/plain")
    assert response.headers.get("sec-websocket-version") == ("13" if status == 426 else None)
    assert levels(caplog) == [("django.request", "WARNING")]
    assert sentence in caplog.text


# Origin


def origin_of(origin: str | None, host: str = "testserver", *, secure: bool = False, **options: Any) -> bool:
    """Whether a WebSocket of that origin may be opened."""
    request = RequestFactory().get("/", secure=secure, **HANDSHAKE | {"HTTP_HOST": host})
    if origin is not None:
        request.META["HTTP_ORIGIN"] = origin
    try:
        check_origin(request, conf.options(options))
    except OriginForbidden:
        return False
    return True


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        ("http://testserver", "testserver", True),
        ("http://testserver:80", "testserver", True),
        ("http://testserver", "testserver:80", True),
        ("HTTP://TestServer", "testserver", True),
        ("http://testserver:8000", "testserver:8000", True),
        ("http://127.0.0.1:8000", "127.0.0.1:8000", True),
        ("http://[::1]:8000", "[::1]:8000", True),
        ("http://testserver:8000", "testserver", False),
        ("http://testserver", "testserver:8000", False),
        ("https://testserver", "testserver", False),
        ("http://evil.example", "testserver", False),
        ("http://testserver.evil.example", "testserver", False),
        ("http://eviltestserver", "testserver", False),
        ("http://testserver@evil.example", "testserver", False),
        ("http://sub.testserver", "testserver", False),
        ("null", "testserver", False),
        ("", "testserver", False),
        ("testserver", "testserver", False),
        ("http://", "testserver", False),
        ("http://[::1", "testserver", False),
        ("http://testserver:port", "testserver", False),
        ("http://testserver:99999", "testserver", False),
        ("file://", "testserver", False),
        ("chrome-extension://abcdef", "testserver", False),
    ],
)
@override_settings(ALLOWED_HOSTS=["*"])
def test_origin_must_be_the_host_of_the_request(origin: str, host: str, allowed: bool) -> None:
    assert origin_of(origin, host) is allowed


def test_origin_must_have_the_scheme_of_the_request() -> None:
    assert origin_of("https://testserver", secure=True)
    assert origin_of("https://testserver:443", secure=True)
    assert not origin_of("http://testserver", secure=True)


def test_origin_that_differs_by_its_scheme_alone_is_told_of_the_proxy() -> None:
    request = RequestFactory().get("/", **HANDSHAKE, HTTP_ORIGIN="https://testserver")
    with pytest.raises(OriginForbidden, match="set SECURE_PROXY_SSL_HEADER"):
        check_origin(request, conf.options({}))


@override_settings(SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"))
def test_scheme_behind_a_proxy_is_the_one_that_it_reports() -> None:
    request = RequestFactory().get("/", **HANDSHAKE, HTTP_X_FORWARDED_PROTO="https", HTTP_ORIGIN="https://testserver")
    check_origin(request, conf.options({}))


@pytest.mark.parametrize(
    ("header", "origin", "allowed"),
    [
        ("wss", "https://testserver", True),
        ("wss", "https://testserver:443", True),
        (" wss , http", "https://testserver", True),
        ("wss", "http://testserver", False),
        ("ws", "https://testserver", False),
        ("ws", "http://testserver", True),
        ("https", "http://testserver", False),
    ],
)
@override_settings(SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"))
def test_proxy_that_says_wss_says_https(header: str, origin: str, allowed: bool) -> None:
    request = RequestFactory().get("/", **HANDSHAKE, HTTP_X_FORWARDED_PROTO=header, HTTP_ORIGIN=origin)
    with nullcontext() if allowed else pytest.raises(OriginForbidden):
        check_origin(request, conf.options({}))


@pytest.mark.parametrize("setting", [None, ("HTTP_X_FORWARDED_PROTO", "on"), ("HTTP_X_SCHEME", "https")], ids=str)
def test_wss_that_no_setting_trusts_says_nothing(setting: Any) -> None:
    request = RequestFactory().get("/", **HANDSHAKE, HTTP_X_FORWARDED_PROTO="wss", HTTP_ORIGIN="https://testserver")
    with override_settings(SECURE_PROXY_SSL_HEADER=setting), pytest.raises(OriginForbidden):
        check_origin(request, conf.options({}))


@pytest.mark.parametrize(
    ("headers", "advice"),
    [
        ({}, "the proxy sent no X-Forwarded-Proto, and SECURE_PROXY_SSL_HEADER expects 'https': let it send that"),
        ({"HTTP_X_FORWARDED_PROTO": "ws"}, "the proxy sent X-Forwarded-Proto: 'ws', and SECURE_PROXY_SSL_HEADER"),
        ({}, 'where what ends TLS can send no header, write WEBSOCKET_ALLOWED_ORIGINS = ["https://testserver"]'),
    ],
)
@override_settings(SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"))
def test_origin_that_differs_by_its_scheme_alone_is_told_what_the_proxy_sent(headers: Any, advice: str) -> None:
    request = RequestFactory().get("/", **HANDSHAKE, **headers, HTTP_ORIGIN="https://testserver")
    with pytest.raises(OriginForbidden) as refused:
        check_origin(request, conf.options({}))
    assert advice in str(refused.value)


@override_settings(ALLOWED_HOSTS=[".example.com"])
def test_host_that_begins_with_a_dot_is_no_pattern() -> None:
    assert not origin_of("http://evil.example.com", ".example.com")
    assert origin_of("http://app.example.com", "app.example.com")


@pytest.mark.parametrize(
    ("allowed", "origin", "matches"),
    [
        (["https://app.example.com"], "https://app.example.com", True),
        (["https://app.example.com"], "https://app.example.com:443", True),
        (["https://app.example.com:443"], "https://app.example.com", True),
        (["https://app.example.com"], "http://app.example.com", False),
        (["https://app.example.com"], "https://app.example.com:8443", False),
        (["https://app.example.com"], "https://sub.app.example.com", False),
        (["https://*.example.com"], "https://app.example.com", True),
        (["https://*.example.com"], "https://a.b.example.com", True),
        (["https://*.example.com"], "https://badexample.com", False),
        (["https://*.example.com"], "http://app.example.com", False),
        (["https://*.example.com:8443"], "https://app.example.com:8443", True),
        (["https://*.example.com:8443"], "https://app.example.com", False),
        (["chrome-extension://abcdef"], "chrome-extension://abcdef", True),
        (["chrome-extension://abcdef"], "chrome-extension://fedcba", False),
        (["https://a.example", "https://b.example"], "https://b.example", True),
        (["*"], "https://anything.example", True),
        (["*"], "null", True),
        ([], "https://app.example.com", False),
    ],
)
@pytest.mark.parametrize("where", ["WEBSOCKET_ALLOWED_ORIGINS", "CSRF_TRUSTED_ORIGINS", "origins="])
def test_other_origins_are_let_in_where_they_are_named(
    allowed: list[str], origin: str, matches: bool, where: str
) -> None:
    if where == "origins=":
        assert origin_of(origin, origins=allowed) is matches
    elif not (where == "CSRF_TRUSTED_ORIGINS" and allowed == ["*"]):
        with override_settings(**{where: allowed}):
            assert origin_of(origin) is matches


@override_settings(CSRF_TRUSTED_ORIGINS=["*"])
def test_star_that_django_does_not_understand_is_not_understood_here() -> None:
    assert not origin_of("https://anything.example")


@override_settings(WEBSOCKET_ALLOWED_ORIGINS=["https://app.example.com"])
def test_own_origin_is_allowed_beside_those_that_are_named() -> None:
    assert origin_of("http://testserver")


@override_settings(WEBSOCKET_ALLOWED_ORIGINS=["https://everywhere.example"])
def test_origins_of_a_view_replace_those_of_the_settings() -> None:
    assert origin_of("https://everywhere.example")
    assert not origin_of("https://everywhere.example", origins=["https://here.example"])
    assert origin_of("https://here.example", origins=["https://here.example"])


def test_client_without_an_origin_is_let_in_unless_one_is_required() -> None:
    assert origin_of(None)
    assert not origin_of(None, require_origin=True)
    with override_settings(WEBSOCKET_REQUIRE_ORIGIN=True):
        assert not origin_of(None)
        assert origin_of(None, require_origin=False)
        assert origin_of("http://testserver")


@pytest.mark.parametrize("site", ["detached"], indirect=True)
def test_foreign_origin_gets_403_and_one_line_that_says_what_to_do(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    @require_websocket
    def view(request):
        raise AssertionError("the view must not be called")

    response = site(view).handshake("/", {"Origin": "https://evil.example"})
    assert response.status == 403
    (record,) = caplog.records
    assert (record.name, record.levelname, record.status_code) == ("django.security.WebSocketOrigin", "WARNING", 403)
    for part in ("https://evil.example", site.host, "WEBSOCKET_ALLOWED_ORIGINS"):
        assert part in record.getMessage()


@pytest.mark.parametrize("site", ["detached"], indirect=True)
def test_missing_origin_where_one_is_required_gets_403_and_one_line(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    @require_websocket(require_origin=True)
    def view(request):
        request.websocket.send("a browser")

    assert site(view).handshake().status == 403
    assert levels(caplog) == [("django.security.WebSocketOrigin", "WARNING")]
    assert "WEBSOCKET_REQUIRE_ORIGIN" in caplog.text
    assert site.connect("/", {"Origin": f"http://{site.host}"}).recv_message() == "a browser"


@pytest.mark.parametrize("site", ["detached"], indirect=True)
def test_allowed_hosts_is_enforced(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    @require_websocket
    def view(request):
        raise AssertionError("the view must not be called")

    site(view, MIDDLEWARE=[], WEBSOCKET_ALLOWED_ORIGINS=["*"])
    assert site.handshake("/", {"Host": "evil.example"}).status == 400
    assert ("django.security.DisallowedHost", "ERROR") in levels(caplog)


# Other servers


def test_django_test_client_gets_501_and_one_line_that_names_it(caplog: pytest.LogCaptureFixture) -> None:
    @accept_websocket
    def view(request):
        return HttpResponse("page")

    urls = types.ModuleType("urls")
    urls.urlpatterns = [path("", view)]  # type: ignore[attr-defined]
    with override_settings(ROOT_URLCONF=urls):
        response = Client().get("/", **HANDSHAKE)
        assert Client().get("/").content == b"page"
    assert response.status_code == 501
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("dwebsocket", "ERROR")
    assert "Django's test client (dwebsocket.test.WebSocketClient" in record.getMessage()
    assert "gunicorn" in record.getMessage()


def test_unknown_server_is_named_in_the_501(caplog: pytest.LogCaptureFixture) -> None:
    request = RequestFactory().get("/", **HANDSHAKE, SERVER_SOFTWARE="Unheard/1.0")
    response = require_websocket(lambda request: None)(request)
    assert response.status_code == 501
    assert "Unheard/1.0" in response.content.decode()
    (record,) = caplog.records
    assert "Unheard/1.0" in record.getMessage()


def test_asynchronous_class_based_view_is_a_type_error_that_says_so(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    @method_decorator(require_websocket, name="dispatch")
    class Asynchronous(View):
        async def get(self, request):
            request.websocket.send("never")

    assert site(Asynchronous.as_view()).handshake().status == 500
    assert "the view is asynchronous" in caplog.text


@pytest.mark.parametrize("origin", ["http://user@{}", "http://{}/path", "http://{}?query", "http://{}#fragment"])
def test_origin_that_is_no_origin_is_refused(site: Site, origin: str) -> None:
    site(require_websocket(lambda request: None))
    assert site.handshake(headers={"Origin": origin.format(site.host)}).status == 403


def test_generator_that_a_decorator_hides_is_a_type_error_that_says_how_messages_are_sent(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    def view(request: Any) -> Any:
        yield "hello"

    assert site(require_websocket(lambda request: view(request))).handshake().status == 500
    assert "does not yield its messages" in caplog.text
