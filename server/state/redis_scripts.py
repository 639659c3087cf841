"""What Redis does as one step: scripts in its Lua.

Each names its keys and its arguments (the ARGV) in the comment above it. A script that may find no
room begins with a command that needs some, so that it is refused as a whole.
"""

from __future__ import annotations

from server.state import redis_alarm_scripts, redis_torn_scripts
from server.state.redis_script import LOGGED_EVENT, NEXT_VERSION, TORN, Script

__all__ = ["SCRIPTS"]

_ADD_HEAT = """
local function add_heat(key, item, more)
    local known, heat = redis.call('ZSCORE', key, item), tonumber(more)
    if known then
        known = tonumber(known)
        local less = math.abs(known - heat)
        heat = math.max(known, heat) + math.log(1 + 2 ^ -less) / math.log(2)
    end
    redis.call('ZADD', key, string.format('%.17g', heat), item)
end
"""

_ERASED = (
    LOGGED_EVENT
    + """
local function erased(owner, first, last)
    local ids, held = {}, false
    for i = 3, 4 do
        local page = redis.call('ZRANGE', KEYS[i], 0, -1, 'WITHSCORES')
        for j = 1, #page, 2 do
            local value, time = redis.call('HGET', KEYS[2], page[j]), tonumber(page[j + 1])
            if value then redis.call('XDEL', KEYS[14], log_id(value)) end
            ids[#ids + 1] = page[j]
            first, last = math.min(first or time, time), math.max(last or time, time)
        end
    end
    for _, entry in ipairs(redis.call('XRANGE', KEYS[15], '-', '+')) do
        if entry[2][2] == owner then redis.call('XDEL', KEYS[15], entry[1]) end
    end
    for i = 1, 7 do held = redis.call('DEL', KEYS[i]) > 0 or held end
    for i = 8, 13 do redis.call('ZREM', KEYS[i], owner) end
    return ids, first, last, held
end
"""
)

# Make a store, or find it made. Keys: facts; arguments: name and value of each fact.
FOUND = Script("""
for i = 1, #ARGV, 2 do redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1]) end
return redis.call('HGETALL', KEYS[1])
""")

# Claim ids of events; whose each was before, or ''. Keys: ids; arguments: id, owner, ...
CLAIM = Script("""
local before = {}
for i = 1, #ARGV, 2 do
    local owner = redis.call('HGET', KEYS[1], ARGV[i])
    if not owner then redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
    before[#before + 1] = owner or ''
end
return before
""")

# Give claims back. Keys: ids; arguments: id, owner, ...
RELEASE = Script("""
for i = 1, #ARGV, 2 do
    if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then
        redis.call('HDEL', KEYS[1], ARGV[i])
    end
end
""")

# What is known of a user before events are appended: version and state; and unless nothing of it
# is there, as is usual, also deletion, whether it is being erased, whether it is torn (see
# redis_torn_scripts), digests of events, and where one server holds all keys, what another store
# knows of its deletion, and whose the ids of the events are, or ''. Keys: user, deleted, erasing,
# events; and there deleted, and of each event the ids it is claimed among. Arguments: owner,
# tombstone, and ids of events.
LOOK_UP = Script(
    TORN
    + """
local kept = redis.call('HMGET', KEYS[1], 'version', 'state', 'counted', 'pruned')
local is_torn = torn(KEYS[4], kept[3], kept[4])
local deletion = redis.call('HGET', KEYS[2], ARGV[2])
local elsewhere = KEYS[5] and redis.call('HGET', KEYS[5], ARGV[2])
local erasing = redis.call('HEXISTS', KEYS[3], ARGV[1])
local digests, holders = {}, {}
local usual = not deletion and not elsewhere and erasing == 0 and not is_torn
for i = 3, #ARGV do
    local holder = not KEYS[5] or redis.call('HGET', KEYS[i + 3], ARGV[i])
    -- What is logged is claimed.
    local value = holder and redis.call('HGET', KEYS[4], ARGV[i])
    digests[i - 2] = value and string.sub(value, 1, 16) or ''
    if KEYS[5] then
        holders[i - 2] = holder or ''
        usual = usual and not holder
    end
    usual = usual and not value
end
if usual then return {kept[1], kept[2]} end
local first = {kept[1], kept[2], deletion or '', erasing, is_torn and 1 or 0, digests}
if KEYS[5] then first[7], first[8] = elsewhere or '', holders end
return first
"""
)

