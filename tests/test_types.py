"""The types that a project gets: tests/typed uses everything public, and the type checkers have nothing to say.

They run where they are installed: tox -e lint.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple, get_type_hints

import pytest

import dwebsocket
import dwebsocket.test
from dwebsocket import conf
from dwebsocket.protocol.deflate import Compression

ROOT = Path(__file__).resolve().parent.parent
TYPED = ROOT / "tests" / "typed"
MISTAKES = TYPED / "mistakes.py"


# The sample is complete


def public(kind: type) -> set[str]:
    """What a class of the package has that no other base has: methods, properties, and the fields of a dataclass."""
    own = [base for base in kind.__mro__ if base.__module__.startswith("dwebsocket.")]
    names = {name for base in own for name in (*vars(base), *getattr(base, "__dataclass_fields__", ()))}
    others = {name for base in kind.__mro__ if base not in own for name in vars(base)}
    return {name for name in names - others if not name.startswith("_")}


def used(path: Path) -> Iterator[str]:
    """Every name that a module uses, defines, or gives as a keyword; an import alone is no use."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.arg
        elif isinstance(node, ast.FunctionDef):
            yield node.name


@pytest.mark.parametrize(
    ("names", "files"),
    [
        pytest.param(dwebsocket.__all__, "*.py", id="dwebsocket"),
        pytest.param(dwebsocket.test.__all__, "testing.py", id="dwebsocket.test"),
        pytest.param(conf.VIEW_OPTIONS, "decorated.py", id="the options of a view"),
        pytest.param(public(dwebsocket.WebSocket), "verbs.py", id="WebSocket"),
        pytest.param(public(dwebsocket.WebSocketView), "class_based.py", id="WebSocketView"),
        pytest.param(public(dwebsocket.Guard), "guarding.py", id="Guard"),
        pytest.param(public(dwebsocket.ConnectionInfo), "watching.py", id="ConnectionInfo"),
        pytest.param(public(dwebsocket.test.TestWebSocket), "testing.py", id="TestWebSocket"),
        pytest.param(public(dwebsocket.test.WebSocketClient), "testing.py", id="WebSocketClient"),
    ],
)
def test_everything_public_is_used_in_the_sample(names: Iterable[str], files: str) -> None:
    in_sample = {name for path in TYPED.glob(files) if path != MISTAKES for name in used(path)}

    assert names
    assert sorted(set(names) - in_sample) == []


def test_every_option_of_a_view_has_a_type() -> None:
    assert get_type_hints(conf.ViewOptions).keys() == conf.VIEW_OPTIONS.keys()


def test_every_option_of_the_compression_has_its_type() -> None:
    assert get_type_hints(conf.CompressionOptions) == get_type_hints(Compression)
    assert {field.name for field in fields(Compression)} == get_type_hints(conf.CompressionOptions).keys()


def test_types_are_announced() -> None:
    assert (Path(dwebsocket.__file__).parent / "py.typed").exists()  # PEP 561


# What the type checkers say


class Fault(NamedTuple):
    """What a type checker reports."""

    file: str
    line: int
    message: str


def mypy(*options: str) -> Iterator[Fault]:
    silent = "--follow-imports=silent"  # the package is checked by itself; here it is what a project has installed
    command = [sys.executable, "-m", "mypy", "--strict", silent, "--output=json", *options, "tests/typed"]
    for line in run(command, ROOT).splitlines():
        said = json.loads(line)
        if said["severity"] == "error":
            yield Fault(Path(said["file"]).name, said["line"], said["message"])


def pyright() -> Iterator[Fault]:
    """Pyright, as basedpyright: that one needs nothing that is not on PyPI."""
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable, "--project", "."]
    for said in json.loads(run(command, TYPED))["generalDiagnostics"]:
        if said["severity"] == "error":
            yield Fault(Path(said["file"]).name, said["range"]["start"]["line"] + 1, said["message"])


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1, done.stdout + done.stderr  # errors were found, and it did not crash
    return done.stdout


CHECKERS: dict[str, Callable[[Path], Iterable[Fault]]] = {
    "mypy": lambda cache: mypy("--cache-dir", str(cache)),
    "mypy with the plugin of django-stubs": lambda cache: mypy(
        "--cache-dir", str(cache), "--config-file", "tests/typed/mypy_with_plugin.ini"
    ),
    "pyright": lambda cache: pyright(),
}


@pytest.fixture(scope="module", params=CHECKERS)
def faults(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Fault]:
    return list(CHECKERS[request.param](tmp_path_factory.mktemp("cache")))


@pytest.mark.types
def test_type_checker_has_nothing_to_say_about_the_sample(faults: list[Fault]) -> None:
    assert [fault for fault in faults if fault.file != MISTAKES.name] == []


@pytest.mark.types
def test_type_checker_reports_every_mistake_and_nothing_else(faults: list[Fault]) -> None:
    lines = MISTAKES.read_text().splitlines()
    marked = {number for number, line in enumerate(lines, start=1) if re.search(r"# error$", line)}

    assert marked
    assert {fault.line for fault in faults if fault.file == MISTAKES.name} == marked
