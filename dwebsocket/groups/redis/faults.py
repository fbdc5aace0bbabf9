"""Faults, in sentences that say what to do."""

from __future__ import annotations

import re
from collections.abc import Sequence


class Broken(Exception):
    """The server is not there, or does not answer: that passes."""


class Refused(Exception):
    """The server is there, and does not do what it is asked: a setting must be changed, here or there."""


class Unfit(Refused):
    """The server is of the wrong kind: a replica, a cluster, too old."""


class Replica(Unfit):
    """The server is a replica."""


class Moved(Broken):
    """The server is the primary no more, by the word of the sentinels or its own: they name another one."""


_NO_CLUSTER = "write a server without cluster-enabled into LOCATION, or a list of several, which share the groups"

#: What a user of an ACL may do: for messages, for a history, for presence. Scripts are checked command by command.
RIGHTS = (
    "+publish +subscribe +unsubscribe +ping +eval +set +select "
    "+evalsha +info +get +hmget +hset +hincrby +pexpire +del +xadd +xrange "
    "+time +hdel +hget +hgetall +hlen +hscan +sadd +srandmember +srem +zadd +zrange +zrem +zscore"
)

#: How a sentence of the server, or of a library, begins or what it has in it, and what to do. The first one counts.
_REFUSALS: Sequence[tuple[str, str]] = (
    (r"^NOAUTH|Authentication required", "it wants a password: write it into LOCATION (redis://user:password@host)"),
    (
        r"^WRONGPASS|invalid password|invalid username-password",
        "it does not accept the user or the password of LOCATION: write those of its ACL (requirepass has no user)",
    ),
    (
        r"called without any password configured",
        "it has no password: leave the one of LOCATION out, or set requirepass there",
    ),
    (
        r"NOPERM.*channel|No permissions to access a channel|user executing the script.*channel",
        "the user of LOCATION may not use the channels of KEY_PREFIX: give it '&<KEY_PREFIX>:*' with ACL SETUSER",
    ),
    (
        r"NOPERM.*key|No permissions to access a key|user executing the script.*keys",
        "the user of LOCATION may not use the keys of KEY_PREFIX: give it '~<KEY_PREFIX>:*' with ACL SETUSER",
    ),
    (
        r"NOPERM|user executing the script|ACL failure in script",
        f"the user of LOCATION lacks a command: give it {RIGHTS} with ACL SETUSER",
    ),
    (r"\bOOM\b", "its memory is full: raise maxmemory there, or set a maxmemory-policy"),
    (r"READONLY", "it is a replica: write the address of the primary into LOCATION"),
    (r"MOVED|CLUSTERDOWN|CROSSSLOT", f"it runs in cluster mode: {_NO_CLUSTER}"),
    (
        r"max number of clients",
        "it takes no more clients: raise maxclients there, or start fewer processes",
    ),
    (
        r"DENIED Redis is running in protected mode",
        "it is in protected mode: set a password there",
    ),
    (r"DB index is out of range|Invalid Database", "it has no such database: write a smaller number into LOCATION"),
    (r"unknown command.*HELLO|NOPROTO", "it is older than 6.2: Redis 6.2 and newer will do, and Valkey"),
    (
        r"WRONG_VERSION_NUMBER|wrong version number|record layer failure|UNEXPECTED_MESSAGE",
        "it does not speak TLS on this port: write redis:// instead of rediss://, or the TLS port",
    ),
    (r'Protocol error, got "\\x1[56]"', "it speaks TLS on this port: write rediss:// instead of redis://"),
    (r"Protocol error, got", "what answers is no Redis: look at the host and the port of LOCATION"),
    (
        r"CERTIFICATE_VERIFY_FAILED|certificate verify failed",
        "its certificate is not trusted: give OPTIONS an 'ssl_ca_certs', the file of the authority that signed it",
    ),
    (
        r"certificate required|CERTIFICATE_REQUIRED|handshake failure",
        "it wants a certificate of its clients: give OPTIONS 'ssl_certfile' and 'ssl_keyfile'",
    ),
)

#: The same for what passes, with a guess at the cause where there is one.
_BREAKS: Sequence[tuple[str, str]] = (
    (r"No such file or directory|Errno 2\b", "there is no such socket: is the server running, with this unixsocket?"),
    (r"Permission denied|Errno 13\b", "this process may not open the socket: look at unixsocketperm"),
    (r"Connection refused|Errno 111\b|Errno 61\b", "it refuses connections: is it running, and is the port right?"),
    (
        r"Name or service not known|name resolution|nodename nor servname|Errno -[2-5]\b",
        "there is no address for its name: look at the host of LOCATION, and at the DNS",
    ),
)

_EARLY_END = {
    False: "it closed the connection before it had answered (a port for TLS wants rediss:// in LOCATION)",
    True: "it closed the connection within the TLS handshake (a server that asks for a certificate wants OPTIONS "
    "'ssl_certfile' and 'ssl_keyfile'; a port without TLS wants redis:// in LOCATION)",
}
_TLS_SILENCE = "it did not answer within the TLS handshake (a port without TLS wants redis:// in LOCATION)"


def explain(said: str) -> Exception:
    """`Refused` or `Broken`, from what the server or a library said."""
    for kind, table in ((Refused, _REFUSALS), (Broken, _BREAKS)):
        for pattern, words in table:
            if re.search(pattern, said):
                return kind(f"{words} ({said})")
    return Broken(said)


def explain_connect(error: BaseException, is_tls: bool) -> Exception:
    """The same for an error while a connection is made: then the end of it, or silence, has a likely cause."""
    found = explain(str(error) or type(error).__name__)
    if isinstance(found, Refused) or found.args[0] != str(error):
        return found
    if re.search(r"closed by server|Connection reset|EOF|Broken pipe", found.args[0]):
        return Broken(f"{_EARLY_END[is_tls]} ({found})")
    if is_tls and re.search(r"[Tt]imed? ?out", found.args[0]):
        return Broken(f"{_TLS_SILENCE} ({found})")
    return found


def judge_hello(answer: Sequence[object]) -> None:
    """Refuse a server that does not do, by its answer to HELLO: names and values in turn."""
    facts = dict(zip(answer[::2], answer[1::2], strict=False))
    version = facts.get(b"version")
    text = version.decode(errors="replace") if isinstance(version, bytes) else ""
    numbers = tuple(int(number) for number in re.findall(r"\d+", text)[:2])
    if numbers < (6, 2):
        raise Unfit(f"it is version {text or 'unknown'}: Redis 6.2 and newer will do, and Valkey")
    if facts.get(b"mode") == b"cluster":
        raise Unfit(f"it runs in cluster mode: {_NO_CLUSTER}")
    if facts.get(b"mode") == b"sentinel":
        raise Unfit("it is a Sentinel: write redis+sentinel://host:port/0/name, with the name of the service")
    if facts.get(b"role") in (b"replica", b"slave"):
        raise Replica("it is a replica: write the address of the primary into LOCATION")


def as_fault(error: Exception) -> Exception:
    """`error` where it is one of ours; else the sentence for it."""
    return error if isinstance(error, (Broken, Refused)) else explain(str(error) or type(error).__name__)
