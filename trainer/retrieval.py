"""Training of a retrieval model, from a log to the module that is served."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ebbing.history import HISTORY_LENGTH, item_keys
from ebbing.progress import Reporter
from trainer.catalogue_loss import CatalogueSoftmax, Objective
from trainer.checkpoints import Checkpoints, identity
from trainer.curves import EpochFigures, Watch
from trainer.data.log import EventLog
from trainer.data.memory import available_memory
from trainer.data.sequences import Sequences
from trainer.fitting import Diverged, Fitting, FittingConfig
from trainer.large import LargeObjective, Negatives
from trainer.models.large import LargeSequenceModel
from trainer.models.sequence import RetrievalModel, SequenceConfig, SequenceModel
from trainer.models.vocabulary import FIRST_ITEM_ROW, Vocabulary
from trainer.place import (
    DeviceName,
    Place,
    Precision,
    TrainingError,
    check_memory,
    memory_named,
)
from trainer.reproducible import reproducible
from trainer.simple_retrieval import SimpleConfig, fit_simple
from trainer.validation import Held, validation_split
from trainer.warm_start import Earlier, Weights, carry_over
from trainer.workers import Alone, Workers

__all__ = ["EpochFigures", "RetrievalConfig", "RetrievalResult", "TrainingError", "train_retrieval"]


@dataclass(frozen=True)
class RetrievalConfig(FittingConfig):
    """How the sequence model is trained."""

    model: SequenceConfig = field(default_factory=SequenceConfig)
    """Its shape."""
    negatives: int = 2048
    """Sampled items a positive is told from, shared within a batch."""
    full_softmax_up_to: int = 2048
    """Catalogues of at most this many items are scored whole instead of sampled."""
    oov_share: float = 0.01
    """Share of history items shown as unknown, so that the unknown row means something."""
    validation_users: int = 2048
    """Users whose last training event is kept out to tell when to stop; a tenth at most."""
    by_rows: bool = False
    """Whether a step works on the rows it uses, of a table that processes share out, instead of the
    whole one: for catalogues of millions. Items are then known by themselves alone, and scored
    against `negatives` however few there are."""
    precision: Precision = "auto"
    """Arithmetic of matrix products: bf16, fp32, or bf16 where a GPU has it."""


@dataclass(frozen=True)
class Surroundings:
    """What a training is given that changes nothing in what it ends in."""

    device: DeviceName = "auto"
    """Where it runs."""
    checkpoint: Path | None = None
    """Where its state is kept on the way; none keeps nothing."""
    resume: bool = False
    """Whether to go on from that checkpoint, if there is one."""
    watch: Watch = lambda step, figures: None
    """Told of loss, rate, speed and validation on the way."""
    workers: Workers = field(default_factory=Alone)
    """The processes that share it."""
    free_memory: Callable[[], int | None] = available_memory
    """Bytes that may be taken, asked before the start."""
    clock: Callable[[], float] = time.monotonic
    """Seconds."""


@dataclass(frozen=True)
class RetrievalResult:
    """A trained retrieval model."""

    model: nn.Module
    """What is served, with the buffers `table` (V, D) and `popularity` (V,)."""
    vocabulary: Vocabulary
    item_of_row: np.ndarray
    """(V,) item index in the log of each vocabulary row; −1 for the two special rows."""
    curves: tuple[EpochFigures, ...]
    """None of what is counted rather than trained."""
    stopped_by_budget: bool
    """Whether the time budget ended training before the last epoch."""
    best: Mapping[str, float]
    """The epoch whose model was kept, and its validation NDCG at 10."""
    events_per_second: float
    """Events trained on in a second, validation and checkpoints included."""
    weights: Weights | None = None
    """What another training can go on from, if one can."""
    untrained: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """Numbers of the log's events that were kept out to tell when to stop."""


def item_rows(log: EventLog) -> tuple[Vocabulary, np.ndarray, np.ndarray]:
    """Vocabulary of the whole catalogue, row of each item (I,) and item of each row (V,).

    Raises:
        TrainingError: two items share a key.
    """
    keys = item_keys(log.item_ids)
    try:
        vocabulary = Vocabulary(keys.tolist())
    except ValueError as error:
        raise TrainingError(f"the catalogue makes no vocabulary: {error}") from error
    order = np.argsort(keys)
    row_of = np.empty(len(keys), np.int64)
    row_of[order] = np.arange(len(keys)) + FIRST_ITEM_ROW
    item_of = np.concatenate([np.full(FIRST_ITEM_ROW, -1), order])
    return vocabulary, row_of, item_of


