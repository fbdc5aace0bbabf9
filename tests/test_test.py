"""The test client: what a Django developer writes with it, and what it says when something is wrong."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import connection, transaction
from django.http import Http404, HttpResponse
from django.test import Client, LiveServerTestCase, TestCase, TransactionTestCase, override_settings
from django.test.utils import setup_databases, teardown_databases
from django.urls import path
from django.utils import translation
from websockets.sync.client import connect

import dwebsocket
from dwebsocket import WebSocketClosed, accept_websocket, require_websocket, user_is_active
from dwebsocket.test import WebSocketClient, WebSocketClientMixin, WebSocketRefused
from tests.links import PATIENCE_SECONDS, until

room: set[Any] = set()
woken = threading.Event()


@accept_websocket
def echo(request):
    if not request.is_websocket():
        return HttpResponse("over HTTP")
    for message in request.websocket:
        request.websocket.send(message)


@login_required
@require_websocket
def whoami(request):
    request.websocket.send(str(request.user))
    for message in request.websocket:
        User.objects.create_user(message)
        request.websocket.send_json({"users": list(User.objects.order_by("pk").values_list("username", flat=True))})


@require_websocket(subprotocols=["v2", "v1"])
def describe(request):
    request.websocket.accept(headers={"X-Answer": "42", "Set-Cookie": "taste=sweet"})
    request.websocket.send_json(
        {
            "query": request.GET.dict(),
            "header": request.headers.get("X-Question"),
            "origin": request.headers.get("Origin"),
            "secure": request.is_secure(),
            "host": request.get_host(),
            "cookie": request.COOKIES.get("crumb"),
            "language": translation.get_language(),
            "session": request.session.get("colour"),
        }
    )


@require_websocket
def park(request):
    def received(message: str) -> None:
        if message == "fail":
            raise LookupError("in a turn")

    def closed(code: int, reason: str) -> None:
        if request.GET.get("closed") == "fail":
            raise LookupError("at the end")
        if request.GET.get("closed") == "save":
            User.objects.create_user(f"left {code}")

    return request.websocket.stay_open(received, closed)


@require_websocket
def remember(request):
    request.session["colour"] = "blue"
    request.websocket.accept()
    request.websocket.wait()


@require_websocket
def fail_before(request):
    raise LookupError("before the 101")


@require_websocket
def fail_after(request):
    request.websocket.wait()
    raise LookupError("after the 101")


@require_websocket
def forbid_after(request):
    request.websocket.accept()
    raise PermissionDenied


@require_websocket
def not_found(request):
    raise Http404


@require_websocket
def close_with(request):
    request.websocket.accept()
    request.websocket.close(4000, "enough")


@require_websocket
def chat(request):
    room.add(request.websocket)
    request.websocket.send("welcome")
    for message in request.websocket:
        for member in list(room):
            member.send(f"{request.GET['name']}: {message}")
    room.discard(request.websocket)


@require_websocket
def sleep_after(request):
    request.websocket.accept()
    woken.wait(PATIENCE_SECONDS)


@require_websocket
def sleep_before(request):
    woken.wait(PATIENCE_SECONDS)


@require_websocket
def wait_in_atomic(request):
    with transaction.atomic():
        request.websocket.wait()
        User.objects.create_user("from the view")
        request.websocket.send("done")


@require_websocket(guard=user_is_active, guard_interval=0.05)
def guarded(request):
    request.websocket.accept()
    request.websocket.wait()


class Slow:
    """A guard that lets in at once, and then takes longer than the view to say so again."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.calls = 0
        self.is_asked, self.view_has_ended = threading.Event(), threading.Event()
        self.said: list[str] = []

    def __call__(self, request):
        self.calls += 1
        if self.calls > 1:
            self.is_asked.set()
            self.view_has_ended.wait(PATIENCE_SECONDS)
            time.sleep(0.2)
            self.said.append("yes")
        return True


slow = Slow()


@require_websocket(guard=slow, guard_interval=0.02)
def guarded_slowly(request):
    request.websocket.wait()
    slow.view_has_ended.set()


