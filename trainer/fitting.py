"""The training loop: steps, epochs, early stopping, and a state that goes on exactly.

What is random in an epoch follows from the seed and the epoch's number, or from torch's generator,
which the state holds: a training that was killed and resumed ends in the same bits as one that
was not.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ebbing.progress import Stage
from trainer.catalogue_loss import Objective
from trainer.checkpoints import State
from trainer.curves import EpochFigures, Watch
from trainer.data.sequences import SequenceBatch, Sequences
from trainer.large import LargeObjective
from trainer.place import Place, TrainingError
from trainer.rowwise import Optimizers
from trainer.validation import Held
from trainer.workers import Workers

CHECKED_EVERY = 10
"""Steps between looks at the loss; on a GPU each look waits for it."""

CLIP = 5.0
"""Largest norm of a step's gradient."""


class Diverged(Exception):
    """A loss that went astray; the message says where and what to change."""


@dataclass(frozen=True)
class FittingConfig:
    """How a sequence model is trained, whatever it looks like."""

    epochs: int = 12
    """Passes over the log, at most."""
    patience: int = 5
    """Epochs without a better validation NDCG at 10 after which training stops."""
    batch_positions: int = 1024
    """Events in a batch, padding included."""
    learning_rate: float = 2e-3
    """AdamW's rate after the warm-up; it falls linearly to a tenth."""
    warmup_steps: int = 100
    """Steps in which the rate rises from zero."""
    weight_decay: float = 0.0
    """AdamW's decay of weights, a share of the rate."""
    checkpoint_steps: int = 1000
    """Steps between checkpoints; one is written after each epoch too."""
    compiled: bool = False
    """Whether torch.compile makes one kernel of many; pays on a GPU, needs a compiler there."""


@dataclass
class Progress:
    """How far a training is."""

    epoch: int = 0
    """Epochs behind it."""
    batch: int = 0
    """Batches behind it in this epoch."""
    step: int = 0
    """Steps behind it in all."""
    loss_sum: float = 0.0
    """Of this epoch, over `seen` events of all workers."""
    seen: int = 0
    trained: int = 0
    """Events trained on in all, repeats included."""
    spent_s: float = 0.0
    """Seconds it took."""
    ended: bool = False
    """Whether it is over before its last epoch."""
    out_of_time: bool = False
    """Whether that is because its budget is spent."""


