from __future__ import annotations

import pytest
import torch
from torch import nn

from trainer.place import (
    GIB,
    Place,
    TrainingError,
    check_memory,
    memory_named,
    peak_memory_bytes,
)

CPU = Place(torch.device("cpu"), bf16=False)


def test_a_machine_without_a_gpu_trains_on_its_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert Place.choose() == CPU
    with pytest.raises(TrainingError, match="use --device cpu"):
        Place.choose("cuda")


def test_a_gpu_is_taken_with_the_arithmetic_it_is_good_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: True)
    assert Place.choose() == Place(torch.device("cuda"), bf16=True)
    assert Place.choose("auto", "fp32") == Place(torch.device("cuda"), bf16=False)
    assert Place.choose("cpu") == CPU


def test_what_does_not_fit_is_refused_before_it_starts() -> None:
    model = nn.Linear(1024, 1024, bias=False)
    check_memory(model, GIB, CPU, 2 * GIB)
    check_memory(model, GIB, CPU, None)
    with pytest.raises(TrainingError, match=r"about 1\.0 GiB .* 0\.5 GiB are free: lower"):
        check_memory(model, GIB, CPU, GIB // 2)


def test_running_out_of_memory_has_a_remedy() -> None:
    with pytest.raises(TrainingError, match="lower the recipe's batch_positions"), memory_named():
        torch.empty(2**60, dtype=torch.uint8)
    with pytest.raises(TrainingError, match="memory ran out"), memory_named():
        raise MemoryError
    with pytest.raises(RuntimeError, match="something else"), memory_named():
        raise RuntimeError("something else")


def test_the_peak_is_what_was_held() -> None:
    assert peak_memory_bytes() > 2**20
