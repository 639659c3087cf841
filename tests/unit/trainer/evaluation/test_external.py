from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ebbing.progress import Reporter
from tests.harness.rankings import log_of_rows
from tests.unit.trainer.conftest import TINY
from trainer.data.simulate import SimulationConfig, simulate
from trainer.evaluation.external import evaluate_external, joined
from trainer.evaluation.protocol import EvaluationError, external
from trainer.train import TrainingRun


def test_logs_are_joined_by_their_items() -> None:
    known = log_of_rows([(0, 0), (0, 1), (1, 1)], ["a", "b"])
    other = log_of_rows([(0, 1), (0, 0), (0, 2)], ["b", "c", "a"])
    both = joined(known, other)
    assert both.user_ids == ("u0", "u1", "u0")
    assert both.item_ids == ("a", "b", "c")
    assert both.users.tolist() == [0, 0, 1, 2, 2, 2]
    assert [both.item_ids[item] for item in both.items] == ["a", "b", "b", "c", "b", "a"]
    # What the first log says of an item counts; c is its own.
    assert [names[0][0] for names in both.interests] == ["even", "odd", "odd"]


def test_tests_are_of_the_other_users_and_known_is_the_first_log_alone() -> None:
    known = log_of_rows([(0, 0), (0, 1), (1, 1)], ["a", "b"])
    other = log_of_rows([(0, 0), (0, 1), (1, 0), (1, 2), (2, 0)], ["a", "b", "c"])
    both = joined(known, other)
    tests = external(both, known)
    assert both.users[tests.events].tolist() == [2]
    assert both.users[tests.unseen].tolist() == [3]
    assert len(tests.known) == len(known)
    assert tests.alone == 1
    assert "none of these users trains" in str(tests)


def test_logs_without_a_common_item_or_test_are_refused() -> None:
    known = log_of_rows([(0, 0), (0, 1)], ["a", "b"])
    with pytest.raises(EvaluationError, match="two logs of one catalogue"):
        joined(known, log_of_rows([(0, 0)], ["c"]))
    both = joined(known, log_of_rows([(0, 0)], ["a"]))
    with pytest.raises(EvaluationError, match="none of its 1 users makes a test"):
        external(both, known)


def test_users_nobody_saw_are_asked_of_what_was_trained_on_others(
    data: Path, tmp_path: Path, reporter: Reporter
) -> None:
    other = simulate(SimulationConfig(users=12, items=600, days=150, seed=5))
    other.write(tmp_path / "other")
    training = TrainingRun(data, tmp_path / "run", TINY)
    found = evaluate_external(training, tmp_path / "other", reporter)
    asked = found.to_json()["asked"]
    assert asked["protocol"] == "external"
    assert asked["tests"] + sum(asked["left_out"].values()) == 12
    # Items of the other log that the run does not know are placed by its encoder.
    assert asked["items_known"] < asked["items"]
    assert asked["items_placed"] == asked["items"] - asked["items_known"]
    assert found.places["retrieval"].ranks.max() < asked["items"]
    assert np.isfinite(found.mean("retrieval", "mrr").value)


def test_users_who_were_trained_on_are_refused_before_training(
    data: Path, tmp_path: Path, reporter: Reporter
) -> None:
    with pytest.raises(EvaluationError, match=r"[\d,]+ of [\d,]+ events are those of the log"):
        evaluate_external(TrainingRun(data, tmp_path / "run", TINY), data, reporter)
    assert not list(tmp_path.iterdir())
