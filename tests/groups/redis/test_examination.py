"""What a deployment is told of its server."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dwebsocket.groups.redis import RedisGroups
from dwebsocket.groups.redis.examination import judge, pubsub_limits
from tests.groups.servers import RedisServer

NewBackend = Callable[..., RedisGroups]
NewServer = Callable[..., RedisServer]
DEFAULT = "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60"


@pytest.mark.parametrize(
    ("setting", "limits"),
    [
        (DEFAULT, (33554432, 8388608, 60)),
        ("pubsub 1 2 3 normal 0 0 0", (1, 2, 3)),
        ("normal 0 0 0", (0, 0, 0)),
        ("", (0, 0, 0)),
    ],
)
def test_limits_for_pubsub_are_found(setting: str, limits: tuple[int, int, int]) -> None:
    assert pubsub_limits(setting) == limits


@pytest.mark.parametrize(
    ("limits", "kinds"),
    [
        ("33554432 8388608 60", []),
        ("0 0 0", []),
        ("67108864 0 0", []),
        ("33554431 8388608 60", ["buffer"]),
        ("33554432 8388607 60", ["buffer"]),
        ("33554432 8388608 59", ["buffer"]),
    ],
)
def test_buffer_that_is_smaller_than_the_default_is_found(limits: str, kinds: list[str]) -> None:
    assert [found.kind for found in judge("here", {"client-output-buffer-limit": f"pubsub {limits}"})] == kinds


@pytest.mark.parametrize(
    ("policy", "maxmemory", "kinds"),
    [
        ("allkeys-lru", "100", ["eviction"]),
        ("allkeys-random", "100", ["eviction"]),
        ("allkeys-lru", "0", []),
        ("volatile-lru", "100", []),
        ("noeviction", "100", []),
    ],
)
def test_policy_that_may_drop_keys_is_found(policy: str, maxmemory: str, kinds: list[str]) -> None:
    assert [found.kind for found in judge("here", {"maxmemory-policy": policy, "maxmemory": maxmemory})] == kinds


@pytest.mark.parametrize(
    ("appendonly", "appendfsync", "words"),
    [
        ("yes", "always", None),
        ("yes", "everysec", "here has appendfsync everysec: "),
        ("no", "always", "here has appendonly no: "),
        ("no", "everysec", "here has appendonly no and appendfsync everysec: "),
    ],
)
def test_server_that_may_lose_messages_is_found_where_it_must_not(
    appendonly: str, appendfsync: str, words: str | None
) -> None:
    settings = {"appendonly": appendonly, "appendfsync": appendfsync}
    assert list(judge("here", settings)) == []
    found = list(judge("here", settings, is_durable=True))
    assert [(one.kind, words in one.what) for one in found] == ([("durable", True)] if words else [])


def test_server_is_asked_whether_it_is_durable(backend: NewBackend, server: RedisServer) -> None:
    assert [found.kind for found in backend(server, DURABLE=True).examine()] == ["durable"]


def test_settings_that_were_not_told_are_not_judged() -> None:
    assert list(judge("here", {}, is_durable=True)) == []


def test_server_of_every_kind_is_asked(backend: NewBackend, any_server: RedisServer) -> None:
    assert list(backend(any_server).examine()) == []


def test_user_who_may_not_see_the_settings_hears_nothing(backend: NewBackend, new_server: NewServer) -> None:
    strict = new_server(
        users=["shop on >secret resetchannels ~dws:* &dws:* +publish"],
        settings={"client-output-buffer-limit": "pubsub 1mb 1mb 60"},
    )
    assert list(backend(strict, LOCATION=f"redis://shop:secret@127.0.0.1:{strict.port}").examine()) == []


def test_server_that_does_not_answer_is_unreachable_in_time(backend: NewBackend, new_server: NewServer) -> None:
    groups = backend(paused := new_server(), TIMEOUT=0.2)
    paused.pause()
    (found,) = groups.examine()
    paused.resume()
    assert found.kind == "unreachable"
    assert str(paused.port) in found.what


def test_wrong_password_is_told_with_what_to_do(backend: NewBackend, new_server: NewServer) -> None:
    strict = new_server(password="secret")
    (found,) = backend(strict, LOCATION=f"redis://127.0.0.1:{strict.port}").examine()
    assert found.kind == "unreachable"
    assert "it wants a password" in found.what
