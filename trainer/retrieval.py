"""Training of the retrieval model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from ebbing.history import item_keys
from ebbing.progress import Reporter
from trainer.data.log import EventLog
from trainer.data.sequences import SequenceBatch, Sequences
from trainer.models.sequence import RetrievalModel, SequenceConfig, SequenceModel
from trainer.models.vocabulary import FIRST_ITEM_ROW, OOV_ROW, Vocabulary
from trainer.reproducible import reproducible


class TrainingError(Exception):
    """Training that cannot go on; the message says what to change."""


@dataclass(frozen=True)
class RetrievalConfig:
    """How the retrieval model is trained."""

    model: SequenceConfig = field(default_factory=SequenceConfig)
    """Its shape."""
    epochs: int = 15
    """Passes over the log."""
    batch_positions: int = 2048
    """Events in a batch, padding included."""
    learning_rate: float = 3e-3
    """Adam's rate after the warm-up; it falls linearly to a tenth."""
    warmup_steps: int = 100
    """Steps in which the rate rises from zero."""
    negatives: int = 512
    """Sampled items a positive is told from, shared within a batch."""
    full_softmax_up_to: int = 2048
    """Catalogues of at most this many items are scored whole instead of sampled."""
    oov_share: float = 0.01
    """Share of history items shown as unknown, so that the unknown row means something."""
    validation_users: int = 1024
    """Users whose last training event is kept out to draw the validation curve."""


@dataclass(frozen=True)
class EpochFigures:
    """One point of the training curves."""

    epoch: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float


@dataclass(frozen=True)
class RetrievalResult:
    """A trained retrieval model."""

    model: RetrievalModel
    vocabulary: Vocabulary
    item_of_row: np.ndarray
    """(V,) item index in the log of each vocabulary row; −1 for the two special rows."""
    curves: tuple[EpochFigures, ...]
    stopped_by_budget: bool
    """Whether the time budget ended training before the last epoch."""


def item_rows(log: EventLog) -> tuple[Vocabulary, np.ndarray, np.ndarray]:
    """Vocabulary of the whole catalogue, row of each item (I,) and item of each row (V,)."""
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
    config: RetrievalConfig,
    seed: int,
    reporter: Reporter,
    budget_s: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> RetrievalResult:
    """Train on a log; the same seed gives the same model on CPU, unless the budget cuts it short.

    Raises:
        TrainingError: the loss stops being a number.
    """
    with reproducible(seed):
        return _train(log, config, seed, reporter, budget_s, clock)


def _train(
    log: EventLog,
    config: RetrievalConfig,
    seed: int,
    reporter: Reporter,
    budget_s: float | None,
    clock: Callable[[], float],
) -> RetrievalResult:
    random = np.random.default_rng(seed)
    vocabulary, row_of, item_of = item_rows(log)
    model = SequenceModel([log.interests[item] for item in item_of[FIRST_ITEM_ROW:]], config.model)
    fitted, validation = _validation_split(log, config.validation_users, random)
    sequences = Sequences(fitted, row_of[fitted.items])
    held = Sequences(log, row_of[log.items]).batch(validation) if len(validation) else None
    loss_of = SampledSoftmax(np.bincount(sequences.rows, minlength=vocabulary.size()), config)
    optimizer = torch.optim.Adam(
        model.parameters(), lr=config.learning_rate, betas=(0.9, 0.98), fused=True
    )

    started = clock()
    curves: list[EpochFigures] = []
    step, progress = 0, 0.0
    with reporter.stage("retrieval model", config.epochs * len(sequences), "events") as stage:
        for epoch in range(config.epochs):
            model.train()
            total, seen = 0.0, 0
            for batch in sequences.batches(config.batch_positions, random):
                done = stage.done / stage.total
                spent = (clock() - started) / budget_s if budget_s else 0.0
                progress = max(done, spent)
                if progress >= 1.0:
                    break
                rate = min((step + 1) / config.warmup_steps, 1.0 - 0.9 * progress)
                optimizer.param_groups[0]["lr"] = config.learning_rate * rate
                loss, n = _step(model, loss_of, optimizer, batch, config)
                if not math.isfinite(loss):
                    raise TrainingError(
                        f"the retrieval loss became {loss} in epoch {epoch + 1}, step {step + 1}: "
                        "lower the recipe's learning rate"
                    )
                step, seen, total = step + 1, seen + n, total + loss * n
                stage.advance(n, epoch=epoch + 1, loss=loss)
            if seen:
                figures = _validate(model, loss_of, held) if held else (math.nan, math.nan)
                curves.append(EpochFigures(epoch + 1, total / seen, *figures))
            if progress >= 1.0:
                break
    model.eval()
    return RetrievalResult(
        RetrievalModel(vocabulary, model).eval(),
        vocabulary,
        item_of,
        tuple(curves),
        stopped_by_budget=len(curves) < config.epochs or stage.done < stage.total,
    )


