"""What Redis does of alarms and transitions as one step; see ``redis_scripts``."""

from __future__ import annotations

from server.state.redis_script import NEXT_VERSION, Script

__all__ = ["FORGET", "SETTLE", "SWEEP", "TAKE", "TAKE_OVER", "TOUCH", "WAITING"]

# Write what became of an alarm, if it is unchanged. Keys: user, due, line, outbox; arguments:
# owner, version, due or '', whether anything is told, told, moment, and the transitions.
SETTLE = Script(
    NEXT_VERSION
    + """
local owner, known = ARGV[1], redis.call('HGET', KEYS[1], 'version')
if known ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'version', next_version(known), 'due', ARGV[3])
if ARGV[4] == '1' then redis.call('HSET', KEYS[1], 'told', ARGV[5]) end
if ARGV[3] == '' then redis.call('ZREM', KEYS[2], owner)
else redis.call('ZADD', KEYS[2], ARGV[3], owner) end
redis.call('ZREM', KEYS[3], owner)
for i = 7, #ARGV do redis.call('XADD', KEYS[4], '*', 'o', owner, 'w', ARGV[6], 'v', ARGV[i]) end
return 1
"""
)

# Put a user in line. Keys: user, line; arguments: owner.
TOUCH = Script(
    NEXT_VERSION
    + """
local known = redis.call('HGET', KEYS[1], 'version')
if not known then return 0 end
local version = next_version(known)
redis.call('HSET', KEYS[1], 'version', version)
redis.call('ZADD', KEYS[2], 'NX', version, ARGV[1])
return 1
"""
)

# How many are due or in line. Keys: due, line; arguments: moment, most to be looked at.
WAITING = Script("""
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
local count = redis.call('ZCOUNT', KEYS[1], '-inf', ARGV[1]) + redis.call('ZCARD', KEYS[2])
for _, owner in ipairs(due) do
    if redis.call('ZSCORE', KEYS[2], owner) then count = count - 1 end
end
return count
""")

# Note how far a sweep has come, unless another has moved it on. Keys: sweep; arguments: parameters
# and position it was at, the same and how many there are in all as of now.
SWEEP = Script("""
local known = redis.call('HMGET', KEYS[1], 'parameters', 'position')
if (known[1] or '') ~= ARGV[1] or (known[2] or '') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'parameters', ARGV[3], 'position', ARGV[4], 'total', ARGV[5])
return 1
""")

# Take what lies in the outbox of a partition into the log of transitions, unless that has been
# done. Keys: log, how far all have come, and the numbers of the owner of each; arguments:
# partition, how far it had come, how far it has now, and of each transition: owner, moment, sealed.
TAKE = Script("""
if (redis.call('HGET', KEYS[2], ARGV[1]) or '') ~= ARGV[2] then return 0 end
local number = tonumber(redis.call('HGET', KEYS[2], 'newest') or 0)
for i = 4, #ARGV, 3 do
    number = number + 1
    local text = string.format('%.0f', number)
    local owner, written, sealed = unpack(ARGV, i, i + 2)
    redis.call('XADD', KEYS[1], text .. '-0', 'o', owner, 'w', written, 'v', sealed)
    redis.call('RPUSH', KEYS[3 + (i - 4) / 3], text)
end
redis.call('HSET', KEYS[2], 'newest', string.format('%.0f', number), ARGV[1], ARGV[3])
return 1
""")

# Take over transitions under their numbers, in their order; those there are stay. Keys: log, how
# far all have come, and the numbers of the owner of each; arguments: newest number, moment, and of
# each transition: number, owner, sealed.
TAKE_OVER = Script("""
local newest = tonumber(redis.call('HGET', KEYS[2], 'newest') or 0)
redis.call('HSET', KEYS[2], 'newest', string.format('%.0f', math.max(newest, ARGV[1])))
for i = 3, #ARGV, 3 do
    local number, owner, sealed = unpack(ARGV, i, i + 2)
    local added = redis.pcall(
        'XADD', KEYS[1], number .. '-0', 'o', owner, 'w', ARGV[2], 'v', sealed)
    if type(added) == 'string' then redis.call('RPUSH', KEYS[3 + (i - 3) / 3], number) end
end
""")

# Forget transitions; how many went. Keys: log, and the numbers of the owner of each; arguments:
# number, ...
FORGET = Script("""
local gone = 0
for i, number in ipairs(ARGV) do
    gone = gone + redis.call('XDEL', KEYS[1], number .. '-0')
    redis.call('LREM', KEYS[1 + i], 1, number)
end
return gone
""")
