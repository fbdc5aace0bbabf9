from __future__ import annotations

from typing import Any

import pytest

from dwebsocket.groups.redis import faults
from dwebsocket.groups.redis.faults import Broken, Refused


@pytest.mark.parametrize(
    ("said", "kind", "advice"),
    [
        ("NOAUTH Authentication required.", Refused, "write it into LOCATION"),
        ("NOAUTH HELLO must be called with the client already authenticated", Refused, "write it into LOCATION"),
        ("WRONGPASS invalid username-password pair or user is disabled.", Refused, "write those of its ACL"),
        ("AUTH <password> called without any password configured for the default user.", Refused, "leave the one"),
        ("NOPERM this user has no permissions to access one of the channels used as arguments", Refused, "'&<KEY_"),
        ("NOPERM No permissions to access a channel", Refused, "'&<KEY_PREFIX>:*'"),
        ("NOPERM this user has no permissions to access one of the keys used as arguments", Refused, "'~<KEY_"),
        ("NOPERM this user has no permissions to run the 'publish' command", Refused, "+publish"),
        (
            "ERR The user executing the script can't publish to the channel mentioned in the command script: 30b7, on "
            "@user_script:24.",
            Refused,
            "'&<KEY_PREFIX>:*'",
        ),
        (
            "ERR The user executing the script can't access at least one of the keys mentioned in the command",
            Refused,
            "'~<KEY_PREFIX>:*'",
        ),
        ("ERR The user executing the script can't run this command or subcommand script: 30b7", Refused, "+xadd"),
        ("ERR The user executing the script is lacking the permissions for the command", Refused, "+xadd"),
        ("ERR ACL failure in script: User a has no permissions to run the 'xadd' command script: ", Refused, "+xadd"),
        ("OOM command not allowed when used memory > 'maxmemory'.", Refused, "raise maxmemory"),
        ("READONLY You can't write against a read only replica.", Refused, "address of the primary"),
        ("MOVED 3999 127.0.0.1:6381", Refused, "cluster mode"),
        ("ERR max number of clients reached", Refused, "raise maxclients"),
        ("ERR DB index is out of range", Refused, "a smaller number"),
        ("ERR unknown command `HELLO`, with args beginning with:", Refused, "older than 6.2"),
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)", Refused, "redis:// instead of rediss://"),
        ('Protocol error, got "\\x15" as reply type byte', Refused, "rediss:// instead of redis://"),
        ('Protocol error, got "H" as reply type byte', Refused, "no Redis"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed", Refused, "'ssl_ca_certs'"),
        ("Error 2 connecting to unix socket: /x. No such file or directory.", Broken, "unixsocket"),
        ("Error 111 connecting to 127.0.0.1:6379. Connection refused.", Broken, "is it running"),
        ("Error -2 connecting to nohost:6379. Name or service not known.", Broken, "DNS"),
        ("LOADING Redis is loading the dataset in memory", Broken, "LOADING"),
    ],
)
def test_fault_is_explained_and_quoted(said: str, kind: type[Exception], advice: str) -> None:
    found = faults.explain(said)

    assert type(found) is kind
    assert advice in str(found)
    assert said in str(found)


@pytest.mark.parametrize(
    ("said", "is_tls", "advice"),
    [
        ("Connection closed by server.", False, "wants rediss://"),
        ("Error 104 while writing to socket. Connection reset by peer.", False, "wants rediss://"),
        ("EOF occurred in violation of protocol (_ssl.c:1006)", True, "wants redis://"),
        ("Timeout connecting to server", True, "wants redis://"),
        ("Timeout connecting to server", False, "Timeout connecting to server"),
        ("Error 111 connecting to h:1. Connection refused.", False, "is it running"),
        ("NOAUTH Authentication required.", True, "write it into LOCATION"),
    ],
)
def test_early_end_is_likely_the_wrong_port(said: str, is_tls: bool, advice: str) -> None:
    assert advice in str(faults.explain_connect(OSError(said), is_tls))


def test_fault_of_ours_is_left_as_it_is() -> None:
    fault = Broken("it is gone")

    assert faults.as_fault(fault) is fault
    assert str(faults.as_fault(TimeoutError())) == "TimeoutError"


def answer(facts: dict[bytes, Any]) -> list[Any]:
    return [part for fact in facts.items() for part in fact]


@pytest.mark.parametrize(
    "facts",
    [
        {b"version": b"6.2.0", b"mode": b"standalone", b"role": b"master"},
        {b"server": b"valkey", b"version": b"10.0.1", b"mode": b"standalone", b"role": b"master"},
    ],
)
def test_server_that_will_do_passes(facts: dict[bytes, object]) -> None:
    faults.judge_hello(answer(facts))


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ({b"version": b"6.0.16"}, "it is version 6.0.16: Redis 6.2 and newer"),
        ({b"version": b"5"}, "it is version 5"),
        ({b"version": None}, "it is version unknown"),
        ({b"mode": b"cluster"}, "without cluster-enabled"),
        ({b"mode": b"sentinel"}, "it is a Sentinel: write redis\\+sentinel://host:port/0/name"),
        ({b"role": b"replica"}, "address of the primary"),
        ({b"role": b"slave"}, "address of the primary"),
    ],
)
def test_server_that_will_not_do_is_refused(change: dict[bytes, Any], advice: str) -> None:
    facts = {b"version": b"7.0.15", b"mode": b"standalone", b"role": b"master"}

    with pytest.raises(Refused, match=advice):
        faults.judge_hello(answer({**facts, **change}))


def test_replica_is_a_fault_of_its_own() -> None:
    with pytest.raises(faults.Replica):
        faults.judge_hello([b"version", b"7.0.15", b"mode", b"standalone", b"role", b"replica"])
    assert issubclass(faults.Moved, Broken)  # it passes: the next attempt is soon
