"""Cleaning a log in named steps, each of which counts what it did.

By default nothing is taken away: published figures belong to logs as they are. Only numbers that a
table of features leaves open are filled in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from trainer.data.log import EventLog
from trainer.data.raw import FEATURES, LogError

HOUR_S = 3600.0
FENCES = ("none", "iqr", "mad")
FILLS = ("none", "mean", "median", "linear")
_MAD_TO_DEVIATION = 1.4826
"""The standard deviation of a normal distribution over its median absolute deviation."""


@dataclass(frozen=True)
class CleaningConfig:
    """Which steps are taken, in the order they are taken in."""

    duplicates: bool = False
    """Leave out all but the first of events that are equal in user, item, type and time."""
    near_duplicates: float = 0.0
    """Leave out an event so many seconds or less after one equal in user, item and type: of a
    burst the first stays. 0: none."""
    earliest: float | None = None
    """Leave out what is told to have happened before these UTC seconds."""
    latest: float | None = None
    """Leave out what is told to have happened after these UTC seconds."""
    hourly_rate: int = 0
    """Leave out users with more events than this within any hour: no human acts so. 0: none."""
    user_events: int = 0
    """Leave out users with fewer events than this, and again as items go."""
    item_events: int = 0
    """Leave out items with fewer events than this, and again as users go."""
    outliers: str = "none"
    """Numbers of feature columns that count as missing. iqr: more than `reach` interquartile ranges
    outside the quartiles; mad: more than `reach` median absolute deviations, scaled to the standard
    deviation of a normal distribution, from the median; or none. Columns of flags stay."""
    reach: float = 3.0
    """See `outliers`. Tukey's fences are 1.5 and 3."""
    missing: str = "mean"
    """What missing numbers of feature columns become: the column's mean, its median, linear (what
    lies between the neighbours in the order of the table; at its ends, the nearest), or none: they
    stay missing. A column without any number becomes 0."""

    def __post_init__(self) -> None:
        if self.outliers not in FENCES:
            raise ValueError(f"outliers={self.outliers}: use one of {', '.join(FENCES)}")
        if self.missing not in FILLS:
            raise ValueError(f"missing={self.missing}: use one of {', '.join(FILLS)}")
        if self.reach <= 0:
            raise ValueError(f"reach={self.reach:g}: give a number above 0")

    @classmethod
    def parse(cls, steps: Sequence[str]) -> CleaningConfig:
        """The choices of a command line: `duplicates`, `near-duplicates=30`, `outliers=mad`.

        A step without a value takes the usual one.

        Raises:
            ValueError: no such step, or a value that is none; the message says what there is.
        """
        usual = {"duplicates": "yes", "near-duplicates": "10", "hourly-rate": "1000"} | {
            "user-events": "5", "item-events": "5", "outliers": "iqr", "missing": "mean"
        }  # fmt: skip
        kinds = {field.name.replace("_", "-"): field for field in fields(cls)}
        chosen: dict[str, object] = {}
        for step in steps:
            name, given, value = step.partition("=")
            if name not in kinds:
                raise ValueError(f"no step {name!r} of cleaning: use one of {', '.join(kinds)}")
            if not given and name not in usual:
                raise ValueError(f"{name} needs a value: {name}=NUMBER")
            field = kinds[name]
            chosen[field.name] = _value(step, value if given else usual[name], str(field.type))
        return cls(**chosen)


@dataclass(frozen=True)
class Step:
    """What a step of cleaning did."""

    name: str
    did: str
    """In words, with its setting."""
    changed: int
    of: int
    unit: str
    """What is counted: events, users, items or values."""


def clean(log: EventLog, config: CleaningConfig) -> tuple[EventLog, tuple[Step, ...]]:
    """Take the steps that were chosen, and tell what each did.

    Raises:
        LogError: no event is left.
    """
    steps = []
    for take in _steps(config):
        log, step = take(log)
        # A log without features has none to fill in, and need not say so.
        if step.of:
            steps.append(step)
        if not len(log):
            raise LogError(
                f"cleaning left no event: {step.name} ({step.did}) took the last of them; choose "
                "milder steps"
            )
    return log, tuple(steps)


_Take = Callable[[EventLog], tuple[EventLog, Step]]


def _steps(config: CleaningConfig) -> Iterator[_Take]:
    if config.duplicates:
        yield lambda log: _events(
            log, ~repeated(log, 0.0), "duplicates", "equal in user, item, type and time"
        )
    if config.near_duplicates > 0:
        yield lambda log: _events(
            log,
            ~repeated(log, config.near_duplicates),
            "near duplicates",
            f"within {config.near_duplicates:g} s of one equal in user, item and type",
        )
    if config.earliest is not None:
        earliest = config.earliest
        yield lambda log: _events(
            log, log.times >= earliest, "impossible times", f"before {earliest:.15g}"
        )
    if config.latest is not None:
        latest = config.latest
        yield lambda log: _events(
            log, log.times <= latest, "impossible times", f"after {latest:.15g}"
        )
    if config.hourly_rate > 0:
        yield lambda log: _users(log, config.hourly_rate)
    if config.user_events > 0 or config.item_events > 0:
        yield lambda log: _core(log, config.user_events, config.item_events)
    if config.outliers != "none":
        yield lambda log: _features(
            log,
            lambda column: np.where(
                outlying(column, config.outliers, config.reach), np.nan, column
            ),
            "outliers",
            f"beyond {config.reach:g} {config.outliers.upper()}, taken as missing",
        )
    if config.missing != "none":
        yield lambda log: _features(
            log,
            lambda one: filled(one, config.missing),
            "missing values",
            f"filled in: {config.missing}",
        )


