"""Exact top k of a large catalogue, without the scores of the whole catalogue in memory.

Items lie in groups of neighbouring rows. The catalogue is scored chunk by chunk into one buffer
that stays in cache, and of each chunk only the largest score of every group is kept. The k best
items lie within the k groups of the largest maxima, for each group that comes before another has
an item that comes before all of the other's; so the items of k groups are scored once more, and
the best k of them are the answer.

Order: by falling score, and by rising row among equal scores, in groups as in items. Since groups
are neighbouring rows, the theorem holds for ties too, and every answer is the same on every call.
The two computations of one score may differ in its last bit where the library multiplies matrices
of different shapes differently: items as near to each other as that may trade places.

Shapes: B queries, D width, V items, X excluded items a query at most, G items a group, k results.
"""

from typing import Final

import torch
from torch import Tensor, nn

GROUP = 16
"""Items a group. More make fewer maxima to choose from, and more items to score again."""

DIRECT_UP_TO = 16_384
"""Items of a catalogue that is scored whole, and …"""

DIRECT_PER_RESULT = 256
"""… so many more for each result: to score k groups again costs more than it saves below that."""

CACHED = {"cpu": 131_072, "cuda": 4_194_304}
"""Scores in the buffer: half a megabyte for a core's cache, 16 for a GPU's."""

NARROWEST_CHUNK = 512
"""Items a chunk at least, however many queries there are."""

ABSENT = -1
"""Row of a result where fewer than k items are left, its score being −∞; pads `excluded` too."""


