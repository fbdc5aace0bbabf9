"""README and docs/ are true: each of their code blocks is put into a new project, run, and used.

A block that begins with `# path` is appended to that file of the project; what the README has stands before what the
other pages have. `RUN_BY` says of every block which test runs it.
"""

import base64
import json
import os
import re
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from django.core.exceptions import BadRequest, PermissionDenied, SuspiciousOperation
from django.http import Http404
from selenium.webdriver.support.wait import WebDriverWait
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

import dwebsocket
from dwebsocket import conf
from dwebsocket.groups import config
from dwebsocket.groups.redis import faults
from dwebsocket.protocol import COMPILED
from dwebsocket.upgrade.outcomes import close_for
from tests.groups.servers import REDIS, RedisServer, SentinelServer
from tests.peer import Peer
from tests.real import processes, proxies, servers
from tests.real.chromium import browsing
from tests.real.nginx import DOCUMENTED
from tests.real.processes import serving
from tests.real.servers import PATIENCE_SECONDS, ROOT

README, COMPATIBILITY, DEPLOYMENT, DJANGO, MIGRATION, SECURITY, SETTINGS, TESTING = (
    "README.md", "docs/compatibility.md", "docs/deployment.md", "docs/django.md",
    "docs/migration.md", "docs/security.md", "docs/settings.md", "docs/testing.md",
)  # fmt: skip
GROUPS, HISTORY, PRESENCE, REDIS_PAGE = "docs/groups.md", "docs/history.md", "docs/presence.md", "docs/redis.md"
PAGES = {
    name: (ROOT / name).read_text()
    for name in ["README.md", "CONTRIBUTING.md", *(f"docs/{page.name}" for page in ROOT.glob("docs/*.md"))]
}

START = (
    "python3 -m venv .venv && .venv/bin/pip install -e '.[gevent]'"
    " && .venv/bin/python example_project/manage.py runserver"
)
CHAT = (
    ".venv/bin/python example_project/manage.py migrate",
    ".venv/bin/pip install -e '.[gevent,redis]' 'gunicorn[gevent]'",
    "REDIS_URL=redis://127.0.0.1:6379/0 .venv/bin/gunicorn --chdir example_project --workers 2"
    " --worker-class gevent example.wsgi",
    'REDIS_URL=redis://127.0.0.1:6379/0 .venv/bin/python example_project/manage.py tell anna "Your export is ready."',
)
TEST = "python3 -m venv .venv && .venv/bin/pip install tox && .venv/bin/tox"
ACL = (
    "ACL SETUSER shop on >secret resetchannels ~dws:* &dws:* +publish +subscribe +unsubscribe +ping +eval +set +select"
)
LOCATION_OF_SENTINELS = '"LOCATION": "redis+sentinel://user:password@one:26379,two:26379,three:26379/0/mymaster",'
LOCATION_OF_SEVERAL = '"LOCATION": ["redis://a:6379", "redis://b:6379", "redis://c:6379"],'
IS_COMPILED = 'python -c "import dwebsocket; print(dwebsocket.COMPILED)"'
FENCED = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)

#: Which test, of this file if it has no path, runs the blocks of a page that begin with a line.
RUN_BY = {
    README: {
        "# chat/views.py": "test_views_are_all_used_here",
        "# chat/groups.py": "test_chat_reaches_the_others",
        "# mysite/urls.py": "test_views_are_all_used_here",
        "# mysite/settings.py": "test_echo_page_is_served_and_its_websocket_echoes",
        "<!doctype html>": "test_echo_page_works_in_a_browser",
        "# chat/tests.py": "test_tests_of_the_readme_pass",
        "# chat/test_echo.py": "test_tests_of_the_readme_pass",
        START: "test_commands_are_those_that_ci_runs",
        TEST: "test_commands_are_those_that_ci_runs",
        IS_COMPILED: "test_command_tells_whether_it_is_compiled",
        **dict.fromkeys(CHAT, "tests/real/test_chat.py"),
    },
    COMPATIBILITY: {
        "# mysite/middleware.py": "test_address_in_the_log_is_the_last_that_a_proxy_has_seen",
        "# mysite/settings.py": "test_address_in_the_log_is_the_last_that_a_proxy_has_seen",
        "http:": "tests/real/test_proxies.py",
    },
    DEPLOYMENT: {
        "# chat/views.py": "test_views_are_all_used_here",
        "# mysite/urls.py": "test_views_are_all_used_here",
        "# mysite/settings.py": "test_line_in_the_log_is_as_shown",
        "gunicorn mysite.wsgi --worker-class gevent --workers 4": "test_echo_page_is_served_and_its_websocket_echoes",
        "# serve.py": "test_script_for_gevent_serves",
        "# serve_cheroot.py": "test_script_for_cheroot_serves",
        "# uwsgi.ini": "test_configuration_of_uwsgi_serves",
        "# gunicorn.conf.py": "test_gunicorn_tells_attached_views_to_end",
        "map $http_upgrade $connection_upgrade {": "tests/real/test_nginx.py",
        "defaults": "tests/real/test_proxies.py",
        "example.com {": "tests/real/test_proxies.py",
        "<VirtualHost *:443>": "tests/real/test_proxies.py",
        "python manage.py websocket_doctor http://127.0.0.1:8000/echo/": "test_doctor_finds_nothing_wrong",
        "echo hello | python manage.py websocket_connect ws://127.0.0.1:8000/echo/": "test_line_by_hand_comes_back",
    },
    DJANGO: {
        "# chat/views.py": "test_views_are_all_used_here",
        "# chat/api.py": "test_updates_authenticates_as_rest_framework_does",
        "# mysite/urls.py": "test_views_are_all_used_here",
    },
    GROUPS: {
        "# chat/groups.py": "test_talk_reaches_all_tabs_and_the_other_user",
        "# chat/views.py": "test_views_are_all_used_here",
        "# mysite/urls.py": "test_views_are_all_used_here",
        "# chat/models.py": "test_ship_tells_the_customer_when_the_order_has_been_saved",
        "# chat/tasks.py": "test_task_and_command_tell_from_another_process",
        "# chat/management/commands/notice.py": "test_task_and_command_tell_from_another_process",
        'python manage.py notice "We restart at six."': "test_task_and_command_tell_from_another_process",
        "# chat/admin.py": "test_actions_of_the_admin_close",
    },
    HISTORY: {
        "# chat/groups.py": "test_topic_recovers_what_was_sent_meanwhile",
        "# chat/models.py": "test_topic_recovers_what_was_sent_meanwhile",
        "# chat/views.py": "test_views_are_all_used_here",
        "# mysite/urls.py": "test_views_are_all_used_here",
        "<!-- chat/templates/topic.html -->": "test_topic_comes_back_in_a_browser_and_shows_each_line_once",
    },
    PRESENCE: {
        "# chat/groups.py": "test_lobby_shows_who_comes_and_goes",
        "# chat/views.py": "test_views_are_all_used_here",
        "# chat/receivers.py": "test_receiver_is_told_of_a_crash_by_another_process",
        "# chat/apps.py": "test_receiver_is_told_of_a_crash_by_another_process",
        "# mysite/urls.py": "test_views_are_all_used_here",
        "<!-- chat/templates/lobby.html -->": "test_lobby_is_shown_in_a_browser",
    },
    REDIS_PAGE: {
        "# mysite/settings.py": "test_task_and_command_tell_from_another_process",
        "# chat/views.py": "test_pages_come_back_after_an_outage",
        ACL: "test_user_with_the_rights_of_the_page_does_all_that_they_are_for",
        LOCATION_OF_SENTINELS: "test_sentinels_of_the_page_lead_to_the_server",
        LOCATION_OF_SEVERAL: "test_servers_of_the_page_share_the_groups",
    },
    MIGRATION: {
        "# mysite/settings.py": "test_old_echo_works_as_it_did",
        "# chat/old_views.py": "test_old_echo_works_as_it_did",
        "# chat/views.py": "test_views_are_all_used_here",
        "# mysite/urls.py": "test_views_are_all_used_here",
    },
    SECURITY: {
        "# mysite/settings.py": "test_origins_that_are_allowed_may_connect",
        "# chat/views.py": "test_views_are_all_used_here",
        "# chat/guards.py": "test_editors_must_be_staff_and_stay_in_their_group",
        "# mysite/urls.py": "test_views_are_all_used_here",
        "<!-- chat/templates/news.html -->": "test_page_goes_to_the_login_when_its_session_has_ended",
    },
    SETTINGS: {
        "# chat/views.py": "test_views_are_all_used_here",
        "# mysite/urls.py": "test_views_are_all_used_here",
        "python manage.py check --deploy": "test_check_finds_nothing_in_the_project_until_there_is_something",
    },
    TESTING: {
        "# chat/views.py": "test_views_are_all_used_here",
        "# mysite/urls.py": "test_views_are_all_used_here",
        "# chat/groups.py": "test_tests_of_the_page_about_testing_pass",
        "# chat/tests.py": "test_tests_of_the_page_about_testing_pass",
        "# chat/test_live.py": "test_tests_of_the_page_about_testing_pass",
        "# chat/test_rename.py": "test_tests_of_the_page_about_testing_pass",
        "# pytest.ini": "test_tests_of_the_page_about_testing_pass",
        "python manage.py test": "test_tests_of_the_page_about_testing_pass",
        "pytest": "test_tests_of_the_page_about_testing_pass",
    },
}  # fmt: skip

