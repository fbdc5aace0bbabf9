"""The system checks name every misuse and the fix."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.decorators import login_required
from django.core.checks import ERROR, WARNING, run_checks
from django.core.management import call_command
from django.test import override_settings
from django.urls import clear_url_caches, include, path
from django.utils.decorators import async_only_middleware, sync_and_async_middleware, sync_only_middleware

from dwebsocket import Groups, WebSocketView, accept_websocket, conf, require_websocket
from dwebsocket.groups import group
from dwebsocket.middleware import WebSocketMiddleware
from tests.groups.servers import REDIS, RedisServer
from tests.project.settings import INSTALLED_APPS

OWN = "dwebsocket.middleware.WebSocketMiddleware"
CSRF = "django.middleware.csrf.CsrfViewMiddleware"
SECURITY = "django.middleware.security.SecurityMiddleware"
REDIS_GROUPS = "dwebsocket.groups.redis.RedisGroups"

Modules = Callable[..., None]


class Subclass(WebSocketMiddleware):
    """A project's own."""


@async_only_middleware
def asynchronous(get_response: Any) -> Any:
    return get_response


@sync_and_async_middleware
def both(get_response: Any) -> Any:
    return get_response


@sync_only_middleware
def synchronous(get_response: Any) -> Any:
    return get_response


class Asynchronous:
    sync_capable = False
    async_capable = True


@login_required
@require_websocket(guard=["dwebsocket.session_alive", "chat.nope"])
def view_with_a_guard_that_is_not_there(request: Any) -> None: ...


@accept_websocket(guard="dwebsocket.session_alive", detach=False)
def view_with_a_guard(request: Any) -> None: ...


urlpatterns = [
    path("plain/", both),
    path("guarded/", view_with_a_guard),
    path("in/", include([path("nope/", view_with_a_guard_that_is_not_there)])),
    path("again/", view_with_a_guard_that_is_not_there),
]


