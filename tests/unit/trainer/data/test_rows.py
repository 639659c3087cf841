"""Rows that read and rows that do not, at once and one by one."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data import rows
from trainer.data.raw import LogError, Names
from trainer.data.rows import CSV, Layout, identifier, number, read_rows, words

FIELDS = (identifier("id"), number("size", "write a number"), words("note"))
SOUND = b"id,size,note\na,1,x\nb,2.5,\n"


def write(folder: Path, content: bytes, name: str = "some.csv") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def test_a_sound_file_reads_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_one_by_one", lambda *_: pytest.fail("gone through again"))
    read = read_rows(write(tmp_path, SOUND), FIELDS)
    assert read.table.rows() == [("a", 1.0, "x"), ("b", 2.5, None)]
    assert read.line(1) == 3
    assert read.skipped == ()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (SOUND.replace(b"\n", b"\r\n"), [("a", 1.0, "x"), ("b", 2.5, None)]),
        (b"\xef\xbb\xbf" + SOUND, [("a", 1.0, "x"), ("b", 2.5, None)]),
        (SOUND + b"\n\nc,3,y\n\n", [("a", 1.0, "x"), ("b", 2.5, None), ("c", 3.0, "y")]),
        (b'note,size,id\n"x, or y",1,"a ""b"""\n', [('a "b"', 1.0, "x, or y")]),
        ("id,size,note\né,1,ß\n".encode(), [("é", 1.0, "ß")]),
        (b"id,size,note\n", []),
        (b"note,id,size\n,a,1\n", [("a", 1.0, None)]),
        (b"id,size,note\na,1\nb,2,y\n", [("a", 1.0, None), ("b", 2.0, "y")]),
        (b"id,size,note\na,1\n\nb,2,y\n", [("a", 1.0, None), ("b", 2.0, "y")]),
    ],
)
def test_files_as_programs_write_them(
    tmp_path: Path, content: bytes, expected: list[tuple[object, ...]]
) -> None:
    assert read_rows(write(tmp_path, content), FIELDS).table.rows() == expected
    packed = write(tmp_path, gzip.compress(content), "packed.csv.gz")
    assert read_rows(packed, FIELDS).table.rows() == expected


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"c", "row 3: the row has 1 fields instead of 3; write it anew"),
        (b"c,3,y,z", "row 3: the row has 4 fields instead of 3"),
        (b"c,\xff,y", "row 3: the row is not UTF-8"),
        (b'c,3,"y', "row 3: the row has a quote out of place"),
        (b'"c,3,y', "row 3: the row has a quote out of place"),
        (b",3,y", "row 3: id is empty"),
        (b"c,three,y", "row 3: size is not a number ('three'); write a number"),
        (b"c,nan,y", "row 3: size is not a number ('nan')"),
        (b"c,1e999,y", "row 3: size is not a number"),
        (b"\x00\x01\x02", "row 3: the row has 1 fields instead of 3"),
    ],
)
def test_a_row_that_does_not_read_is_named_or_left_out(
    tmp_path: Path, row: bytes, reason: str
) -> None:
    path = write(tmp_path, SOUND.replace(b"\nb", b"\n" + row + b"\nb"))
    with pytest.raises(LogError) as caught:
        read_rows(path, FIELDS)
    assert reason in str(caught.value)
    assert "1 of 3 rows (33.3%)" in str(caught.value)
    assert "--max-bad-rows 0.334" in str(caught.value)
    read = read_rows(path, FIELDS, max_bad=0.334)
    assert read.table.rows() == [("a", 1.0, "x"), ("b", 2.5, None)]
    assert (read.line(0), read.line(1)) == (2, 4)
    (skipped,) = read.skipped
    assert (skipped.file, skipped.rows, skipped.bad) == ("some.csv", 3, 1)
    assert sum(skipped.reasons.values()) == 1