#: What the project of a page has besides.
ADDED = {
    COMPATIBILITY: {
        "mysite/settings.py": "LOGGING = {'version': 1, 'handlers': {'console': {'class': 'logging.StreamHandler'}},\n"
        "    'loggers': {'dwebsocket': {'handlers': ['console'], 'level': 'INFO'}}}\n",
    },
    SECURITY: {
        "mysite/settings.py": "WEBSOCKET_GUARD_INTERVAL = 0.1\n",
        "mysite/urls.py": "from django.http import HttpResponse\n"
        'urlpatterns += [path("accounts/login/", lambda request: HttpResponse("<title>log in</title>"))]\n',
    },
}
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
ENVIRONMENT |= {"PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


needs_redis = pytest.mark.skipif(not REDIS, reason="there is no redis-server: apt install redis-server")


class Block(NamedTuple):
    """What stands between two fences."""

    language: str
    text: str

    @property
    def first_line(self):
        return self.text.partition("\n")[0]

    @property
    def path(self):
        """The file of the project that it belongs to, if it says so."""
        found = re.match(r"(?:# (\S+\.(?:py|ini))|<!-- (\S+) -->)\n", self.text)
        return found and (found.group(1) or found.group(2))


def blocks(page, language=""):
    """The blocks of a page, in their order; those of one language, if it is given."""
    return [Block(*fenced) for fenced in FENCED.findall(PAGES[page]) if language in ("", fenced[0])]


def block(page, beginning):
    """The only block that begins so."""
    (found,) = (block.text for block in blocks(page) if block.text.startswith(beginning))
    return found


# The projects


def new_project(folder, *pages):
    """What `startproject` and `startapp` make, and the blocks of the pages, each added to the file that it names."""
    for command in (["startproject", "mysite", "."], ["startapp", "chat"]):
        subprocess.run([sys.executable, "-m", "django", *command], cwd=folder, check=True, env=ENVIRONMENT)
    (folder / "chat/templates").mkdir()
    add(folder, "chat/templates/echo.html", blocks(README, "html")[0].text)
    add(folder, "gunicorn.conf.py", "control_socket_disable = True\n")
    for page in pages:
        for path, text in [*((block.path, block.text) for block in blocks(page)), *ADDED.get(page, {}).items()]:
            if path:
                add(folder, path, text)
    return folder


def add(folder, path, text):
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    with (folder / path).open("a") as file:
        file.write(text)


def run(folder, command, **options):
    """What the command, of a shell, has written; it must succeed."""
    ended = subprocess.run(
        command, shell=True, cwd=folder, env=ENVIRONMENT, text=True, timeout=50,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


def run_code(folder, code):
    """What the code has printed, in a process of the project."""
    begin = "import django; django.setup()\nfrom django.contrib.auth.models import *\n"
    return run(folder, "DJANGO_SETTINGS_MODULE=mysite.settings python -", input=begin + code).strip()


GUNICORN = block(DEPLOYMENT, "gunicorn ").split()
SERVERS = {
    "runserver": (sys.executable, "manage.py", "runserver", "--noreload", "127.0.0.1:0"),
    "gunicorn": (sys.executable, "-m", *GUNICORN, "--bind=127.0.0.1:0", "--workers=1"),
}


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browsing(tmp_path_factory.mktemp("chromium")) as chromium:
        yield chromium


@pytest.fixture(scope="module", params=SERVERS)
def server(request, tmp_path_factory):
    """The README's project under each server."""
    folder = new_project(tmp_path_factory.mktemp(request.param), README)
    with serving(SERVERS[request.param], folder, folder / "log") as served:
        yield served


class Site(NamedTuple):
    """The project of a page, and the server that serves it."""

    folder: Path
    server: processes.Served

    def log_in(self, name, more=""):
        """The cookie of a new user, of whom `more` may be said in code."""
        code = f"""
from django.test import Client
user = User.objects.create_user({name!r}, password="secret")
{more}
client = Client()
client.force_login(user)
print(client.cookies["sessionid"].value)
"""
        return f"sessionid={run_code(self.folder, code)}"

    def connect(self, path, cookie="", origin="", **options):
        origin = origin or self.server.http("")
        return connect(
            self.server.ws(path), origin=origin, additional_headers={"Cookie": cookie} if cookie else {}, **options
        )


@pytest.fixture(scope="module")
def site(request, tmp_path_factory):
    folder = new_project(tmp_path_factory.mktemp("site"), README, request.param)
    run(folder, "python manage.py migrate")
    with serving(SERVERS["runserver"], folder, folder / "log") as served:
        yield Site(folder, served)


def on(page):
    """The test's `site` is the project of that page."""
    return pytest.mark.parametrize("site", [page], indirect=True)


def get(server, path, headers=None):
    with Peer(server.host, server.port) as peer:
        return peer.http(path, {"Connection": "close", **(headers or {})})


def refusal(server, path, headers=None):
    """The HTTP answer of a handshake."""
    with Peer(server.host, server.port) as peer:
        return peer.handshake(path, headers)


def close_code(ws):
    with pytest.raises(ConnectionClosed) as caught:
        ws.recv(timeout=PATIENCE_SECONDS)
    return caught.value.rcvd.code


# The pages themselves


@pytest.mark.parametrize("page", PAGES)
def test_blocks_are_all_run_by_a_test(page):
    code = {line for block in blocks(page) if block.language != "text" for line in claims(block)}
    assert code == set(RUN_BY.get(page, ()))


def claims(block):
    """The lines that have to be run: the first, and of commands each."""
    return block.text.splitlines() if block.language == "sh" else [block.first_line]


def test_tests_that_run_blocks_are_there():
    for test in {test for of_page in RUN_BY.values() for test in of_page.values()}:
        assert (ROOT / test).is_file() if "/" in test else callable(globals().get(test)), test


def test_nginx_is_tested_with_the_block_of_the_page():
    assert blocks(DEPLOYMENT, "nginx")[0].text == DOCUMENTED


@pytest.mark.parametrize("proxy", proxies.KINDS)
def test_other_proxies_are_tested_with_the_block_of_the_page(proxy):
    assert [found.text for found in blocks(DEPLOYMENT, proxy)] == [proxies.KINDS[proxy].documented]


def test_fences_are_all_read():
    for page, text in PAGES.items():
        assert len(re.findall("```|~~~", text)) == 2 * len(blocks(page)), page


def test_views_are_all_used_here():
    tests = Path(__file__).read_text()
    for page in RUN_BY:
        code = "".join(block.text for block in blocks(page) if block.path not in (None, "chat/guards.py"))
        views = set(re.findall(r"path\(.*\b(?:\w*views|api)\.(\w+)", code))
        assert views == set(re.findall(r"^(?:def|class) (\w+)\((?:request\b|.*View\):)", code, re.MULTILINE)), page
        assert {view for view in views if not re.search(rf"def test_{view.lower()}_", tests)} == set(), page


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)(\S+?)\)", PAGES[page]):
        path, _, anchor = target.partition("#")
        file = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file.read_text()), target