class Parked(dwebsocket.WebSocketView):
    """Does what it is told, in a turn."""

    def opened(self) -> None:
        self.send("welcome")

    def received(self, message: Any) -> None:
        if message == "fail":
            raise LookupError("in a turn")
        if message == "sleep":
            woken.wait(PATIENCE_SECONDS)
        elif message == "leave a transaction":
            transaction.atomic().__enter__()
        else:
            User.objects.create_user(message)
            self.send_json(list(User.objects.order_by("pk").values_list("username", flat=True)))

    def closed(self, code: int, reason: str) -> None:
        time.sleep(0.05)
        User.objects.create_user(f"{self.request.GET.get('name')} closed with {code}")
        if reason == "fail":
            raise LookupError("in closed()")


urlpatterns = [
    path("parked/", Parked.as_view()),
    path("echo/", echo),
    path("whoami/", whoami),
    path("describe/", describe),
    path("remember/", remember),
    path("park/", park),
    path("fail-before/", fail_before),
    path("fail-after/", fail_after),
    path("forbid-after/", forbid_after),
    path("not-found/", not_found),
    path("close-with/", close_with),
    path("chat/", chat),
    path("sleep-after/", sleep_after),
    path("sleep-before/", sleep_before),
    path("wait-in-atomic/", wait_in_atomic),
    path("guarded/", guarded),
    path("guarded-slowly/", guarded_slowly),
]


@pytest.fixture(scope="module", autouse=True)
def _databases() -> Iterator[None]:
    names = setup_databases(verbosity=0, interactive=False)
    yield
    teardown_databases(names, verbosity=0)


@pytest.fixture(autouse=True)
def _site() -> Iterator[None]:
    """The site of these tests; whatever a test has opened is over when it ends."""
    woken.clear()
    with override_settings(ROOT_URLCONF=__name__, SESSION_ENGINE="django.contrib.sessions.backends.db"):
        yield
        woken.set()
        until(lambda: not dwebsocket.connections(), "the views to end")


class EchoTests(TestCase):
    client_class = WebSocketClient
    client: WebSocketClient

    def test_text_binary_and_json_come_back(self) -> None:
        with self.client.websocket("/echo/") as ws:
            for message in ("text", b"binary", "", "x" * 100_000):
                ws.send(message)
                assert ws.receive(timeout=PATIENCE_SECONDS) == message
            ws.send_json({"when": [1, None, "ü"]})
            assert ws.receive_json() == {"when": [1, None, "ü"]}

    def test_close_is_answered_and_tells_its_code(self) -> None:
        with self.client.websocket("/echo/") as ws:
            assert ws.close_code is None
            ws.close(4001, "bye")
            assert (ws.closed, ws.close_code) == (True, 4001)
            with pytest.raises(WebSocketClosed):
                ws.send("too late")

    def test_end_of_the_block_closes_with_1000(self) -> None:
        with self.client.websocket("/echo/") as ws:
            ws.send("never received")
        assert ws.close_code == 1000

    def test_close_of_the_view_ends_an_iteration_and_a_receive_says_why(self) -> None:
        with self.client.websocket("/close-with/") as ws:
            assert list(ws) == []
            assert (ws.close_code, ws.close_reason) == (4000, "enough")
            with pytest.raises(WebSocketClosed) as caught:
                ws.receive()
        assert (caught.value.close_code, caught.value.close_reason) == (4000, "enough")

    def test_plain_http_goes_on_as_in_django(self) -> None:
        assert self.client.get("/echo/").content == b"over HTTP"

    def test_several_at_once_reach_each_other(self) -> None:
        with (
            self.client.websocket("/chat/?name=ann") as ann,
            WebSocketClient().websocket("/chat/?name=bob") as bob,
        ):
            assert ann.receive() == bob.receive() == "welcome"
            ann.send("hello")
            assert ann.receive() == bob.receive() == "ann: hello"
            bob.send("hi")
            assert ann.receive() == bob.receive() == "bob: hi"

    def test_twenty_at_once_are_no_more_than_one(self) -> None:
        clients = [WebSocketClient().websocket("/echo/") for _ in range(20)]
        for ws in clients:
            ws.__enter__()
        for number, ws in enumerate(clients):
            ws.send(str(number))
        assert [ws.receive() for ws in clients] == [str(number) for number in range(20)]
        for ws in clients:
            ws.__exit__(None, None, None)


