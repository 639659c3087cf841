"""What an interest's retention is made of: named contributions that add up to its log-odds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ebbing.interest.forgetting import PARTS, ForgettingParameters, log_odds_parts, retention
from ebbing.interest.standing import DAY_S, FEATURES, features, standing_of
from ebbing.interest.trace import TraceTable

__all__ = ["Contribution", "explain"]


@dataclass(frozen=True, slots=True)
class Contribution:
    """One part of the log-odds of retention."""

    name: str
    """Of ``ebbing.interest.forgetting.PARTS``."""
    value: float
    """What was measured, in the unit ``text`` tells; of parts that are known of the interest, or
    of its company, the log-odds themselves."""
    log_odds: float
    """What it adds against the typical case."""
    text: str
    """The part in one line of English."""


# How the features were made, to tell what was measured: log(1 + x), or log(x).
_PLAIN_LOG = frozenset(
    ("long_share", "medium_share", "short_share", "event_share", "repetition", "steadiness")
)
_TEXTS = {
    "base": "the typical interest returns with {:.1%}",
    "frequency": "engaged {:.0f} times",
    "recency": "last engaged {:.1f} days ago",
    "gap": "usually {:.1f} days between events",
    "overdue": "quiet for {:.1f} of those gaps",
    "long_share": "{:.1%} of the user's attention of two years",
    "medium_share": "{:.1%} of the user's attention of half a year",
    "short_share": "{:.1%} of the user's attention of two weeks",
    "event_share": "in {:.1%} of the user's events",
    "activity": "the user has {:.0f} events",
    "recent_activity": "{:.1f} events' worth of them lately",
    "breadth": "the user has {:.0f} interests",
    "repetition": "each engaged {:.1f} times beyond the first",
    "steadiness": "the user was there in {:.0f} of the last 64 four-day spans",
    "absence": "the user was last there {:.1f} days ago",
    "popularity": "how popular the interest is with everybody",
    "returns": "how readily users come back to it, beyond its popularity",
    "company": "what the user's other interests say of it",
    "horizon": "a horizon of {:.0f} days",
}
_ONCE, _AGAIN = "engaged once so far, so that its gap is assumed", "engaged more than once"


def explain(
    table: TraceTable,
    at: float,
    name: str,
    parameters: ForgettingParameters,
    horizon_s: float | None = None,
) -> tuple[Contribution, ...]:
    """The contributions to the retention of one interest; they sum to its log-odds.

    Args:
        table: the traces of one user.
        at: seconds since the epoch, not before the user's newest event.
        name: path of the interest.
        parameters: of a release.
        horizon_s: seconds; the one fitted if None.

    Raises:
        KeyError: the user has no such interest.
        ValueError: ``at`` is before the user's newest event.
        HorizonOutOfFamily: the parameters say nothing of such a horizon.
    """
    if not at >= table.span[1]:
        raise ValueError(f"{at} is before the newest event, {table.span[1]}")
    i = table.index[name] - 1
    if i < 0:
        raise KeyError(name)
    standing = standing_of(table)
    parts = log_odds_parts(standing, table.names, at, parameters, horizon_s)[i].tolist()
    measured = features(standing, at, parameters.default_gap_s)[i].tolist()
    values = dict(zip(PARTS, parts, strict=True))
    values["base"] = float(retention(parts[:1]))
    values["horizon"] = (horizon_s or parameters.horizon_s) / DAY_S
    for feature, value in zip(FEATURES, measured, strict=True):
        values[feature] = float(np.exp(value) if feature in _PLAIN_LOG else np.expm1(value))
    return tuple(
        Contribution(part, values[part], log_odds, _text(part, values[part]))
        for part, log_odds in zip(PARTS, parts, strict=True)
    )


def _text(part: str, value: float) -> str:
    if part == "once":
        return _ONCE if value > 0.5 else _AGAIN
    return _TEXTS[part].format(value)
