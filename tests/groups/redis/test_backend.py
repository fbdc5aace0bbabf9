"""The contract of backends, on each kind of server; then what a pool meets."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dwebsocket.exceptions import GroupsUnavailable
from dwebsocket.groups.backend import Publication, Want
from dwebsocket.groups.redis import RedisGroups
from tests.groups.servers import RedisServer
from tests.groups.sinks import Collector, listen
from tests.links import ROOT, until

NewBackend = Callable[..., RedisGroups]
NewServer = Callable[..., RedisServer]


def test_message_reaches_every_process_that_watches(any_server: RedisServer, backend: NewBackend) -> None:
    sender, one, two = backend(any_server), backend(any_server), backend(any_server)
    sinks = [listen(one, "a", "b"), listen(two, "a")]
    payload = b"t" + bytes(range(256))
    sender.publish([Publication("a", payload)])
    sender.publish([Publication("b", b"t"), Publication("c", b"unheard")])

    sinks[0].wait("message", 2)
    sinks[1].wait("message", 1)
    assert sinks[0].messages == [("a", payload), ("b", b"t")]
    assert sinks[1].messages == [("a", payload)]
    sinks[0].wait("flush")


def test_publications_of_one_call_and_of_several_arrive_in_order(any_server: RedisServer, backend: NewBackend) -> None:
    groups = backend(any_server)
    sink = listen(groups, "a")
    numbers = [b"t%d" % number for number in range(500)]
    groups.publish([Publication("a", number) for number in numbers[:200]])
    for number in numbers[200:]:
        groups.publish([Publication("a", number)])

    sink.wait("message", 500)
    assert [payload for _, payload in sink.messages] == numbers


def test_once_is_published_once_in_a_group_and_in_its_place(any_server: RedisServer, backend: NewBackend) -> None:
    groups, other = backend(any_server), backend(any_server)
    sink = listen(groups, "a", "b")
    with any_server.client() as client:
        client.script_flush()
        groups.publish([Publication("a", b"t1", "k"), Publication("a", b"t2"), Publication("a", b"t3", "k")])
        client.script_flush()
    other.publish([Publication("a", b"t4", "k"), Publication("b", b"t5", "k"), Publication("a", b"t6", "m")])

    sink.wait("message", 4)
    other.publish([Publication("a", b"end")])
    sink.wait("message", 5)
    assert [payload for _, payload in sink.messages] == [b"t1", b"t2", b"t5", b"t6", b"end"]


def test_group_that_is_watched_already_is_confirmed_at_once(any_server: RedisServer, backend: NewBackend) -> None:
    groups = backend(any_server)
    sink = listen(groups, "a")
    groups.watch([], ["a"])
    groups.watch(["a"], [])

    assert sink.all("watching") == [["a"], ["a"]]


def test_group_that_is_dropped_comes_no_more(any_server: RedisServer, backend: NewBackend) -> None:
    groups = backend(any_server)
    listen(groups, "a", "b")
    groups.watch([], ["a"])
    channels = [groups._names.channel(name) for name in "ab"]

    with any_server.client() as client:
        until(lambda: [count for _, count in client.pubsub_numsub(*channels)] == [0, 1], "UNSUBSCRIBE")


def test_ten_thousand_groups_need_few_commands(any_server: RedisServer, backend: NewBackend) -> None:
    groups = backend(any_server)
    with any_server.client() as client:
        client.config_resetstat()
        listen(groups, *(f"room:{number}" for number in range(10_000)))
        calls = client.info("commandstats")["cmdstat_subscribe"]["calls"]

    assert calls <= 25


def test_nothing_to_publish_needs_no_server(backend: NewBackend, server: RedisServer) -> None:
    backend(server, LOCATION="redis://127.0.0.1:1").publish([])


def test_backend_that_is_not_open_watches_nothing(backend: NewBackend, server: RedisServer) -> None:
    with pytest.raises(RuntimeError, match="opened before it watches"):
        backend(server).watch(["a"], [])


def test_second_open_does_nothing(backend: NewBackend, server: RedisServer) -> None:
    groups = backend(server)
    groups.open(Collector())
    subscriber = groups._servers[0]._subscriber
    groups.open(Collector())

    assert groups._servers[0]._subscriber is subscriber


def test_close_gives_every_connection_back(backend: NewBackend, server: RedisServer) -> None:
    groups = backend(server, OPTIONS={"client_name": "to-be-closed"})
    listen(groups, "a")
    groups.publish([Publication("a", b"x")])
    groups.close()

    with server.client() as client:
        until(lambda: "to-be-closed" not in [found["name"] for found in client.client_list()] or None, "the end")


def refusal(groups: RedisGroups, *publications: Publication) -> str:
    with pytest.raises(GroupsUnavailable) as caught:
        groups.publish(publications or [Publication("a", b"x")])
    return str(caught.value)


def test_server_that_stands_still_is_unavailable_within_the_timeout(backend: NewBackend, new_server: NewServer) -> None:
    paused = new_server()
    groups = backend(paused, TIMEOUT=0.3)
    groups.publish([Publication("a", b"x")])
    paused.pause()
    for _ in range(2):  # on a connection that is there, and on a new one
        groups._servers[0]._silent_until = 0
        began = time.monotonic()
        assert f"groups 'default': redis://127.0.0.1:{paused.port}/0: " in refusal(groups)
        assert 0.25 < time.monotonic() - began < 3
    paused.resume()
    until(lambda: published(groups) or None, "the server to be back")


def test_view_that_sends_often_waits_once_for_a_server_that_stands_still(
    backend: NewBackend, new_server: NewServer
) -> None:
    paused = new_server()
    groups = backend(paused, TIMEOUT=3)
    groups.publish([Publication("a", b"x")])
    paused.pause()
    began = time.monotonic()
    refusals = [refusal(groups) for _ in range(10)]
    assert time.monotonic() - began < 2 * 3
    assert "it did not answer" in refusals[0]
    assert all("it has not answered just now, and is asked again in" in each for each in refusals[1:])
    paused.resume()
    until(lambda: published(groups) or None, "the server to be asked again")


def published(groups: RedisGroups) -> bool:
    try:
        groups.publish([Publication("a", b"x")])
    except GroupsUnavailable:
        return False
    return True


def test_restart_of_the_server_fails_no_publication(backend: NewBackend, new_server: NewServer) -> None:
    restarted = new_server()
    groups = backend(restarted)
    threads = [threading.Thread(target=published, args=[groups]) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    restarted.restart()

    groups.publish([Publication("a", b"x")])


def test_server_that_is_gone_is_unavailable_at_once(backend: NewBackend, new_server: NewServer) -> None:
    gone = new_server()
    groups = backend(gone, TIMEOUT=20)
    groups.publish([Publication("a", b"x")])
    gone.kill()
    began = time.monotonic()

    assert "is it running, and is the port right?" in refusal(groups)
    assert time.monotonic() - began < 10


def test_name_whose_dns_hangs_holds_up_no_publisher(
    backend: NewBackend, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()

    def hang(*_: object, **__: object) -> None:
        answered.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    groups = backend(server, TIMEOUT=0.2)
    began = time.monotonic()
    assert "TIMEOUT is 0.2 s" in refusal(groups)
    assert time.monotonic() - began < 5
    answered.set()
    until(lambda: groups._servers[0]._pool._count == 0 or None, "the attempt to end")


@pytest.mark.parametrize(
    ("rights", "publication", "advice"),
    [
        ("~* &other:* +@all", Publication("a", b"x"), "give it '&<KEY_PREFIX>:*'"),
        ("~other:* &* +@all", Publication("a", b"x", "k"), "give it '~<KEY_PREFIX>:*'"),
        ("~* &* +@all -publish", Publication("a", b"x"), "give it +publish"),
    ],
)
def test_user_who_may_not_is_told_what_is_missing(
    backend: NewBackend, new_server: NewServer, rights: str, publication: Publication, advice: str
) -> None:
    strict = new_server(users=[f"shop on >secret {rights}"])
    groups = backend(strict, LOCATION=f"redis://shop:secret@127.0.0.1:{strict.port}")

    assert advice in refusal(groups, publication)
    assert advice in refusal(groups, publication)  # the connection is as good as before


def test_user_of_an_acl_needs_no_more_than_is_said(backend: NewBackend, new_server: NewServer) -> None:
    rights = "resetchannels ~dws:* &dws:* +publish +subscribe +unsubscribe +ping +eval +set +select"
    strict = new_server(users=[f"shop on >secret {rights}"])
    url = f"redis://shop:secret@127.0.0.1:{strict.port}/1"
    groups = backend(strict, LOCATION=url, KEY_PREFIX="dws", PROBE=0.2)
    sink = listen(groups, "a")
    groups.publish([Publication("a", b"x", "k"), Publication("a", b"y")])

    sink.wait("message", 2)
    time.sleep(0.5)  # probes and PINGs
    assert sink.all("lost") == []


def test_full_server_refuses_once_and_says_so(backend: NewBackend, new_server: NewServer) -> None:
    full = new_server()
    groups = backend(full)
    with full.client() as client:
        client.set("large", b"x" * 1_000_000)
        client.config_set("maxmemory", 1)

    assert "raise maxmemory there" in refusal(groups, Publication("a", b"x", "k"))
    groups.publish([Publication("a", b"x")])  # which takes no memory


def test_primary_that_became_a_replica_refuses(backend: NewBackend, new_server: NewServer) -> None:
    demoted = new_server()
    groups = backend(demoted)
    groups.publish([Publication("a", b"x", "1")])
    with demoted.client() as client:
        client.slaveof("127.0.0.1", 1)

    assert "write the address of the primary into LOCATION" in refusal(groups, Publication("a", b"x", "2"))


def test_threads_share_a_bounded_number_of_connections(backend: NewBackend, server: RedisServer) -> None:
    groups = backend(server, OPTIONS={"max_connections": 3, "client_name": "bounded"})
    sink = listen(groups, "a")
    numbers = itertools.count()

    def work() -> None:
        for _ in range(50):
            groups.publish([Publication("a", b"t%d" % next(numbers))])

    threads = [threading.Thread(target=work) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with server.client() as client:
        names = [found["name"] for found in client.client_list()]

    sink.wait("message", 500)
    assert sorted(int(payload[1:]) for _, payload in sink.messages) == list(range(500))
    assert names.count("bounded") <= 4  # and one that receives


def test_child_of_a_fork_uses_no_socket_of_its_parent(backend: NewBackend, server: RedisServer) -> None:
    groups = backend(server, KEY_PREFIX="fork")
    sink = listen(groups, "a")
    groups.publish([Publication("a", b"before")])
    child = os.fork()
    if not child:
        status = 1
        try:
            for number in range(20):
                groups.publish([Publication("a", b"child %d" % number)])
            groups.close()
            status = 0
        finally:
            os._exit(status)
    for number in range(20):
        groups.publish([Publication("a", b"parent %d" % number)])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    groups.publish([Publication("a", b"after")])

    sink.wait("message", 42)
    assert len(sink.messages) == 42
    assert sink.all("lost") == []


def test_under_gevent_greenlets_publish_and_receive_and_come_through_an_outage(server: RedisServer) -> None:
    script = Path(__file__).with_name("patched.py")
    ran = subprocess.run(
        [sys.executable, str(script), server.url], cwd=ROOT, capture_output=True, text=True, timeout=60
    )

    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == ["patched", "received", "lively", "restored", "again", "forked", "closed"]


def test_server_that_is_back_is_asked_at_once(backend: NewBackend, new_server: NewServer) -> None:
    paused = new_server()
    groups = backend(paused, TIMEOUT=1, PROBE=1)
    sink = listen(groups, "a")
    paused.pause()
    sink.wait("lost")
    groups._servers[0]._silent_until = time.monotonic() + 3600
    paused.resume()
    sink.wait("restored")
    groups.publish([Publication("a", b"x")])


def test_last_positions_of_many_groups_take_one_command(any_server: RedisServer, backend: NewBackend) -> None:
    groups = backend(any_server)
    kept = groups.publish([Publication(f"g{number}", b"t", history=5, ttl=60) for number in range(600)])
    names = [f"g{number}" for number in range(600)]
    with any_server.client() as client:
        client.config_resetstat()
        reads = groups.read(dict.fromkeys([*names, "never used"], Want()))
        calls = client.info("commandstats")
    assert [reads[name].top for name in names] == kept
    assert reads["never used"].top.offset == 0
    scripts = sum(calls.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("eval", "evalsha"))
    assert scripts <= 5, "two of 500 groups, one for the new group, and what a server did not know yet"
