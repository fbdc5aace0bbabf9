"""A dozen and more of the clients that other people wrote, each as it is installed: tox -e foreign.

Each is a program (tests/foreign) that has one long conversation with a server; every test asserts a part of it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.foreign.clients import CLIENTS as PYTHON
from tests.real.helpers import started
from tests.real.servers import KINDS, PATIENCE_SECONDS, ROOT, Server, assert_quiet, running

pytestmark = [pytest.mark.foreign, pytest.mark.timeout(120)]

NODE = ["faye-websocket", "undici", "websocket", "ws"]
SERVERS = ["gunicorn-gevent", "gunicorn-gthread"]

#: What is imported where that is not the name of the package.
MODULES = {"websocket-client": "websocket", "autobahn": "autobahn.asyncio"}

#: Those that compress what they send, as the programs call them.
COMPRESS = {"aiohttp", "autobahn", "faye-websocket", "lomond", "tornado", "websockets", "ws", "wsproto"}

#: What a refusal with 403 looks like: on Node it is an end without a status, as for a page in a browser.
REFUSED = dict.fromkeys(PYTHON, 403) | dict.fromkeys(NODE, 1006) | {"faye-websocket": 1002}

#: Two know the close codes of RFC 6455 alone, and not those that were registered later; they end all the same.
KNOW_NO_1012 = {"faye-websocket": [1002, ""], "ws4py": [1005, "Invalid Closing Frame Code: 1012"]}

TEXTS = ["Grüße", "👩‍👩‍👧 世界", "a\0b", "\uffff", "x" * 125, "x" * 126, "ä" * 40_000, ""]
SIZES = [1, 125, 126, 65_535, 65_536, 1 << 20, 0]
#: websocket 1.0.35 for Node sends no empty messages, to any server.
SENDS_NO_EMPTY = {"websocket"}
CLOSES = [(1000, "done"), (1001, "leaving"), (1008, "no"), (1011, "broken"), (3000, "grund ü"), (4999, "x" * 122)]
PARTS = ["echoes", "limit", "subprotocol", "header", "server_closes", "compression", "ping", "refusal", "pushes"]


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The folder of the clients for Node, as tests/foreign/package.json names them."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("needs node and npm")
    home = Path(os.environ.get("FOREIGN_HOME") or ROOT / ".tox/foreign-node")
    home.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "tests/foreign/package.json", home)
    command = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"]
    subprocess.run(command, cwd=home, stdin=subprocess.DEVNULL, check=True, timeout=100)
    return home / "node_modules"


class Program:
    """How one client is run."""

    def __init__(self, request: pytest.FixtureRequest, name: str) -> None:
        self.environment = {**os.environ}
        if name in NODE:
            self.environment["NODE_PATH"] = str(request.getfixturevalue("node_modules"))
            self.command = ["node", str(ROOT / "tests/foreign/clients.cjs"), name]
        else:
            module = MODULES.get(name, name.replace("-", "_"))
            if importlib.util.find_spec(module) is None:
                pytest.skip(f"needs {name}: tests/foreign/requirements.txt")
            self.command = [sys.executable, "-m", "tests.foreign.clients", name]

    def start(self, what: str, server: Server, plan: Path, errors: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.command, what, f"ws://{server.host}:{server.port}", str(plan)],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )


@dataclass
class Talk:
    """What a client has said of its conversation, and the server's log of it."""

    client: str
    said: dict[str, Any]
    log: str
    noted: str


@pytest.fixture(scope="module", params=SERVERS)
def foreign_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(request.param, tmp_path_factory.mktemp(request.param)) as server:
        yield server


