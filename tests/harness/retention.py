"""Parameters and logs of all kinds, for what must hold of retention whatever they are."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ebbing.interest.forgetting import LONGEST_QUIET_S, ForgettingParameters
from ebbing.interest.population import MOST_LOG_ODDS, Population
from ebbing.interest.standing import DAY_S, FALLS_BY_WAITING, FEATURES, GROWS_BY_WAITING
from ebbing.interest.trace import Event

NOW = 1.7e9
CENTURY_S = 100 * 365.25 * DAY_S
NAMES = ("a", "b", "c/d", "c/e", "f/g")
"""Interests of the logs; a population may know others of the same parents instead."""
KNOWN = (*NAMES, "c", "c/x", "f/y", "z")


def fitted() -> ForgettingParameters:
    """Parameters in which every part has a say."""
    strength = np.linspace(0.1, 0.6, len(FEATURES))
    signs = np.where(np.isin(np.arange(len(FEATURES)), GROWS_BY_WAITING), -1.0, 1.0)
    return ForgettingParameters(
        horizon_s=30 * DAY_S,
        base=-2.0,
        typical=tuple(np.linspace(-1.0, 2.0, len(FEATURES)).tolist()),
        coefficients=tuple((strength * signs).tolist()),
        default_gap_s=40 * DAY_S,
        horizons=((7 * DAY_S, -1.1), (14 * DAY_S, -0.5), (30 * DAY_S, 0.0), (90 * DAY_S, 0.7)),
        population=Population(
            names=("tea", "sports/football", "sports/rugby", "music", "music/opera"),
            popularity=np.array([0.8, 0.5, -0.6, 0.1, -0.9]),
            returns=np.array([0.3, -0.1, 0.2, 0.0, 0.45]),
            says=np.array([[0.5, -0.2], [-0.3, 0.6], [-0.1, 0.4], [0.2, 0.2], [0.7, 0.0]]),
            hears=np.array([[0.4, 0.1], [0.2, 0.7], [0.0, 0.5], [-0.3, 0.3], [0.1, -0.4]]),
            unknown_popularity=-1.4,
        ),
        version="fitted",
    )


def altered(parameters: ForgettingParameters, **changes: Any) -> str:
    """JSON of parameters with some of its fields replaced."""
    return json.dumps({**json.loads(parameters.to_json()), **changes})


@st.composite
def populations(draw: st.DrawFn, most: float) -> Population:
    """Any population whose effects are not beyond ±most."""
    effect = st.floats(-most, most)
    names = draw(st.lists(st.sampled_from(KNOWN), unique=True, max_size=6))
    k, width = len(names), draw(st.integers(0, 3))

    def array(*shape: int) -> np.ndarray:
        n = int(np.prod(shape))
        return np.array(draw(st.lists(effect, min_size=n, max_size=n))).reshape(shape)

    return Population(
        tuple(names), array(k), array(k), array(k, width), array(k, width), draw(effect)
    )


@st.composite
def parameters(draw: st.DrawFn, most: float = MOST_LOG_ODDS) -> ForgettingParameters:
    """Any parameters that are accepted, no log-odds beyond ±most."""
    any_, down, up = st.floats(-most, most), st.floats(-most, 0), st.floats(0, most)
    signed = {**dict.fromkeys(GROWS_BY_WAITING, down), **dict.fromkeys(FALLS_BY_WAITING, up)}
    n = len(FEATURES)
    horizons = st.floats(3600.0, LONGEST_QUIET_S)
    seconds = sorted(draw(st.lists(horizons, min_size=1, max_size=5, unique=True)))
    fitted_one = draw(st.integers(0, len(seconds) - 1))
    shorter = sorted(draw(st.lists(down, min_size=fitted_one, max_size=fitted_one)))
    rest = len(seconds) - 1 - fitted_one
    longer = sorted(draw(st.lists(up, min_size=rest, max_size=rest)))
    return ForgettingParameters(
        horizon_s=seconds[fitted_one],
        base=draw(any_),
        typical=tuple(draw(st.lists(any_, min_size=n, max_size=n))),
        coefficients=tuple(draw(signed.get(i, any_)) for i in range(n)),
        default_gap_s=draw(st.floats(1.0, LONGEST_QUIET_S)),
        horizons=tuple(zip(seconds, [*shorter, 0.0, *longer], strict=True)),
        population=draw(populations(most)),
        version="drawn",
    )


moderate = partial(parameters, most=3.0)
"""Parameters of a size that log-odds can be read back from the retention they give."""


def logs(span_s: float = CENTURY_S, most_events: int = 20) -> st.SearchStrategy[list[Event]]:
    """Events within so many seconds of ``NOW`` on either side, in any order, one at least."""
    shares = st.dictionaries(st.sampled_from(NAMES), st.floats(0.1, 10), max_size=3)
    event = st.tuples(
        st.floats(NOW - span_s, NOW + span_s),
        st.floats(0.1, 10),
        shares.map(lambda by_name: list(by_name.items())),
    )
    return st.lists(event, min_size=1, max_size=most_events)
