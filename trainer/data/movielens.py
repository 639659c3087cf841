"""MovieLens as GroupLens ships it: three layouts of one thing.

| release | ratings | movies |
|---|---|---|
| 100K | `u.data`, tabs | `u.item`, a flag for each genre of `u.genre` |
| 1M, 10M | `ratings.dat`, `::` | `movies.dat` |
| latest, 20M, 25M, 32M | `ratings.csv` | `movies.csv` |

A rating is a RATING event, however many stars it has; genres are interests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ebbing.events import EventType
from trainer.data.memory import check_memory
from trainer.data.plain import SECONDS, raw_events, refuse_twice
from trainer.data.raw import Interests, LogError, Names, RawLog, Skipped, parse_interests
from trainer.data.rows import CSV, Layout, identifier, number, read_rows, words
from trainer.data.times import in_seconds

NO_GENRE = ("(no genres listed)", "unknown")
_RATINGS = ("user", "movie", "rating", "timestamp")
_U_ITEM_FIELDS = 5
"""Fields of u.item before the flags."""

Movies = Callable[[Path, float], tuple[dict[str, Interests], tuple[Skipped, ...]]]


@dataclass(frozen=True)
class Release:
    """How a release is laid out."""

    ratings: str
    movies: str
    layout: Layout
    columns: tuple[str, str, str, str]
    """Of user, movie, rating and time in the ratings."""
    read_movies: Movies


def release_of(folder: Path) -> Release | None:
    """The release whose ratings lie in a folder; None where there are none."""
    for release in _RELEASES:
        if _there(folder, release.ratings):
            return release
    return None


def read_movielens(folder: Path, max_bad: float, available: int | None) -> RawLog:
    """Read a MovieLens folder; see `read_rows` and `check_memory`.

    Raises:
        LogError: there is none, a file is missing, or a row does not read.
    """
    release = release_of(folder)
    ratings = release and _there(folder, release.ratings)
    if not release or not ratings:
        raise LogError(f"{folder}: no ratings of MovieLens")
    movies = _there(folder, release.movies)
    if not movies:
        raise LogError(f"{folder / release.movies}: missing; {release.ratings} needs it beside it")
    check_memory(ratings, available)
    user, movie, rating, moment = release.columns
    users, items = Names(), Names()
    rows = read_rows(
        ratings,
        (
            identifier(user, users),
            identifier(movie, items),
            number(rating, "write the stars given"),
            number(moment, SECONDS),
        ),
        release.layout,
        max_bad,
    )
    types = np.full(len(rows.table), EventType.RATING, np.int32)
    events = raw_events(rows, (users, user), (items, movie), types, in_seconds(rows, moment))
    catalogue, skipped = release.read_movies(movies, max_bad)
    return RawLog("movielens", events, catalogue, skipped=(*rows.skipped, *skipped))


def _joined_genres(layout: Layout, movie: str, genres: str) -> Movies:
    """A reader of movies whose genres stand joined by `|` in one column."""

    def read(path: Path, max_bad: float) -> tuple[dict[str, Interests], tuple[Skipped, ...]]:
        rows = read_rows(path, (identifier(movie), words(genres)), layout, max_bad)
        refuse_twice(rows, movie)
        ids, texts = rows.table[movie].to_list(), rows.table[genres].to_list()
        return {
            one: () if text in NO_GENRE else parse_interests(text)
            for one, text in zip(ids, texts, strict=True)
        }, rows.skipped

    return read


def _flagged_genres(path: Path, max_bad: float) -> tuple[dict[str, Interests], tuple[Skipped, ...]]:
    """u.item: a flag for each genre, in the order of u.genre."""
    named = path.with_name("u.genre")
    if not named.is_file():
        raise LogError(f"{named}: missing; {path.name} needs it for the names of the genres")
    genre = Layout("|", ("genre", "number"), quoted=False)
    names = read_rows(named, (identifier("genre"),), genre).table["genre"].to_list()
    about = [f"about {place}" for place in range(_U_ITEM_FIELDS)]
    layout = Layout("|", (*about, *names), quoted=False, encoding_errors="replace")
    fields = (
        identifier(about[0]),
        *(number(name, "write 0 or 1") for name in names),
    )
    rows = read_rows(path, fields, layout, max_bad)
    refuse_twice(rows, about[0])
    flags = rows.table.select(names).to_numpy() > 0
    real = [name for name in names if name not in NO_GENRE]
    shown = flags[:, [names.index(name) for name in real]]
    catalogue = {
        item: parse_interests("|".join(name for name, on in zip(real, row, strict=True) if on))
        for item, row in zip(rows.table[about[0]].to_list(), shown.tolist(), strict=True)
    }
    return catalogue, rows.skipped


def _there(folder: Path, name: str) -> Path | None:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    return None


_COLONS = Layout("::", _RATINGS, quoted=False)
_TITLED = Layout("::", ("movie", "title", "genres"), quoted=False, encoding_errors="replace")
_RELEASES = (
    Release(
        "ratings.csv",
        "movies.csv",
        CSV,
        ("userId", "movieId", "rating", "timestamp"),
        _joined_genres(CSV, "movieId", "genres"),
    ),
    Release(
        "ratings.dat", "movies.dat", _COLONS, _RATINGS, _joined_genres(_TITLED, "movie", "genres")
    ),
    Release(
        "u.data",
        "u.item",
        Layout("\t", _RATINGS, quoted=False),
        _RATINGS,
        _flagged_genres,
    ),
)
