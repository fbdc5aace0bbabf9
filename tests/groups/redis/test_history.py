"""The history of groups in Redis: what is kept, what is forgotten, and that a position never comes back."""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from select import select
from typing import Any

import hiredis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwebsocket.groups.backend import ONCE_SECONDS, Kept, Publication, Read, Want
from dwebsocket.groups.config import DEFAULTS
from dwebsocket.groups.messages import RESET, TEXT, Envelope
from dwebsocket.groups.position import Position
from dwebsocket.groups.redis import commands, faults, history
from dwebsocket.groups.redis.location import Location
from dwebsocket.groups.redis.scripts import UNKNOWN, Call
from dwebsocket.groups.redis.wire import NOTHING, Wire
from tests.groups.servers import PROGRAMS, RedisServer
from tests.links import PATIENCE_SECONDS, until

NewServer = Callable[..., RedisServer]

GROUP = "room:7"
FOREVER = 3600.0
_numbers = itertools.count()
_wires: list[Wire] = []


@pytest.fixture(autouse=True)
def _lines_are_closed() -> Iterator[None]:
    yield
    close_lines()


def close_lines() -> None:
    while _wires:
        _wires.pop().close()


class Line:
    """A connection. Before its first call it leaves its mark, unless the server is durable."""

    def __init__(self, url: str, names: commands.Names, is_durable: bool = False) -> None:
        self.wire = Location("default", {**DEFAULTS, "LOCATION": url}).connect("test")
        self.names = names
        _wires.append(self.wire)
        if not is_durable:
            self.ask(history.mark(names, secrets.token_hex(6)))

    def ask(self, *calls: Call) -> list[Any]:
        """The replies. The first call of each script is sent whole where the server does not know it."""
        replies = self.exchange([call.short() for call in calls])
        return [
            self.exchange([call.whole()])[0] if str(reply).startswith(UNKNOWN) else told(reply)
            for call, reply in zip(calls, replies, strict=True)
        ]

    def exchange(self, parts: Sequence[bytes]) -> list[Any]:
        replies = self.wire.exchange(b"".join(parts), len(parts), time.monotonic() + PATIENCE_SECONDS)
        return replies if len(parts) > 1 or str(replies[0]).startswith(UNKNOWN) else [told(replies[0])]


def told(reply: Any) -> Any:
    if isinstance(reply, hiredis.ReplyError):
        raise faults.explain(str(reply))
    return reply


class Room:
    """One group, on one line."""

    def __init__(
        self,
        server: RedisServer,
        prefix: str | None = None,
        *,
        url: str = "",
        size: int = 10,
        ttl: float = FOREVER,
        meta_ttl: float = FOREVER,
        is_durable: bool = False,
    ) -> None:
        self.prefix = prefix or f"h{next(_numbers)}"
        self.server, self.size, self.ttl = server, size, ttl
        self.names = commands.Names(self.prefix)
        self.channel = self.names.channel(GROUP)
        self._how: dict[str, Any] = {"meta_ttl": meta_ttl, "is_durable": is_durable}
        self.line = Line(url or server.url, self.names, is_durable)

    def append_call(self, payload: bytes, once: str | None = None) -> Call:
        publication = Publication(GROUP, payload, once, self.size, self.ttl)
        return history.append(self.names, publication, fresh=secrets.token_hex(6), **self._how)

    def append(self, *payloads: bytes, once: str | None = None) -> Position:
        """The position of the last of them."""
        replies = self.line.ask(*[self.append_call(payload, once) for payload in payloads])
        position = history.parse_append(replies[-1])
        assert position is not None
        return position

    def read(self, since: Position | None = None, latest: int = 0, max_bytes: int | None = None) -> Read:
        call = history.read(self.names, GROUP, Want(since, latest, max_bytes), fresh=secrets.token_hex(6), **self._how)
        return history.parse_read(self.line.ask(call)[0])

    def clear(self) -> Position:
        call = history.clear(self.names, GROUP, fresh=secrets.token_hex(6), **self._how)
        return history.parse_clear(self.line.ask(call)[0])

    def delete(self, key: bytes) -> None:
        """As an eviction does."""
        with self.server.client() as client:
            assert client.delete(key) == 1

    def kept(self) -> list[bytes]:
        return payloads(self.read(latest=self.size))


def payloads(read: Read) -> list[bytes]:
    return [payload for _, payload in read.entries]