def test_pages_that_the_code_names_exist():
    files = [file for folder in ("dwebsocket", "tests", "example_project") for file in (ROOT / folder).rglob("*.py")]
    assert {page for file in files for page in re.findall(r"\bdocs/\w+\.md\b", file.read_text())} <= set(PAGES)


def anchors(text):
    """What a page can be entered at: its headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_commands_are_those_that_ci_runs():
    one_liners = [line for block in blocks(README, "sh") for line in block.text.splitlines() if "python3 " in line]
    assert one_liners == [START, TEST]
    assert f"\n    {TEST}\n" in (ROOT / ".ci/run").read_text()


def test_command_tells_whether_it_is_compiled(tmp_path):
    assert run(tmp_path, block(README, IS_COMPILED)).strip() == str(COMPILED)


def test_settings_table_names_every_setting_with_its_option_and_default():
    rows = re.findall(r"^\| `WEBSOCKET_(\w+)` \| (?:`(\w+)`)? ?\| `([^|]+)` \|", PAGES[SETTINGS], re.MULTILINE)
    options = {setting: option for option, setting in conf.VIEW_OPTIONS.items()}

    assert {setting: option or None for setting, option, _ in rows} == {
        name: options.get(name) for name in conf.SETTINGS
    }
    assert {name: eval(default) for name, _, default in rows} == {name: s.default for name, s in conf.SETTINGS.items()}


def test_settings_that_pages_name_exist():
    known = {f"WEBSOCKET_{name}" for name in conf.SETTINGS} | {"WEBSOCKET_FACTORY_CLASS"}
    for page, text in PAGES.items():
        assert set(re.findall(r"\bWEBSOCKET_[A-Z_]+[A-Z]", text)) <= known, page


def test_names_that_are_exported_are_all_on_a_page():
    words = set(re.findall(r"\w+", "".join(PAGES.values())))
    assert set(dwebsocket.__all__) <= words


def test_checks_are_all_explained():
    explained = re.findall(r"^\| `(dwebsocket\.\w\d{3})` \|", PAGES[SETTINGS], re.MULTILINE)
    assert explained == sorted(set(re.findall(r'id="(.+?)"', (ROOT / "dwebsocket/checks.py").read_text())))


def test_close_codes_of_exceptions_are_those_of_the_table():
    kinds = (Http404, PermissionDenied, BadRequest, SuspiciousOperation, dwebsocket.GroupsUnavailable)
    table = dict(re.findall(r"^\| raises `(\w+)` \|.*\| (\d+) \|$", PAGES[DJANGO], re.MULTILINE))
    assert {name: int(code) for name, code in table.items()} == {kind.__name__: close_for(kind())[0] for kind in kinds}


# README


def test_echo_page_is_served_and_its_websocket_echoes(server):
    page = get(server, "/echo/")
    assert page.status == 200
    assert page.body.decode() == blocks(README, "html")[0].text
    with connect(server.ws("/echo/"), origin=server.http("")) as ws:
        ws.send("text")
        assert ws.recv(timeout=10) == "text"
        ws.send(b"binary")
        assert ws.recv(timeout=10) == b"binary"


def test_echo_page_works_in_a_browser(server, chromium):
    chromium.get(server.http("/echo/"))
    until_log_shows(chromium, "open")
    chromium.find_element("id", "message").send_keys("hello\n")
    until_log_shows(chromium, "hello")


def until_log_shows(browser, text):
    WebDriverWait(browser, PATIENCE_SECONDS).until(lambda browser: text in browser.find_element("id", "log").text)


def test_echo_once_closes_and_tells_plain_http_what_it_expects(server):
    with connect(server.ws("/echo-once/")) as ws:
        ws.send("once")
        assert ws.recv(timeout=10) == "once"
        assert close_code(ws) == 1000
    answer = get(server, "/echo-once/")
    assert answer.status == 426
    assert b"expects a WebSocket" in answer.body


def test_tests_of_the_readme_pass(tmp_path):
    folder = new_project(tmp_path, README)
    assert f"Ran {count_tests(README, indent=4)} test" in run(folder, "python manage.py test")
    fixture = "python -m pytest --ds=mysite.settings chat/test_echo.py"
    assert f"{count_tests(README, indent=0)} passed" in run(folder, fixture)


def count_tests(*pages, indent):
    """How many tests the blocks of the pages have: of classes indented by 4, the others by 0."""
    code = "".join(block.text for page in pages for block in blocks(page, "python"))
    return len(re.findall(rf"^ {{{indent}}}def test_", code, re.MULTILINE))


def test_subprotocol_is_negotiated_and_the_size_is_limited(server):
    with connect(server.ws("/subprotocol/"), subprotocols=["chat.v1", "chat.v2"]) as ws:
        assert ws.subprotocol == "chat.v2"
        assert ws.recv(timeout=10) == "we speak chat.v2"
        ws.send("x" * (64 * 1024 + 1))
        assert close_code(ws) == 1009


def test_shout_is_a_class(server):
    assert get(server, "/shout/").status == 200
    with connect(server.ws("/shout/")) as ws:
        ws.send("quiet")
        assert ws.recv(timeout=10) == "QUIET"


def test_clock_pushes(server):
    with connect(server.ws("/clock/")) as ws:
        for _ in range(2):
            assert re.fullmatch(r"\d\d:\d\d:\d\d", ws.recv(timeout=10))


def test_members_sends_strangers_to_the_login_page(server):
    answer = refusal(server, "/members/")
    assert answer.status == 302
    assert answer.headers["location"] == "/accounts/login/?next=/members/"


def test_staff_is_refused_with_403(server):
    answer = refusal(server, "/staff/")
    assert answer.status == 403
    assert answer.body == b"staff only"


def test_chat_reaches_the_others(server):
    with connect(server.ws("/chat/blue/")) as one, connect(server.ws("/chat/blue/")) as other:
        one.send("first")
        assert one.recv(timeout=10) == "first"
        other.send("second")
        assert one.recv(timeout=10) == "second"


def test_screen_only_listens(server):
    with connect(server.ws("/screen/wide/")) as screen, connect(server.ws("/chat/wide/")) as talker:
        screen.send("this is dropped")
        wait_until_heard(screen, lambda: talker.send("look"), "look")
        screen.close(4000)
        assert screen.close_code == 4000


def wait_until_heard(ws, send, message):
    """The view of `ws` may not have joined yet, and says nothing when it has: send until it hears."""
    for _ in range(50):
        send()
        with suppress(TimeoutError):
            assert ws.recv(timeout=PATIENCE_SECONDS / 50) == message
            return
    raise AssertionError(f"{message} did not come")


def test_hall_gives_a_page_that_comes_back_what_it_has_missed(server):
    with connect(server.ws("/hall/blue/")) as ws:
        joined = json.loads(ws.recv(timeout=10))
        assert joined == {"g": "hall:blue", "p": joined["p"], "joined": None}
    with connect(server.ws(f"/hall/blue/?since={joined['p']}:hall:blue")) as ws:
        assert json.loads(ws.recv(timeout=10))["joined"] is True
        assert json.loads(ws.recv(timeout=10))["d"] == "AnonymousUser comes"
        ws.send("hello")
        assert json.loads(ws.recv(timeout=10))["d"] == "hello"


def test_foreign_origin_is_refused(server):
    assert refusal(server, "/echo/", {"Origin": "https://elsewhere.example"}).status == 403


# docs/deployment.md


@contextmanager
def started(folder, command, *pages):
    """The project of the pages, served by the command and seen to echo."""
    with serving(command, new_project(folder, README, *pages), folder / "log") as served:
        assert get(served, "/echo/").status == 200
        with connect(served.ws("/echo/")) as ws:
            ws.send("text")
            assert ws.recv(timeout=PATIENCE_SECONDS) == "text"
        yield served


def test_script_for_gevent_serves(tmp_path):
    before, serve, after = block(DEPLOYMENT, "# serve.py").replace("8000", "0").partition("server.serve_forever()")
    say = 'server.start()\nprint(f"http://127.0.0.1:{server.server_port}/", flush=True)\n'
    (tmp_path / "told.py").write_text(before + say + serve + after)
    with started(tmp_path, (sys.executable, "told.py")):
        pass


def test_script_for_cheroot_serves(tmp_path):
    script = block(DEPLOYMENT, "# serve_cheroot.py").replace("8000", "0")
    say = 'server.prepare()\n    print(f"http://127.0.0.1:{server.bind_addr[1]}/", flush=True)\n    server.serve()'
    assert script.count("server.start()") == 1  # which is prepare() and serve()
    quiet = "import sys\nsys.unraisablehook = lambda unraisable: None\n"  # on Python 3.13 it is noisy, as the page says
    (tmp_path / "told.py").write_text(quiet + script.replace("server.start()", say))
    with started(tmp_path, (sys.executable, "told.py")):
        pass


def test_configuration_of_uwsgi_serves(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "ADDRESS", servers.ADDRESS)  # it has its own way to say where it listens
    (tmp_path / "told.ini").write_text(block(DEPLOYMENT, "# uwsgi.ini").replace("8000", "0"))
    with started(tmp_path, (sys.executable, "-c", "import pyuwsgi; pyuwsgi.run(['told.ini'])")):
        pass


def test_gunicorn_tells_attached_views_to_end(tmp_path):
    new_project(tmp_path, README)
    add(tmp_path, "mysite/settings.py", "WEBSOCKET_DETACH = False\n")
    add(tmp_path, "gunicorn.conf.py", block(DEPLOYMENT, "# gunicorn.conf.py"))
    with (
        serving(SERVERS["gunicorn"], tmp_path, tmp_path / "log") as served,
        connect(served.ws("/echo/")) as ws,
    ):
        served.stop()
        assert close_code(ws) == 1012


@on(DEPLOYMENT)
def test_line_in_the_log_is_as_shown(site):
    with site.connect("/echo/") as ws:
        ws.send("hello")
        assert ws.recv(timeout=10) == "hello"
    (shown,) = blocks(DEPLOYMENT, "text")
    expected = re.escape(shown.text.strip()).replace(re.escape("0.013"), r"\d+\.\d{3}")
    until(lambda: re.search(rf"^{expected}$", site.server.log(), re.MULTILINE))


def test_logs_of_django_are_shown_when_debug_is_off(tmp_path):
    folder = new_project(tmp_path, README, DEPLOYMENT)
    add(folder, "mysite/settings.py", "DEBUG = False\n")
    logs = ["django.request", "django.security.WebSocketOrigin", "django.dispatch"]
    code = f"import logging\nfor name in {logs}: logging.getLogger(name).warning(name)"
    assert run_code(folder, code).splitlines() == logs


def until(condition):
    WebDriverWait(None, PATIENCE_SECONDS, poll_frequency=0.02).until(lambda _: condition())


@on(DEPLOYMENT)
def test_who_lists_what_is_open(site):
    cookie = site.log_in("anna")
    with site.connect("/clock/", cookie) as ws:
        ws.recv(timeout=10)
        ((path, user, messages),) = json.loads(get(site.server, "/who/").body)["open"]
    assert (path, user) == ("/clock/", "")  # nobody has asked who it is
    assert messages >= 1


@on(DEPLOYMENT)
def test_doctor_finds_nothing_wrong(site):
    command = block(DEPLOYMENT, "python manage.py websocket_doctor").strip()
    out = run(site.folder, command.replace("8000", str(site.server.port)) + " --idle=1")
    assert out.endswith("Nothing is wrong.\n")


@on(DEPLOYMENT)
def test_line_by_hand_comes_back(site):
    command = block(DEPLOYMENT, "echo hello").strip()
    assert "hello\n" in run(site.folder, command.replace("8000", str(site.server.port)))


# docs/compatibility.md


@on(COMPATIBILITY)
@pytest.mark.parametrize(
    ("header", "address"),
    [("203.0.113.7", "203.0.113.7"), ("10.0.0.1, 203.0.113.8", "203.0.113.8"), (None, "127.0.0.1")],
)
def test_address_in_the_log_is_the_last_that_a_proxy_has_seen(site, header, address):
    headers = {"X-Forwarded-For": header} if header else {}
    with connect(site.server.ws("/echo/"), additional_headers=headers) as ws:
        ws.send("hello")
        assert ws.recv(timeout=10) == "hello"
    until(lambda: re.search(rf"^/echo/ - {address} .* closed 1000$", site.server.log(), re.MULTILINE))


# docs/django.md


@on(DJANGO)
def test_lookup_finds_users_and_closes_with_4404_at_others(site):
    site.log_in("bert")
    with site.connect("/lookup/") as ws:
        ws.send("bert")
        assert isinstance(json.loads(ws.recv(timeout=10))["id"], int)
        ws.send("nobody")
        assert close_code(ws) == 4404


@on(DJANGO)
def test_cached_page_does_not_stand_in_the_way_of_the_websocket(site):
    for _ in range(2):
        assert get(site.server, "/cached/").body == b"the page"
        with site.connect("/cached/") as ws:
            ws.send("text")
            assert ws.recv(timeout=10) == "text"


@on(DJANGO)
def test_by_loop_counts_what_is_said(site):
    assert_counts(site, "/by-loop/one/")


@on(DJANGO)
def test_byclass_counts_what_is_said(site):
    assert_counts(site, "/by-class/two/")


@on(DJANGO)
def test_by_functions_counts_what_is_said(site):
    assert_counts(site, "/by-functions/three/")


def assert_counts(site, path):
    """The three shapes do the same: each page has its own numbers, and hears those of the others."""
    with site.connect(path) as one, site.connect(path) as other:
        for ws, message in ((one, "1: a"), (other, "1: b"), (one, "2: c")):
            ws.send(message[-1])
            wait_for(ws, message)
        wait_for(other, "2: c")


def wait_for(ws, message):
    """The others are heard as well, once the view has joined."""
    while ws.recv(timeout=10) != message:
        pass


@on(DJANGO)
def test_counter_hears_the_page_and_the_group_and_says_that_it_has_ended(site):
    with site.connect("/chat/four/") as listener:
        listener.send("x")
        assert listener.recv(timeout=10) == "x"  # it has joined
        with site.connect("/counter/four/") as ws:
            ws.send("from the page")
            assert ws.recv(timeout=10) == "heard 1"
            listener.send("from the group")
            assert ws.recv(timeout=10) == "heard 2"
            ws.close(4001)
        assert [listener.recv(timeout=10) for _ in range(2)] == ["from the group", "one has left after 2: 4001"]


@on(DJANGO)
def test_quiz_waits_for_the_page_in_its_method(site):
    with site.connect("/quiz/") as ws:
        ws.send("42")
        assert ws.recv(timeout=10) == "42? Are you sure?"
        ws.send("yes")
        assert ws.recv(timeout=10) == "noted"


@on(DJANGO)
def test_room_is_left_by_a_word_and_is_told_so(site):
    assert refusal(site.server, "/room/blue/").status == 302
    with site.connect("/room/blue/", site.log_in("carl")) as ws:
        assert ws.recv(timeout=10) == "hello carl, this is blue"
        ws.send("any")
        assert ws.recv(timeout=10) == "any"
        ws.send("bye")
        assert close_code(ws) == 4000
    until(lambda: "blue was left: 4000" in site.server.log())
    assert get(site.server, "/room/blue/").status == 426


@on(DJANGO)
def test_updates_authenticates_as_rest_framework_does(site):
    site.log_in("dora")
    basic = {"Authorization": f"Basic {base64.b64encode(b'dora:secret').decode()}"}
    assert refusal(site.server, "/updates/").status in (401, 403)
    assert json.loads(get(site.server, "/updates/", basic).body) == {"user": "dora"}
    with connect(site.server.ws("/updates/"), additional_headers=basic) as ws:
        assert json.loads(ws.recv(timeout=10)) == {"user": "dora"}
        assert close_code(ws) == 1000


@on(DJANGO)
def test_counts_are_those_of_the_signals(site):
    with site.connect("/echo-once/") as ws:
        ws.send("once")
        assert ws.recv(timeout=10) == "once"
    until(lambda: counts(site).get("closed /echo-once/ 1000") == 1)
    assert counts(site)["opened /echo-once/"] == 1


def counts(site):
    return json.loads(get(site.server, "/counts/").body)


@on(DJANGO)
def test_typed_view_is_a_view(site):
    with site.connect("/typed/") as ws:
        assert ws.recv(timeout=10) == "/typed/"


# docs/groups.md


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    with RedisServer(tmp_path_factory.mktemp("redis")) as started:
        yield started


@pytest.fixture(scope="module")
def groups_site(redis, tmp_path_factory):
    """The project of the pages about groups, with the Redis of the tests."""
    folder = new_project(tmp_path_factory.mktemp("groups"), README, REDIS_PAGE, GROUPS, HISTORY, PRESENCE)
    add(folder, "mysite/settings.py", use(redis.url))
    add(folder, "celery.py", "def shared_task(function):\n    return function\n")  # all that the block needs of it
    run(folder, "python manage.py makemigrations chat && python manage.py migrate")
    with serving(SERVERS["runserver"], folder, folder / "log") as served:
        yield Site(folder, served)


def use(url):
    return f'WEBSOCKET_GROUPS["default"]["LOCATION"] = {url!r}\n'


@contextmanager
def joined(site, path, cookie="", says="hello"):
    """A WebSocket whose view has joined its groups: it has answered."""
    with site.connect(path, cookie) as ws:
        ws.send(says)
        assert ws.recv(timeout=PATIENCE_SECONDS)
        yield ws


def post(site, path, **data):
    """What a view of the page does in another process."""
    run_code(
        site.folder,
        f"from django.test import Client\nprint(Client(SERVER_NAME='127.0.0.1').post({path!r}, {data!r}).status_code)",
    )


@needs_redis
def test_talk_reaches_all_tabs_and_the_other_user(groups_site):
    anna, bert = groups_site.log_in("anna"), groups_site.log_in("bert")
    with joined(groups_site, "/talk/blue/", anna) as one, joined(groups_site, "/talk/blue/", bert) as other:
        assert json.loads(one.recv(timeout=10)) == {"who": "bert", "text": "hello"}
        one.send("hi")
        for ws in (one, other):
            assert json.loads(ws.recv(timeout=10)) == {"who": "anna", "text": "hi"}


@needs_redis
def test_notices_reach_a_page_whose_view_has_ended(groups_site):
    with groups_site.connect("/notices/", groups_site.log_in("ida")) as ws:
        tell = "from dwebsocket import user_group\nuser_group(User.objects.get(username='ida')).send('ready')"
        wait_until_heard(ws, lambda: run_code(groups_site.folder, tell), "ready")


@needs_redis
def test_announce_reaches_the_room_from_another_process(groups_site):
    with joined(groups_site, "/talk/red/", groups_site.log_in("carl")) as ws:
        post(groups_site, "/announce/red/", text="soon")
        assert json.loads(ws.recv(timeout=10)) == {"notice": "soon"}


@needs_redis
def test_ship_tells_the_customer_when_the_order_has_been_saved(groups_site):
    with joined(groups_site, "/talk/green/", groups_site.log_in("dora")) as ws:
        make = "from chat.models import Order\nuser = User.objects.get(username='dora')\n"
        pk = int(run_code(groups_site.folder, f"{make}print(Order.objects.create(customer=user).pk)"))
        assert json.loads(ws.recv(timeout=10)) == {"order": pk, "state": "new"}
        post(groups_site, f"/ship/{pk}/")
        assert json.loads(ws.recv(timeout=10)) == {"order": pk, "state": "shipped"}


@needs_redis
def test_task_and_command_tell_from_another_process(groups_site):
    with joined(groups_site, "/talk/grey/", groups_site.log_in("emma")) as ws:
        run_code(groups_site.folder, "from chat.tasks import export\nexport(User.objects.get(username='emma').pk)")
        assert json.loads(ws.recv(timeout=10)) == {"export": "ready"}
        run(groups_site.folder, block(GROUPS, "python manage.py notice"))
        assert json.loads(ws.recv(timeout=10)) == {"notice": "We restart at six."}


@needs_redis
def test_board_translates(groups_site):
    with groups_site.connect("/board/blue/") as ws:
        ws.send("<b>")
        assert ws.recv(timeout=PATIENCE_SECONDS) == "<li>&lt;b&gt;</li>"


@needs_redis
def test_inbox_counts_what_it_gets(groups_site):
    with joined(groups_site, "/inbox/black/", says="read") as ws:
        post(groups_site, "/announce/black/", text="one")
        assert json.loads(ws.recv(timeout=10)) == {"unread": 1}


@needs_redis
def test_desk_gets_messages_in_a_method(groups_site):
    with groups_site.connect("/desk/blue/") as ws:
        ws.send("hello")
        assert ws.recv(timeout=PATIENCE_SECONDS) == "room:blue: hello"


@needs_redis
def test_ticker_shows_the_price(groups_site):
    with groups_site.connect("/ticker/") as ws:
        assert json.loads(ws.recv(timeout=PATIENCE_SECONDS)) == {"EUR": 1.08}


@needs_redis
def test_actions_of_the_admin_close(groups_site):
    act = """
