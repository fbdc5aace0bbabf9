"""The README is true: its commands are those that CI runs, and its code is put into a new project, served, and used."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from dwebsocket import conf
from tests.peer import Peer
from tests.real.processes import serving
from tests.real.servers import ROOT

README = (ROOT / "README.md").read_text()
START = (
    "python3 -m venv .venv && .venv/bin/pip install -e '.[gevent]'"
    " && .venv/bin/python example_project/manage.py runserver"
)
TEST = "python3 -m venv .venv && .venv/bin/pip install tox && .venv/bin/tox"
MIGRATION = README.index("## Coming from dwebsocket 0.5")


def blocks(language, text=README):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def new_project(folder, text):
    """What `startproject` and `startapp` make, and the code blocks of `text`, each added to the file that it names."""
    for command in (["startproject", "mysite", "."], ["startapp", "chat"]):
        subprocess.run([sys.executable, "-m", "django", *command], cwd=folder, check=True, env={})
    for block in blocks("python", text):
        path = re.match(r"# (\S+\.py)\n", block).group(1)
        with (folder / path).open("a") as file:
            file.write(block)
    (folder / "gunicorn.conf.py").write_text("control_socket_disable = True\n")
    (folder / "chat/templates").mkdir()
    (folder / "chat/templates/echo.html").write_text(blocks("html")[0])
    return folder


GUNICORN = next(line.split() for block in blocks("sh") for line in block.splitlines() if line.startswith("gunicorn "))
SERVERS = {
    "runserver": (sys.executable, "manage.py", "runserver", "--noreload", "127.0.0.1:0"),
    "gunicorn": (sys.executable, "-m", *GUNICORN, "--bind=127.0.0.1:0", "--workers=1"),
}


@pytest.fixture(scope="module", params=SERVERS)
def server(request, tmp_path_factory):
    folder = new_project(tmp_path_factory.mktemp(request.param), README[:MIGRATION])
    with serving(SERVERS[request.param], folder, folder / "log") as served:
        yield served


def get(server, path):
    with Peer(server.host, server.port) as peer:
        return peer.http(path, {"Connection": "close"})


def refusal(server, path, headers=None):
    """The HTTP answer of a handshake."""
    with Peer(server.host, server.port) as peer:
        return peer.handshake(path, headers)


def close_code(ws):
    with pytest.raises(ConnectionClosed) as caught:
        ws.recv(timeout=10)
    return caught.value.rcvd.code


def test_commands_are_those_that_ci_runs():
    one_liners = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("python3 ")]
    assert one_liners == [START, TEST]
    assert f"\n    {TEST}\n" in (ROOT / ".ci/run").read_text()


def test_settings_table_names_every_setting_with_its_option_and_default():
    rows = re.findall(r"^\| `WEBSOCKET_(\w+)` \| (?:`(\w+)`)? ?\| `([^|]+)` \|", README, re.MULTILINE)
    options = {setting: option for option, setting in conf.VIEW_OPTIONS.items()}

    assert {setting: option or None for setting, option, _ in rows} == {
        name: options.get(name) for name in conf.SETTINGS
    }
    assert {name: eval(default) for name, _, default in rows} == {name: s.default for name, s in conf.SETTINGS.items()}


def test_views_are_all_used_here():
    views = set(re.findall(r"path\(.*\bviews\.(\w+)", README))
    tests = Path(__file__).read_text()
    used = {view for view in views if re.search(rf"def test_{view.lower()}_", tests)}
    assert used == views


def test_echo_page_is_served_and_its_websocket_echoes(server):
    page = get(server, "/echo/")
    assert page.status == 200
    assert page.body.decode() == blocks("html")[0]
    with connect(server.ws("/echo/"), origin=server.http("")) as ws:
        ws.send("text")
        assert ws.recv(timeout=10) == "text"
        ws.send(b"binary")
        assert ws.recv(timeout=10) == b"binary"


def test_echo_once_closes_and_tells_plain_http_what_it_expects(server):
    with connect(server.ws("/echo-once/")) as ws:
        ws.send("once")
        assert ws.recv(timeout=10) == "once"
        assert close_code(ws) == 1000
    answer = get(server, "/echo-once/")
    assert answer.status == 426
    assert b"expects a WebSocket" in answer.body


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
    with connect(server.ws("/chat/")) as one, connect(server.ws("/chat/")) as other:
        one.send("first")
        assert one.recv(timeout=10) == "first"
        other.send("second")
        assert one.recv(timeout=10) == "second"


def test_foreign_origin_is_refused(server):
    assert refusal(server, "/echo/", {"Origin": "https://elsewhere.example"}).status == 403


def test_old_echo_works_as_it_did(tmp_path):
    folder = new_project(tmp_path, README)
    with (
        serving(SERVERS["runserver"], folder, folder / "log") as server,
        connect(server.ws("/old-echo/")) as ws,
    ):
        ws.send("text")
        assert ws.recv(timeout=10) == "you said text"


def test_gevent_server_of_the_readme_serves(tmp_path):
    folder = new_project(tmp_path, README[:MIGRATION])
    serve = (folder / "serve.py").read_text().replace("8000", "0")
    before, start = serve.split("server.serve_forever()")
    say = 'server.start()\nprint(f"http://127.0.0.1:{server.server_port}/", flush=True)\n'
    (folder / "serve.py").write_text(before + say + "server.serve_forever()" + start)

    with serving((sys.executable, "serve.py"), folder, folder / "log") as server:
        assert get(server, "/echo/").status == 200
        with connect(server.ws("/echo/")) as ws:
            ws.send("text")
            assert ws.recv(timeout=10) == "text"
