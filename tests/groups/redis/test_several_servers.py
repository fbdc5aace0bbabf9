"""RedisGroups over several servers: each has its share of the groups, and its own outages."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from dwebsocket.exceptions import GroupsUnavailable
from dwebsocket.groups.backend import Publication
from dwebsocket.groups.redis import RedisGroups
from tests.groups.servers import RedisServer
from tests.groups.sinks import Collector, listen
from tests.links import until

NewServer = Callable[..., RedisServer]
Several = tuple[list[RedisServer], RedisGroups]

GROUPS = [f"room:{number}" for number in range(40)]


@pytest.fixture
def several(new_server: NewServer, backend: Callable[..., RedisGroups]) -> Several:
    """Three servers, and a backend over them."""
    servers = [new_server() for _ in range(3)]
    return servers, backend(servers[0], LOCATION=[one.url for one in servers], PROBE=1, TIMEOUT=1)


def of(groups: RedisGroups, *numbers: int) -> list[str]:
    """The groups of these servers."""
    found = [group for group in GROUPS if groups.source_of(group) in numbers]
    assert found
    return found


def say(text: str, *groups: str) -> list[Publication]:
    return [Publication(group, f"t{text}".encode()) for group in groups]


def received(sink: Collector, text: str) -> set[str]:
    return {group for group, payload in sink.messages if payload == f"t{text}".encode()}


def test_each_server_carries_its_groups_and_no_others(several: Several) -> None:
    servers, groups = several
    sink = listen(groups, *GROUPS)
    assert groups.publish(say("1", *GROUPS)) == [None] * len(GROUPS)
    sink.wait("message", len(GROUPS))

    assert received(sink, "1") == set(GROUPS)
    for number, server in enumerate(servers):
        with server.client() as client:
            channels = client.pubsub_channels("*:g:*")
        assert set(channels) == {groups._names.channel(group) for group in of(groups, number)}
    groups.watch([], GROUPS)
    for server in servers:
        with server.client() as client:
            until(lambda: not client.pubsub_channels("*:g:*") or None, "the end of all subscriptions")


def test_publications_of_one_call_keep_the_order_of_each_group(several: Several) -> None:
    _, groups = several
    sink = listen(groups, *GROUPS)
    texts = [str(number) for number in range(50)]
    groups.publish([publication for text in texts for publication in say(text, *GROUPS)])
    sink.wait("message", len(GROUPS) * len(texts))

    for group in GROUPS:
        assert [payload for name, payload in sink.messages if name == group] == [f"t{text}".encode() for text in texts]


def test_outage_of_one_server_is_one_of_its_groups_alone(several: Several) -> None:
    servers, groups = several
    sink = listen(groups, *GROUPS)
    servers[1].kill()
    sink.wait("lost")
    theirs, others = of(groups, 1), of(groups, 0, 2)
    for group in theirs:
        with pytest.raises(GroupsUnavailable, match=rf"redis://127\.0\.0\.1:{servers[1].port}/0"):
            groups.publish(say("1", group))
    groups.publish(say("2", *others))
    with pytest.raises(GroupsUnavailable):
        groups.publish(say("3", *GROUPS))
    sink.wait("message", 2 * len(others))
    assert received(sink, "2") == received(sink, "3") == set(others)  # what can be sent, is
    groups.watch(["room:new", *of(groups, 0)], [])
    servers[1].start()
    sink.wait("restored")
    groups.publish(say("4", *GROUPS))
    sink.wait("message", 2 * len(others) + len(GROUPS))

    assert received(sink, "4") == set(GROUPS)
    ((why, source),) = sink.all("lost")
    assert why.startswith(f"redis://127.0.0.1:{servers[1].port}/0: ")
    assert source == 1
    assert sink.all("restored") == [1]


def test_servers_that_stand_still_are_waited_for_at_the_same_time(several: Several) -> None:
    servers, groups = several
    sink = listen(groups, *GROUPS)
    groups.publish(say("1", *GROUPS))
    servers[0].pause()
    servers[2].pause()
    began = time.monotonic()
    with pytest.raises(GroupsUnavailable, match="did not answer"):
        groups.publish(say("2", *GROUPS))
    took = time.monotonic() - began
    for server in servers:
        server.resume()

    assert took < 1.8  # TIMEOUT is 1
    sink.wait("message", len(GROUPS) + len(of(groups, 1)))
    assert received(sink, "2") >= set(of(groups, 1))


def test_all_are_asked_where_no_thread_can_be_started(several: Several, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in Python 3.12 and later once the interpreter ends."""
    servers, groups = several
    groups.renew()

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        groups.resign(0)
    assert groups.renew().has_lapsed
    for server in servers:
        with server.client() as client:
            assert client.keys("*")


def test_findings_name_each_server(several: Several) -> None:
    servers, groups = several
    servers[2].stop()
    with servers[0].client() as client:
        client.config_set("client-output-buffer-limit", "pubsub 1mb 1mb 1")
    kinds = [(finding.kind, finding.what) for finding in groups.examine()]

    assert [kind for kind, _ in kinds] == ["buffer", "unreachable"]
    assert f"redis://127.0.0.1:{servers[0].port}/0" in kinds[0][1]
    assert f"redis://127.0.0.1:{servers[2].port}/0" in kinds[1][1]


def test_list_of_one_is_that_server(new_server: NewServer, backend: Callable[..., RedisGroups]) -> None:
    only = new_server()
    groups = backend(only, LOCATION=[only.url])
    sink = listen(groups, *GROUPS)
    groups.publish(say("1", *GROUPS))

    sink.wait("message", len(GROUPS))
    assert {groups.source_of(group) for group in GROUPS} == {0}
