"""Imports point down only: the house that the design draws, walked module by module."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "dwebsocket"

#: From the roof to the ground. A line may import itself and what is below it. A name stands for all that is inside it.
HOUSE = [
    # the Django face
    ["dwebsocket", "decorators", "rest_framework", "middleware", "views", "checks", "apps", "test", "management"],
    ["upgrade", "guards", "overstay", "sessions", "failures", "live", "conf", "database", "access", "signals"],
    ["servers"],
    ["websocket", "legacy"],
    ["verbs"],
    ["connection"],
    ["sending"],
    ["lifetime"],
    ["sockets"],
    ["clock"],
    ["reactors"],
    ["client.command"],
    ["client"],
    ["ending", "keepalive", "outbox", "batch", "limits"],
    ["protocol"],  # its own docstring says so little that nobody needs to import it
    ["protocol.endpoint"],
    ["protocol.deflate"],
    ["protocol.extensions"],
    ["protocol.messages"],
    ["protocol.parser"],
    ["protocol.frames"],
    ["protocol.masking"],
    ["protocol.handshake"],
    ["protocol.exceptions"],
    ["protocol.codes"],
    ["protocol.uncompiled"],
]
FLOORS = {name: floor for floor, names in enumerate(HOUSE) for name in names}

#: What is no part of Python's standard library, and who may import it.
GUESTS = {
    "cython": ["protocol", "reactors.thread", "clock", "sockets", "lifetime", "connection"],
    "django": [*HOUSE[0], *HOUSE[1], "client.command"],
    "gevent": ["reactors.gevent", "servers"],
    "greenlet": ["reactors.gevent"],
    "typing_extensions": ["decorators", "views"],  # for type checkers only
}

#: Where bytes, facts and times go in and come out.
SANS_IO = ["protocol", "ending", "keepalive", "outbox", "batch", "limits"]

#: What the standard library has of sockets, threads, clocks and randomness: nothing for what is sans I/O.
NOT_SANS_IO = {
    *("socket", "_socket", "socketserver", "select", "selectors", "ssl", "asyncio", "http", "urllib"),
    *("threading", "_thread", "queue", "concurrent", "multiprocessing", "subprocess", "signal", "contextvars"),
    *("time", "datetime", "sched", "random", "secrets", "uuid", "os"),
}
NO_IO = "no socket, thread, clock or randomness here: it is sans I/O"


def faults(package: Path) -> Iterator[str]:
    """One sentence for each module without a place, and for each import that the house does not allow."""
    for path in sorted(package.rglob("*.py")):
        module = module_name(package, path)
        place = place_of(module)
        if place is None:
            yield f"{module} has no place in the house: give it one in HOUSE, in {Path(__file__).name}"
            continue
        for target in imports(package, path):
            fault = judge(place, module, target)
            if fault:
                yield f"{module} imports {target}: {fault}"


def module_name(package: Path, path: Path) -> str:
    """The module in `path`, as the house names it: without the package, and "dwebsocket" for the package itself."""
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__") or "dwebsocket"


def place_of(module: str) -> str | None:
    """The longest name in the house that `module` has or is inside of; a module of the protocol needs its own."""
    if module.startswith("protocol."):
        return module if module in FLOORS else None
    return next((name for name in sorted(FLOORS, key=len, reverse=True) if inside(module, name)), None)


def inside(module: str, name: str) -> bool:
    return module == name or module.startswith(f"{name}.")


def imports(package: Path, path: Path) -> Iterator[str]:
    """What the module in `path` imports, wherever in it, with the whole name: "django.http", "dwebsocket.conf"."""
    inside_package = ["dwebsocket", *path.relative_to(package).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = inside_package[: len(inside_package) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            yield from (target(package, source, alias.name) for alias in node.names)


def target(package: Path, source: str, name: str) -> str:
    """The module that `from source import name` needs: `name` itself where it is a module of ours."""
    folder = package.parent.joinpath(*source.split("."))
    if source.split(".")[0] == "dwebsocket" and ((folder / f"{name}.py").exists() or (folder / name).is_dir()):
        return f"{source}.{name}"
    return source


def judge(place: str, module: str, target: str) -> str | None:
    """Why `module` may not import `target`; None where it may."""
    root = target.split(".")[0]
    if root == "dwebsocket":
        return judge_inside(place, target.removeprefix("dwebsocket.") if target != "dwebsocket" else "dwebsocket")
    if root in sys.stdlib_module_names:
        return NO_IO if is_forbidden(place, root) else None
    if root not in GUESTS:
        return f"{root} is neither ours nor Python's: give it a place in GUESTS, in {Path(__file__).name}"
    if not any(inside(module, host) for host in GUESTS[root]):
        return f"{root} is only for {', '.join(GUESTS[root])}"
    return None


def judge_inside(place: str, target: str) -> str | None:
    other = place_of(target)
    if other is None:
        return f"{target} has no place in the house: give it one in HOUSE, in {Path(__file__).name}"
    return "imports point down only" if FLOORS[other] < FLOORS[place] else None


def is_forbidden(place: str, root: str) -> bool:
    return any(inside(place, room) for room in SANS_IO) and root in NOT_SANS_IO


def test_imports_of_the_package_point_down_only() -> None:
    assert list(faults(PACKAGE)) == []


def test_package_has_modules_to_walk() -> None:
    walked = [module_name(PACKAGE, path) for path in PACKAGE.rglob("*.py")]

    assert {"protocol", "protocol.codes", "protocol.endpoint"} <= set(walked)


def test_docstring_of_the_protocol_lists_its_modules_from_top_to_bottom() -> None:
    docstring = ast.get_docstring(ast.parse((PACKAGE / "protocol" / "__init__.py").read_text())) or ""
    listed = [line.split()[0] for line in docstring.splitlines() if line.startswith("    ")]

    assert listed == [name.removeprefix("protocol.") for name in FLOORS if name.startswith("protocol.")]


POINTS_UP = "imports point down only"
NOT_FOR_ALL = f"django is only for {', '.join(GUESTS['django'])}"


@pytest.mark.parametrize(
    ("path", "source", "expected"),
    [
        ("decorators.py", "import django.http\nfrom . import conf\nfrom .protocol.codes import Opcode", []),
        ("servers/base.py", "import gevent, ssl\nfrom ..connection import Connection\nfrom .other import x", []),
        ("reactors/gevent.py", "import gevent.hub\nfrom ..protocol import endpoint", []),
        ("legacy.py", "from . import websocket", []),
        ("protocol/endpoint.py", "import enum\nfrom .frames import Frame\nfrom . import parser", []),
        ("connection.py", "from .websocket import x", [f"dwebsocket.websocket: {POINTS_UP}"]),
        ("connection.py", "from . import conf", [f"dwebsocket.conf: {POINTS_UP}"]),
        ("connection.py", "from . import __version__", [f"dwebsocket: {POINTS_UP}"]),
        ("connection.py", "import dwebsocket.servers.base", [f"dwebsocket.servers.base: {POINTS_UP}"]),
        ("connection.py", "def f():\n    from .servers import x", [f"dwebsocket.servers: {POINTS_UP}"]),
        ("reactors/base.py", "from ..connection import Connection", [f"dwebsocket.connection: {POINTS_UP}"]),
        ("reactors/__init__.py", "from .. import connection", [f"dwebsocket.connection: {POINTS_UP}"]),
        ("protocol/frames.py", "from .parser import Parser", [f"dwebsocket.protocol.parser: {POINTS_UP}"]),
        ("protocol/codes.py", "from . import frames", [f"dwebsocket.protocol.frames: {POINTS_UP}"]),
        ("protocol/codes.py", "from .. import conf", [f"dwebsocket.conf: {POINTS_UP}"]),
        ("protocol/parser.py", "import socket", [f"socket: {NO_IO}"]),
        ("protocol/parser.py", "from time import monotonic", [f"time: {NO_IO}"]),
        ("protocol/parser.py", "import os.path", [f"os.path: {NO_IO}"]),
        ("ending.py", "import time\nimport enum", [f"time: {NO_IO}"]),
        ("outbox.py", "from .sockets import send", [f"dwebsocket.sockets: {POINTS_UP}"]),
        ("websocket.py", "import django", [f"django: {NOT_FOR_ALL}"]),
        ("servers/base.py", "from django.conf import x", [f"django.conf: {NOT_FOR_ALL}"]),
        ("upgrade.py", "import gevent", ["gevent: gevent is only for reactors.gevent, servers"]),
        ("reactors/thread.py", "import gevent", ["gevent: gevent is only for reactors.gevent, servers"]),
        (
            "connection.py",
            "import numpy",
            ["numpy: numpy is neither ours nor Python's: give it a place in GUESTS, in test_layers.py"],
        ),
    ],
)
def test_import_is_judged_by_the_house(tmp_path: Path, path: str, source: str, expected: list[str]) -> None:
    package = build(tmp_path, {path: source})

    module = module_name(package, package / path)
    assert list(faults(package)) == [f"{module} imports {fault}" for fault in expected]


@pytest.mark.parametrize("module", ["toolbox", "protocol.toolbox", "toolbox.inner"])
def test_new_module_must_be_given_a_place(tmp_path: Path, module: str) -> None:
    package = build(tmp_path, {f"{module.replace('.', '/')}.py": ""})

    assert list(faults(package)) == [f"{module} has no place in the house: give it one in HOUSE, in test_layers.py"]


def build(folder: Path, sources: dict[str, str]) -> Path:
    """A package with one empty module in each place of the house, and with `sources`."""
    package = folder / "dwebsocket"
    folders = ("servers", "reactors", "client", "protocol")
    empty = {f"{name.replace('.', '/')}.py": "" for name in FLOORS if name not in ("dwebsocket", *folders)}
    empty |= {"__init__.py": ""} | {f"{name}/__init__.py": "" for name in folders}
    for path, source in (empty | sources).items():
        (package / path).parent.mkdir(parents=True, exist_ok=True)
        (package / path).write_text(source)
    return package
