"""The history of groups in Redis: calls of scripts, and what their replies say.

A group has two keys. `meta` is a hash: e, the epoch; o, the offset of the last message; r, the `run` in which the epoch
began. `stream` has the messages, each with its offset as ID. A stream without its meta, or the other way round, is what
an eviction leaves: an epoch without its messages is told as such, messages without their epoch are deleted.

The key `run` names the life of the server: a server that has been restarted, perhaps with older data, and a replica
that has been promoted get another one by `mark()`. Then each epoch of before is over at its next use, for the server
may have lost messages that it had announced, and would give their offsets to others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..backend import ONCE_SECONDS, Kept, Publication, Read, Want
from ..messages import RESET, Envelope
from ..position import Position
from .commands import Names
from .scripts import Call, Script

#: So long, at most, the server remembers the epoch of a group that has had no message: pages may join many.
EMPTY_SECONDS = 3600.0

# run_id is of the process, and stays where it is demoted and promoted again; master_replid2 is then another one: that
# of the primary from which it had its data. Each of them alone would miss a life.
_SERVER = """
local function life()
  local process = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
  local origin = string.match(redis.call('INFO', 'replication'), 'master_replid2:(%w+)')
  return process .. ':' .. origin .. ' '
end
"""

# What is known of a group, and whether its epoch is valid. A `run` that has been evicted is never the same again: else
# an epoch without one would be valid once more after two evictions, with a restart in between.
_LIFE = (
    _SERVER
    + """
local meta, stream, fresh, meta_ttl = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local run = ''
if ARGV[3] == '0' then
  run = redis.call('GET', KEYS[3])
  if not run then
    run = life() .. fresh
    redis.call('SET', KEYS[3], run)
  end
end
local known = redis.call('HMGET', meta, 'e', 'o', 'r')
local epoch, top = known[1], known[2]
local is_alive = epoch and top and (ARGV[3] == '1' or known[3] == run)
"""
)

# A new epoch. HSET comes first (or SET above): a server whose memory is full refuses a script at the first command that
# takes memory, unless the script has written before, and then it runs to its end. So all of it happens, or nothing.
_BEGIN = """
if not is_alive then
  epoch, top = fresh, '0'
  redis.call('HSET', meta, 'e', epoch, 'o', top, 'r', run)
  redis.call('DEL', stream)
end
"""

# An offset is formatted: as text of Lua 10^15 is 1e+15.
_APPEND = Script(
    """
if KEYS[4] then
  local first = redis.call('GET', KEYS[4])
  if first then return first end
end
"""
    + _LIFE
    + _BEGIN
    + """
local channel, payload, size, ttl = ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local offset = string.format('%.0f', redis.call('HINCRBY', meta, 'o', 1))
redis.call('PEXPIRE', meta, meta_ttl)
redis.call('XADD', stream, 'MAXLEN', size, offset .. '-0', 'd', payload)
redis.call('PEXPIRE', stream, ttl)
local position = epoch .. '-' .. offset
if KEYS[4] then redis.call('SET', KEYS[4], position, 'EX', ARGV[8]) end
redis.call('PUBLISH', channel, offset .. ' ' .. epoch .. ' ' .. payload)
return position
"""
)

_READ = Script(
    _LIFE
    + _BEGIN
    + """
local since_epoch, since, latest, max_bytes = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
redis.call('PEXPIRE', meta, top == '0' and math.min(meta_ttl, ARGV[8]) or meta_ttl)
local first = tonumber(top) - latest + 1
if since_epoch == epoch and since + 1 < first then first = since + 1 end
if first < 1 then first = 1 end
if first > tonumber(top) then return {epoch, top, {}} end
local found, size, to, is_whole = {}, 0, tonumber(top), true
while is_whole and to >= first do
  local from = math.max(first, to - 49)
  local page = redis.call('XRANGE', stream, string.format('%.0f-0', from), string.format('%.0f-0', to))
  for at = #page, 1, -1 do
    table.insert(found, page[at])
    size = size + #page[at][2][2]
    if size > max_bytes then return {epoch, top, found} end
  end
  is_whole, to = #page > to - from, from - 1
end
return {epoch, top, found}
"""
)

# The last positions of many groups, whose metas are KEYS behind the run; '' where that takes a read.
_LOOK = Script(
    """
local is_durable = ARGV[3] == '1'
local run = is_durable and '' or redis.call('GET', KEYS[1]) or ''
local found = {}
for at = 2, #KEYS do
  local known = redis.call('HMGET', KEYS[at], 'e', 'o', 'r')
  found[at - 1] = ''
  if known[1] and known[2] and (is_durable or known[3] == run) then
    redis.call('PEXPIRE', KEYS[at], known[2] == '0' and ARGV[2] or ARGV[1])
    found[at - 1] = known[1] .. '-' .. known[2]
  end
end
return found
"""
)

# DEL comes first here: what frees memory is done where memory is full, too.
_CLEAR = Script(
    _LIFE
    + """
