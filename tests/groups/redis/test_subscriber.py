from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import pytest

from dwebsocket.groups.backend import Publication
from dwebsocket.groups.redis import RedisGroups
from dwebsocket.groups.redis.subscriber import Subscriber
from dwebsocket.groups.redis.watchdog import Backoff
from tests.groups.servers import Certificates, RedisServer
from tests.groups.sinks import Collector, listen
from tests.links import until

NewBackend = Callable[..., RedisGroups]
NewServer = Callable[..., RedisServer]


def outages(sink: Collector) -> list[str]:
    return [what for what, _ in sink.told if what in ("lost", "restored")]


@pytest.fixture(autouse=True)
def _of_dwebsocket(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "dwebsocket")


def test_outage_is_told_once_and_ends_when_all_groups_are_confirmed_again(
    backend: NewBackend, new_server: NewServer, caplog: pytest.LogCaptureFixture
) -> None:
    mortal = new_server()
    groups = backend(mortal)
    names = [f"room:{number}" for number in range(1500)]
    sink = listen(groups, *names)
    mortal.kill()
    (why,) = sink.wait("lost")
    groups.watch(["late"], ["room:0"])
    time.sleep(0.3)  # several attempts
    sink.told.clear()
    mortal.start()
    sink.wait("restored")

    assert "closed the connection" in why or "broke" in why
    assert [what for what, _ in sink.told][-1] == "restored"
    assert sink.watched == {"late", *names[1:]}
    groups.publish([Publication("late", b"x")])
    sink.wait("message")
    begin, end = (record.getMessage() for record in caplog.records)
    assert begin.startswith(f"groups 'default': redis://127.0.0.1:{mortal.port}/0 is lost")
    assert " is back after " in end


def test_server_that_is_not_there_yet_is_waited_for(backend: NewBackend, new_server: NewServer) -> None:
    late = new_server()
    late.stop()
    groups, sink = backend(late), Collector()
    groups.open(sink)
    groups.watch(["a"], [])
    (why,) = sink.wait("lost")
    late.start()
    sink.wait("restored")

    assert "is it running, and is the port right?" in why
    assert sink.watched == {"a"}
    assert outages(sink) == ["lost", "restored"]


def test_paused_server_is_noticed_within_probe_and_timeout(backend: NewBackend, new_server: NewServer) -> None:
    paused = new_server()
    sink = listen(backend(paused, PROBE=0.3, TIMEOUT=0.3), "a")
    paused.pause()
    began = time.monotonic()
    (why,) = sink.wait("lost")
    took = time.monotonic() - began
    paused.resume()
    sink.wait("restored")

    assert "did not answer a PING" in why
    assert took < 3


def test_silence_is_no_outage_while_probes_come_back(backend: NewBackend, server: RedisServer) -> None:
    groups = backend(server, PROBE=0.05, TIMEOUT=2)
    sink = listen(groups, "a")
    watchdog = groups._servers[0]._subscriber._watchdog  # type: ignore[union-attr]
    until(lambda: watchdog._count >= 5 or None, "five probes")

    assert outages(sink) == []
    assert sink.messages == []


def test_server_that_answers_and_is_another_one_than_publishers_reach_is_noticed(
    backend: NewBackend, server: RedisServer, new_server: NewServer, caplog: pytest.LogCaptureFixture
) -> None:
    other = new_server()
    groups = backend(server, PROBE=0.2, TIMEOUT=0.3)
    sink = listen(groups, "a")
    elsewhere = backend(other)
    groups._servers[0]._pool = elsewhere._servers[0]._pool
    (why, *_) = sink.wait("lost")

    assert "two servers" in why


def test_primary_that_became_a_replica_is_noticed_though_it_answers(backend: NewBackend, new_server: NewServer) -> None:
    demoted = new_server()
    groups = backend(demoted, PROBE=0.1)
    sink = listen(groups, "a")
    with demoted.client() as client:
        client.slaveof("127.0.0.1", 1)
        (why,) = sink.wait("lost")
        client.slaveof()
    sink.wait("restored")

    assert "it is a replica: write the address of the primary into LOCATION" in why


def test_probe_that_cannot_be_published_says_nothing(
    backend: NewBackend, server: RedisServer, new_server: NewServer
) -> None:
    gone = new_server()
    gone.stop()
    groups = backend(server, PROBE=0.05, TIMEOUT=0.1)
    sink = listen(groups, "a")
    groups._servers[0]._pool = backend(gone)._servers[0]._pool
    watchdog = groups._servers[0]._subscriber._watchdog  # type: ignore[union-attr]
    count = watchdog._count
    until(lambda: watchdog._count >= count + 4 or None, "four probes")

    assert outages(sink) == []