# Write events of a user and the state they lead to, unless anything has come between.
# Keys: user, events, engagements, asides, line, newest, oldest, owners, log, deleted; and where one
# server holds all keys, heat, and of each event the ids it is claimed among: then ids are claimed,
# and popularity is counted, in the same step. Arguments: owner, version, tombstone,
# deletion, state, turn in line or '', newest day, oldest time, who claims, and of each event: id,
# time, whether it is an engagement, digest and time, sealed, item key or '', heat.
# An event is written after all that leads to it, and the state after its events: a server may keep
# the first part of a step alone, see redis_torn_scripts.
APPEND = Script(
    NEXT_VERSION
    + _ADD_HEAT
    + """
local owner, known = ARGV[1], redis.call('HMGET', KEYS[1], 'version', 'counted')
local version, counted = known[1] or '', tonumber(known[2] or 0)
if version ~= ARGV[2] then return 0 end
if (redis.call('HGET', KEYS[10], ARGV[3]) or '') ~= ARGV[4] then return 0 end
for i = 12, #KEYS do
    local holder = redis.call('HGET', KEYS[i], ARGV[10 + (i - 12) * 7])
    if holder and holder ~= ARGV[9] then return 0 end
end
redis.call('ZADD', KEYS[6], 'GT', ARGV[7], owner)
redis.call('ZADD', KEYS[7], 'LT', ARGV[8], owner)
if version == '' then redis.call('ZADD', KEYS[8], 0, owner) end
for i = 10, #ARGV, 7 do
    local id, time, engaged, head, sealed, item, heat = unpack(ARGV, i, i + 6)
    if KEYS[11] then
        redis.call('HSET', KEYS[12 + (i - 10) / 7], id, ARGV[9])
        if item ~= '' then add_heat(KEYS[11], item, heat) end
    end
    redis.call('ZADD', KEYS[engaged == '1' and 3 or 4], time, id)
    local log_id = redis.call('XADD', KEYS[9], '*', 'o', owner, 'e', id)
    counted = counted + 1
    local place = struct.pack('<I4', counted) .. string.char(#log_id) .. log_id
    redis.call('HSET', KEYS[2], id, head .. place .. sealed)
end
local next = next_version(version)
redis.call('HSET', KEYS[1], 'state', ARGV[5], 'version', next, 'counted', counted)
if ARGV[6] ~= '' then redis.call('ZADD', KEYS[5], 'NX', ARGV[6], owner) end
return 1
"""
)

# A page of a user's events: their ids, and what is stored. Keys: engagements or asides, events;
# arguments: last id of the page before and its time ('' and 0 for the first), until when, how many
# of the newest ('' for all), how many at most.
READ = Script("""
local last = redis.call('ZCOUNT', KEYS[1], '-inf', ARGV[3]) - 1
local first = 0
if ARGV[1] ~= '' then
    local rank = redis.call('ZRANK', KEYS[1], ARGV[1])
    first = rank and rank + 1 or redis.call('ZCOUNT', KEYS[1], '-inf', ARGV[2])
elseif ARGV[4] ~= '' then
    first = math.max(0, last + 1 - ARGV[4])
end
last = math.min(last, first + ARGV[5] - 1)
if last < first then return {{}, {}} end
local ids = redis.call('ZRANGE', KEYS[1], first, last)
return {ids, redis.call('HMGET', KEYS[2], unpack(ids))}
""")

