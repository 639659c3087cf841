from __future__ import annotations

import numpy as np
import pytest

from ebbing.interest.standing import FEATURES
from trainer.cuts import FittingError
from trainer.data.log import EventLog
from trainer.data.simulate import Simulation
from trainer.prior import COLUMNS, PRIOR, SIGNS, coefficients_of, learn_prior
from trainer.return_prediction import DAY_S


@pytest.fixture(scope="module")
def log(simulation: Simulation) -> EventLog:
    return simulation.log


def users_of(log: EventLog, which: np.ndarray) -> EventLog:
    """The events of some users."""
    return log.without(np.flatnonzero(~np.isin(log.users, np.flatnonzero(which))))


def test_the_prior_published_keeps_every_sign() -> None:
    coefficients = coefficients_of(PRIOR)
    assert coefficients.shape == SIGNS.shape == (len(COLUMNS),)
    assert (coefficients * SIGNS >= 0).all()
    assert tuple(PRIOR) == COLUMNS


def test_what_is_learned_keeps_every_sign_and_is_deterministic(log: EventLog) -> None:
    one, other = learn_prior([log, log]), learn_prior([log, log])
    assert one == other
    assert tuple(one) == COLUMNS
    assert (coefficients_of(one) * SIGNS >= 0).all()


def test_a_log_counts_the_same_however_many_users_it_has(log: EventLog) -> None:
    """One of the same users, seen twice over, adds nothing; and the order of logs is nothing."""
    rank = np.arange(len(log.user_ids))
    small, large = users_of(log, rank % 8 == 0), users_of(log, rank % 8 > 0)
    twice = EventLog.of(
        [*log.user_ids, *(f"{user} again" for user in log.user_ids)],
        log.item_ids,
        log.interests,
        np.concatenate([large.users, large.users + len(log.user_ids)]),
        np.tile(large.items, 2),
        np.tile(large.types, 2),
        np.tile(large.times, 2),
    )
    own = slice(len(FEATURES))  # without popularity, which more users do change
    once = coefficients_of(learn_prior([small, large]))[own]
    for logs in ([large, small], [small, twice]):
        learned = coefficients_of(learn_prior(logs))[own]
        np.testing.assert_allclose(learned, once, atol=0.05, rtol=0.05)


def test_a_log_that_tells_nothing_is_refused(log: EventLog) -> None:
    end = float(log.times.min()) + 10 * DAY_S
    with pytest.raises(FittingError, match="less than the horizon"):
        learn_prior([log, log.until(end)])