from chat.admin import OrderAdmin, admin
from chat.models import Order
orders = [Order.objects.create(customer=User.objects.get(username={name!r}))]
OrderAdmin(Order, admin.site).{action}(None, orders)
"""
    cookie = groups_site.log_in("fred")
    with joined(groups_site, "/talk/blue/", cookie) as ws:
        run_code(groups_site.folder, act.format(name="fred", action="throw_out"))
        with pytest.raises(ConnectionClosed) as caught:
            while True:  # the signal may have told him of his order before
                ws.recv(timeout=PATIENCE_SECONDS)
        assert caught.value.rcvd.code == 4403
    ask = "from chat.models import Order\nprint(Order.objects.order_by('pk').last().pk + 1)"
    with joined(groups_site, f"/board/{run_code(groups_site.folder, ask)}/") as ws:
        run_code(groups_site.folder, act.format(name="fred", action="close_rooms"))
        assert close_code(ws) == 4000


@needs_redis
def test_logout_closes_at_once(groups_site):
    cookie = groups_site.log_in("gerd")
    with joined(groups_site, "/talk/blue/", cookie) as ws:
        code = (
            f"from django.test import Client\nclient = Client(SERVER_NAME='127.0.0.1')\nkey = {cookie!r}.split('=')[1]"
        )
        run_code(groups_site.folder, f"{code}\nclient.cookies['sessionid'] = key\nclient.logout()")
        assert close_code(ws) == 4401


@needs_redis
def test_pages_come_back_after_an_outage(groups_site):
    code = """
