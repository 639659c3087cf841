"""A whole training run: log → forgetting → retrieval → ranking → exported models and report."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

import ebbing
from ebbing.history import LAYOUT_DIGEST, MODEL_TENSORS, item_keys
from ebbing.manifest import sha256_of
from ebbing.progress import Reporter
from trainer.checkpoints import code_version
from trainer.comparison import digest_of_tests
from trainer.curves import tensorboard
from trainer.data.load import DataConfig, load_log
from trainer.data.log import EventLog, LogError
from trainer.data.replay import replay
from trainer.evaluation.protocol import HeldOut, leave_one_out, parse_cut, temporal
from trainer.evaluation.ranking import EvaluationConfig, evaluate_ranking
from trainer.export import Exporter, TorchScriptExporter, item_samples, parity_samples
from trainer.forgetting import STEPS, FittedForgetting, fit_forgetting
from trainer.item_encoding import train_item_encoder
from trainer.place import DeviceName, TrainingError, peak_memory_bytes
from trainer.precision import TOLERANCES, Precision
from trainer.ranking import RankingResult, train_ranking
from trainer.recipes import Recipe
from trainer.report import write_report
from trainer.retrieval import RetrievalResult, Surroundings, train_retrieval
from trainer.retriever import Retriever
from trainer.samples import record
from trainer.trained import Trained
from trainer.warm_start import WEIGHTS, Earlier
from trainer.workers import Alone, Workers

MEASURED = EvaluationConfig(reranked=1000, states=2000)
"""How much is measured of a run as it is made; `ebbing evaluate ranking` does more."""


CHECKPOINT = "checkpoint.pt"
"""File of a run folder that holds the training's state; good for resuming it, not for serving."""


@dataclass(frozen=True)
class TrainingRun:
    """What to train, on what, into which folder."""

    data: Path
    """Folder of the log."""
    out: Path
    """Run folder; made if need be, files of an earlier run are replaced."""
    recipe: Recipe
    """Both models."""
    seed: int = 7
    """The same seed gives the same run on CPU, unless the budget cuts it short."""
    budget_s: float | None = None
    """Seconds the retrieval model may train; none for all its epochs."""
    reading: DataConfig = field(default_factory=DataConfig)
    """How the log is read and cleaned."""
    until: str | None = None
    """Where training ends, as `parse_cut` takes it; what comes after is the test. None holds out
    each user's last event instead."""
    device: DeviceName = "auto"
    """Where the retrieval model is trained."""
    resume: bool = False
    """Whether to go on where a killed run of the same log, recipe, seed and code left off."""
    precision: Precision = "fp32"
    """What the exported models compute in; 16 bits are for devices that have them."""
    start: Path | None = None
    """Folder of an earlier run whose retrieval model training goes on from; None: from nothing."""


def train_run(
    run: TrainingRun,
    reporter: Reporter,
    clock: Callable[[], float] = time.monotonic,
    workers: Workers | None = None,
) -> dict[str, Any]:
    """Train, export, measure and report; returns what run.json holds.

    Of several `workers` the first does all that; the others have their part in training the
    retrieval model, write nothing and return nothing.

    Raises:
        LogError, EvaluationError, FittingError, TrainingError, ExportError: see there; run.json is
            then not written, so that nothing half-done can be published.
    """
    workers = workers or Alone()
    if workers.rank:
        return _assist(run, reporter, clock, workers)
    started = clock()
    if run.start and run.start.resolve() == run.out.resolve():
        raise TrainingError(f"{run.out}: --from and --out are one folder: write into another")
    declared = run.out / "run.json"
    declared.unlink(missing_ok=True)

    with reporter.stage("log", 1, "logs") as stage:
        whole, reading = load_log(run.data, run.reading)
        # What shows no interest is no target, as it leaves no trace.
        log = whole.engagements()
        tests = _held_out(log, run)
        train = tests.known
        earlier = _earlier(run, log, tests)
        stage.advance(1, events=len(log), users=len(log.user_ids), items=len(log.item_ids))
    with reporter.stage("forgetting", STEPS, "steps") as stage:
        version = f"{run.recipe.name} seed {run.seed}"
        # Each user's last event tells who comes back, and nothing of which item it will be.
        past = log if tests.cut is None else train
        forgetting = fit_forgetting(past, version, advance=stage.advance)
        # A log of one cut holds nothing out.
        measured = forgetting.metrics.get("held_out") or forgetting.metrics["in_sample"]
        stage.advance(0, auc=measured["auc"])
    run.out.mkdir(parents=True, exist_ok=True)
    with tensorboard(run.out / "tensorboard") as watch:
        around = Surroundings(
            run.device, run.out / CHECKPOINT, run.resume, watch, workers, clock=clock
        )
        retrieval = train_retrieval(
            train, run.recipe.retrieval, run.seed, reporter, run.budget_s, around, earlier
        )
    ranking = _ranking(train, whole, tests.repeats, run, forgetting, retrieval, reporter)
    encoder = None
    if run.recipe.item_encoder:
        encoder = train_item_encoder(
            train, retrieval.model, run.recipe.item_encoder, run.seed, reporter
        )
    (run.out / "forgetting.json").write_text(forgetting.parameters.to_json(), encoding="utf-8")
    models = {"retrieval": retrieval.model, "ranking": ranking.model}
    if encoder:
        models["item_encoder"] = encoder.model
    parity, samples = _export(log, run, models, reporter)
    if retrieval.weights:
        retrieval.weights.write(run.out / WEIGHTS)
    trained = Trained.on(train)
    (trained.joined(earlier.trained) if earlier else trained).write(run.out / "trained.npy")
    evaluation = evaluate_ranking(
        log, tests, retrieval.model, ranking.model, forgetting.parameters, reporter, MEASURED
    )
    result = {
        "recipe": run.recipe.name,
        "recipe_config": asdict(run.recipe),
        "seed": run.seed,
        "code_version": ebbing.__version__,
        "started_from": dict(earlier.declared) if earlier else None,
        "layout_digest": LAYOUT_DIGEST,
        "window": {
            edge: datetime.fromtimestamp(float(moment), UTC).isoformat()
            for edge, moment in (("first", past.times.min()), ("last", past.times.max()))
        },
        "counts": {
            "events": len(log),
            "users": len(log.user_ids),
            "items": len(log.item_ids),
            "training_events": len(train),
        },
        "data": {"config": asdict(run.reading), **reading.to_json()},
        "protocol": str(tests),
        "held_out": {
            "protocol": tests.protocol,
            "cut": tests.cut,
            "events": len(log) - len(train),
            "tests": len(tests.events),
        },
        "tests_digest": digest_of_tests(log, tests),
        "stopped_by_budget": retrieval.stopped_by_budget,
        "training": {
            "source": code_version(),
            "best": dict(retrieval.best),
            "events_per_second": round(retrieval.events_per_second, 1),
        },
        "metrics": {
            **evaluation.to_json(),
            "ranking": ranking.metrics,
            **({"item_encoder": encoder.metrics} if encoder else {}),
            "forgetting": forgetting.metrics,
        },
        "parity": parity,
        "files": {
            name: sha256_of(run.out / name)
            for name in (
                *(f"{model}/model.pt" for model in models),
                "forgetting.json",
                "trained.npy",
                *((WEIGHTS,) if retrieval.weights else ()),
            )
        },
        "samples": samples,
        "seconds": round(clock() - started, 1),
        "peak_memory_bytes": peak_memory_bytes(),
    }
    with reporter.stage("report", 1, "pages"):
        curves = {"retrieval": retrieval.curves, "ranking": ranking.curves}
        write_report(run.out, result, curves, evaluation)
    declared.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return result


