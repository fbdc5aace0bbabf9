"""dwebsocket, installed twice: compiled, and as pure Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parent.parent
SOURCES = ("dwebsocket", "pyproject.toml", "setup.py", "README.md", "LICENSE", "MANIFEST.in")
SWITCH = {name: {"DWEBSOCKET_COMPILE": "0" if name == "pure" else "1"} for name in ("compiled", "pure", "before")}


def install(build: str, folder: Path, revision: str = "") -> Path:
    """The folder for PYTHONPATH. It is built from a copy, so that nothing is left in the tree.

    "before" is built from `revision`, anything that git understands; the others from the tree as it is.
    """
    copy, target = folder / f"source-{build}", folder / build
    copy.mkdir()
    if build == "before":
        archive = subprocess.run(["git", "archive", revision], cwd=PROJECT, check=True, stdout=subprocess.PIPE)  # noqa: S603, S607
        subprocess.run(["tar", "--extract", "--directory", str(copy)], check=True, input=archive.stdout)  # noqa: S603, S607
    else:
        for name in SOURCES:
            _copy(PROJECT / name, copy / name)
    environ = {name: value for name, value in os.environ.items() if name != "DWEBSOCKET_COMPILE"}
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(copy)]
    subprocess.run(command, check=True, env=environ | SWITCH[build])  # noqa: S603
    return target


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.so", "*.c"))
    elif source.exists():
        shutil.copy(source, target)
