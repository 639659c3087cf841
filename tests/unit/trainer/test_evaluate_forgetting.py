from __future__ import annotations

import csv
import gzip
import io
import json
import math
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from ebbing.progress import Reporter, Stage
from trainer import evaluate_forgetting as module
from trainer.data.log import EventLog
from trainer.data.simulate import Simulation
from trainer.evaluate_forgetting import (
    EvaluationError,
    ForgettingEvaluation,
    evaluate_forgetting,
    served_retention,
)
from trainer.forgetting import fit_forgetting
from trainer.forgetting_report import report, table
from trainer.return_prediction import DAY_S, ReturnCases, cases_at, exploded

PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def evaluation(simulation: Simulation) -> ForgettingEvaluation:
    return evaluate_forgetting(simulation.log, 20 * DAY_S, "test", Reporter())


def log_of(rows: list[tuple[int, int, float]], interests: int = 3) -> EventLog:
    """(user, item, day) rows on items of one interest each."""
    users, items, days = (np.array(column) for column in zip(*rows, strict=True))
    return EventLog.of(
        [f"u{n}" for n in range(int(users.max()) + 1)],
        [f"i{n}" for n in range(interests)],
        [((f"n{n}", 1.0),) for n in range(interests)],
        users,
        items,
        np.ones(len(rows)),
        days * DAY_S,
    )


def test_scores_can_be_scored_by_anyone(
    simulation: Simulation, evaluation: ForgettingEvaluation, data: Path
) -> None:
    """The protocol once more, from the CSV files alone and by brute force."""
    with gzip.open(data / "items.csv.gz", "rt") as file:
        interests = {r["item_id"]: r["interests"].split("|") for r in csv.DictReader(file)}
    with gzip.open(data / "events.csv.gz", "rt") as file:
        engaged = [
            (row["user_id"], interest, float(row["event_time"]))
            for row in csv.DictReader(file)
            if row["event_type"].lower() not in {"impression", "dislike"}
            for interest in interests[row["item_id"]]
            if interest
        ]
    assert len({interest for _, interest, _ in engaged}) <= 40
    at = float(np.quantile([time for _, _, time in engaged], 0.8))
    past = {(user, interest) for user, interest, time in engaged if time <= at}
    ahead = {(u, interest) for u, interest, time in engaged if at < time <= at + 20 * DAY_S}
    back = {user for user, _ in ahead}
    truth = {case: case in ahead for case in past if case[0] in back}

    text = evaluation.scores_csv(simulation.log.user_ids)
    rows = list(csv.DictReader(io.StringIO(text)))
    said = {(row["user_id"], row["interest"]): float(row["retention"]) for row in rows}
    assert len(rows) == len(said)
    assert said.keys() == truth.keys()

    def area(cases: list[tuple[str, str]]) -> float | None:
        lost = [said[case] for case in cases if not truth[case]]
        kept = [said[case] for case in cases if truth[case]]
        pairs = [(a > b) + (a == b) / 2 for a, b in product(kept, lost)]
        return sum(pairs) / len(pairs) if pairs else None

    of_user = defaultdict(list)
    for case in truth:
        of_user[case[0]].append(case)
    areas = [found for cases in of_user.values() if (found := area(cases)) is not None]
    bins = defaultdict(list)
    for case, p in said.items():
        bins[min(int(p * 15), 14)].append(p - truth[case])
    expected = {
        "auc": area(list(truth)),
        "user_auc": sum(areas) / len(areas),
        "log_loss": -sum(math.log(said[c] if truth[c] else 1 - said[c]) for c in truth)
        / len(truth),
        "brier": sum((said[case] - truth[case]) ** 2 for case in truth) / len(truth),
        "ece": sum(abs(sum(part)) for part in bins.values()) / len(truth),
        "cases": len(truth),
    }
    figures = json.loads(json.dumps(evaluation.to_json()))["shipped"]
    assert {name: figures[name] for name in expected} == pytest.approx(expected, rel=1e-9)


