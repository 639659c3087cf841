from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ebbing.progress import Reporter
from trainer.data.log import read_log
from trainer.data.simulate import SimulationConfig, simulate
from trainer.evaluation.of_run import Question, evaluate_run
from trainer.evaluation.protocol import EvaluationError, moment
from trainer.runs import RunError


@pytest.fixture(scope="module")
def until(
    train_tiny: Callable[..., dict], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict]:
    """A run that ends at the cut."""
    folder = tmp_path_factory.mktemp("until")
    return folder, train_tiny(folder, until="80%")


def test_a_run_says_what_it_held_out(trained: Path, until: tuple[Path, dict], data: Path) -> None:
    log = read_log(data)
    held_out = json.loads((trained / "run.json").read_text())["held_out"]
    assert held_out["protocol"] == "leave-one-out"
    assert held_out["events"] == len(log.last_events())
    declared = until[1]
    assert declared["held_out"]["protocol"] == "temporal"
    known = log.until(declared["held_out"]["cut"])
    assert declared["counts"]["training_events"] == len(known)
    assert declared["window"]["last"] <= moment(declared["held_out"]["cut"])


def test_a_run_until_a_cut_is_asked_for_what_came_after(
    until: tuple[Path, dict], data: Path, reporter: Reporter
) -> None:
    folder, declared = until
    found = evaluate_run(folder, data, reporter).to_json()
    assert found["asked"]["protocol"] == "temporal"
    row = found["full_catalogue"]["retrieval"]
    trained = declared["metrics"]["full_catalogue"]["retrieval"]
    assert row["ndcg_at_10"] == pytest.approx(trained["ndcg_at_10"])
    every = evaluate_run(folder, data, reporter, Question("temporal", "all")).to_json()
    assert every["asked"]["tests"] > found["asked"]["tests"]


def test_what_shows_no_interest_is_no_test(
    trained: Path, data: Path, tmp_path: Path, reporter: Reporter
) -> None:
    with gzip.open(data / "events.csv.gz", "rt") as file:
        header, *rows = file.read().splitlines()
    passed_over = [",".join([*row.split(",")[:2], "impression", "1999999999"]) for row in rows[::3]]
    with gzip.open(tmp_path / "events.csv.gz", "wt") as file:
        file.write("\n".join([header, *rows, *passed_over]))
    shutil.copy(data / "items.csv.gz", tmp_path)
    with_them, without = (
        evaluate_run(trained, folder, reporter).to_json()["full_catalogue"]["retrieval"]
        for folder in (tmp_path, data)
    )
    assert with_them == without


def test_a_run_that_saw_its_tests_is_refused(trained: Path, data: Path, reporter: Reporter) -> None:
    with pytest.raises(
        EvaluationError, match=r"trained on [\d,]+ of [\d,]+ tests.*train one that ends.*--until 20"
    ):
        evaluate_run(trained, data, reporter, Question("temporal"))


def test_a_log_that_was_cut_short_since_is_refused(
    trained: Path, until: tuple[Path, dict], data: Path, tmp_path: Path, reporter: Reporter
) -> None:
    rows = gzip.decompress((data / "events.csv.gz").read_bytes()).decode().splitlines()
    (tmp_path / "events.csv").write_text("\n".join(rows[: len(rows) * 2 // 3]) + "\n")
    (tmp_path / "items.csv.gz").write_bytes((data / "items.csv.gz").read_bytes())
    with pytest.raises(EvaluationError, match="train on this log"):
        evaluate_run(trained, tmp_path, reporter)
    with pytest.raises(EvaluationError, match="ask it with --protocol temporal"):
        evaluate_run(until[0], tmp_path, reporter, Question("leave-one-out"))


def test_users_a_run_never_saw_are_asked_of_it(
    trained: Path, tmp_path: Path, reporter: Reporter
) -> None:
    simulate(SimulationConfig(users=20, items=480, days=150, seed=99)).write(tmp_path)
    assert evaluate_run(trained, tmp_path, reporter).to_json()["asked"]["tests"] > 0


def test_a_run_of_other_code_says_so(run: Path, data: Path, reporter: Reporter) -> None:
    declared = json.loads((run / "run.json").read_text())
    del declared["held_out"]
    (run / "run.json").write_text(json.dumps({**declared, "code_version": "0.0.1"}))
    with pytest.raises(RunError, match=r"other code \(0\.0\.1\).*train again"):
        evaluate_run(run, data, reporter)


def test_a_run_that_does_not_say_what_it_trained_on_is_refused(
    run: Path, data: Path, reporter: Reporter
) -> None:
    declared = json.loads((run / "run.json").read_text())
    del declared["files"]["trained.npy"]
    (run / "run.json").write_text(json.dumps(declared))
    (run / "trained.npy").unlink()
    with pytest.raises(RunError, match=r"trained\.npy: does not say what.*train again"):
        evaluate_run(run, data, reporter)
