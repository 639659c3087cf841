from __future__ import annotations

from pathlib import Path

import pytest

from trainer.outputs import OutputError, check_folder, check_writable, write_all


def test_all_files_are_written_and_nothing_beside_them(tmp_path: Path) -> None:
    first, second = tmp_path / "a.json", tmp_path / "b.csv"
    first.write_bytes(b"old")
    write_all({first: b"new", second: b"rows"})
    assert (first.read_bytes(), second.read_bytes()) == (b"new", b"rows")
    assert sorted(tmp_path.iterdir()) == [first, second]


def test_one_that_fails_leaves_all_as_they_were(tmp_path: Path) -> None:
    first = tmp_path / "a.json"
    first.write_bytes(b"old")
    with pytest.raises(OutputError, match=r"gone.*cannot be written"):
        write_all({first: b"new", tmp_path / "gone" / "b.csv": b"rows"})
    assert first.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [first]


def test_what_cannot_be_written_is_known_beforehand(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is a folder; name a file"):
        check_writable(tmp_path)
    with pytest.raises(OutputError, match=r"no such folder as .*missing; make it first"):
        check_writable(tmp_path / "missing" / "a.json")
    with pytest.raises(OutputError, match="is a file; name a folder"):
        check_folder(tmp_path / "file" / "report")
    check_writable(tmp_path / "a.json")
    check_folder(tmp_path / "new" / "report")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_closed_folder_is_known_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whoever runs the tests may be allowed everything, so the system's answer is made up.
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(OutputError, match="cannot be written to; choose another place"):
        check_writable(tmp_path / "a.json")
    with pytest.raises(OutputError, match="cannot be written to; choose another place"):
        check_folder(tmp_path / "report")