class Fitting:
    """One training under way: what it learns from and with, how far it is, and its best model."""

    def __init__(
        self,
        objective: Objective | LargeObjective,
        sequences: Sequences,
        held: Held,
        config: FittingConfig,
        seed: int,
        place: Place,
        workers: Workers,
    ) -> None:
        """`objective` lies on the device of `place` already."""
        self.model = objective.model
        self.sequences = sequences
        self.held = held
        self.config = config
        self.seed = seed
        self.place = place
        self.workers = workers
        whole = torch.compile(objective, dynamic=True) if config.compiled else objective
        self.objective = workers.share(whole)
        self.optimizer = Optimizers(self.model, config.learning_rate, config.weight_decay)
        self.progress = Progress()
        self.curves: list[EpochFigures] = []
        self.best: State = {"epoch": 0, "ndcg": -math.inf, "model": None}
        self.unchecked: list[Tensor] = []

    def run(
        self,
        stage: Stage,
        keep: Callable[[State], None] | None,
        watch: Watch,
        clock: Callable[[], float],
        budget_s: float | None = None,
    ) -> None:
        """Train to the end, and leave the model as it was when it validated best.

        Args:
            stage: is told of the events trained on.
            keep: is handed the state every `checkpoint_steps` steps and after each epoch, if given.
            watch: is told the loss, the rate and the speed, and each epoch's figures.
            clock: seconds; read for the budget and the speed.
            budget_s: seconds after which training ends, the rate having fallen by then.

        Raises:
            Diverged: the loss stops being a number, or goes where guessing would not be.
        """
        started = clock() - self.progress.spent_s
        while self.progress.epoch < self.config.epochs and not self.progress.ended:
            self._epoch(stage, keep, watch, lambda: clock() - started, budget_s)
        if self.best["model"] is not None:
            self.model.load_state_dict(self.best["model"])

    def count_the_start(self) -> None:
        """Have the model as it is before training count as the best so far: it was trained once."""
        ndcg = self.held.measure(self.model, self.place.device).ndcg_at_10
        if not math.isnan(ndcg):
            self.best = {"epoch": 0, "ndcg": ndcg, "model": copy.deepcopy(self.model.state_dict())}

    def state(self) -> State:
        """All that going on needs, as a checkpoint takes it."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": asdict(self.progress),
            "curves": [asdict(point) for point in self.curves],
            "best": self.best,
            "random": self.workers.everybody(torch.get_rng_state()),
            "random_cuda": self.workers.everybody(
                torch.cuda.get_rng_state() if self.place.is_cuda else None
            ),
        }

    def restore(self, state: State) -> None:
        """Go on from where `state` was taken."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress(**state["progress"])
        self.curves = [EpochFigures(**point) for point in state["curves"]]
        self.best = state["best"]
        torch.set_rng_state(state["random"][self.workers.rank])
        if self.place.is_cuda:
            torch.cuda.set_rng_state(state["random_cuda"][self.workers.rank])

    def _epoch(
        self,
        stage: Stage,
        keep: Callable[[State], None] | None,
        watch: Watch,
        spent: Callable[[], float],
        budget_s: float | None,
    ) -> None:
        progress, config = self.progress, self.config
        random = np.random.default_rng([self.seed, progress.epoch])
        plan = self.sequences.plan(config.batch_positions, random)
        # Every process has a part of each batch; what has fewer users than that waits.
        plan = [users for users in plan if len(users) >= self.workers.count]
        if not plan:
            raise TrainingError(
                f"no batch has users for all of {self.workers.count} processes: start fewer, or "
                "raise the recipe's batch_positions"
            )
        lengths = self.sequences.lengths
        self.model.train()
        for users in plan[progress.batch :]:
            progress.spent_s = spent()
            if budget_s:
                # By one clock, so that all end at the same step.
                progress.spent_s = self.workers.first(progress.spent_s)
            done = (progress.epoch + progress.batch / len(plan)) / config.epochs
            done = max(done, progress.spent_s / budget_s if budget_s else 0.0)
            if done >= 1.0:
                progress.ended = progress.out_of_time = True
                break
            self._step(self.sequences.batch(self.workers.part(users)), done)
            stage.advance(int(lengths[users].sum()), epoch=progress.epoch + 1)
            progress.batch += 1
            progress.step += 1
            if progress.step % CHECKED_EVERY == 0:
                self._check(watch)
            if progress.step % config.checkpoint_steps == 0:
                self._keep(keep, watch)
        self._check(watch)
        if progress.seen:
            self._validate(watch)
        progress.epoch, progress.batch = progress.epoch + 1, 0
        progress.loss_sum, progress.seen = 0.0, 0
        self._keep(keep, watch)

    def _step(self, batch: SequenceBatch, done: float) -> int:
        """One step, `done` being the share of training behind it; returns its number of events."""
        warmth = (self.progress.step + 1) / self.config.warmup_steps
        rate = self.config.learning_rate * min(warmth, 1.0 - 0.9 * done)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with self.place.autocast():
            losses = self.objective(*batch.tensors(self.place.device))
        self.optimizer.zero_grad(set_to_none=True)
        self.workers.mean(losses).backward()
        nn.utils.clip_grad_norm_(self.optimizer.dense, CLIP)
        self.optimizer.step()
        self.unchecked.append(torch.stack([losses.detach().sum(), losses.new_tensor(len(losses))]))
        return len(losses)

    def _check(self, watch: Watch) -> None:
        """Look at the losses since the last look."""
        if not self.unchecked:
            return
        total, n = self.workers.total(torch.stack(self.unchecked).double().sum(dim=0)).tolist()
        self.unchecked.clear()
        progress = self.progress
        loss = total / n
        # Scores of an untrained model are about equal, which costs the logarithm of their number.
        worst = 2.0 * math.log(self.model.popularity.numel()) + 1.0
        if not loss <= worst:
            reason = f"is {loss:.4g}, where {worst:.3g} is far worse than guessing"
            raise Diverged(self._where(reason if math.isfinite(loss) else f"became {loss}"))
        progress.loss_sum += total
        progress.seen += round(n)
        progress.trained += round(n)
        watch(
            progress.step,
            {
                "train/loss": loss,
                "train/learning_rate": self.optimizer.param_groups[0]["lr"],
                "train/events_per_second": progress.trained / max(progress.spent_s, 1e-9),
            },
        )

    def _keep(self, keep: Callable[[State], None] | None, watch: Watch) -> None:
        """Hand the state over, but never one that has gone bad since the last look."""
        self._check(watch)
        if not all(bool(weights.isfinite().all()) for weights in self.model.parameters()):
            raise Diverged(self._where("is a number, but weights are none any more"))
        if keep:
            # All of them, for what they share out is gathered; the first writes it.
            state = self.state()
            if self.workers.rank == 0:
                keep(state)

    def _validate(self, watch: Watch) -> None:
        progress = self.progress
        figures = self.held.measure(self.model, self.place.device)
        self.curves.append(
            EpochFigures(
                progress.epoch + 1,
                progress.loss_sum / progress.seen,
                figures.loss,
                figures.hit_rate_at_10,
                figures.ndcg_at_10,
            )
        )
        watch(progress.step, {f"validation/{name}": v for name, v in asdict(figures).items()})
        # Without validation the last model is the best known.
        if math.isnan(figures.ndcg_at_10) or figures.ndcg_at_10 > self.best["ndcg"]:
            model = copy.deepcopy(self.model.state_dict())
            self.best = {"epoch": progress.epoch + 1, "ndcg": figures.ndcg_at_10, "model": model}
        elif progress.epoch + 1 - self.best["epoch"] >= self.config.patience:
            progress.ended = True

    def _where(self, reason: str) -> str:
        return (
            f"the retrieval loss {reason} in epoch {self.progress.epoch + 1}, by step "
            f"{self.progress.step}: lower the recipe's learning rate"
        )