def test_error_that_was_not_expected_is_logged_once_and_the_loop_goes_on(
    backend: NewBackend, server: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    groups = backend(server)
    sink = listen(groups, "a")
    original, failures = Subscriber._pass_on, []

    def fail(self: Subscriber, gets: Callable[[], object]) -> None:
        if len(failures) < 4:
            failures.append(None)
            raise ZeroDivisionError("a mistake of ours")
        original(self, gets)

    monkeypatch.setattr(Subscriber, "_pass_on", fail)
    groups.publish([Publication("a", b"x")])
    sink.wait("restored")
    groups.publish([Publication("a", b"y")])
    sink.wait("message")

    assert outages(sink) == ["lost", "restored"]
    (traceback,) = [record for record in caplog.records if record.exc_info]
    assert traceback.levelno == logging.ERROR


def test_setting_that_is_wrong_is_logged_with_what_to_do_and_not_again(
    backend: NewBackend, new_server: NewServer, caplog: pytest.LogCaptureFixture
) -> None:
    strict = new_server(users=["shop on >secret ~* &other:* +@all"])
    groups, sink = backend(strict, LOCATION=f"redis://shop:secret@127.0.0.1:{strict.port}"), Collector()
    groups.open(sink)
    groups.watch(["a"], [])
    sink.wait("lost")
    time.sleep(0.3)

    assert outages(sink) == ["lost"]
    (record,) = caplog.records
    assert "give it '&<KEY_PREFIX>:*' with ACL SETUSER" in record.getMessage()
    with strict.client() as client:
        client.execute_command("ACL", "SETUSER", "shop", "&*")
    sink.wait("restored")
    assert sink.watched == {"a"}


def test_tls_receives_large_bursts_while_it_subscribes(
    backend: NewBackend, new_server: NewServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tls = new_server(certificates=Certificates(tmp_path_factory.mktemp("certificates")))
    groups = backend(tls)
    sink = listen(groups, "a")
    payloads = [b"t%d " % number * 20_000 for number in range(20)]
    thread = threading.Thread(target=lambda: [groups.publish([Publication("a", payload)]) for payload in payloads])
    thread.start()
    for number in range(200):
        groups.watch([f"room:{number}"], [])
    thread.join()
    sink.wait("message", 20)
    sink.wait_watched(*(f"room:{number}" for number in range(200)))

    assert [payload for _, payload in sink.messages] == payloads
    assert outages(sink) == []


def test_messages_of_a_chunk_leave_in_one_flush(backend: NewBackend, server: RedisServer) -> None:
    groups = backend(server)
    sink = listen(groups, "a")
    with server.client() as client, client.pipeline(transaction=True) as pipeline:
        for number in range(200):
            pipeline.publish(groups._names.channel("a"), b"t%d" % number)
        pipeline.execute()
    sink.wait("message", 200)
    sink.wait("flush")

    assert len(sink.all("flush")) < 100


def test_unix_socket_receives(backend: NewBackend, new_server: NewServer) -> None:
    local = new_server(is_unix=True)
    groups = backend(local, LOCATION=f"unix://{local.unix_path}")
    sink = listen(groups, "a")
    groups.publish([Publication("a", b"x")])

    assert sink.wait("message") == [("a", b"x")]


def test_close_ends_the_loop_while_it_is_connected_and_while_it_waits(
    backend: NewBackend, server: RedisServer, new_server: NewServer
) -> None:
    gone = new_server()
    gone.stop()
    connected, waiting = backend(server), backend(gone)
    listen(connected, "a")
    sink = Collector()
    waiting.open(sink)
    sink.wait("lost")
    for groups in (connected, waiting):
        thread = groups._servers[0]._subscriber._thread  # type: ignore[union-attr]
        groups.close()
        thread.join(10)
        assert not thread.is_alive()
        groups.watch(["b"], [])  # which does nothing, and does not fail
    assert outages(sink) == ["lost"]


@pytest.fixture
def paused(
    backend: NewBackend, new_server: NewServer, monkeypatch: pytest.MonkeyPatch
) -> tuple[RedisGroups, Collector]:
    """A backend that watches "a", whose server is back, and whose next attempt to connect is an hour away."""
    mortal = new_server()
    groups = backend(mortal)
    sink = listen(groups, "a")
    monkeypatch.setattr(Backoff, "next", lambda backoff, fraction: 3600)
    mortal.kill()
    sink.wait("lost")
    mortal.start()
    return groups, sink


def test_publication_that_is_taken_ends_the_wait_for_the_next_attempt(paused: tuple[RedisGroups, Collector]) -> None:
    groups, sink = paused
    groups.publish([Publication("a", b"missed")])
    sink.wait("restored")

    groups.publish([Publication("a", b"x")])
    assert sink.wait("message") == [("a", b"x")]


def test_view_that_joins_does_not_wait_for_the_end_of_a_long_pause(paused: tuple[RedisGroups, Collector]) -> None:
    groups, sink = paused
    groups.watch({"b"}, ())
    sink.wait("restored")
