"""The name of a process, and of its WebSockets, among all."""

from __future__ import annotations

import pytest

from dwebsocket.groups import node
from tests.links import run_program


def test_name_of_a_websocket_is_read_where_it_was_given() -> None:
    name = node.websocket_id(7)
    assert name != node.websocket_id(8)
    assert b" " not in name, "an envelope carries it between blanks"
    assert (node.number_here(name), node.number_here(node.websocket_id(8))) == (7, 8)


@pytest.mark.parametrize("name", [b"", b"7", b":7", b"else:7", b"else"])
def test_names_of_other_processes_are_none_of_ours(name: bytes) -> None:
    assert node.number_here(name) == 0


@pytest.mark.parametrize("number", [b"", b"x", b"-1", b"1.5"])
def test_name_without_a_number_is_none(number: bytes) -> None:
    assert node.number_here(node.websocket_id(7)[:-1] + number) == 0


def test_another_process_gives_other_names() -> None:
    program = "import dwebsocket.groups.node as node; print(node.websocket_id(7).decode())"
    assert run_program(program).strip().encode() != node.websocket_id(7)


def test_child_of_a_fork_gives_other_names() -> None:
    program = """
import os
from dwebsocket.groups import node
name = node.websocket_id(7)
pid = os.fork()
if not pid:
    os._exit(node.websocket_id(7) == name or node.number_here(name) != 0)
assert os.waitpid(pid, 0)[1] == 0
assert node.number_here(name) == 7
print("done")
"""
    assert run_program(program).startswith("done")