@pytest.fixture(autouse=True)
def no_gevent_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests of this process serve with gevent, which patches nothing here: what that is worth is tested below."""
    monkeypatch.delitem(sys.modules, "gevent.pywsgi", raising=False)


@pytest.fixture(autouse=True)
def no_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests of this process declare Groups."""
    monkeypatch.setattr(group, "_declared", {})


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Modules]:
    """Makes modules that can be imported during the test, each from its name and source."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)

    def make(**sources: str) -> None:
        for name, source in sources.items():
            *folders, module = name.split(".")
            for depth in range(len(folders)):
                folder = tmp_path.joinpath(*folders[: depth + 1])
                folder.mkdir(exist_ok=True)
                (folder / "__init__.py").touch()
            tmp_path.joinpath(*folders, f"{module}.py").write_text(source)

    yield make
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def messages(**about: Any) -> list[Any]:
    """What our checks say."""
    return [message for message in run_checks(**about) if str(message.id).startswith("dwebsocket.")]


def ids(**settings: Any) -> list[str]:
    """What our checks find in a project with these settings, those of a deployment included."""
    with override_settings(**settings):
        return [message.id.removeprefix("dwebsocket.") for message in messages(include_deployment_checks=True)]


#: For each check of the settings one project that it is for.
MISUSES: dict[str, dict[str, Any]] = {
    "E001": {"WEBSOCKET_PING_INTERVAL": 0},
    "E003": {"ROOT_URLCONF": "tests.test_checks"},
    "E002": {"WEBSOCKET_ACCEPT_ALL": True, "MIDDLEWARE": [OWN, CSRF]},
    "E004": {"WEBSOCKET_GROUPS": {"default": {"BACKEND": REDIS_GROUPS}}},
    "W001": {"WEBSOCKET_ALLOWED_ORIGINS": ["*"]},
    "W002": {"WEBSOCKET_FACTORY_CLASS": "dwebsocket.backends.default.factory.WebSocketFactory"},
    "W003": {"WEBSOCKET_ACCEPT_ALL": True, "MIDDLEWARE": [CSRF]},
    "W006": {"MIDDLEWARE": ["crum.CurrentRequestUserMiddleware"]},
    "W007": {"MIDDLEWARE": [f"{__name__}.asynchronous"], "WEBSOCKET_DETACH": False},
    "W008": {"MIDDLEWARE_CLASSES": (OWN,)},
    "W009": {"MIDDLEWARE": [SECURITY], "SECURE_SSL_REDIRECT": True},
    "W011": {"MIDDLEWARE": [OWN, CSRF, OWN]},
    "W012": {"WEBSOCKET_PING_INTERVAL": 120},
    "W015": {"WEBSOCKET_GROUPS": {"default": {"BACKEND": REDIS_GROUPS, "LOCATION": "unix:///nowhere/redis.sock"}}},
    "W010": {"ASGI_APPLICATION": "project.asgi.application", "INSTALLED_APPS": ["channels", *INSTALLED_APPS]},
}
STAND_INS = {"crum": "class CurrentRequestUserMiddleware: ...", "channels": ""}


@pytest.mark.parametrize("name", MISUSES)
def test_misuse_is_found_alone_and_says_what_to_do_and_can_be_silenced(name: str, modules: Modules) -> None:
    modules(**STAND_INS)
    with override_settings(**MISUSES[name], SILENCED_SYSTEM_CHECKS=[f"dwebsocket.{name}"]):
        (found,) = messages(include_deployment_checks=True)
        assert found.id == f"dwebsocket.{name}"
        assert found.level == (ERROR if name.startswith("E") else WARNING)
        assert found.hint
        assert found.is_silenced()


def test_default_settings_pass() -> None:
    assert messages() == []
    call_command("check")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"WEBSOCKET_PING_INTERVAL": 0}, ["WEBSOCKET_PING_INTERVAL is 0", "a number of seconds above 0, or None"]),
        ({"WEBSOCKET_RECEIVE_QUEUE": None}, ["WEBSOCKET_RECEIVE_QUEUE is None", "a whole number above 0"]),
        ({"WEBSOCKET_ACCEPT_ALL": 1}, ["WEBSOCKET_ACCEPT_ALL is 1", "True or False"]),
        ({"WEBSOCKET_SUBPROTOCOLS": "chat"}, ["WEBSOCKET_SUBPROTOCOLS is 'chat'", "a list of subprotocol names"]),
        ({"WEBSOCKET_ALLOWED_ORIGINS": "https://a.example"}, ["WEBSOCKET_ALLOWED_ORIGINS is", "a list of origins"]),
        ({"WEBSOCKET_ALLOWED_ORIGINS": ["a.example"]}, ["WEBSOCKET_ALLOWED_ORIGINS is", "https://"]),
        ({"WEBSOCKET_ALLOWED_ORIGINS": None}, ["WEBSOCKET_ALLOWED_ORIGINS is None", "a list of origins"]),
        ({"WEBSOCKET_ALLOWED_ORIGINS": "*"}, ["WEBSOCKET_ALLOWED_ORIGINS is '*'", "a list of origins"]),
        ({"WEBSOCKET_ALLOWED_ORIGINS": 5}, ["WEBSOCKET_ALLOWED_ORIGINS is 5", "a list of origins"]),
        ({"WEBSOCKET_SUBPROTOCOLS": ["chat", 5]}, ["WEBSOCKET_SUBPROTOCOLS is ['chat', 5]", "subprotocol names"]),
        ({"WEBSOCKET_SUBPROTOCOLS": ["two words"]}, ["['two words']", "a list of subprotocol names"]),
        ({"WEBSOCKET_ALLOWED_ORIGINS": ["https://a.example", None]}, ["None]", "a list of origins"]),
        ({"WEBSOCKET_COMPRESSION": {"level": "9"}}, ["WEBSOCKET_COMPRESSION is {'level': '9'}", "a dict of"]),
        ({"WEBSOCKET_CLASS": "WebSocket"}, ["WEBSOCKET_CLASS is 'WebSocket'", "a dotted path to"]),
        ({"WEBSOCKET_CLASS": "nowhere.WebSocket"}, ["WEBSOCKET_CLASS", "No module named 'nowhere'"]),
    ],
    ids=str,
)
def test_setting_that_cannot_be_is_an_error_that_says_what_it_must_be(
    settings: dict[str, Any], words: list[str]
) -> None:
    with override_settings(**settings):
        found = [message for message in messages() if message.level == ERROR]
    assert [message.id for message in found] == ["dwebsocket.E001"]
    for word in words:
        assert word in found[0].msg


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        (
            {"WEBSOCKET_PING_INTERVAL": 0},
            "Write a number of seconds above 0, or None; or remove WEBSOCKET_PING_INTERVAL: then it is 20.",
        ),
        (
            {"WEBSOCKET_CLASS": "nowhere.WebSocket"},
            "Write a dotted path to a subclass of dwebsocket.websocket.WebSocket, or the class itself;"
            " or remove WEBSOCKET_CLASS: then it is 'dwebsocket.websocket.WebSocket'.",
        ),
    ],
    ids=str,
)
def test_setting_that_cannot_be_has_a_hint_with_its_default(settings: dict[str, Any], hint: str) -> None:
    with override_settings(**settings):
        (found,) = messages()
    assert found.hint == hint


@pytest.mark.parametrize(
    ("value", "origins"),
    [
        (["site.example"], ["https://site.example"]),
        (["site.example:8443/app"], ["https://site.example:8443"]),
        (["https://site.example/"], ["https://site.example"]),
        (["http://site.example/app?next=http://a.example"], ["http://site.example"]),
        (["https://site.example?a=/b"], ["https://site.example"]),
        (["https://site.example#part"], ["https://site.example"]),
        (["https://user:password@site.example"], ["https://site.example"]),
        (["ws://site.example:8000/chat"], ["http://site.example:8000"]),
        (["WSS://site.example"], ["https://site.example"]),
        (["*.site.example"], ["https://*.site.example"]),
        (["*", "https://a.example", "b.example"], ["*", "https://a.example", "https://b.example"]),
        ("https://site.example", ["https://site.example"]),
        ({"https://site.example"}, ["https://site.example"]),
        ([5, "a.example"], ["https://a.example"]),
        (["https://*"], ["https://example.com"]),
        (["https://"], ["https://example.com"]),
        (["https://."], ["https://example.com"]),
        (["https://*.-"], ["https://example.com"]),
        (["https://a.example:port"], ["https://example.com"]),
        (["https://a.*.example"], ["https://example.com"]),
        (["https://b\u00fccher.example"], ["https://example.com"]),
        (None, ["https://example.com"]),
    ],
    ids=str,
)
def test_origin_that_is_none_is_an_error_that_shows_how_to_write_it(value: Any, origins: list[str]) -> None:
    with override_settings(WEBSOCKET_ALLOWED_ORIGINS=value):
        (found,) = messages()
    assert found.id == "dwebsocket.E001"
    assert found.hint == f"Write WEBSOCKET_ALLOWED_ORIGINS = {origins}."
    assert conf.ORIGINS.accepts(origins)


@pytest.mark.parametrize(
    "origin",
    [
        "https://example.com",
        "HTTPS://Example.com",
        "http://localhost:8000",
        "http://127.0.0.1:8000",
        "http://[::1]:8000",
        "https://*.example.com:8443",
        "https://.example.com",
        "https://xn--bcher-kva.example",
        "chrome-extension://abcdef",
        "capacitor://localhost",
    ],
)
def test_origin_passes(origin: str) -> None:
    assert ids(WEBSOCKET_ALLOWED_ORIGINS=[origin]) == []


def test_every_wrong_setting_is_named() -> None:
    with override_settings(WEBSOCKET_PING_INTERVAL=0, WEBSOCKET_PING_TIMEOUT=0):
        assert len(messages()) == 2


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("WEBSOCKET_PING_INTERVALL", "Did you mean WEBSOCKET_PING_INTERVAL?"),
        ("WEBSOCKET_FACTORY_CLASS", "Remove it: the server is recognised."),
        ("WEBSOCKETS_PING_INTERVAL", "Did you mean WEBSOCKET_PING_INTERVAL?"),
        ("DWEBSOCKET_MAX_MESSAGE_SIZE", "Did you mean WEBSOCKET_MAX_MESSAGE_SIZE?"),
        ("WEBSOCKET_QQQQQQQQQQQQQQQQQQQQ", "Remove it."),
    ],
)
def test_setting_that_does_not_exist_is_a_warning_that_helps(name: str, hint: str) -> None:
    with override_settings(**{name: 5}):
        (found,) = messages()
    assert (found.id, found.level) == ("dwebsocket.W002", WARNING)
    assert name in found.msg
    assert found.hint == hint


def test_accept_all_before_a_middleware_that_must_see_the_view_is_an_error() -> None:
    with override_settings(WEBSOCKET_ACCEPT_ALL=True, MIDDLEWARE=[OWN, CSRF]):
        (found,) = messages()
    assert (found.id, found.level) == ("dwebsocket.E002", ERROR)
    assert CSRF in found.msg
    assert OWN in found.hint


def test_accept_all_that_cannot_be_says_nothing_about_the_order() -> None:
    with override_settings(WEBSOCKET_ACCEPT_ALL="yes", MIDDLEWARE=[OWN, CSRF]):
        assert [message.id for message in messages()] == ["dwebsocket.E001"]


def test_accept_all_behind_every_middleware_passes() -> None:
    with override_settings(WEBSOCKET_ACCEPT_ALL=True, MIDDLEWARE=[CSRF, OWN]):
        assert messages() == []


def test_order_of_the_middleware_is_free_without_accept_all() -> None:
    with override_settings(MIDDLEWARE=[OWN, CSRF]):
        assert messages() == []


def test_origin_check_that_is_switched_off_is_a_warning() -> None:
    with override_settings(WEBSOCKET_ALLOWED_ORIGINS=["https://a.example", "*"]):
        (found,) = messages()
    assert (found.id, found.level) == ("dwebsocket.W001", WARNING)
    assert '"*"' in found.msg
    assert "https://" in found.hint


def test_accept_all_without_the_middleware_is_a_warning() -> None:
    with override_settings(WEBSOCKET_ACCEPT_ALL=True, MIDDLEWARE=[CSRF]):
        (found,) = messages()
    assert (found.id, found.level) == ("dwebsocket.W003", WARNING)
    assert OWN in found.hint


def test_accept_all_with_a_subclass_of_the_middleware_passes() -> None:
    assert ids(WEBSOCKET_ACCEPT_ALL=True, MIDDLEWARE=[f"{__name__}.Subclass"]) == []


def test_middleware_that_is_missing_is_left_to_django() -> None:
    assert ids(MIDDLEWARE=["nowhere.Middleware"], WEBSOCKET_DETACH=False) == []


@pytest.mark.parametrize("value", [(OWN,), [CSRF, OWN], OWN])
def test_middleware_in_the_setting_that_django_has_removed_is_a_warning(value: Any) -> None:
    with override_settings(MIDDLEWARE_CLASSES=value):
        (found,) = messages()
    assert "MIDDLEWARE_CLASSES does nothing" in found.msg
    assert f'"{OWN}" to MIDDLEWARE' in found.hint


@pytest.mark.parametrize("value", [(), (CSRF,), None])
def test_setting_that_django_has_removed_passes_without_our_middleware(value: Any) -> None:
    assert ids(MIDDLEWARE_CLASSES=value) == []


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("django_tenants.middleware.main.TenantMainMiddleware", "the tenant on the database connection"),
        ("django_tenants.middleware.subfolder.TenantSubfolderMiddleware", "the tenant on the database connection"),
        ("tenant_schemas.middleware.TenantMiddleware", "the tenant on the database connection"),
        ("db_multitenant.middleware.MultiTenantMiddleware", "the tenant in a thread-local"),
        ("django_multitenant.middlewares.MultitenantMiddleware", "the tenant in a thread-local"),
        ("django_currentuser.middleware.ThreadLocalUserMiddleware", "the user in a thread-local"),
        ("crum.CurrentRequestUserMiddleware", "the request and its user in a thread-local"),
        ("threadlocals.middleware.ThreadLocalMiddleware", "the request in a thread-local"),
        ("pghistory.middleware.HistoryMiddleware", "the context of the history in a thread-local"),
        ("multidb.middleware.PinningRouterMiddleware", "whether queries go to the primary database in a thread-local"),
        ("django_middleware_global_request.middleware.GlobalRequestMiddleware", "the request in a thread-local"),
        ("django_replicated.middleware.ReplicationMiddleware", "which database queries go to in a thread-local"),
        ("auditlog.middleware.AuditlogMiddleware", "the actor of the log entries until"),
    ],
)
@pytest.mark.parametrize("inherited", [False, True], ids=["itself", "subclass"])
def test_middleware_that_keeps_state_of_its_thread_is_a_warning_unless_views_stay_attached(
    path: str, kept: str, inherited: bool, modules: Modules
) -> None:
    module, name = path.rsplit(".", 1)
    own = f"from {module} import {name}\nclass Own({name}): ..."
    modules(**{module: f"class {name}: ...", "own": own})
    written = "own.Own" if inherited else path

    with override_settings(MIDDLEWARE=[CSRF, written, OWN]):
        (found,) = messages()
    assert found.id == "dwebsocket.W006"
    assert f"{written} keeps {kept}" in found.msg
    assert "WEBSOCKET_DETACH = False" in found.hint
    assert "@accept_websocket(detach=False)" in found.hint
    assert ("with tenant_context(request.tenant):" in found.hint) is ("tenant on the database" in kept)
    assert ids(MIDDLEWARE=[CSRF, written, OWN], WEBSOCKET_DETACH=False) == []


@pytest.mark.parametrize(
    "path",
    [
        "simple_history.middleware.HistoryRequestMiddleware",
        "easyaudit.middleware.easyaudit.EasyAuditMiddleware",
        "django_structlog.middlewares.request.RequestMiddleware",
        "reversion.middleware.RevisionMiddleware",
        "crumbs.middleware.Middleware",
    ],
)
def test_middleware_that_keeps_state_where_a_view_finds_it_passes(path: str, modules: Modules) -> None:
    module, name = path.rsplit(".", 1)
    modules(**{module: f"class {name}: ..."})
    assert ids(MIDDLEWARE=[path]) == []


def test_tenant_in_the_context_passes(modules: Modules) -> None:
    modules(**{"django_multitenant.middlewares": "class MultitenantMiddleware: ..."})
    path = "django_multitenant.middlewares.MultitenantMiddleware"
    assert ids(MIDDLEWARE=[path], TENANT_USE_ASGIREF=True) == []
    assert ids(MIDDLEWARE=[path], TENANT_USE_ASGIREF=False) == ["W006"]


@pytest.mark.parametrize("name", ["asynchronous", "Asynchronous"])
def test_asynchronous_middleware_is_a_warning_where_views_stay_attached(name: str) -> None:
    path = f"{__name__}.{name}"
    assert ids(MIDDLEWARE=[path], WEBSOCKET_DETACH=True) == []
    with override_settings(MIDDLEWARE=[path], WEBSOCKET_DETACH=False):
        (found,) = messages()
    assert path in found.msg
    assert "sync_and_async_middleware" in found.hint


@pytest.mark.parametrize("path", [f"{__name__}.both", f"{__name__}.synchronous", f"{__name__}.Subclass", CSRF])
def test_middleware_with_a_synchronous_side_passes_where_views_stay_attached(path: str) -> None:
    assert ids(MIDDLEWARE=[path], WEBSOCKET_DETACH=False) == []


@pytest.mark.parametrize(
    "settings",
    [
        {"SECURE_SSL_REDIRECT": False},
        {"SECURE_PROXY_SSL_HEADER": ("HTTP_X_FORWARDED_PROTO", "https")},
        {"SECURE_REDIRECT_EXEMPT": ["^ws/"]},
        {"MIDDLEWARE": [OWN]},
    ],
    ids=str,
)
def test_redirect_passes_where_no_opening_handshake_need_meet_it(settings: dict[str, Any]) -> None:
    redirects = MISUSES["W009"]
    assert ids(**redirects) == ["W009"]
    assert ids(**{**redirects, **settings}) == []


def test_redirect_is_checked_for_a_deployment_only() -> None:
    with override_settings(**MISUSES["W009"]):
        assert messages() == []


@pytest.mark.parametrize("app", ["daphne", "channels"])
def test_project_for_an_asgi_server_is_a_warning_that_names_the_servers_that_work(app: str, modules: Modules) -> None:
    modules(**{app: ""})
    apps = [app, *INSTALLED_APPS]
    with override_settings(INSTALLED_APPS=apps, ASGI_APPLICATION="project.asgi.application"):
        (found,) = messages()
    assert found.id == "dwebsocket.W010"
    assert f"{app} installed" in found.msg
    for word in ("gunicorn", "pywsgi", "uWSGI", "Channels", f"{app} from INSTALLED_APPS"):
        assert word in found.hint
    assert ids(INSTALLED_APPS=apps) == []


def test_asgi_application_alone_passes() -> None:
    assert ids(ASGI_APPLICATION="project.asgi.application") == []


PATCH = "from gevent import monkey; monkey.patch_all({})"
LOAD = "import gevent.pywsgi"
SET_UP = """
import django
from django.conf import settings
settings.configure(INSTALLED_APPS=["dwebsocket"], MIDDLEWARE={middleware}, USE_TZ=True)
django.setup()
from django.core.checks import run_checks
"""
RUN = 'print([message.id.removeprefix("dwebsocket.") for message in run_checks()])'
NETWORK, THREADS = "a view that waits for the network", "all views share one database connection"


def run(*lines: str, middleware: tuple[str, ...] = ()) -> str:
    """What a program of these lines writes, in a project with this middleware."""
    program = "\n".join(lines).replace("{middleware}", repr(list(middleware)))
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[1],
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([SET_UP, RUN], []),
        (["import gevent", SET_UP, RUN], []),
        ([PATCH.format(""), SET_UP, RUN], []),
        ([PATCH.format(""), LOAD, SET_UP, RUN], []),
        ([PATCH.format(""), "import gunicorn.workers.ggevent", SET_UP, RUN], []),
        ([SET_UP, LOAD, RUN], ["W004", "W004"]),
        (["import gunicorn.workers.ggevent", SET_UP, RUN], ["W004", "W004"]),
        ([PATCH.format("thread=False"), LOAD, SET_UP, RUN], ["W004"]),
        ([PATCH.format("socket=False"), LOAD, SET_UP, RUN], ["W004"]),
        ([SET_UP, PATCH.format(""), RUN], ["W005"]),
        ([SET_UP, PATCH.format(""), LOAD, RUN], ["W005"]),
        ([SET_UP, PATCH.format("thread=False"), RUN], []),
        ([SET_UP, "import threading; threading.local = dict  # somebody else has patched", RUN], []),
    ],
    ids=lambda value: " ".join(value).replace(SET_UP, "django").replace(RUN, "check"),
)
def test_gevent_must_have_patched_before_django_is_imported(lines: list[str], expected: list[str]) -> None:
    assert run(*lines) == str(expected)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (
            [SET_UP, LOAD],
            [f"patched socket: under this server {NETWORK}", f"patched threading: under this server {THREADS}"],
        ),
        ([SET_UP, PATCH.format("")], ["all greenlets get the same database connection"]),
    ],
    ids=["never", "late"],
)
def test_gevent_that_has_not_patched_in_time_is_a_warning_that_says_the_line(
    lines: list[str], words: list[str]
) -> None:
    said = run(*lines, "print(*run_checks())")
    for word in words:
        assert word in said
    assert said.count('Make "from gevent import monkey; monkey.patch_all()" the first line') == len(words)


def test_asynchronous_middleware_is_a_warning_under_gevent_whether_views_stay_attached_or_not() -> None:
    assert run(PATCH.format(""), SET_UP, RUN, middleware=(f"{__name__}.asynchronous",)) == "['W007']"
    assert run(PATCH.format(""), SET_UP, RUN, middleware=(f"{__name__}.both",)) == "[]"


def test_setting_of_another_package_passes() -> None:
    assert ids(WEBSOCKETS_URL="wss://a.example", WS_SERVER="a", DWEBSOCKET=1, WEB_SOCKET_HOST="a.example") == []


@override_settings(ROOT_URLCONF=__name__)
def test_guard_of_a_view_that_is_not_there_is_an_error_that_names_both() -> None:
    (found,) = messages()
    assert found.id == "dwebsocket.E003"
    assert found.msg.startswith(
        f"the view {__name__}.view_with_a_guard_that_is_not_there: there is no guard 'chat.nope'"
    )


@override_settings(ROOT_URLCONF=__name__)
def test_guard_of_a_class_based_view_that_is_no_guard_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    view = WebSocketView.as_view(websocket_options={"guard": "django.contrib.auth.decorators.login_required"})
    monkeypatch.setattr(f"{__name__}.urlpatterns", [path("", view)])
    clear_url_caches()
    (found,) = messages()
    assert "the view dwebsocket.views.WebSocketView: 'django.contrib.auth.decorators.login_required' is no" in found.msg
    clear_url_caches()


def test_middleware_twice_is_a_warning_that_says_which_one_to_keep() -> None:
    with override_settings(WEBSOCKET_ACCEPT_ALL=True, MIDDLEWARE=[f"{__name__}.Subclass", CSRF, OWN]):
        (found,) = messages()
    assert found.msg == f"{OWN} does nothing: {__name__}.Subclass stands before it in MIDDLEWARE, and is enough"
    assert found.hint == "Keep the last of them."


@pytest.mark.parametrize(
    ("interval", "found"), [(20, []), (59.5, []), (60, ["W012"]), (120, ["W012"]), (None, ["W012"])]
)
def test_pings_that_are_too_seldom_for_a_proxy_are_a_warning(interval: Any, found: list[str]) -> None:
    assert ids(WEBSOCKET_PING_INTERVAL=interval) == found


# Groups


@pytest.mark.parametrize(
    ("alias", "words"),
    [
        ({"BACKEND": REDIS_GROUPS}, "has no LOCATION: write a URL like 'redis://127.0.0.1:6379/0'"),
        (
            {"BACKEND": REDIS_GROUPS, "LOCATION": "http://a"},
            "must begin with redis://, rediss:// (TLS), unix://, redis+s",
        ),
        ({"BACKEND": "nowhere.Groups"}, "['BACKEND'] is 'nowhere.Groups': No module named 'nowhere'"),
        ({"BACKEND": OWN}, "is no subclass of dwebsocket.groups.backend.GroupsBackend"),
        ({"LOCATION": "redis://localhost"}, "has a LOCATION, which LocalGroups does not use"),
        ({"TIMEOUTS": 5}, "has an unknown key 'TIMEOUTS'; it knows BACKEND, LOCATION"),
        ({"TIMEOUT": "5"}, "['TIMEOUT'] is '5'; it must be a number of seconds above 0"),
        ([], "it must be a dict with BACKEND, and perhaps LOCATION"),
    ],
    ids=str,
)
def test_alias_of_groups_that_cannot_be_used_is_an_error_that_says_why(alias: Any, words: str) -> None:
    with override_settings(WEBSOCKET_GROUPS={"default": {}, "other": alias}):
        (found,) = messages()
    assert (found.id, found.level) == ("dwebsocket.E004", ERROR)
    assert found.msg.startswith("WEBSOCKET_GROUPS['other']")
    assert words in found.msg
    assert f'"BACKEND": "{REDIS_GROUPS}"' in found.hint


def test_groups_that_are_no_dict_are_one_error() -> None:
    assert ids(WEBSOCKET_GROUPS=["redis://localhost"]) == ["E001"]


def test_groups_of_an_alias_that_is_not_there_are_an_error() -> None:
    Groups("room", alias="other")
    (found,) = messages()
    assert found.id == "dwebsocket.E004"
    assert found.msg.startswith(
        "Groups('room', history=0, ttl=0.0, presence=False, overflow=None, alias='other') names"
    )
    assert ids(WEBSOCKET_GROUPS={"default": {}, "other": {}}) == []


def test_groups_within_one_process_are_a_warning_where_there_are_several_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    assert messages() == []
    Groups("room")
    (found,) = messages()
    assert (found.id, found.level) == ("dwebsocket.W013", WARNING)
    assert found.msg.startswith("there are 4 workers, and what is sent to Groups('room') reaches the WebSockets of one")
    assert "RedisGroups" in found.hint
    with override_settings(WEBSOCKET_GROUPS={"default": {"BACKEND": REDIS_GROUPS, "LOCATION": "redis://localhost"}}):
        assert messages() == []


@pytest.mark.parametrize("value", ["1", "", "many"])
def test_groups_within_one_process_pass_where_there_is_one_worker(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", value)
    Groups("room")
    assert messages() == []


def test_groups_that_a_view_declares_are_seen(modules: Modules, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "2")
    modules(declaring="from dwebsocket import Groups\nrooms = Groups('declared_by_a_view')\nurlpatterns = []\n")
    clear_url_caches()
    with override_settings(ROOT_URLCONF="declaring"):
        assert [message.id for message in messages()] == ["dwebsocket.W013"]
    clear_url_caches()


def test_positions_that_are_forgotten_before_the_messages_are_a_warning() -> None:
    Groups("room", history=10, ttl=60)
    Groups("hall", history=10, ttl=600)
    Groups("elsewhere", history=10, ttl=6000, alias="other")
    Groups("keepless")
    for meta_ttl, is_found in ((601, False), (600, True), (60, True), (0.5, True)):
        with override_settings(WEBSOCKET_GROUPS={"default": {"META_TTL": meta_ttl}, "other": {}}):
            found = messages()
        assert [message.id for message in found] == ["dwebsocket.W018"] * is_found
    assert found[0].msg.startswith(
        "WEBSOCKET_GROUPS['default']['META_TTL'] is 0.5 seconds, and Groups('hall') keep their messages for 600: "
    )
    with override_settings(WEBSOCKET_GROUPS={"default": {}, "other": {"META_TTL": 100}}):
        assert ["Groups('elsewhere')" in message.msg for message in messages()] == [True]


def test_lease_that_one_late_answer_ends_is_a_warning() -> None:
    def found(**keys: float) -> list[Any]:
        redis = {"BACKEND": REDIS_GROUPS, "LOCATION": "redis://localhost"}
        with override_settings(WEBSOCKET_GROUPS={"default": redis | keys, "other": {"LEASE": 0.1}}):
            return messages()

    (warning,) = found(LEASE=3)
    assert (warning.id, warning.level) == ("dwebsocket.W019", WARNING)
    assert "['default']['LEASE'] is 3 seconds, less than 2 times its TIMEOUT (2)" in warning.msg
    assert "Write a LEASE of 4 or more" in warning.hint
    assert [message.id for message in found(TIMEOUT=8)] == ["dwebsocket.W019"]
    assert found(LEASE=4) == found() == []


def test_groups_without_history_need_no_memory_of_it() -> None:
    Groups("room", presence=True)
    assert ids(WEBSOCKET_GROUPS={"default": {"META_TTL": 0.001}}) == []


def test_history_that_a_view_declares_is_seen(modules: Modules) -> None:
    source = "from dwebsocket import Groups\nrooms = Groups('kept_by_a_view', history=1, ttl=9)\nurlpatterns = []\n"
    modules(keeping=source)
    clear_url_caches()
    with override_settings(ROOT_URLCONF="keeping", WEBSOCKET_GROUPS={"default": {"META_TTL": 5}}):
        assert [message.id for message in messages()] == ["dwebsocket.W018"]
    clear_url_caches()


def test_processes_of_uwsgi_count(modules: Modules, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    Groups("room")
    modules(uwsgi="numproc = 3")
    assert messages() == []
    monkeypatch.setitem(sys.modules, "uwsgi", importlib.import_module("uwsgi"))
    assert "there are 3 workers" in messages()[0].msg


needs_redis = pytest.mark.skipif(not REDIS, reason="there is no redis-server: apt install redis-server")


def ids_with_redis(tmp_path: Path, **redis: str) -> list[str]:
    """What our checks find with a server that has these settings."""
    settings = {name.replace("_", "-"): value for name, value in redis.items()}
    with RedisServer(tmp_path, settings=settings) as server:
        return ids(WEBSOCKET_GROUPS={"default": {"BACKEND": REDIS_GROUPS, "LOCATION": server.url}})


@needs_redis
@pytest.mark.parametrize(
    ("redis", "found"),
    [
        ({}, []),
        ({"client_output_buffer_limit": "pubsub 8mb 2mb 60"}, ["W016"]),
        ({"maxmemory": "100mb", "maxmemory_policy": "allkeys-lru"}, ["W017"]),
    ],
    ids=str,
)
def test_server_of_groups_is_asked_for_its_settings(tmp_path: Path, redis: dict[str, str], found: list[str]) -> None:
    assert ids_with_redis(tmp_path, **redis) == found


def test_server_of_groups_that_cannot_be_reached_is_a_warning_with_a_reason_and_no_password() -> None:
    location = "redis://shop:secret@127.0.0.1:1/0"
    with override_settings(WEBSOCKET_GROUPS={"default": {"BACKEND": REDIS_GROUPS, "LOCATION": location}}):
        (found,) = messages(include_deployment_checks=True)
        assert messages() == []
    assert found.id == "dwebsocket.W015"
    assert "WEBSOCKET_GROUPS['default']: redis://127.0.0.1:1/0 cannot be used now: it refuses connections" in found.msg
    assert "secret" not in f"{found.msg} {found.hint}"


DRIVERS = "import psycopg, redis"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([DRIVERS, PATCH.format(""), SET_UP, RUN], ["W014", "W014"]),
        ([PATCH.format(""), DRIVERS, SET_UP, RUN], []),
        ([DRIVERS, SET_UP, RUN], []),
        ([DRIVERS, PATCH.format("select=False"), SET_UP, RUN], ["W014"]),
    ],
    ids=lambda value: " ".join(value).replace(SET_UP, "django").replace(RUN, "check"),
)
def test_gevent_must_have_patched_before_drivers_are_imported(lines: list[str], expected: list[str]) -> None:
    assert run(*lines) == str(expected)