local channel, reset = ARGV[4], ARGV[5]
redis.call('DEL', stream)
redis.call('HSET', meta, 'e', fresh, 'o', '0', 'r', run)
redis.call('PEXPIRE', meta, meta_ttl)
redis.call('PUBLISH', channel, '0 ' .. fresh .. ' ' .. reset .. (is_alive and epoch .. '-' .. top or ''))
return fresh .. '-0'
"""
)

_MARK = Script(
    _SERVER
    + """
local life, run = life(), redis.call('GET', KEYS[1])
if not run or string.sub(run, 1, #life) ~= life then
  run = life .. ARGV[1]
  redis.call('SET', KEYS[1], run)
end
return run
"""
)

_RESET = Envelope(RESET, b"").serialize()
_ONCE_SECONDS = b"%d" % ONCE_SECONDS
_NINE = ord("9")
_NO_BOUND = 2**53


def append(names: Names, publication: Publication, *, fresh: str, meta_ttl: float, is_durable: bool) -> Call:
    """Keep a message, and announce it. `fresh` is the epoch that begins where none is valid."""
    group, payload, once, size, ttl = publication
    keys, life = _life(names, group, fresh, meta_ttl, is_durable)
    arguments = [*life, names.channel(group), payload, b"%d" % size, _milliseconds(ttl)]
    if once is None:
        return _APPEND.call(keys, arguments)
    return _APPEND.call([*keys, names.once(group, once)], [*arguments, _ONCE_SECONDS])


def parse_append(reply: bytes) -> Position | None:
    """The place of the message, or of the first one with its `once`: None where that one was published without one."""
    return _position(reply) if reply else None


def read(
    names: Names,
    group: str,
    want: Want,
    *,
    fresh: str,
    meta_ttl: float,
    is_durable: bool,
    empty_ttl: float = EMPTY_SECONDS,
) -> Call:
    """Ask for the last position, and for messages. A group that has had none is remembered for `empty_ttl` seconds."""
    keys, life = _life(names, group, fresh, meta_ttl, is_durable)
    since = want.since or Position("", 0)
    numbers = since.offset, want.latest, _NO_BOUND if want.max_bytes is None else want.max_bytes
    return _READ.call(
        keys, [*life, since.epoch.encode(), *(b"%d" % number for number in numbers), _milliseconds(empty_ttl)]
    )


def parse_read(reply: Sequence[Any]) -> Read:
    """The answer: of what the server has, the messages that reach up to the last position without a hole."""
    epoch, top_text, found = reply
    top = int(top_text)
    entries: list[Kept] = []
    for expected, (place, fields) in zip(range(top, 0, -1), found, strict=False):
        if place != b"%d-0" % expected:
            break
        entries.append(Kept(expected, fields[1]))
    entries.reverse()
    return Read(Position(epoch.decode(), top), entries)


def look(names: Names, groups: Sequence[str], *, meta_ttl: float, empty_ttl: float, is_durable: bool) -> Call:
    """Ask for the last positions of many groups at once."""
    keys = [names.run(), *map(names.meta, groups)]
    return _LOOK.call(keys, [_milliseconds(meta_ttl), _milliseconds(min(meta_ttl, empty_ttl)), b"%d" % is_durable])


def parse_look(reply: Sequence[bytes]) -> list[Position | None]:
    """The position of each group; None where the server has no valid one, and `read()` makes it."""
    return [_position(text) if text else None for text in reply]


def clear(names: Names, group: str, *, fresh: str, meta_ttl: float, is_durable: bool) -> Call:
    """Drop the messages, begin the epoch `fresh`, and announce it.

    The announcement names the last position of before: none where the server does not know it for certain.
    """
    keys, life = _life(names, group, fresh, meta_ttl, is_durable)
    return _CLEAR.call(keys, [*life, names.channel(group), _RESET])


def parse_clear(reply: bytes) -> Position:
    """The beginning of the new epoch."""
    return _position(reply)


def mark(names: Names, fresh: str) -> Call:
    """Compare the life of the server with the one that is stored: another one is stored with `fresh`.

    It comes before the first other call of each connection, unless the server never loses what it has confirmed. A
    connection that has met a replica (READONLY) is not used again: that server may be promoted later, with other data.
    """
    return _MARK.call([names.run()], [fresh.encode()])


def split(data: bytes) -> tuple[bytes, Position | None]:
    """The envelope in what has come on the channel of a group, and its place in the history: None without one."""
    if not data or data[0] > _NINE:  # an envelope begins with a letter
        return data, None
    try:
        offset, epoch, payload = data.split(b" ", 2)
        return payload, Position(epoch.decode("ascii"), int(offset))
    except ValueError:  # of another sender: it is no envelope either
        return data, None


def _life(
    names: Names, group: str, fresh: str, meta_ttl: float, is_durable: bool
) -> tuple[Sequence[bytes], Sequence[bytes]]:
    """The keys and arguments that all scripts of a group have, but for the mark."""
    keys = (names.meta(group), names.stream(group), names.run())
    return keys, (fresh.encode(), _milliseconds(meta_ttl), b"1" if is_durable else b"0")


def _position(text: bytes) -> Position:
    epoch, _, offset = text.partition(b"-")
    return Position(epoch.decode(), int(offset))


def _milliseconds(seconds: float) -> bytes:
    return b"%d" % max(1, round(seconds * 1000))
