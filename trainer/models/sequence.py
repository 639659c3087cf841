"""The retrieval model: one causal attention block that forgets.

What an event weighs falls with the time that has passed since it, as a learned power law, beside
a learned prior that does not fall: the longer a user is silent, the more the answer leans on the
prior. An empty history is the prior alone.

Shapes: B users, Q moments asked for, L events of history, D model width, H heads, V rows, K items.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from ebbing.history import HISTORY_LENGTH
from trainer.models.items import ItemTable
from trainer.models.topk import TopK
from trainer.models.vocabulary import FIRST_ITEM_ROW, OOV_ROW, PADDING_ROW, Vocabulary

TOP_K = 200
"""Items the retrieval model returns, or the whole catalogue if it is smaller."""

EVENT_TYPES = 32
"""Event type numbers a model tells apart; higher ones share the last."""


@dataclass(frozen=True)
class SequenceConfig:
    """The shape of the model."""

    dim: int = 64
    """Width of item and user vectors."""
    heads: int = 2
    """Attention heads; each forgets at a pace of its own."""
    dropout: float = 0.2
    """Share of activations dropped in training."""
    elapsed_time: bool = True
    """Whether the model is told how long ago each event was; without, their order is all it has."""
    told_now: bool = True
    """Whether it is told how long ago the newest event was; without, ages count from that event."""
    forgetting: bool = True
    """Whether attention to an event falls with its age, at a pace that each head learns."""
    short_term: bool = True
    """Whether there is a short-term read-out beside the long-term one."""
    attributes: bool = True
    """Whether an item's vector is made of its interests too."""


class ForgettingAttention(nn.Module):
    """Attention from moments to the events before them, with an elapsed-time decay and a prior."""

    day_s: Final[float] = 86_400.0
    forgetting: Final[bool]

    def __init__(self, config: SequenceConfig) -> None:
        super().__init__()
        self.forgetting = config.forgetting
        self.heads = config.heads
        self.head_dim = config.dim // config.heads
        self.query = nn.Linear(config.dim, config.dim)
        self.key_value = nn.Linear(config.dim, 2 * config.dim)
        self.out = nn.Linear(config.dim, config.dim)
        self.distance_bias = nn.Embedding(HISTORY_LENGTH, config.heads)
        nn.init.zeros_(self.distance_bias.weight)
        # softplus(-1 … 1): one head starts out forgetting slowly, the last one fast.
        self.decay = nn.Parameter(torch.linspace(-1.0, 1.0, config.heads))
        self.prior_score = nn.Parameter(torch.zeros(config.heads))
        self.prior_value = nn.Parameter(torch.zeros(config.heads, self.head_dim))
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        query_BQD: Tensor,
        events_BLD: Tensor,
        ages_BQL: Tensor,
        seen_BQL: Tensor,
        distance_QL: Tensor,
    ) -> Tensor:
        """Attend.

        Args:
            query_BQD: what each moment asks with.
            events_BLD: the events.
            ages_BQL: seconds from each event to each moment.
            seen_BQL: whether the event lies before the moment.
            distance_QL: events between the event and the moment, clamped to the layout's length.

        Returns:
            (B, Q, D).
        """
        B, Q, D = query_BQD.shape
        L = events_BLD.size(1)
        q = self.query(query_BQD).view(B, Q, self.heads, self.head_dim).transpose(1, 2)
        kv = self.key_value(events_BLD).view(B, L, 2, self.heads, self.head_dim)
        k = kv[:, :, 0].transpose(1, 2)
        v = kv[:, :, 1].transpose(1, 2)
        scores = q @ k.transpose(2, 3) / self.head_dim**0.5
        scores = scores + self.distance_bias(distance_QL).permute(2, 0, 1)
        if self.forgetting:
            pace_H11 = nn.functional.softplus(self.decay).view(-1, 1, 1)
            scores = scores - pace_H11 * torch.log1p(ages_BQL / self.day_s).unsqueeze(1)
        scores = scores.masked_fill(~seen_BQL.unsqueeze(1), float("-inf"))
        prior = self.prior_score.view(1, -1, 1, 1).expand(B, -1, Q, 1)
        weights = torch.softmax(torch.cat([prior, scores], dim=3), dim=3)
        weights = self.dropout(weights)
        mixed = weights[..., 1:] @ v + weights[..., :1] * self.prior_value.view(
            1, self.heads, 1, -1
        )
        return self.out(mixed.transpose(1, 2).reshape(B, Q, D))


class HistoryReader(nn.Module):
    """Events → user vector: a long-term read-out by attention, a short-term one, and their gate."""

    day_s: Final[float] = 86_400.0
    last_type: Final[int] = EVENT_TYPES - 1
    elapsed_time: Final[bool]
    short_term: Final[bool]

    def __init__(self, config: SequenceConfig) -> None:
        super().__init__()
        self.elapsed_time = config.elapsed_time
        self.short_term = config.short_term
        D = config.dim
        self.event_type = nn.Embedding(EVENT_TYPES, D)
        nn.init.normal_(self.event_type.weight, std=0.02)
        self.norm_in = nn.LayerNorm(D)
        self.attention = ForgettingAttention(config)
        self.norm_mid = nn.LayerNorm(D)
        self.feed = nn.Sequential(
            nn.Linear(D, 2 * D), nn.GELU(), nn.Dropout(config.dropout), nn.Linear(2 * D, D)
        )
        self.norm_out = nn.LayerNorm(D)
        self.gate = nn.Linear(2 * D, D)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        items_BLD: Tensor,
        types_BL: Tensor,
        ages_BQL: Tensor,
        seen_BQL: Tensor,
        distance_QL: Tensor,
    ) -> Tensor:
        """Read the history at each moment; the query of moment q is event position q.

        Args:
            items_BLD: item vectors of the events; L ≥ Q, the moments being the last Q positions.
            types_BL: event type numbers.
            ages_BQL, seen_BQL, distance_QL: as `ForgettingAttention` takes them.

        Returns:
            User vectors (B, Q, D).
        """
        Q = ages_BQL.size(1)
        if not self.elapsed_time:
            ages_BQL = torch.zeros_like(ages_BQL)
        typed = items_BLD + self.event_type(types_BL.clamp(0, self.last_type))
        events = self.norm_in(self.dropout(typed))
        newest = events[:, events.size(1) - Q :]
        long = newest + self.dropout(
            self.attention(newest, events, ages_BQL, seen_BQL, distance_QL)
        )
        long = long + self.dropout(self.feed(self.norm_mid(long)))
        if not self.short_term:
            return self.norm_out(long)
        # The short-term read-out halves with each event back and each day that has passed.
        recent = torch.exp2(-distance_QL.to(ages_BQL.dtype)) / (1.0 + ages_BQL / self.day_s)
        short = (recent * seen_BQL) @ events
        gate = torch.sigmoid(self.gate(torch.cat([long, short], dim=2)))
        return self.norm_out(long + gate * short)


