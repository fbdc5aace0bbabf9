"""The two builds: compiled where there is a compiler, the same modules as Python where there is none."""

from __future__ import annotations

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from dwebsocket import protocol
from tests.left_out import has_compiler
from tests.links import ROOT, run_program

PACKAGE = ROOT / "dwebsocket"
COMPILED_SUFFIXES = (".so", ".pyd")
#: What the environment that runs these tests was installed with (tox.ini); unset elsewhere.
WANTED = os.environ.get("DWEBSOCKET_COMPILE", "")


def modules() -> list[str]:
    """The modules that setup.py compiles."""
    source = (ROOT / "setup.py").read_text()
    listed = source[source.index("MODULES = [") : source.index("]")]
    return [line.strip().strip('",') for line in listed.splitlines()[1:] if line.strip()]


@pytest.mark.parametrize("module", modules())
def test_modules_are_all_compiled_or_none(module: str) -> None:
    file = importlib.import_module(f"dwebsocket.{module}").__file__

    assert file is not None
    assert file.endswith(COMPILED_SUFFIXES) == protocol.COMPILED


@pytest.mark.skipif(not WANTED, reason="only where the environment says what it was built with")
def test_build_is_the_one_that_the_environment_was_made_for() -> None:
    assert (WANTED == "1") == protocol.COMPILED


def test_every_module_with_types_for_the_compiler_is_compiled() -> None:
    typed = {path.relative_to(ROOT / "dwebsocket").with_suffix("") for path in (ROOT / "dwebsocket").rglob("*.pxd")}

    assert typed <= {Path(module.replace(".", "/")) for module in modules()}


def attributes_for_the_compiler(module: str) -> dict[str, set[str]]:
    """The attributes of each class in the .pxd of `module`."""
    classes: dict[str, set[str]] = {}
    for line in (PACKAGE / f"{module.replace('.', '/')}.pxd").read_text().splitlines():
        if begins := re.match(r"cdef class (\w+)", line):
            attributes = classes.setdefault(begins[1], set())
        elif re.match(r"\S", line):
            attributes = set()  # of no class
        elif re.match(r"    cdef [^(]+$", line):
            attributes.update(re.findall(r"(\w+)(?=,|$)", line))
    return classes


def attributes_in_python(module: str, name: str) -> tuple[set[str], set[str] | None]:
    """What `__init__` of the class sets, and its `__slots__`, if it has any."""
    tree = ast.parse((PACKAGE / f"{module.replace('.', '/')}.py").read_text())
    (found,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    begun: set[str] = set()
    slots = None
    for node in found.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            begun = {
                target.attr
                for target in ast.walk(node)
                if isinstance(target, ast.Attribute)
                and isinstance(target.ctx, ast.Store)
                and isinstance(target.value, ast.Name)
                and target.value.id == "self"
            }
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__slots__":
            slots = set(ast.literal_eval(node.value))
    return begun, slots


TYPED = [
    (module, name)
    for module in modules()
    if (PACKAGE / f"{module.replace('.', '/')}.pxd").exists()
    for name in attributes_for_the_compiler(module)
]


@pytest.mark.parametrize(("module", "name"), TYPED)
def test_attributes_of_a_compiled_class_are_those_of_the_python_class(module: str, name: str) -> None:
    """An attribute that is missing in one of the three fails in one of the two builds only, or not at once."""
    typed = attributes_for_the_compiler(module)[name]
    begun, slots = attributes_in_python(module, name)

    assert typed == begun
    assert slots is None or slots == begun


def test_there_are_compiled_classes_to_look_at() -> None:
    assert ("connection.connection", "Connection") in TYPED
    assert {"_inbox_max_bytes", "messages_received"} <= attributes_for_the_compiler("connection.connection")[
        "Connection"
    ]


def test_nothing_needs_cython_to_run() -> None:
    run_program(
        """
import sys
sys.modules["Cython"] = sys.modules["cython"] = None  # an import of it fails
import dwebsocket.connection.verbs, dwebsocket.reactors.gevent, dwebsocket.reactors.thread, dwebsocket.websocket
"""
    )


def sources() -> list[str]:
    """The files of the project: those that git has or would take, or those of the source distribution that this is."""
    if not (ROOT / ".git").exists():
        listed = (ROOT / "dwebsocket.egg-info" / "SOURCES.txt").read_text().splitlines()
        return [name for name in listed if ".egg-info/" not in name]
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    return [name for name in names if name and (ROOT / name).exists()]


def run_module(name: str, *arguments: str | Path, **environ: str) -> None:
    command = [sys.executable, "-m", name, *map(str, arguments)]
    done = subprocess.run(command, env=os.environ | environ, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source distribution, made from a copy: what lies beside the sources here must not matter."""
    copy, folder = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("sdist")
    for name in sources():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    run_module("build", "--sdist", "--outdir", folder, copy)
    (archive,) = folder.glob("*.tar.gz")
    return archive


@pytest.mark.timeout(900)
def test_source_distribution_has_every_file_that_the_repository_has(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        packed = {member.name.partition("/")[2] for member in archive if member.isfile()}

    assert {name for name in sources() if not name.startswith(".")} <= packed
    assert not [name for name in packed if name.startswith(".")]


def build_wheel(sdist: Path, folder: Path, **environ: str) -> Path:
    """A wheel that is built from the source distribution."""
    run_module("pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, sdist, **environ)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.mark.timeout(900)
def test_without_a_compiler_the_wheel_is_python_alone_and_named_so(sdist: Path, tmp_path: Path) -> None:
    wheel = build_wheel(sdist, tmp_path, CC="no-such-compiler", DWEBSOCKET_COMPILE="")

    assert wheel.name == f"dwebsocket-{version('dwebsocket')}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        files = archive.namelist()
        assert b"Root-Is-Purelib: true" in archive.read(next(name for name in files if name.endswith("/WHEEL")))
    assert {"dwebsocket/connection/connection.py", "dwebsocket/py.typed", "pytest_dwebsocket.py"} <= set(files)
    assert not [name for name in files if name.endswith(COMPILED_SUFFIXES)]


@pytest.mark.skipif(not has_compiler(), reason="needs a C compiler and Python.h")
@pytest.mark.timeout(900)
def test_with_a_compiler_the_wheel_has_both_and_no_symbols_for_a_debugger(sdist: Path, tmp_path: Path) -> None:
    wheel = build_wheel(sdist, tmp_path, CFLAGS="-O0", DWEBSOCKET_COMPILE="1")  # in a third of the time

    assert "none-any" not in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    compiled = {name.split(".")[0]: data for name, data in files.items() if name.endswith(COMPILED_SUFFIXES)}
    assert set(compiled) == {f"dwebsocket/{module.replace('.', '/')}" for module in modules()}
    assert {f"{name}.py" for name in compiled} <= set(files)
    assert not [name for name, data in compiled.items() if b".debug_info" in data]
