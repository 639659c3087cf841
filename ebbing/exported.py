"""What an exported event log looks like as a folder: what writes and what reads one share this.

``day=2026-11-22/part-000007.parquet`` holds events of one UTC day of event time. Parts of one
number were written together. ``_export.json`` says how far the export is; it is replaced once all
parts of a number are on disk, so parts of higher numbers are debris of an export that was ended.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

__all__ = [
    "FORMAT",
    "PROGRESS_FILE",
    "STRAY_FILES",
    "ExportError",
    "all_parts",
    "part_path",
    "parts",
    "progress",
]

PROGRESS_FILE = "_export.json"
STRAY_FILES = "day=*/*.part"
"""Parts that were never finished."""
FORMAT = 1

_NUMBER = re.compile(r"part-(\d{6,})\.parquet")


class ExportError(Exception):
    """A folder that is no export, or not the one that was meant; the message says what to do."""


def part_path(day: str, number: int) -> Path:
    """Where a part is in the folder; ``day`` as in 2026-11-22."""
    return Path(f"day={day}") / f"part-{number:06d}.parquet"


def progress(folder: Path) -> dict[str, Any] | None:
    """How far the export in a folder is; None where there is none.

    Raises:
        ExportError: it cannot be read, or is of another version.
    """
    path = folder / PROGRESS_FILE
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ExportError(f"{path}: cannot be read ({error}): export into a new folder") from error
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise ExportError(f"{path}: of another version of Ebbing: export into a new folder")
    return told


def parts(folder: Path) -> list[Path]:
    """The parts of an export, in the order they were written; none where there is no export.

    Raises:
        ExportError: see ``progress``.
    """
    told = progress(folder)
    if told is None:
        return []
    return [path for number, path in all_parts(folder) if number <= told["parts"]]


def all_parts(folder: Path) -> list[tuple[int, Path]]:
    """Numbers and paths of all parts that are there, debris too, in the order of writing."""
    found = ((_NUMBER.fullmatch(path.name), path) for path in folder.glob("day=*/*.parquet"))
    return sorted((int(match[1]), path) for match, path in found if match)
