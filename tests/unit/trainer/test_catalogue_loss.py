from __future__ import annotations

import numpy as np
import pytest
import torch

from trainer.catalogue_loss import CatalogueSoftmax, Objective, told_apart
from trainer.models.sequence import SequenceConfig, SequenceModel


def test_sampled_softmax_estimates_the_full_one() -> None:
    torch.manual_seed(0)
    n = 300
    model = SequenceModel([()] * n, SequenceConfig(dim=16))
    with torch.no_grad():
        model.items.own.weight.mul_(20.0)
    counts = np.random.default_rng(0).integers(0, 50, n + 2)
    user, target = torch.randn(64, 16), torch.randint(2, n + 2, (64,))
    with torch.no_grad():
        table = model.items()

        def losses_of(loss: CatalogueSoftmax) -> torch.Tensor:
            drawn = loss.draw()
            return loss(user, table[target], table[drawn], model.popularity, target, drawn)

        full, sampled = (CatalogueSoftmax(counts, negatives) for negatives in (0, 200))
        estimates = [losses_of(sampled).mean() for _ in range(200)]
        losses = losses_of(full)
        exact = losses.mean()
        scores = model.score(table, user)
    assert abs(torch.stack(estimates).mean() - exact) < 0.02 * exact
    expected = torch.nn.functional.cross_entropy(scores, target - 2, reduction="none")
    torch.testing.assert_close(losses, expected)


@pytest.mark.parametrize("at_once", [1, 70, 10**6])
def test_gradients_are_those_of_the_cross_entropy(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.catalogue_loss.AT_ONCE", {"cpu": at_once})
    torch.manual_seed(0)
    n, others = 40, 30
    inputs = [
        torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for shape in ((n, 8), (n,), (others, 8), (others,))
    ]
    user, own, vectors, bias = inputs
    rows, target = torch.randint(0, 20, (others,)), torch.randint(0, 20, (n,))
    scores = (user @ vectors.T + bias).masked_fill(rows == target[:, None], -torch.inf)
    whole = torch.cat([own[:, None], scores], dim=1)
    expected = torch.logsumexp(whole, dim=1) - own
    found = told_apart(user, own, vectors, bias, rows, target)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-5)
    for one, other in zip(
        torch.autograd.grad(3 * found.mean(), inputs),
        torch.autograd.grad(3 * expected.mean(), inputs),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_where_nothing_is_left_to_be_told_from_nothing_is_learned() -> None:
    user = torch.ones(2, 3, requires_grad=True)
    own, target = torch.zeros(2), torch.tensor([5, 5])
    loss = told_apart(user, own, torch.ones(4, 3), torch.zeros(4), torch.full((4,), 5), target)
    loss.sum().backward()
    assert loss.tolist() == [0, 0]
    assert torch.equal(user.grad, torch.zeros(2, 3))


def test_losses_are_not_weighed_one_by_one() -> None:
    user = torch.ones(2, 3, requires_grad=True)
    rows = torch.arange(4)
    losses = told_apart(user, torch.zeros(2), torch.ones(4, 3), torch.zeros(4), rows, rows[:2])
    with pytest.raises(ValueError, match="summed or averaged"):
        (losses * torch.tensor([1.0, 2.0])).sum().backward()


def test_an_objective_has_a_loss_for_every_event() -> None:
    torch.manual_seed(0)
    model = SequenceModel([()] * 10, SequenceConfig(dim=16))
    objective = Objective(model, CatalogueSoftmax(np.ones(12), 0), oov_share=0.5)
    rows, targets = torch.tensor([[0, 4], [0, 0]]), torch.tensor([[4, 7], [3, 0]])
    losses = objective(rows, torch.ones_like(rows), torch.zeros(2, 3), targets)
    assert losses.shape == (3,)
    assert losses.isfinite().all()
