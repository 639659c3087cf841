"""A run measured on tests that it has not seen: whatever it was trained on is refused."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from ebbing.progress import Reporter
from trainer.data.load import load_log
from trainer.data.log import EventLog
from trainer.evaluation.placing import placing_by
from trainer.evaluation.protocol import (
    Asked,
    EvaluationError,
    HeldOut,
    Name,
    leave_one_out,
    moment,
    quantile_cut,
    temporal,
)
from trainer.evaluation.ranking import EvaluationConfig, RankingEvaluation, evaluate_ranking
from trainer.runs import Run


@dataclass(frozen=True)
class Question:
    """What is asked of a run."""

    protocol: Name | None = None
    """None is the one the run was made for."""
    asked: Asked = "first"
    """Which of a user's events after the cut are tests of the temporal protocol."""
    repeats: bool | None = None
    """Whether seen items are recommended; None leaves it to the log."""


def evaluate_run(
    folder: Path,
    data: Path,
    reporter: Reporter,
    question: Question | None = None,
    config: EvaluationConfig | None = None,
) -> RankingEvaluation:
    """Measure a run's exported models on a log.

    Raises:
        RunError, LogError, EvaluationError: see there.
    """
    run = Run.read(folder)
    with reporter.stage("log", 1, "logs") as stage:
        log = load_log(data, run.reading())[0].engagements()
        stage.advance(1, events=len(log), users=len(log.user_ids), items=len(log.item_ids))
    tests = held_out_for(run, log, question or Question())
    refuse_trained(run, log, tests, data)
    return measured(run, log, tests, reporter, config)


def measured(
    run: Run,
    log: EventLog,
    tests: HeldOut,
    reporter: Reporter,
    config: EvaluationConfig | None = None,
) -> RankingEvaluation:
    """Measure a run on tests of a log, whatever it was trained on.

    Raises:
        RunError: a model does not load.
        EvaluationError: as `evaluate_ranking`.
    """
    return evaluate_ranking(
        log,
        tests,
        run.model("retrieval"),
        run.model("ranking"),
        run.forgetting(),
        reporter,
        config,
        placing_by(run.model("item_encoder")) if "item_encoder" in run.models else None,
    )


def held_out_for(run: Run, log: EventLog, question: Question) -> HeldOut:
    """The tests asked for; the temporal protocol cuts where the run's training ended.

    Raises:
        EvaluationError: there is none.
    """
    held_out = run.held_out
    protocol = question.protocol or held_out["protocol"]
    if protocol == "leave-one-out":
        return leave_one_out(log, question.repeats)
    cut = held_out["cut"] if held_out["cut"] is not None else quantile_cut(log)
    return temporal(log, float(cut), question.asked, question.repeats)


def refuse_trained(run: Run, log: EventLog, tests: HeldOut, data: Path) -> None:
    """Refuse a run that was trained on its tests.

    Raises:
        EvaluationError: it was.
        RunError: it does not say what it was trained on.
    """
    found, of = run.trained().among(log, tests.events)
    if not found:
        return
    again = f"ebbing train --data {shlex.quote(str(data))} --out RUN"
    if tests.protocol == "temporal":
        remedy = f"train one that ends at the cut: {again} --until {moment(float(tests.cut or 0))}"
    elif run.held_out["protocol"] == "temporal":
        remedy = f"ask it with --protocol temporal, or train one that holds out less: {again}"
    else:
        remedy = f"train on this log, which holds each user's last event out: {again}"
    raise EvaluationError(
        f"{run.folder}: was trained on {found:,} of {of:,} tests of {data}, so that its figures "
        f"would tell nothing; {remedy}"
    )
