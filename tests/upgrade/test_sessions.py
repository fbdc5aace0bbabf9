"""When the session of a WebSocket view is saved, and when it is not: at the accept, and then on demand."""

from __future__ import annotations

import contextvars
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from http.cookies import SimpleCookie
from typing import Any

import pytest
from django.contrib import messages
from django.contrib.auth import login, logout
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.exceptions import SessionInterrupted
from django.contrib.sessions.middleware import SessionMiddleware
from django.db import connection
from django.http import HttpResponse
from django.middleware.csrf import get_token
from django.test import RequestFactory

from dwebsocket import require_websocket
from dwebsocket.upgrade import sessions
from tests.helpers import DB, SESSIONS, database_in, levels
from tests.links import assert_ends, until
from tests.peer import Peer
from tests.sites import Site

every_request = pytest.mark.parametrize("every_request", [False, True], ids=["modified", "every-request"])


@pytest.fixture(scope="module", autouse=True)
def _database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with database_in(tmp_path_factory.mktemp("sessions") / "db.sqlite3"):
        yield


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], str]:
    """The dotted path of a middleware that calls a function when the response passes."""

    def middleware(function: Callable[[], None]) -> str:
        def make(get_response: Any) -> Any:
            def call(request: Any) -> Any:
                response = get_response(request)
                function()
                return response

            return call

        name = f"passing_{id(make)}"
        monkeypatch.setitem(globals(), name, make)
        return f"{__name__}.{name}"

    return middleware


def begin(**data: Any) -> tuple[str, dict[str, str]]:
    """The key of a new session, and the headers of the browser that has it."""
    session = SessionStore()
    session.update(data)
    session.create()
    session.save()
    return session.session_key, {"Cookie": f"sessionid={session.session_key}"}


def stored(key: str) -> dict[str, Any] | None:
    """What everybody finds in the session; None when it is gone."""
    session = SessionStore(key)
    data = session.load()
    return data if session.session_key else None


def open_with(site: Site, headers: dict[str, str] | None = None) -> tuple[Peer, SimpleCookie]:
    """A peer, and the cookies that came with its 101."""
    peer = site.peer()
    response = peer.handshake("/", {"Connection": "Upgrade", **(headers or {})})
    assert response.status == 101
    return peer, SimpleCookie(response.headers.get("set-cookie", ""))


def leave(peer: Peer) -> None:
    """Close, and be gone: nobody has to linger."""
    assert peer.close().code == 1000
    peer.abandon()


def until_unwound(site: Site) -> None:
    """Where the view has left its request, wait until that has come to its end: ``passing`` tells."""
    if site.mode == "detached":
        assert site.hear() == "unwound"


# At the accept


def test_change_before_the_accept_is_saved_while_the_view_runs_and_its_cookie_is_in_the_101(site: Site) -> None:
    @require_websocket
    def view(request):
        request.session["room"] = 7
        request.websocket.accept()
        request.websocket.wait()

    peer, cookies = open_with(site(view, SESSION_ENGINE=DB))
    assert stored(cookies["sessionid"].value) == {"room": 7}
    assert cookies["sessionid"]["httponly"]
    leave(peer)


def test_change_before_the_first_message_is_saved_where_that_accepts(site: Site) -> None:
    @require_websocket
    def view(request):
        request.session["room"] = 7
        request.websocket.send("hello")
        request.websocket.send(f"modified: {request.session.modified}")
        request.websocket.wait()

    key, headers = begin(room=6)
    peer = site(view, SESSION_ENGINE=DB).connect(headers=headers)
    assert [peer.recv_message(), peer.recv_message()] == ["hello", "modified: False"]
    assert stored(key) == {"room": 7}


def test_session_that_the_view_has_only_read_is_not_saved_and_sets_no_cookie(site: Site) -> None:
    @require_websocket
    def view(request):
        room = request.session["room"]
        other = SessionStore(request.session.session_key)
        other["newer"] = True
        other.save()
        request.websocket.send(str(room))
        request.websocket.wait()

    key, headers = begin(room=7)
    peer, cookies = open_with(site(view, SESSION_ENGINE=DB), headers)
    assert peer.recv_message() == "7"
    assert not cookies
    assert stored(key) == {"room": 7, "newer": True}


def test_session_of_every_request_is_saved_at_the_accept_and_its_cookie_renewed(site: Site) -> None:
    @require_websocket
    def view(request):
        request.websocket.accept()
        request.websocket.wait()

    key, headers = begin(room=7)
    _, cookies = open_with(site(view, SESSION_ENGINE=DB, SESSION_SAVE_EVERY_REQUEST=True), headers)
    assert cookies["sessionid"].value == key
    assert stored(key) == {"room": 7}


