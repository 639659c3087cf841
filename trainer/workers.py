"""How many processes train one model together, and what they do together."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn


class Workers(Protocol):
    """The processes of one training. Each takes every `count`-th batch, from its `rank` on."""

    @property
    def rank(self) -> int:
        """Which of them this is, from 0; 0 writes the checkpoints."""
        ...

    @property
    def count(self) -> int:
        """How many there are."""
        ...

    def share(self, objective: nn.Module) -> nn.Module:
        """The objective, called in its place, with gradients averaged over all workers."""
        ...

    def total(self, values: Tensor) -> Tensor:
        """The sum of everybody's `values`."""
        ...


class Alone:
    """One process."""

    rank = 0
    count = 1

    def share(self, objective: nn.Module) -> nn.Module:
        """Itself."""
        return objective

    def total(self, values: Tensor) -> Tensor:
        """They are all there are."""
        return values