class Ear:
    """Hears a channel."""

    def __init__(self, room: Room) -> None:
        self._line, self._room = Line(room.server.url, room.names), room
        self._line.exchange([commands.subscribe([room.channel])])

    def all(self) -> list[bytes]:
        """What has been published until now."""
        self._room.line.exchange([commands.publish(self._room.channel, b"the end")])
        heard: list[bytes] = []
        wire = self._line.wire
        while b"the end" not in heard:
            ready, _, _ = select([wire.socket], [], [], PATIENCE_SECONDS)
            assert ready, heard
            wire.read()
            while (reply := wire.gets()) is not NOTHING:
                heard.append(reply[2])
        return heard[:-1]


@pytest.fixture(params=sorted({"redis", *PROGRAMS}))
def started(request: pytest.FixtureRequest, new_server: NewServer) -> NewServer:
    """Starts servers of each kind in turn, that the test may ill-treat."""

    def start(**options: Any) -> RedisServer:
        return new_server(program=PROGRAMS[request.param], **options)

    return start


# What a history is.


def test_messages_are_kept_with_consecutive_offsets_of_one_epoch(any_server: RedisServer) -> None:
    room = Room(any_server)

    positions = [room.append(b"a"), room.append(b""), room.append(b" \x00\xff 3")]

    (epoch,) = {position.epoch for position in positions}
    assert [position.offset for position in positions] == [1, 2, 3]
    assert room.read(latest=10) == Read(Position(epoch, 3), [Kept(1, b"a"), Kept(2, b""), Kept(3, b" \x00\xff 3")])


def test_message_is_announced_with_its_position(any_server: RedisServer) -> None:
    room = Room(any_server)
    ear = Ear(room)
    payload = Envelope(TEXT, b"\x00 \xff", b"a:7", b"k").serialize()

    position = room.append(payload)

    (data,) = ear.all()
    assert history.split(data) == (payload, position)


def test_oldest_message_is_dropped_where_the_history_is_full(any_server: RedisServer) -> None:
    room = Room(any_server, size=3)

    room.append(b"1", b"2", b"3", b"4", b"5")
    assert room.kept() == [b"3", b"4", b"5"]

    room.size = 1
    room.append(b"6")
    assert room.kept() == [b"6"]


def test_group_without_messages_has_a_position_before_the_first(any_server: RedisServer) -> None:
    room = Room(any_server)

    before = room.read(latest=5)
    assert before.top.offset == 0
    assert before.entries == []
    assert room.read().top == before.top
    assert room.append(b"1") == Position(before.top.epoch, 1)


def test_read_gives_what_came_since_and_at_least_the_latest(any_server: RedisServer) -> None:
    room = Room(any_server, size=4)
    epoch = room.append(b"1", b"2", b"3", b"4", b"5", b"6").epoch

    def got(since: int | None, latest: int) -> list[bytes]:
        return payloads(room.read(None if since is None else Position(epoch, since), latest))

    assert got(None, 0) == []
    assert got(6, 0) == []
    assert got(4, 0) == [b"5", b"6"]
    assert got(5, 2) == [b"5", b"6"]
    assert got(4, 1) == [b"5", b"6"]
    assert got(None, 2) == [b"5", b"6"]
    assert got(0, 0) == [b"3", b"4", b"5", b"6"]
    assert got(None, 100) == [b"3", b"4", b"5", b"6"]
    assert got(7, 1) == [b"6"]
    assert got(10**50, 0) == []  # a page may say anything
    assert payloads(room.read(Position("another", 2), 1)) == [b"6"]
    assert room.read(Position(epoch, 2)).reaches_back_to(Position(epoch, 2))
    assert not room.read(Position(epoch, 1)).reaches_back_to(Position(epoch, 1))


def test_no_more_bytes_are_read_than_are_wanted(any_server: RedisServer) -> None:
    """A page may ask for all: 10,000 messages of 10 KiB would take the server longer than anyone waits."""
    room = Room(any_server, size=500)
    room.append(*[b"%03d" % number for number in range(300)])
    assert payloads(room.read(latest=500)) == [b"%03d" % number for number in range(300)]
    for max_bytes, count in ((0, 1), (8, 3), (3 * 120, 121), (3 * 300, 300), (1 << 60, 300)):
        found = room.read(Position(room.read().top.epoch, 0), max_bytes=max_bytes)
        assert payloads(found) == [b"%03d" % number for number in range(300 - count, 300)]
        assert found.entries[0].offset == 301 - count


