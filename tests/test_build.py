"""The two builds: compiled where there is a compiler, the same modules as Python where there is none."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from dwebsocket import protocol
from tests.links import ROOT, run_program

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


def test_nothing_needs_cython_to_run() -> None:
    run_program(
        """
import sys
sys.modules["Cython"] = sys.modules["cython"] = None  # an import of it fails
import dwebsocket.connection, dwebsocket.reactors.gevent, dwebsocket.reactors.thread, dwebsocket.websocket
"""
    )


def build_wheel(folder: Path, **environ: str) -> list[str]:
    """The names of the files in a wheel that is built from a copy of the sources."""
    copy = folder / "copy"
    archive = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in archive.decode().split("\0"):
        if name.startswith("dwebsocket/") or name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
            target = copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(copy)]
    done = subprocess.run(command, env=os.environ | environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        return files.namelist()


@pytest.mark.timeout(300)
def test_without_a_compiler_the_wheel_is_python_alone(tmp_path: Path) -> None:
    files = build_wheel(tmp_path, CC="no-such-compiler", DWEBSOCKET_COMPILE="")

    assert "dwebsocket/connection.py" in files
    assert not [name for name in files if name.endswith(COMPILED_SUFFIXES)]


@pytest.mark.timeout(300)
def test_with_a_compiler_the_wheel_has_both(tmp_path: Path) -> None:
    files = build_wheel(tmp_path, DWEBSOCKET_COMPILE="1")
    compiled = {name.split(".")[0] for name in files if name.endswith(COMPILED_SUFFIXES)}

    assert compiled == {f"dwebsocket/{module.replace('.', '/')}" for module in modules()}
    assert {f"{name}.py" for name in compiled} <= set(files)