from dwebsocket import groups_interrupted
from dwebsocket.test import WebSocketClient
with WebSocketClient(SERVER_NAME="127.0.0.1").websocket("/desk/white/") as ws:
    ws.send("hello")
    ws.receive()
    groups_interrupted.send(None, alias="default", seconds=1.0)
    print(list(ws), ws.close_code)
"""
    assert run_code(groups_site.folder, code) == "[] 1012"


# docs/redis.md

#: Code, and what it prints: of messages, of a history, of presence. So are the rights in the lines of the page.
PARTS = (
    (
        """
with client.websocket("/chat/blue/") as ws:
    ws.send("hello")
    print(ws.receive())
    rooms["blue"].send("once", once="a")
    print(ws.receive())
""",
        "hello once",
    ),
    (
        """
position = topics["blue"].send_json({"id": 0, "text": "first"})
topics["blue"].send_json({"id": 0, "text": "missed"}, once="b")
with client.websocket(f"/topic/blue/?since={position}:topic:blue") as ws:
    print(ws.receive_json()["joined"], ws.receive_json()["d"][-8:-2], len(topics["blue"].history(since=position)))
topics["blue"].clear()
print(topics["blue"].history())
""",
        "True missed 1 []",
    ),
    (
        """
client.force_login(User.objects.get_or_create(username="ida")[0])
with client.websocket("/lobby/blue/") as ws:
    print(ws.receive_json()["here"][0]["info"]["name"], lobbies["blue"].count(users=True))
