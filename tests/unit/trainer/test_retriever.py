from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ebbing.history import item_keys
from trainer.data.log import EventLog
from trainer.retriever import Retriever

ITEMS = [f"i{n}" for n in range(6)]


def test_keys_outside_the_log_are_not_items() -> None:
    def model(history: Tensor, ages: Tensor, types: Tensor) -> tuple[Tensor, ...]:
        keys = torch.tensor([[12345, 2**63 - 1, int(item_keys(["i4"])[0])]])
        return keys, torch.zeros(keys.shape)

    log = EventLog.of(
        ["u"], ITEMS, [()] * 6, *(np.zeros(1, np.int64) for _ in range(3)), np.zeros(1)
    )
    shape = (1, 50)
    found = Retriever(model, log)(
        np.zeros(shape, np.int64), np.zeros(shape, np.float32), np.zeros(shape, np.int32)
    )
    assert found.tolist() == [[-1, -1, 4]]
