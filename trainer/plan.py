"""What a large model needs, on paper: parameters, memory, time of a step.

Each figure is a formula of the shape, so that `docs/scaling.md` can be checked, and so that what a
GPU does can be laid beside it. Bytes and operations are counted as PyTorch executes the step one
operator at a time; where operators are fused fewer bytes move.

Shapes: V vocabulary rows, D width, N events a step, K negatives, L events of history, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ebbing.history import HISTORY_LENGTH
from trainer.catalogue_loss import AT_ONCE
from trainer.models.sequence import EVENT_TYPES, SequenceConfig
from trainer.models.vocabulary import FIRST_ITEM_ROW

FP32, BF16, INT64 = 4, 2, 8


@dataclass(frozen=True)
class Chip:
    """Published limits of a GPU."""

    name: str
    memory_bytes: float
    bytes_per_s: float
    """Of its memory."""
    bf16_flops: float
    """Dense products in bfloat16 a second; sheets that count sparsity say twice that."""
    fp32_flops: float
    host_bytes_per_s: float
    """From the host's memory, one way."""


H200 = Chip("NVIDIA H200 SXM", 141e9, 4.8e12, 989e12, 67e12, 64e9)
"""NVIDIA H200 Tensor Core GPU, data sheet (2024)."""


@dataclass(frozen=True)
class LargeShape:
    """The shape of a large model and of its steps."""

    items: int = 10_000_000
    """Items of the catalogue."""
    dim: int = 256
    """Width of item and user vectors."""
    heads: int = 8
    """Attention heads."""
    sequences: int = 1_280
    """Users a step, in all processes together."""
    length: int = HISTORY_LENGTH
    """Events of each of them."""
    negatives: int = 8_192
    """Sampled items a step; every event is told from all of them."""
    logged_events: int = 100_000_000
    """Events that popular negatives are drawn from."""

    def scaled(self, by: int) -> LargeShape:
        """The same width of a catalogue and log that many times smaller, and shorter steps."""
        return replace(
            self,
            items=self.items // by,
            logged_events=self.logged_events // by,
            sequences=max(self.sequences // 40, 1),
            negatives=max(self.negatives // 16, 1),
        )

    @property
    def config(self) -> SequenceConfig:
        """The model's own configuration."""
        return SequenceConfig(dim=self.dim, heads=self.heads)

    @property
    def events(self) -> int:
        """N."""
        return self.sequences * self.length


def dense_parameters(shape: LargeShape) -> int:
    """Parameters of the reader: ten square matrices, their biases and norms, what heads learn."""
    D, H = shape.dim, shape.heads
    return 10 * D * D + (EVENT_TYPES + 15) * D + H * (HISTORY_LENGTH + 2)


def table_parameters(shape: LargeShape) -> int:
    """Parameters of the item table."""
    return (shape.items + FIRST_ITEM_ROW) * shape.dim


def parameters(shape: LargeShape) -> int:
    """All parameters."""
    return table_parameters(shape) + dense_parameters(shape)


def rows_used(shape: LargeShape) -> int:
    """Rows a step looks up at most: targets are the history's items, shifted by one."""
    return shape.events + shape.sequences + shape.negatives + 2


LOGIT_BYTES_KEPT = 8
"""Memory a logit takes while it exists: itself in both kinds of arithmetic, its weight, and whether
it is the target itself."""

ACTIVATIONS = 24
"""Vectors of D floats an event takes at the peak, gradients included; measured in float32."""

ATTENTION_COPIES = 4
"""Numbers an event takes at the peak for each event of its history and each head; likewise."""


LOGIT_BYTES_MOVED, ACTIVATION_BYTES_MOVED, ATTENTION_BYTES_MOVED = 81, 900, 203
"""Bytes read and written in bfloat16 for a logit, for each number of an event's vector, and for
each event of its history and each head; counted operator by operator."""


def memory(shape: LargeShape, at_once: int = AT_ONCE["cuda"]) -> dict[str, float]:
    """Bytes on the GPU at the peak of a step, by what they are for.

    `at_once`: logits that exist at a time.
    """
    V, D, N, K = shape.items + FIRST_ITEM_ROW, shape.dim, shape.events, shape.negatives
    return {
        "item table": FP32 * table_parameters(shape),
        "state of the table's optimizer": FP32 * V,
        "dense weights, gradients and AdamW": 4 * FP32 * dense_parameters(shape),
        "vectors of the rows used, and their gradients": 4 * FP32 * rows_used(shape) * D,
        "activations": FP32 * ACTIVATIONS * N * D
        + FP32 * ATTENTION_COPIES * N * shape.length * shape.heads,
        "logits": LOGIT_BYTES_KEPT * min(N * K, at_once),
        "negatives: counts, popularity, events drawn from": 2 * FP32 * V + 4 * shape.logged_events,
    }


def flops(shape: LargeShape) -> dict[str, float]:
    """Operations of a step's products, forward and backward: backward takes twice the forward's."""
    D, N, K, L = shape.dim, shape.events, shape.negatives, shape.length
    return {
        "reader": 3 * 2 * 10 * N * D * D,
        "attention and short-term read-out": 3 * 2 * 3 * N * L * D,
        "logits": 3 * 2 * N * K * D,
    }


def moved(shape: LargeShape) -> dict[str, float]:
    """Bytes a step reads from the GPU's memory and writes to it."""
    D, N, K = shape.dim, shape.events, shape.negatives
    # Looked up and written; gradients summed, sorted and summed again; rows read and changed.
    passes = 10
    return {
        "rows of the table": passes * FP32 * rows_used(shape) * D,
        "reader": ACTIVATION_BYTES_MOVED * N * D + 8 * FP32 * dense_parameters(shape),
        "attention and short-term read-out": ATTENTION_BYTES_MOVED * N * shape.length * shape.heads,
        "logits": LOGIT_BYTES_MOVED * N * K,
    }


def from_host(shape: LargeShape) -> float:
    """Bytes of a batch: rows, types, targets and times."""
    return shape.events * (3 * INT64 + FP32)


def seconds(shape: LargeShape, chip: Chip = H200) -> dict[str, float]:
    """Least time of a step by each of the chip's limits; the largest is the one that counts."""
    return {
        "products": sum(flops(shape).values()) / chip.bf16_flops,
        "memory": sum(moved(shape).values()) / chip.bytes_per_s,
        "host": from_host(shape) / chip.host_bytes_per_s,
    }


def largest_catalogue(shape: LargeShape, chip: Chip = H200, spare: float = 0.1) -> int:
    """Items that fit on the chip beside what a step needs, a share of the memory kept spare."""
    per_item = FP32 * shape.dim + 3 * FP32
    kinds = memory(shape)
    table = ("item table", "state of the table's optimizer")
    rest = sum(size for name, size in kinds.items() if name not in table)
    return int((chip.memory_bytes * (1 - spare) - rest) / per_item)


def table(shape: LargeShape, chip: Chip = H200) -> str:
    """The plan as Markdown."""
    needed, at_once = memory(shape), seconds(shape, chip)
    lines = [
        f"{parameters(shape):,} parameters, of which {dense_parameters(shape):,} dense.",
        "",
        "| memory | GB |",
        "|---|---|",
        *(f"| {name} | {size / 1e9:.2f} |" for name, size in needed.items()),
        f"| **all, of {chip.memory_bytes / 1e9:.0f}** | **{sum(needed.values()) / 1e9:.2f}** |",
        "",
        "| a step | TFLOP | GB moved |",
        "|---|---|---|",
        *(
            f"| {name} | {flops(shape).get(name, 0) / 1e12:.3f} | "
            f"{moved(shape).get(name, 0) / 1e9:.2f} |"
            for name in dict.fromkeys([*flops(shape), *moved(shape)])
        ),
        "",
        f"| least time of a step on {chip.name} | ms |",
        "|---|---|",
        *(f"| by its {name} | {each * 1e3:.3f} |" for name, each in at_once.items()),
    ]
    return "\n".join(lines)
