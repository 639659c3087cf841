"""MovieLens in the three layouts it is shipped in."""

from __future__ import annotations

from pathlib import Path

import pytest

from ebbing.events import EventType
from trainer.data.formats import read_raw
from trainer.data.log import EventLog, LogError, read_log

GENRES = ("unknown", "Action", "Children's", "Film-Noir")
FLAGS = {"1": "0|1|1|0", "2": "1|0|0|0", "3": "0|0|0|1"}
RATED = ((5, 2, 3, 978300760), (4, 1, 5, 978300761), (5, 3, 1, 978300755), (4, 9, 2, 978300770))


def hundred_thousand(folder: Path) -> None:
    (folder / "u.data").write_text("".join("\t".join(map(str, row)) + "\n" for row in RATED))
    movies = "".join(f"{one}|Le Café: part {one}|01-Jan-1995||url|{FLAGS[one]}\n" for one in FLAGS)
    (folder / "u.item").write_bytes(movies.encode("latin-1"))
    (folder / "u.genre").write_text("".join(f"{g}|{n}\n" for n, g in enumerate(GENRES)) + "\n")


def million(folder: Path) -> None:
    (folder / "ratings.dat").write_text("".join("::".join(map(str, row)) + "\n" for row in RATED))
    named = {"1": "Action|Children's", "2": "(no genres listed)", "3": "Film-Noir"}
    movies = "".join(f'{one}::Café: "{one}" (1995)::{named[one]}\n' for one in named)
    (folder / "movies.dat").write_bytes(movies.encode("latin-1"))


def latest(folder: Path) -> None:
    rows = "".join(",".join(map(str, row)) + "\n" for row in RATED)
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + rows)
    (folder / "movies.csv").write_text(
        'movieId,title,genres\n1,"Café, The (1995)",Action|Children\'s\n'
        "2,Two (1995),(no genres listed)\n3,Three,Film-Noir\n",
    )


LAYOUTS = pytest.mark.parametrize("write", [hundred_thousand, million, latest])


@LAYOUTS
def test_ratings_and_genres_are_read(tmp_path: Path, write: object) -> None:
    write(tmp_path)
    log: EventLog = read_log(tmp_path)
    assert log.user_ids == ("5", "4")
    assert log.item_ids == ("1", "2", "3", "9")
    assert [log.item_ids[item] for item in log.items] == ["3", "2", "1", "9"]
    assert log.times.tolist() == [978300755.0, 978300760.0, 978300761.0, 978300770.0]
    assert set(log.types.tolist()) == {EventType.RATING}
    assert log.interests == (
        (("Action", 0.5), ("Children's", 0.5)),
        (),
        (("Film-Noir", 1.0),),
        (),
    )
    assert read_raw(tmp_path, 0.0, None).format == "movielens"


@LAYOUTS
def test_a_broken_row_is_named(tmp_path: Path, write: object) -> None:
    write(tmp_path)
    ratings = next(path for path in tmp_path.iterdir() if path.name in RATINGS)
    lines = ratings.read_text().splitlines()
    place = len(lines) - 2
    lines[place] = lines[place].replace("978300755", "yesterday")
    ratings.write_text("\n".join(lines))
    with pytest.raises(LogError, match=rf"{ratings.name}: row {place + 1}: timestamp is not a num"):
        read_log(tmp_path)
    assert len(read_log(tmp_path, max_bad=0.25)) == 3


RATINGS = {"u.data": "u.item", "ratings.dat": "movies.dat", "ratings.csv": "movies.csv"}


@LAYOUTS
def test_missing_movies_are_named(tmp_path: Path, write: object) -> None:
    write(tmp_path)
    for ratings, movies in RATINGS.items():
        if (tmp_path / ratings).exists():
            (tmp_path / movies).unlink()
            with pytest.raises(LogError, match=rf"{movies}: missing; {ratings} needs it"):
                read_log(tmp_path)


def test_genres_need_their_names(tmp_path: Path) -> None:
    hundred_thousand(tmp_path)
    (tmp_path / "u.genre").unlink()
    with pytest.raises(LogError, match=r"u\.genre: missing"):
        read_log(tmp_path)