def test_fitting_and_serving_see_nothing_after_the_cut(
    simulation: Simulation, evaluation: ForgettingEvaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []

    def fit(log: EventLog, *rest: object) -> object:
        seen.append(float(log.times.max()))
        return fit_forgetting(log, *rest)  # type: ignore[arg-type]

    def serve(past: EventLog, *rest: object) -> np.ndarray:
        seen.append(float(past.times.max()))
        return served_retention(past, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "fit_forgetting", fit)
    monkeypatch.setattr(module, "served_retention", serve)
    again = evaluate_forgetting(simulation.log, 20 * DAY_S, "test", Reporter())
    assert len(seen) == 2
    assert max(seen) <= again.at
    np.testing.assert_array_equal(again.retention, evaluation.retention)


def test_every_case_is_served_its_own_interest(simulation: Simulation) -> None:
    """Asking one case alone gives what asking all together gives."""
    log = simulation.log
    at = float(np.quantile(log.times, 0.8))
    past, rows = log.until(at), exploded(log)
    cases = cases_at(rows, at, 20 * DAY_S)
    parameters = fit_forgetting(past, "test", 20 * DAY_S).parameters
    together = served_retention(past, rows.names, cases, parameters)
    for case in (0, len(cases) // 2, len(cases) - 1):
        part = slice(case, case + 1)
        alone = ReturnCases(
            cases.users[part], cases.interests[part], cases.returned[part], at, 20 * DAY_S
        )
        assert served_retention(past, rows.names, alone, parameters) == together[case]


def test_a_report_has_its_plots_and_every_figure(evaluation: ForgettingEvaluation) -> None:
    about = {
        "data": "generated", **evaluation.to_json(), "seconds": 1.0, "peak_memory_bytes": 2**28
    }  # fmt: skip
    files = report(evaluation, about)
    assert files["reliability.png"].startswith(PNG)
    assert files["curves.png"].startswith(PNG)
    page = files["report.md"].decode()
    assert f"{evaluation.shipped['auc']:.4f}" in page
    for row in evaluation.baselines.values():
        assert f"{row['log_loss']:.4f}" in page
    assert table(evaluation).row_count == 1 + len(evaluation.baselines)


def test_a_log_without_interests_is_refused() -> None:
    rows = [(0, 0, float(day)) for day in range(100)]
    bare = log_of(rows)
    silent = EventLog.of(
        bare.user_ids, bare.item_ids, [()] * 3, bare.users, bare.items, bare.types, bare.times
    )
    with pytest.raises(EvaluationError, match="fill the column interests"):
        evaluate_forgetting(silent, DAY_S, "test", Reporter())


def test_a_single_user_among_many_interests_tells_nothing() -> None:
    rows = [(0, day % 50, float(day)) for day in range(100)]
    with pytest.raises(EvaluationError, match="over 30 % of the users"):
        evaluate_forgetting(log_of(rows, 50), DAY_S, "test", Reporter())


@pytest.mark.parametrize(
    ("days", "message"),
    [
        (0.0, "above 0"),
        (float("nan"), "above 0"),
        (1000.0, "longer than the 79.2 days this log holds before its cut .*shorten the horizon"),
    ],
)
def test_horizons_the_log_cannot_answer(days: float, message: str) -> None:
    rows = [(user, (user + day) % 3, float(day)) for day in range(100) for user in range(3)]
    with pytest.raises(EvaluationError, match=message):
        evaluate_forgetting(log_of(rows), days * DAY_S, "test", Reporter())


def test_a_log_too_short_before_the_cut_is_refused() -> None:
    rows = [(0, 0, day / 10) for day in range(80)] + [(0, 1, 8.0 + day) for day in range(20)]
    with pytest.raises(EvaluationError, match="before its cut"):
        evaluate_forgetting(log_of(rows), 10 * DAY_S, "test", Reporter())


def test_a_log_that_ends_within_the_horizon_is_measured_by_what_it_has(
    simulation: Simulation,
) -> None:
    log = simulation.log
    short = evaluate_forgetting(log, 45 * DAY_S, "test", Reporter())
    left = (log.times.max() - short.at) / DAY_S
    assert 20 < left < 45
    found = short.to_json()
    assert found["horizon_days"] == 45
    assert found["outcomes_days"] == pytest.approx(left)
    assert short.shortened is not None
    assert f"the log ends {left:.1f} days after its cut" in short.shortened
    about = {"data": "generated", **found, "seconds": 1.0, "peak_memory_bytes": 2**28}
    assert short.shortened in report(short, about)["report.md"].decode()
    # Returns after the log's end would be no others than those counted.
    assert short.shipped["auc"] > 0.7


def test_a_log_that_goes_on_is_measured_whole(evaluation: ForgettingEvaluation) -> None:
    found = evaluation.to_json()
    assert found["outcomes_days"] == found["horizon_days"] == 20
    assert evaluation.shortened is None


def test_baselines_learn_at_the_newest_cut_that_tells_anything(simulation: Simulation) -> None:
    """Where the horizon before the cut was silent, they are fitted further back, as the engine."""
    log = simulation.log
    at = float(np.quantile(exploded(log).asked().times, 0.8))
    horizon_s = 10 * DAY_S
    silent = np.flatnonzero((log.times > at - horizon_s) & (log.times < at - DAY_S / 10))
    quiet = log.without(silent)
    measured = evaluate_forgetting(quiet, horizon_s, "test", Reporter())
    assert measured.baselines["act_r"]["auc"] > 0.6


def test_progress_is_told_in_steps(simulation: Simulation) -> None:
    seen: dict[str, tuple[int, int]] = {}

    class Watching(Reporter):
        @contextmanager
        def stage(self, name: str, total: int, unit: str = "steps") -> Iterator[Stage]:
            stage = Stage(name, total, unit)
            yield stage
            seen[name] = stage.done, stage.total

    evaluate_forgetting(simulation.log, 20 * DAY_S, "test", Watching())
    assert seen.keys() == {"forgetting", "retention", "baselines"}
    assert all(done == total > 1 for done, total in seen.values())


def test_outcomes_that_are_all_alike_are_refused() -> None:
    always = [(user, 0, float(day)) for day in range(100) for user in range(3)]
    with pytest.raises(EvaluationError, match="all came back within 5 days after the cut"):
        evaluate_forgetting(log_of(always), 5 * DAY_S, "test", Reporter())
    never = [(0, day, float(day)) for day in range(30)]
    with pytest.raises(EvaluationError, match="none came back within 3 days after the cut"):
        evaluate_forgetting(log_of(never, 30), 3 * DAY_S, "test", Reporter())
    gone = [(0, day % 2, float(day)) for day in range(30)] + [
        (n, 0, 60.0 + n) for n in range(1, 10)
    ]
    with pytest.raises(EvaluationError, match="no user known before comes back within 3 days"):
        evaluate_forgetting(log_of(gone), 3 * DAY_S, "test", Reporter())
    steady = [(0, day % 2, float(day)) for day in range(99)] + [(0, 2, 79.0)]
    with pytest.raises(EvaluationError, match=r"all came back .* nor are there both outcomes ear"):
        evaluate_forgetting(log_of(steady), 9 * DAY_S, "test", Reporter())
