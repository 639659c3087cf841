"""The article's three files, and tables of features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ebbing.events import EventType
from trainer.data.features import read_features
from trainer.data.formats import read_raw
from trainer.data.log import LogError, read_log
from trainer.data.raw import FEATURES

USERS = "user_id,age,country\nann,31,NL\nbob,,BE\nzoe,50,NL\n"
ITEMS = (
    "item_id,category,price,brand,weight\ni1,shoes|sport,10,acme,\ni2,hats,30.5,,2\ni3,,7,acme,3\n"
)
LABELS = "user_id,item_id,label\nbob,i2,1\nann,i1,0\nbob,i1,1\nann,i9,1\n"


def write(folder: Path, users: str = USERS, items: str = ITEMS, labels: str = LABELS) -> Path:
    for name, text in (("user_data", users), ("item_data", items), ("labels", labels)):
        (folder / f"{name}.csv").write_text(text)
    return folder


def test_labels_are_events_in_the_order_of_the_file(tmp_path: Path) -> None:
    log = read_log(write(tmp_path))
    assert log.user_ids == ("bob", "ann")
    assert log.item_ids == ("i1", "i2", "i3", "i9")
    assert [log.item_ids[item] for item in log.items] == ["i2", "i1", "i1", "i9"]
    assert log.types.tolist() == [
        EventType.CLICK,
        EventType.CLICK,
        EventType.IMPRESSION,
        EventType.CLICK,
    ]
    assert len(log.engagements()) == 3, "a label of 0 is no engagement"
    raw = read_raw(tmp_path, 0.0, None)
    assert raw.format == "article"
    assert raw.notes == ("labels.csv has no event_time: its rows count as a second apart",)


def test_times_order_where_there_are_any(tmp_path: Path) -> None:
    labels = "event_time,label,item_id,user_id\n1700000000200,1,i1,ann\n1700000000100,1.0,i2,ann\n"
    log = read_log(write(tmp_path, labels=labels))
    assert log.times.tolist() == [1_700_000_000.1, 1_700_000_000.2]
    assert read_raw(tmp_path, 0.0, None).notes == ()


def test_words_are_interests_and_numbers_are_vectors(tmp_path: Path) -> None:
    log = read_log(write(tmp_path))
    third = 1 / 3
    assert log.interests == (
        (("shoes", third), ("sport", third), ("brand/acme", third)),
        (("hats", 1.0),),
        (("brand/acme", 1.0),),
        (),
    )
    nan = np.nan
    np.testing.assert_array_equal(
        log.contents[FEATURES], np.float32([[10, nan], [30.5, 2], [7, 3], [nan, nan]])
    )
    assert log.contents[FEATURES].dtype == np.float32
    # Age, then a flag for each country; of the users who have events.
    np.testing.assert_array_equal(log.profiles, np.float32([[nan, 1, 0], [31, 0, 1]]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": LABELS.replace("i1,0", "i1,2")}, "labels.csv: row 3: label is neither 0 nor 1"),
        ({"labels": LABELS.replace("label", "clicked")}, "row 1: column 'label' is missing"),
        ({"labels": "user_id,item_id,label\n"}, "labels.csv: no events"),
        ({"items": ITEMS + "i1,hats,1,,\n"}, "item_data.csv: row 5: item_id appears twice ('i1')"),
        ({"items": ITEMS.replace("30.5", "cheap")}, "item_data.csv: row 3: price is not a number"),
        ({"users": USERS.replace("user_id", "name")}, "user_data.csv: row 1: column 'user_id'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: dict[str, str], message: str) -> None:
    with pytest.raises(LogError) as caught:
        read_log(write(tmp_path, **change))
    assert message in str(caught.value)


def test_each_file_is_needed(tmp_path: Path) -> None:
    (write(tmp_path) / "item_data.csv").unlink()
    with pytest.raises(LogError, match=r"item_data\.csv\[\.gz\]: missing"):
        read_log(tmp_path)


def test_mixed_types_are_named_or_left_out(tmp_path: Path) -> None:
    rows = "".join(f"i{one},{'n/a' if one == 7 else one}\n" for one in range(20))
    path = tmp_path / "item_data.csv"
    path.write_text("item_id,price\n" + rows)
    with pytest.raises(
        LogError, match=r"row 9: price is not a number \('n/a'\); write a number or"
    ):
        read_features(path, "item_id", 0.0)
    table = read_features(path, "item_id", 0.05)
    assert len(table.ids) == 19
    assert table.skipped[0].bad == 1


def test_kinds_of_columns(tmp_path: Path) -> None:
    rows = "".join(f"i{one},{one % 3},title {one},{'ab'[one % 2]},{one}\n" for one in range(300))
    path = tmp_path / "item_data.csv"
    path.write_text("item_id,shop_id,title,colour,size\n" + rows + "j,,,,\n")
    table = read_features(path, "item_id", 0.0)
    assert list(table.words) == ["shop_id", "colour"], "numbers of an id are names"
    assert list(table.numbers) == ["size"]
    assert table.notes == (
        "item_data.csv: column 'title' left aside: 301 different words in 301 rows",
    )
    assert table.interests()[4] == "shop_id/1|colour/a"
    assert table.interests()[-1] == ""
    assert table.stacked().shape == (301, 1)
    assert table.one_hot().shape == (301, 1 + 3 + 2)
    assert np.isnan(table.one_hot()[-1]).all()
    assert table.one_hot()[4].tolist() == [4, 0, 1, 0, 1, 0]
