"""A log as padded batches of sequences, short beside short so that little of a batch is padding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ebbing.history import HISTORY_LENGTH
from trainer.data.log import EventLog


@dataclass(frozen=True)
class SequenceBatch:
    """B sequences, padded on the right with row 0."""

    users: np.ndarray
    """(B,) user indexes."""
    rows: np.ndarray
    """(B, L) int64 vocabulary rows of what comes before each target; position 0 is padding."""
    types: np.ndarray
    """(B, L) int64 event types of `rows`."""
    times: np.ndarray
    """(B, L + 1) float32 seconds since the sequence's first event; see `SequenceModel.forward`."""
    targets: np.ndarray
    """(B, L) int64 rows of the events; 0 past a sequence's end."""

    def tensors(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rows, types, times and targets on a device."""
        parts = (self.rows, self.types, self.times, self.targets)
        rows, types, times, targets = (
            torch.from_numpy(part).to(device, non_blocking=True) for part in parts
        )
        return rows, types, times, targets


@dataclass(frozen=True)
class Sequences:
    """The newest events of every user, as rows of a vocabulary."""

    log: EventLog
    rows: np.ndarray
    """(E,) int64 vocabulary row of each event of the log."""
    length: int = HISTORY_LENGTH

    @property
    def lengths(self) -> np.ndarray:
        """(U,) events of each user that are trained on: the newest, up to `length`."""
        return np.minimum(np.diff(self.log.offsets), self.length)

    def __len__(self) -> int:
        return int(self.lengths.sum())

    def plan(self, positions: int, random: np.random.Generator) -> list[np.ndarray]:
        """All users once, as batches of at most `positions` events with padding, shuffled."""
        lengths = self.lengths
        # A jitter below the spacing of lengths: users of one length meet others every epoch.
        order = np.argsort(lengths + random.random(len(lengths)))
        order = order[lengths[order] > 0]
        groups, start = [], 0
        while start < len(order):
            size = max(positions // max(int(lengths[order[start]]), 1), 1)
            stop = min(start + size, len(order))
            while stop - start > 1 and (stop - start) * lengths[order[stop - 1]] > positions:
                stop -= 1
            groups.append(order[start:stop])
            start = stop
        return [groups[number] for number in random.permutation(len(groups))]

    def batch(self, users: np.ndarray) -> SequenceBatch:
        """The sequences of some users."""
        log = self.log
        stops = log.offsets[users + 1]
        starts = np.maximum(log.offsets[users], stops - self.length)
        L = int((stops - starts).max(initial=1))
        index = starts[:, None] + np.arange(L)
        inside = index < stops[:, None]
        index = np.minimum(index, len(log) - 1)
        targets = np.where(inside, self.rows[index], 0)
        types = np.where(inside, log.types[index], 0)
        since = np.where(inside, log.times[index] - log.times[starts][:, None], 0.0)
        nothing = np.zeros((len(users), 1))
        # What comes before a target; the last event of a sequence comes before none.
        before = inside[:, 1:]
        return SequenceBatch(
            users=users,
            rows=np.hstack([nothing, targets[:, :-1] * before]).astype(np.int64),
            types=np.hstack([nothing, types[:, :-1] * before]).astype(np.int64),
            times=np.hstack([nothing, since]).astype(np.float32),
            targets=targets.astype(np.int64),
        )