# Replace what is kept of a user; not if another version than the given one is there ('*': any).
# Keys: user, due, line, newest, owners; arguments: owner, version, state, told, due or '', whether
# it is touched, newest day.
PUT = Script(
    NEXT_VERSION
    + """
local owner, known = ARGV[1], redis.call('HGET', KEYS[1], 'version') or ''
if ARGV[2] ~= '*' and known ~= ARGV[2] then return 0 end
local version, counted = next_version(known), redis.call('HGET', KEYS[1], 'counted') or 0
redis.call('HSET', KEYS[1], 'state', ARGV[3], 'version', version, 'told', ARGV[4], 'due', ARGV[5],
    'counted', counted)
if ARGV[5] == '' then redis.call('ZREM', KEYS[2], owner)
else redis.call('ZADD', KEYS[2], ARGV[5], owner) end
if ARGV[6] == '1' then redis.call('ZADD', KEYS[3], 'NX', version, owner)
else redis.call('ZREM', KEYS[3], owner) end
redis.call('ZADD', KEYS[4], 'GT', ARGV[7], owner)
redis.call('ZADD', KEYS[5], 0, owner)
return 1
"""
)

# Delete all of a user that lies in its partition, and note that its keys are to be erased; the ids
# of its events, what is remembered of the deletion, and whether keys are to be erased.
# Keys: user, events, engagements, asides, relations, their names, relations to it, due, line,
# newest, oldest, owners, relating, log, outbox, deleted, deletions, erasing; arguments: owner,
# whether anything was held elsewhere, tombstone, what is remembered elsewhere of an earlier
# deletion, receipt, moment, times of the first and the last event that is known of ('' if none is).
ERASE = Script(
    _ERASED
    + """
local owner, tombstone, now = ARGV[1], ARGV[3], ARGV[6]
local ids, first, last, held = erased(owner, tonumber(ARGV[7]), tonumber(ARGV[8]))
held = held or ARGV[2] == '1'
local earlier = redis.call('HGET', KEYS[16], tombstone)
if not earlier and ARGV[4] ~= '' then earlier = ARGV[4] end
if earlier and not held then
    return {ids, earlier, redis.call('HEXISTS', KEYS[18], owner)}
end
local blocked = math.max(tonumber(now), last or 0)
if earlier then blocked = math.max(blocked, tonumber(string.match(earlier, '^%d+'))) end
local deletion = string.format(
    '%.0f %s %d %.0f %.0f %s', blocked, now, #ids, first or 0, last or 0, ARGV[5])
redis.call('HSET', KEYS[16], tombstone, deletion)
redis.call('ZADD', KEYS[17], now, tombstone)
redis.call('HSET', KEYS[18], owner, '1')
return {ids, deletion, 1}
"""
)

# The same of a user whose newest event is of before a day, with nothing remembered of it.
# Arguments: owner, day.
ERASE_IDLE = Script(
    _ERASED
    + """
local newest = redis.call('ZSCORE', KEYS[10], ARGV[1])
if not newest or tonumber(newest) >= tonumber(ARGV[2]) then return {{}, '', 0} end
local ids = erased(ARGV[1])
redis.call('HSET', KEYS[18], ARGV[1], '1')
return {ids, '', 1}
"""
)

# Forget deletions of before a moment; how many. Keys: deletions, deleted; arguments: moment, most.
PRUNE_DELETIONS = Script("""
local gone = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[1], 'LIMIT', 0, ARGV[2])
for _, one in ipairs(gone) do
    redis.call('ZREM', KEYS[1], one)
    redis.call('HDEL', KEYS[2], one)
end
return #gone
""")

# Forget events of a user of before a moment; their ids. Keys: events, engagements, asides, oldest,
# log, user; arguments: owner, moment, most.
PRUNE_EVENTS = Script(
    LOGGED_EVENT
    + """
local gone, oldest = {}, nil
for i = 2, 3 do
    local most = ARGV[3] - #gone
    local old = redis.call('ZRANGEBYSCORE', KEYS[i], '-inf', '(' .. ARGV[2], 'LIMIT', 0, most)
    for _, id in ipairs(old) do
        local value = redis.call('HGET', KEYS[1], id)
        if value then
            redis.call('XDEL', KEYS[5], log_id(value))
            redis.call('HINCRBY', KEYS[6], 'pruned', 1)
        end
        redis.call('HDEL', KEYS[1], id)
        redis.call('ZREM', KEYS[i], id)
        gone[#gone + 1] = id
    end
    local left = redis.call('ZRANGE', KEYS[i], 0, 0, 'WITHSCORES')[2]
    if left and (not oldest or tonumber(left) < tonumber(oldest)) then oldest = left end
end
if oldest then redis.call('ZADD', KEYS[4], oldest, ARGV[1])
else redis.call('ZREM', KEYS[4], ARGV[1]) end
return gone
"""
)