""",
        "ida 1",
    ),
)


def in_settings(**values):
    return "\n".join(f'settings.WEBSOCKET_GROUPS["default"][{name!r}] = {value!r}' for name, value in values.items())


def does(site, parts, **values):
    """Whether the parts print what they should, where the settings have these values."""
    begin = f"""
from django.conf import settings
{in_settings(**values)}
from chat.groups import lobbies, rooms, topics
from dwebsocket.test import WebSocketClient
client = WebSocketClient(SERVER_NAME="127.0.0.1")
"""
    printed = run_code(site.folder, begin + "".join(PARTS[part][0] for part in parts))
    print(printed)  # for the report of a test that fails
    return " ".join(printed.split()) == " ".join(PARTS[part][1] for part in parts)


def rights():
    """The lines of the page, as a server is told them when it starts: the user, then the rights of each line."""
    first, *others = (line.removeprefix("ACL SETUSER shop ") for line in block(REDIS_PAGE, "ACL SETUSER").splitlines())
    return "shop", first, *others


def test_rights_of_the_page_are_those_of_the_log():
    assert set(" ".join(rights()).split()) >= set(faults.RIGHTS.split())


@needs_redis
@pytest.mark.parametrize("lines", [[0], [0, 1], [0, 2], [0, 1, 2]])
def test_user_with_the_rights_of_the_page_does_all_that_they_are_for(groups_site, tmp_path, lines):
    user, *given = rights()
    with RedisServer(tmp_path, users=[" ".join([user, *(given[line] for line in lines)])]) as strict:
        assert does(groups_site, lines, LOCATION=f"redis://shop:secret@127.0.0.1:{strict.port}/1")


@needs_redis
@pytest.mark.parametrize("line", [1, 2])
def test_right_that_is_missing_is_named(groups_site, tmp_path, line):
    user, first, *_ = rights()
    with RedisServer(tmp_path, users=[f"{user} {first}"]) as strict, pytest.raises(AssertionError) as caught:
        does(groups_site, [line], LOCATION=f"redis://shop:secret@127.0.0.1:{strict.port}/1")
    assert f"lacks a command: give it {faults.RIGHTS}" in str(caught.value)


def keys_of(page, beginning):
    """The keys of WEBSOCKET_GROUPS that a block of the page shows."""
    return eval(f"{{{block(page, beginning)}}}")


@needs_redis
def test_sentinels_of_the_page_lead_to_the_server(groups_site, tmp_path):
    keys = keys_of(REDIS_PAGE, LOCATION_OF_SENTINELS)
    of_sentinel = keys["OPTIONS"]["sentinel_kwargs"]
    watcher = f"{of_sentinel['username']} on >{of_sentinel['password']} +sentinel|master"
    with ExitStack() as stack:
        primary = stack.enter_context(RedisServer(tmp_path, users=["user on >password ~* &* +@all"]))
        for name in ("one", "two", "three"):
            sentinel = stack.enter_context(SentinelServer(tmp_path, primary, users=[watcher]))
            keys["LOCATION"] = keys["LOCATION"].replace(f"{name}:26379", f"127.0.0.1:{sentinel.port}")
        assert does(groups_site, [0, 1, 2], **{**keys, "LOCATION": keys["LOCATION"].replace("mymaster", "shop")})


@needs_redis
def test_servers_of_the_page_share_the_groups(groups_site, tmp_path):
    (keys,) = keys_of(REDIS_PAGE, LOCATION_OF_SEVERAL).values()
    with ExitStack() as stack:
        started = [stack.enter_context(RedisServer(tmp_path)) for _ in keys]
        settings = {"LOCATION": [one.url for one in started]}
        assert does(groups_site, [0, 1, 2], **settings)
        fill = "from chat.groups import topics\nfor number in range(30): topics[number].send('x')"
        run_code(groups_site.folder, f"from django.conf import settings\n{in_settings(**settings)}\n{fill}")
        for one in started:
            with one.client() as client:
                assert client.keys("dws:s:topic:*")


@needs_redis
def test_keys_are_stored_as_the_page_says(groups_site, tmp_path):
    rows = re.findall(r"^\| `(dws:[^`]+)` \|", PAGES[REDIS_PAGE], re.MULTILINE)
    patterns = [re.escape(row).replace("GROUP", ".+").replace("…", ".+") for row in rows]
    code = """
from chat.groups import lobbies, topics
from dwebsocket.test import WebSocketClient
client = WebSocketClient(SERVER_NAME="127.0.0.1")
client.force_login(User.objects.get_or_create(username="jim")[0])
for number in range(100): topics["sizes"].send("x" * 200)
topics["sizes"].send("y", once="c")
with client.websocket("/lobby/sizes/") as ws:
    ws.receive()
    from django.conf import settings
    import redis
    server = redis.Redis.from_url(settings.WEBSOCKET_GROUPS["default"]["LOCATION"])
    print({key.decode(): (server.ttl(key), server.memory_usage(key, samples=0)) for key in server.keys()})
