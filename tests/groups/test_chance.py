"""Random numbers of ours."""

from __future__ import annotations

import random

from dwebsocket.groups.chance import chance


def test_they_take_none_of_those_that_a_project_has_seeded() -> None:
    random.seed(7)
    expected = random.random()
    random.seed(7)
    drawn = {chance.uniform(1.0, 2.0) for _ in range(10)}
    assert random.random() == expected
    assert len(drawn) == 10
    assert all(1.0 <= number <= 2.0 for number in drawn)