def test_offsets_are_exact_up_to_the_largest_that_lua_can_count(any_server: RedisServer) -> None:
    room = Room(any_server, size=3)
    ear = Ear(room)
    room.append(b"1")
    room.delete(room.names.stream(GROUP))
    with any_server.client() as client:
        client.hset(room.names.meta(GROUP), "o", 2**53 - 4)

    positions = [room.append(b"a"), room.append(b"b"), room.append(b"c")]

    epoch = positions[0].epoch
    assert [position.offset for position in positions] == [2**53 - 3, 2**53 - 2, 2**53 - 1]
    assert room.read(Position(epoch, 2**53 - 3)).entries == [Kept(2**53 - 2, b"b"), Kept(2**53 - 1, b"c")]
    assert [history.split(data)[1] for data in ear.all()[1:]] == positions


def test_histories_of_groups_whose_names_have_colons_are_their_own(server: RedisServer) -> None:
    names = commands.Names("p")
    keys = [key(group) for key in (names.meta, names.stream) for group in ("a", "a:b", "m:a", "run", "s:a")]

    assert len({*keys, names.run()}) == len(keys) + 1


# Once.


def test_second_message_with_its_once_has_the_position_of_the_first_and_does_nothing(any_server: RedisServer) -> None:
    room = Room(any_server)
    ear = Ear(room)

    first = room.append(b"1", once="k")
    room.append(b"2")
    assert room.append(b"not again", once="k") == first
    assert room.append(b"3", once="another").offset == 3

    assert room.kept() == [b"1", b"2", b"3"]
    assert len(ear.all()) == 3
    with any_server.client() as client:
        assert 0 < client.ttl(room.names.once(GROUP, "k")) <= ONCE_SECONDS


def test_message_whose_once_was_sent_before_the_group_had_a_history_has_no_position(any_server: RedisServer) -> None:
    room = Room(any_server)
    plain = commands.command(
        b"EVAL", commands._ONCE, b"1", room.names.once(GROUP, "k"), room.channel, b"x", b"%d" % ONCE_SECONDS
    )
    room.line.exchange([plain])

    (reply,) = room.line.ask(room.append_call(b"x", "k"))

    assert history.parse_append(reply) is None
    assert room.kept() == []


def test_once_of_a_history_is_seen_by_one_who_knows_of_no_history(any_server: RedisServer) -> None:
    room = Room(any_server)
    room.append(b"1", once="k")
    ear = Ear(room)

    room.line.exchange(
        [commands.command(b"EVAL", commands._ONCE, b"1", room.names.once(GROUP, "k"), room.channel, b"x", b"300")]
    )

    assert ear.all() == []


# Clear.


def test_cleared_history_has_a_new_epoch_which_is_announced(any_server: RedisServer) -> None:
    room = Room(any_server)
    last = room.append(b"1", b"2")
    ear = Ear(room)

    position = room.clear()

    assert position.offset == 0
    assert position.epoch != last.epoch
    assert room.read(last, 10) == Read(position, [])
    (data,) = ear.all()
    payload, announced = history.split(data)
    envelope = Envelope.parse(payload)
    assert announced == position
    assert envelope == Envelope(RESET, str(last).encode())
    assert envelope.previous() == last
    assert room.append(b"3") == Position(position.epoch, 1)


def test_clear_names_no_previous_position_that_the_server_does_not_know_for_certain(any_server: RedisServer) -> None:
    room = Room(any_server)
    ear = Ear(room)

    room.clear()  # of a group that never was
    room.append(b"1")
    live_another_life(room)
    room.clear()

    found = [history.split(data)[0] for data in ear.all()]
    assert [Envelope.parse(payload).previous() for payload in (found[0], found[2])] == [None, None]


# What goes by itself: time, memory, an operator.


def test_messages_expire_together_and_the_epoch_stays(any_server: RedisServer) -> None:
    room = Room(any_server, ttl=0.05)
    last = room.append(b"1", b"2")

    until(lambda: not room.kept() or None, "the messages to expire")

    assert room.read(last) == Read(last, [])
    assert not room.read(Position(last.epoch, 1)).reaches_back_to(Position(last.epoch, 1))
    room.ttl = FOREVER
    assert room.append(b"3") == Position(last.epoch, 3)
    assert room.read(last).entries == [Kept(3, b"3")]


def test_each_message_keeps_the_whole_history_for_longer(any_server: RedisServer) -> None:
    room = Room(any_server)
    room.append(b"1")
    with any_server.client() as client:
        client.pexpire(room.names.stream(GROUP), 60_000)
        room.append(b"2")
        assert client.pttl(room.names.stream(GROUP)) > 60_000