"""
    with RedisServer(tmp_path) as empty:
        location = f"from django.conf import settings\n{in_settings(LOCATION=empty.url)}"
        found = eval(run_code(groups_site.folder, f"{location}\n{code}"))

    assert {pattern: [key for key in found if re.fullmatch(pattern, key)] for pattern in patterns} == {
        pattern: AnyList() for pattern in patterns
    }
    assert not [key for key in found if not any(re.fullmatch(pattern, key) for pattern in patterns)]
    seconds, size = found["dws:s:topic:sizes"]
    assert 200 < seconds <= 300
    assert 20_000 < size < 40_000
    assert 2_500_000 < found["dws:m:topic:sizes"][0] <= 2_592_000


class AnyList(list):
    """Equals every list that is not empty."""

    def __eq__(self, other):
        return isinstance(other, list) and bool(other)

    __hash__ = None


def test_keys_of_groups_are_all_on_the_page_with_their_defaults():
    rows = re.findall(r"^\| `([A-Z_]+)` \| `([^|]+)` \|", PAGES[REDIS_PAGE], re.MULTILINE)
    assert {name: eval(default) for name, default in rows} == {"BACKEND": config.LOCAL, **config.DEFAULTS}


# docs/history.md


def texts(ws, count):
    return [json.loads(ws.recv(timeout=PATIENCE_SECONDS)) for _ in range(count)]


def shown_lines(browser):
    return browser.execute_script("return [...document.querySelectorAll('li')].map(line => line.textContent)")


@needs_redis
def test_topic_recovers_what_was_sent_meanwhile(groups_site):
    with groups_site.connect("/topic/blue/") as ws:
        (joined,) = texts(ws, 1)
        assert joined == {"g": "topic:blue", "p": joined["p"], "joined": None}
        ws.send("one")
        (one,) = texts(ws, 1)
        assert list(one) == ["g", "p", "d"]
        assert json.loads(one["d"])["text"] == "one"
    sent = "topics['blue'].send('two'), topics['blue'].send(b'\\x00\\x01\\x02')"
    two, three = eval(run_code(groups_site.folder, f"from chat.groups import topics\nprint([{sent}])"))
    with groups_site.connect(f"/topic/blue/?since={one['p']}%3Atopic%3Ablue&since=nonsense:topic:red") as ws:
        assert texts(ws, 3) == [
            {"g": "topic:blue", "p": one["p"], "joined": True},
            {"g": "topic:blue", "p": two, "d": "two"},
            {"g": "topic:blue", "p": three, "b": "AAEC"},
        ]
    with groups_site.connect("/topic/blue/?since=nonsense:topic:blue") as ws:
        assert texts(ws, 1) == [{"g": "topic:blue", "p": three, "joined": False}]
    with groups_site.connect("/topic/blue/?since=start:topic:blue") as ws:
        joined, *kept = texts(ws, 4)
        assert joined["joined"] is None
        assert [text["p"] for text in kept] == [one["p"], two, three]


@needs_redis
def test_topic_that_was_cleared_cannot_be_recovered(groups_site):
    code = "from chat.groups import topics\ntopic = topics['grey']\nposition = topic.send('x')\n"
    position = run_code(groups_site.folder, f"{code}topic.clear()\nprint(position)")
    with groups_site.connect(f"/topic/grey/?since={position}:topic:grey") as ws:
        assert texts(ws, 1)[0]["joined"] is False


@needs_redis
def test_topic_comes_back_in_a_browser_and_shows_each_line_once(groups_site, chromium):
    def lines():
        return shown_lines(chromium)

    def wait_for(*expected):
        WebDriverWait(chromium, PATIENCE_SECONDS).until(lambda browser: lines() == list(expected))

    def add_line(text):
        run_code(
            groups_site.folder,
            "from chat.groups import topics\nfrom chat.models import Line\n"
            f"line = Line.objects.create(topic='white', text={text!r})\n"
            "topics['white'].send_json({'id': line.pk, 'text': line.text})",
        )

    add_line("old")
    chromium.get(groups_site.server.http("/topic/white/"))
    wait_for("old")
    chromium.find_element("id", "text").send_keys("mine\n")
    wait_for("old", "mine")
    # Away: nothing opens until the missed line is there.
    chromium.execute_script("window.mark = 1; window.was = connect; connect = () => {}; ws.close()")
    add_line("missed")
    assert lines() == ["old", "mine"]
    chromium.execute_script("connect = was; delay = 1; connect()")
    wait_for("old", "mine", "missed")
    run_code(groups_site.folder, "from chat.groups import topics\ntopics['white'].send_json({'id': 0, 'text': 'live'})")
    wait_for("old", "mine", "missed", "live")
    assert chromium.execute_script("return window.mark") == 1  # it was not loaded again
    run_code(groups_site.folder, "from chat.groups import topics\ntopics['white'].clear()")
    chromium.execute_script("ws.close()")
    wait_for("old", "mine", "missed")
    assert chromium.execute_script("return window.mark") is None


@needs_redis
def test_follow_gets_everything_behind_a_position(groups_site):
    send = "from chat.groups import topics\nfor n in {numbers}: topics['green'].send_json(n)"
    run_code(groups_site.folder, send.format(numbers=[1, 2]))
    with groups_site.connect("/follow/green/") as ws:
        assert [text["line"] for text in texts(ws, 2)] == [1, 2]
        run_code(groups_site.folder, send.format(numbers=[3]))
        (third,) = texts(ws, 1)
    run_code(groups_site.folder, send.format(numbers=[4, 5]))
    with groups_site.connect(f"/follow/green/?after={third['after']}") as ws:
        assert [text["line"] for text in texts(ws, 2)] == [4, 5]
    with groups_site.connect("/follow/green/?after=nonsense") as ws:
        assert texts(ws, 1) == [{"reload": True}]


@needs_redis
def test_recent_is_read_without_a_websocket(groups_site):
    send = "from chat.groups import topics\nfor n in range(12): topics['black'].send_json(n)"
    run_code(groups_site.folder, send)
    lines = json.loads(get(groups_site.server, "/recent/black/").body)["lines"]
    assert [line["line"] for line in lines] == list(range(2, 12))
    later = json.loads(get(groups_site.server, f"/recent/black/?after={lines[7]['after']}").body)["lines"]
    assert later == lines[8:]
    assert get(groups_site.server, "/recent/black/?after=nonsense").status == 400
    old = lines[0]["after"].replace("-", "0-")
    assert json.loads(get(groups_site.server, f"/recent/black/?after={old}").body) == {"reload": True}


@needs_redis
def test_gap_closes_a_page_that_cannot_be_told(groups_site, tmp_path):
    code = """
from django.conf import settings
settings.WEBSOCKET_GROUPS["default"]["LOCATION"] = {url!r}
from chat.groups import topics
from dwebsocket.test import WebSocketClient
client = WebSocketClient(SERVER_NAME="127.0.0.1", websocket_timeout=20)
with client.websocket("/topic/blue/", timeout=20) as ws, client.websocket("/plain/", timeout=20) as plain:
    print(ws.receive_json()["joined"])
    plain.receive()
    import redis
    redis.Redis.from_url({url!r}).flushall()
    topics["blue"].send("behind")
    print(ws.receive_json()["gap"], ws.receive_json()["d"], list(plain), plain.close_code, plain.close_reason)
"""
    plain = """
from django.urls import path
from mysite.urls import urlpatterns
from chat.groups import topics
from dwebsocket import require_websocket
@require_websocket
def plain(request):
    request.websocket.join(topics["blue"])
    request.websocket.send("in")
    request.websocket.wait()
urlpatterns.append(path("plain/", plain))
"""
    with RedisServer(tmp_path) as other:
        said = run_code(groups_site.folder, code.format(url=other.url).replace("client =", f"{plain}client ="))
    assert "True behind [] 1012 messages are missing" in said.splitlines()
    assert "'topic:blue'" in said  # the warning in the log


# docs/presence.md


@needs_redis
def test_lobby_shows_who_comes_and_goes(groups_site):
    anna, bert = groups_site.log_in("lena"), groups_site.log_in("milo")
    with groups_site.connect("/lobby/blue/", anna) as ws:
        (here,) = texts(ws, 1)
        assert here == {"g": "lobby:blue", "here": [{"id": here["here"][0]["id"], "info": {"name": "lena"}}]}
        with groups_site.connect("/lobby/blue/", bert) as other, groups_site.connect("/lobby/blue/", bert) as tab:
            both = [texts(ws, 1)[0]["here"] for ws in (other, tab)]
            (came,) = texts(ws, 1)
            assert [one["info"]["name"] for one in came["came"]] == ["milo"]
            assert came["went"] == []
            assert all(here["here"][0] in one for one in both)
            answer = json.loads(get(groups_site.server, "/who/blue/", {"Cookie": bert}).body)
            assert answer == {"here": ["lena", "milo"], "tabs": 3, "is_online": True}
        (went,) = texts(ws, 1)
        assert went == {"g": "lobby:blue", "came": [], "went": [came["came"][0]["id"]]}


@needs_redis
def test_presence_ends_and_changes_as_the_page_says(groups_site):
    code = """
import threading
import time
from django.urls import path
from mysite.urls import urlpatterns
from chat.groups import lobbies
from dwebsocket import group_presence_changed, require_websocket
from dwebsocket.test import WebSocketClient
told, group = [], lobbies["again"]
is_told = threading.Event()
@require_websocket
def again(request):
    ws = request.websocket
    ws.join(group, presence=True)
    for message in ws:
        if message == "leave":
            ws.leave(group)
            while group.count():  # the view does not wait for Redis
                time.sleep(0.01)
        else:
            ws.join(group, presence={"is": message})
        ws.send_json([group.count(), [member.info for member in group.members()]])
def note(group, joined, left, **about):
    told.append([len(joined), len(left)])
    if left: is_told.set()
group_presence_changed.connect(note)
urlpatterns.append(path("again/", again))
with WebSocketClient(SERVER_NAME="127.0.0.1").websocket("/again/") as ws:
    for message in ("away", "typing", "leave"):
        ws.send(message)
        print(ws.receive_json())
is_told.wait(10)
print(told)
"""
    assert run_code(groups_site.folder, code).splitlines() == [
        "[1, [{'is': 'away'}]]",
        "[1, [{'is': 'typing'}]]",
        "[0, []]",
        "[[1, 0], [0, 1]]",
    ]


@needs_redis
def test_who_is_offline_is_not_online(groups_site):
    answer = json.loads(get(groups_site.server, "/who/empty/", {"Cookie": groups_site.log_in("nils")}).body)
    assert answer == {"here": [], "tabs": 0, "is_online": False}


@needs_redis
def test_lobby_is_shown_in_a_browser(groups_site, chromium):
    def shows(*names):
        WebDriverWait(chromium, PATIENCE_SECONDS).until(lambda browser: shown_lines(browser) == list(names))

    name, value = groups_site.log_in("olga").split("=")
    chromium.get(groups_site.server.http("/echo/"))
    chromium.add_cookie({"name": name, "value": value})
    chromium.get(groups_site.server.http("/lobby/white/"))
    shows("olga")
    with groups_site.connect("/lobby/white/", groups_site.log_in("paul")):
        shows("olga", "paul")
    shows("olga")


@needs_redis
def test_receiver_is_told_of_a_crash_by_another_process(groups_site):
    crash = """
