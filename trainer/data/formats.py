"""Which format a folder is in, and its reader."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ebbing.exported import ExportError
from trainer.data.article import is_article, read_article
from trainer.data.beside import read_contents, read_relations
from trainer.data.exported import is_export, read_export
from trainer.data.movielens import read_movielens, release_of
from trainer.data.plain import read_items, read_plain, there
from trainer.data.raw import LogError, RawLog

FORMATS = (
    "events.csv and items.csv; user_data.csv, item_data.csv and labels.csv; the ratings and movies "
    "of MovieLens (.csv, .dat, or u.data and u.item); or what 'ebbing events export' wrote"
)


def read_raw(folder: Path, max_bad: float, available: int | None) -> RawLog:
    """Read the log in a folder, of whatever format.

    Args:
        max_bad: share of the rows of a file that may not read; they are left out and counted.
        available: bytes of memory that reading may take; None leaves the check out.

    Raises:
        LogError: no format is recognised, a file or column is missing, more rows do not read than
            are allowed to, there is no event, or too little memory.
    """
    if not folder.is_dir():
        raise LogError(f"{folder}: no such folder; give one that has {FORMATS}")
    if is_export(folder):
        raw = _exported(folder, max_bad, available)
    elif there(folder, "events"):
        raw = read_plain(folder, max_bad, available)
    elif is_article(folder):
        raw = read_article(folder, max_bad, available)
    elif release_of(folder):
        raw = read_movielens(folder, max_bad, available)
    else:
        raise LogError(
            f"{folder / 'events'}.csv[.gz]: missing, and no other log is there; a folder needs "
            f"{FORMATS}"
        )
    relations, skipped = read_relations(folder, max_bad)
    return replace(
        raw,
        contents={**raw.contents, **read_contents(folder)},
        relations=relations,
        skipped=(*raw.skipped, *skipped),
    )


def _exported(folder: Path, max_bad: float, available: int | None) -> RawLog:
    """An export, and a catalogue that may lie beside it and knows more."""
    try:
        raw = read_export(folder, available)
    except ExportError as error:
        raise LogError(str(error)) from error
    path = there(folder, "items")
    if path is None:
        return raw
    catalogue, skipped = read_items(path, max_bad)
    return replace(raw, catalogue={**raw.catalogue, **catalogue}, skipped=skipped)
