"""Commands for the server, in bytes (RESP2), and the names of its channels and keys."""

from __future__ import annotations

from collections.abc import Sequence

from ..backend import ONCE_SECONDS, Publication

# Sent whole, not as EVALSHA: a server that has forgotten a script (SCRIPT FLUSH, a restart, a failover) would refuse
# one command in the middle of a pipeline, and what comes after it would overtake it. It is compiled once all the same.
_ONCE = (
    b"if redis.call('SET',KEYS[1],'','NX','EX',ARGV[3]) then return redis.call('PUBLISH',ARGV[1],ARGV[2]) end return 0"
)


def command(*parts: bytes) -> bytes:
    return b"*%d\r\n" % len(parts) + b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts])


def publish(channel: bytes, payload: bytes) -> bytes:
    return b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(channel), channel, len(payload), payload)


def subscribe(channels: Sequence[bytes]) -> bytes:
    return command(b"SUBSCRIBE", *channels)


def unsubscribe(channels: Sequence[bytes]) -> bytes:
    return command(b"UNSUBSCRIBE", *channels)


#: The answer of a connection that has subscribed is [b"pong", b""].
PING = command(b"PING")


#: Every user may send it; its answer says what the server is (`faults.judge_hello()`).
HELLO = command(b"HELLO")


def hello(name: bytes) -> bytes:
    """HELLO; `name` is what CLIENT LIST shows from now on."""
    return command(b"HELLO", b"2", b"SETNAME", name)


class Names:
    """The channels and keys below KEY_PREFIX."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def channel(self, group: str) -> bytes:
        return f"{self._prefix}:g:{group}".encode()

    def node(self, node: str) -> bytes:
        """The channel of one process: it keeps the subscription alive, and probes come back on it."""
        return f"{self._prefix}:n:{node}".encode()

    def once(self, group: str, once: str) -> bytes:
        # A group may have colons: its length keeps ("a:b", "c") and ("a", "b:c") apart.
        return f"{self._prefix}:o:{len(group)}:{group}:{once}".encode()

    def meta(self, group: str) -> bytes:
        """The key of the epoch and the offset of a group."""
        return f"{self._prefix}:m:{group}".encode()

    def stream(self, group: str) -> bytes:
        """The key of the messages that a group keeps."""
        return f"{self._prefix}:s:{group}".encode()

    def run(self) -> bytes:
        """The key that names the life of the server."""
        return f"{self._prefix}:run".encode()

    def presence(self) -> bytes:
        """The beginning of all keys of presence; presence.py has the list."""
        return f"{self._prefix}:p:".encode()

    def nodes(self) -> bytes:
        """The key of the processes that have a lease."""
        return self.presence() + b"nodes"

    def publication(self, publication: Publication) -> bytes:
        """The command that publishes it to a group without a history."""
        group, payload, once = publication.group, publication.payload, publication.once
        channel = self.channel(group)
        if once is None:
            return publish(channel, payload)
        return command(b"EVAL", _ONCE, b"1", self.once(group, once), channel, payload, b"%d" % ONCE_SECONDS)
