"""A simulated log in the other formats that are read, as examples of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from trainer.data.log import EventLog
from trainer.data.simulate import Simulation, write_csv

_COUNTRIES = ("BE", "DE", "FR", "NL")


def write_article(simulation: Simulation, folder: Path) -> None:
    """Write the three files; for each item taken, one is passed over.

    Made beside the log are a user's age and country, and an item's price and length, some of them
    left blank.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = simulation.log
    random = np.random.default_rng(simulation.config.seed)
    users, items = len(log.user_ids), len(log.item_ids)
    ages = _some_blank([str(age) for age in random.integers(18, 80, users)], random)
    write_csv(
        folder / "user_data.csv",
        ("user_id", "age", "country"),
        list(zip(log.user_ids, ages, random.choice(_COUNTRIES, users).tolist(), strict=True)),
    )
    prices = _some_blank([f"{price:.2f}" for price in random.lognormal(2.5, 0.8, items)], random)
    lengths = random.integers(1, 90, items).astype(str).tolist()
    write_csv(
        folder / "item_data.csv",
        ("item_id", "category", "price", "length"),
        list(zip(log.item_ids, _joined(log), prices, lengths, strict=True)),
    )
    rows = []
    for event in np.argsort(log.times, kind="stable").tolist():
        user, moment = log.user_ids[log.users[event]], f"{log.times[event]:.0f}"
        rows.append((user, log.item_ids[int(random.integers(items))], "0", moment))
        rows.append((user, log.item_ids[log.items[event]], "1", moment))
    write_csv(folder / "labels.csv", ("user_id", "item_id", "label", "event_time"), rows)


def write_movielens(simulation: Simulation, folder: Path) -> None:
    """Write `ratings.csv` and `movies.csv` as MovieLens has them, users and movies by number."""
    folder.mkdir(parents=True, exist_ok=True)
    log = simulation.log
    random = np.random.default_rng(simulation.config.seed)
    stars = random.integers(4, 11, len(log)) / 2
    write_csv(
        folder / "ratings.csv",
        ("userId", "movieId", "rating", "timestamp"),
        [
            (
                str(log.users[event] + 1),
                str(log.items[event] + 1),
                f"{stars[event]:.1f}",
                f"{log.times[event]:.0f}",
            )
            for event in range(len(log))
        ],
    )
    write_csv(
        folder / "movies.csv",
        ("movieId", "title", "genres"),
        [
            (str(number), item, genres or "(no genres listed)")
            for number, (item, genres) in enumerate(zip(log.item_ids, _joined(log), strict=True), 1)
        ],
    )


WRITERS: Mapping[str, Callable[[Simulation, Path], None]] = {
    "plain": Simulation.write,
    "article": write_article,
    "movielens": write_movielens,
}
"""Format → what writes it."""


def _joined(log: EventLog) -> list[str]:
    return ["|".join(path for path, _ in interests) for interests in log.interests]


def _some_blank(texts: list[str], random: np.random.Generator) -> list[str]:
    return [
        "" if blank else text
        for text, blank in zip(texts, random.random(len(texts)) < 0.05, strict=True)
    ]
