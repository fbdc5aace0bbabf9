"""Imports point down only, never in a circle: the house of docs/architecture.md, walked module by module."""

from __future__ import annotations

import ast
import graphlib
import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "dwebsocket"

#: From the roof to the ground: folders, and the files of the root. A room may import those of its own line and below.
HOUSE = [
    ["dwebsocket", "apps", "management", "test"],
    ["checks", "views"],
    ["decorators", "middleware"],
    ["upgrade", "contrib"],
    ["groups"],
    ["guards", "process"],
    ["conf", "database", "legacy", "servers", "signals", "websocket"],
    ["connection"],
    ["client", "reactors"],
    ["exceptions", "protocol"],
    ["_compiled"],
]
FLOORS = {room: floor for floor, rooms in enumerate(HOUSE) for room in rooms}

#: What is no part of Python's standard library, and which rooms, or modules, may import it.
GUESTS = {
    "cython": ["connection", "protocol", "reactors"],
    "django": [
        *(room for rooms in HOUSE[:7] for room in rooms if room not in ("legacy", "servers", "websocket")),
        "client.command",  # what the two commands share
    ],
    "gevent": ["reactors", "servers"],
    "greenlet": ["reactors"],
    "hiredis": [f"groups.redis.{name}" for name in ("location", "subscriber", "wire")],
    "redis": ["groups.redis.location"],
    "typing_extensions": [],
}

#: Which modules name them in annotations: below `if TYPE_CHECKING:`, which is false when a program runs.
IN_ANNOTATIONS = {"django": ["websocket"], "typing_extensions": ["decorators", "views"]}

#: What the standard library has of sockets, threads, clocks and randomness: nothing for the protocol.
NOT_SANS_IO = {
    *("socket", "_socket", "socketserver", "select", "selectors", "ssl", "asyncio", "http", "urllib"),
    *("threading", "_thread", "queue", "concurrent", "multiprocessing", "subprocess", "signal", "contextvars"),
    *("time", "datetime", "sched", "random", "secrets", "uuid", "os"),
}
#: Where bytes, facts and times go in and come out, so that tests need no clock.
SANS_IO = (
    "protocol",
    *(f"connection.{name}" for name in ("batch", "ending", "keepalive", "limits", "outbox")),
    "groups.history.stream",
    "groups.presence.roster",
    *(
        f"groups.redis.{name}"
        for name in ("commands", "faults", "history", "presence", "scripts", "spread", "subscriptions", "watchdog")
    ),
)


def faults(package: Path) -> Iterator[str]:
    """One sentence for each module without a room, each import that the house does not allow, and each circle."""
    graph: dict[str, set[str]] = {}
    for path in sorted(package.rglob("*.py")):
        module = module_name(package, path)
        graph[module] = set()
        if room_of(module) not in FLOORS:
            yield f"{module} has no room in the house: give it one in HOUSE, in {Path(__file__).name}"
            continue
        annotations = set(imports(package, path, in_annotations=True)) - set(imports(package, path))
        for target in (*imports(package, path), *annotations):
            if target in annotations and module in IN_ANNOTATIONS.get(target.split(".")[0], ()):
                continue
            if fault := judge(module, target):
                yield f"{module} imports {target}: {fault}"
            elif is_ours(target):
                graph[module].add(target.removeprefix("dwebsocket."))
    yield from circles(graph, "modules")
    rooms: dict[str, set[str]] = {}
    for module, targets in graph.items():
        rooms.setdefault(room_of(module), set()).update(map(room_of, targets))
    yield from circles({room: targets - {room} for room, targets in rooms.items()}, "rooms")


def circles(graph: dict[str, set[str]], what: str) -> Iterator[str]:
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        yield f"{what} import each other: {' → '.join(reversed(error.args[1]))}"


def module_name(package: Path, path: Path) -> str:
    """The module in `path`, without the package; "dwebsocket" for the package itself."""
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__") or "dwebsocket"


def room_of(module: str) -> str:
    return module.split(".")[0]


def is_ours(target: str) -> bool:
    return target.split(".")[0] == "dwebsocket"


