"""The large retrieval model: its configuration is `trainer.plan.LargeShape`, so that what is
planned, measured on a GPU and trained is one thing."""

from __future__ import annotations

from trainer.plan import LargeShape
from trainer.retrieval import RetrievalConfig


def large_retrieval(shape: LargeShape | None = None) -> RetrievalConfig:
    """How a model of a shape is trained; the log says how many items it has."""
    shape = shape or LargeShape()
    return RetrievalConfig(
        model=shape.config,
        by_rows=True,
        batch_positions=shape.events,
        negatives=shape.negatives,
        epochs=5,
        patience=1,
        warmup_steps=1_000,
        checkpoint_steps=20_000,
    )