@pytest.fixture(scope="module", params=sorted([*PYTHON, *NODE]))
def talk(request: pytest.FixtureRequest, foreign_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Talk:
    name, server = request.param, foreign_server
    program = Program(request, name)
    texts, sizes = (TEXTS[:-1], SIZES[:-1]) if name in SENDS_NO_EMPTY else (TEXTS, SIZES)
    plan = {
        "parts": PARTS,
        "texts": texts,
        "sizes": sizes,
        "subprotocols": ["chat.v1", "chat.v2"],
        "cookie": server.get("/session/?colour=blue").headers["set-cookie"].partition(";")[0],
        "closes": [f"/close/?{urlencode({'code': code, 'reason': reason})}" for code, reason in CLOSES],
        "push": f"/push-for-ever/?note={name}",
    }
    server.take_news()
    folder = tmp_path_factory.mktemp(name)
    (folder / "plan").write_text(json.dumps(plan))
    errors = folder / "errors"
    with errors.open("wb") as file, program.start("converse", server, folder / "plan", file) as process:
        try:
            out, _ = process.communicate(timeout=50)
        finally:
            process.kill()
    assert process.returncode == 0, errors.read_text()
    said = dict(json.loads(line) for line in out.splitlines())
    noted = server.note(name)  # the view that pushes has noticed
    server.until(lambda: " dwebsocket.access: /push-for-ever/ " in server.news(), "the last line of the access log")
    return Talk(name, said, server.take_news(), noted)


def test_messages_come_back_as_they_were_sent(talk: Talk) -> None:
    count = len(TEXTS + SIZES) - 2 * (talk.client in SENDS_NO_EMPTY)
    assert talk.said["echoes"] == [True] * count


def test_message_beyond_the_limit_closes_with_1009(talk: Talk) -> None:
    assert talk.said["limit"] == 1009


def test_subprotocol_is_agreed(talk: Talk) -> None:
    assert talk.said["subprotocol"] == ["chat.v2", "chat.v2"]


def test_header_of_the_client_arrives(talk: Talk) -> None:
    assert talk.said["header"] == "blue"


def test_close_code_and_reason_of_the_view_arrive(talk: Talk) -> None:
    assert talk.said["server_closes"] == [list(close) for close in CLOSES]


def test_close_code_and_reason_of_the_client_arrive(talk: Talk) -> None:
    assert re.search(r"dwebsocket\.access: /victim/ .*closed 3000 bye$", talk.log, re.MULTILINE)


def test_message_is_compressed_where_the_client_can(talk: Talk) -> None:
    assert talk.said["compression"] == "100000"
    (received,) = re.findall(r"dwebsocket\.access: /victim/ .*received 1 messages \((\d+) bytes\)", talk.log)
    assert (int(received) < 1000) == (talk.client in COMPRESS)


def test_ping_of_the_server_is_answered(talk: Talk) -> None:
    assert talk.said["ping"] == "answered"


def test_refusal_is_told(talk: Talk) -> None:
    assert talk.said["refusal"] == REFUSED[talk.client]
    assert "WARNING django.request: Forbidden (Permission denied): /refuse/forbidden/" in talk.log


def test_view_ends_when_the_process_of_the_client_does(talk: Talk) -> None:
    assert talk.said["pushes"] == ["tick"] * 3
    assert talk.noted == "finally"
    assert re.search(r"dwebsocket\.access: /push-for-ever/ .*closed 1006", talk.log)


def test_nothing_else_is_in_the_log(talk: Talk) -> None:
    assert_quiet(re.sub(r"^WARNING django\.request: Forbidden .*\n(?:(?![A-Z]+ ).*\n)*", "", talk.log, flags=re.M))


@pytest.mark.parametrize("name", SERVERS)
def test_end_of_the_server_reaches_every_client_with_1012(
    request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    with started(KINDS[name], tmp_path) as server, ExitStack() as stack:
        errors = stack.enter_context((tmp_path / "errors").open("wb"))
        (tmp_path / "plan").write_text("{}")
        waiting = {}
        for client in [*PYTHON, *NODE]:
            process = stack.enter_context(Program(request, client).start("wait", server, tmp_path / "plan", errors))
            stack.callback(process.kill)
            waiting[client] = process
        for client, process in waiting.items():
            assert process.stdout.readline() == '"hello"\n', f"{client}: {(tmp_path / 'errors').read_text()}"
        assert_quiet(server.stop())
        told = {name: json.loads(process.communicate(timeout=PATIENCE_SECONDS)[0]) for name, process in waiting.items()}
        assert told == {client: [1012, ""] for client in waiting} | KNOW_NO_1012
