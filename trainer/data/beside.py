"""What may lie beside a log of any format: relations of users, and content vectors of items.

`relations.csv[.gz]` with `user_id,other_user_id[,strength]`, and `contents/<modality>`, `.parquet`
or `.csv[.gz]`, with `item_id` and the numbers of its vector.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from trainer.data.plain import refuse_twice, there
from trainer.data.raw import LogError, Skipped, Vectors, gone
from trainer.data.rows import CSV, Field, header, identifier, number, read_rows


def read_relations(folder: Path, max_bad: float) -> tuple[pl.DataFrame | None, tuple[Skipped, ...]]:
    """`user_id`, `other_user_id` and `strength` of relations, where the folder has them.

    Raises:
        LogError: they do not read.
    """
    path = there(folder, "relations")
    if path is None:
        return None, ()
    fields = [identifier("user_id"), identifier("other_user_id")]
    if "strength" in header(path):
        fields.append(_positive("strength"))
    rows = read_rows(path, fields, CSV, max_bad)
    return rows.table, rows.skipped


def read_contents(folder: Path) -> dict[str, Vectors]:
    """Content vectors by modality: the files of `contents/`, named for it.

    Raises:
        LogError: a file does not read, has an item twice, or a vector of another width.
    """
    found: dict[str, Vectors] = {}
    for path in sorted((folder / "contents").glob("*")):
        modality, _, ending = path.name.partition(".")
        if ending == "parquet":
            found[modality] = _parquet_vectors(path)
        elif ending in ("csv", "csv.gz"):
            columns = [name for name in header(path) if name != "item_id"]
            rows = read_rows(
                path,
                (
                    identifier("item_id"),
                    *(number(name, "write a number, or nothing", True) for name in columns),
                ),
            )
            refuse_twice(rows, "item_id")
            found[modality] = Vectors(
                rows.table["item_id"].to_list(),
                rows.table.select(columns).to_numpy().astype(np.float32),
            )
    return found


def _parquet_vectors(path: Path) -> Vectors:
    """An `item_id` column beside one column of lists, or several of numbers."""
    try:
        table = pl.read_parquet(path)
    except OSError as error:
        raise gone(path, error) from error
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        raise LogError(f"{path}: cannot be read as Parquet ({reason}); write it again") from error
    columns = [name for name in table.columns if name != "item_id"]
    if "item_id" not in table.columns or not columns:
        raise LogError(f"{path}: needs a column item_id and a vector beside it")
    ids = table["item_id"].cast(pl.String)
    for bad, what in ((ids.is_null(), "is empty"), (~ids.is_first_distinct(), "appears twice")):
        if bad.any():
            raise LogError(
                f"{path}: row {bad.arg_max() + 1}: item_id {what}; give each item one row"
            )
    if len(columns) == 1 and isinstance(table.schema[columns[0]], pl.List | pl.Array):
        lists = table[columns[0]].cast(pl.List(pl.Float32))
        widths = lists.list.len()
        width = int(widths.drop_nulls().first() or 0)
        other = (widths != width).fill_null(False)
        if other.any():
            raise LogError(
                f"{path}: row {other.arg_max() + 1}: a vector of {widths[other.arg_max()]} numbers "
                f"among vectors of {width}; write vectors of one length"
            )
        values = np.full((len(ids), width), np.nan, np.float32)
        values[lists.is_not_null().to_numpy()] = (
            lists.drop_nulls().explode().to_numpy().reshape(-1, width)
        )
        return Vectors(ids.to_list(), values)
    try:
        numbers = table.select(pl.col(columns).cast(pl.Float32))
    except pl.exceptions.PolarsError as error:
        raise LogError(
            f"{path}: a column beside item_id holds no numbers; leave it out of contents/"
        ) from error
    return Vectors(ids.to_list(), numbers.to_numpy())


def _positive(column: str) -> Field:
    plain = number(column, "write a number above 0")

    def parse(text: pl.Expr) -> pl.Expr:
        value = plain.parse(text)
        return pl.when(value > 0).then(value)

    return Field(column, parse, f"{column} is not a number above 0", plain.remedy)