def test_login_before_the_accept_sends_the_new_session_with_the_101(site: Site) -> None:
    User.objects.filter(username="ann").delete()
    user = User.objects.create_user("ann")

    @require_websocket
    def view(request):
        login(request, user, backend="django.contrib.auth.backends.ModelBackend")
        request.websocket.accept()
        request.websocket.wait()

    key, headers = begin(room=7)
    _, cookies = open_with(site(view, SESSION_ENGINE=DB), headers)
    found = stored(cookies["sessionid"].value)
    assert found is not None
    assert (found["_auth_user_id"], found["room"]) == (str(user.pk), 7)
    assert stored(key) is None


def test_logout_before_the_accept_takes_the_cookie_back(site: Site) -> None:
    @require_websocket
    def view(request):
        logout(request)
        request.websocket.accept()
        request.websocket.wait()

    key, headers = begin(room=7)
    _, cookies = open_with(site(view, SESSION_ENGINE=DB), headers)
    assert cookies["sessionid"]["max-age"] == "0"
    assert stored(key) is None


def test_session_that_was_deleted_meanwhile_refuses_with_400(site: Site) -> None:
    @require_websocket
    def view(request):
        request.session["room"] = 7
        SessionStore(request.session.session_key).delete()
        request.websocket.accept()
        raise AssertionError("it was accepted")

    key, headers = begin(room=6)
    assert site(view, SESSION_ENGINE=DB).handshake("/", headers).status == 400
    assert stored(key) is None


def test_view_that_hides_the_deletion_of_its_session_is_refused_all_the_same(site: Site) -> None:
    @require_websocket
    def view(request):
        request.session["room"] = 7
        SessionStore(request.session.session_key).delete()
        with pytest.raises(SessionInterrupted):
            request.websocket.send("hello")

    _, headers = begin(room=6)
    assert site(view, SESSION_ENGINE=DB).handshake("/", headers).status == 400


def test_refused_handshake_saves_the_session_as_every_request_does(site: Site) -> None:
    @require_websocket
    def view(request):
        request.session["tried"] = True
        return HttpResponse(status=403)

    response = site(view, SESSION_ENGINE=DB).handshake()
    assert response.status == 403
    assert stored(SimpleCookie(response.headers["set-cookie"])["sessionid"].value) == {"tried": True}


@require_websocket
def accept_twice(request: Any) -> HttpResponse | None:
    """Accept a subprotocol that nobody has offered; then with none, or answer with HTTP."""
    request.session["room"] = 7
    with pytest.raises(ValueError, match="chat"):
        request.websocket.accept("chat")
    if "refuse" in request.GET:
        return HttpResponse(status=400)
    request.websocket.accept()
    request.websocket.wait()
    return None


@pytest.mark.parametrize(("path", "status"), [("/", 101), ("/?refuse=1", 400)], ids=["accepts", "refuses"])
def test_cookie_of_a_new_session_is_in_the_answer_though_the_first_accept_has_failed(
    site: Site, path: str, status: int
) -> None:
    peer = site(accept_twice, SESSION_ENGINE=DB).peer()
    response = peer.handshake(path, {"Connection": "Upgrade"})
    assert response.status == status
    assert stored(SimpleCookie(response.headers["set-cookie"])["sessionid"].value) == {"room": 7}


# After the accept


@every_request
def test_change_after_the_accept_is_saved_neither_when_the_request_unwinds_nor_when_the_view_ends(
    site: Site, passing: Any, every_request: bool
) -> None:
    changed = threading.Event()

    @require_websocket
    def view(request):
        request.websocket.accept()
        request.session["late"] = True
        changed.set()
        request.websocket.wait()
        request.session["later"] = True

    middleware = [passing(lambda: site.tell("unwound")), SESSIONS, passing(lambda: site.wait_for(changed))]
    site(view, SESSION_ENGINE=DB, SESSION_SAVE_EVERY_REQUEST=every_request, MIDDLEWARE=middleware)
    key, headers = begin(room=7)
    peer = site.connect(headers=headers)
    until_unwound(site)
    assert stored(key) == {"room": 7}
    leave(peer)
    site.until_idle()
    assert stored(key) == {"room": 7}