def train_retrieval(
    log: EventLog,
    config: RetrievalConfig | SimpleConfig,
    seed: int,
    reporter: Reporter,
    budget_s: float | None = None,
    around: Surroundings | None = None,
    earlier: Earlier | None = None,
) -> RetrievalResult:
    """Train on a log; the same seed gives the same model on CPU, unless the budget cuts it short.

    Args:
        log: what is trained on.
        config: how.
        seed: where random numbers start.
        reporter: where progress is shown.
        budget_s: seconds it may take.
        around: what changes nothing in what it ends in.
        earlier: a run whose model it goes on from.

    Raises:
        TrainingError: the loss diverges, the memory does not suffice, the checkpoint to resume
            from is of another training, or the earlier run's model of another shape.
    """
    if isinstance(config, RetrievalConfig):
        around = around or Surroundings()
        place = Place.choose(around.device, config.precision)
        # Processes that drew the same numbers would start with the same rows and drop the same.
        own_seed = seed + 1_000_003 * around.workers.rank
        with reproducible(own_seed, exact=not place.is_cuda), memory_named():
            return _train(log, config, seed, reporter, budget_s, around, place, earlier)
    if earlier:
        raise TrainingError("this recipe counts and has nothing to go on from: leave out --from")
    vocabulary, row_of, item_of = item_rows(log)
    with reporter.stage("retrieval model", 1, "counts") as stage:
        model = fit_simple(log, config, vocabulary, row_of, item_of)
        stage.advance(1)
    return RetrievalResult(model, vocabulary, item_of, (), False, {}, 0.0)


def _train(
    log: EventLog,
    config: RetrievalConfig,
    seed: int,
    reporter: Reporter,
    budget_s: float | None,
    around: Surroundings,
    place: Place,
    earlier: Earlier | None,
) -> RetrievalResult:
    vocabulary, row_of, item_of = item_rows(log)
    size = vocabulary.size()
    fitted, validation = validation_split(
        log,
        config.validation_users,
        np.random.default_rng([seed]),
        earlier.trained.knows(log) if earlier else None,
    )
    sequences = Sequences(fitted, row_of[fitted.items])
    if config.by_rows:
        objective = _large(config, size - FIRST_ITEM_ROW, sequences, place, around.workers)
        scored = config.negatives
    else:
        interests = [log.interests[item] for item in item_of[FIRST_ITEM_ROW:]]
        objective = _whole(config, interests, sequences)
        scored = objective.loss.n or size
    model = objective.model
    if earlier:
        if config.by_rows:
            raise TrainingError("this recipe trains by rows, from nothing alone: leave out --from")
        both = carry_over(earlier, model, vocabulary, config.model)
        reporter.say(
            f"retrieval model: goes on from {earlier.folder}, which knows {both:,} of "
            f"{size - FIRST_ITEM_ROW:,} items"
        )
    check_memory(model, _activations(config, scored), place, around.free_memory())
    fitting = Fitting(
        objective.to(place.device),
        sequences,
        Held(Sequences(log, row_of[log.items]), validation, size),
        config,
        seed,
        place,
        around.workers,
    )
    checkpoints = None
    if around.checkpoint:
        checkpoints = Checkpoints(
            around.checkpoint,
            identity(
                log,
                config,
                seed,
                around.workers.count,
                earlier.declared["weights"] if earlier else "",
            ),
        )
        if not around.resume:
            if around.workers.rank == 0:
                checkpoints.clear()
        elif state := checkpoints.read():
            fitting.restore(state)
            reporter.say(
                f"retrieval model: goes on after step {fitting.progress.step:,}, in epoch "
                f"{fitting.progress.epoch + 1}"
            )
    if earlier and not fitting.progress.step:
        fitting.count_the_start()
    left = max(config.epochs * len(sequences) - fitting.progress.trained, 0)
    with reporter.stage("retrieval model", max(left, 1), "events") as stage:
        try:
            fitting.run(
                stage,
                checkpoints.write if checkpoints else None,
                around.watch,
                around.clock,
                budget_s,
            )
        except Diverged as error:
            kept = f"; the last good state is kept in {around.checkpoint}" if checkpoints else ""
            raise TrainingError(f"{error}{kept}") from error
    progress = fitting.progress
    model = model.cpu().eval()
    return RetrievalResult(
        RetrievalModel(vocabulary, model).eval(),
        vocabulary,
        item_of,
        tuple(fitting.curves),
        progress.out_of_time,
        {"epoch": fitting.best["epoch"], "validation_ndcg_at_10": fitting.best["ndcg"]},
        progress.trained / max(progress.spent_s, 1e-9),
        None if config.by_rows else Weights.of(model, vocabulary, config.model),
        log.offsets[validation + 1] - 1,
    )


def _whole(
    config: RetrievalConfig, interests: list[Sequence[tuple[str, float]]], sequences: Sequences
) -> Objective:
    """The model whose table is one piece, scored whole where the catalogue is small."""
    items = len(interests)
    negatives = 0 if items <= config.full_softmax_up_to else config.negatives
    counts = np.bincount(sequences.rows, minlength=items + FIRST_ITEM_ROW)
    model = SequenceModel(interests, config.model)
    return Objective(model, CatalogueSoftmax(counts, negatives), config.oov_share)


def _large(
    config: RetrievalConfig, items: int, sequences: Sequences, place: Place, workers: Workers
) -> LargeObjective:
    """The model that works by rows, this process's share of them on the device already."""
    model = LargeSequenceModel(items, config.model, workers.rank, workers.count, place.device)
    negatives = Negatives(torch.from_numpy(sequences.rows), items, config.negatives)
    return LargeObjective(model, negatives, config.oov_share)


def _activations(config: RetrievalConfig, scored: int) -> int:
    """Bytes a step holds beside the weights, roughly: scores and their gradients, and attention.

    `scored`: items each position is told from.
    """
    positions = config.batch_positions
    wide = positions * config.model.dim * 40
    attention = positions * HISTORY_LENGTH * (3 * config.model.heads + 4)
    return 4 * (3 * positions * scored + wide + attention)
