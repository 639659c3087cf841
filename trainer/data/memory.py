"""Whether a log fits into memory, asked before it is read."""

from __future__ import annotations

import gzip
import os
import resource
import zlib
from pathlib import Path

from trainer.data.raw import LogError, gone
from trainer.data.rows import opened

EVENT_BYTES = 160
"""Memory an event takes at the peak of reading, its share of the ids included; measured with
`benchmarks.data`, rounded up."""
_SAMPLE_BYTES = 1 << 20


def check_memory(path: Path, available: int | None) -> None:
    """Refuse a text file of events that is too large to be read.

    Args:
        path: one event a line, packed with gzip if its name ends in .gz.
        available: bytes, see `available_memory`; None leaves the check out.

    Raises:
        LogError: it is; the message says what it needs.
    """
    if available is None:
        return
    rows = estimated_rows(path)
    refuse_above(path, rows, available)


def refuse_above(path: Path, rows: int, available: int) -> None:
    """Refuse `rows` events that would need more than `available` bytes.

    Raises:
        LogError: they would.
    """
    need = rows * EVENT_BYTES
    if need > available:
        raise LogError(
            f"{path}: its {rows:,} events or so need {_gib(need)} of memory to be read, and "
            f"{_gib(available)} are free: free some, take a larger machine, or give a shorter log"
        )


def estimated_rows(path: Path) -> int:
    """About how many lines a text file has, judged by its size and its first megabyte.

    Raises:
        LogError: it cannot be opened.
    """
    try:
        size = path.stat().st_size
        with opened(path) as file:
            sample = file.read(_SAMPLE_BYTES)
            if isinstance(file, gzip.GzipFile):
                size = _unpacked(path, size * len(sample) / max(file.fileobj.tell(), 1))
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return 0  # a damaged file is refused by its reader, which knows more
    except OSError as error:
        raise gone(path, error) from error
    lines = sample.count(b"\n") or 1
    return round(size * lines / max(len(sample), 1))


def _unpacked(path: Path, about: float) -> int:
    """The size that a packed file tells of its content, which it does up to multiples of 4 GiB."""
    with path.open("rb") as packed:
        packed.seek(-4, os.SEEK_END)
        told = int.from_bytes(packed.read(4), "little")
    return told + max(round((about - told) / 2**32), 0) * 2**32


def available_memory() -> int | None:
    """Bytes this process may still take, as machine, control group and limits have it; None where
    the system does not tell."""
    free = [_machine(), _group(), _address_space()]
    return min((one for one in free if one is not None), default=None)


def _machine() -> int | None:
    for line in _text("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _group() -> int | None:
    root = "/sys/fs/cgroup"
    for line in _text("/proc/self/cgroup").splitlines():
        if line.startswith("0::"):
            own = f"{root}{line[3:]}".rstrip("/")
            for folder in (own, root):
                limit, used = _text(f"{folder}/memory.max"), _text(f"{folder}/memory.current")
                if limit.strip().isdigit() and used.strip().isdigit():
                    return max(int(limit) - int(used), 0)
    return None


def _address_space() -> int | None:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    pages = _text("/proc/self/statm").split()
    if limit == resource.RLIM_INFINITY or not pages:
        return None
    return max(limit - int(pages[0]) * resource.getpagesize(), 0)


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
