"""The words of the package: docstrings, comments and messages name the thing that acts, in plain English."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "dwebsocket"

#: What a sentence must not have, and what to write instead.
FORBIDDEN = {
    r"\b(nobody|somebody|everybody|whoever)\b": "name the one that acts: view, peer, caller, thread, server, reactor",
    r"(^|[.:;(] ?)who\b": "name the one that acts: view, peer, caller, thread, server, reactor",
    r"\blet(s|ting)? go of\b": "write release, close or drop",
    r"\bforget": "write drop, clear or discard",
    r"\bwhat cannot be\b": "name the thing",
    r"\bshall\b": "write must, or say what happens",
    r"\b(is|are) to\b": "write must, or say what happens",
    r"\bof (its|their|our|your) own\b": "write new, another or separate",
    r"\b(has|have|had) to say\b": "name the thing: a reason, an error, a verdict",
}

#: How a docstring must not begin: a verb, or a noun, says what a caller gets.
RIDDLE = r"^(What|Who|Whose|Whom|How|Which)\b"

#: Where such words are left, and how many at most: a room may only become better. Remove it when it is at 0.
LEFT: dict[str, int] = {}


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Every comment and string of a module, with the line in which it begins; comments of adjacent lines are one."""
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines()
    if path.suffix == ".pxd":
        found = [(number, line.partition("#")[2]) for number, line in enumerate(lines, 1) if "#" in line]
    else:
        tokens = tokenize.generate_tokens(io.StringIO(source).readline)
        found = [(token.start[0], token.string.lstrip("#: ")) for token in tokens if token.type == tokenize.COMMENT]
    begin, joined = 0, []
    for number, comment in found:
        if joined and number != begin + len(joined):
            yield begin, " ".join(joined)
            joined = []
        begin = begin if joined else number
        joined.append(comment)
    if joined:
        yield begin, " ".join(joined)
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.lineno, node.value


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """The docstrings of a module, with the line of what they describe."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and (text := ast.get_docstring(node)):
            yield getattr(node, "lineno", 1), text


def faults(path: Path) -> list[str]:
    """What is wrong in a module, a sentence each."""
    found = []
    for number, text in texts(path):
        plain = " ".join(text.split())
        for pattern, advice in FORBIDDEN.items():
            for match in re.finditer(pattern, plain, re.IGNORECASE):
                around = plain[max(0, match.start() - 30) : match.end() + 30]
                found.append(f"{path.name}:{number}: {match[0]!r} in {around!r}: {advice}")
    for number, text in docstrings(path) if path.suffix == ".py" else ():
        if match := re.match(RIDDLE, text):
            found.append(f"{path.name}:{number}: a docstring begins with {match[0]!r}: begin with a verb or a noun")
    return found


def room(path: Path) -> str:
    """The folder of a module; a file of the root, and the verbs, stand for themselves."""
    relative = path.relative_to(PACKAGE)
    return relative.as_posix() if len(relative.parts) == 1 or relative.stem == "verbs" else relative.parts[0]


MODULES = sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pxd")])


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_module_is_written_in_plain_words(path: Path) -> None:
    if room(path) not in LEFT:
        assert faults(path) == []


def test_rooms_that_are_not_plain_yet_become_no_worse() -> None:
    left: Counter[str] = Counter()
    for path in MODULES:
        left[room(path)] += len(faults(path))
    assert {name: left[name] for name, most in LEFT.items() if left[name] > most} == {}


@pytest.mark.parametrize(
    "text",
    [
        '"""Wakes nobody."""',
        "# A lock that\n# nobody holds.",
        'raise ValueError(f"{1}: whoever calls")',
        "x = 1  # Who waits, reads.",
        '"""The lease lets go of it."""',
        '"""What a view gets."""',
        '"""A thread of\n    its own."""',
    ],
)
def test_fault_is_found(tmp_path: Path, text: str) -> None:
    path = tmp_path / "module.py"
    path.write_text(f"{text}\n", encoding="utf-8")
    assert len(faults(path)) == 1


def test_plain_sentence_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text('"""Return the user who is logged in."""\n# A peer reads.\n', encoding="utf-8")
    assert faults(path) == []
