"""The tests mirror the package: a module has its test file of the same name, in the folder of the same name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.links import ROOT

#: What needs no test file of its own, and why.
WITHOUT = {
    "_compiled.py": "one name, for machines without Cython: test_build.py runs both builds",
    "upgrade/context.py": "it carries the context of a request into the view: test_viewrun.py asks the view",
    "upgrade/origin.py": "an origin is judged at the opening handshake: test_viewrun.py",
    "upgrade/refusals.py": "what a refusal answers is seen by a client: test_viewrun.py",
    "upgrade/request.py": "it puts is_websocket and websocket on a request: test_decorators.py",
}


def modules(package: Path) -> Iterator[str]:
    """The modules of the package by their path in it; that of a folder is its table of contents."""
    for path in sorted(package.rglob("*.py")):
        if path.name != "__init__.py":
            yield path.relative_to(package).as_posix()


def mirror_of(module: str) -> str:
    path = Path(module)
    return (path.parent / f"test_{path.name}").as_posix()


def faults(package: Path, tests: Path, without: dict[str, str]) -> Iterator[str]:
    """One sentence for each module whose tests are not where they are looked for, and each exception that is none."""
    known = set(modules(package))
    for module in known - without.keys():
        expected = tests / mirror_of(module)
        if not expected.is_file():
            yield f"{module} has no tests/{mirror_of(module)}: write it, or say in WITHOUT where its tests are"
        elif not has_tests(expected):
            yield f"tests/{mirror_of(module)} has no test"
    for module in without:
        if module not in known:
            yield f"{module} is excepted, and there is no such module"
        elif (tests / mirror_of(module)).exists():
            yield f"{module} is excepted, and has tests/{mirror_of(module)}"


def has_tests(path: Path) -> bool:
    functions = (node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef))
    return any(name.startswith("test_") for name in functions)


def imported_tests(tests: Path) -> Iterator[str]:
    """Each import of a test file by another one: then neither is read, nor run, alone."""
    for path in sorted(tests.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            for name in names:
                if (tests.parent / f"{name.replace('.', '/')}.py").is_file() and ".test_" in name:
                    yield f"{path.relative_to(tests)} imports {name}: move what both use into a module of helpers"


def test_each_module_has_its_test_file() -> None:
    assert list(faults(ROOT / "dwebsocket", ROOT / "tests", WITHOUT)) == []


def test_no_test_file_imports_another() -> None:
    assert list(imported_tests(ROOT / "tests")) == []


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A package of two modules, one of which has its tests."""
    for path, source in {
        "package/__init__.py": "",
        "package/room/one.py": "",
        "package/two.py": "",
        "tests/room/test_one.py": "def test_one(): pass",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(source)
    return tmp_path


@pytest.mark.parametrize(
    ("changed", "without", "expected"),
    [
        ({}, {}, ["two.py has no tests/test_two.py: write it, or say in WITHOUT where its tests are"]),
        ({}, {"two.py": "tested elsewhere"}, []),
        ({"tests/test_two.py": "def test_two(): pass"}, {}, []),
        ({"tests/test_two.py": '"""Nothing yet."""'}, {}, ["tests/test_two.py has no test"]),
        (
            {"tests/test_two.py": "def test_two(): pass"},
            {"two.py": "tested elsewhere"},
            ["two.py is excepted, and has tests/test_two.py"],
        ),
        (
            {},
            {"two.py": "tested elsewhere", "three.py": "gone"},
            ["three.py is excepted, and there is no such module"],
        ),
    ],
)
def test_fault_is_named(house: Path, changed: dict[str, str], without: dict[str, str], expected: list[str]) -> None:
    for path, source in changed.items():
        (house / path).write_text(source)
    assert list(faults(house / "package", house / "tests", without)) == expected


@pytest.mark.parametrize(
    "source",
    ["from tests.room.test_one import test_one", "from tests.room import test_one", "import tests.room.test_one"],
)
def test_import_of_a_test_file_is_named(house: Path, source: str) -> None:
    (house / "tests/test_two.py").write_text(source)
    assert list(imported_tests(house / "tests")) == [
        "test_two.py imports tests.room.test_one: move what both use into a module of helpers"
    ]