@pytest.mark.parametrize(
    "use", [Room.read, lambda room: room.append(b"2"), Room.clear], ids=["read", "append", "clear"]
)
def test_every_use_keeps_the_epoch_alive(any_server: RedisServer, use: Callable[[Room], Any]) -> None:
    room = Room(any_server)
    room.append(b"1")
    with any_server.client() as client:
        client.pexpire(room.names.meta(GROUP), 60_000)
        use(room)
        assert client.pttl(room.names.meta(GROUP)) > 60_000


def test_history_that_is_never_used_is_forgotten_whole(any_server: RedisServer) -> None:
    room = Room(any_server, ttl=0.05, meta_ttl=0.05)
    room.append(b"1")
    room.read()

    with any_server.client() as client:
        until(lambda: not client.exists(room.names.meta(GROUP), room.names.stream(GROUP)) or None, "both to expire")


def test_group_without_messages_is_not_remembered_for_long(any_server: RedisServer) -> None:
    """A page that joins a million of them, each with another name, fills no server for 30 days."""
    days = 10 * FOREVER
    room = Room(any_server, meta_ttl=days)
    meta = room.names.meta(GROUP)
    with any_server.client() as client:
        room.read()
        assert history.EMPTY_SECONDS - 60 < client.ttl(meta) <= history.EMPTY_SECONDS
        room.append(b"1")
        assert client.ttl(meta) > days - 60
        room.read()
        assert client.ttl(meta) > days - 60


def test_epoch_that_has_gone_takes_its_messages_with_it(any_server: RedisServer) -> None:
    room = Room(any_server)
    last = room.append(b"1", b"2", b"3")
    room.delete(room.names.meta(GROUP))

    found = room.read(last, 10)

    assert found.top.epoch != last.epoch
    assert (found.top.offset, found.entries) == (0, [])
    assert room.append(b"4") == Position(found.top.epoch, 1)
    room.delete(room.names.meta(GROUP))
    assert room.append(b"5").offset == 1  # below the IDs of the stream that was left
    assert room.kept() == [b"5"]


def test_messages_that_have_gone_leave_the_epoch(any_server: RedisServer) -> None:
    room = Room(any_server)
    last = room.append(b"1", b"2", b"3")
    room.delete(room.names.stream(GROUP))

    assert room.read(Position(last.epoch, 1), 10) == Read(last, [])
    assert room.append(b"4") == Position(last.epoch, 4)
    assert room.read(Position(last.epoch, 1)).entries == [Kept(4, b"4")]


def test_message_in_the_middle_that_has_gone_takes_those_before_with_it(any_server: RedisServer) -> None:
    room = Room(any_server)
    room.append(b"1", b"2", b"3", b"4")
    with any_server.client() as client:
        client.xdel(room.names.stream(GROUP), "2-0")
        assert room.kept() == [b"3", b"4"]
        client.xdel(room.names.stream(GROUP), "4-0")
        assert room.kept() == []


def test_once_that_has_gone_lets_the_message_come_again(any_server: RedisServer) -> None:
    room = Room(any_server)
    room.append(b"1", once="k")
    room.delete(room.names.once(GROUP, "k"))

    assert room.append(b"1", once="k").offset == 2


def test_mark_that_has_gone_ends_every_epoch_once(any_server: RedisServer) -> None:
    room = Room(any_server)
    epochs = [room.append(b"1").epoch]
    room.delete(room.names.run())
    epochs += [room.append(b"2").epoch, room.append(b"3").epoch]
    later = Room(any_server, room.prefix)
    epochs += [later.append(b"4").epoch, room.append(b"5").epoch]

    assert epochs[0] != epochs[1]
    assert len({*epochs[1:]}) == 1
    assert later.kept() == [b"2", b"3", b"4", b"5"]


def test_mark_that_goes_twice_makes_no_epoch_valid_again(any_server: RedisServer) -> None:
    room = Room(any_server)
    room.delete(room.names.run())
    last = room.append(b"1")
    live_another_life(room)
    room.delete(room.names.run())

    assert room.read(last).top.epoch != last.epoch


def test_emptied_server_begins_another_epoch(started: NewServer) -> None:
    server = started()
    room = Room(server)
    last = room.append(b"1", b"2")
    with server.client() as client:
        client.flushall()

    found = room.read(last, 10)

    assert found.top.epoch != last.epoch
    assert found.entries == []


# Another life of the server.


def live_another_life(room: Room) -> None:
    """As a restart does, for who looks at the keys."""
    with room.server.client() as client:
        client.set(room.names.run(), secrets.token_hex(6))


def test_connection_finds_the_mark_of_the_same_life(any_server: RedisServer) -> None:
    room = Room(any_server)
    last = room.append(b"1")

    another = Room(any_server, room.prefix)

    assert another.append(b"2") == Position(last.epoch, 2)