class SampledSoftmax(nn.Module):
    """Cross-entropy over the catalogue, or over the target and sampled negatives of a large one.

    Negatives come half uniformly, half by popularity; the logits of the sample are lowered by the
    log of how often each item is expected in it, so that the sum estimates the full one.
    """

    log_expected: Tensor
    cumulative: Tensor

    def __init__(self, counts: np.ndarray, config: RetrievalConfig) -> None:
        """`counts`: (V,) training events of each vocabulary row."""
        super().__init__()
        items = counts[FIRST_ITEM_ROW:].astype(np.float64)
        share = 0.5 / len(items) + 0.5 * items / max(items.sum(), 1.0)
        share /= share.sum()
        self.n = 0 if len(items) <= config.full_softmax_up_to else config.negatives
        self.register_buffer("cumulative", torch.from_numpy(np.cumsum(share)))
        expected = np.log(share * max(self.n, 1))
        self.register_buffer("log_expected", torch.from_numpy(expected).float())

    def forward(self, model: SequenceModel, table: Tensor, user: Tensor, target: Tensor) -> Tensor:
        """Losses (N,) of N positions: user vectors (N, D), target rows (N,), item table (V, D)."""
        if self.n == 0:
            return nn.functional.cross_entropy(
                self.full(model, table, user), target - FIRST_ITEM_ROW, reduction="none"
            )
        drawn = torch.searchsorted(self.cumulative, torch.rand(self.n, dtype=torch.float64))
        drawn = drawn.clamp(max=len(self.cumulative) - 1)
        rows = drawn + FIRST_ITEM_ROW
        # index_select and embedding rather than indexing, whose gradient is slow on CPUs.
        popularity = model.popularity[:, None]
        negative = user @ table.index_select(0, rows).T - self.log_expected[drawn]
        negative = negative + popularity.index_select(0, rows).T
        negative = negative.masked_fill(rows[None] == target[:, None], float("-inf"))
        positive = (user * nn.functional.embedding(target, table)).sum(dim=1)
        positive = positive + nn.functional.embedding(target, popularity).squeeze(1)
        return torch.logsumexp(torch.cat([positive[:, None], negative], dim=1), dim=1) - positive

    @staticmethod
    def full(model: SequenceModel, table: Tensor, user: Tensor) -> Tensor:
        """Scores of the whole catalogue, (N, V − 2)."""
        return user @ table[FIRST_ITEM_ROW:].T + model.popularity[FIRST_ITEM_ROW:]


def _step(
    model: SequenceModel,
    loss_of: SampledSoftmax,
    optimizer: torch.optim.Optimizer,
    batch: SequenceBatch,
    config: RetrievalConfig,
) -> tuple[float, int]:
    """One step; returns the mean loss and the number of targets."""
    rows, types, times, targets = _tensors(batch)
    hidden = (torch.rand(rows.shape) < config.oov_share) & (rows >= FIRST_ITEM_ROW)
    rows = rows.masked_fill(hidden, OOV_ROW)
    table = model.items()
    users = model(table, rows, types, times)
    real = targets > 0
    # Rows by number: selecting by mask is several times slower to differentiate.
    where = real.flatten().nonzero().squeeze(1)
    losses = loss_of(
        model, table, users.flatten(0, 1).index_select(0, where), targets.flatten()[where]
    )
    optimizer.zero_grad(set_to_none=True)
    losses.mean().backward()
    nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    optimizer.step()
    return float(losses.detach().mean()), len(losses)


@torch.no_grad()
def _validate(
    model: SequenceModel, loss_of: SampledSoftmax, held: SequenceBatch
) -> tuple[float, float]:
    """Full-catalogue loss and hit rate at 10 on the last event of each sequence."""
    model.eval()
    rows, types, times, targets = _tensors(held)
    last = (targets > 0).sum(dim=1) - 1
    each = torch.arange(len(last))
    table = model.items()
    scores = loss_of.full(model, table, model(table, rows, types, times)[each, last])
    target = targets[each, last] - FIRST_ITEM_ROW
    loss = nn.functional.cross_entropy(scores, target)
    better = (scores > scores[each, target, None]).sum(dim=1)
    return float(loss), float((better < 10).float().mean())


def _tensors(batch: SequenceBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        torch.from_numpy(batch.rows),
        torch.from_numpy(batch.types),
        torch.from_numpy(batch.times),
        torch.from_numpy(batch.targets),
    )


def _validation_split(
    log: EventLog, n: int, random: np.random.Generator
) -> tuple[EventLog, np.ndarray]:
    """The log without the last event of n random users with three events or more, and them."""
    able = np.flatnonzero(np.diff(log.offsets) >= 3)
    chosen = np.sort(random.choice(able, size=min(n, len(able) // 10), replace=False))
    return log.without(log.offsets[chosen + 1] - 1), chosen
