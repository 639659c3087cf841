"""What the operating system knows of processes."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path


def _status(pid: int) -> tuple[str, int] | None:
    """State and parent of a process; None where there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[0], int(fields[1])


def running(pid: int) -> bool:
    """Whether a process does anything still; a dead one that nobody has waited for does not."""
    status = _status(pid)
    return status is not None and status[0] not in "ZX"


def descendants(pid: int) -> list[int]:
    """The processes a process started, and those they started."""
    children = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (status := _status(int(entry.name))):
            children[status[1]].append(int(entry.name))
    found, left = [], [pid]
    while left:
        started = children[left.pop()]
        found += started
        left += started
    return found


def command(pid: int) -> str:
    """The command line of a process."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
