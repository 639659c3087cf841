"""What everybody's behaviour says of interests, as a release publishes it.

Of each interest: how popular it was, how readily users come back to it, and a vector each for what
it says of a user's other interests and for what they say of it. An interest the release does not
hold is taken as the mean of its siblings under the same parent, one whose parent is unknown too as
the least popular interest that comes back as readily as any.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ebbing.interest.trace import parent_of

__all__ = ["MOST_LOG_ODDS", "Population"]

Floats = NDArray[np.float64]

MOST_LOG_ODDS = 1000.0
"""Largest parameter there may be: beyond certainty, and small enough for exact sums."""


@dataclass(frozen=True, eq=False, slots=True)
class Population:
    """The effects of K interests."""

    names: tuple[str, ...]
    """Paths, each once."""
    popularity: Floats
    """What popularity adds to the log-odds of return, (K,)."""
    returns: Floats
    """What the interest's own record of returns adds beyond that, (K,), shrunk to 0."""
    says: Floats
    """What each interest says of a user's other ones, (K, D)."""
    hears: Floats
    """What the others say of it: company adds their dot product to the log-odds, (K, D)."""
    unknown_popularity: float
    """``popularity`` of an interest nobody was seen to engage."""
    _rows: tuple[dict[str, int], Floats, Floats] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        k = len(self.names)
        if len(set(self.names)) != k:
            raise ValueError("an interest is named twice")
        if not (self.popularity.shape == self.returns.shape == (k,)):
            raise ValueError("each interest needs its popularity and its returns")
        if not (self.says.shape == self.hears.shape and len(self.says) == k):
            raise ValueError("each interest needs its two vectors, all of one length")
        parts = (self.popularity, self.returns, self.says, self.hears, self.unknown_popularity)
        if not all((np.abs(part) <= MOST_LOG_ODDS).all() for part in parts):
            raise ValueError(f"effects must be finite, and none beyond ±{MOST_LOG_ODDS:g}")
        object.__setattr__(self, "_rows", self._with_kin())

    def _with_kin(self) -> tuple[dict[str, int], Floats, Floats]:
        """Row of each name and parent, offsets (rows, 2), and vectors (rows, 2 D).

        The last row is that of a stranger.
        """
        index = {name: i for i, name in enumerate(self.names)}
        children = defaultdict(list)
        for name, i in index.items():
            if parent_of(name) not in index:
                children[parent_of(name)].append(i)
        offsets = np.column_stack([self.popularity, self.returns])
        vectors = np.column_stack([self.says, self.hears])
        stranger = [[self.unknown_popularity, 0.0]]
        kin = [np.array(own) for own in children.values()]
        index.update({name: len(self.names) + i for i, name in enumerate(children)})
        return (
            index,
            np.concatenate([offsets, *(offsets[own].mean(0)[None] for own in kin), stranger]),
            np.concatenate(
                [
                    vectors,
                    *(vectors[own].mean(0)[None] for own in kin),
                    np.zeros((1, vectors.shape[1])),
                ]
            ),
        )

    @classmethod
    def of_nobody(cls) -> Population:
        """A population that knows no interest and adds nothing."""
        none = np.zeros(0)
        return cls((), none, none, np.zeros((0, 0)), np.zeros((0, 0)), 0.0)

    def effects(self, names: Sequence[str], attention: ArrayLike) -> Floats:
        """Log-odds that popularity, returns and company add to N interests of one user, (N, 3).

        Args:
            names: their paths.
            attention: what the user gives to each, (N,) ≥ 0. Its direction alone counts.
        """
        index, offsets, vectors = self._rows
        get, stranger = index.get, len(offsets) - 1
        rows = [get(name, -1) for name in names]
        if -1 in rows:
            rows = [
                get(parent_of(name), stranger) if row < 0 else row
                for name, row in zip(names, rows, strict=True)
            ]
        out = np.zeros((len(rows), 3))
        if not rows:
            return out
        out[:, :2] = offsets[rows]
        d = vectors.shape[1] // 2
        if d:
            given = np.asarray(attention, np.float64)
            known = vectors[rows]
            said = (given @ known[:, :d]) / max(float(np.linalg.norm(given)), 1e-300)
            out[:, 2] = known[:, d:] @ said
        return out

    def to_json(self) -> dict[str, Any]:
        """As a release carries it: a row an interest."""
        columns = (self.popularity, self.returns, self.says, self.hears)
        return {
            "unknown_popularity": self.unknown_popularity,
            "interests": {
                name: {"popularity": p, "returns": r, "says": s, "hears": h}
                for name, p, r, s, h in zip(
                    self.names, *(column.tolist() for column in columns), strict=True
                )
            },
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Population:
        """Read back ``to_json``.

        Raises:
            KeyError, TypeError, ValueError: it is nothing of the kind.
        """
        interests = data["interests"]
        rows = list(interests.values())

        def column(name: str) -> Floats:
            return np.array([row[name] for row in rows], np.float64)

        width = len(rows[0]["says"]) if rows else 0
        return cls(
            tuple(interests),
            column("popularity"),
            column("returns"),
            column("says").reshape(len(rows), width),
            column("hears").reshape(len(rows), width),
            float(data["unknown_popularity"]),
        )
