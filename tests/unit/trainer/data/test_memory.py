from __future__ import annotations

import gzip
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.data import memory
from trainer.data.formats import read_raw
from trainer.data.memory import available_memory, check_memory, estimated_rows
from trainer.data.raw import LogError

LINES = "".join(
    f"user-{one % 97},item-{one % 31},view,{1_700_000_000 + one}\n" for one in range(9000)
)


@pytest.mark.parametrize("name", ["events.csv", "events.csv.gz"])
def test_rows_are_estimated_before_a_file_is_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    packed = name.endswith("gz")
    path.write_bytes(gzip.compress(LINES.encode()) if packed else LINES.encode())
    assert estimated_rows(path) == pytest.approx(9000, rel=0.02)


def test_a_log_too_large_for_the_memory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text("user_id,item_id,event_type,event_time\n" + LINES)
    (tmp_path / "items.csv").write_text("item_id,interests\n")
    with pytest.raises(
        LogError, match=r"events\.csv: its 9,0\d\d events or so need .* GiB"
    ) as told:
        read_raw(tmp_path, 0.0, available=1000)
    assert "give a shorter log" in str(told.value)
    assert len(read_raw(tmp_path, 0.0, available=1 << 30).events.times) == 9000
    check_memory(tmp_path / "not there", None)


def test_the_memory_available_respects_the_limit_of_the_process() -> None:
    free = available_memory()
    assert free is None or free > 0
    limit = 1 << 30
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            "from trainer.data.memory import available_memory; print(available_memory())",
        ],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    ).stdout
    assert told.strip() == "None" or 0 <= int(told) < limit


def test_the_size_of_a_large_packed_file_is_judged_by_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "events.csv.gz"
    # 5 GiB of text would tell a size of 1 GiB.
    path.write_bytes(b"\0" * 100 + (1 << 30).to_bytes(4, "little"))
    assert memory._unpacked(path, 4.8 * 2**30) == 5 << 30
    assert memory._unpacked(path, 0.9 * 2**30) == 1 << 30


def test_a_damaged_file_is_left_to_its_reader(tmp_path: Path) -> None:
    path = tmp_path / "events.csv.gz"
    path.write_bytes(b"no gzip")
    assert estimated_rows(path) == 0
    with pytest.raises(LogError, match="went away"):
        estimated_rows(tmp_path / "nothing.csv")
