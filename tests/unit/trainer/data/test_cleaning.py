from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.cleaning import CleaningConfig, clean, filled, outlying
from trainer.data.load import DataConfig, data_page, load_log
from trainer.data.log import EventLog, LogError, read_log
from trainer.data.raw import FEATURES

NAN = np.nan
Row = tuple[int, int, int, float]


def log_of(rows: list[Row], users: int = 4, items: int = 4) -> EventLog:
    columns = np.array(rows, float).reshape(-1, 4)
    return EventLog.of(
        [f"u{one}" for one in range(users)],
        [f"i{one}" for one in range(items)],
        [((f"x{one}", 1.0),) for one in range(items)],
        columns[:, 0].astype(int),
        columns[:, 1].astype(int),
        columns[:, 2].astype(int),
        columns[:, 3],
        np.array([[0, 1], [1, 2]]),
        strengths=np.array([2.0, 3.0]),
    )


def rows_of(log: EventLog) -> list[tuple[str, str, int, float]]:
    return [
        (log.user_ids[user], log.item_ids[item], int(kind), float(time))
        for user, item, kind, time in zip(log.users, log.items, log.types, log.times, strict=True)
    ]


EVENTS: list[Row] = [(0, 0, 1, 10), (0, 0, 1, 10), (0, 0, 2, 10), (0, 0, 1, 15), (1, 0, 1, 10)]


def test_nothing_is_taken_away_unless_asked(tmp_path: Path) -> None:
    log = log_of(EVENTS)
    same, steps = clean(log, CleaningConfig())
    assert same is not None
    assert rows_of(same) == rows_of(log)
    assert steps == ()


def test_duplicates_are_equal_in_everything() -> None:
    log, (step,) = clean(log_of(EVENTS), CleaningConfig(duplicates=True))
    assert [row[2:] for row in rows_of(log)] == [(1, 10), (2, 10), (1, 15), (1, 10)]
    assert (step.name, step.changed, step.of, step.unit) == ("duplicates", 1, 5, "events")


def test_of_a_burst_the_first_stays() -> None:
    burst: list[Row] = [(0, 0, 1, t) for t in (0, 4, 8, 20)] + [(0, 1, 1, 4), (1, 0, 1, 4)]
    log, (step,) = clean(log_of(burst), CleaningConfig(near_duplicates=5))
    assert rows_of(log) == [
        ("u0", "i0", 1, 0),
        ("u0", "i1", 1, 4),
        ("u0", "i0", 1, 20),
        ("u1", "i0", 1, 4),
    ]
    assert step.changed == 2


def test_impossible_times_go_and_users_who_had_no_others() -> None:
    log, steps = clean(
        log_of([(0, 0, 1, -5), (1, 0, 1, 50), (1, 1, 1, 9e9), (2, 0, 1, 50)]),
        CleaningConfig(earliest=0, latest=1e9),
    )
    assert rows_of(log) == [("u1", "i0", 1, 50), ("u2", "i0", 1, 50)]
    assert log.user_ids == ("u1", "u2", "u3"), "u3 had none before either"
    assert [(step.name, step.changed) for step in steps] == [("impossible times", 1)] * 2
    assert log.relations.tolist() == [[0, 1]]
    assert log.strengths.tolist() == [3.0]


def test_users_of_inhuman_rates_go() -> None:
    rows: list[Row] = [(0, 0, 1, 3600 * one / 3) for one in range(9)]  # exactly 3 within any hour
    rows += [(1, 0, 1, 1e6 + one) for one in range(4)]
    log, (step,) = clean(log_of(rows), CleaningConfig(hourly_rate=3))
    assert set(log.user_ids) == {"u0", "u2", "u3"}
    assert len(log) == 9
    assert (step.name, step.changed, step.unit) == ("inhuman rates", 1, "users")
    whole, (step,) = clean(log_of(rows), CleaningConfig(hourly_rate=20))
    assert (len(whole), step.changed) == (13, 0)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=40),
    st.integers(0, 4),
    st.integers(0, 4),
)
def test_what_is_left_has_enough_events(
    pairs: list[tuple[int, int]], user_events: int, item_events: int
) -> None:
    log = log_of([(u, i, 1, n) for n, (u, i) in enumerate(pairs)], 6, 6)
    config = CleaningConfig(user_events=user_events, item_events=item_events)
    try:
        left, _ = clean(log, config)
    except LogError:
        return
    if user_events or item_events:
        assert (np.bincount(left.users, minlength=len(left.user_ids)) >= max(user_events, 1)).all()
        assert (np.bincount(left.items, minlength=len(left.item_ids)) >= item_events).all()
    again, _ = clean(left, config)
    assert rows_of(again) == rows_of(left)
    about = dict(zip(log.item_ids, log.interests, strict=True))
    assert dict(zip(left.item_ids, left.interests, strict=True)).items() <= about.items()