def test_view_saves_its_session_itself_at_any_time(site: Site, passing: Any) -> None:
    saved = threading.Event()

    @require_websocket
    def view(request):
        request.websocket.accept()
        for number in (1, 2):
            request.session["number"] = number
            request.session.save()
            saved.set()
            request.websocket.send("saved")
            request.websocket.wait()

    middleware = [passing(lambda: site.tell("unwound")), SESSIONS, passing(lambda: site.wait_for(saved))]
    key, headers = begin()
    peer = site(view, SESSION_ENGINE=DB, MIDDLEWARE=middleware).connect(headers=headers)
    assert peer.recv_message() == "saved"
    assert stored(key) == {"number": 1}
    until_unwound(site)
    peer.send_message("go on")
    assert peer.recv_message() == "saved"
    assert stored(key) == {"number": 2}


def test_thread_of_the_view_saves_its_session_too(site: Site) -> None:
    @require_websocket
    def view(request):
        def save() -> None:
            request.session.save()
            connection.close()

        request.websocket.accept()
        request.session["number"] = 1
        thread = threading.Thread(target=save)
        thread.start()
        thread.join()
        request.websocket.send("saved")
        request.websocket.wait()

    key, headers = begin()
    assert site(view, SESSION_ENGINE=DB).connect(headers=headers).recv_message() == "saved"
    assert stored(key) == {"number": 1}


@every_request
@pytest.mark.parametrize("late", [False, True], ids=["as-it-was", "changed"])
def test_newer_data_of_another_request_is_not_overwritten_in_the_end(
    site: Site, every_request: bool, late: bool
) -> None:
    @require_websocket
    def view(request):
        request.session["room"] = 7
        request.websocket.accept()
        if late:
            request.session["late"] = True
        request.websocket.wait()

    key, headers = begin()
    site(view, SESSION_ENGINE=DB, SESSION_SAVE_EVERY_REQUEST=every_request)
    peer = site.connect(headers=headers)
    other = SessionStore(key)
    other["newer"] = True
    other.save()
    leave(peer)
    site.until_idle()
    assert stored(key) == {"room": 7, "newer": True}


@every_request
def test_logout_elsewhere_is_final_and_no_fault_of_the_view(
    site: Site, every_request: bool, caplog: pytest.LogCaptureFixture
) -> None:
    @require_websocket
    def view(request):
        request.session["room"] = 7
        request.websocket.accept()
        request.session["late"] = True
        request.websocket.wait()

    key, headers = begin()
    peer = site(view, SESSION_ENGINE=DB, SESSION_SAVE_EVERY_REQUEST=every_request).connect(headers=headers)
    SessionStore(key).flush()
    leave(peer)
    site.until_idle()
    assert stored(key) is None
    assert levels(caplog) == []


def test_logout_by_the_view_is_final(site: Site) -> None:
    @require_websocket
    def view(request):
        request.websocket.accept()
        logout(request)
        request.websocket.send("logged out")
        request.websocket.wait()

    key, headers = begin(room=7)
    peer = site(view, SESSION_ENGINE=DB).connect(headers=headers)
    assert peer.recv_message() == "logged out"
    assert stored(key) is None
    leave(peer)
    site.until_idle()
    assert stored(key) is None


def test_request_that_has_unwound_keeps_no_other_of_the_same_thread_from_saving() -> None:
    first, second = RequestFactory().get("/"), RequestFactory().get("/")
    for request in (first, second):
        request.session = SessionStore(begin()[0])
        assert sessions.save(request) == []

    def unwind_the_first_and_save_both() -> None:
        sessions.unwind(first)
        for request in (first, second):
            request.session["number"] = 1
            request.session.save()

    contextvars.copy_context().run(unwind_the_first_and_save_both)
    assert stored(first.session.session_key) == {}
    assert stored(second.session.session_key) == {"number": 1}


def test_next_request_saves_its_session(site: Site) -> None:
    def view(request):
        request.session["visits"] = request.session.get("visits", 0) + 1
        if request.websocket is not None:
            request.websocket.accept()
        return HttpResponse(str(request.session["visits"]))

    key, headers = begin()
    site(view, SESSION_ENGINE=DB, WEBSOCKET_ACCEPT_ALL=True)
    assert_ends(site.connect(headers=headers), 1000)
    assert site.get(headers=headers).body == b"2"
    assert stored(key) == {"visits": 2}


@every_request
def test_change_at_the_moment_in_which_the_request_unwinds_is_never_an_error(
    site: Site, every_request: bool, caplog: pytest.LogCaptureFixture
) -> None:
    @require_websocket
    def view(request):
        request.session["room"] = 7
        request.websocket.accept()
        for number in range(3000):
            request.session[str(number % 300)] = number
            if number % 3 == 0:
                del request.session[str(number % 300)]
            if number % 1000 == 0:
                request.session.save()
        request.websocket.send("done")

    _, headers = begin()
    site(view, SESSION_ENGINE=DB, SESSION_SAVE_EVERY_REQUEST=every_request)
    for _ in range(10):
        with site.connect(headers=headers) as peer:
            assert peer.recv_message() == "done"
            assert_ends(peer, 1000)
    site.until_idle()
    assert levels(caplog) == []


