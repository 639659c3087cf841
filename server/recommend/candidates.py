"""Where candidates come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import NamedTuple

from server.inference.loaded import Retrieved
from server.state.store import ItemRecord

__all__ = ["Candidate", "Source", "given", "known", "retrieved"]


class Source(IntEnum):
    """Where a candidate came from; numbers are those of ``ebbing.v1.CandidateSource``."""

    RETRIEVAL = 1
    POPULAR = 2
    FRESH = 3
    SOCIAL = 4
    REKINDLE = 5
    REQUEST = 6
    CONTEXT = 7


class Candidate(NamedTuple):
    """An item that may come into the slate."""

    item: ItemRecord
    source: Source
    retrieval_score: float | None = None
    """The retrieval model's score; None where it was not asked."""


def retrieved(answer: Retrieved, items: Mapping[int, ItemRecord]) -> list[Candidate]:
    """The retrieval model's items that the catalogue holds, best first."""
    return [
        Candidate(items[key], Source.RETRIEVAL, float(score))
        for key, score in zip(answer.keys.tolist(), answer.scores, strict=True)
        if key in items
    ]


def known(keys: Iterable[int], items: Mapping[int, ItemRecord], source: Source) -> list[Candidate]:
    """Items of a source that the catalogue holds, in its order."""
    return [Candidate(items[key], source) for key in keys if key in items]


def given(items: list[ItemRecord]) -> list[Candidate]:
    """Items that the caller asks about."""
    return [Candidate(item, Source.REQUEST) for item in items]