@pytest.mark.parametrize("fence", ["iqr", "mad"])
def test_outliers_are_far_from_the_rest(fence: str) -> None:
    column = np.float32([*range(20), 500, NAN, -300])
    found = outlying(column, fence, 3.0)
    assert np.flatnonzero(found).tolist() == [20, 22]
    assert not outlying(np.float32([0, 0, 0, 0, 0, 0, 1, NAN]), fence, 3.0).any(), "flags"
    assert not outlying(np.float32([7, 7, 7, 7, 9]), fence, 3.0).any(), "no spread to go by"
    assert not outlying(np.float32([NAN, NAN]), fence, 3.0).any()


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("mean", [4, 1, 4, 4, 7, 4]),
        ("median", [4, 1, 4, 4, 7, 4]),
        ("linear", [1, 1, 3, 5, 7, 7]),
    ],
)
def test_missing_numbers_are_filled_in(how: str, expected: list[float]) -> None:
    column = np.float32([NAN, 1, NAN, NAN, 7, NAN])
    np.testing.assert_allclose(filled(column, how), expected)
    assert filled(np.float32([NAN, NAN]), how).tolist() == [0, 0]
    skewed = np.float32([1, 1, 10, NAN])
    assert filled(skewed, "mean")[-1] == 4
    assert filled(skewed, "median")[-1] == 1


def test_features_are_cleaned_and_other_vectors_are_not() -> None:
    table = np.float32([[1, 5], [2, NAN], [3, 5], [900, 5]])
    image = np.float32([[1], [1], [9999], [NAN]])
    ages = np.float32([[20], [NAN], [40], [30]])
    log = replace(log_of(EVENTS), contents={FEATURES: table, "image": image}, profiles=ages)
    after, steps = clean(log, CleaningConfig(outliers="mad", missing="median"))
    np.testing.assert_array_equal(after.contents[FEATURES], [[1, 5], [2, 5], [3, 5], [2, 5]])
    np.testing.assert_array_equal(after.contents["image"], image)
    np.testing.assert_array_equal(after.profiles, [[20], [30], [40], [30]])
    assert [(step.name, step.changed, step.of) for step in steps] == [
        ("outliers", 1, 12),
        ("missing values", 3, 12),
    ]
    kept, steps = clean(log, CleaningConfig(missing="none"))
    np.testing.assert_array_equal(kept.contents[FEATURES], table)
    assert steps == ()


def test_a_log_cleaned_away_is_refused() -> None:
    with pytest.raises(LogError, match="cleaning left no event: few events"):
        clean(log_of(EVENTS), CleaningConfig(user_events=100))


def test_steps_are_chosen_by_words() -> None:
    chosen = CleaningConfig.parse(
        ["duplicates", "near-duplicates=2.5", "item-events", "outliers=mad", "latest=2e9"]
    )
    assert chosen == CleaningConfig(
        duplicates=True, near_duplicates=2.5, item_events=5, outliers="mad", latest=2e9
    )
    assert CleaningConfig.parse([]) == CleaningConfig()
    for wrong, message in (
        ("polish", "no step 'polish' of cleaning: use one of duplicates, near-duplicates"),
        ("latest", "latest needs a value"),
        ("duplicates=maybe", "say yes or no"),
        ("user-events=few", "'few' is not a number"),
        ("outliers=all", "use one of none, iqr, mad"),
        ("missing=guess", "use one of none, mean, median, linear"),
        ("reach=0", "give a number above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            CleaningConfig.parse([wrong])


def test_what_was_done_is_told(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text(
        "user_id,item_id,event_type,event_time\n"
        "a,i1,view,1\na,i1,view,1\nb,i2,view,2\n<html>\na,i3,view,3\n"
    )
    (tmp_path / "items.csv").write_text("item_id,interests\ni1,x\ni2,y\ni7,z\n")
    config = DataConfig(0.2, CleaningConfig(duplicates=True))
    log, report = load_log(tmp_path, config)
    assert len(log) == 3
    told = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert told["format"] == "plain"
    assert told["read"] == {
        "events": 4,
        "users": 2,
        "items": 4,
        "events_without_interest": 0,
        "items_without_events": 1,
        "items_outside_the_catalogue": 1,
    }
    assert told["skipped"][0]["bad"] == 1
    assert told["steps"][0]["changed"] == 1
    page = "\n".join(data_page(told))
    assert "| duplicates | equal in user, item, type and time | 1 of 4 events |" in page
    assert "| rows of events.csv that do not read |" in page
    as_told = json.loads(json.dumps(asdict(config), allow_nan=False))
    assert DataConfig.from_json(as_told) == config
    plain, _ = load_log(tmp_path, DataConfig(0.2))
    assert rows_of(plain) == rows_of(read_log(tmp_path, 0.2))
    with pytest.raises(LogError, match="cleaning left no event"):
        load_log(tmp_path, DataConfig(0.2, CleaningConfig(user_events=9)))
    for name in ("user_data", "item_data"):
        (tmp_path / f"{name}.csv").write_text(f"{name[:4]}_id\n")
    (tmp_path / "events.csv").unlink()
    (tmp_path / "labels.csv").write_text("user_id,item_id,label\na,i,0\nb,i,0\n")
    with pytest.raises(LogError, match="none of its 2 events shows interest"):
        load_log(tmp_path, DataConfig())
    with pytest.raises(ValueError, match="a share of bad rows"):
        DataConfig(10)
