from __future__ import annotations

import numpy as np
import torch

from trainer.catalogue_loss import CatalogueSoftmax
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
        full, sampled = (CatalogueSoftmax(counts, negatives) for negatives in (0, 200))
        estimates = [sampled(model, table, user, target).mean() for _ in range(200)]
        exact = full(model, table, user, target).mean()
    assert abs(torch.stack(estimates).mean() - exact) < 0.02 * exact
