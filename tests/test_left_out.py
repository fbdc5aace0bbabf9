"""What a machine leaves out of ``tox`` is said by name, with what is not there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.left_out import PROGRAMS
from tests.links import ROOT


@pytest.fixture
def say(tmp_path: Path) -> Callable[..., str]:
    """What is said on a machine that has these programs."""

    def say(*programs: str) -> str:
        for name in programs:
            (tmp_path / name).write_text("#!/bin/sh\n")
            (tmp_path / name).chmod(0o755)
        environ = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
        command = [sys.executable, "-m", "tests.left_out"]
        return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True).stdout

    return say


def test_one_python_alone(say: Callable[..., str]) -> None:
    said = say("python3.11")

    assert said.startswith("left out: py312-django60 (no python3.12), py313-django61 (no python3.13), ")
    assert "autobahn (no python3.13 or python3.12, no python2.7)" in said
    assert "coverage (no python3.12)" in said
    assert "the compiled wheel and benchmarks-quick (no C compiler with Python.h)" in said
    assert "browser tests (no chromium, no chromedriver)" in said
    assert "py311" not in said
    assert "fuzz" not in said
    assert said.count("\n") == 1


def test_nothing_where_all_is_there(say: Callable[..., str]) -> None:
    said = say("python3.11", "python3.12", "python3.13", *[name for names in PROGRAMS.values() for name in names])

    without_compiler = "left out: the compiled wheel and benchmarks-quick (no C compiler with Python.h)\n"
    assert said in ("left out: nothing\n", without_compiler)


def test_python_of_another_place_that_does_not_start_is_none(say: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "python3.12").write_text("#!/bin/sh\nexit 127\n")
    (tmp_path / "python3.12").chmod(0o755)

    assert "py312-django60 (no python3.12)" in say("python3.11")