def test_other_life_ends_each_epoch_at_its_next_use(any_server: RedisServer) -> None:
    room = Room(any_server)
    last = room.append(b"1", b"2")
    live_another_life(room)

    after = room.append(b"3")
    assert (after.epoch != last.epoch, after.offset) == (True, 1)
    assert payloads(room.read(last, 10)) == [b"3"]
    live_another_life(room)
    found = room.read(after, 10)
    assert found.top.epoch not in (last.epoch, after.epoch)
    assert found.entries == []


def test_durable_server_is_believed_whatever_its_life(any_server: RedisServer) -> None:
    room = Room(any_server, is_durable=True)
    last = room.append(b"1")
    with any_server.client() as client:
        assert not client.exists(room.names.run())
    live_another_life(room)

    assert room.append(b"2") == Position(last.epoch, 2)
    assert room.read(last).entries == [Kept(2, b"2")]
    room.delete(room.names.meta(GROUP))
    assert room.append(b"3").epoch != last.epoch


@pytest.mark.parametrize("persistence", ["none", "rdb", "aof"])
def test_server_that_comes_back_older_gives_no_offset_again(started: NewServer, persistence: str) -> None:
    server = started(persistence=persistence)
    room = Room(server)
    room.append(*[b"%d" % n for n in range(1, 6)])
    if persistence == "rdb":
        with server.client() as client:
            client.save()
    last = room.append(b"6", b"7", b"8")
    if persistence == "aof":
        with server.client() as client:  # while the disk is busy it keeps what it writes for a moment
            until(lambda: client.info("persistence")["aof_buffer_length"] == 0)
    server.restart()
    with server.client() as client:
        restored = client.hget(room.names.meta(GROUP), "o")
    assert restored == {"none": None, "rdb": b"5", "aof": b"8"}[persistence]

    back = Room(server, room.prefix)
    first = back.append(b"9")  # of a process that does not look first

    assert first.offset == 1
    assert first.epoch != last.epoch
    found = back.read(last, 10)
    assert not found.reaches_back_to(last)
    assert payloads(found) == [b"9"]


def test_durable_server_goes_on_where_it_was(started: NewServer) -> None:
    server = started(persistence="aof", settings={"appendfsync": "always"})
    room = Room(server, is_durable=True)
    last = room.append(b"1", b"2")
    server.restart()

    back = Room(server, room.prefix, is_durable=True)

    assert back.append(b"3") == Position(last.epoch, 3)
    assert back.kept() == [b"1", b"2", b"3"]


#: A primary begins to give its data to a replica after 5 seconds, else.
AT_ONCE = {"repl-diskless-sync-delay": "0"}


@pytest.fixture
def pair(started: NewServer) -> tuple[RedisServer, RedisServer]:
    """A primary, and its replica."""
    primary, replica = started(settings=AT_ONCE), started(settings=AT_ONCE)
    follow(replica, primary)
    return primary, replica


def follow(replica: RedisServer, primary: RedisServer) -> None:
    """Return when it has all that the other one has."""
    with primary.client() as theirs, replica.client() as client:
        client.replicaof("127.0.0.1", primary.port)

        def is_level() -> bool | None:
            facts = client.info("replication")
            offset = theirs.info("replication")["master_repl_offset"]
            return (facts["master_link_status"] == "up" and facts["slave_repl_offset"] == offset) or None

        until(is_level, "the replica to have all")


def cut_off(replica: RedisServer) -> None:
    """It is a replica still, and gets nothing any more: nothing listens on port 1."""
    with replica.client() as client:
        client.replicaof("127.0.0.1", 1)


def promote(replica: RedisServer) -> None:
    with replica.client() as client:
        client.replicaof("NO", "ONE")


def lagging(pair: tuple[RedisServer, RedisServer]) -> tuple[Room, Position]:
    """The primary has 8 messages, the replica 5."""
    primary, replica = pair
    room = Room(primary)
    room.append(*[b"%d" % n for n in range(1, 6)])
    follow(replica, primary)
    cut_off(replica)
    last = room.append(b"6", b"7", b"8")
    return room, last


def offset_at(server: RedisServer, room: Room) -> bytes:
    with server.client() as client:
        offset: bytes = client.hget(room.names.meta(GROUP), "o")
    return offset


def test_replica_that_was_behind_and_is_promoted_gives_no_offset_again(pair: tuple[RedisServer, RedisServer]) -> None:
    room, last = lagging(pair)
    _, replica = pair
    promote(replica)
    assert offset_at(replica, room) == b"5"

    back = Room(replica, room.prefix)

    assert back.append(b"9").offset == 1
    found = back.read(last, 10)
    assert found.top.epoch != last.epoch
    assert payloads(found) == [b"9"]


