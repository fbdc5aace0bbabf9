from __future__ import annotations

from collections import Counter

import pytest

from dwebsocket.groups.redis.spread import jump, server_of

GROUPS = [f"room:{number}" for number in range(20_000)]


def test_jump_hash_is_that_of_the_paper() -> None:
    # The golden values of Guava's Hashing.consistentHash(), which is the same function.
    golden = [0, 55, 62, 8, 45, 59, 86, 97, 82, 59, 73, 37, 17, 56, 86, 21, 90, 37, 38, 83]

    assert [jump(key, 100) for key in range(20)] == golden
    assert jump(10863919174838991, 11) == 6
    assert jump(2016238256797177309, 11) == 3
    assert jump(1673758223894951030, 11) == 5
    assert jump(2**64 - 1, 1) == 0


@pytest.mark.parametrize(
    ("group", "expected"),
    [("room:1", [0, 0, 0, 0]), ("room:2", [0, 0, 0, 0]), ("user:ä", [0, 0, 0, 3]), ("a" * 100, [0, 1, 1, 1])],
)
def test_group_has_the_same_server_in_every_process_and_release(group: str, expected: list[int]) -> None:
    assert [server_of(group, servers) for servers in range(1, 5)] == expected


@pytest.mark.parametrize("servers", [2, 3, 8])
def test_groups_are_balanced(servers: int) -> None:
    counts = Counter(server_of(group, servers) for group in GROUPS)

    assert sorted(counts) == list(range(servers))
    assert all(abs(count - len(GROUPS) / servers) < 0.1 * len(GROUPS) / servers for count in counts.values())


@pytest.mark.parametrize("servers", [1, 2, 3, 7])
def test_server_that_is_added_takes_its_share_and_nothing_else_moves(servers: int) -> None:
    moved = [group for group in GROUPS if server_of(group, servers) != server_of(group, servers + 1)]

    assert {server_of(group, servers + 1) for group in moved} == {servers}
    assert abs(len(moved) - len(GROUPS) / (servers + 1)) < 0.1 * len(GROUPS) / (servers + 1)
