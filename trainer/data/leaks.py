"""Whether features of examples know anything that came after their moment.

Features are computed twice: from the whole log, and from what was known just before the moment,
where the event that is asked about has another item and another type, since these are the answer.
Whatever differs has leaked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ebbing.events import EventType
from ebbing.features import candidate_features
from ebbing.interest.forgetting import ForgettingParameters
from trainer.data.log import EventLog
from trainer.data.replay import histories_before, state_before

Features = Callable[[EventLog, np.ndarray, np.ndarray], Mapping[str, np.ndarray]]
"""(log, (G,) event numbers, (G, C) item indexes of candidates) → named arrays of G rows each: what
a model is shown when it is asked which of the candidates the user of each event took then."""


class LeakError(Exception):
    """Features that know the future; the message names them and an example."""


@dataclass(frozen=True)
class Leak:
    """A feature that differs once the future is gone."""

    feature: str
    event: int
    """Number of the event of the example."""


def find_leaks(
    features: Features,
    log: EventLog,
    events: np.ndarray,
    candidates: np.ndarray,
    rtol: float = 1e-5,
    atol: float = 1e-6,
) -> list[Leak]:
    """The features that leak, example by example; none if all is well.

    Args:
        events: (G,) event numbers; each costs a log of its own, so a few dozen do.
        candidates: (G, C) item indexes, what was taken among them.
        rtol, atol: what differences of rounding may be, as `numpy.isclose` takes them.
    """
    whole = features(log, events, candidates)
    leaks = []
    for row, event in enumerate(events.tolist()):
        past, asked = log_before(log, event)
        alone = features(past, np.array([asked]), candidates[row : row + 1])
        leaks += [
            Leak(name, event)
            for name, values in whole.items()
            if not np.allclose(values[row], alone[name][0], rtol, atol, equal_nan=True)
        ]
    return leaks


def check_leaks(
    features: Features, log: EventLog, events: np.ndarray, candidates: np.ndarray
) -> None:
    """Refuse features that leak; see `find_leaks`.

    Raises:
        LeakError: some do.
    """
    leaks = find_leaks(features, log, events, candidates)
    if leaks:
        names = ", ".join(sorted({leak.feature for leak in leaks}))
        user = log.user_ids[log.users[leaks[0].event]]
        moment = float(log.times[leaks[0].event])
        raise LeakError(
            f"features know what came after their moment: {names}; for instance of user {user!r} "
            f"at {moment:.15g}: compute them from what happened before"
        )


def log_before(log: EventLog, event: int) -> tuple[EventLog, int]:
    """What was known just before an event, and the event's number there.

    That is the user's events before it in the order of the log, and all others of earlier times.
    The event itself is there as a question only: by whom and when, with another item and type.
    """
    same = log.users == log.users[event]
    number = np.arange(len(log))
    keep = np.where(same, number <= event, log.times < log.times[event])
    items, types = log.items.copy(), log.types.copy()
    items[event] = (items[event] + 1) % len(log.item_ids)
    types[event] = EventType.VIEW if types[event] != EventType.VIEW else EventType.CLICK
    past = EventLog.of(
        log.user_ids,
        log.item_ids,
        log.interests,
        log.users[keep],
        items[keep],
        types[keep],
        log.times[keep],
        log.relations,
        log.contents,
        log.profiles,
        log.strengths,
    )
    return past, int(keep[:event].sum())


def served_features(parameters: ForgettingParameters) -> Features:
    """What the gateway shows the ranker: history, and the state of the candidates' interests."""

    def features(
        log: EventLog, events: np.ndarray, candidates: np.ndarray
    ) -> dict[str, np.ndarray]:
        keys, ages, types = histories_before(log, events)
        states = [
            candidate_features(
                state_before(log, event),
                [log.interests[item] for item in offered],
                float(log.times[event]),
                parameters,
            )
            for event, offered in zip(events.tolist(), candidates.tolist(), strict=True)
        ]
        return {"keys": keys, "ages": ages, "types": types, "interests": np.stack(states)}

    return features
