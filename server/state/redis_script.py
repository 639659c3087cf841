"""A script of Redis, and what several have in common."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha1

__all__ = ["LOGGED_EVENT", "NEXT_VERSION", "TORN", "Script"]


@dataclass(frozen=True)
class Script:
    """A script."""

    text: str

    @cached_property
    def sha(self) -> str:
        """What ``EVALSHA`` calls it by."""
        return sha1(self.text.encode(), usedforsecurity=False).hexdigest()


NEXT_VERSION = """
-- Versions are moments where these are ahead, so that none comes again: not after a user was
-- deleted, nor after a Cluster lost the newest of them.
local function next_version(known)
    local now = redis.call('TIME')
    local version = math.max((tonumber(known) or 0) + 1, now[1] * 1000000 + now[2])
    return string.format('%.0f', version)
end
"""

LOGGED_EVENT = """
-- A logged event is its digest (16 bytes), its time (8), which of its user's it is (4), its id in
-- the log after its length, and what is sealed.
local function place(value) return struct.unpack('<I4', value, 25) end
local function log_id(value)
    return string.sub(value, 30, 29 + string.byte(value, 29))
end
"""

TORN = """
-- Whether there are other events of a user than its state counts; see redis_torn_scripts.
local function torn(events, counted, pruned)
    return redis.call('HLEN', events) + (pruned or 0) ~= tonumber(counted or 0)
end
"""
