"""How many processes train one model together, and what they do together."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn


class Workers(Protocol):
    """The processes of one training. Each takes its part of the users of every batch."""

    @property
    def rank(self) -> int:
        """Which of them this is, from 0; 0 writes the checkpoints."""
        ...

    @property
    def count(self) -> int:
        """How many there are."""
        ...

    def part(self, users: np.ndarray) -> np.ndarray:
        """The users of a batch that this process takes."""
        ...

    def share(self, objective: nn.Module) -> nn.Module:
        """The objective, called in its place, with gradients averaged over all workers."""
        ...

    def total(self, values: Tensor) -> Tensor:
        """The sum of everybody's `values`."""
        ...

    def mean(self, losses: Tensor) -> Tensor:
        """What to differentiate for gradients of the mean of everybody's losses."""
        ...

    def first(self, value: float) -> float:
        """What the first of them has."""
        ...

    def everybody(self, value: Any) -> list[Any]:
        """What each of them has, by rank."""
        ...


class Alone:
    """One process."""

    rank = 0
    count = 1

    def part(self, users: np.ndarray) -> np.ndarray:
        """All of them."""
        return users

    def share(self, objective: nn.Module) -> nn.Module:
        """Itself."""
        return objective

    def total(self, values: Tensor) -> Tensor:
        """They are all there are."""
        return values

    def mean(self, losses: Tensor) -> Tensor:
        """Their mean."""
        return losses.mean()

    def first(self, value: float) -> float:
        """Its own."""
        return value

    def everybody(self, value: Any) -> list[Any]:
        """Its own."""
        return [value]
