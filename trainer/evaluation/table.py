"""What people are shown of the figures of a pair of models: a few rows, the rest is in files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from trainer.evaluation.ranking import RETRIEVAL, SCORERS
from trainer.evaluation.reranking import ORDERS

COLUMNS = {
    "hit_rate_at_10": "HR@10",
    "ndcg_at_10": "NDCG@10",
    "mrr": "MRR",
    "coverage_at_10": "coverage",
    "novelty_at_10": "novelty, bits",
    "interest_diversity_at_10": "diversity",
}
"""Figures that are shown, and how they are called for people."""

INTERVALS_OF = ("hit_rate_at_10", "ndcg_at_10")


def table(figures: Mapping[str, Any]) -> Table:
    """The whole-catalogue rows and those of reranking, of `RankingEvaluation.to_json`."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("", max_width=60)
    shown.add_column("tests", justify="right")
    for title in COLUMNS.values():
        shown.add_column(title, justify="right", no_wrap=True)
    for title, tests, cells in rows(figures):
        ours = "bold" if title == SCORERS[RETRIEVAL] else ""
        shown.add_row(title, f"{tests:,}", *cells, style=ours)
    return shown


def rows(figures: Mapping[str, Any]) -> Iterator[tuple[str, int, list[str]]]:
    """Title, number of tests and cells of `COLUMNS` of each row."""
    for name, row in figures["full_catalogue"].items():
        intervals = figures["intervals"][name]
        cells = [
            number(row[column])
            + (f" [{bounds(intervals[column])}]" if column in INTERVALS_OF else "")
            for column in COLUMNS
        ]
        yield SCORERS[name], row["tests"], cells
    for name, row in figures["reranking"].items():
        title = ORDERS[name] if name != RETRIEVAL else f"{ORDERS[name]}, its candidates as they are"
        yield title, row["tests"], [number(row.get(column)) for column in COLUMNS]


def number(value: float | None) -> str:
    """Four digits after the point, or a dash."""
    return "–" if value is None else f"{value:.4f}"


def bounds(interval: list[float | None]) -> str:
    """The ends of an interval, without the leading zeros."""
    return "–".join(number(end).removeprefix("0") for end in interval)
