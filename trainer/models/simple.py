"""Retrieval models that count instead of learning, with the contract of those that learn.

Shapes: B users, L events of history, V rows, D width, J interests of an item, C interests in all.
"""

from typing import Final

import torch
from torch import Tensor, nn

from trainer.models.sequence import TOP_K
from trainer.models.topk import best
from trainer.models.vocabulary import OOV_ROW, PADDING_ROW, Vocabulary


class PopularModel(nn.Module):
    """The same answer for everybody: the log of how often each item was engaged lately."""

    padding_row: Final[int] = PADDING_ROW
    oov_row: Final[int] = OOV_ROW

    table: Tensor
    popularity: Tensor

    def __init__(self, vocabulary: Vocabulary, table: Tensor, popularity: Tensor) -> None:
        """`table`: (V, D) item vectors, for whoever compares items; `popularity`: (V,) scores."""
        super().__init__()
        self.vocabulary = vocabulary
        self.k = min(TOP_K, vocabulary.size() - 2)
        self.register_buffer("table", table)
        self.register_buffer("popularity", popularity)

    def forward(
        self, keys: Tensor, ages: Tensor, types: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`ebbing.history.RETRIEVAL_INPUTS` → `RETRIEVAL_OUTPUTS`, batch axis first."""
        rows = self.vocabulary(keys)
        scores, where = best(self.scores(keys, ages, types), self.k)
        had = (rows != self.padding_row).to(self.table.dtype).unsqueeze(2)
        user = (nn.functional.embedding(rows, self.table) * had).mean(dim=1)
        unknown = (rows == self.oov_row).sum(dim=1, keepdim=True).to(torch.int32)
        return self.vocabulary.keys[where], scores, user, unknown

    @torch.jit.export
    def scores(self, keys: Tensor, ages: Tensor, types: Tensor) -> Tensor:
        """Scores (B, V − 2) of the whole catalogue, in the order of `catalogue`."""
        return self.popularity[2:].unsqueeze(0).repeat(keys.size(0), 1)

    @torch.jit.export
    def catalogue(self) -> Tensor:
        """Keys (V − 2,) of the items scored, ascending."""
        return self.vocabulary.keys

    @torch.jit.export
    def vectors(self) -> Tensor:
        """Item vectors (V − 2, D), in the order of `catalogue`."""
        return self.table[2:]


class DecayModel(nn.Module):
    """A user's own items and interests by exponentially decayed counts, and what is popular.

    An event counts 2^(−age/h). An item's score is the log of a mixture of three shares: of the
    user's decayed counts that are of this item; of those that are of its interests, spread over
    the items of each interest by popularity; and of everybody's engagements. An empty history
    leaves the last.
    """

    padding_row: Final[int] = PADDING_ROW
    oov_row: Final[int] = OOV_ROW
    half_life_s: Final[float]
    own: Final[float]
    interest: Final[float]

    table: Tensor
    popularity: Tensor
    columns: Tensor
    shares: Tensor
    within: Tensor

    def __init__(
        self,
        vocabulary: Vocabulary,
        table: Tensor,
        popularity: Tensor,
        columns: Tensor,
        shares: Tensor,
        within: Tensor,
        half_life_s: float,
        own: float,
        interest: float,
    ) -> None:
        """Set up the counts.

        Args:
            vocabulary: the V rows.
            table: (V, D) item vectors, for whoever compares items.
            popularity: (V,) share of everybody's engagements.
            columns: (V, J) int64 interests of each item, 0 where it has fewer.
            shares: (V, J) share of the item that is of each; 0 where it has fewer.
            within: (V, J) share of the interest's engagements that this item has.
            half_life_s: h, in seconds.
            own: weight of the user's own items; popularity has what is left of 1.
            interest: weight of the user's interests.
        """
        super().__init__()
        self.vocabulary = vocabulary
        self.k = min(TOP_K, vocabulary.size() - 2)
        self.half_life_s = half_life_s
        self.own = own
        self.interest = interest
        self.n_interests = int(columns.max()) + 1
        for name, buffer in (
            ("table", table),
            ("popularity", popularity),
            ("columns", columns),
            ("shares", shares),
            ("within", within),
        ):
            self.register_buffer(name, buffer)

    def forward(
        self, keys: Tensor, ages: Tensor, types: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`ebbing.history.RETRIEVAL_INPUTS` → `RETRIEVAL_OUTPUTS`, batch axis first."""
        rows = self.vocabulary(keys)
        counts = self.counts(rows, ages)
        scores, where = best(self.mixed(rows, counts), self.k)
        user = torch.bmm(counts.unsqueeze(1), nn.functional.embedding(rows, self.table)).squeeze(1)
        unknown = (rows == self.oov_row).sum(dim=1, keepdim=True).to(torch.int32)
        return self.vocabulary.keys[where], scores, user, unknown

    @torch.jit.export
    def scores(self, keys: Tensor, ages: Tensor, types: Tensor) -> Tensor:
        """Scores (B, V − 2) of the whole catalogue, in the order of `catalogue`."""
        rows = self.vocabulary(keys)
        return self.mixed(rows, self.counts(rows, ages))

    @torch.jit.export
    def catalogue(self) -> Tensor:
        """Keys (V − 2,) of the items scored, ascending."""
        return self.vocabulary.keys

    @torch.jit.export
    def vectors(self) -> Tensor:
        """Item vectors (V − 2, D), in the order of `catalogue`."""
        return self.table[2:]

    def counts(self, rows: Tensor, ages: Tensor) -> Tensor:
        """Share of each event in the user's decayed counts, (B, L); unknown items count nothing."""
        # Counted from the newest event, so that a long silence does not round all of them to 0.
        back = (ages - ages[:, -1:]).clamp(min=0.0) / self.half_life_s
        counts = torch.exp2(-back) * (rows > self.oov_row)
        return counts / counts.sum(dim=1, keepdim=True).clamp(min=1e-30)

    def mixed(self, rows: Tensor, counts: Tensor) -> Tensor:
        """Scores (B, V − 2) from rows and shares of events, (B, L) each."""
        B = rows.size(0)
        items = torch.zeros(B, self.popularity.size(0), device=counts.device)
        items = items.scatter_add(1, rows, counts)
        spread = counts.unsqueeze(2) * nn.functional.embedding(rows, self.shares)
        wanted = torch.zeros(B, self.n_interests, device=counts.device).scatter_add(
            1, self.columns[rows].flatten(1), spread.flatten(1)
        )
        near = torch.zeros_like(items)
        for j in range(self.columns.size(1)):
            near = near + wanted[:, self.columns[:, j]] * self.within[:, j]
        rest = 1.0 - self.own - self.interest
        mixture = self.own * items + self.interest * near + rest * self.popularity
        return torch.log(mixture[:, 2:] + 1e-12)
