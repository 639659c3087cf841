from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trainer.data.examples import WRITERS
from trainer.data.formats import read_raw
from trainer.data.log import log_of
from trainer.data.raw import FEATURES
from trainer.data.simulate import Simulation


@pytest.mark.parametrize("form", WRITERS)
def test_an_example_is_read_as_what_it_is(
    form: str, simulation: Simulation, tmp_path: Path
) -> None:
    WRITERS[form](simulation, tmp_path)
    raw = read_raw(tmp_path, 0.0, None)
    assert raw.format == form
    assert raw.skipped == raw.notes == ()
    log, made = log_of(raw).engagements(), simulation.log
    assert len(log) == len(made)
    assert log.interests == made.interests
    if form != "movielens":
        assert log.item_ids == made.item_ids
    people = {user: index for index, user in enumerate(log.user_ids)}
    for user, name in enumerate(made.user_ids):
        same = people[str(user + 1) if form == "movielens" else name]
        one = slice(made.offsets[user], made.offsets[user + 1])
        other = slice(log.offsets[same], log.offsets[same + 1])
        np.testing.assert_array_equal(made.items[one], log.items[other])
        np.testing.assert_array_equal(made.times[one], log.times[other])


def test_the_articles_example_has_features_of_both(simulation: Simulation, tmp_path: Path) -> None:
    WRITERS["article"](simulation, tmp_path)
    log = log_of(read_raw(tmp_path, 0.0, None))
    assert log.contents[FEATURES].shape == (480, 2)
    assert log.profiles.shape == (40, 5)
    assert np.isnan(log.contents[FEATURES]).any(), "some are left blank, to be filled in"
    assert len(log) == 2 * len(log.engagements())