# Count engagements towards the popularity of items. Keys: heat; arguments: item key, heat, ...
HEAT = Script(
    _ADD_HEAT
    + """
for i = 1, #ARGV, 2 do add_heat(KEYS[1], ARGV[i], ARGV[i + 1]) end
"""
)

# Write rows of a table. Keys: rows, names; arguments: name, value, ...
WRITE_ROWS = Script("""
for i = 1, #ARGV, 2 do
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
    redis.call('ZADD', KEYS[2], 0, ARGV[i])
end
""")

# Delete a row of a table; whether there was one. Keys: rows, names; arguments: name.
DELETE_ROW = Script("""
redis.call('ZREM', KEYS[2], ARGV[1])
return redis.call('HDEL', KEYS[1], ARGV[1])
""")

# A page of a table: names and values. Keys: rows, names; arguments: last name of the page before
# ('' for the first), how many at most.
READ_ROWS = Script("""
local after = ARGV[1] == '' and '-' or '(' .. ARGV[1]
local names = redis.call('ZRANGEBYLEX', KEYS[2], after, '+', 'LIMIT', 0, ARGV[2])
local values = {}
for i, name in ipairs(names) do values[i] = redis.call('HGET', KEYS[1], name) end
return {names, values}
""")

# Write items, or none where one has the key of another. Keys: items, their names, ids by key,
# version; arguments: id, key, value (which begins with the key and a line feed), ...
WRITE_ITEMS = Script(
    NEXT_VERSION
    + """
local ids = {}
for i = 1, #ARGV, 3 do
    local id, key = ARGV[i], ARGV[i + 1]
    if (ids[key] or redis.call('HGET', KEYS[3], key) or id) ~= id then return 0 end
    ids[key] = id
end
for i = 1, #ARGV, 3 do
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2])
    redis.call('ZADD', KEYS[2], 0, ARGV[i])
    redis.call('HSET', KEYS[3], ARGV[i + 1], ARGV[i])
end
redis.call('SET', KEYS[4], next_version(redis.call('GET', KEYS[4])))
return 1
"""
)

# Delete an item. Keys: as above; arguments: id.
DELETE_ITEM = Script(
    NEXT_VERSION
    + """
local value = redis.call('HGET', KEYS[1], ARGV[1])
if value then
    redis.call('HDEL', KEYS[3], string.match(value, '^%d+'))
    redis.call('HDEL', KEYS[1], ARGV[1])
    redis.call('ZREM', KEYS[2], ARGV[1])
end
redis.call('SET', KEYS[4], next_version(redis.call('GET', KEYS[4])))
"""
)

# The items that have keys: ids and values. Keys: items, ids by key; arguments: key, ...
FIND_ITEMS = Script("""
local ids, values = {}, {}
for _, key in ipairs(ARGV) do
    local id = redis.call('HGET', KEYS[2], key)
    if id then
        ids[#ids + 1] = id
        values[#values + 1] = redis.call('HGET', KEYS[1], id)
    end
end
return {ids, values}
""")

# Replace the rollout if its version is the next one: 1; 2 if it is there already; else 0.
# Keys: rollout; arguments: version, body.
ROLL_OUT = Script("""
local known = tonumber(redis.call('HGET', KEYS[1], 'version') or 0)
if known == tonumber(ARGV[1]) and redis.call('HGET', KEYS[1], 'body') == ARGV[2] then return 2 end
if known ~= ARGV[1] - 1 then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'body', ARGV[2])
return 1
""")

SCRIPTS = tuple(
    dict.fromkeys(
        one
        for module in (globals(), vars(redis_alarm_scripts), vars(redis_torn_scripts))
        for one in module.values()
        if isinstance(one, Script)
    )
)
"""All of them."""