def _assist(
    run: TrainingRun, reporter: Reporter, clock: Callable[[], float], workers: Workers
) -> dict[str, Any]:
    """The part of a process that is not the first."""
    log = load_log(run.data, run.reading)[0].engagements()
    tests = _held_out(log, run)
    around = Surroundings(
        run.device, run.out / CHECKPOINT, run.resume, workers=workers, clock=clock
    )
    train_retrieval(
        tests.known,
        run.recipe.retrieval,
        run.seed,
        reporter,
        run.budget_s,
        around,
        _earlier(run, log, tests),
    )
    return {}


def _held_out(log: EventLog, run: TrainingRun) -> HeldOut:
    if run.until is None:
        return leave_one_out(log)
    return temporal(log, parse_cut(run.until, log))


def _earlier(run: TrainingRun, log: EventLog, tests: HeldOut) -> Earlier | None:
    """The run that training goes on from, which must not have been trained on the tests."""
    if run.start is None:
        return None
    earlier = Earlier.read(run.start)
    found, of = earlier.trained.among(log, tests.events)
    if found:
        last = (earlier.declared["window"] or {}).get("last", "its last event")
        raise TrainingError(
            f"{run.start}: was trained on {found:,} of {of:,} tests of {run.data}, so that the "
            f"figures would tell nothing: go on with a log that has newer events, and --until its "
            f"end or later ({last})"
        )
    return earlier


def _ranking(
    train: EventLog,
    whole: EventLog,
    repeats: bool,
    run: TrainingRun,
    forgetting: FittedForgetting,
    retrieval: RetrievalResult,
    reporter: Reporter,
) -> RankingResult:
    config = run.recipe.ranking
    n = min(config.examples.events, len(train))
    try:
        with reporter.stage("replay for ranking", n, "moments") as stage:
            examples = replay(
                train,
                forgetting.parameters,
                config.examples,
                np.random.default_rng(run.seed),
                Retriever(retrieval.model, train),
                stage.advance,
                shown=whole,
                untrained=retrieval.untrained,
                repeats=repeats,
            )
    except ValueError as error:
        raise LogError(f"{run.data}: {error}; give a log with repeated users") from error
    return train_ranking(
        examples,
        retrieval.vocabulary,
        retrieval.model.table,
        retrieval.model.popularity,
        config,
        run.seed,
        reporter,
    )


def _export(
    log: EventLog, run: TrainingRun, models: Mapping[str, nn.Module], reporter: Reporter
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write the models; returns the parity figures and the recorded samples."""
    keys = item_keys(log.item_ids)
    exporter: Exporter = TorchScriptExporter(run.precision)
    tolerance = TOLERANCES[run.precision].largest
    parity: dict[str, Any] = {"precision": run.precision, "tolerance": tolerance}
    samples = {}
    with reporter.stage("export", len(models), "models") as stage:
        for name, module in models.items():
            if name == "item_encoder":
                inputs = item_samples(log)
            else:
                inputs = parity_samples(MODEL_TENSORS[name][0], keys)
            parity[name] = exporter.export(module, inputs, run.out / name / "model.pt")
            samples[name] = record(name, module, inputs[0])
            stage.advance(1, difference=parity[name])
    return parity, samples
