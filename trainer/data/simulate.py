"""A seeded event log whose users' interests rise, rest and fade in known ways."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import IO

import numpy as np

from ebbing.events import EventType
from trainer.data.log import EventLog, parse_interests

DAY_S = 86_400.0
WEEK_S = 7 * DAY_S
MONTH_S = 28 * DAY_S

TAXONOMY: dict[str, tuple[str, ...]] = {
    "sports": ("football", "tennis", "running"),
    "music": ("jazz", "rock", "classical"),
    "cooking": ("baking", "grilling", "vegan"),
    "travel": ("cities", "hiking", "beaches"),
    "film": ("drama", "comedy", "documentary"),
    "games": ("chess", "strategy", "puzzles"),
    "home": ("gardening", "decor", "repairs"),
    "science": ("space", "biology", "history"),
}
INTERESTS = tuple(
    f"{parent}/{child}" for parent, children in TAXONOMY.items() for child in children
)
PATTERNS = ("rising", "steady", "resting", "faded")
_PATTERN_SHARES = (0.2, 0.15, 0.25, 0.4)

PROTAGONIST = "ada"
"""The user whose football faded and was overtaken by baking shortly before the end of the log."""

# Nothing else touches the protagonist's interests, so that her story stays hers.
_STORY = ("sports/football", "cooking/baking", "music/jazz")
_MIXED = tuple(interest for interest in INTERESTS if interest not in _STORY)

_TYPES = (EventType.VIEW, EventType.CLICK, EventType.LIKE, EventType.PURCHASE)
_TYPE_SHARES = (0.55, 0.25, 0.1, 0.1)
_SERIES_LENGTH = 5
_FOLLOWS_SERIES = 0.7


@dataclass(frozen=True)
class SimulationConfig:
    """What to simulate."""

    users: int = 300
    """Users, the protagonist among them."""
    items: int = 960
    """Items, spread evenly over the interests; at least one series of five for each interest."""
    days: int = 180
    """Length of the log in days; at least 120, or nothing has the time to fade."""
    end: float = 1_748_736_000.0
    """End of the log, UTC seconds: 2025-06-01."""
    seed: int = 7
    """The same seed gives the same log."""

    def __post_init__(self) -> None:
        fewest = len(INTERESTS) * _SERIES_LENGTH
        if self.users < 1 or self.items < fewest or self.days < 120:
            raise ValueError(
                f"a simulation needs a user, {fewest} items and 120 days at least; "
                f"got {self.users}, {self.items} and {self.days}"
            )


@dataclass(frozen=True)
class Episode:
    """One user's interest, as it was made to be; times in UTC seconds."""

    interest: str
    pattern: str
    """rising, steady, resting or faded."""
    onset: float
    """When it begins."""
    end: float | None
    """When it has faded away; none if it lasts."""
    period: float | None
    """Rhythm of a resting interest in seconds; none for the others."""
    strength: float
    """Events a day at its height."""
    ramp_days: float = 1.0
    """Days it takes to rise to its strength and, before `end`, to fall off."""

    def rate(self, times: np.ndarray) -> np.ndarray:
        """Expected events a day at `times`, same shape."""
        ramp = self.ramp_days * DAY_S
        rate = self.strength * np.clip((times - self.onset) / ramp, 0.0, 1.0)
        if self.end is not None:
            rate = rate * np.clip((self.end - times) / ramp, 0.0, 1.0)
        if self.period is not None:
            rate = rate * ((times - self.onset) % self.period < DAY_S)
        return rate


@dataclass(frozen=True)
class Simulation:
    """A generated log and the truth behind it."""

    config: SimulationConfig
    log: EventLog
    truth: dict[str, tuple[Episode, ...]]
    """User id → the user's interests."""

    def write(self, folder: Path) -> None:
        """Write events.csv.gz, items.csv.gz and truth.json into `folder`, making it if need be."""
        folder.mkdir(parents=True, exist_ok=True)
        log = self.log
        order = np.argsort(log.times, kind="stable")
        write_csv(
            folder / "events.csv.gz",
            ("user_id", "item_id", "event_type", "event_time"),
            [
                (
                    log.user_ids[log.users[row]],
                    log.item_ids[log.items[row]],
                    EventType(int(log.types[row])).name.lower(),
                    f"{log.times[row]:.0f}",
                )
                for row in order.tolist()
            ],
        )
        write_csv(
            folder / "items.csv.gz",
            ("item_id", "interests"),
            [
                (item, "|".join(path for path, _ in interests))
                for item, interests in zip(log.item_ids, log.interests, strict=True)
            ],
        )
        truth = {
            "config": asdict(self.config),
            "protagonist": PROTAGONIST,
            "users": {user: [asdict(one) for one in ones] for user, ones in self.truth.items()},
        }
        (folder / "truth.json").write_text(json.dumps(truth, indent=1), encoding="utf-8")


def simulate(config: SimulationConfig) -> Simulation:
    """Generate a log; deterministic in `config`."""
    random = np.random.default_rng(config.seed)
    item_ids, interests, shelves = _catalogue(config.items, random)
    user_ids = [PROTAGONIST, *(f"user-{number:04d}" for number in range(1, config.users))]
    truth = {
        user: _protagonist(config) if user == PROTAGONIST else _episodes(config, random)
        for user in user_ids
    }
    users, items, times = [], [], []
    for index, user in enumerate(user_ids):
        moments, which = _moments(config, truth[user], random)
        shelf_of = [shelves[episode.interest] for episode in truth[user]]
        chosen = _choose(shelf_of, which, random)
        users.append(np.full(len(moments), index))
        items.append(chosen)
        times.append(moments)
    total = sum(len(one) for one in times)
    types = random.choice(np.array(_TYPES, np.int32), size=total, p=_TYPE_SHARES)
    log = EventLog.of(
        user_ids,
        item_ids,
        interests,
        np.concatenate(users),
        np.concatenate(items),
        types,
        np.concatenate(times),
    )
    return Simulation(config, log, truth)