def repeated(log: EventLog, within_s: float) -> np.ndarray:
    """(E,) bool: events that follow one equal in user, item and type by `within_s` or less."""
    order = np.lexsort((log.times, log.types, log.items, log.users))
    same = np.ones(max(len(log) - 1, 0), bool)
    for column in (log.users, log.items, log.types):
        ordered = column[order]
        same &= ordered[1:] == ordered[:-1]
    times = log.times[order]
    found = np.zeros(len(log), bool)
    found[order[1:]] = same & (times[1:] - times[:-1] <= within_s)
    return found


def outlying(column: np.ndarray, fence: str, reach: float) -> np.ndarray:
    """Whether each number of a column lies outside a fence; see `CleaningConfig.outliers`."""
    known = column[~np.isnan(column)].astype(np.float64)
    if np.isin(known, (0.0, 1.0)).all():
        return np.zeros(column.shape, bool)
    if fence == "iqr":
        low, high = np.quantile(known, (0.25, 0.75))
        spread = high - low
    else:
        low = high = np.median(known)
        spread = _MAD_TO_DEVIATION * np.median(np.abs(known - low))
    # A column most of whose numbers are equal has no measure of what is far.
    if spread == 0:
        return np.zeros(column.shape, bool)
    return (column < low - reach * spread) | (column > high + reach * spread)


def filled(column: np.ndarray, how: str) -> np.ndarray:
    """A column with its missing numbers filled in; see `CleaningConfig.missing`."""
    missing = np.isnan(column)
    known = column[~missing].astype(np.float64)
    if not len(known):
        return np.zeros_like(column)
    whole = column.copy()
    if how == "linear":
        places = np.arange(len(column))
        whole[missing] = np.interp(places[missing], places[~missing], known)
    else:
        whole[missing] = known.mean() if how == "mean" else np.median(known)
    return whole


def _events(log: EventLog, keep: np.ndarray, name: str, did: str) -> tuple[EventLog, Step]:
    step = Step(name, did, int((~keep).sum()), len(log), "events")
    return _inhabited(log, log.where(keep)), step


def _users(log: EventLog, rate: int) -> tuple[EventLog, Step]:
    first, last = slice(None, -rate), slice(rate, None)
    close = log.times[last] - log.times[first] < HOUR_S
    keep = np.ones(len(log.user_ids), bool)
    keep[log.users[first][close & (log.users[last] == log.users[first])]] = False
    items = np.ones(len(log.item_ids), bool)
    step = Step(
        "inhuman rates", f"over {rate:,} events within an hour", int((~keep).sum()), len(keep),
        "users",
    )  # fmt: skip
    return log.of_those(keep, items), step


def _core(log: EventLog, user_events: int, item_events: int) -> tuple[EventLog, Step]:
    users, items = np.ones(len(log.user_ids), bool), np.ones(len(log.item_ids), bool)
    while True:
        left = users[log.users] & items[log.items]
        few = np.bincount(log.users[left], minlength=len(users)) < max(user_events, 1)
        rare = np.bincount(log.items[left], minlength=len(items)) < item_events
        if not (few & users).any() and not (rare & items).any():
            break
        users, items = users & ~few, items & ~rare
    shorter = log.of_those(users, items)
    did = (
        f"of users with fewer than {user_events} or items with fewer than {item_events}; "
        f"{(~users).sum():,} users and {(~items).sum():,} items went"
    )
    return shorter, Step("few events", did, len(log) - len(shorter), len(log), "events")


def _features(
    log: EventLog, change: Callable[[np.ndarray], np.ndarray], name: str, did: str
) -> tuple[EventLog, Step]:
    """Change the columns of features of items and of users; vectors of other modalities stay."""
    tables = {FEATURES: log.contents.get(FEATURES, np.zeros((0, 0), np.float32))}
    tables["profiles"] = log.profiles
    after = {
        key: np.stack([change(column) for column in table.T], axis=1).astype(np.float32)
        for key, table in tables.items()
        if table.size
    }
    changed = sum(
        int(((tables[key] != table) & ~(np.isnan(tables[key]) & np.isnan(table))).sum())
        for key, table in after.items()
    )
    step = Step(name, did, changed, sum(table.size for table in after.values()), "values")
    contents = dict(log.contents)
    if FEATURES in after:
        contents[FEATURES] = after[FEATURES]
    return replace(log, contents=contents, profiles=after.get("profiles", log.profiles)), step


def _inhabited(before: EventLog, log: EventLog) -> EventLog:
    """The log without users who had events before and have none now."""
    gone = (np.diff(before.offsets) > 0) & (np.diff(log.offsets) == 0)
    return log.of_those(~gone, np.ones(len(log.item_ids), bool)) if gone.any() else log


def _value(step: str, text: str, kind: str) -> object:
    if kind == "str":
        return text
    if kind == "bool":
        if text in ("yes", "no"):
            return text == "yes"
        raise ValueError(f"{step}: say yes or no")
    try:
        return int(text) if kind == "int" else float(text)
    except ValueError:
        raise ValueError(f"{step}: {text!r} is not a number") from None
