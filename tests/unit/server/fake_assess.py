"""A forgetting model with round numbers: an interest fades and is forgotten after so much quiet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ebbing.interest.trace import TraceTable
from server.solving import Account

ACTIVE, FADING, FORGOTTEN = 2, 3, 5
JUST_BEFORE_S = 1.5e-6
"""A change is told as of a microsecond at which it has surely happened: with limits this much
before round numbers these are round."""


@dataclass
class FakeOutlook:
    """Interests that fade, and are forgotten, after given seconds of quiet."""

    tables: Sequence[TraceTable]
    last: NDArray[np.float64]
    fades_s: float
    forgets_s: float

    def states(self, quiet_s: NDArray[np.float64]) -> NDArray[np.int64]:
        fades, forgets = self._limits
        return np.select([quiet_s >= forgets, quiet_s >= fades], [FORGOTTEN, FADING], ACTIVE)

    def next_change_s(self, quiet_s: NDArray[np.float64]) -> NDArray[np.float64]:
        fades, forgets = self._limits
        return np.select([quiet_s < fades, quiet_s < forgets], [fades, forgets], np.inf)

    def account(self, user: int, interest: int, state: int, at: float) -> Account:
        return Account(0.5, f"{self.tables[user].names[interest]} {state} {at:.0f}".encode())

    @property
    def _limits(self) -> tuple[float, float]:
        return self.fades_s - JUST_BEFORE_S, self.forgets_s - JUST_BEFORE_S


@dataclass
class FakeAssess:
    """The model; a test may change it as it goes."""

    fades_s: float = 100.0
    forgets_s: float = 200.0
    parameters: str = "one"
    unsolvable: frozenset[str] = frozenset()
    """Interests that make solving fail."""

    def outlook(self, tables: Sequence[TraceTable]) -> FakeOutlook:
        if any(self.unsolvable & set(table.names) for table in tables):
            raise ArithmeticError("not to be solved")
        last = np.concatenate([table.last for table in tables])
        return FakeOutlook(tables, last, self.fades_s, self.forgets_s)
