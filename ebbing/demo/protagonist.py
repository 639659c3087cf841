"""Choosing whose story to tell: a user with an interest that faded while another overtook it.

By counting over the log alone: what the gateway says of these users is put to the test by it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ebbing.cli import CommandError
from ebbing.demo.log import Log
from ebbing.events import DEFAULT_EVENT_WEIGHTS

__all__ = ["Protagonist", "choose_protagonists"]

DAY_S = 86400.0
HALF_LIFE_S = 30 * DAY_S
"""Half-life of the count that says how strong an interest is."""
FEWEST_DAYS = 3
"""Days on which an interest was engaged, for it to have been one."""
QUIET_GAPS = 4.0
"""Silence of a faded interest at least, in its own usual gaps."""
MOST_STORIES = 40
"""Users chosen at most."""
QUIET_S = 14 * DAY_S
"""Silence of a faded interest at least, seconds."""


@dataclass(frozen=True)
class Protagonist:
    """Whose story, and what it is about; times in UTC seconds."""

    user_id: str
    faded: str
    """The interest that was strong and faded."""
    risen: str
    """The interest that overtook it."""
    peak: float
    """When the faded one was at its height."""
    end: float
    """The user's last event."""
    faded_events: int
    """Events of the faded interest."""
    risen_events: int
    """Events of the other one since the faded one fell silent."""


def choose_protagonists(log: Log, user_id: str | None = None) -> list[Protagonist]:
    """The users with the clearest stories of a log, clearest first; or just one user.

    Clearest is where the smaller of two leads is largest: that of the faded interest at its height,
    and that of the other one at the end.

    Raises:
        CommandError: no user has such a story.
    """
    times: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for event in log.events:
        if DEFAULT_EVENT_WEIGHTS[event.event_type] and user_id in (None, event.user_id):
            for path in log.interests.get(event.item_id, ()):
                times[event.user_id][path].append(event.time)
    clearest = []
    for user, interests in sorted(times.items()):
        stories = _stories(user, {path: sorted(ones) for path, ones in interests.items()})
        if best := max(stories, key=_clarity, default=None):
            clearest.append(best)
    if not clearest:
        raise CommandError(
            "no user of this log has an interest that faded while another one rose: "
            "the story needs a longer log whose items have interests"
            if user_id is None
            else f"{user_id} has no interest that faded while another one rose: try another --seed"
        )
    return [who for _, who in sorted(clearest, key=_clarity, reverse=True)[:MOST_STORIES]]


def _clarity(story: tuple[float, Protagonist]) -> float:
    return story[0]


def _stories(user: str, times: dict[str, list[float]]) -> Iterator[tuple[float, Protagonist]]:
    """Every story of a user, with how clear it is."""
    end = max(ones[-1] for ones in times.values())
    for faded, ones in times.items():
        days = len({time // DAY_S for time in ones})
        gap = (ones[-1] - ones[0]) / max(len(ones) - 1, 1)
        silence = end - ones[-1]
        if days < FEWEST_DAYS or silence < max(QUIET_GAPS * gap, QUIET_S):
            continue
        peak = max(ones, key=lambda time: _strength(ones, time))
        at_peak, left = _strength(ones, peak), _strength(ones, end)
        for risen, others in times.items():
            since = [time for time in others if time > ones[-1]]
            if len({time // DAY_S for time in since}) < FEWEST_DAYS:
                continue
            lead = at_peak - _strength(others, peak)
            clarity = min(lead, _strength(others, end) - left)
            if clarity > 0:
                yield (
                    clarity,
                    Protagonist(user, faded, risen, peak, end, len(ones), len(since)),
                )


def _strength(times: Sequence[float], at: float) -> float:
    return math.fsum(math.exp2((time - at) / HALF_LIFE_S) for time in times if time <= at)
