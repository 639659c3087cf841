from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from ebbing.events import EventType
from trainer.data.log import EventLog, LogError, parse_interests, read_log

EVENTS = """user_id,item_id,event_type,event_time
b,i1,view,200
a,i2,purchase,100
b,i3,review,100
a,i1,click,100
a,i9,like,300.5
"""
ITEMS = """item_id,interests
i1,sports/football|music
i2,music
i3,
"""


def write(folder: Path, events: str = EVENTS, items: str = ITEMS) -> Path:
    (folder / "events.csv").write_text(events)
    (folder / "items.csv").write_text(items)
    return folder


def test_events_are_grouped_by_user_and_ordered_by_time(tmp_path: Path) -> None:
    log = read_log(write(tmp_path))
    assert log.user_ids == ("b", "a")
    assert log.offsets.tolist() == [0, 2, 5]
    assert log.times.tolist() == [100.0, 200.0, 100.0, 100.0, 300.5]
    assert [log.item_ids[item] for item in log.items] == ["i3", "i1", "i2", "i1", "i9"]
    assert log.types[0] == EventType.RATING


def test_equal_times_keep_the_order_of_the_file(tmp_path: Path) -> None:
    rows = "".join(f"a,i{n},view,5\n" for n in (3, 1, 2))
    log = read_log(write(tmp_path, "user_id,item_id,event_type,event_time\n" + rows))
    assert [log.item_ids[item] for item in log.items] == ["i3", "i1", "i2"]


def test_items_outside_the_catalogue_have_no_interests(tmp_path: Path) -> None:
    log = read_log(write(tmp_path))
    assert log.item_ids == ("i1", "i2", "i3", "i9")
    assert log.interests[0] == (("sports/football", 0.5), ("music", 0.5))
    assert log.interests[2] == log.interests[3] == ()


def test_gzip_and_relations(tmp_path: Path) -> None:
    for name, text in (
        ("events", EVENTS),
        ("items", ITEMS),
        ("relations", "user_id,other_user_id\na,b\na,nobody\n"),
    ):
        (tmp_path / f"{name}.csv.gz").write_bytes(gzip.compress(text.encode()))
    log = read_log(tmp_path)
    assert len(log) == 5
    assert log.relations.tolist() == [[1, 0]]


def test_without_keeps_indexes(tmp_path: Path) -> None:
    log = read_log(write(tmp_path))
    shorter = log.without(log.last_events())
    assert shorter.user_ids == log.user_ids
    assert shorter.item_ids == log.item_ids
    np.testing.assert_array_equal(shorter.offsets, [0, 1, 3])


def test_until_keeps_what_was_known_and_the_indexes(tmp_path: Path) -> None:
    log = read_log(write(tmp_path))
    middle = float(np.median(log.times))
    past = log.until(middle)
    assert (past.user_ids, past.item_ids) == (log.user_ids, log.item_ids)
    np.testing.assert_array_equal(past.times, log.times[log.times <= middle])
    np.testing.assert_array_equal(past.items, log.items[log.times <= middle])
    np.testing.assert_array_equal(np.diff(past.offsets), np.bincount(past.users, minlength=2))
    assert middle in past.times
    assert len(log.until(float(log.times.min()) - 1)) == 0
    assert len(log.until(float(log.times.max()))) == len(log)


def test_what_a_log_says_of_items_and_users_stays_with_it(tmp_path: Path) -> None:
    read = read_log(write(tmp_path))
    assert dict(read.contents) == {}
    assert read.profiles.shape == (2, 0)
    image = np.arange(8, dtype=np.float32).reshape(4, 2)
    ages = np.array([[30], [np.nan]], np.float32)
    log = EventLog.of(
        read.user_ids,
        read.item_ids,
        read.interests,
        read.users,
        read.items,
        read.types,
        read.times,
        contents={"image": image},
        profiles=ages,
    )
    for shorter in (log.without(log.last_events()), log.until(200), log.engagements()):
        np.testing.assert_array_equal(shorter.contents["image"], image)
        np.testing.assert_array_equal(shorter.profiles, ages)


def test_engagements_are_what_shows_interest(tmp_path: Path) -> None:
    seen = EVENTS.replace("a,i1,click", "a,i1,impression").replace("b,i1,view", "b,i1,dislike")
    log = read_log(write(tmp_path, seen))
    assert [log.item_ids[item] for item in log.engagements().items] == ["i3", "i2", "i9"]
    assert len(log) == 5


def test_interests_repeat_once_and_share_equally() -> None:
    assert parse_interests("a/b| a/b |c||") == (("a/b", 0.5), ("c", 0.5))
    assert parse_interests(None) == ()


@pytest.mark.parametrize(
    ("events", "items", "message"),
    [
        ("", ITEMS, "events.csv: the file is empty"),
        (EVENTS.splitlines()[0] + "\n", ITEMS, "events.csv: no events"),
        (EVENTS.replace("event_time", "time"), ITEMS, "row 1: column 'event_time' is missing"),
        (EVENTS.replace("300.5", "noon"), ITEMS, "row 6: event_time is not a number ('noon')"),
        (EVENTS.replace("300.5", "inf"), ITEMS, "row 6: event_time is not a number"),
        (EVENTS.replace("300.5", ""), ITEMS, "row 6: event_time is not a number"),
        (EVENTS.replace("purchase", "stare"), ITEMS, "row 3: unknown event_type ('stare')"),
        (EVENTS.replace("b,i3", ",i3"), ITEMS, "row 4: user_id is empty"),
        (EVENTS, ITEMS + "i1,music\n", "items.csv: row 5: item_id appears twice ('i1')"),
        (EVENTS, "item_id\ni1\n", "items.csv: row 1: column 'interests' is missing"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, events: str, items: str, message: str) -> None:
    with pytest.raises(LogError) as caught:
        read_log(write(tmp_path, events, items))
    assert message in str(caught.value)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="no such folder"):
        read_log(tmp_path / "nowhere")
    with pytest.raises(LogError, match=r"events\.csv\[\.gz\]: missing"):
        read_log(tmp_path)


def test_truncated_gzip_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "events.csv.gz").write_bytes(gzip.compress(EVENTS.encode())[:-20])
    with pytest.raises(LogError, match=r"events\.csv\.gz: cannot be read"):
        read_log(tmp_path)
