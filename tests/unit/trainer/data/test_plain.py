"""What may lie beside events and items, and folders that are no logs."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from trainer.data import plain
from trainer.data.formats import read_raw
from trainer.data.log import LogError, read_log


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "events.csv").write_text(
        "user_id,item_id,event_type,event_time\na,i1,view,1\nb,i2,Add-To-Cart,2\na,i9,checkin,3\n"
    )
    (tmp_path / "items.csv").write_text("item_id,interests\ni1,x\ni2,y\ni3,z\n")
    (tmp_path / "contents").mkdir()
    return tmp_path


def test_content_vectors_lie_in_files_named_for_their_modality(folder: Path) -> None:
    (folder / "contents" / "text.csv").write_text("item_id,a,b\ni2,1,2\ni1,3,\nother,5,5\n")
    pl.DataFrame(
        {"item_id": ["i3", "i9"], "vector": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]}
    ).write_parquet(folder / "contents" / "image.parquet")
    pl.DataFrame({"item_id": [1, 2], "x": [0.5, 1], "y": [1, 2]}).write_parquet(
        folder / "contents" / "sound.parquet"
    )
    contents = read_log(folder).contents
    nan = np.nan
    np.testing.assert_array_equal(
        contents["text"], np.float32([[3, nan], [1, 2], [nan, nan], [nan, nan]])
    )
    np.testing.assert_array_equal(
        contents["image"], np.float32([[nan] * 3, [nan] * 3, [1, 2, 3], [4, 5, 6]])
    )
    assert np.isnan(contents["sound"]).all(), "of items that are not in this log"
    assert {one.dtype for one in contents.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"item": ["a"], "x": [1.0]}, "needs a column item_id"),
        ({"item_id": ["a"]}, "needs a column item_id and a vector"),
        ({"item_id": ["a", "a"], "x": [1.0, 2.0]}, "row 2: item_id appears twice"),
        ({"item_id": ["a", None], "x": [1.0, 2.0]}, "row 2: item_id is empty"),
        ({"item_id": ["a", "b"], "x": [[1.0], [1.0, 2.0]]}, "row 2: a vector of 2 numbers among"),
        ({"item_id": ["a"], "x": ["red"]}, "holds no numbers"),
    ],
)
def test_vectors_that_are_none_are_named(
    folder: Path, table: dict[str, list[object]], message: str
) -> None:
    path = folder / "contents" / "image.parquet"
    pl.DataFrame(table).write_parquet(path)
    with pytest.raises(LogError) as caught:
        read_log(folder)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    path.write_bytes(b"no parquet")
    with pytest.raises(LogError, match="cannot be read as Parquet"):
        read_log(folder)


def test_relations_may_have_strengths(folder: Path) -> None:
    path = folder / "relations.csv"
    path.write_text("user_id,other_user_id\na,b\nb,c\n")
    log = read_log(folder)
    assert (log.relations.tolist(), log.strengths.tolist()) == ([[0, 1]], [1.0])
    path.write_text("user_id,other_user_id,strength\nc,a,9\na,b,0.5\n")
    log = read_log(folder)
    assert (log.relations.tolist(), log.strengths.tolist()) == ([[0, 1]], [0.5])
    path.write_text("user_id,other_user_id,strength\na,b,0\n")
    with pytest.raises(LogError, match=r"row 2: strength is not a number above 0 \('0'\)"):
        read_log(folder)


def test_a_folder_that_goes_away_midway_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(path: Path, available: int | None) -> None:
        shutil.rmtree(folder)

    monkeypatch.setattr(plain, "check_memory", check)
    with pytest.raises(LogError, match=r"events\.csv: went away while the log was read; put it"):
        read_log(folder)
    with pytest.raises(LogError, match="no such folder"):
        read_log(folder)


def test_rows_of_every_file_may_be_left_out(folder: Path) -> None:
    with (folder / "events.csv").open("a") as file:
        file.write("garbage\n")
    with (folder / "items.csv").open("a") as file:
        file.write(",z\n")
    raw = read_raw(folder, 0.25, None)
    assert {one.file: one.bad for one in raw.skipped} == {"events.csv": 1, "items.csv": 1}
    assert len(read_log(folder, 0.25)) == 3


def test_times_in_two_units_are_refused(folder: Path) -> None:
    with (folder / "events.csv").open("a") as file:
        file.write("b,i1,view,1717200000000\n")
    with pytest.raises(LogError, match=r"row 2 \(1\) in seconds, row 5 \(1717200000000\) in milli"):
        read_log(folder)


def test_a_folder_without_a_log_is_told_what_one_needs(tmp_path: Path) -> None:
    with pytest.raises(LogError) as caught:
        read_log(tmp_path)
    for word in ("events.csv", "labels.csv", "MovieLens", "ebbing events export"):
        assert word in str(caught.value)
