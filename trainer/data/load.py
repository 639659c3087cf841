"""A log as training takes it: read, cleaned, and with an account of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trainer.data.cleaning import CleaningConfig, Step, clean
from trainer.data.formats import read_raw
from trainer.data.log import EventLog, LogError, log_of
from trainer.data.memory import available_memory
from trainer.data.raw import Skipped


@dataclass(frozen=True)
class DataConfig:
    """How a log is read and cleaned."""

    max_bad_rows: float = 0.0
    """Share of the rows of each file that may not read; they are left out and counted."""
    cleaning: CleaningConfig = field(default_factory=CleaningConfig)
    """The steps of cleaning."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_bad_rows <= 1:
            raise ValueError(f"a share of bad rows of {self.max_bad_rows:g}: give one of 0 to 1")

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> DataConfig:
        """What `dataclasses.asdict` made of one.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        return cls(told["max_bad_rows"], CleaningConfig(**told["cleaning"]))


@dataclass(frozen=True)
class DataReport:
    """What was read, left out and changed."""

    format: str
    """Of the folder; see `trainer.data.formats`."""
    read: dict[str, int]
    """Events, users and items that were read; events that show no interest, items of the catalogue
    that no event has, and items of events that the catalogue lacks."""
    skipped: tuple[Skipped, ...]
    """Files of which rows were left out."""
    steps: tuple[Step, ...]
    """Of cleaning."""
    notes: tuple[str, ...]
    """What else to know."""

    def to_json(self) -> dict[str, Any]:
        """As run.json holds it."""
        return asdict(self)


def data_page(told: Mapping[str, Any]) -> list[str]:
    """Lines of Markdown for the training report, of what `DataReport.to_json` made."""
    counts = ", ".join(
        f"{count:,} {what.replace('_', ' ')}" for what, count in told["read"].items()
    )
    lines = [f"Format {told['format']}: {counts}.", ""]
    rows = [
        (
            f"rows of {one['file']} that do not read",
            "; ".join(f"{reason} ({count:,})" for reason, count in one["reasons"].items()),
            f"{one['bad']:,} of {one['rows']:,} rows",
        )
        for one in told["skipped"]
    ]
    rows += [
        (step["name"], step["did"], f"{step['changed']:,} of {step['of']:,} {step['unit']}")
        for step in told["steps"]
    ]
    if rows:
        lines += ["| step | what | changed |", "|---|---|---|"]
        lines += [*(f"| {' | '.join(row)} |" for row in rows), ""]
    return lines + [f"- {note}" for note in told["notes"]]


def load_log(
    folder: Path, config: DataConfig, available: int | None = None
) -> tuple[EventLog, DataReport]:
    """Read and clean the log in a folder.

    Args:
        available: bytes of memory that reading may take; None asks the system.

    Raises:
        LogError: it cannot be read, needs too much memory, has no event that shows interest, or
            cleaning leaves nothing of it.
    """
    raw = read_raw(
        folder, config.max_bad_rows, available_memory() if available is None else available
    )
    log = log_of(raw)
    had = np.bincount(log.items, minlength=len(log.item_ids)) > 0
    read = {
        "events": len(log),
        "users": len(log.user_ids),
        "items": len(log.item_ids),
        "events_without_interest": len(log) - len(log.engagements()),
        "items_without_events": int((~had).sum()),
        "items_outside_the_catalogue": len(log.item_ids) - len(raw.catalogue),
    }
    try:
        cleaned, steps = clean(log, config.cleaning)
    except LogError as error:
        raise LogError(f"{folder}: {error}") from error
    if not len(cleaned.engagements()):
        raise LogError(
            f"{folder}: none of its {len(cleaned):,} events shows interest (all are dislikes or "
            "impressions): give a log of what was taken, too"
        )
    return cleaned, DataReport(raw.format, read, raw.skipped, steps, raw.notes)
