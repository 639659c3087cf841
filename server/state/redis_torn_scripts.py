"""What Redis does of users whose events and state are of two minds.

A server that is killed while it writes a step to its file keeps the first part of it, says nobody
of it, and undoes it; but leaves it in the file, in front of the next step (redis 6.2 to 8, Valkey
until its pull request 4342). Killed once more, it takes both for one step: then events are there
that no state counts, as all that came meanwhile knew nothing of them. None of them was
acknowledged.

So a state counts all events that led to it, ``counted``, and each event which of them it is. A user
is whole if there are as many as are counted, less those that went for their age, ``pruned``.
"""

from __future__ import annotations

from server.state.redis_script import LOGGED_EVENT, TORN, Script

__all__ = ["LOGGED", "MEND"]

# Events of a user: whether it is torn, and what is stored of each. Keys: user, events; arguments:
# ids.
LOGGED = Script(
    TORN
    + """
local kept = redis.call('HMGET', KEYS[1], 'counted', 'pruned')
local values = {}
for i, id in ipairs(ARGV) do values[i] = redis.call('HGET', KEYS[2], id) end
return {torn(KEYS[2], kept[1], kept[2]) and 1 or 0, values}
"""
)

# Forget the events of a user that no state counts. What is counted rises along the log; so going
# back from the state, an event that is counted no lower than one behind it, is of a step that was
# undone. Keys: user, events, engagements, asides, log; arguments: none.
MEND = Script(
    LOGGED_EVENT
    + """
local counted = tonumber(redis.call('HGET', KEYS[1], 'counted') or 0)
local flat, events = redis.call('HGETALL', KEYS[2]), {}
for i = 1, #flat, 2 do
    local at = log_id(flat[i + 1])
    local moment, n = string.match(at, '(%d+)-(%d+)')
    events[#events + 1] = {
        id = flat[i], at = at, moment = tonumber(moment), n = tonumber(n),
        place = place(flat[i + 1]),
    }
end
table.sort(events, function(one, other)
    if one.moment ~= other.moment then return one.moment > other.moment end
    return one.n > other.n
end)
local most = counted
for _, one in ipairs(events) do
    if one.place <= most then
        most = one.place - 1
    else
        redis.call('XDEL', KEYS[5], one.at)
        redis.call('HDEL', KEYS[2], one.id)
    end
end
for i = 3, 4 do
    for _, id in ipairs(redis.call('ZRANGE', KEYS[i], 0, -1)) do
        if redis.call('HEXISTS', KEYS[2], id) == 0 then redis.call('ZREM', KEYS[i], id) end
    end
end
if redis.call('EXISTS', KEYS[1]) == 1 then
    redis.call('HSET', KEYS[1], 'pruned', counted - redis.call('HLEN', KEYS[2]))
end
"""
)