def test_rows_that_quotes_run_together_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, b'id,size,note\na,1,"x\nb,2,y\nc,3,z"\nd,4,\n')
    with pytest.raises(LogError, match=r"row 2: the row has a quote out of place.*1 of 4 rows"):
        read_rows(path, FIELDS)
    read = read_rows(path, FIELDS, max_bad=0.25)
    assert read.table.rows() == [("b", 2.0, "y"), ("c", 3.0, 'z"'), ("d", 4.0, None)]


def test_a_tenth_of_garbage_is_refused_with_its_share_or_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "CHUNK_ROWS", 64)
    random = np.random.default_rng(3)
    lines, sound = ["id,size,note"], []
    for place in range(1000):
        if place % 10 == 7:
            lines.append(str(random.choice(['%%"', "a,b", "x,y,z", "<html>", '"never,closed'])))
        else:
            lines.append(f"u{place},{place},")
            sound.append(f"u{place}")
    path = write(tmp_path, "\n".join(lines).encode())
    with pytest.raises(LogError, match=r"100 of 1,000 rows \(10\.0%\).*also rows 19, 29") as caught:
        read_rows(path, FIELDS, max_bad=0.05)
    assert str(caught.value).startswith(f"{path}: row 9: ")
    assert "--max-bad-rows 0.1" in str(caught.value)
    read = read_rows(path, FIELDS, max_bad=0.1)
    assert read.table["id"].to_list() == sound
    assert read.skipped[0].bad == 100
    assert [read.line(row) for row in (0, 6, 7)] == [2, 8, 10]


@given(st.lists(st.tuples(st.text("ab,\"' é", min_size=1), st.integers(0, 9)), max_size=8))
def test_one_by_one_reads_what_at_once_reads(
    tmp_path_factory: pytest.TempPathFactory, given: list[tuple[str, int]]
) -> None:
    quoted = [(one.replace('"', '""'), size) for one, size in given]
    text = "id,size,note\n" + "".join(f'"{one}",{size},\n' for one, size in quoted)
    path = write(tmp_path_factory.mktemp("rows"), text.encode())
    quickly = read_rows(path, FIELDS)
    slowly = rows._one_by_one(path, FIELDS, ("id", "size", "note"), CSV, 0.0)
    assert quickly.table.rows() == slowly.table.rows()
    assert [row[0] for row in quickly.table.rows()] == [one for one, _ in given]


def test_columns_without_a_header_and_separators_of_two_signs(tmp_path: Path) -> None:
    layout = Layout("::", ("id", "note", "size"), quoted=False)
    path = write(tmp_path, b"a::x::1\nb::::2\n", "some.dat")
    assert read_rows(path, FIELDS, layout).table.rows() == [("a", 1.0, "x"), ("b", 2.0, None)]
    path = write(tmp_path, b'a::half: "one::1\nb::x::two\n', "some.dat")
    with pytest.raises(LogError, match=r"row 2: size is not a number \('two'\)"):
        read_rows(path, FIELDS, layout)
    assert read_rows(path, FIELDS, layout, 0.5).table.rows() == [("a", 1.0, 'half: "one')]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "some.csv: the file is empty; it needs the header id,size,note"),
        (b"id,note\na,b\n", "row 1: column 'size' is missing; the header must hold id,size,note"),
        (b'"id,size\n', "row 1: the row has a quote out of place"),
    ],
)
def test_headers(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(LogError) as caught:
        read_rows(write(tmp_path, content), FIELDS)
    assert message in str(caught.value)


def test_ids_are_numbered_by_first_appearance(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    ids = [f"u{one}" for one in random.integers(500, size=20_000)]
    path = write(tmp_path, ("id\n" + "\n".join(ids)).encode())
    names = Names()
    known, numbers = names.encode(read_rows(path, [identifier("id", names)]).table["id"])
    assert known == list(dict.fromkeys(ids))
    assert [known[number] for number in numbers] == ids


def test_numbers_of_no_column_are_none() -> None:
    names = Names()
    known, numbers = names.encode(pl.Series([], dtype=names.dtype))
    assert (known, len(numbers)) == ([], 0)