class SequenceModel(nn.Module):
    """What is trained: item vectors, popularity and the reader."""

    def __init__(
        self, interests: Sequence[Sequence[tuple[str, float]]], config: SequenceConfig
    ) -> None:
        """`interests`: of each item, in the order of the vocabulary's keys."""
        super().__init__()
        self.told_now = config.told_now
        self.items = ItemTable(
            interests if config.attributes else [()] * len(interests), config.dim
        )
        self.popularity = nn.Parameter(torch.zeros(len(interests) + 2))
        self.reader = HistoryReader(config)

    def forward(
        self, table_VD: Tensor, rows_BL: Tensor, types_BL: Tensor, times_BL1: Tensor
    ) -> Tensor:
        """User vectors before each event of each sequence, (B, L, D).

        Args:
            table_VD: `self.items()`, computed once a step.
            rows_BL: rows of the events, shifted by one: position 0 is padding, position p event p.
            types_BL: event type numbers, shifted likewise.
            times_BL1: (B, L + 1) seconds from the sequence's start; entry p is the time of event
                p, so that entry p + 1 is the moment position p is asked about.
        """
        L = rows_BL.size(1)
        asked_BL = times_BL1[:, 1:] if self.told_now else times_BL1[:, :-1]
        ages = (asked_BL[:, :, None] - times_BL1[:, None, :-1]).clamp(min=0.0)
        position = torch.arange(L, device=rows_BL.device)
        behind = position[:, None] - position[None, :]
        seen = (behind >= 0) & (rows_BL != PADDING_ROW)[:, None, :]
        distance = behind.clamp(0, HISTORY_LENGTH - 1)
        return self.reader(
            nn.functional.embedding(rows_BL, table_VD), types_BL, ages, seen, distance
        )

    def score(self, table_VD: Tensor, user_ND: Tensor) -> Tensor:
        """Scores of the whole catalogue, (N, V − 2)."""
        return user_ND @ table_VD[FIRST_ITEM_ROW:].T + self.popularity[FIRST_ITEM_ROW:]


class RetrievalModel(nn.Module):
    """What is served: history → the best K of the catalogue."""

    padding_row: Final[int] = PADDING_ROW
    oov_row: Final[int] = OOV_ROW
    told_now: Final[bool]

    table: Tensor
    popularity: Tensor
    distance: Tensor

    def __init__(self, vocabulary: Vocabulary, model: SequenceModel) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.reader = model.reader
        self.told_now = model.told_now
        self.best = TopK(TOP_K)
        self.register_buffer("table", model.items().detach().clone())
        self.register_buffer("popularity", model.popularity.detach().clone())
        self.register_buffer("distance", torch.arange(HISTORY_LENGTH - 1, -1, -1)[None])

    def forward(
        self, keys: Tensor, ages: Tensor, types: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`ebbing.history.RETRIEVAL_INPUTS` → `RETRIEVAL_OUTPUTS`, batch axis first."""
        rows = self.vocabulary(keys)
        user = self.read(rows, ages, types)
        best, where = self.best(user, self.table[2:], self.popularity[2:])
        unknown = (rows == self.oov_row).sum(dim=1, keepdim=True).to(torch.int32)
        return self.vocabulary.keys[where], best, user, unknown

    @torch.jit.export
    def scores(self, keys: Tensor, ages: Tensor, types: Tensor) -> Tensor:
        """Scores (B, V − 2) of the whole catalogue, in the order of `catalogue`.

        Takes what `forward` takes. Whoever measures ranks calls it; what is served does not.
        """
        return self.score(self.read(self.vocabulary(keys), ages, types))

    @torch.jit.export
    def catalogue(self) -> Tensor:
        """Keys (V − 2,) of the items scored, ascending."""
        return self.vocabulary.keys

    @torch.jit.export
    def vectors(self) -> Tensor:
        """Item vectors (V − 2, D), in the order of `catalogue`."""
        return self.table[2:]

    def score(self, user: Tensor) -> Tensor:
        """Scores (B, V − 2) for user vectors (B, D)."""
        return user @ self.table[2:].T + self.popularity[2:]

    def read(self, rows: Tensor, ages: Tensor, types: Tensor) -> Tensor:
        """User vectors (B, D) of encoded histories whose keys have become rows."""
        if not self.told_now:
            ages = ages - ages[:, -1:]
        return self.reader(
            nn.functional.embedding(rows, self.table),
            types,
            ages.clamp(min=0.0).unsqueeze(1),
            (rows != self.padding_row).unsqueeze(1),
            self.distance,
        ).squeeze(1)