class TopK(nn.Module):
    """The k best items for each query, as a module that can be scripted; it keeps no state."""

    group: Final[int] = GROUP
    narrowest: Final[int] = NARROWEST_CHUNK
    absent: Final[int] = ABSENT
    cached_cpu: Final[int] = CACHED["cpu"]
    cached_cuda: Final[int] = CACHED["cuda"]

    def __init__(self, k: int, direct_up_to: int | None = None) -> None:
        """A head.

        Args:
            k: results a query; of a smaller catalogue there are as many as it has items.
            direct_up_to: items up to which a catalogue is scored whole, where that is not left to
                what was measured.

        Raises:
            ValueError: k is below 1.
        """
        super().__init__()
        if k < 1:
            raise ValueError(f"{k} results: ask for 1 at least")
        self.k = k
        measured = DIRECT_UP_TO + DIRECT_PER_RESULT * k
        self.direct_up_to = measured if direct_up_to is None else direct_up_to

    def forward(
        self,
        user_BD: Tensor,
        table_VD: Tensor,
        bias_V: Tensor,
        excluded_BX: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Best items by user · item + bias.

        Args:
            user_BD: queries, B ≥ 0.
            table_VD: item vectors, V ≥ 1; no gradient reaches them.
            bias_V: what is added to the score of each item.
            excluded_BX: int64 rows each query leaves out, in any order, padded with `ABSENT`.

        Returns:
            Scores (B, min(k, V)), falling, and int64 rows (B, min(k, V)).
        """
        user, table, bias = user_BD.detach(), table_VD.detach(), bias_V.detach()
        k = min(self.k, table.size(0))
        if table.size(0) <= self.direct_up_to:
            scores = torch.addmm(bias, user, table.t())
            if excluded_BX is not None:
                leave_out(scores, excluded_BX)
            values, rows = best(scores, k)
        else:
            maxima = self.group_maxima(user, table, bias, excluded_BX)
            groups = best(maxima, min(k, maxima.size(1)))[1].sort(dim=1)[0]
            inside = torch.arange(self.group, device=table.device)
            rows = (groups[:, :, None] * self.group + inside).flatten(1)
            scores = self.scores_of(rows, user, table, bias)
            scores.masked_fill_(rows >= table.size(0), float("-inf"))
            if excluded_BX is not None:
                leave_out(scores, self.position(excluded_BX, groups))
            values, where = best(scores, k)
            rows = rows.gather(1, where)
        return values, rows.masked_fill(values == float("-inf"), self.absent)

    def group_maxima(
        self, user: Tensor, table: Tensor, bias: Tensor, excluded: Tensor | None
    ) -> Tensor:
        """Largest score of each group, (B, V / G), what is excluded left out."""
        B, V, G = user.size(0), table.size(0), self.group
        cached = self.cached_cuda if table.is_cuda else self.cached_cpu
        C = min(max(cached // max(B, 1), self.narrowest), V)
        C = (C + G - 1) // G * G
        # Clamped, so that what is excluded beyond the catalogue's end belongs to no chunk.
        starts = torch.arange(0, V + C, C).clamp(max=V)
        out_rows = torch.zeros(0, dtype=torch.int64, device=table.device)
        out_queries = out_rows
        if excluded is None:
            bounds = torch.zeros_like(starts)
        else:
            out_rows, order = excluded.flatten().sort()
            out_queries = torch.div(order, max(excluded.size(1), 1), rounding_mode="floor")
            bounds = torch.searchsorted(out_rows, starts.to(out_rows.device)).to("cpu")

        # Items by queries, so that a group's maximum runs along whole rows of the buffer.
        query_DB = user.t().contiguous()
        buffer_CB = torch.zeros(C, B, dtype=table.dtype, device=table.device)
        maxima = torch.zeros(B, (V + G - 1) // G, dtype=table.dtype, device=table.device)
        for chunk in range((V + C - 1) // C):
            start = chunk * C
            n = min(C, V - start)
            torch.addmm(
                bias[start : start + n, None],
                table[start : start + n],
                query_DB,
                out=buffer_CB[:n],
            )
            full = (n + G - 1) // G * G
            buffer_CB[n:full] = float("-inf")
            first, last = int(bounds[chunk]), int(bounds[chunk + 1])
            if first < last:
                where = (out_rows[first:last] - start) * B + out_queries[first:last]
                buffer_CB.view(-1).index_fill_(0, where, float("-inf"))
            maxima[:, start // G : (start + full) // G] = (
                buffer_CB[:full].view(full // G, G, B).amax(dim=1).t()
            )
        return maxima

    def scores_of(self, rows_BN: Tensor, user: Tensor, table: Tensor, bias: Tensor) -> Tensor:
        """Scores (B, N) of some rows of each query; those beyond the end stand for the last."""
        B, N = rows_BN.shape
        rows_BN = rows_BN.clamp(max=table.size(0) - 1)
        scores = torch.zeros(B, N, dtype=table.dtype, device=table.device)
        cached = self.cached_cuda if table.is_cuda else self.cached_cpu
        step = max(cached // max(N * table.size(1), 1), 1)
        for start in range(0, B, step):
            rows = rows_BN[start : start + step]
            items = table.index_select(0, rows.flatten()).view(rows.size(0), N, table.size(1))
            dots = torch.bmm(items, user[start : start + step, :, None]).squeeze(2)
            biases = bias.index_select(0, rows.flatten()).view(rows.size(0), N)
            scores[start : start + step] = dots + biases
        return scores

    def position(self, rows_BX: Tensor, groups: Tensor) -> Tensor:
        """Where rows stand among the items of some groups, which rise; −1 if they do not."""
        group = torch.div(rows_BX, self.group, rounding_mode="floor")
        at = torch.searchsorted(groups, group).clamp(max=groups.size(1) - 1)
        where = at * self.group + rows_BX % self.group
        return where.masked_fill(groups.gather(1, at) != group, -1)


def leave_out(scores_BN: Tensor, where_BX: Tensor) -> None:
    """Set some positions of each row to −∞; those outside it stand for none."""
    inside = (where_BX >= 0) & (where_BX < scores_BN.size(1))
    most = torch.full_like(where_BX, float("inf"), dtype=scores_BN.dtype)
    most = most.masked_fill(inside, float("-inf"))
    scores_BN.scatter_reduce_(1, where_BX.masked_fill(~inside, 0), most, "amin")


def best(scores_BN: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k ≤ N largest of each row and their positions; among equals the first ones.

    `torch.topk` may choose any of equals and tell them in any order. Only where the last one chosen
    equals the first one not chosen is a whole row sorted instead.
    """
    values, where = torch.topk(scores_BN, min(k + 1, scores_BN.size(1)), dim=1)
    if not bool((values[:, 1:] == values[:, :-1]).any()):
        return values[:, :k], where[:, :k]
    if values.size(1) > k:
        tied = (values[:, k] == values[:, k - 1]).nonzero().squeeze(1)
        if tied.size(0) > 0:
            order = scores_BN.index_select(0, tied).sort(dim=1, descending=True, stable=True)[1]
            where = where.index_copy(0, tied, order[:, : k + 1])
    where = where[:, :k].sort(dim=1)[0]
    values, order = scores_BN.gather(1, where).sort(dim=1, descending=True, stable=True)
    return values, where.gather(1, order)
