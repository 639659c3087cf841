"""Whether a run is better than what is published: measured on the same tests, or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ebbing.manifest import Manifest, ManifestError, releases
from ebbing.progress import Reporter
from trainer.data.load import load_log
from trainer.data.log import EventLog, LogError
from trainer.evaluation.of_run import Question, held_out_for, measured, refuse_trained
from trainer.evaluation.protocol import EvaluationError, HeldOut
from trainer.evaluation.ranking import evaluate_ranking
from trainer.runs import Run, RunError, load_model

METRIC = "full_catalogue.retrieval.ndcg_at_10"


class NotBetterError(Exception):
    """A run that is not known to be better than the newest release; says what can be done."""


@dataclass(frozen=True)
class Comparison:
    """How a run is compared with the newest release of a repository."""

    metric: str = METRIC
    """Which of the metrics in run.json decides, by its path; more is better."""
    data: Path | None = None
    """Log to measure both on; none compares what was measured at training, on equal tests."""
    force: str = ""
    """Why the run is to be published whatever comes of it; empty if it is not."""


def digest_of_tests(log: EventLog, tests: HeldOut) -> str:
    """sha256, in hex, of what figures were measured on: who is asked, when, and for which item."""
    digest = hashlib.sha256(f"{tests.protocol}, repeats: {tests.repeats}".encode())
    for event in tests.events.tolist():
        user, item = log.user_ids[log.users[event]], log.item_ids[log.items[event]]
        digest.update(f"\n{user}\0{item}\0{float(log.times[event])!r}".encode())
    return digest.hexdigest()


def decide(
    run: Run, repository: Path, comparison: Comparison, reporter: Reporter
) -> dict[str, Any]:
    """Why to publish a run, as a manifest keeps it: the figures, or the reason it was forced.

    Raises:
        NotBetterError: there is no reason to.
    """
    metric = comparison.metric
    newest = max(releases(repository), default=0)
    if not newest:
        return {"metric": metric, "value": _value(run.declared.get("metrics"), metric)}
    try:
        return _compared(run, repository, newest, comparison, reporter)
    except NotBetterError as error:
        if not comparison.force:
            raise
        return {"metric": metric, "forced": comparison.force, "refused_because": str(error)}


def _compared(
    run: Run, repository: Path, newest: int, comparison: Comparison, reporter: Reporter
) -> dict[str, Any]:
    metric = comparison.metric
    try:
        live = Manifest.read(repository, newest)
    except ManifestError as error:
        raise NotBetterError(f"{error}; or say why with --force REASON") from error
    if comparison.data:
        ours, theirs = _measured(run, repository, live, comparison.data, reporter)
        on = f"the tests of {comparison.data.resolve().name}"
    else:
        _require_same_tests(run, live)
        ours, theirs = run.declared.get("metrics"), live.metrics
        on = "the tests of training"
    value, before = _value(ours, metric), _value(theirs, metric)
    for figure, where in ((value, run.folder), (before, Manifest.folder(repository, newest))):
        if figure is None:
            raise NotBetterError(
                f"{where} has no metric {metric}: name another with --metric, such as {METRIC}, "
                "or say with --force REASON why to publish"
            )
    assert value is not None and before is not None
    if not value > before:  # NaN is not, either
        raise NotBetterError(
            f"{run.folder} is not better than release {newest}: {metric} is {value:.6g}, and "
            f"was {before:.6g}, on {on}; train a better one, or say with --force REASON why to "
            "publish it all the same"
        )
    return {"metric": metric, "value": value, "release": newest, "its_value": before, "on": on}


def _require_same_tests(run: Run, live: Manifest) -> None:
    digest = run.declared.get("tests_digest")
    if not digest or digest != live.training.get("tests_digest"):
        raise NotBetterError(
            f"{run.folder} and release {live.release} were measured on different tests, so that "
            "their figures say nothing of which is better: name a log to measure both on with "
            "--data DIR, or say with --force REASON why to publish"
        )


def _measured(
    run: Run, repository: Path, live: Manifest, data: Path, reporter: Reporter
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Figures of a run and of a release on the same tests of a log, which the run has not seen."""
    try:
        log = load_log(data, run.reading())[0].engagements()
        tests = held_out_for(run, log, Question())
        refuse_trained(run, log, tests, data)
        forgetting = live.verify(repository)
        retrieval, ranking = (
            load_model(repository / name / str(live.models[name].version) / "model.pt")
            for name in ("retrieval", "ranking")
        )
        ours = measured(run, log, tests, reporter)
        theirs = evaluate_ranking(log, tests, retrieval, ranking, forgetting, reporter)
    except (EvaluationError, LogError, ManifestError, RunError) as error:
        raise NotBetterError(f"{error}; without figures, say why with --force REASON") from error
    return ours.to_json(), theirs.to_json()


def _value(metrics: Any, metric: str) -> float | None:
    """A metric by its path, if there is one."""
    value = metrics
    for name in metric.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return float(value) if isinstance(value, int | float) else None
