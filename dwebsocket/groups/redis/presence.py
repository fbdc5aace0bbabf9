r"""Presence, kept in the server: the members of groups, and the processes that are alive. A script makes each change.

The keys, below `Names.presence()`; all but the first are named in the scripts only:

    nodes               ZSET    process → when its lease ends, in ms by the clock of the server
    n:GROUP             HASH    process → how many of its WebSockets are present
    u:GROUP             HASH    user → how many WebSockets of all processes, NUL, the info that was entered last
    s:SIZE:NODE:GROUP   HASH    WebSocket of that process → user; SIZE is len(NODE): both may have colons
    i:NODE              SET     the groups in which that process has WebSockets
    v:GROUP             STRING  the version of the roster

A version that is not there begins at the microseconds of the server's clock: above all that went before. So a version
that has expired, or that the server has lost, is seen as a jump, and never taken for an old one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..backend import Count, Departed, Lapsed, Presence, Present, Renewal, Roster
from .commands import Names
from .scripts import Call, Script

#: After so many WebSockets of dead processes `renew()` stops: they cost the server 10 to 20 ms.
REAP_SOCKETS = 1000

# What all scripts begin with. The envelope in announce() is that of messages.Envelope and messages.Arrival.
# reap() is bounded by HSCAN: what was removed while it went through a hash does not come twice.
_COMMON = r"""
local nodes, base, channels = KEYS[1], ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local departed = {}

local function is_alive(node)
  local ends = redis.call('ZSCORE', nodes, node)
  return ends and tonumber(ends) > now
end

local function sockets_of(node, group)
  return base .. 's:' .. #node .. ':' .. node .. ':' .. group
end

local function next_version(group)
  local key = base .. 'v:' .. group
  local version = redis.call('GET', key) or time[1] * 1000000 + time[2]
  version = string.format('%.0f', version + 1)
  redis.call('SET', key, version, 'EX', 86400)
  return version
end

local function announce(group, sign, user, info)
  local arrival = next_version(group) .. ' ' .. sign .. ' ' .. user .. '\0' .. info
  redis.call('PUBLISH', channels .. group, 'p  0 ' .. arrival)
end

local function find(group, user)
  local entry = redis.call('HGET', base .. 'u:' .. group, user)
  if not entry then return 0 end
  local number, info = string.match(entry, '^(%d+)%z(.*)$')
  return tonumber(number), info
end

local function note(group, user, number, info)
  redis.call('HSET', base .. 'u:' .. group, user, number .. '\0' .. info)
end

local function one_less(group, user)
  local number, info = find(group, user)
  if number > 1 then
    note(group, user, number - 1, info)
  elseif number == 1 then
    redis.call('HDEL', base .. 'u:' .. group, user)
    announce(group, '-', user, info)
    for _, part in ipairs({group, user, info}) do table.insert(departed, part) end
    return 1
  end
  return 0
end

local function drop(node, group)
  redis.call('HDEL', base .. 'n:' .. group, node)
  redis.call('SREM', base .. 'i:' .. node, group)
end

local function reap(node, group, limit)
  local sockets, cursor, reaped = sockets_of(node, group), '0', 0
  repeat
    local page = redis.call('HSCAN', sockets, cursor, 'COUNT', 100)
    cursor = page[1]
    for at = 1, #page[2], 2 do
      if redis.call('HDEL', sockets, page[2][at]) == 1 then
        reaped = reaped + 1
        one_less(group, page[2][at + 1])
      end
    end
  until cursor == '0' or reaped >= limit
  if cursor == '0' then drop(node, group) end
  return reaped
end

local function reap_all(node, limit)
  while limit > 0 do
    local group = redis.call('SRANDMEMBER', base .. 'i:' .. node)
    if not group then
      redis.call('ZREM', nodes, node)
      return limit
    end
    limit = limit - math.max(1, reap(node, group, limit))
  end
  return 0
end

local function count_living(group)
  local counts, sockets = redis.call('HGETALL', base .. 'n:' .. group), 0
  for at = 1, #counts, 2 do
    local node = counts[at]
    if is_alive(node) then
      sockets = sockets + redis.call('HLEN', sockets_of(node, group))
    else
      reap(node, group, math.huge)
    end
  end
  return sockets
end
"""

_ATTEND = Script(
    _COMMON
    + r"""
local node, group, last_enter = ARGV[3], ARGV[4], 5 + 3 * ARGV[5]
if not is_alive(node) then return false end
local sockets, numbers = sockets_of(node, group), base .. 'n:' .. group

local function leave(socket, user)
  if redis.call('HGET', sockets, socket) ~= user then return 0 end
  redis.call('HDEL', sockets, socket)
  redis.call('HINCRBY', numbers, node, -1)
  if redis.call('HLEN', sockets) == 0 then drop(node, group) end
  return one_less(group, user)
end

local function enter(socket, user, info)
  local before, has_left = redis.call('HGET', sockets, socket), 0
  if before and before ~= user then has_left = leave(socket, before) end
  local number, known = find(group, user)
  if before ~= user then
    redis.call('HSET', sockets, socket, user)
    redis.call('HINCRBY', numbers, node, 1)
    redis.call('SADD', base .. 'i:' .. node, group)
    note(group, user, number + 1, info)
  elseif known ~= info then
    note(group, user, math.max(1, number), info)
  end
  if known ~= info then announce(group, '+', user, info) end
  return number == 0 and 1 or has_left
