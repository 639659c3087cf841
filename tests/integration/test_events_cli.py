"""``ebbing events``: real processes, killed at any moment."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest

from ebbing.exported import PROGRESS_FILE, parts
from server.settings import Settings
from server.state.sqlite import SqliteStore
from server.state.store import Interaction
from server.state.user_state import same
from tests.harness.state import records
from trainer.data.log import read_log

SEED = 5
EVENTS, USERS, ITEMS, DAYS = 30_000, 500, 60, 9
KILLS = 6


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"EBBING_{name.upper()}", raising=False)


def ebbing(*arguments: object) -> subprocess.Popen[str]:
    # In a session of its own, so that all processes of it can be looked for.
    return subprocess.Popen(
        [sys.executable, "-m", "ebbing", "events", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(*arguments: object) -> str:
    process = ebbing(*arguments)
    told, failed = process.communicate(timeout=120)
    assert process.returncode == 0, failed
    return told


def refused(*arguments: object) -> str:
    process = ebbing(*arguments)
    _, failed = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Traceback" not in failed
    return failed


def killed(chance: random.Random, longest_s: float, *arguments: object) -> bool:
    """Run a command and kill it at a random moment; whether it was still running."""
    process = ebbing(*arguments)
    time.sleep(chance.uniform(0.2, longest_s))
    process.kill()
    process.communicate()
    return process.returncode == -signal.SIGKILL


def took(*arguments: object) -> float:
    began = time.monotonic()
    run(*arguments)
    return time.monotonic() - began


def sessions() -> set[int]:
    """Sessions of all processes that live."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            found.add(int(fields[3]))
    return found


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log in CSV, with a catalogue."""
    folder = tmp_path_factory.mktemp("log")
    chance = random.Random(SEED)
    rows = sorted(
        (1_700_000_000 + chance.randrange(DAYS * 86400), chance.randrange(USERS))
        for _ in range(EVENTS)
    )
    (folder / "events.csv").write_text(
        "user_id,item_id,event_type,event_time\n"
        + "".join(f"u{user},i{chance.randrange(ITEMS)},view,{moment}\n" for moment, user in rows)
    )
    (folder / "items.csv").write_text(
        "item_id,interests\n" + "".join(f"i{n},topic-{n % 7}|topic-{n % 5}\n" for n in range(ITEMS))
    )
    return folder


@pytest.fixture(scope="module")
def whole(log: Path) -> Iterator[Path]:
    """A state with all of it."""
    state = log / "whole.db"
    assert "30,000 events written, 0 were there, 0 rows left out" in run(
        "import", log, "--state", state
    )
    yield state


def logged(state: Path) -> list[Interaction]:
    with closing(SqliteStore(state, records(128, 12 * 1024))) as store:
        return sorted(store.log("", EVENTS + 1)[0], key=lambda one: one.event_id)


def test_an_export_killed_at_any_moment_ends_as_the_log(whole: Path, tmp_path: Path) -> None:
    out, chance = tmp_path / "out", random.Random(SEED)
    how = ("export", "--state", whole, "--part-events", 1500, "--out")
    longest_s = took(*how, tmp_path / "timed")
    kills = sum(killed(chance, longest_s, *how, out) for _ in range(KILLS))
    assert kills
    assert "30,000 events" in run(*how, out)
    rows = pl.read_parquet(parts(out)).sort("event_id")
    every = logged(whole)
    assert rows["event_id"].to_list() == [one.event_id for one in every]
    assert rows["user_id"].to_list() == [one.user_id for one in every]
    assert sorted(out.rglob("*.parquet")) == sorted(parts(out))
    assert ", 0 of them new" in run(*how, out)
    assert len(read_log(out)) == EVENTS


def test_an_import_killed_at_any_moment_ends_as_if_it_had_not_been(
    log: Path, whole: Path, tmp_path: Path
) -> None:
    state, chance = tmp_path / "state.db", random.Random(SEED)
    longest_s = took("import", log, "--state", tmp_path / "timed.db")
    killed_sessions = []
    for _ in range(KILLS):
        process = ebbing("import", log, "--state", state)
        time.sleep(chance.uniform(0.3, longest_s))
        process.kill()
        process.wait()
        killed_sessions.append(process.pid)
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()
    told = run("import", log, "--state", state)
    accepted, known = (
        int(number.replace(",", ""))
        for number in re.findall(r"([\d,]+) (?:events written|were there)", told)
    )
    assert accepted + known == EVENTS
    assert logged(state) == logged(whole)
    with (
        closing(SqliteStore(state, records(128, 12 * 1024))) as one,
        closing(SqliteStore(whole, records(128, 12 * 1024))) as other,
    ):
        assert one.size()[:2] == other.size()[:2] == (USERS, EVENTS)
        for record, expected in zip(one.users("", 1000)[0], other.users("", 1000)[0], strict=True):
            assert same(record.state, expected.state)
    # The process that reads for one that was killed ends by itself.
    give_up = time.monotonic() + 20
    while sessions() & set(killed_sessions) and time.monotonic() < give_up:
        time.sleep(0.1)
    assert not sessions() & set(killed_sessions)


def test_an_export_goes_into_another_state_and_comes_out_the_same(
    whole: Path, tmp_path: Path
) -> None:
    run("export", "--state", whole, "--out", tmp_path / "out")
    run("import", tmp_path / "out", "--state", tmp_path / "copy.db", "--gently")
    assert logged(tmp_path / "copy.db") == logged(whole)


def test_windows_and_folders_are_minded(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    since = ("--since", "2023-11-16", "--until", "2023-11-17T00:00:00Z")
    run("export", "--state", whole, "--out", out, *since)
    assert [path.parent.name for path in parts(out)] == ["day=2023-11-16"]
    other = tmp_path / "other.db"
    assert "there is no" in refused("export", "--state", other, "--out", out, *since)
    SqliteStore(other, records()).close()
    assert "another state" in refused("export", "--state", other, "--out", out, *since)
    assert "--since" in refused("export", "--state", whole, "--out", out)
    assert "is no time" in refused("export", "--state", whole, "--out", out, "--since", "noon")
    (out / PROGRESS_FILE).write_text("{")
    assert "export into a new folder" in refused("export", "--state", whole, "--out", out)


def test_bad_rows_are_told_and_strict_stops_at_the_first(tmp_path: Path) -> None:
    path, state = tmp_path / "events.csv", tmp_path / "state.db"
    path.write_text("user_id,item_id,event_time\na,i1,5\nb,i1,soon\nc,i1,6\n")
    how = ("import", path, "--state", state, "--event-type", "view")
    assert "row 2: event_time is not a number" in refused(*how, "--strict")
    told = run(*how)
    assert "2 events written, 0 were there, 1 rows left out" in told
    assert "1 × event_time is not a number" in told
    assert f"{path}: row 2: " in told
    assert "unknown event type" in refused("import", path, "--state", state, "--event-type", "x")
    assert "no such file" in refused("import", tmp_path / "nowhere", "--state", state)
