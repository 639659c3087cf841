from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trainer import trained
from trainer.data.log import EventLog
from trainer.trained import Trained, marks_of


def make(users: int = 200, seed: int = 1) -> EventLog:
    random = np.random.default_rng(seed)
    n = users * 5
    return EventLog.of(
        [f"{seed}-{n}" for n in range(users)],
        [f"i{n}" for n in range(30)],
        [()] * 30,
        np.repeat(np.arange(users), 5),
        random.integers(30, size=n),
        np.ones(n, np.int32),
        random.integers(1000, size=n) * 86_400.0,
    )


def test_what_was_trained_on_is_known_and_nothing_else() -> None:
    log = make()
    held = log.last_events()
    on = Trained.on(log.without(held))
    assert on.among(log, held) == (0, 200)
    assert on.among(log, held - 1) == (200, 200)
    assert on.among(make(seed=2), held) == (0, 200)


def test_marks_do_not_depend_on_who_else_is_there() -> None:
    log = make()
    early = log.until(400 * 86_400.0)
    assert np.isin(marks_of(early), marks_of(log)).all()


def test_what_happens_twice_in_a_moment_is_two_events() -> None:
    twice = EventLog.of(
        ["u"], ["a"], [()], np.zeros(2, int), np.zeros(2, int), np.ones(2, np.int32), np.zeros(2)
    )
    assert len(set(marks_of(twice).tolist())) == 2
    assert Trained.on(twice.without(np.array([1]))).among(twice, np.array([1])) == (0, 1)


def test_a_large_log_keeps_a_sample_that_tells_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trained, "MOST_MARKS", 100)
    log = make()
    held = log.last_events()
    on = Trained.on(log.without(held))
    assert len(on.marks) == 100
    found, of = on.among(log, held)
    assert (found, 0 < of < 100) == (0, True)
    found, of = on.among(log, np.arange(len(log)))
    assert found == 100
    assert of > found


@pytest.mark.parametrize("most", [100, 2**20])
def test_marks_of_two_trainings_tell_of_both(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trained, "MOST_MARKS", most)
    one, two = make(), make(seed=2)
    held = one.last_events()
    both = Trained.on(one.without(held)).joined(Trained.on(two))
    assert len(both.marks) <= most
    found, of = both.among(one, held)
    assert found == 0
    assert of
    for log, rows in ((one, held - 1), (two, np.arange(len(two)))):
        found, of = both.among(log, rows)
        assert found == of > 0


def test_it_knows_each_event_it_was_trained_on() -> None:
    log = make()
    held = log.last_events()
    known = Trained.on(log.without(held)).knows(log)
    assert not known[held].any()
    assert known.sum() == len(log) - len(held)


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "trained.npy"
    on = Trained.on(make())
    on.write(path)
    again = Trained.read(path)
    assert (again.marks == on.marks).all()
    assert again.all is True
    np.save(path, np.zeros(3))
    with pytest.raises(ValueError, match="not the marks"):
        Trained.read(path)
