"""``python -m tests.left_out``: in one line, what this machine leaves out of a plain ``tox``, and why.

An environment whose Python is not installed is skipped, and so is a test that needs a program which is not there.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from configparser import ConfigParser
from pathlib import Path

TOX_INI = Path(__file__).parent.parent / "tox.ini"

#: What needs programs that Python does not bring. Debian has those of PostgreSQL outside of PATH.
PROGRAMS = {
    "browser tests": ["chromium", "chromedriver"],
    "nginx tests": ["nginx"],
    "tests of other proxies": ["haproxy", "caddy", "apache2"],
    "PostgreSQL tests": ["initdb", "postgres"],
    "Redis tests": ["redis-server"],
    "tests whose network is cut": ["ip"],
    "autobahn": ["python2.7"],
    "foreign": ["node", "npm"],
}
FOLDERS = [
    *os.get_exec_path(),
    "/usr/sbin",
    *map(str, Path("/usr/lib/postgresql").glob("*/bin")),
    *map(str, Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv").glob("versions/2.7*/bin")),
]


def has(program: str) -> bool:
    """Whether it is installed. A Python must start: pyenv may have a script of its name that only says where it is."""
    for folder in FOLDERS:
        found = shutil.which(program, path=folder)
        if found and not program.startswith("python"):
            return True
        if found and not subprocess.run([found, "--version"], capture_output=True).returncode:
            return True
    return False


def pythons(tox: ConfigParser, environment: str) -> list[str]:
    """The Pythons of which an environment needs one, as tox understands its name and settings."""
    if named := tox.get(f"testenv:{environment}", "base_python", fallback=""):
        return re.findall(r"python[\d.]+", named.partition("#")[0])
    return [f"python{major}.{minor}" for major, minor in re.findall(r"\bpy(\d)(\d+)\b", environment)]


def has_compiler() -> bool:
    """Whether the package can be compiled: Debian has the compiler in gcc, and Python.h in python3-dev."""
    command = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    return bool(shutil.which(command.split()[0])) and Path(sysconfig.get_path("include"), "Python.h").exists()


def left_out() -> dict[str, list[str]]:
    """What is left out, and for each what is not there."""
    tox = ConfigParser(interpolation=None)
    tox.read(TOX_INI)
    missing: dict[str, list[str]] = {}
    for environment in tox["tox"]["env_list"].split(", "):
        candidates = pythons(tox, environment)
        if candidates and not any(map(has, candidates)):
            missing.setdefault(environment, []).append(" or ".join(candidates))
    for what, programs in PROGRAMS.items():
        for program in programs:
            if not has(program):
                missing.setdefault(what, []).append(program)
    if not has_compiler():
        missing["the compiled wheel and benchmarks-quick"] = ["C compiler with Python.h"]
    return missing


if __name__ == "__main__":
    reasons = [f"{what} (no {', no '.join(missing)})" for what, missing in left_out().items()]
    print(f"left out: {', '.join(reasons) or 'nothing'}")