# What else a project has


@pytest.mark.parametrize("where", ["cookies", "sessions"])
def test_messages_and_csrf_tokens_are_in_nobodys_way(site: Site, where: str, caplog: pytest.LogCaptureFixture) -> None:
    @require_websocket
    def view(request):
        messages.info(request, "before")
        get_token(request)
        request.websocket.accept()
        messages.info(request, "after")
        request.websocket.send(get_token(request))
        request.websocket.wait()

    storage = {"cookies": "cookie.CookieStorage", "sessions": "session.SessionStorage"}[where]
    key, headers = begin(room=7)
    site(
        view,
        SESSION_ENGINE=DB,
        CSRF_USE_SESSIONS=where == "sessions",
        MESSAGE_STORAGE=f"django.contrib.messages.storage.{storage}",
    )
    peer = site.connect(headers=headers)
    assert len(peer.recv_message()) == 64
    leave(peer)
    site.until_idle()
    assert levels(caplog) == []
    found = stored(key)
    assert found is not None
    assert found["room"] == 7


def test_project_without_sessions_has_nothing_to_save(site: Site) -> None:
    @require_websocket
    def view(request):
        request.websocket.send(str(hasattr(request, "session")))

    peer, cookies = open_with(site(view, MIDDLEWARE=[]))
    assert peer.recv_message() == "False"
    assert_ends(peer, 1000)
    assert not cookies


class OwnMiddleware(SessionMiddleware):
    """A project's own kind of session middleware, whose cookie has another name."""

    def process_response(self, request: Any, response: Any) -> Any:
        response = super().process_response(request, response)
        if "sessionid" in response.cookies:
            response.set_cookie("room", response.cookies.pop("sessionid").value)
        return response


def test_session_middleware_of_the_project_is_the_one_that_is_asked(site: Site) -> None:
    @require_websocket
    def view(request):
        request.session["room"] = 7
        request.websocket.accept()
        request.websocket.wait()

    key, headers = begin()
    _, cookies = open_with(site(view, SESSION_ENGINE=DB, MIDDLEWARE=[f"{__name__}.OwnMiddleware"]), headers)
    assert "room" in cookies
    assert stored(key) == {"room": 7}


def test_session_in_signed_cookies_goes_out_whole_with_the_101(site: Site) -> None:
    @require_websocket
    def view(request):
        request.session["room"] = request.session.get("room", 0) + 1
        request.websocket.send(str(request.session["room"]))
        request.websocket.wait()

    site(view)
    peer, cookies = open_with(site)
    assert peer.recv_message() == "1"
    peer, _ = open_with(site, {"Cookie": f"sessionid={cookies['sessionid'].value}"})
    assert peer.recv_message() == "2"


@pytest.mark.parametrize("ends", ["returns", "raises", "peer"])
def test_request_and_session_of_a_websocket_that_is_over_are_freed_at_once(site: Site, ends: str) -> None:
    alive: list[Any] = []

    @require_websocket
    def view(request):
        request.session["visits"] = 1
        request.websocket.send("hello")
        alive.extend(map(weakref.ref, (request, request.session, request.websocket)))
        if ends == "raises":
            request.websocket.close()
            request.websocket.send("too late")
        request.websocket.wait(None if ends == "peer" else 0)

    site(view, MIDDLEWARE=[SESSIONS], SESSION_ENGINE=DB)  # that of authentication makes loops of Django's own
    gc.collect()
    gc.disable()
    try:
        peer = site.connect()
        assert peer.recv_message() == "hello"
        peer.close()
        site.until_idle()
        until(lambda: not any(one() for one in alive), "the request to go")
    finally:
        gc.enable()


def test_save_that_a_project_has_put_on_the_session_is_called(site: Site) -> None:
    @require_websocket
    def view(request):
        session, saved = request.session, []
        session.save = lambda *args, **kwargs: saved.append("own")
        session["visits"] = 1
        request.websocket.accept()
        session.save()
        request.websocket.send(" ".join(saved))

    assert site(view, MIDDLEWARE=[SESSIONS], SESSION_ENGINE=DB).connect().recv_message() == "own own"


def test_save_whose_session_is_gone_says_so() -> None:
    session = SessionStore()
    save = sessions._Save(session)
    del session
    with pytest.raises(ReferenceError, match=r"keep request\.session"):
        save()