class RequestTests(TestCase):
    client_class = WebSocketClient
    client: WebSocketClient

    def describe(self, path: str = "/describe/", **options: Any) -> Any:
        with self.client.websocket(path, **options) as ws:
            return ws.receive_json()

    def test_request_is_that_of_a_browser_on_a_page_of_the_site(self) -> None:
        described = self.describe()
        assert described["host"] == "testserver"
        assert described["origin"] == "http://testserver"
        assert described["secure"] is False

    def test_query_headers_cookies_and_language_arrive(self) -> None:
        self.client.cookies["crumb"] = "dry"
        with translation.override("de"):
            described = self.describe("/describe/?a=1&b=%C3%BC", headers={"X-Question": "why?"})
        assert described["query"] == {"a": "1", "b": "ü"}
        assert described["header"] == "why?"
        assert described["cookie"] == "dry"
        assert described["language"] == "de"

    def test_secure_is_https_with_an_origin_to_match(self) -> None:
        described = self.describe(secure=True)
        assert described["secure"] is True
        assert described["origin"] == "https://testserver"

    def test_client_that_is_no_browser_says_no_origin(self) -> None:
        assert self.describe(origin=None)["origin"] is None

    def test_host_is_what_the_client_says(self) -> None:
        self.client = WebSocketClient(SERVER_NAME="localhost")
        assert self.describe()["origin"] == "http://localhost"

    def test_foreign_origin_is_refused(self) -> None:
        with pytest.raises(WebSocketRefused) as caught, self.client.websocket("/echo/", origin="https://evil.example"):
            raise AssertionError("it was accepted")
        assert caught.value.response.status_code == 403
        assert "is not allowed" in str(caught.value)

    def test_subprotocol_is_negotiated_and_the_101_can_be_read(self) -> None:
        with self.client.websocket("/describe/", subprotocols=["v1", "v2"]) as ws:
            assert ws.subprotocol == "v2"
            assert ws.response.status == 101
            assert ws.response.get("x-answer") == "42"
        assert self.client.cookies["taste"].value == "sweet"

    def test_session_that_begins_on_a_websocket_goes_on(self) -> None:
        with self.client.websocket("/remember/"):
            pass
        assert self.client.session["colour"] == "blue"
        assert self.describe()["session"] == "blue"


class RefusalTests(TestCase):
    client_class = WebSocketClient
    client: WebSocketClient

    def refused(self, path: str) -> Any:
        with pytest.raises(WebSocketRefused) as caught, self.client.websocket(path):
            raise AssertionError("it was accepted")
        return caught.value

    def test_redirect_to_the_login_is_a_response_as_of_get(self) -> None:
        error = self.refused("/whoami/")
        self.assertRedirects(error.response, "/login/?next=/whoami/", fetch_redirect_response=False)
        assert str(error) == "302 Found to /login/?next=/whoami/"

    def test_404_of_the_view_or_of_the_urlconf_is_a_response(self) -> None:
        for missing in ("/not-found/", "/nowhere/"):
            assert self.refused(missing).response.status_code == 404

    def test_exception_before_the_101_is_raised(self) -> None:
        with pytest.raises(LookupError, match="before the 101"), self.client.websocket("/fail-before/"):
            raise AssertionError("it was accepted")

    def test_exception_before_the_101_is_a_500_where_the_client_is_told_so(self) -> None:
        self.client.raise_request_exception = False
        assert self.refused("/fail-before/").response.status_code == 500

    def test_client_can_be_used_after_a_refusal(self) -> None:
        self.refused("/whoami/")
        with self.client.websocket("/echo/") as ws:
            ws.send("hi")
            assert ws.receive() == "hi"


