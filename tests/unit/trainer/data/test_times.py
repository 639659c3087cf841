from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from trainer.data.raw import LogError
from trainer.data.rows import Rows
from trainer.data.times import in_seconds


def rows(times: list[float], numbers: list[int] | None = None) -> Rows:
    place = None if numbers is None else np.array(numbers)
    return Rows(Path("events.csv"), pl.DataFrame({"t": times}), place, 2, ())


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e6, 1e9])
def test_a_file_of_one_unit_is_in_seconds(scale: float) -> None:
    seconds = np.array([1_717_200_000.0, 900_000_000.0, 1_717_200_000.5])
    np.testing.assert_allclose(in_seconds(rows((seconds * scale).tolist()), "t"), seconds)


def test_small_and_negative_seconds_stay() -> None:
    assert in_seconds(rows([-5.0, 0.0, 300.5]), "t").tolist() == [-5.0, 0.0, 300.5]
    assert in_seconds(rows([]), "t").tolist() == []


def test_mixed_units_name_the_first_row_of_each() -> None:
    mixed = [1_717_200_000.0, 1_717_200_001.0, 1_717_200_002_000.0, 1_717_200_003_000.0]
    with pytest.raises(LogError) as caught:
        in_seconds(rows(mixed), "t")
    assert "row 2 (1717200000) in seconds, row 4 (1717200002000) in milliseconds" in str(
        caught.value
    )
    assert "write all of them as UTC seconds" in str(caught.value)
    with pytest.raises(LogError, match=r"row 3 \(1717200002000\) in milliseconds, row 9 "):
        in_seconds(rows(mixed[2:] + mixed[:1], [3, 5, 9]), "t")