end

local changed = {}
for at = 6, last_enter, 3 do table.insert(changed, enter(ARGV[at], ARGV[at + 1], ARGV[at + 2])) end
for at = last_enter + 1, #ARGV, 2 do table.insert(changed, leave(ARGV[at], ARGV[at + 1])) end
return changed
"""
)

_RENEW = Script(
    _COMMON
    + r"""
local node, lease, limit = ARGV[3], ARGV[4], tonumber(ARGV[5])
local has_lapsed = not is_alive(node)
if has_lapsed then reap_all(node, math.huge) end
redis.call('ZADD', nodes, now + lease, node)
for _, dead in ipairs(redis.call('ZRANGE', nodes, '-inf', now, 'BYSCORE', 'LIMIT', 0, limit)) do
  limit = reap_all(dead, limit) - 1
end
local next_ends, first = false, redis.call('ZRANGE', nodes, 0, 1, 'WITHSCORES')
for at = #first - 1, 1, -2 do
  if first[at] ~= node then next_ends = math.max(0, first[at + 1] - now) end
end
return {has_lapsed and 1 or 0, next_ends, departed}
"""
)

_ROSTER = Script(
    _COMMON
    + r"""
local group = ARGV[3]
count_living(group)
local version = redis.call('GET', base .. 'v:' .. group) or next_version(group)
return {version, redis.call('HGETALL', base .. 'u:' .. group), departed}
"""
)

_COUNT = Script(
    _COMMON
    + r"""
local sockets = count_living(ARGV[3])
return {sockets, redis.call('HLEN', base .. 'u:' .. ARGV[3]), departed}
"""
)

_RESIGN = Script(
    _COMMON
    + r"""
local node, grace = ARGV[3], tonumber(ARGV[4])
if grace > 0 and is_alive(node) then
  redis.call('ZADD', nodes, now + grace, node)
else
  reap_all(node, math.huge)
end
return departed
"""
)


def attend(names: Names, node: str, group: str, enter: Sequence[Presence], leave: Sequence[Presence]) -> Call:
    """Note who is present in `group`, and who no longer: all of them are of that group, and of that process.

    ValueError where a user has a NUL in it.
    """
    parts = [node, group, str(len(enter))]
    for presence in enter:
        if "\0" in presence.user:
            raise ValueError(f"a user that is present has no NUL in it: {presence.user!r}")
        parts += presence.socket, presence.user, presence.info
    for presence in leave:
        parts += presence.socket, presence.user
    return _call(_ATTEND, names, *parts)


def parse_attend(reply: Any) -> list[bool]:
    """For each that enters, and then for each that leaves, whether the members are others now. Lapsed."""
    if reply is None:
        raise Lapsed
    return [bool(changed) for changed in reply]


def renew(names: Names, node: str, lease_seconds: float) -> Call:
    """Take a lease, or renew it, and remove what is present in processes that have none: REAP_SOCKETS at most."""
    return _call(_RENEW, names, node, _milliseconds(lease_seconds), str(REAP_SOCKETS))


def parse_renew(reply: Any) -> Renewal:
    """The renewal. `next_seconds` is 0 where dead processes are left over: then it should be asked again at once."""
    has_lapsed, next_milliseconds, departed = reply
    next_seconds = None if next_milliseconds is None else next_milliseconds / 1000
    return Renewal(bool(has_lapsed), parse_departed(departed), next_seconds)


def roster(names: Names, group: str) -> Call:
    """Ask who is present in `group`, after what is dead there was removed."""
    return _call(_ROSTER, names, group)


def parse_roster(reply: Any) -> Roster:
    """The roster."""
    version, users, departed = reply
    members = []
    for user, entry in zip(users[::2], users[1::2], strict=True):
        number, info = entry.split(b"\0", 1)
        members.append(Present(user.decode(), info.decode(), int(number)))
    return Roster(int(version), members, tuple(parse_departed(departed)))


def count(names: Names, group: str) -> Call:
    """Ask how many are present in `group`, after what is dead there was removed."""
    return _call(_COUNT, names, group)


def parse_count(reply: Any) -> Count:
    """The count."""
    sockets, users, departed = reply
    return Count(sockets, users, tuple(parse_departed(departed)))


def resign(names: Names, node: str, grace_seconds: float) -> Call:
    """Let the lease end after `grace_seconds`. 0: remove all that is present in this process."""
    return _call(_RESIGN, names, node, _milliseconds(grace_seconds))


def parse_resign(reply: Any) -> list[Departed]:
    """The users that were removed."""
    return parse_departed(reply)


def parse_departed(parts: Sequence[bytes]) -> list[Departed]:
    """The users that were removed: group, user and info of each in turn."""
    texts = [part.decode() for part in parts]
    return [Departed(*texts[at : at + 3]) for at in range(0, len(texts), 3)]


def _call(script: Script, names: Names, *arguments: str) -> Call:
    return script.call([names.nodes()], [names.presence(), names.channel(""), *(part.encode() for part in arguments)])


def _milliseconds(seconds: float) -> str:
    return str(math.ceil(seconds * 1000))