class FailureTests(TestCase):
    client_class = WebSocketClient
    client: WebSocketClient

    def test_exception_of_the_view_is_raised_by_receive(self) -> None:
        with self.client.websocket("/fail-after/") as ws:
            ws.send("go")
            with pytest.raises(LookupError, match="after the 101"):
                ws.receive()
            with pytest.raises(WebSocketClosed) as caught:  # and is raised once
                ws.receive()
        assert caught.value.close_code == 1011

    def test_exception_of_the_view_is_raised_at_the_end_where_nobody_has_seen_it(self) -> None:
        with pytest.raises(LookupError, match="after the 101"), self.client.websocket("/fail-after/"):
            pass

    def test_exception_of_the_view_does_not_hide_what_failed_in_the_test(self) -> None:
        with pytest.raises(ZeroDivisionError), self.client.websocket("/fail-after/"):
            raise ZeroDivisionError

    def test_exception_of_the_view_is_a_close_code_where_the_client_is_told_so(self) -> None:
        self.client.raise_request_exception = False
        with self.client.websocket("/fail-after/") as ws:
            ws.send("go")
            with pytest.raises(WebSocketClosed) as caught:
                ws.receive()
        assert caught.value.close_code == 1011

    def test_exception_of_one_view_is_not_raised_by_another(self) -> None:
        with self.client.websocket("/echo/") as ws:
            with pytest.raises(LookupError), WebSocketClient().websocket("/fail-after/"):
                pass
            assert self.client.get("/echo/").status_code == 200
            ws.send("hi")
            assert ws.receive() == "hi"

    def test_permission_denied_after_the_101_is_a_close_code(self) -> None:
        with self.client.websocket("/forbid-after/") as ws, pytest.raises(WebSocketClosed):
            ws.receive()
        assert ws.close_code == 4403

    def test_receive_says_what_it_waited_for_and_what_the_view_does(self) -> None:
        with self.client.websocket("/sleep-after/") as ws:
            with pytest.raises(TimeoutError) as caught:
                ws.receive(timeout=0.2)
            woken.set()
        said = str(caught.value)
        assert said.startswith(
            "no message of the view tests.test_test.sleep_after at /sleep-after/ within 0.2 s; it is"
        )
        assert "woken.wait(PATIENCE_SECONDS)" in said

    def test_end_of_the_block_waits_for_the_end_of_a_parked_view(self) -> None:
        with self.client.websocket("/park/?closed=save"):
            pass
        assert User.objects.get().username == "left 1000"

    def test_exception_of_a_parked_view_is_raised_though_its_close_comes_first(self) -> None:
        for _ in range(10):
            with pytest.raises(LookupError, match="in a turn"), self.client.websocket("/park/") as ws:
                ws.send("fail")
                ws.receive()

    def test_exception_at_the_end_of_a_parked_view_is_raised(self) -> None:
        for _ in range(10):
            with pytest.raises(LookupError, match="at the end"), self.client.websocket("/park/?closed=fail"):
                pass

    @override_settings(WEBSOCKET_DETACH=True)
    def test_receive_says_of_a_parked_view_that_it_is_parked(self) -> None:
        with self.client.websocket("/park/") as ws, pytest.raises(TimeoutError, match=r"/park/ .*; it is parked$"):
            ws.receive(timeout=0.1)

    def test_view_that_does_not_end_is_named(self) -> None:
        with (
            pytest.raises(
                TimeoutError, match=r"the view tests\.test_test\.sleep_after at .* has not ended 0\.2 s after"
            ),
            self.client.websocket("/sleep-after/", timeout=0.2),
        ):
            pass

    def test_view_that_does_not_end_does_not_hide_what_failed_in_the_test(self) -> None:
        with pytest.raises(ZeroDivisionError), self.client.websocket("/sleep-after/", timeout=0.2):
            raise ZeroDivisionError

    def test_view_that_neither_accepts_nor_answers_is_named(self) -> None:
        with (
            pytest.raises(
                TimeoutError, match=r"the view tests\.test_test\.sleep_before at .* neither accepted nor answ"
            ),
            self.client.websocket("/sleep-before/", timeout=0.2),
        ):
            raise AssertionError("it was accepted")

    def test_websocket_that_is_not_open_says_so(self) -> None:
        ws = self.client.websocket("/echo/")
        for use in (ws.receive, lambda: ws.send("x"), ws.close, lambda: ws.response, lambda: ws.subprotocol):
            with pytest.raises(RuntimeError, match="use it in a with statement"):
                use()
        with ws:
            pass
        with pytest.raises(RuntimeError, match="ask the client for another one"):
            ws.__enter__()

    def test_nothing_is_left_behind(self) -> None:
        before = set(threading.enumerate())
        for visited in ("/echo/", "/parked/", "/fail-after/", "/close-with/", "/nowhere/", "/fail-before/"):
            try:
                with self.client.websocket(visited):
                    pass
            except (LookupError, WebSocketRefused):
                pass
        left = set(threading.enumerate()) - before
        assert {thread.name for thread in left} <= {"dwebsocket", "dwebsocket turns"}


