"""What a user's interests say of each other: a vector each, learned by torch.

Company adds to the log-odds of an interest the dot product of what it hears and what the user's
interests say, weighed by the attention she gives them. The same vectors are to tell, by a softmax,
which interests the user engages within the horizon at all, new ones too: that is far more to learn
from than returns alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch.nn import functional

from trainer.reproducible import reproducible

DIMENSIONS = 8
EPOCHS = 8
BATCH_USERS = 512
LEARNING_RATE = 0.02
"""At its highest: it rises for a tenth of the steps, and falls from there."""
SLACK_PULL = 3.0
"""Pull of what each interest's record of returns may give way meanwhile, per squared log-odds."""
FIRST_SPREAD = 0.05
"""Standard deviation of the vectors to begin with."""


@dataclass(frozen=True)
class Caution:
    """How little is believed of what interests say of each other."""

    pull: float
    """Pull of the vectors to 0, per squared unit."""
    choice_share: float
    """Weight of the softmax beside the returns."""


@dataclass(frozen=True)
class Users:
    """Users at cuts, each with interests; C cases and T choices, ordered by user."""

    owner: np.ndarray
    """(N,) user of each interest, ascending."""
    interests: np.ndarray
    """(N,) interest index of each."""
    attention: np.ndarray
    """(N,) what the user gives to each, of length 1 a user."""
    case: np.ndarray
    """(C,) place of each case among the N, ascending."""
    returned: np.ndarray
    """(C,) bool."""
    known: np.ndarray
    """(C,) log-odds known without company."""
    case_weight: np.ndarray
    """(C,)"""
    chooser: np.ndarray
    """(T,) user of each interest engaged within the horizon, ascending."""
    chosen: np.ndarray
    """(T,) its interest index."""
    user_weight: np.ndarray
    """(U,)"""

    @classmethod
    def of(
        cls,
        owner: np.ndarray,
        interests: np.ndarray,
        attention: np.ndarray,
        case: np.ndarray,
        returned: np.ndarray,
        known: np.ndarray,
        chooser: np.ndarray,
        chosen: np.ndarray,
        weight: float,
    ) -> Users:
        """The users of one cut, who all count alike; attention of any length. See the fields."""
        n = int(owner[-1]) + 1
        length = np.sqrt(np.bincount(owner, attention**2, n))
        return cls(
            owner=owner,
            interests=interests,
            attention=attention / np.maximum(length[owner], np.finfo(np.float64).tiny),
            case=case,
            returned=returned,
            known=known,
            case_weight=np.full(len(case), weight),
            chooser=chooser,
            chosen=chosen,
            user_weight=np.full(n, weight),
        )

    @classmethod
    def all_of(cls, parts: Iterable[Users]) -> Users:
        """All of some users, one part after the other; one part at least."""
        moved = []
        users = rows = 0
        for part in parts:
            moved.append(
                replace(
                    part,
                    owner=part.owner + users,
                    case=part.case + rows,
                    chooser=part.chooser + users,
                )
            )
            users, rows = users + len(part.user_weight), rows + len(part.owner)
        names = (field.name for field in fields(cls))
        return cls(*(np.concatenate([getattr(one, name) for one in moved]) for name in names))


@dataclass(frozen=True)
class Company:
    """A vector each of K interests; see `ebbing.interest.population.Population`."""

    says: np.ndarray
    """(K, D)"""
    hears: np.ndarray
    """(K, D)"""

    @classmethod
    def none(cls, n: int) -> Company:
        """That of interests that say nothing of each other."""
        return cls(np.zeros((n, 0)), np.zeros((n, 0)))

    def log_odds(self, users: Users) -> np.ndarray:
        """(C,) what company adds to each case."""
        said = np.zeros((len(users.user_weight), self.says.shape[1]))
        np.add.at(said, users.owner, users.attention[:, None] * self.says[users.interests])
        mine = said[users.owner[users.case]]
        heard: np.ndarray = (mine * self.hears[users.interests[users.case]]).sum(axis=1)
        return heard


def learn_company(users: Users, n_interests: int, caution: Caution, seed: int) -> Company:
    """Learn the vectors by Adam; deterministic on CPU."""
    with reproducible(seed, threads=1):
        return _learned(users, n_interests, caution, np.random.default_rng(seed))


def _learned(
    users: Users, n_interests: int, caution: Caution, order: np.random.Generator
) -> Company:
    n_users = len(users.user_weight)

    def floats(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, np.float32))

    def drawn() -> torch.Tensor:
        return (FIRST_SPREAD * torch.randn(n_interests, DIMENSIONS)).requires_grad_()

    says, hears = drawn(), drawn()
    picks = np.bincount(users.chosen, minlength=n_interests) + 1.0
    liking = floats(np.log(picks / picks.sum())).requires_grad_()
    # Where company tells why an interest is come back to, its own record has to give way.
    slack = torch.zeros(n_interests, requires_grad=True)
    scale = torch.ones(1, requires_grad=True)
    optimiser = torch.optim.Adam([says, hears, liking, slack, scale], lr=LEARNING_RATE)
    batches = -(-n_users // BATCH_USERS)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, LEARNING_RATE, total_steps=EPOCHS * batches, pct_start=0.1
    )
    interest, attention = torch.from_numpy(users.interests), floats(users.attention)
    returned, known = floats(users.returned), floats(users.known)
    case_weight, user_weight = floats(users.case_weight), floats(users.user_weight)
    case, chosen = torch.from_numpy(users.case), torch.from_numpy(users.chosen)
    edges = [
        np.searchsorted(of, np.arange(n_users + 1))
        for of in (users.owner, users.owner[users.case], users.chooser)
    ]
    total = float(users.case_weight.sum())

    for _ in range(EPOCHS):
        shuffled = order.permutation(n_users)
        for start in range(0, n_users, BATCH_USERS):
            batch = np.sort(shuffled[start : start + BATCH_USERS])
            (own, owner), (asked, asker), (taken, taker) = (_rows(e, batch) for e in edges)
            said = torch.zeros(len(batch), DIMENSIONS).index_add(
                0, owner, attention[own][:, None] * says[interest[own]]
            )
            asked_of = interest[case[asked]]
            heard = slack[asked_of] + scale * (said[asker] * hears[asked_of]).sum(1)
            weight = case_weight[asked]
            loss = functional.binary_cross_entropy_with_logits(
                known[asked] + heard, returned[asked], weight, reduction="sum"
            )
            choice = torch.log_softmax(said @ hears.T + liking, 1)[taker, chosen[taken]]
            loss = loss - caution.choice_share * (user_weight[batch][taker] * choice).sum()
            share = weight.sum() / total
            vectors = (says**2).sum() + (hears**2).sum()
            pulled = caution.pull * vectors + SLACK_PULL * (slack**2).sum()
            loss = loss + share / 2 * pulled
            optimiser.zero_grad()
            (loss / max(len(asked), 1)).backward()
            optimiser.step()
            schedule.step()
    with torch.no_grad():
        return Company(says.double().numpy().copy(), (scale * hears).double().numpy().copy())


def _rows(edges: np.ndarray, users: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of some users, and for each the user's place among them, as tensors."""
    sizes = edges[users + 1] - edges[users]
    before = np.cumsum(sizes) - sizes
    rows = np.repeat(edges[users] - before, sizes) + np.arange(sizes.sum())
    return torch.from_numpy(rows), torch.from_numpy(np.repeat(np.arange(len(users)), sizes))