def imports(package: Path, path: Path, *, in_annotations: bool = False) -> Iterator[str]:
    """What the module in `path` imports, wherever in it, with the whole name: "django.http", "dwebsocket.conf".

    With `in_annotations`, only what stands below `if TYPE_CHECKING:`; else everything besides that.
    """
    inside_package = ["dwebsocket", *path.relative_to(package).parent.parts]
    nodes = list(ast.walk(ast.parse(path.read_text(), str(path))))
    checked = {id(below) for node in nodes if is_for_type_checkers(node) for below in nodes_in(node)}
    for node in nodes:
        if (id(node) in checked) != in_annotations:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = inside_package[: len(inside_package) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            yield from (target(package, source, alias.name) for alias in node.names)


def is_for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def nodes_in(node: ast.AST) -> Iterator[ast.AST]:
    """Everything that stands below the `if`, without its `else`."""
    for statement in node.body if isinstance(node, ast.If) else ():
        yield from ast.walk(statement)


def target(package: Path, source: str, name: str) -> str:
    """The module that `from source import name` needs: `name` itself where it is a module of ours."""
    folder = package.parent.joinpath(*source.split("."))
    if is_ours(source) and ((folder / f"{name}.py").exists() or (folder / name).is_dir()):
        return f"{source}.{name}"
    return source


def judge(module: str, target: str) -> str | None:
    """Why `module` may not import `target`; None where it may."""
    room, root = room_of(module), target.split(".")[0]
    if root == "dwebsocket":
        other = room_of(target.removeprefix("dwebsocket."))
        if other not in FLOORS:
            return f"{other} is no room of the house: give it a place in HOUSE, in {Path(__file__).name}"
        return "imports point down only" if FLOORS[other] < FLOORS[room] else None
    if root in sys.stdlib_module_names:
        is_forbidden = root in NOT_SANS_IO and any(f"{module}.".startswith(f"{name}.") for name in SANS_IO)
        return "sans-I/O code knows no socket, thread, clock or randomness" if is_forbidden else None
    if root not in GUESTS:
        return f"{root} is neither ours nor Python's: give it a place in GUESTS, in {Path(__file__).name}"
    hosts = GUESTS[root]
    return None if room in hosts or module in hosts else f"{root} is only for {', '.join(hosts)}"


def test_imports_of_the_package_point_down_only_and_never_in_a_circle() -> None:
    assert list(faults(PACKAGE)) == []


def test_house_has_no_empty_rooms_and_no_more_floors_than_can_be_remembered() -> None:
    rooms = {room_of(module_name(PACKAGE, path)) for path in PACKAGE.rglob("*.py")}

    assert set(FLOORS) == rooms
    assert len(HOUSE) <= 11


def test_drawing_of_the_house_has_every_room_in_its_place() -> None:
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text()
    drawing = page.partition("```text\n")[2].partition("```")[0]
    places = {room: re.search(rf"\b{room}\b", drawing) for room in FLOORS if room not in ("dwebsocket", "_compiled")}

    assert [room for room, place in places.items() if place is None] == []
    found = {room: place.start() for room, place in places.items() if place is not None}
    for higher, lower in itertools.pairwise(HOUSE):
        assert all(found[a] < found[b] for a in higher if a in found for b in lower if b in found), (higher, lower)


def test_docstring_of_the_protocol_lists_its_modules_from_top_to_bottom() -> None:
    protocol = PACKAGE / "protocol"
    docstring = ast.get_docstring(ast.parse((protocol / "__init__.py").read_text())) or ""
    listed = [line.split()[0] for line in docstring.splitlines() if line.startswith("    ")]

    assert set(listed) == {path.stem for path in protocol.glob("*.py")} - {"__init__"}
    for place, name in enumerate(listed):
        below = {f"dwebsocket.protocol.{other}" for other in listed[place:]}
        inside = [target for target in imports(PACKAGE, protocol / f"{name}.py") if ".protocol." in target]
        assert set(inside) <= below, f"{name} imports what is listed above it"


POINTS_UP = "imports point down only"
NOT_FOR_ALL = f"django is only for {', '.join(GUESTS['django'])}"
SANS = "sans-I/O code knows no socket, thread, clock or randomness"


@pytest.mark.parametrize(
    ("path", "source", "expected"),
    [
        ("decorators.py", "import django.http\nfrom . import conf\nfrom .protocol.codes import Opcode", []),
        ("servers/base.py", "import gevent, ssl\nfrom ..connection.limits import x\nfrom .other import x", []),
        ("reactors/gevent.py", "import gevent.hub\nfrom ..protocol import endpoint", []),
        ("legacy.py", "from . import websocket", []),
        ("protocol/endpoint.py", "import enum\nfrom .frames import Frame\nfrom . import parser", []),
        ("connection/verbs.py", "from ..websocket import x", [f"dwebsocket.websocket: {POINTS_UP}"]),
        ("connection/verbs.py", "from .. import conf", [f"dwebsocket.conf: {POINTS_UP}"]),
        ("connection/verbs.py", "from .. import __version__", [f"dwebsocket: {POINTS_UP}"]),
        ("connection/verbs.py", "import dwebsocket.servers.base", [f"dwebsocket.servers.base: {POINTS_UP}"]),
        ("connection/verbs.py", "def f():\n    from ..servers import x", [f"dwebsocket.servers: {POINTS_UP}"]),
        ("reactors/base.py", "from ..connection.verbs import x", [f"dwebsocket.connection.verbs: {POINTS_UP}"]),
        ("reactors/__init__.py", "from .. import connection", [f"dwebsocket.connection: {POINTS_UP}"]),
        ("protocol/codes.py", "from .. import conf", [f"dwebsocket.conf: {POINTS_UP}"]),
        ("protocol/parser.py", "import socket", [f"socket: {SANS}"]),
        ("protocol/parser.py", "from time import monotonic", [f"time: {SANS}"]),
        ("protocol/parser.py", "import os.path", [f"os.path: {SANS}"]),
        ("websocket.py", "import django", [f"django: {NOT_FOR_ALL}"]),
        ("websocket.py", "if TYPE_CHECKING:\n    import django\nelse:\n    import ast", []),
        ("websocket.py", "if TYPE_CHECKING:\n    pass\nelse:\n    import django", [f"django: {NOT_FOR_ALL}"]),
        ("websocket.py", "if TYPE_CHECKING:\n    from . import views", [f"dwebsocket.views: {POINTS_UP}"]),
        ("legacy.py", "if TYPE_CHECKING:\n    import django", [f"django: {NOT_FOR_ALL}"]),
        ("servers/base.py", "from django.conf import x", [f"django.conf: {NOT_FOR_ALL}"]),
        ("upgrade/origin.py", "import gevent", ["gevent: gevent is only for reactors, servers"]),
        (
            "connection/verbs.py",
            "import numpy",
            ["numpy: numpy is neither ours nor Python's: give it a place in GUESTS, in test_layers.py"],
        ),
    ],
)
def test_import_is_judged_by_the_house(tmp_path: Path, path: str, source: str, expected: list[str]) -> None:
    package = build(tmp_path, {path: source})

    module = module_name(package, package / path)
    assert list(faults(package)) == [f"{module} imports {fault}" for fault in expected]


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (
            {"conf.py": "from . import signals", "signals.py": "def f():\n    from . import conf"},
            ["modules import each other: ", "rooms import each other: "],
        ),
        (
            {"guards/base.py": "from .now import x", "guards/now.py": "from .base import x"},
            ["modules import each other: "],
        ),
        (
            {
                "guards/base.py": "from ..process.info import x",
                "process/info.py": "",
                "process/fork.py": "from ..guards.now import x",
                "guards/now.py": "",
            },
            ["rooms import each other: "],
        ),
    ],
)
def test_circles_are_refused_among_modules_and_among_rooms(
    tmp_path: Path, sources: dict[str, str], expected: list[str]
) -> None:
    found = list(faults(build(tmp_path, sources)))

    assert [fault.partition(": ")[0] + ": " for fault in found] == expected


@pytest.mark.parametrize("module", ["toolbox", "toolbox.inner"])
def test_new_module_must_be_given_a_room(tmp_path: Path, module: str) -> None:
    package = build(tmp_path, {f"{module.replace('.', '/')}.py": ""})

    assert list(faults(package)) == [f"{module} has no room in the house: give it one in HOUSE, in test_layers.py"]


def build(folder: Path, sources: dict[str, str]) -> Path:
    """A package with one empty module for each room of the house, and with `sources`."""
    package = folder / "dwebsocket"
    folders = {path.split("/")[0] for path in sources if "/" in path} | {
        "servers",
        "protocol",
        "connection",
        "reactors",
    }
    empty = {f"{room}.py": "" for room in FLOORS if room != "dwebsocket" and room not in folders}
    empty |= {"__init__.py": ""} | {f"{name}/__init__.py": "" for name in folders if name in FLOORS}
    for path, source in (empty | sources).items():
        (package / path).parent.mkdir(parents=True, exist_ok=True)
        (package / path).write_text(source)
    return package