class DatabaseTests(TestCase):
    client_class = WebSocketClient
    client: WebSocketClient

    @classmethod
    def setUpTestData(cls) -> None:
        cls.ann = User.objects.create_user("ann")

    def test_view_sees_what_the_test_has_written_and_the_test_what_the_view_has(self) -> None:
        self.client.force_login(self.ann)
        User.objects.create_user("bob")
        with self.client.websocket("/whoami/") as ws:
            assert ws.receive() == "ann"
            ws.send("cat")
            assert ws.receive_json() == {"users": ["ann", "bob", "cat"]}
            assert User.objects.filter(username="cat").exists()

    def test_nothing_of_another_test_is_there(self) -> None:
        assert list(User.objects.values_list("username", flat=True)) == ["ann"]

    def test_transaction_of_the_test_is_nothing_to_warn_about_or_to_give_back(self) -> None:
        with self.assertNoLogs("dwebsocket", "WARNING"), self.client.websocket("/wait-in-atomic/") as ws:
            ws.send("go")
            assert ws.receive() == "done"
        assert connection.in_atomic_block
        assert User.objects.filter(username="from the view").exists()

    def test_guard_sees_the_transaction_of_the_test_too(self) -> None:
        self.client.force_login(self.ann)
        with self.client.websocket("/guarded/") as ws:
            User.objects.update(is_active=False)
            with pytest.raises(WebSocketClosed) as caught:
                ws.receive()
        assert caught.value.close_code == 4401
        with pytest.raises(WebSocketRefused), self.client.websocket("/guarded/"):
            raise AssertionError("it was accepted")

    def test_end_of_the_block_waits_for_the_guards_that_are_being_asked(self) -> None:
        slow.begin()
        with self.client.websocket("/guarded-slowly/"):
            assert slow.is_asked.wait(PATIENCE_SECONDS)
            assert slow.said == []
        assert (slow.calls, slow.said) == (2, ["yes"])


class ParkedTests(TestCase):
    client_class = WebSocketClient
    client: WebSocketClient

    def test_turns_see_what_the_test_has_written_and_the_test_what_they_have_even_at_the_end(self) -> None:
        User.objects.create_user("ann")
        with self.client.websocket("/parked/") as ws:
            assert ws.receive() == "welcome"
            ws.send("bob")
            assert ws.receive_json() == ["ann", "bob"]
            User.objects.create_user("cat")
            ws.send("dan")
            assert ws.receive_json() == ["ann", "bob", "cat", "dan"]
            ws.close(4001)
        assert User.objects.last().username == "None closed with 4001"

    def test_several_at_once_share_the_transaction_of_the_test(self) -> None:
        with self.client.websocket("/parked/?name=a") as ann, WebSocketClient().websocket("/parked/?name=b") as bob:
            assert ann.receive() == bob.receive() == "welcome"
            ann.send("ann")
            assert ann.receive_json() == ["ann"]
            bob.send("bob")
            assert bob.receive_json() == ["ann", "bob"]
        assert connection.in_atomic_block
        assert User.objects.count() == 4

    def test_exception_of_a_turn_is_raised_by_receive(self) -> None:
        with self.client.websocket("/parked/") as ws:
            assert ws.receive() == "welcome"
            ws.send("fail")
            with pytest.raises(LookupError, match="in a turn"):
                ws.receive()

    def test_exception_of_the_last_turn_is_raised_at_the_end(self) -> None:
        with pytest.raises(LookupError, match=r"in closed\(\)"), self.client.websocket("/parked/") as ws:
            ws.close(4001, "fail")

    def test_receive_says_that_the_view_is_parked_or_what_its_turn_does(self) -> None:
        with self.client.websocket("/parked/") as ws:
            assert ws.receive() == "welcome"
            with pytest.raises(TimeoutError, match=r"within 0\.1 s; it is parked$"):
                ws.receive(timeout=0.1)
            ws.send("sleep")
            with pytest.raises(TimeoutError, match=r"; it is in .*woken\.wait\(PATIENCE_SECONDS\)"):
                ws.receive(timeout=0.2)
            woken.set()

    def test_turn_that_does_not_end_is_named(self) -> None:
        with (
            pytest.raises(TimeoutError, match=r"at /parked/ has not ended 0\.2 s after .*woken\.wait"),
            self.client.websocket("/parked/", timeout=0.2) as ws,
        ):
            ws.send("sleep")
            while not ws.closed and ws.receive() != "welcome":
                pass
            time.sleep(0.05)


class CommittedTests(TransactionTestCase):
    client_class = WebSocketClient
    client: WebSocketClient

    def test_test_without_a_transaction_shares_its_connection_as_well(self) -> None:
        self.client.force_login(User.objects.create_user("ann"))
        with self.client.websocket("/whoami/") as ws:
            assert ws.receive() == "ann"
            ws.send("bob")
            assert ws.receive_json() == {"users": ["ann", "bob"]}
        assert User.objects.count() == 2