def _catalogue(
    n_items: int, random: np.random.Generator
) -> tuple[list[str], list[tuple[tuple[str, float], ...]], dict[str, np.ndarray]]:
    """Items as series of five within an interest; a fifth of the series have a second interest.

    Returns ids, interests, and for each interest its item indexes in series order.
    """
    ids: list[str] = []
    interests: list[tuple[tuple[str, float], ...]] = []
    shelves: dict[str, np.ndarray] = {}
    for position, interest in enumerate(INTERESTS):
        n = n_items // len(INTERESTS) + (position < n_items % len(INTERESTS))
        shelves[interest] = np.arange(len(ids), len(ids) + n)
        name = interest.partition("/")[2]
        second = ""
        for number in range(n):
            series, part = divmod(number, _SERIES_LENGTH)
            if part == 0:
                mixed = interest not in _STORY and random.random() < 0.2
                second = str(random.choice(_MIXED)) if mixed else ""
            ids.append(f"{name}-{series + 1:02d}-part-{part + 1}")
            interests.append(parse_interests(f"{interest}|{second}"))
    return ids, interests, shelves


def _protagonist(config: SimulationConfig) -> tuple[Episode, ...]:
    start, end = config.end - config.days * DAY_S, config.end
    return (
        Episode("sports/football", "faded", start, end - 38 * DAY_S, None, 0.22, 4.0),
        Episode("cooking/baking", "rising", end - 32 * DAY_S, None, None, 0.6, 6.0),
        # Its last day lies five days before the end: at rest when the story ends.
        Episode("music/jazz", "resting", start + 6 * DAY_S, None, WEEK_S, 0.5),
    )


def _episodes(config: SimulationConfig, random: np.random.Generator) -> tuple[Episode, ...]:
    """Two to four interests of a user; the first lasts, so that every user stays around."""
    start, end = config.end - config.days * DAY_S, config.end
    interests = random.choice(len(INTERESTS), size=random.integers(2, 5), replace=False)
    episodes = []
    for position, interest in enumerate(interests):
        pattern = "steady" if position == 0 else random.choice(PATTERNS, p=_PATTERN_SHARES)
        onset, over, period = start, None, None
        strength = random.uniform(0.06, 0.22)
        if pattern == "rising":
            onset = end - random.uniform(20, 60) * DAY_S
            strength *= 1.5
        elif pattern == "faded":
            onset = start + random.uniform(0, 0.3) * config.days * DAY_S
            over = onset + random.uniform(0.25, 0.5) * config.days * DAY_S
            strength *= 1.5
        elif pattern == "resting":
            onset = start + random.uniform(0, 20) * DAY_S
            period = WEEK_S if random.random() < 0.5 else MONTH_S
            strength = 0.5 if period == WEEK_S else 1.5
        episodes.append(
            Episode(
                INTERESTS[interest],
                pattern,
                round(onset),
                None if over is None else round(over),
                period,
                round(strength, 3),
                round(random.uniform(2, 10), 1),
            )
        )
    return tuple(episodes)


def _moments(
    config: SimulationConfig, episodes: Sequence[Episode], random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Event times of a user, ascending whole seconds, and the number of the episode of each."""
    days = config.end - np.arange(config.days, 0, -1) * DAY_S
    counts = random.poisson([episode.rate(days) for episode in episodes])
    which, day = (
        np.repeat(axis, counts.ravel()) for axis in np.indices(counts.shape).reshape(2, -1)
    )
    moments = np.floor(days[day] + random.uniform(7, 23, size=len(day)) * 3600.0)
    order = np.argsort(moments, kind="stable")
    return moments[order], which[order]


def _choose(
    shelves: Sequence[np.ndarray], which: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """An item for each event: mostly the next part of the interest's series, else a popular start.

    What the user has had is passed over until the interest's items are used up.
    """
    last = [-1] * len(shelves)
    had: list[set[int]] = [set() for _ in shelves]
    chosen = np.empty(len(which), np.int64)
    follows = random.random(len(which)) < _FOLLOWS_SERIES
    for event, number in enumerate(which.tolist()):
        shelf, seen = shelves[number], had[number]
        if len(seen) == len(shelf):
            seen.clear()
        following = last[number] + 1
        series_goes_on = following % _SERIES_LENGTH and following < len(shelf)
        if follows[event] and series_goes_on and last[number] >= 0 and following not in seen:
            pick = following
        else:
            left = [place for place in range(len(shelf)) if place not in seen]
            # A steep popularity: the first series of an interest are the ones most begin with.
            series, part = np.divmod(left, _SERIES_LENGTH)
            weight = 1.0 / (1 + series) / (1 + part)
            pick = left[random.choice(len(left), p=weight / weight.sum())]
        seen.add(pick)
        last[number] = pick
        chosen[event] = shelf[pick]
    return chosen


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write rows of text below a header, packed if the name ends in .gz."""
    with ExitStack() as stack:
        # mtime=0: the same log is the same bytes.
        file: IO[bytes] = (
            stack.enter_context(gzip.GzipFile(path, "wb", mtime=0))
            if path.suffix == ".gz"
            else stack.enter_context(path.open("wb"))
        )
        text = stack.enter_context(TextIOWrapper(file, encoding="utf-8", newline=""))
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
