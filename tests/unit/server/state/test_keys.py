"""Key files: made once, given newer keys, and refused with the reason and without their keys."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest

from server.state.keys import Key, KeyFileError, add_key, new_key_file, read_keys

SECRET = bytes(range(32))
TEXT = base64.b64encode(SECRET).decode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "master.key"


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_new_file_is_its_owners_alone_and_holds_one_key(path: Path) -> None:
    new_key_file(path, SECRET)
    assert read_keys(path) == (Key(1, SECRET),)
    assert path.read_text() == f"v1 {TEXT}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_is_there_stays_as_it_is(path: Path) -> None:
    write(path, "v1 mine\n")
    with pytest.raises(KeyFileError, match="stays as it is"):
        new_key_file(path, SECRET)
    assert path.read_text() == "v1 mine\n"


def test_newer_keys_go_on_top(path: Path) -> None:
    new_key_file(path, SECRET)
    assert add_key(path, bytes(32)) == Key(2, bytes(32))
    assert read_keys(path) == (Key(2, bytes(32)), Key(1, SECRET))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_an_interrupted_addition_is_told_and_loses_nothing(path: Path) -> None:
    new_key_file(path, SECRET)
    write(path.with_name("master.key.new"), "v2 ha")
    with pytest.raises(KeyFileError, match=r"master\.key\.new is there"):
        add_key(path, bytes(32))
    assert read_keys(path) == (Key(1, SECRET),)


def test_comments_and_empty_lines_are_skipped(path: Path) -> None:
    write(path, f"# made in May\n\nv12 \t {TEXT}  \n  \nv3 {TEXT}")
    assert [key.version for key in read_keys(path)] == [12, 3]


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440])
def test_modes_that_keep_others_out(path: Path, mode: int) -> None:
    assert read_keys(write(path, f"v1 {TEXT}", mode)) == (Key(1, SECRET),)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o601, 0o660, 0o666])
def test_a_file_that_others_could_read_or_change(path: Path, mode: int) -> None:
    with pytest.raises(KeyFileError, match=f"chmod 600 {path}"):
        read_keys(write(path, f"v1 {TEXT}", mode))


@pytest.mark.parametrize(
    "line",
    [
        TEXT,
        f"1 {TEXT}",
        f"v0 {TEXT}",
        f"v-1 {TEXT}",
        f"v01 {TEXT}",
        f"v2147483648 {TEXT}",
        f"v99999999999 {TEXT}",
        f"v1{TEXT}",
        f"v1 {TEXT} {TEXT}",
        f"v1 {TEXT[:-1]}",
        f"v1 {TEXT[:40]}",
        f"v1 !{TEXT}",
        f"v1 {TEXT}{TEXT}",
        f"v1 {SECRET.hex()}",
        "v1",
    ],
)
def test_a_line_that_is_no_key_is_numbered_and_not_shown(path: Path, line: str) -> None:
    write(path, f"v9 {TEXT}\n{line}\n")
    with pytest.raises(KeyFileError, match="line 2: is no key") as error:
        read_keys(path)
    assert TEXT[:8] not in str(error.value)
    assert error.value.__cause__ is None


def test_the_order_is_that_of_the_file(path: Path) -> None:
    write(path, f"v1 {TEXT}\nv3 {TEXT}\nv2 {TEXT}\n")
    assert [key.version for key in read_keys(path)] == [1, 3, 2]
    assert add_key(path, SECRET).version == 4


@pytest.mark.parametrize("versions", ["11", "313"])
def test_versions_that_are_there_twice(path: Path, versions: str) -> None:
    write(path, "".join(f"v{version} {TEXT}\n" for version in versions))
    with pytest.raises(KeyFileError, match="give each its own"):
        read_keys(path)


@pytest.mark.parametrize("content", ["", "\n\n", "# none\n"])
def test_a_file_without_a_key(path: Path, content: str) -> None:
    with pytest.raises(KeyFileError, match="holds no key"):
        read_keys(write(path, content))


def test_a_file_that_is_not_there_is_named_with_its_remedy(path: Path) -> None:
    with pytest.raises(KeyFileError, match=f"ebbing keys new --out {path}"):
        read_keys(path)
    with pytest.raises(KeyFileError, match="check its folder"):
        new_key_file(path.parent / "missing" / "master.key", SECRET)


def test_what_is_no_text_or_no_file(path: Path) -> None:
    with pytest.raises(KeyFileError, match="cannot be read"):
        read_keys(path.parent)
    path.write_bytes(b"\xff\xfe" * 40)
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match="is no key file"):
        read_keys(path)


def test_there_is_a_last_version(path: Path) -> None:
    write(path, f"v2147483647 {TEXT}\n")
    with pytest.raises(KeyFileError, match="no version after"):
        add_key(path, bytes(32))