@pytest.mark.parametrize("is_used", [False, True])
def test_old_primary_that_is_promoted_again_gives_no_offset_again(
    pair: tuple[RedisServer, RedisServer], is_used: bool
) -> None:
    room, last = lagging(pair)
    primary, replica = pair
    promote(replica)
    epochs = {last.epoch}
    if is_used:  # another group is, so that this one has its old epoch still
        Line(replica.url, room.names)
    follow(primary, replica)  # it forgets what it had alone
    assert offset_at(primary, room) == b"5"
    promote(primary)

    back = Room(primary, room.prefix)  # the process has the run_id that it had

    first = back.append(b"9")
    assert first.offset == 1
    assert first.epoch not in epochs
    assert not back.read(last).reaches_back_to(last)


@pytest.mark.parametrize(
    "use", [lambda room: room.append(b"2"), Room.kept, Room.clear], ids=["append", "read", "clear"]
)
def test_server_that_is_a_replica_by_now_refuses(started: NewServer, use: Callable[[Room], Any]) -> None:
    server = started()
    room = Room(server)
    last = room.append(b"1")
    cut_off(server)

    with pytest.raises(faults.Refused, match="it is a replica"):
        use(room)

    promote(server)
    back = Room(server, room.prefix)
    assert back.read(last).top.epoch != last.epoch  # it may have had the data of another one in between


def test_server_that_gets_its_first_replica_keeps_its_epochs(
    pair: tuple[RedisServer, RedisServer], started: NewServer
) -> None:
    alone = started(settings=AT_ONCE)
    room = Room(alone)
    last = room.append(b"1")
    follow(pair[0], alone)

    assert Room(alone, room.prefix).append(b"2") == Position(last.epoch, 2)


# Faults of the server.


@pytest.fixture
def full(started: NewServer) -> Iterator[tuple[RedisServer, Callable[[int], None]]]:
    """A server, and what sets its maxmemory: 1 is full, 0 is not."""
    server = started()
    with server.client() as client:
        yield server, lambda size: client.config_set("maxmemory", size)


@pytest.mark.parametrize("state", ["new", "alive", "of another life", "of no known life"])
@pytest.mark.parametrize("once", [None, "k"])
def test_full_server_keeps_and_announces_nothing(
    full: tuple[RedisServer, Callable[[int], None]], state: str, once: str | None
) -> None:
    server, limit = full
    room = Room(server)
    if state != "new":
        room.append(b"1", b"2")
    if state == "of another life":
        live_another_life(room)
    ear = Ear(room)
    if state == "of no known life":
        room.delete(room.names.run())
    keys = contents(room)

    limit(1)
    with pytest.raises(faults.Refused, match="its memory is full"):
        room.append(b"3", once=once)
    with pytest.raises(faults.Refused, match="its memory is full"):
        room.line.exchange([room.append_call(b"3", once).whole()])
    limit(0)

    assert contents(room) == keys
    assert ear.all() == []
    assert room.append(b"3", once=once).offset == (3 if state == "alive" else 1)


def contents(room: Room) -> list[Any]:
    with room.server.client() as client:
        return [
            client.hgetall(room.names.meta(GROUP)),
            client.xrange(room.names.stream(GROUP)),
            client.mget(room.names.once(GROUP, "k"), room.names.run()),
        ]


def test_full_server_is_read_and_cleared(full: tuple[RedisServer, Callable[[int], None]]) -> None:
    server, limit = full
    room = Room(server)
    last = room.append(b"1", b"2")
    limit(1)

    assert room.read(latest=2).top == last
    assert room.kept() == [b"1", b"2"]
    cleared = room.clear()
    assert room.read(latest=2) == Read(cleared, [])


def test_server_that_has_forgotten_the_scripts_has_done_nothing(started: NewServer) -> None:
    server = started()
    room = Room(server)
    room.append(b"1")
    with server.client() as client:
        client.script_flush()

    (reply,) = room.line.wire.exchange(room.append_call(b"2").short(), 1, time.monotonic() + PATIENCE_SECONDS)

    assert str(reply).startswith(UNKNOWN)
    assert room.append(b"2").offset == 2
    assert room.kept() == [b"1", b"2"]