@override_settings(ROOT_URLCONF=__name__, SESSION_ENGINE="django.contrib.sessions.backends.db")
class LiveTests(LiveServerTestCase):
    def test_real_client_talks_to_the_live_server_and_its_view_sees_the_database(self) -> None:
        client = Client()
        client.force_login(User.objects.create_user("ann"))
        cookie = f"sessionid={client.cookies['sessionid'].value}"
        url = self.live_server_url.replace("http", "ws") + "/whoami/"
        with connect(url, additional_headers={"Cookie": cookie}) as ws:
            assert ws.recv(timeout=PATIENCE_SECONDS) == "ann"
            ws.send("bob")
            assert ws.recv(timeout=PATIENCE_SECONDS) == '{"users": ["ann", "bob"]}'
        until(lambda: not dwebsocket.connections(), "the view to end")


# Views run detached and attached.
for case in (EchoTests, RequestTests, RefusalTests, FailureTests, DatabaseTests, CommittedTests, LiveTests):
    name = f"{case.__name__}Attached"
    globals()[name] = override_settings(WEBSOCKET_DETACH=False)(type(name, (case,), {"__module__": __name__}))
del case


def test_mixin_makes_any_client_one_for_websockets() -> None:
    class Own(WebSocketClientMixin, Client):
        websocket_timeout = 0.2

    started = time.monotonic()
    with Own().websocket("/echo/") as ws, pytest.raises(TimeoutError, match=r"within 0\.2 s"):
        ws.receive()
    assert time.monotonic() - started >= 0.2


PROJECT = """
from django.conf import settings
from django.urls import path
from dwebsocket import require_websocket

settings.configure(ROOT_URLCONF="test_it", ALLOWED_HOSTS=["testserver"], SECRET_KEY="x")

@require_websocket
def echo(request):
    for message in request.websocket:
        request.websocket.send(message)

urlpatterns = [path("echo/", echo)]

def test_echo(websocket_client):
    with websocket_client.websocket("/echo/") as ws:
        ws.send("hi")
        assert ws.receive() == "hi"
"""


def pytest_in(folder: Path, module: str) -> subprocess.CompletedProcess[str]:
    """What pytest says of one module in a project of its own."""
    (folder / "test_it.py").write_text(module)
    plugins = ("no:cacheprovider", "no:xdist", "no:django")
    command = [sys.executable, "-m", "pytest", "-q", *(f"-p{plugin}" for plugin in plugins), f"--rootdir={folder}"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


def test_pytest_fixture_is_there_once_the_package_is_installed(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "import sys\nassert 'django' not in sys.modules, 'Django is here before gevent could patch anything'\n"
    )
    ran = pytest_in(tmp_path, PROJECT)
    assert "1 passed" in ran.stdout, ran.stdout + ran.stderr


PROJECT_OF_PLAIN_TESTS = """
import django
from django.conf import settings
settings.configure(SECRET_KEY="x")
django.setup()
from dwebsocket import Groups

room = Groups("room", history=10)[7]

def test_one():
    room.send("a")
    assert len(room.history()) == 1

test_two = test_one
"""


def test_with_pytest_no_test_sees_what_another_one_has_sent(tmp_path: Path) -> None:
    ran = pytest_in(tmp_path, PROJECT_OF_PLAIN_TESTS)
    assert "2 passed" in ran.stdout, ran.stdout + ran.stderr


PROJECT_WITH_A_VIEW_THAT_DOES_NOT_END = """
import time
from django.conf import settings
from django.urls import path
from dwebsocket import require_websocket

settings.configure(ROOT_URLCONF="test_it", ALLOWED_HOSTS=["testserver"], SECRET_KEY="x", WEBSOCKET_DRAIN_SECONDS=3600)

@require_websocket
def view(request):
    request.websocket.accept()
    while True:
        time.sleep(0.1)

urlpatterns = [path("", view)]

def test_it(websocket_client):
    with websocket_client.websocket("/", timeout=0.1):
        pass
"""


def test_process_does_not_wait_for_a_view_that_a_test_has_given_up(tmp_path: Path) -> None:
    ran = pytest_in(tmp_path, PROJECT_WITH_A_VIEW_THAT_DOES_NOT_END)
    assert "has not ended 0.1 s after the close" in ran.stdout
    assert ran.stderr == ""
