from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

from ebbing.interest.forgetting import ForgettingParameters
from ebbing.progress import Reporter
from tests.harness.rankings import Told, log_of_rows
from trainer.evaluation.protocol import leave_one_out
from trainer.evaluation.ranking import EvaluationConfig, RankingEvaluation, evaluate_ranking
from trainer.evaluation.report import pages
from trainer.evaluation.resampling import Bootstrap


def evaluate(
    rows: list[tuple[int, int]], best: int, reporter: Reporter
) -> tuple[RankingEvaluation, dict[str, Any]]:
    """Of a model that likes one item best, and its figures."""
    log = log_of_rows(rows)
    model = Told(log.item_ids, lambda keys, items: (items == best).float().expand(len(keys), -1))
    evaluation = evaluate_ranking(
        log,
        leave_one_out(log, repeats=False),
        model,
        lambda *inputs: torch.full(inputs[3].shape, 0.5),
        ForgettingParameters.builtin(),
        reporter,
        EvaluationConfig(bootstrap=Bootstrap(50)),
    )
    told = {"run": "mine", "data": "shop", "seconds": 1.0, "peak_memory_bytes": 2**20}
    return evaluation, told | evaluation.to_json()


def rows_of(users: int) -> list[tuple[int, int]]:
    """Everybody ends with item 5, which is had least in training."""
    random = np.random.default_rng(2)
    rows = [(users, 5), (users, 0)]
    for user in range(users):
        rows += [(user, int(item)) for item in random.permutation(5)[:4]] + [(user, 5)]
    return rows


def page_of(evaluation: RankingEvaluation, figures: dict[str, Any]) -> str:
    return pages(evaluation, figures)["report.md"].decode()


def test_a_report_shows_its_plots_and_no_others(reporter: Reporter) -> None:
    written = pages(*evaluate(rows_of(40), 5, reporter))
    shown = re.findall(r"!\[[^]]+\]\(([^)]+)\)", written["report.md"].decode())
    assert sorted([*shown, "report.md"]) == sorted(written)
    for name in shown:
        assert written[name].startswith(b"\x89PNG")


def test_the_verdict_is_that_of_the_interval(reporter: Reporter) -> None:
    ahead = page_of(*evaluate(rows_of(40), 5, reporter))
    # Of two items that a user did not have both are among the first ten.
    assert "in 100.0% of 41 tests" in ahead
    assert "may be chance" in ahead
    evaluation, figures = evaluate(rows_of(40), 5, reporter)
    for sign, told in ((1, "is ahead by +0.5000 [+0.4000, +0.6000], 2.0 times"), (-1, "is behind")):
        gain = {"value": 0.5 * sign, "low": 0.5 * sign - 0.1, "high": 0.5 * sign + 0.1}
        for scorer in figures["gains"]:
            figures["gains"][scorer]["hit_rate_at_10"] = gain
            figures["full_catalogue"][scorer]["hit_rate_at_10"] = 0.5
        assert told in page_of(evaluation, figures)


def test_tables_are_whole(reporter: Reporter) -> None:
    page = page_of(*evaluate(rows_of(40), 5, reporter))
    for block in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
        widths = {line.count("|") for line in block.splitlines()}
        assert len(widths) == 1, block
    for words in ("coverage@10", "novelty@10, bits", "diversity@10 by vectors", "F1@10", "AUC"):
        assert words in page
    assert "own items again is what most had is" in page


@pytest.mark.parametrize("rows", [[(0, 0), (0, 1), (1, 1)], [(0, 0), (0, 1), (1, 1), (1, 5)]])
def test_a_single_test_makes_a_report_too(rows: list[tuple[int, int]], reporter: Reporter) -> None:
    assert "1 tests" in page_of(*evaluate(rows, 1, reporter))