def test_user_of_an_acl_needs_no_more_than_is_said(started: NewServer) -> None:
    server = started(users=[f"shop on >secret resetchannels ~dws:* &dws:* {faults.RIGHTS}"])
    room = Room(server, "dws", url=f"redis://shop:secret@127.0.0.1:{server.port}/1")

    first = room.append(b"1", once="k")
    assert room.append(b"1", once="k") == first
    assert room.kept() == [b"1"]
    room.clear()
    assert room.kept() == []


COMMANDS = ["evalsha", "info", "get", "hmget", "hset", "hincrby", "pexpire", "del", "xadd", "xrange", "set", "publish"]


@pytest.mark.parametrize(
    ("rights", "advice"),
    [
        *[(f"~* &* +@all -{right}", rf"give it .*\+{right}\b") for right in COMMANDS],
        ("~* resetchannels &other:* +@all", "give it '&<KEY_PREFIX>"),
        ("~other:* &* +@all", "give it '~<KEY_PREFIX>"),
    ],
)
def test_user_who_may_not_is_told_what_is_missing(started: NewServer, rights: str, advice: str) -> None:
    server = started(users=[f"shop on >secret {rights}"])

    with pytest.raises(faults.Refused, match=advice):
        room = Room(server, url=f"redis://shop:secret@127.0.0.1:{server.port}")
        room.append(b"1")
        room.kept()


def test_rights_that_are_told_are_all_that_there_are() -> None:
    assert {f"+{right}" for right in COMMANDS} <= {*faults.RIGHTS.split()}


# Many at once.


def test_messages_of_many_threads_have_consecutive_offsets_and_arrive_in_their_order(any_server: RedisServer) -> None:
    room = Room(any_server, size=10_000)
    ear = Ear(room)
    positions: list[list[Position]] = [[] for _ in range(8)]

    def send(number: int) -> None:
        mine = Room(any_server, room.prefix, size=10_000)
        for count in range(50):
            positions[number].append(mine.append(b"%d %d" % (number, count)))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)

    heard = [history.split(data) for data in ear.all()]
    (epoch,) = {position.epoch for row in positions for position in row}
    assert [position for _, position in heard] == [Position(epoch, n) for n in range(1, 401)]
    assert room.kept() == [payload for payload, _ in heard]
    for number, row in enumerate(positions):
        assert row == sorted(row)
        sent = [(b"%d %d" % (number, count), position) for count, position in enumerate(row)]
        assert [one for one in heard if one[0].startswith(b"%d " % number)] == sent


class Model:
    """What a group is, in a few lines. `epoch` counts the epochs, `run` the lives of the server."""

    def __init__(self) -> None:
        self.epoch, self.offset = 0, 0
        self.kept: list[Kept] = []
        self.once: dict[str, tuple[int, int]] = {}
        self.lives = 1
        self.run: int | None = 1
        self.is_ours = True  # `run` is of this server: the mark leaves it as it is
        self.began_in: int | None = None

    def live(self, is_ours: bool) -> None:
        self.lives += 1
        self.run, self.is_ours = self.lives, is_ours

    def is_alive(self) -> bool:
        if self.run is None:
            self.live(True)
        return self.began_in == self.run

    def use(self) -> None:
        if not self.is_alive():
            self.begin()

    def begin(self) -> None:
        self.epoch, self.offset, self.began_in, self.kept = self.epoch + 1, 0, self.run, []

    def append(self, payload: bytes, size: int, once: str | None) -> tuple[int, int]:
        if once in self.once:
            return self.once[once]
        self.use()
        self.offset += 1
        self.kept = [*self.kept, Kept(self.offset, payload)][-size:]
        if once is not None:
            self.once[once] = self.epoch, self.offset
        return self.epoch, self.offset

    def read(self, since: tuple[int, int] | None, latest: int) -> list[Kept]:
        self.use()
        first = self.offset - latest
        if since is not None and since[0] == self.epoch:
            first = min(first, since[1])
        return [one for one in self.kept if one.offset > first]


STEPS = st.one_of(
    st.tuples(
        st.just("append"), st.binary(max_size=20), st.integers(1, 4), st.sampled_from([None, None, None, "k", "l"])
    ),
    st.tuples(st.just("read"), st.integers(0, 30), st.integers(0, 5)),
    st.tuples(st.sampled_from(["clear", "no meta", "no stream", "no run", "no once", "life", "mark", "flush"])),
)


