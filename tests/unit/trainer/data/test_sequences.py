from __future__ import annotations

import numpy as np

from trainer.data.log import EventLog
from trainer.data.sequences import Sequences


def make(lengths: list[int], length: int = 50) -> Sequences:
    users = np.repeat(np.arange(len(lengths)), lengths)
    n = len(users)
    log = EventLog.of(
        [str(u) for u in range(len(lengths))],
        [str(i) for i in range(n)],
        [()] * n,
        users,
        np.arange(n),
        np.ones(n, np.int32),
        np.arange(n) * 10.0,
    )
    return Sequences(log, np.arange(n) + 2, length)


def test_a_batch_is_shifted_by_one_and_padded_on_the_right() -> None:
    batch = make([3, 1]).batch(np.array([0, 1]))
    assert batch.targets.tolist() == [[2, 3, 4], [5, 0, 0]]
    assert batch.rows.tolist() == [[0, 2, 3], [0, 0, 0]]
    assert batch.types.tolist() == [[0, 1, 1], [0, 0, 0]]
    assert batch.times.tolist() == [[0, 0, 10, 20], [0, 0, 0, 0]]


def test_long_sequences_keep_the_newest_events() -> None:
    sequences = make([6], length=4)
    assert len(sequences) == 4
    assert sequences.batch(np.array([0])).targets.tolist() == [[4, 5, 6, 7]]


def test_batches_hold_every_user_once_within_the_size() -> None:
    lengths = [1, 9, 3, 0, 30, 2, 2, 8, 50, 1]
    seen: list[int] = []
    sequences = make(lengths)
    for users in sequences.plan(32, np.random.default_rng(0)):
        batch = sequences.batch(users)
        assert batch.targets.size <= 32 or len(batch.users) == 1
        seen += batch.users.tolist()
    assert sorted(seen) == [u for u, n in enumerate(lengths) if n]