import os
from dwebsocket.test import WebSocketClient
client = WebSocketClient(SERVER_NAME="127.0.0.1")
client.force_login(User.objects.create_user("rosa"))
with client.websocket("/lobby/grey/") as ws:
    ws.receive()
    print(User.objects.get(username="rosa").pk, flush=True)
    os._exit(0)
"""
    pk = run_code(groups_site.folder, crash)
    with groups_site.connect("/lobby/log/", groups_site.log_in("sven")) as ws:
        texts(ws, 1)
        began = time.monotonic()
        found = []
        while not found:
            found = [text for text in texts(ws, 1) if text.get("left") == "lobby:grey"]
        assert found == [{"left": "lobby:grey", "user": pk}]
        assert time.monotonic() - began < 20  # LEASE, and about one more


@pytest.mark.parametrize("page", [GROUPS, HISTORY, PRESENCE])
def test_page_stands_alone(page, tmp_path):
    folder = new_project(tmp_path, README, page)
    if page == GROUPS:
        add(folder, "celery.py", "def shared_task(function):\n    return function\n")
    assert "no issues" in run(folder, "python manage.py check")


# docs/migration.md


@on(MIGRATION)
def test_old_echo_works_as_it_did(site):
    with site.connect("/old-echo/") as ws:
        ws.send("text")
        assert ws.recv(timeout=10) == "you said text"


@on(MIGRATION)
def test_old_shout_has_the_old_verbs_and_ends(site):
    with site.connect("/old-shout/") as ws:
        ws.send("text")
        assert ws.recv(timeout=10) == "TEXT"


@on(MIGRATION)
def test_presence_is_noted_when_the_user_has_left(site):
    ask = "print(User.objects.get(username='emma').last_login.isoformat())"
    cookie = site.log_in("emma")
    before = run_code(site.folder, ask)
    with site.connect("/presence/blue/", cookie) as ws:
        assert json.loads(ws.recv(timeout=10)) == {"room": "blue", "user": "emma"}
        ws.send('{"any": 1}')
        assert json.loads(ws.recv(timeout=10)) == {"any": 1}
    until(lambda: run_code(site.folder, ask) > before)


# docs/security.md


@on(SECURITY)
def test_origins_that_are_allowed_may_connect(site):
    for origin in ("https://app.example.com", "https://any.example.org"):
        with site.connect("/echo/", origin=origin) as ws:
            ws.send("text")
            assert ws.recv(timeout=10) == "text"
    assert refusal(site.server, "/echo/", {"Origin": "https://elsewhere.example"}).status == 403


@on(SECURITY)
def test_news_end_with_4401_when_the_session_has_ended(site):
    assert get(site.server, "/news/").status == 200
    assert refusal(site.server, "/news/").status == 401
    with site.connect("/news/", site.log_in("fred")) as ws:
        assert ws.recv(timeout=10) == "hello fred"
        end_sessions(site)
        assert close_code(ws) == 4401


def end_sessions(site):
    run_code(site.folder, "from django.contrib.sessions.models import Session; Session.objects.all().delete()")


@on(SECURITY)
def test_page_goes_to_the_login_when_its_session_has_ended(site, chromium):
    name, value = site.log_in("gerd").split("=")
    chromium.get(site.server.http("/echo/"))  # a cookie is set for a page that is there
    chromium.add_cookie({"name": name, "value": value})
    chromium.get(site.server.http("/news/"))
    until_log_shows(chromium, "hello gerd")
    end_sessions(site)
    WebDriverWait(chromium, PATIENCE_SECONDS).until(lambda browser: browser.title == "log in")
    assert chromium.current_url == site.server.http("/accounts/login/?next=/news/")


#: No time passes between two attempts; `delays` has what the page wanted to wait, in milliseconds.
WITHOUT_DELAY = """
  const later = setTimeout, delays = [];
  window.setTimeout = (open, delay) => { delays.push(delay); later(open, 0); };
"""


@on(SECURITY)
def test_page_whose_opening_is_refused_tries_again_ever_later_and_then_no_more(site, chromium):
    script = chromium.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WITHOUT_DELAY})
    try:
        chromium.delete_all_cookies()
        chromium.get(site.server.http("/news/"))
        until_log_shows(chromium, "no connection: reload this page to try again")
        delays = chromium.execute_script("return delays")
    finally:
        chromium.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)
    assert len(delays) == 8
    assert all(1000 * 2**number / 2 <= delay for number, delay in enumerate(delays[:6]))


@on(SECURITY)
def test_users_end_with_4403_when_the_permission_is_taken_away(site):
    assert refusal(site.server, "/users/").status == 401
    assert refusal(site.server, "/users/", {"Cookie": site.log_in("hans")}).status == 403
    permitted = site.log_in("inge", "user.user_permissions.add(Permission.objects.get(codename='view_user'))")
    with site.connect("/users/", permitted) as ws:
        ws.send("text")
        assert ws.recv(timeout=10) == "text"
        run_code(site.folder, "User.objects.get(username='inge').user_permissions.clear()")
        assert close_code(ws) == 4403


@on(SECURITY)
def test_editors_must_be_staff_and_stay_in_their_group(site):
    group = "user.groups.add(Group.objects.get_or_create(name='editors')[0])\n"
    assert refusal(site.server, "/editors/", {"Cookie": site.log_in("jens", group)}).status == 403
    with site.connect("/editors/", site.log_in("kurt", group + "user.is_staff = True; user.save()")) as ws:
        ws.send("text")
        assert ws.recv(timeout=10) == "text"
        run_code(site.folder, "User.objects.get(username='kurt').groups.clear()")
        with pytest.raises(ConnectionClosed) as caught:
            ws.recv(timeout=PATIENCE_SECONDS)
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4403, "not in the group editors")


@on(SECURITY)
def test_ticket_opens_the_feed(site):
    assert get(site.server, "/ticket/").status == 302
    ticket = json.loads(get(site.server, "/ticket/", {"Cookie": site.log_in("lena")}).body)["ticket"]
    with site.connect(f"/feed/?ticket={ticket}", origin="https://app.example.com") as ws:
        assert ws.recv(timeout=10) == "hello lena"


@on(SECURITY)
def test_feed_wants_a_ticket(site):
    answer = refusal(site.server, "/feed/?ticket=forged", {"Origin": "https://app.example.com"})
    assert (answer.status, answer.body) == (403, b"no valid ticket")


# docs/settings.md


@on(SETTINGS)
def test_terse_takes_no_more_than_its_option_says(site):
    with site.connect("/terse/") as ws:
        ws.send("x" * 16)
        assert ws.recv(timeout=10) == "x" * 16
        ws.send("x" * 17)
        assert close_code(ws) == 1009


def test_check_finds_nothing_in_the_project_until_there_is_something(tmp_path):
    folder = new_project(tmp_path, README, SETTINGS)
    command = f"{block(SETTINGS, 'python manage.py check').strip()} || true"  # Django has much to say of a new project
    assert "(dwebsocket." not in run(folder, command)
    add(folder, "mysite/settings.py", 'WEBSOCKET_ALLOWED_ORIGINS = ["*"]\n')
    assert "(dwebsocket.W001)" in run(folder, command)


# docs/testing.md


def test_tests_of_the_page_about_testing_pass(tmp_path):
    folder = new_project(tmp_path, README, TESTING)
    in_classes, others = (count_tests(README, TESTING, indent=indent) for indent in (4, 0))
    assert f"Ran {in_classes} tests " in run(folder, block(TESTING, "python manage.py test"))
    assert f"{in_classes + others} passed" in run(folder, f"python -m {block(TESTING, 'pytest')}")


def test_booth_is_tested_on_its_page():
    assert '"/booth/red/' in "".join(found.text for found in blocks(TESTING, "python") if "BoothTests" in found.text)


def test_rename_is_tested_on_its_page():
    assert '"/rename/"' in block(TESTING, "# chat/test_rename.py")