@settings(max_examples=60)
@given(st.lists(STEPS, min_size=5, max_size=30))
def test_scripts_do_what_the_model_does(server: RedisServer, steps: list[tuple[Any, ...]]) -> None:
    room, model = Room(server), Model()
    ear = Ear(room)
    epochs: dict[str, int] = {}
    known: list[Position] = []
    announced: list[tuple[bytes, Position]] = []

    def check(position: Position) -> tuple[int, int]:
        known.append(position)
        return epochs.setdefault(position.epoch, model.epoch), position.offset

    with server.client() as client:
        for what, *how in steps:
            if what == "append":
                payload, room.size, once = how
                count, epoch, offset = len(model.once), model.epoch, model.offset
                expected = model.append(payload, room.size, once)
                position = room.append(payload, once=once)
                assert check(position) == expected
                if (model.epoch, model.offset) != (epoch, offset) or len(model.once) != count:
                    announced.append((payload, position))
            elif what == "read":
                number, latest = how
                since = known[number % len(known)] if known else None
                entries = model.read(since and (epochs[since.epoch], since.offset), latest)
                found = room.read(since, latest)
                assert check(found.top) == (model.epoch, model.offset)
                assert found.entries == entries
            elif what == "clear":
                previous = known_position(model, epochs)
                model.begin()
                position = room.clear()
                assert check(position) == (model.epoch, 0)
                announced.append((Envelope(RESET, previous).serialize(), position))
            else:
                harm(what, client, room, model)
    assert [history.split(data) for data in ear.all()] == announced
    assert len(epochs) == len({*epochs.values()})
    close_lines()  # an example has two


def known_position(model: Model, epochs: dict[str, int]) -> bytes:
    if not model.is_alive():
        return b""
    names = {number: name for name, number in epochs.items()}
    return f"{names[model.epoch]}-{model.offset}".encode()


def harm(what: str, client: Any, room: Room, model: Model) -> None:
    names = room.names
    if what == "no stream":
        client.delete(names.stream(GROUP))
        model.kept = []
    elif what == "no once":
        client.delete(names.once(GROUP, "k"), names.once(GROUP, "l"))
        model.once = {}
    elif what == "no meta":
        client.delete(names.meta(GROUP))
        model.began_in = None
    elif what == "no run":
        client.delete(names.run())
        model.run = None
    elif what == "life":
        client.set(names.run(), secrets.token_hex(6))
        model.live(False)
    elif what == "mark":
        room.line.ask(history.mark(names, secrets.token_hex(6)))
        if model.run is None or not model.is_ours:
            model.live(True)
    else:
        client.script_flush()


# What comes on a channel.


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"t  0 hello", (b"t  0 hello", None)),
        (b"", (b"", None)),
        (b"17 abc t  0 hello", (b"t  0 hello", Position("abc", 17))),
        (b"0 abc r  0 abb-7", (b"r  0 abb-7", Position("abc", 0))),
        (b"1 abc ", (b"", Position("abc", 1))),
        (b"17", (b"17", None)),
        (b"17 abc", (b"17 abc", None)),
        (b"1x abc t  0 a", (b"1x abc t  0 a", None)),
        (b"1 \xff t  0 a", (b"1 \xff t  0 a", None)),
    ],
)
def test_position_is_split_from_what_has_come(data: bytes, expected: tuple[bytes, Position | None]) -> None:
    assert history.split(data) == expected


# The last positions of many groups


def look(room: Room, *groups: str) -> list[Position | None]:
    how = {**room._how, "empty_ttl": 60}
    return history.parse_look(room.line.ask(history.look(room.names, groups, **how))[0])


def test_last_positions_of_many_groups_are_one_command(any_server: RedisServer) -> None:
    room = Room(any_server)
    position = room.append(b"1", b"2")
    assert look(room, GROUP, "never used", GROUP) == [position, None, position]
    empty = Room(any_server, room.prefix)
    empty.read()
    assert look(room, GROUP) == [position]


def test_position_of_another_life_is_none(any_server: RedisServer) -> None:
    room = Room(any_server)
    room.append(b"1")
    room.delete(room.names.run())
    assert look(room, GROUP) == [None], "read() sees to it"
    assert room.read().top.offset == 0
    room.delete(room.names.meta(GROUP))
    assert look(room, GROUP) == [None]


def test_durable_server_has_one_life(any_server: RedisServer) -> None:
    room = Room(any_server, is_durable=True)
    position = room.append(b"1")
    assert look(room, GROUP) == [position]


def test_to_be_asked_for_keeps_a_position_alive(any_server: RedisServer) -> None:
    room = Room(any_server, meta_ttl=30)
    position = room.append(b"1")
    with any_server.client() as client:
        client.pexpire(room.names.meta(GROUP), 5000)
        assert look(room, GROUP) == [position]
        assert client.pttl(room.names.meta(GROUP)) > 20_000
